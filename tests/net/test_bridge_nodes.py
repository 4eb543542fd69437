"""A cosigner whose key is in another signer: real nodes over TCP, and btclib-wallet behind the bridge of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from musignet.bitcoin.group import Known
from musignet.errors import LocalError
from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.node.effects import News, SessionNews
from musignet.signing.bridge import Wants
from musignet.signing.effects import End, Outcome, Progress
from musignet.signing.group import SigningGroup
from musignet.signing.states import State
from musignet.signing.verbs import Asked
from musignet.wire.messages import Chain
from support.ceremony import account, identity, signing_group
from support.cosigners import Cosigner
from support.signers import BtclibSigner, keys_in
from support.wallet import MEMBERS, SHAPES, psbt, spend

TIMEOUT_S = 30


class Node:
    """One member with its service, and what it is told of sessions."""

    def __init__(self, name: str, folder: Path, limits: Limits | None = None) -> None:
        self.name = name
        self.told: list[object] = []
        self._changed = asyncio.Event()
        self.service = NetworkService(
            name, host="127.0.0.1", identity=identity(name), data_dir=folder / name, chain=Chain.REGTEST,
            on_event=self._heard, limits=limits,
        )  # fmt: skip

    def _heard(self, news: News) -> None:
        if isinstance(news, SessionNews):
            self.told.append(news.news)
            self._changed.set()

    async def hears(self, what: object) -> object:
        """Return the first news for which `what` is true."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                for one in self.told:
                    if what(one):
                        return one
                self._changed.clear()
                await self._changed.wait()

    async def outcome(self) -> Outcome:
        return await self.hears(lambda one: isinstance(one, Outcome))

    async def asked(self) -> bytes:
        return (await self.hears(lambda one: isinstance(one, Asked))).session

    async def in_state(self, state: State, attempt: int = 1) -> None:
        await self.hears(lambda one: isinstance(one, Progress) and (one.state, one.attempt) == (state, attempt))


@asynccontextmanager
async def nodes(
    folder: Path, group: SigningGroup, *, by_hand: tuple[str, ...] = ("bob",), limits: Limits | None = None
) -> AsyncIterator[dict[str, Node]]:
    """Three nodes that are connected; those `by_hand` have their key elsewhere."""
    made = {name: Node(name, folder, limits) for name in MEMBERS}
    for one in made.values():
        await one.service.start()
    try:
        for one in made.values():
            for other in made.values():
                if other is not one:
                    one.service.add_peer(other.service.info)
            if one.name in by_hand:
                one.service.cosign_by_hand(group)
            else:
                one.service.cosign(account(one.name, group))
        for near, far in (("alice", "bob"), ("alice", "carol"), ("bob", "carol")):
            await made[near].service.connect_to_peer(far)
        yield made
    finally:
        for one in made.values():
            await one.service.stop()


def proposed(group: SigningGroup, version: int = 0) -> bytes:
    tx, spent = spend(group.wallet)
    return psbt(group.wallet, tx, spent, version=version).serialize()


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_another_librarys_signer_is_a_cosigner(tmp_path: Path, shape: str, version: int) -> None:
    group = signing_group(shape)
    data = proposed(group, version)

    async def main() -> None:
        limits = Limits(phase_timeout_s=0.1, reapprove_s=0.2, silent_attempts_max=1)  # the signer alone takes longer
        async with nodes(tmp_path, group, limits=limits) as everybody:
            bob = everybody["bob"].service
            session = await everybody["alice"].service.propose(group.id, data)
            assert await everybody["bob"].asked() == session
            assert bob.signer_wants(session) is Wants.NONCES
            with BtclibSigner(*keys_in(data, group, MEMBERS.index("bob"))) as signer:
                assert bob.import_psbt(session, signer(bob.export_psbt(session))) is Wants.NONCES
                await everybody["bob"].in_state(State.ROUND_2)
                assert bob.signer_wants(session) is Wants.PARTIALS
                assert bob.import_psbt(session, signer(bob.export_psbt(session))) is Wants.PARTIALS
            outcomes = [await one.outcome() for one in everybody.values()]
            assert [(one.session, one.end) for one in outcomes] == [(session, End.COMPLETED)] * 3
            assert len({one.transaction.raw for one in outcomes if one.transaction}) == 1
            with pytest.raises(LocalError, match="no open session"):
                everybody["alice"].service.export_psbt(session)

    asyncio.run(main())


def test_two_of_three_may_have_their_keys_elsewhere(tmp_path: Path) -> None:
    group = signing_group()

    async def main() -> None:
        async with nodes(tmp_path, group, by_hand=("bob", "carol")) as everybody:
            session = await everybody["alice"].service.propose(group.id, proposed(group))
            signers = {
                name: Cosigner(group.wallet, group.positions[identity(name).pubkey], Known(), name)
                for name in ("bob", "carol")
            }
            for name, signer in signers.items():
                await everybody[name].asked()
                service = everybody[name].service
                service.import_psbt(session, signer.round_one(service.export_psbt(session)))
            for name, signer in signers.items():
                await everybody[name].in_state(State.ROUND_2)
                service = everybody[name].service
                assert service.import_psbt(session, signer.round_two(service.export_psbt(session))) is Wants.PARTIALS
            assert [(await one.outcome()).end for one in everybody.values()] == [End.COMPLETED] * 3

    asyncio.run(main())
