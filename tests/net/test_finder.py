"""Services that find each other on the local network: real links, and no address typed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoints import Signal, aio, turns

from musignet import limits
from musignet.chain import Chain
from musignet.errors import IoError, LocalError, NetworkError, Timeout
from musignet.net.finder import Discover
from musignet.net.folder import DataFolder
from musignet.net.heard import Heard
from musignet.net.lan import interfaces
from musignet.net.service import NetworkService
from musignet.node.effects import News, PeerDown, PeerUp
from musignet.node.peers import PeerInfo, PeerState
from musignet.node.sightings import Mark, Unheard
from musignet.wire.beacon import Audience
from support.keys import ALICE, BOB, CAROL

LOOPBACK = next((one.name for one in interfaces([name for _, name in socket.if_nameindex()]) if one.is_loopback), "")
KEYS = {"alice": ALICE, "bob": BOB, "carol": CAROL}

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(not LOOPBACK, reason="no loopback interface with an address"),
]


class House(Signal):
    """One service, and what it published."""

    def __init__(self, name: str, port: int, knows: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__()
        self.news: list[News] = []
        discover = Discover(interfaces=(LOOPBACK,), port=port)
        options = {"identity": KEYS[name], "discover": discover, "chain": Chain.REGTEST} | options
        self.service = NetworkService(name, on_event=self._event, **options)
        for other in knows:
            self.service.add_peer(PeerInfo(id=other, pubkey_hex=KEYS[other].pubkey_hex))

    def _event(self, news: News) -> None:
        self.news.append(news)
        self.poke()

    def listen(self) -> None:
        """Look again after each datagram, too."""
        lan = self.service.finder.discovery._lan
        heard = lan._heard

        def hear(data: bytes, source: str, way: str) -> None:
            heard(data, source, way)
            self.poke()

        lan._heard = hear

    def linked(self, name: str) -> bool:
        return self.service.peer_state(name) is PeerState.CONNECTED

    async def meets(self, *names: str) -> None:
        await self.until(lambda: all(self.linked(name) for name in names))

    def told(self, kind: type[News]) -> int:
        return sum(isinstance(one, kind) for one in self.news)

    @property
    def udp_port(self) -> int:
        return self.service.finder.discovery.port

    @property
    def seen(self) -> set[bytes]:
        return {one.beacon.key for one in self.service.finder.discovery.seen()}


async def settled(predicate: Callable[[], bool]) -> None:
    """Let the loop turn until what was scheduled has run."""
    for _ in range(20):
        await turns(1)
    assert predicate()


@asynccontextmanager
async def street(*houses: tuple[str, tuple[str, ...]], **options: Any) -> AsyncIterator[list[House]]:
    """Return started services, each with those in its book, that share a UDP port."""
    made: list[House] = []
    async with AsyncExitStack() as stack:
        for name, knows in houses:
            one = House(name, made[0].udp_port if made else 0, knows, **options)
            await one.service.start()
            one.listen()
            stack.push_async_callback(one.service.stop)
            made.append(one)
        yield made


@aio
async def test_two_who_know_each_other_connect_with_no_address() -> None:
    async with street(("alice", ("bob",)), ("bob", ("alice",))) as (alice, bob):
        await alice.meets("bob")
        await bob.meets("alice")
        assert alice.service.peer("bob").info.host == "", "what was found is not written into the book"


@aio
async def test_whoever_is_not_in_the_book_is_neither_heard_nor_dialled() -> None:
    """Carol has Alice in her book; Alice has only Bob. Bob has Alice: the two meet, and nobody dials Carol."""
    async with street(("alice", ("bob",)), ("carol", ("alice",)), ("bob", ("alice",))) as (alice, carol, bob):
        await alice.meets("bob")
        await alice.until(lambda: alice.service.finder.discovery.sightings.unheard[Unheard.TAG] > 0)
        assert alice.seen == {BOB.pubkey}
        assert carol.seen == set(), "and Carol does not learn that Alice is here"
        assert not carol.linked("alice")
        assert bob.linked("alice")


@aio
async def test_a_peer_that_is_put_into_the_book_later_is_found() -> None:
    async with street(("alice", ()), ("bob", ())) as (alice, bob):
        alice.service.add_peer(PeerInfo(id="bob", pubkey_hex=BOB.pubkey_hex))
        bob.service.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
        await alice.meets("bob")
        await bob.meets("alice")


@aio
async def test_one_that_restarts_elsewhere_is_found_again() -> None:
    async with street(("alice", ("bob",)), ("bob", ("alice",))) as (alice, bob):
        await alice.meets("bob")
        await bob.service.stop()
        await alice.until(lambda: alice.told(PeerDown) == 1)
        again = House("bob", alice.udp_port, ("alice",))
        await again.service.start()
        assert again.service.port != bob.service.port
        await again.meets("alice")
        await again.service.stop()


@aio
async def test_a_group_is_spoken_to_as_one() -> None:
    everybody = ("alice", "bob", "carol")
    group = Audience.group(b"a descriptor", [KEYS[name].pubkey for name in everybody])
    houses = [(name, tuple(other for other in everybody if other != name)) for name in everybody]
    async with street(*houses) as made:
        for one in made:
            one.service.finder.add(b"group", group)
        for one, (_, others) in zip(made, houses, strict=True):
            await one.meets(*others)
            assert one.service.finder.discovery._speaks_to == (group,), "its members need no beacon each"
        made[0].service.finder.remove(b"group")
        made[0].service.finder.remove(b"group")
        await settled(lambda: len(made[0].service.finder.discovery._speaks_to) == 2)


@aio
async def test_whom_the_owner_hung_up_on_is_not_dialled() -> None:
    async with street(("alice", ("bob",)), ("bob", ("alice",))) as (alice, bob):
        await alice.meets("bob")
        await bob.meets("alice")
        for one, other in ((alice, "bob"), (bob, "alice")):
            await one.service.disconnect_from_peer(other)
        await alice.until(lambda: alice.told(PeerDown) == 1)
        finder = alice.service.finder
        assert not finder._wants(BOB.pubkey)
        alice.service.add_peer(alice.service.peer("bob").info)
        assert finder._wants(BOB.pubkey), "put into the book again"
        await alice.service.disconnect_from_peer("bob")
        bob.service.add_peer(replace(alice.service.info, id="alice"))
        await bob.service.connect_to_peer("alice")
        await alice.meets("bob")
        assert BOB.pubkey not in finder._left, "it came by itself"


@aio
async def test_whoever_is_forgotten_is_neither_heard_nor_spoken_to_though_it_was_not_connected() -> None:
    async with street(("alice", ("bob",))) as (alice,):
        finder = alice.service.finder
        assert len(finder.discovery._speaks_to) == 1
        await alice.service.remove_peer("bob")
        await settled(lambda: not finder._stale)
        assert finder.discovery._speaks_to == ()
        assert finder._pairs == {}


@aio
async def test_an_unconfirmed_key_is_not_dialled() -> None:
    async with street(("alice", ())) as (alice,):
        alice.service.add_peer(PeerInfo(id="bob", pubkey_hex=BOB.pubkey_hex), provisional=True)
        await settled(lambda: not alice.service.finder._stale)
        assert not alice.service.finder._wants(BOB.pubkey)
        assert not alice.service.finder._wants(CAROL.pubkey)
        assert alice.service.finder._pairs == {}


# --- addresses that somebody typed ------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


@aio
async def test_what_is_found_is_dialled_beside_an_address_that_does_not_answer_and_the_book_stays() -> None:
    async with street(("alice", ()), ("bob", ())) as (alice, bob):
        typed = PeerInfo(id="bob", host="127.0.0.1", port=closed_port(), pubkey_hex=BOB.pubkey_hex)
        alice.service.add_peer(typed)
        bob.service.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
        bob.service.finder.discovery._wanted = lambda key: False  # Alice has to dial
        await alice.meets("bob")
        assert alice.service.peer("bob").info.port == typed.port, "it is what somebody typed"
        assert alice.service.peer("bob").link_address == f"127.0.0.1:{bob.service.port}"


@aio
async def test_one_that_is_dialled_in_vain_is_dialled_at_once_where_it_is_seen() -> None:
    """Alice dials an address where nobody is, again and again, and her next try is half a minute away."""
    async with street(("alice", ()), ("bob", ())) as (alice, bob):
        alice.service.add_peer(PeerInfo(id="bob", host="127.0.0.1", port=closed_port(), pubkey_hex=BOB.pubkey_hex))
        with pytest.raises(NetworkError):
            await alice.service.connect_to_peer("bob", timeout_s=0.5, persist=True)
        record = alice.service._running.node.book.find("bob")
        record.redial_at = record.redial_at or 0.0
        bob.service.finder.discovery._wanted = lambda key: False
        bob.service.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
        await alice.meets("bob")
        assert record.attempts == 0


@aio
async def test_a_place_where_nobody_answers_harms_nothing() -> None:
    async with street(("alice", ("bob",))) as (alice,):
        found = PeerInfo(id="x", host="127.0.0.1", port=closed_port(), pubkey_hex=BOB.pubkey_hex)
        await alice.service.finder._reach(found)
        assert isinstance(alice.service.peer("bob").last_error, NetworkError)
        assert alice.service.peer("bob").info.port == 0
        await alice.service.remove_peer("bob")
        await alice.service.finder._reach(found)
        assert alice.service.peers() == []


@aio
async def test_another_node_at_the_place_is_no_peer() -> None:
    """A member whose datagram seems to come from a third party's machine: the handshake fails there, no more."""
    async with street(("alice", ("bob",)), ("carol", ())) as (alice, carol):
        found = PeerInfo(id="x", host="127.0.0.1", port=carol.service.port, pubkey_hex=BOB.pubkey_hex)
        await alice.service.finder._reach(found)
        assert not alice.linked("bob")
        assert carol.told(PeerUp) == alice.told(PeerUp) == 0


# --- somebody who is not in the book yet ------------------------------------------------------------------------------


@aio
async def test_the_maker_of_an_invite_is_found() -> None:
    secret = bytes(range(16))
    async with street(("alice", ()), ("bob", ())) as (alice, bob):
        alice.service.finder.add(b"invite", Audience.invite(secret, ALICE.pubkey))
        found = await bob.service.finder.find(b"invite", Audience.invite(secret, ALICE.pubkey), ALICE.pubkey)
        assert (found.host, found.port) == ("127.0.0.1", alice.service.port)
        again = await bob.service.finder.find(b"invite", Audience.invite(secret, ALICE.pubkey), ALICE.pubkey, 0.1)
        assert again == found, "it was seen a moment ago"
        assert bob.service.finder._awaited == bob.service.finder._added == {}
        with pytest.raises(Timeout, match="doctor"):
            await bob.service.finder.find(b"x", Audience.invite(bytes(16), CAROL.pubkey), CAROL.pubkey, 0.05)


@aio
async def test_a_guest_is_answered_at_once() -> None:
    """Alice's next word would be half a minute away; Bob's makes her speak. She dials nobody."""
    secret = bytes(range(16))
    async with street(("alice", ()), ("bob", ())) as (alice, bob):
        audience = Audience.invite(secret, ALICE.pubkey)
        alice.service.finder.add(b"invite", audience)
        await settled(lambda: not alice.service.finder._stale)
        discovery = alice.service.finder.discovery
        await discovery.broadcast_discovery()
        discovery._pause = limits.BEACON_PAUSE_MAX_S
        discovery._timer.cancel()  # type: ignore[union-attr]
        found = await bob.service.finder.find(b"invite", audience, ALICE.pubkey, 5)
        assert found.port == alice.service.port
        assert alice.service.peers() == bob.service.peers() == []


@aio
async def test_a_search_ends_with_the_service() -> None:
    async with street(("alice", ())) as (alice,):
        finder = alice.service.finder
        search = asyncio.ensure_future(finder.find(b"x", Audience.invite(bytes(16), BOB.pubkey), BOB.pubkey))
        await settled(lambda: bool(finder._awaited))
        finder._on_peer(PeerInfo(id="x", host="127.0.0.1", port=9000, pubkey_hex=BOB.pubkey_hex))
        finder._on_peer(PeerInfo(id="x", host="127.0.0.1", port=9001, pubkey_hex=BOB.pubkey_hex))
        assert (await search).port == 9000
        search = asyncio.ensure_future(finder.find(b"x", Audience.invite(bytes(16), BOB.pubkey), BOB.pubkey))
        await settled(lambda: bool(finder._awaited))
        await finder.stop()
        with pytest.raises(LocalError, match="stopped"):
            await search
        await finder.stop()
        finder._refresh()


# --- switched off, and refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("discover", [None, Discover(interfaces=())])
@aio
async def test_it_is_off_unless_asked_for(discover: Discover | None) -> None:
    async with NetworkService("alice", identity=ALICE, discover=discover) as service:
        assert not service.finder.is_on
        with pytest.raises(LocalError, match="switched off"):
            _ = service.finder.discovery
        service.finder.add(b"x", Audience.invite(bytes(16), BOB.pubkey))


@aio
async def test_a_node_that_only_would_like_to_find_peers_starts_without_the_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        discover = Discover(interfaces=(LOOPBACK,), port=other.getsockname()[1], required=False)
        async with NetworkService("alice", identity=ALICE, discover=discover) as service:
            assert not service.finder.is_on
            with pytest.raises(LocalError, match=r"cannot listen on UDP port .* doctor"):
                _ = service.finder.discovery


@aio
async def test_what_was_heard_survives_a_restart_of_the_service(tmp_path: Path) -> None:
    """U3: the second Alice knows what the first one heard of Bob."""
    async with street(("bob", ("alice",))) as (bob,):
        first = House("alice", bob.udp_port, ("bob",), data_dir=tmp_path, identity=ALICE)
        await first.service.start()
        first.listen()
        marks = first.service.finder.discovery.sightings.marks
        await first.until(lambda: BOB.pubkey in marks)
        await first.service.stop()
        second = House("alice", bob.udp_port, ("bob",), data_dir=tmp_path, identity=ALICE)
        await second.service.start()
        assert second.service.finder.discovery.sightings.marks[BOB.pubkey] >= marks[BOB.pubkey]
        await second.service.stop()


def test_what_was_heard_is_a_private_file_that_may_be_lost(tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path / "data")
    heard = Heard(folder)
    assert heard.load() == {}
    marks = {ALICE.pubkey: Mark(b"epoch123", 7, 1_800_000_000_000), BOB.pubkey: Mark(bytes(8), 1, 2)}
    for _ in range(2):
        heard.store(marks)
        assert heard.load() == marks
    path = folder.path / "heard.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for damaged in (b"", b"{}x", b'{"zz":["AA==",1,2]}', b'{"02":[1,2,3]}', b"[]"):
        path.write_bytes(damaged)
        assert heard.load() == {}, "a minute's risk is no reason not to start"
    shutil.rmtree(folder.path)
    with pytest.raises(IoError, match="heard"):
        heard.store(marks)
    assert Heard(None).load() == {}
    Heard(None).store(marks)
    folder.close()


@aio
async def test_a_port_that_cannot_be_had_stops_the_start_and_leaves_nothing_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        port = closed_port()
        discover = Discover(interfaces=(LOOPBACK,), port=other.getsockname()[1])
        service = NetworkService("alice", "", "127.0.0.1", port, identity=ALICE, discover=discover)
        with pytest.raises(IoError, match="UDP port"):
            await service.start()
        async with NetworkService("alice", "", "127.0.0.1", port, identity=ALICE):
            pass  # the TCP port is free again
