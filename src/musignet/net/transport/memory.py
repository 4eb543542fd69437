"""Links inside one process: the same channel over byte pipes. For tests, and for several nodes in one program."""

from __future__ import annotations

from typing import cast

from ...crypto.keys import Identity
from ...errors import IoError
from ...limits import KIB, Limits
from ...wire.channel import SecureChannel
from .base import Sink
from .link import ChannelLink, ChannelTransport

__all__ = ["MemoryNetwork", "MemoryTransport"]

_PIPE_BYTES = 256 * KIB
"""What one direction holds before its writer is told to wait, like a socket buffer."""


class MemoryNetwork:
    """Where `MemoryTransport`s of one process find each other, by host and port."""

    def __init__(self) -> None:
        self._listening: dict[tuple[str, int], MemoryTransport] = {}

    def listen(self, host: str, port: int, transport: MemoryTransport) -> int:
        """Take an address; port 0 picks one. Returns the port. Raises IoError when it is taken."""
        port = port or next(p for p in range(1, 65_536) if (host, p) not in self._listening)
        if (host, port) in self._listening:
            raise IoError(f"cannot listen on {host}:{port}: the address is taken", hint="port 0 picks a free one")
        self._listening[host, port] = transport
        return port

    def unlisten(self, host: str, port: int) -> None:
        """Give an address back."""
        self._listening.pop((host, port), None)

    def find(self, host: str, port: int) -> MemoryTransport | None:
        """Return who listens there, or None."""
        return self._listening.get((host, port))


class _MemoryLink(ChannelLink):
    """One end of a pair of pipes. Bytes for it wait in `_arriving` until the loop's next turn."""

    other: _MemoryLink | None = None

    def __init__(self, owner: ChannelTransport, channel: SecureChannel | None, outbound: bool, address: str) -> None:
        super().__init__(owner, channel, outbound, address)
        self._arriving: list[bytes] = []
        self._ended = False
        self._reading = True
        self._scheduled = False

    def _pause_stream(self) -> None:
        self._reading = False

    def _resume_stream(self) -> None:
        self._reading = True
        self._schedule()

    def _is_reading(self) -> bool:
        return self._reading

    def _write(self, data: bytes) -> None:
        other = self.other
        if other is None:
            return
        other._arriving.append(data)
        if sum(map(len, other._arriving)) > _PIPE_BYTES:
            self.clogged(True)
        other._schedule()

    def _close_stream(self) -> None:
        if self.other is not None:
            self.other._ended = True
            self.other._schedule()
        self._owner.loop.call_soon(self.lost, None)

    _abort_stream = _close_stream

    def _schedule(self) -> None:
        if not self._scheduled and self._reading:
            self._scheduled = True
            self._owner.loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if not self._reading:
            return
        data, self._arriving = b"".join(self._arriving), []
        if data:
            self.feed(data)
            if self.other is not None and self.other._clogged:
                self.other.clogged(False)
        elif self._ended:
            self.lost(None)
            return
        if self._arriving or self._ended:
            self._schedule()


class MemoryTransport(ChannelTransport):
    """Links within one process. A `Transport`.

    Args: as for `TcpTransport`, and the `network` on which the others are.
    """

    def __init__(
        self,
        identity: Identity,
        sink: Sink,
        host: str = "",
        port: int = 0,
        *,
        network: MemoryNetwork,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(identity, sink, limits=limits)
        self.host = host
        self.port = port
        self._network = network

    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink:
        return _MemoryLink(self, channel, outbound, address)

    async def _listen(self) -> None:
        if self.host:
            self.port = self._network.listen(self.host, self.port, self)

    async def _unlisten(self) -> None:
        self._network.unlisten(self.host, self.port)

    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        listener = self._network.find(host, port)
        if listener is None or listener._slot_for(self.host):
            raise ConnectionRefusedError(None, "nobody listens there")
        near = cast(_MemoryLink, link)
        far = cast(_MemoryLink, listener._answerer(f"{self.host}:{self.port}"))
        near.other, far.other = far, near
        far.opened()
        near.opened()
