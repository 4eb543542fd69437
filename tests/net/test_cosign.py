"""Cosigners over real links and real journals: from a PSBT to one transaction, restarts and liars included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from services import cosigner

from musignet.app.liars import LIARS
from musignet.errors import InvalidMessage, IoError, LocalError
from musignet.limits import Limits
from musignet.net.cosigner import HolderHere
from musignet.net.custody import KEYHOLDER_KINDS, row
from musignet.net.folder import DataFolder
from musignet.net.service import NetworkService
from musignet.net.store import AlreadyStored, Journal
from musignet.net.transport import MemoryNetwork
from musignet.node.effects import News, SessionNews
from musignet.signing.blame import Kind, verify_blame
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Outcome
from musignet.signing.journal import SlotsBurned, write
from support.ceremony import account, identity, signing_group
from support.wallet import psbt

NAMES = ("alice", "bob", "carol")
GROUP = signing_group()
TIMEOUT_S = 30


class Cosigner:
    """One member with its service, and the outcomes it was told."""

    def __init__(self, name: str, network: MemoryNetwork, folder: Path, limits: Limits | None = None) -> None:
        self.name = name
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.service = cosigner(name, network, folder, self._told, limits=limits)

    def _told(self, news: News) -> None:
        if isinstance(news, SessionNews) and isinstance(news.news, Outcome):
            self.outcomes.put_nowait(news.news)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.outcomes.get()


@asynccontextmanager
async def cosigners(
    folder: Path, *, liar: str = "", limits: Limits | None = None
) -> AsyncIterator[tuple[Cosigner, Cosigner, Cosigner]]:
    network = MemoryNetwork()
    alice, bob, carol = (Cosigner(name, network, folder, limits) for name in NAMES)
    everybody = (alice, bob, carol)
    for one in everybody:
        await one.service.start()
    try:
        for one in everybody:
            for other in everybody:
                if other is not one:
                    one.service.add_peer(other.service.info)
            one.service.cosign(account(one.name, GROUP), LIARS[liar] if liar and one is carol else Sessions)
        for near, far in ((alice, bob), (alice, carol), (bob, carol)):
            await near.service.connect_to_peer(far.name)
        yield alice, bob, carol
    finally:
        for one in everybody:
            await one.service.stop()


def test_three_nodes_turn_a_psbt_into_one_transaction(tmp_path: Path) -> None:
    async def main() -> None:
        async with cosigners(tmp_path) as everybody:
            session = await everybody[0].service.propose(GROUP.id, psbt().serialize())
            outcomes = [await one.outcome() for one in everybody]
            assert [(one.session, one.end) for one in outcomes] == [(session, End.COMPLETED)] * 3
            assert len({one.transaction.raw for one in outcomes if one.transaction}) == 1

    asyncio.run(main())


def test_coins_that_are_approved_once_are_not_approved_for_another_session_even_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with cosigners(tmp_path) as everybody:
            await everybody[0].service.propose(GROUP.id, psbt().serialize())
            assert [(await one.outcome()).end for one in everybody] == [End.COMPLETED] * 3
        async with cosigners(tmp_path) as everybody:
            session = await everybody[1].service.propose(GROUP.id, psbt().serialize())
            while (outcome := await everybody[1].outcome()).session != session:
                assert outcome.end is End.COMPLETED, "the first session may say again how it ended"
            assert outcome.end is End.REFUSED
            assert "another approval spends the same coin" in str(outcome.error)

    asyncio.run(main())


@pytest.mark.parametrize(("liar", "kind"), [("bad-partial", Kind.BAD_PARTIAL), ("equivocate", Kind.EQUIVOCATION)])
def test_a_liar_is_named_with_a_proof_that_anybody_can_check(tmp_path: Path, liar: str, kind: Kind) -> None:
    async def main() -> None:
        async with cosigners(tmp_path, liar=liar) as (alice, bob, carol):
            await alice.service.propose(GROUP.id, psbt().serialize())
            for one in (alice, bob):
                outcome = await one.outcome()
                assert outcome.end is End.BLAMED
                assert verify_blame(outcome.blame, GROUP) == outcome.verdict
                assert outcome.verdict is not None
                assert (outcome.verdict.accused, outcome.verdict.kind) == (carol.service.identity.pubkey, kind)

    asyncio.run(main())


def test_a_silent_cosigner_is_suspected_and_not_proved(tmp_path: Path) -> None:
    async def main() -> None:
        async with cosigners(tmp_path, liar="silent", limits=Limits(phase_timeout_s=0.2)) as (alice, bob, carol):
            await alice.service.propose(GROUP.id, psbt().serialize())
            for one in (alice, bob):
                outcome = await one.outcome()
                assert (outcome.end, outcome.verdict) == (End.SILENT, None)
                assert outcome.suspects == (carol.service.identity.pubkey,)

    asyncio.run(main())


def test_a_lost_link_in_the_middle_does_not_end_a_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with cosigners(tmp_path, limits=Limits(phase_timeout_s=0.5, backoff_min_s=0.01)) as everybody:
            alice, bob, _ = everybody
            await alice.service.propose(GROUP.id, psbt().serialize())
            driver = alice.service._driver
            assert driver is not None
            for connection, _ in list(driver._connections.values()):
                if connection.peer.compressed == bob.service.identity.pubkey:
                    connection._abort_stream()  # type: ignore[attr-defined]
            outcomes = [await one.outcome() for one in everybody]
            assert [one.end for one in outcomes] == [End.COMPLETED] * 3

    asyncio.run(main())


def test_what_was_sent_is_written_before_the_disk_is_waited_for(tmp_path: Path) -> None:
    """The last to approve also begins the attempt: the others have its approval while its nonces go to the disk."""
    waiting: list[int] = []

    async def main() -> None:
        async with cosigners(tmp_path) as everybody:
            for one in everybody:
                driver = one.service._driver
                assert driver is not None
                holder = driver._cosigners[GROUP.id].holder
                assert isinstance(holder, HolderHere)
                journal = holder.custody._journal
                append = journal.append

                def watched(rows: object, driver: object = driver, append: object = append) -> list[int]:
                    waiting.append(len(driver._to_flush))
                    return append(rows)

                journal.append = watched
            await everybody[0].service.propose(GROUP.id, psbt().serialize())
            assert [(await one.outcome()).end for one in everybody] == [End.COMPLETED] * 3

    asyncio.run(main())
    assert waiting
    assert not any(waiting)


def test_what_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cosigners(tmp_path) as (alice, _, _):
            with pytest.raises(LocalError, match="not in that group"):
                await alice.service.propose(bytes(32), psbt().serialize())
            with pytest.raises(LocalError, match="cannot join this group"):
                alice.service.cosign(account("alice", GROUP))
            for call in (alice.service.consent(bytes(32), b""), alice.service.cancel_session(bytes(32))):
                with pytest.raises(InvalidMessage, match="no open session"):
                    await call
            await alice.service.propose(GROUP.id, b"not a psbt")
            assert (await alice.outcome()).end is End.REFUSED
        async with NetworkService("nobody", host="") as service:
            with pytest.raises(LocalError, match="needs a data folder"):
                service.cosign(account("alice", GROUP))

    asyncio.run(main())


@pytest.mark.parametrize("journal", ["keyholder's", "node's"])
def test_a_disk_that_fails_signs_nothing_and_the_node_goes_on(tmp_path: Path, journal: str) -> None:
    def fail(_: object) -> list[int]:
        raise IoError("the disk is full")

    async def main() -> None:
        async with cosigners(tmp_path) as (alice, bob, carol):
            driver = alice.service._driver
            assert driver is not None
            cosigner = driver._cosigners[GROUP.id]
            assert isinstance(cosigner.holder, HolderHere)
            failing = cosigner if journal == "node's" else cosigner.holder.custody
            failing._journal.append = fail  # type: ignore[assignment]
            await bob.service.propose(GROUP.id, psbt().serialize(), expires_in_s=0.5)
            for one in (bob, carol):
                outcome = await one.outcome()
                assert (outcome.end, outcome.suspects) == (End.EXPIRED, (alice.service.identity.pubkey,))
            assert len(await alice.service.connected_peers()) == 2

    asyncio.run(main())


def test_a_damaged_journal_is_not_signed_with(tmp_path: Path) -> None:
    async def main() -> None:
        async with cosigners(tmp_path) as everybody:
            await everybody[0].service.propose(GROUP.id, psbt().serialize())
            await everybody[0].outcome()
        (journal,) = (tmp_path / "alice").glob("keyholder-*.db")
        data = bytearray(journal.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        journal.write_bytes(data)
        service = NetworkService("alice", host="", identity=identity("alice"), data_dir=tmp_path / "alice")
        async with service:
            with pytest.raises(IoError):
                service.cosign(account("alice", GROUP))

    asyncio.run(main())


def test_the_database_refuses_a_second_burn_of_one_attempt(tmp_path: Path) -> None:
    """The last line of defence: whatever the keyholder believed, one attempt has one transcript."""
    folder = DataFolder.lock(tmp_path / "data")
    first, other = (SlotsBurned(bytes(32), 1, bytes(8), bytes((n,)) * 32) for n in (1, 2))
    with Journal.open(folder, "keyholder", KEYHOLDER_KINDS) as journal:
        journal.append([row(write(first))])
        with pytest.raises(AlreadyStored):
            journal.append([row(write(other))])
        journal.append([row(write(SlotsBurned(bytes(32), 2, bytes(8), bytes(32))))])
    folder.close()
