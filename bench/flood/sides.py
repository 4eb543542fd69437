"""The processes of a flood, each told what to do by `bench.side`: victim, cosigner, honest peer, attacker."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from musignet.app.config import Config
from musignet.app.logs import set_up
from musignet.crypto.schnorr import PublicKey
from musignet.errors import NetworkError
from musignet.limits import Limits
from musignet.net.finder import Discover
from musignet.net.service import NetworkService
from musignet.net.transport.link import ChannelLink
from musignet.net.transport.tcp import TcpTransport
from musignet.node.effects import News, SessionNews
from musignet.node.peers import PeerInfo
from musignet.signing.keyholder import Account
from musignet.signing.policy import ask_always
from musignet.wire.envelope import Message

from ..ceremony.cosigner import Asking, Cosigner
from ..ceremony.wallet import CHAIN, identity, signing_group, signing_key
from ..stats import percentile
from .attacks import address, duel, member
from .plan import FLOODS, MEMBERS

__all__ = ["HONEST", "LOG_FILE", "Attacker", "Friend", "Honest", "Victim"]

HONEST: Final = {"honest-again": member(900), "honest-anew": member(901)}
LOG_FILE: Final = "node.log"
_FLOODS: Final = {flood.name: flood for flood in FLOODS}
_LOOPBACK: Final = "lo"
_TICK_S: Final = 0.01
_PATIENCE_S: Final = 10.0


class _Lag:
    """How late the event loop is: a callback every 10 ms says by how much it came too late."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + _TICK_S
        self._timer = self._loop.call_at(self._due, self._tick)
        self.late_s: list[float] = []

    def _tick(self) -> None:
        now = self._loop.time()
        late = now - self._due
        while late > 0:  # the ticks that never were would have been late, too
            self.late_s.append(late)
            late -= _TICK_S
        self._due = now + _TICK_S
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> dict[str, float]:
        self._timer.cancel()
        late = self.late_s or [0.0]
        return {"p99_ms": 1000 * percentile(late, 0.99), "max_ms": 1000 * max(late)}


class Friend(Cosigner):
    """The other cosigner: approves by its policy."""


class Victim(Asking):
    """A node as `musignet run` has it, its log in a file; it asks a person, who says yes in the middle of the flood."""

    async def open(  # type: ignore[override]
        self, number: int, signers: int, limits: dict[str, float], descriptors: int
    ) -> int:
        """Listen. `limits` differ from the default ones; `descriptors`: RLIMIT_NOFILE, or 0. Returns the port."""
        if descriptors:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
        set_up(replace(Config(), log_file=str(self._folder / LOG_FILE)))
        self._number, self._signers, self._group = number, signers, signing_group(signers).id
        self._service = NetworkService(
            "victim", host="127.0.0.1", identity=identity(number), data_dir=self._folder / str(number), chain=CHAIN,
            on_event=self._told, handler=self._heard, limits=Limits(**limits),
            discover=Discover(interfaces=(_LOOPBACK,), port=0),
        )  # fmt: skip
        await self._service.start()
        for known in range(MEMBERS):
            self._service.add_peer(PeerInfo(id=f"member {known}", pubkey_hex=member(known).pubkey_hex))
        own = identity(number)
        group = duel(own.public)
        self._service.cosign(Account(group=group, identity=own.pubkey, key=signing_key(0), policy=ask_always))
        for name, key in HONEST.items():
            self._service.add_peer(PeerInfo(id=name, pubkey_hex=key.pubkey_hex))
        return self._service.port

    async def discovery_port(self) -> int:
        return self._service.finder.discovery.port

    def _told(self, news: News) -> None:
        """Only of the ceremony: what an attacker proposes is another group's."""
        if isinstance(news, SessionNews) and news.key == self._group:
            super()._told(news)

    def _heard(self, message: Message, peer: object) -> None:
        self._messages += 1

    async def watch(self) -> None:
        self._messages = 0
        self._lag = _Lag()

    async def watched(self) -> dict[str, float]:
        return {**self._lag.stop(), "handled": self._messages}

    async def ended(self) -> dict[str, float | str]:
        with suppress(TimeoutError):
            return await super().ended()
        return {"end": f"not within {_PATIENCE_S:g} s", "said_yes_at": 0.0, "ended_at": _PATIENCE_S}


class _From(TcpTransport):
    """Dials from an address of its own choice, each time."""

    source: Callable[[], str]

    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        await self.loop.create_connection(lambda: link, host, port, local_addr=(self.source(), 0))  # type: ignore


class _Anew(_From):
    source = staticmethod(address)


class _Again(_From):
    source = staticmethod(lambda: "127.0.0.2")


class _Dialler:
    """Somebody in the victim's book, who connects again and again."""

    def __init__(self, name: str, transport: type[TcpTransport]) -> None:
        self.took_ms: list[float] = []
        self.failed: list[str] = []
        self._service = NetworkService(name, host="", identity=HONEST[name], chain=CHAIN, transport=transport)
        self._begun = 0.0
        """When the dial that goes on was begun."""

    async def start(self, victim: PeerInfo) -> None:
        """Connect once, before the flood."""
        await self._service.start()
        await (await self._service.connect_to_peer(victim)).disconnect()

    async def run(self, victim: PeerInfo) -> None:
        try:
            while True:
                await self._connect(victim)
                await asyncio.sleep(0.5)
        finally:
            if self._begun:  # still outside
                self.took_ms.append(1000 * (perf_counter() - self._begun))

    async def _connect(self, victim: PeerInfo) -> None:
        self._begun = perf_counter()
        try:
            peer = await self._service.connect_to_peer(victim, timeout_s=_PATIENCE_S, persist=True)
        except NetworkError as error:
            self.failed.append(str(error))
        else:
            await peer.disconnect()
        self.took_ms.append(1000 * (perf_counter() - self._begun))
        self._begun = 0.0


class Honest:
    """Two peers, one always from the same address and one from another each time."""

    def __init__(self, folder: Path) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, victim: dict[str, Any]) -> None:
        self._there = PeerInfo(**victim)
        self._diallers = {
            "honest-again": _Dialler("honest-again", _Again),
            "honest-anew": _Dialler("honest-anew", _Anew),
        }
        for one in self._diallers.values():
            await one.start(self._there)

    async def go(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(one.run(self._there)) for one in self._diallers.values()]

    async def stop(self) -> dict[str, dict[str, Any]]:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return {name: {"took_ms": one.took_ms, "failed": one.failed} for name, one in self._diallers.items()}


class Attacker:
    """Runs one of the attacks. Politely: the honest ones on the same processor go first."""

    def __init__(self, folder: Path) -> None:
        self._task: asyncio.Task[None]
        os.nice(10)

    async def start(self, name: str, port: int, key_hex: str) -> None:
        flood = _FLOODS[name]
        self._attack = flood.attack(port, PublicKey.from_hex(key_hex))
        self._attack.slots = flood.connections or self._attack.slots
        self._task = asyncio.get_running_loop().create_task(self._attack.run())

    async def stop(self) -> int:
        """Returns how often it attacked. Raises what ended the attack early."""
        while not self._task.done():
            self._task.cancel()  # again and again: a socket that ends in this very moment swallows it
            await asyncio.wait([self._task], timeout=_TICK_S)
        with suppress(asyncio.CancelledError):
            self._task.result()
        return self._attack.count


def info(port: int) -> dict[str, Any]:
    """Return where and who the victim is."""
    return asdict(PeerInfo(id="victim", host="127.0.0.1", port=port, pubkey_hex=identity(0).pubkey_hex))
