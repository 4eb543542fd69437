"""Links over relays beside direct TCP, ceremonies of three over two relays, and what a relay keeps for each reader.

The relay is `musignet relay`, in a process of its own; each node, too. Relays of other makes are measured where they
are installed (`make relays`). On the loopback: the figures show what relays cost, not what distance does.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.ceremony import account, identity, signing_group
from tests.support.independent import MAKES, Independent, independent
from tests.support.wallet import group, outpoint, psbt, spend
from websockets.asyncio.client import connect

from musignet.bitcoin.transaction import TxIn
from musignet.chain import Chain
from musignet.net.service import NetworkService
from musignet.net.transport import TcpTransport
from musignet.net.transport.relay import RelayTransport, over_relays
from musignet.node.effects import News, SessionNews
from musignet.node.peers import PeerInfo
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Outcome
from musignet.wire.relaytalk import LETTERS, subscribe

from .machine import cpus
from .reach_nat import Node
from .sides import Side

__all__ = ["measure"]

NAMES = ("alice", "bob", "carol")
READERS = 1_000


class Linked(Node):
    """One end of a link over TCP, or over a relay where `relay` names one."""

    async def listen(self, relay: str) -> list[Any]:
        """Start the carrier; return our key, and where we are reached."""
        self.transport = (
            RelayTransport(self.identity, self, relays=[relay])
            if relay
            else TcpTransport(self.identity, self, "127.0.0.1")
        )
        await self.transport.start()
        return [self.identity.pubkey_hex, relay or "127.0.0.1", 0 if relay else self.transport.port]

    async def link(self, key: str, host: str, port: int) -> float:
        """Dial; return the milliseconds until the link was open."""
        began = time.perf_counter()
        await self.transport.connect(key, host, port)
        return 1000 * (time.perf_counter() - began)


class Ceremony:
    """Three cosigners in this process who reach each other at the same relays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group = signing_group()
        self._nodes: list[NetworkService] = []
        self._ended: dict[bytes, list[Outcome]] = {}
        self._wake = asyncio.Event()
        self._used = 0

    def _told(self, news: News) -> None:
        if isinstance(news, SessionNews) and isinstance(news.news, Outcome):
            self._ended.setdefault(news.news.session, []).append(news.news)
            self._wake.set()

    async def start(self, relays: list[str]) -> None:
        for name in NAMES:
            node = NetworkService(
                name, host="", identity=identity(name), data_dir=self._folder / f"relay-{name}", chain=Chain.REGTEST,
                on_event=self._told, carriers=[over_relays(*relays)],
            )  # fmt: skip
            await node.start()
            self._nodes.append(node)
        for node in self._nodes:
            for name, other in zip(NAMES, self._nodes, strict=True):
                if other is not node:
                    node.add_peer(PeerInfo(id=name, addresses=tuple(relays), pubkey_hex=other.pubkey_hex))
            node.cosign(account(node.id, self._group), Sessions)
        alice, bob, _ = self._nodes
        for one, other in ((alice, "bob"), (alice, "carol"), (bob, "carol")):
            await one.connect_to_peer(other, persist=True)

    def _proposal(self) -> bytes:
        """Return a PSBT that spends coins of its own."""
        tx, spent = spend(group())
        inputs = tuple(TxIn(outpoint(1_000 * self._used + n), one.sequence) for n, one in enumerate(tx.inputs))
        return psbt(tx=replace(tx, inputs=inputs), spent=spent).serialize()

    async def sign(self) -> float:
        """Return the milliseconds from a proposal to the transaction at all three."""
        self._used += 1
        began = time.perf_counter()
        session = await self._nodes[0].propose(self._group.id, self._proposal())
        async with asyncio.timeout(30):
            while len(self._ended.get(session, ())) < len(NAMES):
                self._wake.clear()
                await self._wake.wait()
        assert all(one.end is End.COMPLETED for one in self._ended.pop(session))
        return 1000 * (time.perf_counter() - began)


class Relay:
    """`musignet relay` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "musignet", "relay", "--listen", "127.0.0.1:0", "--data", str(folder)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[3].rstrip(";")

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def running(folder: Path) -> Iterator[Relay]:
    relay = Relay(folder)
    try:
        yield relay
    finally:
        relay._process.terminate()
        relay._process.wait()


async def _grown(relay: Relay | Independent) -> float:
    """Return by how many MiB the relay grows with `READERS` connections, each with three inboxes and nothing to do."""
    before = relay.rss_mib()
    sockets = []
    for number in range(READERS):
        socket = await connect(relay.url, compression=None, ping_interval=None)
        sockets.append(socket)
        await socket.send(subscribe(LETTERS, [f"{number * 3 + n:064x}" for n in range(3)]))
        while json.loads(await socket.recv())[0] not in ("EOSE", "CLOSED"):
            continue
    grown = relay.rss_mib() - before
    for socket in sockets:
        socket.transport.abort()
    return grown


def _ceremonies(folder: Path, relays: list[str], count: int, tell: Callable[[str], None]) -> dict[str, list[float]]:
    tell(f"ceremonies over {len(relays)} relays")
    with closing(Side(__name__, "Ceremony", list(cpus()), folder)) as three:
        three.call("start", relays=relays)
        return {"ceremony, ms": [three.call("sign") for _ in range(count)]}


def measure(folder: Path, rounds: int, messages: int, tell: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Return for each path the samples of each measure."""
    samples: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        relays = [stack.enter_context(running(folder / f"relay{n}")) for n in range(2)]
        made = {
            one: stack.enter_context(independent(one, folder / one)) for one, make in MAKES.items() if not make.missing
        }
        links = {}
        others = {name: one.url for name, one in made.items()}
        for name, url in {"direct TCP": "", "a relay": relays[0].url, **others}.items():
            tell(f"opening: {name}")
            near, far = (
                stack.enter_context(closing(Side(__name__, "Linked", [cpu], folder))) for cpu in (cpus()[0], cpus()[-1])
            )
            near.call("listen", relay=url)
            key, host, port = far.call("listen", relay=url)
            near.call("link", key=key, host=host, port=port)  # the first one also finds the relay
            samples[name] = {"open, ms": [near.call("link", key=key, host=host, port=port)]}
            links[name] = near
        for _ in range(rounds):
            for name, near in links.items():
                mine = samples[name]
                mine.setdefault("round trip, ms", []).append(
                    near.call("round_trip", count=200 if name[0] == "d" else 20)
                )
                mine.setdefault("messages/s", []).append(near.call("rate", count=messages))
        urls = [one.url for one in relays]
        samples["3-of-3 over two relays"] = _ceremonies(folder / "two", urls, 4 * rounds, tell)
        if made:
            urls = [urls[0], *(one.url for one in made.values())]
            samples[f"3-of-3 over {len(urls)} makes"] = _ceremonies(folder / "makes", urls, 4 * rounds, tell)
        tell(f"{READERS} idle readers")
        for name, relay in {"a relay": relays[1], **made}.items():
            before = relay.rss_mib()
            samples[f"{name} with {READERS} readers"] = {
                "grown, MiB": [asyncio.run(_grown(relay))], "before, MiB": [before]
            }  # fmt: skip
    return samples
