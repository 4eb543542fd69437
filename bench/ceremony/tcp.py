"""Three services of one process over loopback TCP, with their journals in a folder: from the last approval to the end.

Two members approve by their policy; the third asks a person. The clock starts when that keyholder has checked the
person's proof, before the approval is on disk, and stops when the transaction is on the disk of all three: one record
for the approval and four at each of them, and no CPU but this one for all.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

import uvloop

from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.node.effects import News, SessionNews
from musignet.signing.effects import End, Outcome, Progress
from musignet.signing.keyholder import Account
from musignet.signing.policy import ask_always
from musignet.signing.states import State
from musignet.signing.verbs import Asked

from ..sides import BenchError
from ..stats import percentile
from .wallet import CHAIN, identity, signing_group, signing_key, spend
from .world import yes

__all__ = ["ceremonies"]

_SIGNERS = 3
_QUIET_S = 0.01
_PATIENCE_S = 20.0
_numbers = count()


class _Cosigner:
    """One service, and what it told of the session that runs."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.asked = asyncio.Event()
        self.approved = asyncio.Event()
        self.ended = asyncio.Event()
        self.said_yes_at = self.ended_at = 0.0
        self.outcome: Outcome | None = None
        self.service = NetworkService(
            f"signer {number}", host="127.0.0.1", identity=identity(number), data_dir=folder / str(number),
            chain=CHAIN, on_event=self._told, limits=Limits(),
        )  # fmt: skip

    def verify(self, *_: bytes) -> bool:
        """Take any proof of consent. The last thing before the approval is written."""
        self.said_yes_at = perf_counter()
        return True

    def begin(self) -> None:
        for event in (self.asked, self.approved, self.ended):
            event.clear()

    def _told(self, news: News) -> None:
        told = news.news if isinstance(news, SessionNews) else None
        if isinstance(told, Asked):
            self.asked.set()
        elif isinstance(told, Progress) and told.state is State.APPROVING:
            self.approved.set()
        elif isinstance(told, Outcome):
            self.outcome, self.ended_at = told, perf_counter()
            self.ended.set()


def ceremonies(folder: Path, number: int) -> dict[str, float]:
    """Run so many ceremonies with one input each. Returns p50 and p99 in milliseconds."""
    times = sorted(uvloop.run(_run(folder, number)))
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


async def _run(folder: Path, number: int) -> list[float]:
    group, cosigners = signing_group(_SIGNERS), [_Cosigner(at, folder) for at in range(_SIGNERS)]
    for one in cosigners:
        await one.service.start()
    try:
        await _join(cosigners)
        return [await _ceremony(group.id, cosigners) for _ in range(number)]
    finally:
        for one in cosigners:
            await one.service.stop()


async def _join(cosigners: list[_Cosigner]) -> None:
    for one in cosigners:
        for other in cosigners:
            if other is not one:
                one.service.add_peer(other.service.info)
        account = partial(Account, group=signing_group(_SIGNERS), identity=identity(one.number).pubkey)
        policy = ask_always if one is cosigners[-1] else yes
        one.service.cosign(account(key=signing_key(one.number), policy=policy, verifier=one.verify))
    for near in cosigners:
        for far in cosigners[: near.number]:
            await near.service.connect_to_peer(far.service.id)


async def _ceremony(group: bytes, cosigners: list[_Cosigner]) -> float:
    """Run one ceremony; return milliseconds."""
    proposer, last = cosigners[0], cosigners[-1]
    for one in cosigners:
        one.begin()
    psbt = spend(signing_group(_SIGNERS), 1, next(_numbers)).psbt
    session = await proposer.service.propose(group, psbt)
    async with asyncio.timeout(_PATIENCE_S):
        await asyncio.gather(last.asked.wait(), *(one.approved.wait() for one in cosigners[:-1]))
        await asyncio.sleep(_QUIET_S)  # both approvals have arrived everywhere
        await last.service.consent(session, b"yes")
        await asyncio.gather(*(one.ended.wait() for one in cosigners))
        await asyncio.sleep(_QUIET_S)  # what is still said belongs to this ceremony
    if any(one.outcome is None or one.outcome.end is not End.COMPLETED for one in cosigners):
        raise BenchError(f"a ceremony over TCP did not complete: {[one.outcome for one in cosigners]}")
    return (max(one.ended_at for one in cosigners) - last.said_yes_at) * 1e3
