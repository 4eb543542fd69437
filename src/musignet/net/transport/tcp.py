"""TCP: `asyncio.Protocol` on both ends, and an accept loop of our own with a budget of slots and file descriptors.

asyncio's own accept loop takes everything the kernel offers and, out of descriptors, calls its error handler tens of
thousands of times a second. Ours takes a few at a time, closes what gets no slot, and pauses without descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from typing import Any, cast

from ...crypto.keys import Identity
from ...errors import IoError, TransportError
from ...limits import Limits
from ...node.addresses import Path, Rank
from ...wire.channel import SecureChannel
from .base import Sink
from .link import ChannelLink, ChannelTransport
from .route import DIRECT, Route, is_loopback

if sys.platform != "win32":
    import resource

__all__ = ["TcpLink", "TcpTransport", "port_of"]

_UNLIMITED = 2**31

_LOW_WATER = getattr(socket, "TCP_NOTSENT_LOWAT", None)
"""What the kernel takes ahead of the network, where it can be told: behind that an urgent message would wait too."""

_BACKLOG = 128
_EXHAUSTED_PAUSE_S = 0.5
_TAKEN = "another program may have this port; port 0 picks a free one"
_NOT_OURS = "this machine has no such address; 0.0.0.0 stands for every one that it has"
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


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
        stream.set_write_buffer_limits(high=self._owner.limits.write_chunk_bytes)
        raw = stream.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _LOW_WATER is not None:
                raw.setsockopt(socket.IPPROTO_TCP, _LOW_WATER, self._owner.limits.write_chunk_bytes)
        self.opened()

    @property
    def host(self) -> str:
        """Where the stream leads in fact; a name says less than the address it stood for."""
        peer = None if self._stream is None else self._stream.get_extra_info("peername")
        return peer[0] if peer else super().host

    @property
    def path(self) -> Path:
        return Path(Rank.PROXIED, self._owner.carrier) if self.proxied else super().path

    def data_received(self, data: bytes) -> None:
        self.feed(data)

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
            self._owner.loop.call_soon(self._stream.close)

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
        self._listener: socket.socket | None = None
        self._accepting = False
        self._accepted: set[asyncio.Task[None]] = set()
        self._descriptors_max = _descriptors_max(self.limits.descriptors_share)

    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink:
        return TcpLink(self, channel, outbound, address)

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
            self._listener = _bind(found[0])
        except (OSError, ValueError, OverflowError) as error:
            raise IoError(
                f"cannot listen on {self.host}:{self.port}: {getattr(error, 'strerror', None) or error}",
                hint=_NOT_OURS if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL else _TAKEN,
            ) from None
        self.port = self._listener.getsockname()[1]
        self._accept_more()

    async def _unlisten(self) -> None:
        self._accept_less()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await asyncio.gather(*self._accepted)  # a turn or two of the loop; cancelled, they would leave their sockets

    def _accept_more(self) -> None:
        if self._listener is not None and not self._accepting:
            self._accepting = True
            self.loop.add_reader(self._listener.fileno(), self._accept)

    def _accept_less(self) -> None:
        if self._listener is not None and self._accepting:
            self._accepting = False
            self.loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        """Take what the kernel offers, as far as there are slots. What is not taken waits in the kernel's backlog."""
        for _ in range(self.limits.accepts_per_wake):
            try:
                accepted, address = cast(socket.socket, self._listener).accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                return
            self._take(accepted, f"{address[0]}:{address[1]}")

    def _take(self, accepted: socket.socket, address: str) -> None:
        why = self._slot_for(address)
        if accepted.fileno() >= self._descriptors_max:
            why = "file descriptors are running out"
        if why:
            accepted.close()
            self.sink.refused(
                address, TransportError(why, hint="limits.py names the bound; raise it with limits=Limits(...)")
            )
            return
        accepted.setblocking(False)
        link = cast(TcpLink, self._answerer(address))
        link.proxied = self.route.fronted and is_loopback(link.host)
        task = self.loop.create_task(self._adopt(accepted, link))
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)

    async def _adopt(self, accepted: socket.socket, link: TcpLink) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: link, accepted)
        except OSError as error:
            accepted.close()
            link.lost(error)

    def _exhausted(self, error: OSError) -> None:
        """Out of descriptors: links that are up go on; new ones wait."""
        self._accept_less()
        self.sink.refused("", TransportError(f"cannot accept: {error.strerror}", hint="raise RLIMIT_NOFILE"))
        self.loop.call_later(_EXHAUSTED_PAUSE_S, self._accept_again)

    def _accept_again(self) -> None:
        if self._running:
            self._accept_more()


def _bind(
    found: tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]],
) -> socket.socket:
    family, kind, proto, _, address = found
    listener = socket.socket(family, kind, proto)
    try:
        listener.setblocking(False)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def port_of(port: int) -> int:
    """Return `port`. Raises ValueError where `getaddrinfo` would quietly take its lowest 16 bits."""
    if not 0 <= port <= 65_535:
        raise ValueError("a port is a number from 0 to 65535")
    return port


def _descriptors_max(share: float) -> int:
    if sys.platform == "win32":  # no such limit to ask for
        return _UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else int(soft * share)
