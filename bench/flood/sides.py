"""The processes of a flood, each told what to do by `bench.side`: victim, cosigner, honest peer, attacker."""

from __future__ import annotations

import asyncio
import os
import resource
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
from musignet.net.service import NetworkService
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message

from ..ceremony.cosigner import Asking, Cosigner
from ..ceremony.wallet import CHAIN, identity
from ..stats import percentile
from .attacks import ATTACKS, member, most_members

__all__ = ["HONEST", "LOG_FILE", "Attacker", "Friend", "Honest", "Victim"]

HONEST: Final = member(900)
LOG_FILE: Final = "node.log"
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
        self._number, self._signers = number, signers
        self._service = NetworkService(
            "victim", host="127.0.0.1", identity=identity(number), data_dir=self._folder / str(number), chain=CHAIN,
            on_event=self._told, handler=self._heard, limits=Limits(**limits),
        )  # fmt: skip
        await self._service.start()
        for known in range(most_members()):
            self._service.add_peer(PeerInfo(id=f"member {known}", pubkey_hex=member(known).pubkey_hex))
        self._service.add_peer(PeerInfo(id="honest", pubkey_hex=HONEST.pubkey_hex))
        return self._service.port

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


class Honest:
    """Somebody in the victim's book, who connects again and again and says how long it took."""

    def __init__(self, folder: Path) -> None:
        self._task: asyncio.Task[None]
        self._took_ms: list[float] = []
        self._failed: list[str] = []
        self._begun = 0.0
        """When the dial that goes on was begun."""

    async def start(self, victim: dict[str, Any]) -> None:
        self._service = NetworkService("honest", host="", identity=HONEST, chain=CHAIN)
        await self._service.start()
        self._task = asyncio.get_running_loop().create_task(self._connect(PeerInfo(**victim)))

    async def _connect(self, victim: PeerInfo) -> None:
        while True:
            begun = self._begun = perf_counter()
            try:
                peer = await self._service.connect_to_peer(victim, timeout_s=_PATIENCE_S, persist=True)
            except NetworkError as error:
                self._failed.append(str(error))
            else:
                await peer.disconnect()
            self._took_ms.append(1000 * (perf_counter() - begun))
            self._begun = 0.0
            await asyncio.sleep(0.5)

    async def stop(self) -> dict[str, Any]:
        if self._begun:  # still outside
            self._took_ms.append(1000 * (perf_counter() - self._begun))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return {"took_ms": self._took_ms, "failed": self._failed}


class Attacker:
    """Runs one of the attacks. Politely: the honest ones on the same processor go first."""

    def __init__(self, folder: Path) -> None:
        self._task: asyncio.Task[None]
        os.nice(10)

    async def start(self, name: str, port: int, key_hex: str) -> None:
        self._attack = ATTACKS[name](port, PublicKey.from_hex(key_hex))
        self._task = asyncio.get_running_loop().create_task(self._attack.run())

    async def stop(self) -> int:
        """Returns how often it attacked."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._attack.count


def info(port: int) -> dict[str, Any]:
    """Return where and who the victim is."""
    return asdict(PeerInfo(id="victim", host="127.0.0.1", port=port, pubkey_hex=identity(0).pubkey_hex))
