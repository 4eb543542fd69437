"""A proxy that harms TCP connections and datagrams by a seed: what a real network does, on the loopback.

What happens to the n-th connection is drawn from the seed and n alone. Sizes are the seed's too; the moments are the
machine's. Nothing here decides whether a test passes: `fired` counts what really happened.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import cast

__all__ = ["PASSING", "ChaosProxy", "DatagramChaos", "Fault", "Harm", "harms"]

_RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER: on, zero seconds. The socket ends with RST."""


class Fault(Enum):
    """What a connection meets."""

    NONE = "none"
    DELAY = "delay"
    """Each piece waits; the order stays."""
    SPLIT = "split"
    """Each byte is a segment of its own."""
    RESET = "reset"
    """After so many bytes both ends get RST, most often in the middle of a frame."""
    HALF_CLOSE = "half close"
    """After so many bytes one way ends with FIN, and what comes later on it is lost; the other way goes on."""
    BLACK_HOLE = "black hole"
    """After so many bytes nothing passes, either way, and nobody is told."""
    DUPLICATE = "duplicate"
    """The target gets every byte of the dialler a second time, on a connection of its own: a replay."""


PASSING = frozenset((Fault.NONE, Fault.DELAY, Fault.SPLIT, Fault.DUPLICATE))
"""These let a connection live."""


@dataclass(frozen=True)
class Harm:
    """What happens to one connection, and where."""

    fault: Fault
    after_bytes: int = 0
    to_target: bool = True
    delay_s: float = 0.0
    """The longest that one piece waits."""


def harms(
    seed: object, faults: Sequence[Fault], *, until: int | None = None, delay_s: float = 0.01, bytes_max: int = 4000
) -> Callable[[int], Harm]:
    """Return what happens to the connection number n, from 0. From `until` on nothing that ends one."""

    def harm(number: int) -> Harm:
        draw = random.Random(f"{seed} {number}")
        fault = draw.choice(list(faults))
        if until is not None and number >= until and fault not in PASSING:
            return Harm(Fault.NONE)
        after = int(bytes_max ** draw.random())  # as often in a handshake as after it
        return Harm(fault, after, draw.random() < 0.5, delay_s)

    return harm


class ChaosProxy:
    """Listens on the loopback, and passes what comes to `target`, a port there.

    Args: `plan` says what happens to the n-th connection (`harms`); `seed` draws delays.
    """

    def __init__(self, target: int, plan: Callable[[int], Harm], seed: object = 0, host: str = "127.0.0.1") -> None:
        self.target = target
        self.host = host
        self.port = 0
        self.accepted = 0
        self.fired: Counter[Fault] = Counter()
        self.draw = random.Random(str(seed))
        self._plan = plan
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ChaosProxy:
        self._server = await asyncio.get_running_loop().create_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self) -> _End:
        connection = _Connection(self, self._plan(self.accepted))
        self.accepted += 1
        self._connections.add(connection)
        task = asyncio.get_running_loop().create_task(connection.reach())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection.near

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)


class _End(asyncio.Protocol):
    """One end of a connection. What arrives here goes into `way`, which leads to the other end; None: it is dropped."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.stream: asyncio.Transport | None = None
        self.way: _Way | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.opened()

    def data_received(self, data: bytes) -> None:
        if self.way is not None:
            self.way.push(data)

    def eof_received(self) -> bool:
        if self.way is not None:
            self.way.push(b"")
        return True  # the other way goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._connection.lost(self)

    @property
    def writable(self) -> bool:
        return self.stream is not None and not self.gone and not self.stream.is_closing()

    def write(self, data: bytes) -> None:
        """Pass bytes on; none: the end."""
        if not self.writable:
            return
        assert self.stream is not None
        if data:
            self.stream.write(data)
        else:
            with suppress(OSError):  # it was reset, and we have not heard yet
                self.stream.write_eof()

    def reset(self) -> None:
        if self.writable:
            assert self.stream is not None
            self.stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.stream.abort()


class _Way:
    """One direction: pieces that wait for their turn, in order."""

    def __init__(self, connection: _Connection, to: Sequence[_End], harmed: bool) -> None:
        self._connection = connection
        self._to = to
        self._left: int | None = connection.harm.after_bytes if harmed else None
        """How many bytes pass before the fault; None: it does not strike here."""
        self._pieces: deque[bytes] = deque()
        self._busy = False
        self.closed = False

    def push(self, data: bytes) -> None:
        if self.closed:
            return
        if self._connection.harm.fault is Fault.SPLIT and data:
            self._pieces.extend(data[at : at + 1] for at in range(len(data)))
        else:
            self._pieces.append(data)
        self.go_on()

    def go_on(self) -> None:
        if self._pieces and not self._busy and self._connection.complete:
            self._busy = True
            self._connection.later(self._pass)

    def _pass(self) -> None:
        self._busy = False
        if self.closed:
            return
        data = self._pieces.popleft()
        strikes = self._left is not None and len(data) >= self._left
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        if data or not strikes:
            for end in self._to:
                end.write(data)
        if strikes:
            self._left = None
            asyncio.get_running_loop().call_soon(self._connection.strike, self)
        self.go_on()

    def end_here(self) -> None:
        """A FIN, and nothing more."""
        for end in self._to:
            end.write(b"")
        self.closed = True


class _Connection:
    """Two ends, two ways between them, and what happens to them."""

    def __init__(self, proxy: ChaosProxy, harm: Harm) -> None:
        self.harm = harm
        self.near, self.far = _End(self), _End(self)
        self._proxy = proxy
        self._ended = False
        self._ghost = _End(self) if harm.fault is Fault.DUPLICATE else None
        """What the target says to it goes nowhere."""
        strikes = harm.fault not in PASSING
        to_target = [self.far] if self._ghost is None else [self.far, self._ghost]
        self.near.way = self._up = _Way(self, to_target, strikes and harm.to_target)
        self.far.way = self._down = _Way(self, [self.near], strikes and not harm.to_target)
        if harm.fault in PASSING:
            proxy.fired[harm.fault] += 1

    @property
    def _ends(self) -> list[_End]:
        return [end for end in (self.near, self.far, self._ghost) if end is not None]

    @property
    def complete(self) -> bool:
        return all(end.stream is not None for end in self._ends)

    async def reach(self) -> None:
        """Connect to the target; where nobody is, the dialler is told by a reset."""
        loop = asyncio.get_running_loop()
        try:
            for end in self._ends[1:]:
                await loop.create_connection(lambda end=end: end, self._proxy.host, self._proxy.target)  # type: ignore[misc]
        except OSError:
            self.end()

    def opened(self) -> None:
        if self._ended:  # while the target was being reached
            self.end()
        for way in (self._up, self._down):
            way.go_on()

    def later(self, do: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if self.harm.fault is Fault.DELAY:
            loop.call_later(self._proxy.draw.random() * self.harm.delay_s, do)
        elif self.harm.fault is Fault.SPLIT:
            loop.call_soon(loop.call_soon, do)  # a turn for who reads, so that it gets one byte
        else:
            do()

    def strike(self, way: _Way) -> None:
        fault = self.harm.fault
        self._proxy.fired[fault] += 1
        if fault is Fault.RESET:
            self.end()
        elif fault is Fault.HALF_CLOSE:
            way.end_here()
        elif fault is Fault.BLACK_HOLE:
            self._up.closed = self._down.closed = True

    def lost(self, end: _End) -> None:
        """An end is gone: so is the other one, once it has what was on its way. In a black hole nobody is told."""
        if end is self._ghost:
            pass
        elif self._up.closed and self._down.closed:
            if self.near.gone and self.far.gone:
                self._proxy.forget(self)
        elif end.way is not None:
            end.way.push(b"")
            other = self.far if end is self.near else self.near
            if other.gone or not self.complete:
                self.end()

    def end(self) -> None:
        self._ended = True
        for end in self._ends:
            end.reset()
        self._proxy.forget(self)


class DatagramChaos(asyncio.DatagramProtocol):
    """The same for UDP: passes datagrams to `target`, a port on the loopback, and the answers back to who sent last.

    Each datagram is lost, doubled, held back until the next one has passed, or cut short, by the seed and its number.

    Args: shares, of 1, of the datagrams to which each of these happens.
    """

    def __init__(
        self, target: int, seed: object, *, lost: float = 0.1, doubled: float = 0.1, late: float = 0.1, cut: float = 0.0
    ) -> None:
        self.target = ("127.0.0.1", target)
        self.port = 0
        self.count = 0
        self.fired: Counter[str] = Counter()
        self._seed = seed
        self._shares = {"lost": lost, "doubled": doubled, "late": late, "cut": cut}
        self._held: list[tuple[bytes, tuple[str, int]]] = []
        self._near: tuple[str, int] | None = None
        self._stream: asyncio.DatagramTransport

    async def __aenter__(self) -> DatagramChaos:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port = self._stream.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        to = self._near if addr == self.target else self.target
        if addr != self.target:
            self._near = addr
        if to is None:
            return
        for piece in self._harmed(data, to):
            self._stream.sendto(piece, to)
        for piece, held_for in self._released(data):
            self._stream.sendto(piece, held_for)

    def _harmed(self, data: bytes, to: tuple[str, int]) -> list[bytes]:
        draw = random.Random(f"{self._seed} {self.count}")
        self.count += 1
        what = draw.choices(["passed", *self._shares], [1 - sum(self._shares.values()), *self._shares.values()])[0]
        self.fired[what] += 1
        if what == "late":
            self._held.append((data, to))
        if what in ("lost", "late"):
            return []
        return [data[: draw.randrange(len(data))] if what == "cut" and data else data] * (2 if what == "doubled" else 1)

    def _released(self, data: bytes) -> list[tuple[bytes, tuple[str, int]]]:
        """Return what was held back before this one came."""
        out = [one for one in self._held if one[0] is not data]
        self._held = [one for one in self._held if one[0] is data]
        return out
