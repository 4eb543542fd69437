"""Cosigners who reach each other over relays alone: one killed, one hostile, one of them away for the proposal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from endpoints import soon
from relays import LocalRelay

from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.net.transport.relay import over_relays
from musignet.node.addresses import Rank
from musignet.node.effects import News, PeerUp, SessionNews
from musignet.node.peers import PeerInfo, PeerState
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Outcome
from musignet.wire.messages import Chain
from support.ceremony import account, identity, signing_group
from support.hostile_relay import BEHAVIOURS, Behaviour, Client, HostileRelay
from support.wallet import psbt

pytestmark = pytest.mark.driver

NAMES = ("alice", "bob", "carol")
GROUP = signing_group()
TIMEOUT_S = 30
QUICK = Limits(backoff_max_s=1.0, reapprove_s=1.0)


class Cosigner:
    """One member, reached at `inboxes` alone, and what it was told."""

    def __init__(self, name: str, folder: Path, inboxes: list[str], *, limits: Limits | None = None) -> None:
        self.name = name
        self.inboxes = inboxes
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.progress = asyncio.Event()
        self.service = NetworkService(
            name,
            host="",
            identity=identity(name),
            data_dir=folder / name,
            chain=Chain.REGTEST,
            on_event=self._told,
            limits=limits or QUICK,
            carriers=[over_relays(*inboxes)],
        )

    @property
    def info(self) -> PeerInfo:
        return PeerInfo(id=self.name, addresses=tuple(self.inboxes), pubkey_hex=self.service.pubkey_hex)

    def _told(self, news: News) -> None:
        if isinstance(news, SessionNews):
            self.progress.set()
            if isinstance(news.news, Outcome):
                self.outcomes.put_nowait(news.news)
        if isinstance(news, PeerUp):
            self.progress.set()

    async def start(self, everybody: tuple[Cosigner, ...]) -> None:
        await self.service.start()
        for other in everybody:
            if other is not self:
                self.service.add_peer(other.info)
        self.service.cosign(account(self.name, GROUP), Sessions)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.outcomes.get()


@asynccontextmanager
async def cosigners(
    folder: Path, *inboxes: list[str], away: str = ""
) -> AsyncIterator[tuple[Cosigner, Cosigner, Cosigner]]:
    alice, bob, carol = (Cosigner(name, folder, own) for name, own in zip(NAMES, inboxes, strict=True))
    everybody = (alice, bob, carol)
    here = [one for one in everybody if one.name != away]
    for one in here:
        await one.start(everybody)
    dials = [
        asyncio.ensure_future(one.service.connect_to_peer(other.name, persist=True))
        for n, one in enumerate(everybody)
        for other in everybody[n + 1 :]
        if one in here
    ]
    try:
        await asyncio.gather(
            *(dial for dial, other in zip(dials, ("bob", "carol", "carol"), strict=True) if other != away)
        )
        yield alice, bob, carol
    finally:
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
        for one in everybody:
            await one.service.stop()


async def completed(everybody: tuple[Cosigner, ...], session: bytes) -> None:
    outcomes = [await one.outcome() for one in everybody]
    assert [(one.session, one.end) for one in outcomes] == [(session, End.COMPLETED)] * len(everybody)
    assert len({one.transaction.raw for one in outcomes if one.transaction}) == 1


@pytest.fixture
def relays() -> list[LocalRelay]:
    return [LocalRelay() for _ in range(3)]


def test_three_cosigners_with_a_relay_of_their_own_each(tmp_path: Path, relays: list[LocalRelay]) -> None:
    async def main() -> None:
        async with cosigners(tmp_path, *([one.url] for one in relays)) as everybody:
            for one in everybody:
                assert {peer.path.rank for peer in one.service.peers() if peer.path} == {Rank.RELAYED}
            session = await everybody[0].service.propose(GROUP.id, psbt().serialize())
            await completed(everybody, session)

    asyncio.run(main())


HOSTILE = [
    "takes everything and delivers nothing", "drops every second event", "reorders", "replays",
    "tells each something else", "garbage", "wrong signatures", "events without end",
    "closes in the middle of an event",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_one_relay_is_killed_and_one_is_hostile_in_the_middle_of_a_session(
    tmp_path: Path, relays: list[LocalRelay], name: str
) -> None:
    async def main() -> None:
        async with HostileRelay(BEHAVIOURS[name]()).running() as hostile:
            urls = [relays[0].url, hostile.url, relays[1].url]
            async with cosigners(tmp_path, *[urls] * 3) as everybody:
                for one in everybody:
                    one.progress.clear()
                session = await everybody[0].service.propose(GROUP.id, psbt().serialize())
                await everybody[1].progress.wait()
                relays[0].kill()
                await completed(everybody, session)

    asyncio.run(main())


def test_who_is_away_for_the_proposal_signs_when_they_are_back(tmp_path: Path, relays: list[LocalRelay]) -> None:
    """Nobody touches anything: the proposal waits at the proposer's node, and the rounds run when all are up."""

    async def main() -> None:
        urls = [one.url for one in relays[:2]]
        async with cosigners(tmp_path, *[urls] * 3, away="carol") as everybody:
            alice, bob, carol = everybody
            session = await alice.service.propose(GROUP.id, psbt().serialize())
            await bob.progress.wait()
            assert alice.outcomes.empty()
            await carol.start(everybody)
            await completed(everybody, session)

    asyncio.run(main())


def test_who_goes_away_in_the_middle_signs_when_they_are_back(tmp_path: Path, relays: list[LocalRelay]) -> None:
    async def main() -> None:
        urls = [one.url for one in relays[:2]]
        async with cosigners(tmp_path, *[urls] * 3) as everybody:
            alice, bob, carol = everybody
            await carol.service.stop()
            session = await alice.service.propose(GROUP.id, psbt().serialize())
            again = Cosigner("carol", tmp_path, urls)
            await again.start((alice, bob, again))
            try:
                await completed((alice, bob, again), session)
            finally:
                await again.service.stop()

    asyncio.run(main())


class Interrupted(Behaviour):
    """It says that it takes everything, and at times passes nothing on."""

    silent = False

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        if not self.silent:
            await super().deliver(client, event)


def test_who_does_not_answer_is_not_there_whatever_the_relay_says() -> None:
    """Presence is a recent answer. The relay is connected all the time."""

    async def main() -> None:
        relay = HostileRelay(Interrupted())
        bounds = Limits(ping_interval_s=0.2, dead_after_s=0.6, backoff_max_s=0.2, handshake_timeout_s=0.5)
        async with relay.running():
            alice, bob = (
                NetworkService(name, host="", identity=identity(name), limits=bounds, carriers=[over_relays(relay.url)])
                for name in ("alice", "bob")
            )
            async with alice, bob:
                bob.add_peer(PeerInfo(id="alice", addresses=(relay.url,), pubkey_hex=alice.pubkey_hex))
                alice.add_peer(PeerInfo(id="bob", addresses=(relay.url,), pubkey_hex=bob.pubkey_hex))
                await alice.connect_to_peer("bob")
                relay.behaviour.silent = True  # type: ignore[attr-defined]
                await soon(lambda: alice.peer_state("bob") is not PeerState.CONNECTED)
                assert len(relay.clients) == 2
                relay.behaviour.silent = False  # type: ignore[attr-defined]
                await soon(lambda: alice.peer_state("bob") is PeerState.CONNECTED)

    asyncio.run(main())


def test_a_direct_path_is_preferred_and_a_relay_serves_where_there_is_none(relays: list[LocalRelay]) -> None:
    async def main() -> None:
        urls = [relays[0].url]
        alice = NetworkService("alice", host="", identity=identity("alice"), carriers=[over_relays(*urls)])
        bob = NetworkService("bob", identity=identity("bob"), carriers=[over_relays(*urls)])
        async with alice, bob:
            bob.add_peer(PeerInfo(id="alice", addresses=tuple(urls), pubkey_hex=alice.pubkey_hex))
            direct = f"127.0.0.1:{bob.port}"
            where = PeerInfo(id="bob", addresses=(direct, *urls), pubkey_hex=bob.pubkey_hex)
            peer = await alice.connect_to_peer(where)
            assert peer.path is not None
            assert peer.path.rank is Rank.LAN
            await alice.disconnect_from_peer("bob")
            alice.add_peer(PeerInfo(id="bob", addresses=("127.0.0.1:1", *urls), pubkey_hex=bob.pubkey_hex))
            peer = await alice.connect_to_peer("bob")
            assert peer.path is not None
            assert peer.path.rank is Rank.RELAYED

    asyncio.run(main())
