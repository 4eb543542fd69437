"""`PeerDiscovery` on real sockets: several nodes on one machine, over its loopback."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any, cast

import pytest
from endpoints import Signal, aio, turns

from musignet import limits
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.errors import IoError, LocalError, TransportError
from musignet.net import discovery
from musignet.net.discovery import PeerDiscovery
from musignet.net.lan import ALL, GROUP_4, LAN, Interface, Lan, _chosen, interfaces
from musignet.node.peers import PeerInfo
from musignet.node.sightings import Mark, Unheard
from musignet.wire.beacon import Audience
from support.keys import ALICE, BOB, CAROL

LOOPBACK = next((one.name for one in interfaces([name for _, name in socket.if_nameindex()]) if one.is_loopback), "")

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(not LOOPBACK, reason="no loopback interface with an address"),
]


class Seeker(Signal):
    """One node's discovery, and whom it was told of."""

    def __init__(self, identity: Identity, label: str, port: int, host: str, listen_port: int, **options: Any) -> None:
        super().__init__()
        self.found: list[PeerInfo] = []
        info = PeerInfo(id=label, host=host, port=listen_port, pubkey_hex=identity.pubkey_hex)
        options = {"interfaces": [LOOPBACK], "chain": Chain.REGTEST} | options
        self.discovery = PeerDiscovery(info, port, self._on_peer, identity=identity, **options)
        heard = self.discovery._lan._heard

        def hear(data: bytes, source: str, way: str) -> None:
            heard(data, source, way)
            self.poke()

        self.discovery._lan._heard = hear

    def _on_peer(self, info: PeerInfo) -> None:
        self.found.append(info)
        self.poke()

    async def meets(self, *names: str) -> None:
        await self.until(lambda: {one.pubkey_hex for one in self.found} >= {KEYS[name].pubkey_hex for name in names})

    async def ignores(self, why: Unheard, count: int = 1) -> None:
        await self.until(lambda: self.discovery.sightings.unheard[why] >= count)


KEYS = {"alice": ALICE, "bob": BOB, "carol": CAROL}
ALL_THREE = Audience.group(b"a descriptor", [one.pubkey for one in KEYS.values()])


@asynccontextmanager
async def seekers(*names: str, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[list[Seeker]]:
    """Return started ones that share a UDP port and an audience of all three."""
    made: list[Seeker] = []
    try:
        for at, name in enumerate(names):
            port = made[0].discovery.port if made else 0
            one = Seeker(KEYS[name], name, port, host, 40_001 + at, **options)
            one.discovery.listen([ALL_THREE])
            await one.discovery.start()
            made.append(one)
        yield made
    finally:
        for one in made:
            await one.discovery.stop()


@aio
async def test_three_nodes_on_one_machine_find_each_other() -> None:
    async with seekers("alice", "bob", "carol") as (alice, bob, carol):
        for one in (alice, bob, carol):
            await one.discovery.start_periodic_broadcast()
        await alice.meets("bob", "carol")
        await bob.meets("alice", "carol")
        await carol.meets("alice", "bob")
        found = next(one for one in alice.found if one.pubkey_hex == BOB.pubkey_hex)
        assert (found.host, found.port) == ("127.0.0.1", 40_002)
        assert found.id == BOB.pubkey_hex[2:10], "a sealed beacon has no name"
        assert alice.discovery.problems == {}
        assert {"IPv4"} == alice.discovery.seen()[0].ways


@aio
async def test_one_that_comes_later_is_told_at_once() -> None:
    """Bob is at his slowest pace when Alice comes; what he hears makes him speak within a second of his last round."""
    async with seekers("bob", "alice") as (bob, alice):
        await bob.discovery.start_periodic_broadcast()
        bob.discovery._pause = limits.BEACON_PAUSE_MAX_S
        bob.discovery._arm(limits.BEACON_PAUSE_MAX_S)
        await alice.discovery.start_periodic_broadcast()
        await bob.meets("alice")
        await alice.meets("bob")


@aio
async def test_a_round_that_could_not_be_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: object) -> list[Interface]:
        raise OSError(errno.EMFILE, "Too many open files")

    async with seekers("alice", "bob") as (alice, bob):
        with monkeypatch.context() as patch:
            patch.setattr(discovery, "interfaces", exhausted)
            await alice.discovery.start_periodic_broadcast()
        assert alice.discovery.problems["interfaces"] == "Too many open files"
        await bob.meets("alice")
        assert "interfaces" not in alice.discovery.problems


@aio
async def test_an_application_that_fails_to_show_somebody_keeps_nobody_from_being_dialled() -> None:
    def fails(_: object, __: bool) -> None:
        raise RuntimeError("the application's own")

    async with seekers("alice", "bob", seen=fails) as (alice, bob):
        await alice.discovery.broadcast_discovery()
        await bob.meets("alice")


@aio
async def test_a_round_is_one_datagram_for_each_audience_and_way() -> None:
    async with seekers("alice", "bob") as (alice, bob):
        assert await alice.discovery.broadcast_discovery() == 2, "a broadcast and a multicast"
        await bob.meets("alice")
        await bob.ignores(Unheard.REPLAY)
        await alice.ignores(Unheard.OURS, 2)
        await alice.discovery.broadcast_discovery()
        await bob.ignores(Unheard.REPLAY, 2)
        assert bob.discovery.sightings.verified == 2, "a second round is new"
        many = [Audience(bytes([n]) * 32, [ALICE.pubkey]) for n in range(20)]
        alice.discovery.listen(many)
        assert await alice.discovery.broadcast_discovery() == 2 * limits.BEACONS_PER_ROUND_MAX
        assert await alice.discovery.broadcast_discovery() == 2 * 4, "the rest of them"
        assert await alice.discovery.broadcast_discovery() == 2 * limits.BEACONS_PER_ROUND_MAX
        alice.discovery.listen([ALL_THREE, Audience.pair(BOB, CAROL.public)])
        assert await alice.discovery.broadcast_discovery() == 2, "what others share is not ours to say"
        alice.discovery.listen([ALL_THREE], [])
        assert await alice.discovery.broadcast_discovery() == 0


@aio
async def test_an_audience_too_large_for_one_round_has_the_next_one_soon() -> None:
    async with seekers("alice") as (alice,):
        alice.discovery.listen([Audience(bytes([n]) * 32, [ALICE.pubkey]) for n in range(20)])
        await alice.discovery.start_periodic_broadcast()
        assert alice.discovery._turn == limits.BEACONS_PER_ROUND_MAX
        assert alice.discovery._pause == limits.BEACON_PAUSE_MIN_S
        await alice.until(lambda: alice.discovery._turn == 0)
        assert alice.discovery._pause == 2 * limits.BEACON_PAUSE_MIN_S


@aio
async def test_whoever_is_not_wanted_is_not_called_for() -> None:
    async with seekers("alice", "bob", wanted=lambda key: False) as (alice, bob):
        await alice.discovery.broadcast_discovery()
        await bob.ignores(Unheard.REPLAY)
        assert bob.found == []
        assert [one.beacon.key for one in bob.discovery.seen()] == [ALICE.pubkey], "but seen"


@aio
async def test_without_a_callback_it_is_seen_all_the_same() -> None:
    async with seekers("alice", "bob") as (alice, bob):
        bob.discovery._callback = None
        await alice.discovery.broadcast_discovery()
        await bob.until(lambda: bool(bob.discovery.seen()))


@aio
async def test_open_beacons_show_a_label_to_whoever_looks() -> None:
    async with seekers("alice", "bob") as (alice, bob):
        alice.discovery.listen([])
        bob.discovery.look(60)
        assert await alice.discovery.broadcast_discovery() == 0
        alice.discovery.announce_openly(60)
        assert await alice.discovery.broadcast_discovery() == 2
        await bob.until(lambda: [one.label for one in bob.discovery.seen()] == ["alice"])
        assert bob.found == [], "nobody is dialled for that"
        alice.discovery.announce_openly(0)
        assert await alice.discovery.broadcast_discovery() == 0


@aio
async def test_what_was_heard_is_stored_before_anybody_is_dialled() -> None:
    order: list[str] = []

    def store(marks: Mapping[bytes, Mark]) -> None:
        order.append("stored")
        assert set(marks) == {ALICE.pubkey}
        if full:
            raise IoError("no space left")

    full = False
    async with seekers("alice", "bob", store=store) as (alice, bob):
        alice.discovery._store = None
        bob.discovery._wanted = lambda key: order.append("dialled") is None
        await alice.discovery.broadcast_discovery()
        await bob.until(lambda: len(bob.found) == 1)
        assert order == ["stored", "dialled"]
        full = True
        await alice.discovery.broadcast_discovery()
        await bob.until(lambda: len(order) == 3)
        assert order == ["stored", "dialled", "stored"], "a full disk: nobody is dialled"
        assert "no space left" in bob.discovery.problems["disk"]


@aio
async def test_who_comes_and_goes_is_shown() -> None:
    shown: list[tuple[bytes, bool]] = []
    async with seekers("alice", "bob", seen=lambda one, here: shown.append((one.beacon.key, here))) as (alice, bob):
        await alice.discovery.broadcast_discovery()
        await bob.until(lambda: bool(shown))
        await alice.discovery.broadcast_discovery()
        await bob.ignores(Unheard.REPLAY, 2)
        next(iter(bob.discovery.seen())).last_at -= limits.SIGHTING_TTL_S + 1
        await bob.discovery.broadcast_discovery()
        assert shown == [(ALICE.pubkey, True), (ALICE.pubkey, False)]


@pytest.mark.parametrize(
    ("host", "port", "sent"),
    [("", 40_001, 0), ("127.0.0.1", 0, 0), ("127.0.0.1", 80, 0), ("192.0.2.222", 40_001, 0), ("0.0.0.0", 40_001, 2),
     ("localhost", 40_001, None)],
)  # fmt: skip
@aio
async def test_it_speaks_where_the_node_listens_and_nowhere_else(host: str, port: int, sent: int | None) -> None:
    one = Seeker(ALICE, "alice", 0, host, port)
    one.discovery.listen([ALL_THREE])
    await one.discovery.start()
    try:
        left = await one.discovery.broadcast_discovery()
        assert left == sent if sent is not None else left in (1, 2)
    finally:
        await one.discovery.stop()


@aio
async def test_what_is_on_the_wire_is_never_answered_to_its_source() -> None:
    """Whatever one sends to the port, whoever sent it gets nothing back. U2."""
    loop = asyncio.get_running_loop()
    async with seekers("alice", "bob") as (alice, bob):
        bob.discovery.look(60)
        outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outside.setblocking(False)
        outside.bind(("127.0.0.1", 0))
        heard: list[bytes] = []
        loop.add_reader(outside.fileno(), lambda: heard.append(outside.recv(2000)))
        datagrams = [*alice.discovery._datagrams(), bytes(175), b"", bytes(600)]
        for data in datagrams:
            outside.sendto(data, ("127.0.0.1", bob.discovery.port))
        await bob.until(lambda: sum(s.discovery.sightings.unheard.total() for s in (alice, bob)) >= len(datagrams) - 1)
        await alice.discovery.broadcast_discovery()
        await bob.ignores(Unheard.REPLAY)
        loop.remove_reader(outside.fileno())
        outside.close()
        assert heard == []


@aio
async def test_whoever_speaks_often_is_dialled_once() -> None:
    """U1: once in 30 s for one key."""
    async with seekers("alice", "bob") as (alice, bob):
        for number in range(1, 6):
            await alice.discovery.broadcast_discovery()
            await bob.ignores(Unheard.REPLAY, number)
        assert bob.discovery.sightings.verified == 5
        assert len(bob.found) == 1


@aio
async def test_nothing_passes_a_router() -> None:
    """U5: one hop, by every way."""
    here = Lan(0, lambda *_: None)
    here.open()
    try:
        hops = [here._sockets[4].getsockopt(socket.IPPROTO_IP, one) for one in (socket.IP_TTL, socket.IP_MULTICAST_TTL)]
        if 6 in here._sockets:
            hops.append(here._sockets[6].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS))
        assert set(hops) == {1}
    finally:
        here.close()


@aio
async def test_whatever_is_heard_rounds_are_a_second_apart() -> None:
    """Members who come, and restart, and come again do not make a node speak more often: no amplifier. U2."""
    loop = asyncio.get_running_loop()
    async with seekers("alice", "bob") as (alice, bob):
        await bob.discovery.start_periodic_broadcast()
        spoke_at = bob.discovery._last_round_at
        for number in range(8):  # of 20 datagrams a second from one address, two ways each
            alice.discovery._epoch = number.to_bytes(8)
            await alice.discovery.broadcast_discovery()
            await bob.ignores(Unheard.REPLAY, number + 1)
            assert bob.discovery._last_round_at == spoke_at or loop.time() - spoke_at > 0.8 * limits.BEACON_PAUSE_MIN_S
            spoke_at = bob.discovery._last_round_at
        timer = bob.discovery._timer
        assert timer is not None
        assert timer.when() - spoke_at >= 0.8 * limits.BEACON_PAUSE_MIN_S, "a fifth of jitter"


@aio
async def test_who_listens_on_the_network_learns_neither_keys_nor_names() -> None:
    """U5: all that is on the wire, with three in one group, two of them a pair, and an invite."""
    pair, invite = Audience.pair(ALICE, BOB.public), Audience.invite(bytes(16), ALICE.pubkey)
    async with seekers("alice", "bob", "carol") as made:
        made[0].discovery.listen([ALL_THREE, pair, invite])
        made[1].discovery.listen([ALL_THREE, pair])
        tapped: list[bytes] = []
        tap = Lan(made[0].discovery.port, lambda data, *_: tapped.append(data))
        tap.open()
        for one in made:
            await one.discovery.broadcast_discovery()
        for one in made[1:]:
            await one.ignores(Unheard.REPLAY, 2)
        await turns(5)
        tap.close()
        assert len(tapped) >= 6
        assert {len(data) for data in tapped} == {175}
        secrets = [form for key in KEYS.values() for form in (key.pubkey, key.pubkey[1:], key.pubkey_hex.encode())]
        secrets += [*(name.encode() for name in KEYS), b"127.0.0.1", (40_001).to_bytes(2, "big") * 2]
        assert [one for one in secrets if any(one in data for data in tapped)] == []
        assert len({data[7:23] for data in tapped}) == 3, "tags: of a group, of a pair, of an invite, for this hour"


@aio
async def test_life() -> None:
    one = Seeker(ALICE, "alice", 0, "127.0.0.1", 40_001).discovery
    with pytest.raises(TransportError, match="does not run"):
        await one.start_periodic_broadcast()
    one.soon()
    await one.start()
    with pytest.raises(TransportError, match="runs already"):
        await one.start()
    await one.start_periodic_broadcast()
    one._arm(limits.BEACON_PAUSE_MIN_S / 10)
    timer = one._timer
    one.soon()
    assert one._timer is timer, "what is planned earlier stays planned"
    await one.stop()
    await one.stop()
    assert one._timer is None
    await one.start()
    await one.stop()
    with pytest.raises(LocalError, match="another node"):
        PeerDiscovery(PeerInfo(id="x", pubkey_hex=BOB.pubkey_hex), identity=ALICE)


@aio
async def test_a_port_that_somebody_has_for_himself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        one = Seeker(ALICE, "alice", other.getsockname()[1], "127.0.0.1", 40_001)
        with pytest.raises(IoError, match="cannot listen on UDP port"):
            await one.discovery.start()


@aio
async def test_a_taken_ipv6_port_is_said_and_ipv4_goes_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        try:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::", 0))
        except OSError as error:
            pytest.skip(f"no IPv6: {error}")
        lan = Lan(other.getsockname()[1], lambda *_: None)
        lan.open()
        assert "IPv6" in lan.problems
        lan.close()


# --- interfaces and ways ----------------------------------------------------------------------------------------------


def test_interfaces_by_name() -> None:
    assert [one.name for one in interfaces([LOOPBACK])] == [LOOPBACK]
    assert interfaces([]) == interfaces(["no such interface"]) == []
    assert not any(one.is_loopback for one in interfaces([ALL]))
    (loopback,) = interfaces([LOOPBACK])
    assert loopback.has(ip_address("127.0.0.1"))
    assert loopback.has(ip_address("0.0.0.0"))
    assert not loopback.has(ip_address("192.0.2.1"))
    assert any(ip_address("127.0.0.9") in network for network in loopback.networks)


@pytest.mark.parametrize(
    ("v4", "v6", "left"),
    [
        (["10.1.2.3/8"], ["fe80::1/64"], ["10.0.0.0/8", "fe80::/64"]),
        (["192.168.1.9/24", "8.8.8.8/24"], ["2600::1/64", "fd00::1/64"], ["192.168.1.0/24", "fd00::/64"]),
        (["8.8.8.8/24"], ["2600::1/64"], []),
        (["127.0.0.1/8"], ["::1/128"], []),
    ],
)
def test_the_network_that_a_rented_server_is_on_is_left_alone(v4: list[str], v6: list[str], left: list[str]) -> None:
    one = Interface("eth0", 2, tuple(map(IPv4Interface, v4)), tuple(map(IPv6Interface, v6)))
    assert [str(network) for network in _chosen(one, frozenset({LAN})).networks] == left
    named = _chosen(one, frozenset({LAN, "eth0"}))
    assert named == one, "unless somebody names it"


def lan() -> Lan:
    made = Lan(9, lambda *_: None)
    made._sockets[6] = None  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("v4", "v6", "families", "ways"),
    [
        (["192.0.2.9/24"], [], (4, 6), [("broadcast", "192.0.2.255"), ("multicast", GROUP_4)]),
        (["192.0.2.9/24", "10.1.2.3/8"], [], (4,),
         [("broadcast", "192.0.2.255"), ("broadcast", "10.255.255.255"), ("multicast", GROUP_4)]),
        (["192.0.2.8/31"], [], (4,), [("multicast", GROUP_4)]),
        (["192.0.2.9/24"], ["fe80::1/64"], (6,), [("multicast6", "ff02::4d75:5369")]),
        (["192.0.2.9/24"], ["fe80::1/64"], (), []),
    ],
)  # fmt: skip
def test_ways(v4: list[str], v6: list[str], families: tuple[int, ...], ways: list[tuple[str, str]]) -> None:
    one = Interface("eth0", 2, tuple(map(IPv4Interface, v4)), tuple(map(IPv6Interface, v6)))
    found = lan().ways(one, families)
    assert [(way.name, way.target) for way in found] == ways
    assert all(str(way).endswith(" on eth0") for way in found)


class Refusing:
    """A socket that joins nothing for a while."""

    def __init__(self) -> None:
        self.error: OSError | None = OSError(errno.ENODEV, "No such device")
        self.joined: list[bytes] = []

    def setsockopt(self, _: int, __: int, group: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.joined.append(group)


def test_a_group_that_could_not_be_joined_is_tried_again_with_each_round() -> None:
    """An interface may have its address before it takes multicasts."""
    here, kernel = Lan(0, lambda *_: None), Refusing()
    here._sockets = {4: cast(socket.socket, kernel)}
    one = Interface("eth0", 2, (IPv4Interface("192.168.7.2/24"),), ())
    here.join([one])
    assert here.problems == {"hearing IPv4 multicast on eth0": "No such device"}
    kernel.error = None
    here.join([one])
    here.join([one])
    assert (here.problems, len(kernel.joined)) == ({}, 1)


def test_a_group_that_the_kernel_has_joined_already_is_no_problem() -> None:
    here, kernel = Lan(0, lambda *_: None), Refusing()
    here._sockets = {4: cast(socket.socket, kernel)}
    kernel.error = OSError(errno.EADDRINUSE, "Address already in use")
    here.join([Interface("eth0", 2, (IPv4Interface("192.168.7.2/24"),), ())])
    assert here.problems == {}


@aio
async def test_what_the_system_refuses_is_said_and_forgotten_when_it_works() -> None:
    heard: list[bytes] = []
    here = Lan(0, lambda data, *_: heard.append(data))
    here.open()
    try:
        (one,) = interfaces([LOOPBACK])
        nowhere = Interface(LOOPBACK, 999_999, (IPv4Interface("203.0.113.1/24"),), (IPv6Interface("fe80::1/64"),))
        here.join([nowhere])
        multicast = next(way for way in here.ways(nowhere) if way.name == "multicast")
        assert not here.send(b"x", multicast)
        assert {f"hearing IPv4 multicast on {LOOPBACK}", str(multicast)} <= set(here.problems)
        here.join([one])
        here.join([one])
        assert all(here.send(b"x", way) for way in here.ways(one, (4,)))
        assert str(multicast) not in here.problems
        if 6 in here._sockets:
            sixth = [way for way in here.ways(nowhere) if way.name == "multicast6"]
            assert [here.send(b"x", way) for way in sixth] == [False], "no such interface"
    finally:
        here.close()
        here.close()


@aio
async def test_a_flood_leaves_the_loop_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn takes so many datagrams and no more, however many wait."""
    here = Lan(0, lambda data, *_: taken.append(data))
    taken: list[bytes] = []
    here.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(200):
                sender.sendto(bytes(600), ("127.0.0.1", here.port))
        here._readable(here._sockets[4], "IPv4")
        assert len(taken) == limits.BEACONS_PER_WAKE
        assert {len(data) for data in taken} == {limits.BEACON_MAX_BYTES + 1}, "and no more of each than shows its size"
    finally:
        here.close()
