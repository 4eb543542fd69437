"""TCP: `asyncio.Protocol` on both ends. Who dials us has shown act one, and it held, before its stream is opened."""

from __future__ import annotations

import asyncio
import errno
import socket
from secrets import token_bytes
from time import thread_time
from typing import Any, cast

from ...crypto.keys import Identity
from ...crypto.schnorr import PublicKey
from ...errors import IoError
from ...limits import Limits
from ...node.addresses import Path, Rank
from ...wire.channel import SecureChannel
from ...wire.noise import ACT_ONE_BYTES
from .base import Sink
from .link import ChannelLink, ChannelTransport
from .listener import Listener, Stream, take_little_ahead
from .route import DIRECT, Route, is_loopback

__all__ = ["TcpLink", "TcpTransport", "port_of"]

_TAKEN = "another program may have this port; port 0 picks a free one"
_NOT_OURS = "this machine has no such address; 0.0.0.0 stands for every one that it has"


class TcpLink(ChannelLink, asyncio.Protocol):
    """One TCP connection."""

    __slots__ = ("_stream", "proxied")

    def __init__(self, owner: ChannelTransport, channel: SecureChannel | None, outbound: bool, address: str) -> None:
        super().__init__(owner, channel, outbound, address)
        self._stream: asyncio.Transport | None = None
        self.proxied = False
        """Whether the stream ends at a proxy of ours, and the peer is beyond it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = self._stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=self._owner.limits.write_buffer_bytes)
        if self.outbound and (raw := stream.get_extra_info("socket")) is not None:
            take_little_ahead(raw, self._chunk)
        made = self._gone or self._has_channel
        self.opened(None if made else cast(TcpTransport, self._owner)._channel_in(self))

    @property
    def host(self) -> str:
        """Where the stream leads in fact; a name says less than the address it stood for."""
        peer = None if self._stream is None else self._stream.get_extra_info("peername")
        return peer[0] if peer else super().host

    @property
    def path(self) -> Path:
        return Path(Rank.PROXIED, self._owner.carrier) if self.proxied else super().path

    def data_received(self, data: bytes) -> None:
        if self._peer is None and not self.outbound:
            began = thread_time()
            self.feed(data)
            self._owner.slots.doors.worked(thread_time() - began, self._owner.loop.time())
        else:
            self.feed(data)

    def hear(self, said: bytes, accepted: socket.socket) -> bool:
        """Take in act one and answer it, while there is no stream yet. Returns whether one is wanted: the act held.

        The peer works on our answer while the stream is made. A fresh socket takes it whole.
        """
        self.began()
        self._clogged = True
        self.feed(said)
        self._clogged = False
        if not self._gone:
            try:
                accepted.sendall(b"".join(self._channel.data_to_send()))
            except OSError as error:
                self.lost(error)
        return not self._gone

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost(exc if isinstance(exc, OSError) else None)

    def pause_writing(self) -> None:
        self.clogged(True)

    def resume_writing(self) -> None:
        self.clogged(False)

    def _pause_stream(self) -> None:
        if self._stream is not None and not self._stream.is_closing():
            self._stream.pause_reading()

    def _resume_stream(self) -> None:
        if self._stream is not None and not self._stream.is_closing():
            self._stream.resume_reading()

    def _is_reading(self) -> bool:
        return self._stream is None or self._stream.is_reading()

    def _write(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)

    def _close_stream(self) -> None:
        if self._stream is not None:
            # Not at once: closed from inside `resume_writing`, asyncio's transport ends twice.
            self._owner.loop.call_soon(self._close_once, self._stream)

    @staticmethod
    def _close_once(stream: asyncio.Transport) -> None:
        if not stream.is_closing():  # asyncio's TLS, closed twice, cannot be aborted any more
            stream.close()

    def _abort_stream(self) -> None:
        if self._stream is not None:
            self._stream.abort()


class TcpTransport(ChannelTransport):
    """Links over TCP. A `Transport`.

    Args:
        identity: who we are on every link.
        sink:     who is told (see `Sink`).
        host, port: where to listen; port 0 picks a free one, which `port` then names. An empty host only dials.
        route:    which way out a dial takes.
    """

    _first_bytes = ACT_ONE_BYTES
    _peeks = False

    def __init__(
        self,
        identity: Identity,
        sink: Sink,
        host: str = "",
        port: int = 0,
        *,
        limits: Limits | None = None,
        route: Route = DIRECT,
    ) -> None:
        super().__init__(identity, sink, limits=limits)
        self.route = route
        self.host = host
        self.port = port
        self._listener: Listener | None = None
        self._accepted: set[asyncio.Task[None]] = set()

    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink:
        return TcpLink(self, channel, outbound, address)

    def _channel_in(self, link: TcpLink) -> SecureChannel:
        """Return the channel of a dial whose stream is open. One that comes to nothing costs no curve operation."""
        assert link._dialled is not None
        return SecureChannel.initiator(self.identity, link._dialled, token_bytes(32), budget=self._budget)

    def _channel_to(self, key: PublicKey | None) -> SecureChannel | None:
        return None if key is not None else super()._channel_to(None)

    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        near = cast(TcpLink, link)
        await self.loop.create_connection(lambda: near, **await self._way(near, host, port))

    async def _way(self, link: TcpLink, host: str, port: int) -> dict[str, Any]:
        """Return the arguments that get `create_connection` to where a link shall lead."""
        peer = b"" if link._dialled is None else link._dialled.compressed
        way = await self.route.way(host, port_of(port), peer)
        link.proxied = "sock" in way
        return way

    def _dial_timeout_s(self, host: str) -> float:
        limits = self.limits
        beyond_s = 0.0 if self.route.through(host) is None else limits.proxy_dial_timeout_s
        return beyond_s + limits.dial_timeout_s

    # --- listening ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if not self.host:
            return
        try:
            port = port_of(self.port)
            found = await self.loop.getaddrinfo(self.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self._listener = Listener(self, found[0], self._serve, first_bytes=self._first_bytes, peeks=self._peeks)
        except (OSError, ValueError, OverflowError) as error:
            raise IoError(
                f"cannot listen on {self.host}:{self.port}: {getattr(error, 'strerror', None) or error}",
                hint=_NOT_OURS if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL else _TAKEN,
            ) from None
        self.port = self._listener.port

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await asyncio.gather(*self._accepted)  # a turn or two of the loop; cancelled, they would leave their sockets

    def _serve(self, stream: Stream) -> None:
        """Begin a handshake. Act one comes first, where it has been read: of those that do not hold nothing is made."""
        link = cast(TcpLink, self._answerer(stream.address))
        link.proxied = self.route.fronted and is_loopback(link.host)
        if not self._peeks and not link.hear(stream.said, stream.socket):
            stream.socket.close()
            return
        task = self.loop.create_task(self._adopt(stream.socket, link))
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)

    async def _adopt(self, accepted: socket.socket, link: TcpLink) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: link, accepted)
        except OSError as error:
            accepted.close()
            link.lost(error)


def port_of(port: int) -> int:
    """Return `port`. Raises ValueError where `getaddrinfo` would quietly take its lowest 16 bits."""
    if not 0 <= port <= 65_535:
        raise ValueError("a port is a number from 0 to 65535")
    return port
