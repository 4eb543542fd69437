"""Letters: what is left at relays for who is away. Two nodes that are never up together still hear of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoints import aio, soon
from relays import LocalRelay
from test_cosign_over_relays import GROUP, Cosigner, completed

from app.terminal import Terminal
from musignet.errors import Timeout
from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.net.transport.relay import over_relays
from musignet.node.peers import PeerInfo, PeerState
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, MessageType
from support.ceremony import identity
from support.hostile_relay import Behaviour, HostileRelay
from support.wallet import psbt

pytestmark = pytest.mark.driver

QUICK = Limits(handshake_timeout_s=0.5, backoff_max_s=1.0, reapprove_s=1.0)


@pytest.fixture
def relays() -> Iterator[list[str]]:
    made = [LocalRelay() for _ in range(2)]
    yield [one.url for one in made]
    for one in made:
        one.kill()


@pytest.fixture
def asking() -> Iterator[str]:
    relay = LocalRelay(asks=True)
    yield relay.url
    relay.kill()


class Node:
    """A node with a disk that is only reached at relays."""

    def __init__(self, name: str, folder: Path, relays: list[str]) -> None:
        self.relays = relays
        self.got: list[bytes] = []
        self.service = NetworkService(
            name, host="", identity=identity(name), data_dir=folder / name, chain=Chain.REGTEST, limits=QUICK,
            handler=lambda message, peer: self.got.append(message.payload), carriers=[over_relays(*relays)],
        )  # fmt: skip

    async def __aenter__(self) -> Node:
        await self.service.start()
        for name in ("alice", "bob"):
            if name != self.service.id:
                key = identity(name).pubkey_hex
                self.service.add_peer(PeerInfo(id=name, addresses=tuple(self.relays), pubkey_hex=key))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.stop()

    async def dials(self, name: str) -> None:
        """Dial somebody who is not there, and has not been: now there is a mail link."""
        with pytest.raises((ConnectionError, Timeout), match="no handshake"):
            await self.service.connect_to_peer(name)

    def waits(self, name: str) -> int:
        """How many messages to this peer are not acknowledged."""
        record = self.service._find(name)
        return len(record.unacked) + len(record.parked)


def chat(text: bytes) -> Message:
    return Message(MessageType.CHAT, "x", text)


@aio
async def test_a_message_reaches_who_comes_when_its_sender_has_gone_and_so_does_the_receipt(
    tmp_path: Path, relays: list[str]
) -> None:
    async with Node("alice", tmp_path, relays) as alice:
        await alice.service.send_message_to("bob", chat(b"before the dial"))
        await alice.dials("bob")
        await alice.service.send_message_to("bob", chat(b"after it"))
    async with Node("bob", tmp_path, relays) as bob:
        await soon(lambda: len(bob.got) == 2)
        assert bob.got == [b"before the dial", b"after it"]
        assert bob.service.peer_state("alice") is not PeerState.CONNECTED
    async with Node("bob", tmp_path, relays) as bob:
        await bob.service.send_message_to("alice", chat(b"back"))
        await bob.dials("alice")
        await soon(lambda: any(line.up for line in _box(bob)._streams.lines))
        assert bob.got == [], "what was handled is not handled again, though the relays still have it"
    async with Node("alice", tmp_path, relays) as alice:
        await soon(lambda: alice.got == [b"back"] and not alice.waits("bob"))


def _box(node: Node) -> object:
    transport = node.service._running._transport.carriers["ws"]  # type: ignore[attr-defined]
    return transport._box  # type: ignore[no-any-return]


def test_a_proposal_waits_at_the_relays_for_who_comes_when_nobody_else_is_there(
    tmp_path: Path, relays: list[str]
) -> None:
    async def main() -> None:
        alice, carol = (Cosigner(name, tmp_path, relays, limits=QUICK) for name in ("alice", "carol"))
        bob = Cosigner("bob", tmp_path, relays, limits=QUICK)
        for one in (alice, carol):
            await one.start((alice, bob, carol))
        await alice.service.connect_to_peer("carol")
        with pytest.raises(ConnectionError, match="no handshake"):
            await alice.service.connect_to_peer("bob")
        session = await alice.service.propose(GROUP.id, psbt().serialize())
        await carol.progress.wait()
        for one in (alice, carol):
            await one.service.stop()

        await bob.start((alice, bob, carol))
        async with asyncio.timeout(10):
            await bob.progress.wait()
        assert [one.proposal.session for one in bob.service.sessions(GROUP.id)] == [session]

        again = [Cosigner(name, tmp_path, relays, limits=QUICK) for name in ("alice", "carol")]
        everybody = (again[0], bob, again[1])
        for one in again:
            await one.start(everybody)
        dials = [
            asyncio.ensure_future(one.service.connect_to_peer(other.name, persist=True))
            for one, other in ((again[0], bob), (again[0], again[1]), (bob, again[1]))
        ]
        try:
            await completed(everybody, session)
        finally:
            for dial in dials:
                dial.cancel()
            await asyncio.gather(*dials, return_exceptions=True)
            for one in everybody:
                await one.service.stop()

    asyncio.run(main())


@pytest.mark.parametrize("days", [-6, -1, 0, 1])
@aio
async def test_letters_of_other_days_are_read_where_a_relay_asks_whose_inbox_it_is(
    tmp_path: Path, asking: str, days: int
) -> None:
    """It shows each connection one inbox. Their sender has gone, or has another date."""
    await left_and_read(tmp_path, asking, days)


@aio
async def test_a_letter_of_yesterday_is_read_at_a_relay_of_our_own(tmp_path: Path) -> None:
    with Terminal("relay", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "relay")) as relay:
        url = await asyncio.to_thread(lambda: relay.expect(r"a relay at (ws://127\.0\.0\.1:\d+)").group(1))
        await left_and_read(tmp_path, url, -1)


async def left_and_read(folder: Path, relay: str, days: int) -> None:
    async with Node("alice", folder, [relay]) as alice:
        streams = _box(alice)._streams  # type: ignore[attr-defined]
        inbox_of = streams._inbox_of
        streams._inbox_of = lambda peer, period: inbox_of(peer, period + days)
        await alice.dials("bob")
        await alice.service.send_message_to("bob", chat(b"of another day"))
    async with Node("bob", folder, [relay]) as bob:
        await soon(lambda: bob.got == [b"of another day"])


@aio
async def test_a_live_link_takes_the_letters_place(tmp_path: Path, relays: list[str]) -> None:
    async with Node("alice", tmp_path, relays) as alice:
        await alice.dials("bob")
        async with Node("bob", tmp_path, relays) as bob:
            await bob.service.connect_to_peer("alice")
            assert alice.service.peer("bob").path is not None
            await soon(lambda: not _box(alice)._links)  # type: ignore[attr-defined]
            await alice.service.send_message_to("bob", chat(b"live"))
            await soon(lambda: bob.got == [b"live"])


@aio
async def test_what_each_relay_keeps_says_nothing_and_expires(tmp_path: Path) -> None:
    kept, beside = Behaviour(), Behaviour()
    async with HostileRelay(kept).running() as relay, HostileRelay(beside).running() as other:
        async with Node("alice", tmp_path, [relay.url, other.url]) as alice:
            await alice.service.send_message_to("bob", chat(b"secret words"))
            await alice.dials("bob")
            await soon(lambda: any(event["kind"] == 1059 for event in kept.events))
        letters = [event for event in kept.events if event["kind"] == 1059]
        assert letters == [event for event in beside.events if event["kind"] == 1059]
        for event in letters:
            assert b"secret words".hex() not in str(event)
            assert identity("bob").pubkey_hex[2:] not in str(event)
            assert int(event["tags"][1][1]) - event["created_at"] == 7 * 86_400
