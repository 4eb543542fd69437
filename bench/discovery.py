"""Finding each other on one network, measured: `python -m bench discovery`.

From the start of a node to its link with a peer that runs already; from an invite to where its maker is; and the same
under a flood of 50,000 beacons a second, with the lag of the event loop and the memory of the nodes that are flooded:
two, in one process. Over the loopback: how long a switch takes is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Final

from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.net.finder import Discover
from musignet.net.lan import interfaces
from musignet.net.service import NetworkService
from musignet.node.effects import News, PeerUp
from musignet.node.peers import PeerInfo
from musignet.wire.beacon import Audience, Beacon, announce, seal

__all__ = ["add_to", "main"]

_LOOPBACK: Final = next(
    (one.name for one in interfaces([name for _, name in socket.if_nameindex()]) if one.is_loopback), ""
)
_SOURCES: Final = 250
_TICK_S: Final = 0.005
_WAIT_S: Final = 30.0


def add_to(cases: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the case `discovery` to the benchmark's command."""
    case = cases.add_parser("discovery", help="from a start to a link, from an invite to its maker; under a flood")
    case.add_argument("--rounds", type=int, default=20)
    case.add_argument("--seconds", type=float, default=60.0, help="of flood; 0 for none")
    case.add_argument("--rate", type=int, default=50_000, help="beacons a second in the flood")
    case.add_argument("--json", type=Path, metavar="FILE")


def main(options: argparse.Namespace) -> int:
    """Measure, print a table, and write JSON where that is wanted."""
    samples = asyncio.run(_quiet(options.rounds))
    if options.seconds:
        samples |= asyncio.run(_flooded(options.seconds, options.rate))
    for name, values in samples.items():
        print(f"{name:58} median {statistics.median(values):10,.1f}   most {max(values):10,.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"samples": samples}, indent=1) + "\n")
    return 0


# --- nodes --------------------------------------------------------------------------------------------------------


class _Node:
    """One service on the loopback, and whom it is connected with."""

    def __init__(self, name: str, port: int, identity: Identity, *knows: tuple[str, Identity]) -> None:
        self.up: dict[bytes, float] = {}
        self._wake = asyncio.Event()
        self.service = NetworkService(
            name, "", "127.0.0.1", identity=identity, chain=Chain.REGTEST, on_event=self._event,
            discover=Discover(interfaces=(_LOOPBACK,), port=port),
        )  # fmt: skip
        for label, other in knows:
            self.service.add_peer(PeerInfo(id=label, pubkey_hex=other.pubkey_hex))

    def _event(self, news: News) -> None:
        if isinstance(news, PeerUp):
            self.up[news.key] = time.perf_counter()
            self._wake.set()

    async def meets(self, other: Identity) -> float:
        """Return when both had proved their keys and announced themselves."""
        async with asyncio.timeout(_WAIT_S):
            while other.pubkey not in self.up:
                self._wake.clear()
                await self._wake.wait()
        return self.up[other.pubkey]


@asynccontextmanager
async def _running(name: str, port: int, identity: Identity, *knows: tuple[str, Identity]) -> AsyncIterator[_Node]:
    node = _Node(name, port, identity, *knows)
    async with node.service:
        yield node


def _port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("", 0))
        port: int = made.getsockname()[1]
        return port


# --- without a flood ----------------------------------------------------------------------------------------------


async def _quiet(rounds: int) -> dict[str, list[float]]:
    alice, started, found = Identity.generate(), [], []
    for _ in range(rounds):
        bob, port = Identity.generate(), _port()
        async with _running("alice", port, alice, ("bob", bob)) as there:
            started.append(await _start_to_link(port, there, bob, alice))
            found.append(await _invite_to_maker(port, there, alice))
    return {"ms from a node's start to its link": started, "ms from an invite to where its maker is": found}


async def _start_to_link(port: int, there: _Node, bob: Identity, alice: Identity) -> float:
    """Start a node whose peer has been running, at its slowest pace."""
    discovery = there.service.finder.discovery
    discovery._arm(_WAIT_S)
    began = time.perf_counter()
    async with _running("bob", port, bob, ("alice", alice)) as here:
        return 1000 * (max(await here.meets(alice), await there.meets(bob)) - began)


async def _invite_to_maker(port: int, there: _Node, alice: Identity) -> float:
    secret = token_bytes(16)
    audience = Audience.invite(secret, alice.pubkey)
    there.service.finder.add(secret, audience)
    await asyncio.sleep(0)
    async with _running("carol", port, Identity.generate()) as guest:
        for node in (there, guest):
            node.service.finder.discovery._last_round_at -= 1  # both have been running for a while
        began = time.perf_counter()
        await guest.service.finder.find(secret, audience, alice.pubkey)
        return 1000 * (time.perf_counter() - began)


# --- under a flood ------------------------------------------------------------------------------------------------


async def _flooded(seconds: float, rate: int) -> dict[str, list[float]]:
    alice, mallory = Identity.generate(), Identity.generate()
    port, honest, lags = _port(), [], []
    async with _running("alice", port, alice, ("mallory", mallory)) as node:
        node.service.finder.discovery.look(seconds)
        before = _resident_mib()
        watch = asyncio.ensure_future(_lag(lags))
        with _sender(port, alice, mallory, seconds, rate) as sent:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                bob = Identity.generate()
                node.service.add_peer(PeerInfo(id="bob", pubkey_hex=bob.pubkey_hex))
                honest.append(await _start_to_link(port, node, bob, alice))
                await node.service.remove_peer("bob")
            most = _resident_mib()
            count = await asyncio.to_thread(sent)
        watch.cancel()
        heard = node.service.finder.discovery.sightings
        taken = heard.unheard.total() + heard.verified
    ordered = sorted(lags)
    return {
        "flood: beacons sent a second": [count / seconds],
        "flood: of these, taken from the kernel a second": [taken / seconds],
        "flood: signatures checked a second": [heard.verified / seconds],
        "flood: lag of the loop, ms, p99": [1000 * ordered[len(ordered) * 99 // 100]],
        "flood: MiB of memory before": [before],
        "flood: MiB of memory at the end of it": [most],
        "flood: ms from an honest node's start to its link": honest,
    }


async def _lag(lags: list[float]) -> None:
    """Note how late the loop wakes whom it has promised to wake."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _TICK_S
        await asyncio.sleep(_TICK_S)
        lags.append(loop.time() - due)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@contextmanager
def _sender(port: int, alice: Identity, mallory: Identity, seconds: float, rate: int) -> Iterator:  # type: ignore[type-arg]
    """Flood the port from another process. Yields what waits for its end and returns how many it sent."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    pool = _pool(alice, mallory)
    child = context.Process(target=_flood, args=(theirs, port, pool, seconds, rate), daemon=True)
    child.start()
    ours.recv()
    try:
        yield ours.recv
    finally:
        child.join()


def _pool(alice: Identity, mallory: Identity) -> list[bytes]:
    """A quarter each: noise, others' beacons, a member's with a bad signature, strangers' that are open and valid."""
    pair = Audience.pair(mallory, alice.public)
    others = Audience(token_bytes(32), [mallory.pubkey])
    strangers = [Identity.generate() for _ in range(100)]
    now_ms, pool = int(time.time() * 1000), []
    for number in range(400):
        stranger = strangers[number % 100]
        beacon = Beacon(mallory.pubkey, b"epoch123", number, now_ms + number, 9000)
        forged = seal(beacon, stranger, Chain.REGTEST, pair, token_bytes(12))  # signed by a key that is not its own
        opened = announce(Beacon(stranger.pubkey, b"epoch123", number, now_ms, 9000, "x"), stranger, Chain.REGTEST)
        pool += [token_bytes(175), seal(beacon, mallory, Chain.REGTEST, others, token_bytes(12)), forged, opened]
    return pool


def _flood(
    pipe: multiprocessing.connection.Connection, port: int, pool: list[bytes], seconds: float, rate: int
) -> None:
    sources = []
    for number in range(_SOURCES):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"127.0.1.{number + 1}", 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.connect(("127.255.255.255", port))  # every node on the port gets it; a unicast would reach one
        sources.append(made)
    pipe.send(None)
    sent, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(min(500, int(passed * rate) - sent)):
            try:
                sources[sent % _SOURCES].send(pool[sent % len(pool)])
            except OSError:
                pass  # the kernel's queue is full: that is what a flood is
            sent += 1
    pipe.send(sent)
