"""A data folder is copied, used, lost and put back from the copy: its node is told what the disk forgot."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from services import cosigner

from musignet.net.folder import DataFolder
from musignet.net.mailstore import MailStore
from musignet.net.transport import MemoryNetwork
from musignet.node.effects import News, OldDisk, SessionNews, Store
from musignet.node.kept import Box, Kept
from musignet.signing.effects import End, Outcome, Progress
from musignet.signing.states import State
from musignet.signing.verbs import Status
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType, PeerAnnouncement
from support.ceremony import account, identity, signing_group
from support.wallet import psbt

GROUP = signing_group()
TIMEOUT_S = 30


class Member:
    """A member's service, and what it was told."""

    def __init__(self, name: str, network: MemoryNetwork, folder: Path) -> None:
        self.heard: asyncio.Queue[News] = asyncio.Queue()
        self.service = cosigner(name, network, folder, self.heard.put_nowait)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                news = await self.heard.get()
                if isinstance(news, SessionNews) and isinstance(news.news, Outcome):
                    return news.news

    async def approved(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                news = await self.heard.get()
                told = news.news if isinstance(news, SessionNews) else None
                if isinstance(told, Progress) and told.state is State.APPROVING:
                    return

    async def told(self) -> OldDisk:
        async with asyncio.timeout(TIMEOUT_S):
            while not isinstance(news := await self.heard.get(), OldDisk):
                pass
            return news


@asynccontextmanager
async def running(name: str, network: MemoryNetwork, folder: Path, *others: Member) -> AsyncIterator[Member]:
    """Run a member who is connected to the others; one member of the group is never there."""
    member = Member(name, network, folder)
    async with member.service as service:
        service.cosign(account(name, GROUP))
        for other in others:
            other.service.add_peer(service.info)
            await service.connect_to_peer(other.service.info)
        yield member


def test_a_folder_that_was_put_back_is_proved_old_and_what_was_open_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with running("alice", network, tmp_path) as alice:
            async with running("bob", network, tmp_path, alice) as bob:
                session = await alice.service.propose(GROUP.id, psbt().serialize())
                await bob.approved()
            shutil.copytree(tmp_path / "bob", tmp_path / "copy")
            async with running("bob", network, tmp_path, alice) as bob:
                await bob.service.cancel_session(session)
                assert (await bob.outcome()).end is End.CANCELLED
            async with running("bob", network, tmp_path, alice):
                pass  # alice has heard how far its disk is
            shutil.rmtree(tmp_path / "bob")
            (tmp_path / "copy").rename(tmp_path / "bob")
            async with running("bob", network, tmp_path, alice) as bob:
                news = await bob.told()
                assert news.key == alice.service.identity.pubkey
                outcome = await bob.outcome()
                assert (outcome.session, outcome.end) == (session, End.OLD_DISK)
                assert outcome.error is news.error
                holder = bob.service._running.cosigner(GROUP.id).holder.custody.keyholder  # type: ignore[attr-defined]
                (status,) = holder.handle(Status(session), bob.service._running.now())
                assert status.wiped
            async with running("bob", network, tmp_path, alice) as bob:
                outcome = await bob.outcome()
                assert (outcome.session, outcome.end) == (session, End.OLD_DISK)
                again = [bob.heard.get_nowait() for _ in range(bob.heard.qsize())]
                assert not any(isinstance(one, OldDisk) for one in again)

    with caplog.at_level(logging.ERROR, "musignet"):
        asyncio.run(main())
    (line,) = [one.getMessage() for one in caplog.records]
    assert "came back with an old disk" in line
    assert "alice" in line


def test_an_identity_that_is_copied_to_a_fresh_folder_is_told_once(tmp_path: Path) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        async with running("alice", network, tmp_path) as alice:
            async with running("bob", network, tmp_path, alice) as bob:
                await alice.service.propose(GROUP.id, psbt().serialize())
                await bob.approved()
            async with running("bob", network, tmp_path, alice):
                pass
            async with running("bob", network, tmp_path / "fresh", alice) as bob:
                await bob.told()
            async with running("bob", network, tmp_path / "fresh", alice) as bob:
                again = [bob.heard.get_nowait() for _ in range(bob.heard.qsize())]
                assert not any(isinstance(one, OldDisk) for one in again)

    asyncio.run(main())


def test_the_journal_gives_back_the_count_and_the_last_proof(tmp_path: Path) -> None:
    said = PeerAnnouncement("bob", (), (), bytes(8), b"", 0, 7)
    signed = Message(MessageType.PEER_ANNOUNCEMENT, "bob", said).sign(identity("bob"), to=identity("alice").pubkey)
    key = identity("alice").pubkey

    async def main() -> None:
        folder = DataFolder.lock(tmp_path)
        store = MailStore(folder, lambda _: None)
        for count, envelope, drop in ((1, b"", 0), (8, signed.raw, 1), (9, b"", 0), (10, b"", 9)):
            put = Kept(Box.CHANGES, count.to_bytes(16), envelope)
            store.store(Store(b"", (put,), ((Box.CHANGES, drop.to_bytes(16)),)))
        store.store(Store(key, (Kept(Box.ANNOUNCED, signed.id, signed.raw),)))
        await store.close()
        store = MailStore(folder, lambda _: None)
        found = store.load()
        assert (found.changes, found.old, found.announced) == (10, (8, signed), ((key, signed),))
        await store.close()
        folder.close()

    asyncio.run(main())
