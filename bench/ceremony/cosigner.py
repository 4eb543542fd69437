"""One cosigner in a process of its own: a service on loopback TCP, told what to do by `bench.side`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter

from tests.support.unbound import RATES

from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.node.effects import News, SessionNews
from musignet.node.peers import PeerInfo
from musignet.signing.effects import End, Outcome, Progress
from musignet.signing.keyholder import Account
from musignet.signing.policy import ask_always
from musignet.signing.states import State
from musignet.signing.verbs import Asked

from .wallet import CHAIN, identity, signing_group, signing_key
from .world import yes

__all__ = ["Asking", "Cosigner"]

_PATIENCE_S = 20.0


class Cosigner:
    """Approves everything by its policy."""

    policy = staticmethod(yes)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready, self._ended = asyncio.Event(), asyncio.Event()
        self._said_yes_at = self._ended_at = 0.0
        self._outcome: Outcome | None = None
        self._number, self._signers = 0, 0
        self._service: NetworkService

    async def open(self, number: int, signers: int) -> int:
        """Listen. Returns the port."""
        self._number, self._signers = number, signers
        self._service = NetworkService(
            _label(number), host="127.0.0.1", identity=identity(number), data_dir=self._folder / str(number),
            chain=CHAIN, on_event=self._told, limits=Limits(**RATES),
        )  # fmt: skip
        await self._service.start()
        return self._service.port

    async def join(self, ports: list[int]) -> None:
        """Be in the group of those who listen there, and connect to those before us."""
        for number, port in enumerate(ports):
            if number != self._number:
                key = identity(number).pubkey_hex
                self._service.add_peer(PeerInfo(id=_label(number), host="127.0.0.1", port=port, pubkey_hex=key))
        account = Account(
            group=signing_group(self._signers), identity=identity(self._number).pubkey,
            key=signing_key(self._number), policy=self.policy, verifier=self._verify,
        )  # fmt: skip
        self._service.cosign(account)

    async def connect(self) -> None:
        for number in range(self._number):
            await self._service.connect_to_peer(_label(number))

    async def begin(self) -> None:
        self._ready.clear()
        self._ended.clear()

    async def propose(self, psbt_hex: str) -> str:
        """Returns the id of the session, in hex."""
        session = await self._service.propose(signing_group(self._signers).id, bytes.fromhex(psbt_hex))
        return session.hex()

    async def ready(self) -> None:
        """Return when we have approved, or our person is asked."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._ready.wait()

    async def consent(self, session: str) -> dict[str, float | str]:
        """Say yes, and return as `ended`."""
        await self._service.consent(bytes.fromhex(session), b"yes")
        return await self.ended()

    async def ended(self) -> dict[str, float | str]:
        """Return how it ended, when our person said yes, and when it was over: one clock for all processes."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._ended.wait()
        assert self._outcome is not None
        return {"end": self._outcome.end.value, "said_yes_at": self._said_yes_at, "ended_at": self._ended_at}

    def _verify(self, *_: bytes) -> bool:
        """Take any proof of consent. The last thing before the approval is written."""
        self._said_yes_at = perf_counter()
        return True

    def _told(self, news: News) -> None:
        told = news.news if isinstance(news, SessionNews) else None
        if isinstance(told, Asked) or (isinstance(told, Progress) and told.state is State.APPROVING):
            self._ready.set()
        elif isinstance(told, Outcome):
            self._outcome, self._ended_at = told, perf_counter()
            self._ended.set()


class Asking(Cosigner):
    """Asks a person."""

    policy = staticmethod(ask_always)


def _label(number: int) -> str:
    return f"signer {number}"


COMPLETED = End.COMPLETED.value
