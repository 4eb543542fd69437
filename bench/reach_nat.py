"""Links through two home routers: punched, by way of TURN, and beside them TCP to a port that a router forwards.

In the lab of the tests: network namespaces of this machine, without delay or loss. So the figures show what carriers
cost, not what distance does. Links alone: encrypted and authenticated, their messages unsigned.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.support.gauges import Gauged
from tests.support.netlab import INTERNET, Lab, reason_against

from musignet.crypto.keys import Identity
from musignet.errors import NetworkError
from musignet.limits import Limits
from musignet.net.nat import Servers, TurnServer
from musignet.net.transport import TcpTransport
from musignet.net.transport.base import Connection
from musignet.node.rates import Standing
from musignet.wire.channel import CloseReceived

from .machine import cpus
from .sides import BenchError, Side

__all__ = ["PATHS", "measure"]

PATHS = {
    "TCP, a forwarded port": (("cone", "cone"), "", False),
    "punched": (("cone", "cone"), "", False),
    "TURN over UDP": (("symmetric", "symmetric"), "", True),
    "TURN over TCP": (("symmetric", "symmetric"), "AB", True),
}
_PORT = 8737
_PAYLOAD = bytes(300)


class Node(Gauged):
    """One end, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.identity = Identity.generate()
        super().__init__(standing=Standing.COSIGNER)
        self.transport: Any = None
        self.connection: Connection | None = None
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.dial: asyncio.Task[Any] | None = None
        self.began = 0.0

    def connected(self, connection: Connection) -> None:
        self.connection = connection

    def received(self, connection: Connection, envelopes: list[bytes], ids: bytes) -> None:
        for envelope in envelopes:
            if envelope[:1] == b"?":
                connection.send(b"!")
            elif envelope[:1] == b"!":
                self.heard.put_nowait(envelope)
        connection.flush()

    def closed(self, connection: Connection, error: NetworkError | None, goodbye: CloseReceived | None) -> None: ...

    def refused(self, address: str, error: NetworkError) -> None: ...

    async def open(self, tcp: bool, turn: bool) -> str:
        """Start the carrier; return our key."""
        from musignet.net.transport.punched import PunchedTransport

        if tcp:
            self.transport = TcpTransport(self.identity, self, "0.0.0.0", _PORT)
        else:
            lender = (TurnServer(INTERNET, 3478, "u", "p"),) if turn else ()
            self.transport = PunchedTransport(
                self.identity, self, signal=lambda peer, data: self.said.put_nowait(data.hex()),
                servers=Servers(((INTERNET, 3478),), lender), limits=Limits(ice_offers_pause_s=0.01),
            )  # fmt: skip
        await self.transport.start()
        return self.identity.pubkey_hex

    async def begin(self, key: str, host: str) -> str:
        """Dial; return the offer, where the carrier makes one."""
        self.began = time.perf_counter()
        self.dial = asyncio.create_task(self.transport.connect(key, host, _PORT))
        return "" if isinstance(self.transport, TcpTransport) else await self.said.get()

    async def answer(self, key: str, data: str) -> str:
        self.transport.signalled(key, bytes.fromhex(data))
        return await self.said.get()

    async def finish(self, key: str, data: str) -> float:
        """Take the answer in; return the seconds from the dial to the open link."""
        if data:
            self.transport.signalled(key, bytes.fromhex(data))
        assert self.dial is not None
        await self.dial
        return time.perf_counter() - self.began

    async def round_trip(self, count: int) -> float:
        """Return the median in milliseconds."""
        times = [await self._until_answered(1) for _ in range(count)]
        return statistics.median(times) * 1e3

    async def rate(self, count: int) -> float:
        """Return messages a second, until the last is answered."""
        return count / await self._until_answered(count)

    async def _until_answered(self, count: int) -> float:
        assert self.connection is not None
        began = time.perf_counter()
        for number in range(count):
            self.connection.send((b"?" if number == count - 1 else b".") + _PAYLOAD)
            if number % 50 == 49:
                self.connection.flush()
                await asyncio.sleep(0)
        self.connection.flush()
        await self.heard.get()
        return time.perf_counter() - began


class _Path:
    """Two nodes and what is between them, linked."""

    def __init__(self, name: str, mark: str, folder: Path, stack: ExitStack) -> None:
        kinds, no_udp, turn = PATHS[name]
        tcp = name.startswith("TCP")
        lab = stack.enter_context(Lab((kinds[0], kinds[1]), no_udp=no_udp, mark=mark))
        lab.start_turn()
        if tcp:
            lab.forward("B", _PORT)
        ends = zip("AB", (cpus()[0], cpus()[-1]), strict=True)
        sides = [Side(__name__, "Node", [cpu], folder, inside=lab.inside(at)) for at, cpu in ends]
        self.near, self.far = (stack.enter_context(closing(side)) for side in sides)
        near_key, far_key = (side.call("open", tcp=tcp, turn=turn) for side in sides)
        offer = self.near.call("begin", key=far_key, host=lab.outside("B"))
        answer = self.far.call("answer", key=near_key, data=offer) if offer else ""
        self.dial_s: float = self.near.call("finish", key=far_key, data=answer)


def measure(folder: Path, rounds: int, messages: int, tell: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Return for each path the samples of each measure. Raises BenchError where no lab can be built."""
    if why := reason_against():
        raise BenchError(f"no lab of two routers: {why}")
    with ExitStack() as stack:
        paths = {}
        for mark, name in zip("abcd", PATHS, strict=True):
            tell(f"opening: {name}")
            paths[name] = _Path(name, mark, folder, stack)
        samples = {
            name: {"open, s": [path.dial_s], "round trip, ms": [], "messages/s": []} for name, path in paths.items()
        }
        for _ in range(rounds):
            for name, path in paths.items():
                samples[name]["round trip, ms"].append(path.near.call("round_trip", count=200))
                samples[name]["messages/s"].append(path.near.call("rate", count=messages))
    return samples
