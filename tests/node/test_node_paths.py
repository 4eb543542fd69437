"""Several paths to one peer: the better one is kept and looked for, and doubt is settled by asking."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pair import HIGH, LOW, Side, World, announcement, info_of, strangers

from musignet.limits import ADDRESSES_MAX, Limits
from musignet.node.addresses import Path, Rank, parse_address
from musignet.node.effects import Connect, Disconnect, PeerDown, PeerUp
from musignet.node.inputs import AddPeer, HangUp, NetworkChanged, PeerLost, PeerSeen, Woken
from musignet.node.peers import Link, PeerInfo, PeerRecord, PeerState
from musignet.wire.messages import Chain, CloseCode

LIMITS = Limits()
LAN, RELAY = "192.168.0.9:9000", "wss://relay.example"
BY_LAN, BY_RELAY = Path(Rank.LAN, "tcp"), Path(Rank.RELAYED, "wss")


def places(side: Side) -> PeerInfo:
    return PeerInfo(id=side.label, addresses=(RELAY, LAN), pubkey_hex=side.identity.pubkey_hex)


def by(world: World, side: Side, other: Side) -> list[Path]:
    """Return the paths of the links that are up, seen from one side."""
    world.run()
    return [link.path for link in side.peer(other.key).links]


def with_places(*dead: str) -> tuple[World, Side, Side]:
    """Return two sides that know each other's addresses; nobody answers at the `dead` ones. The low one dials."""
    world, low, high = strangers()
    low.add(places(high))
    high.add(replace(info_of(LOW, "low"), port=0))
    world.dead.update(dead)
    low.dial(high.key)
    world.run()
    return world, low, high


def the_link(side: Side, other: Side) -> Link:
    (link,) = side.peer(other.key).links
    return link


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_peer_is_dialled_at_all_its_addresses_the_best_first() -> None:
    _, low, high = with_places()
    (connect,) = low.all(Connect)
    assert connect == Connect(high.key, (parse_address(LAN), parse_address(RELAY)))


def test_host_and_port_are_one_address_more_and_none_comes_twice() -> None:
    info = PeerInfo(id="x", host="h.example", port=1, addresses=(RELAY, "tcp://h.example:1"), pubkey_hex="")
    assert [one.text for one in info.places] == ["h.example:1", RELAY]
    assert PeerInfo(id="x", host="h", pubkey_hex="").places == ()
    assert PeerInfo(id="x", port=1, pubkey_hex="").places == ()


@pytest.mark.parametrize("addresses", [("rubbish",), (LAN, "wss://"), (LAN,) * (ADDRESSES_MAX + 1)])
def test_addresses_that_are_none_or_too_many_are_refused(addresses: tuple[str, ...]) -> None:
    _, low, high = strangers()
    error = low.add(replace(places(high), addresses=addresses))
    assert "address" in str(error)
    assert low.peer(high.key).info == info_of(HIGH, "high")


# --- which link stays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low_dials", [True, False])
def test_a_better_link_replaces_a_worse_one_whoever_dials(low_dials: bool) -> None:
    world, low, high = strangers()
    one, other = (low, high) if low_dials else (high, low)
    world.link(one, other, BY_RELAY)
    world.run()
    world.link(one, other, BY_LAN)
    assert by(world, low, high) == by(world, high, low) == [BY_LAN]
    assert low.news(PeerDown) == high.news(PeerDown) == []


@pytest.mark.parametrize("low_dials", [True, False])
def test_a_worse_link_does_not_replace_a_better_one_that_answers(low_dials: bool) -> None:
    world, low, high = strangers()
    one, other = (low, high) if low_dials else (high, low)
    world.link(one, other, BY_LAN)
    world.run()
    world.now += LIMITS.handshake_timeout_s
    world.link(one, other, BY_RELAY)
    assert by(world, low, high) == by(world, high, low) == [BY_LAN]
    assert low.all(Disconnect)[-1].code is CloseCode.DUPLICATE


def test_a_worse_link_replaces_a_better_one_that_is_dead() -> None:
    """The cable is out: TCP has not noticed yet, and the peer is back by the relay."""
    world, low, _ = strangers()
    dead = world.half_link(low, HIGH, path=BY_LAN)
    _announce(world, low, dead, 0)
    alive = world.half_link(low, HIGH, path=BY_RELAY)
    _announce(world, low, alive, 1)
    assert [link.number for link in low.peer(HIGH.pubkey).links] == [dead, alive], "the newest carries messages"
    world.wait(LIMITS.probe_timeout_s - 0.1)
    assert low.all(Disconnect) == []
    world.wait(0.2)
    assert [link.number for link in low.peer(HIGH.pubkey).links] == [alive]
    assert low.all(Disconnect)[-1].code is CloseCode.SILENT
    assert low.news(PeerDown) == []


def _announce(world: World, side: Side, link: int, seq: int) -> None:
    message = announcement(label="high").sign(HIGH, to=side.key, seq=seq, epoch=b"epoch--1", chain=Chain.REGTEST)
    world.raw(side, link, message)


# --- looking for a better one -----------------------------------------------------------------------------------------


def test_on_a_worse_path_the_better_addresses_are_tried_again_with_growing_pauses() -> None:
    world, low, high = with_places(LAN)
    assert by(world, low, high) == [BY_RELAY]
    pauses, before = [], world.now
    for _ in range(7):
        count = len(low.all(Connect))
        while len(low.all(Connect)) == count:
            world.wait(1)
        pauses.append(world.now - before)
        before = world.now
    assert all(one.addresses == (parse_address(LAN),) for one in low.all(Connect)[1:])
    for pause, expected in zip(pauses, (30, 60, 120, 240, 480, 600, 600), strict=True):
        assert 0.7 * expected - 1 <= pause <= 1.3 * expected + 1
    assert low.peer(high.key).state is PeerState.CONNECTED
    assert "cannot reach" in str(low.peer(high.key).path_error)
    assert low.peer(high.key).last_error is None, "nothing is wrong with the link that is up"


def test_a_better_path_that_opens_is_taken_and_nothing_more_is_tried() -> None:
    world, low, high = with_places(LAN)
    world.wait(40)
    world.dead.clear()
    world.wait(100)
    assert by(world, low, high) == by(world, high, low) == [BY_LAN]
    dials = len(low.all(Connect))
    world.wait(2_000)
    assert len(low.all(Connect)) == dials
    assert low.peer(high.key).path_error is None
    assert low.news(PeerUp) == [PeerUp(high.key)]


def test_on_the_best_path_nothing_is_tried() -> None:
    world, low, high = with_places()
    assert by(world, low, high) == [BY_LAN]
    world.wait(2_000)
    assert len(low.all(Connect)) == 1


@pytest.mark.parametrize(("best", "better"), [(Rank.LAN, LAN), (Rank.PROXIED, LAN), (Rank.RELAYED, "")])
def test_where_the_best_path_there_is_is_no_better_no_address_promises_more(best: Rank, better: str) -> None:
    world, low, high = with_places(LAN)
    assert by(world, low, high) == [BY_RELAY]
    record = PeerRecord(places(high), low.peer(high.key).public, low.peer(high.key).gauge, best)
    record.places, record.links = places(high).places, low.peer(high.key).links
    assert record.better == ((parse_address(better),) if better else ())


def test_a_link_lost_while_a_better_one_is_tried_is_dialled_again_everywhere() -> None:
    world, low, high = with_places(LAN)
    while len(low.all(Connect)) == 1:
        due = low.node.next_deadline()
        assert due is not None
        world.now = due
        low.feed(Woken())
        if len(low.all(Connect)) == 1:
            world.run()
    assert low.peer(high.key).dialling
    low.feed(PeerLost(the_link(low, high).number))
    world.wait(2)
    assert low.all(Connect)[-1].addresses == (parse_address(LAN), parse_address(RELAY))
    assert by(world, low, high) == [BY_RELAY]


def test_a_peer_without_a_better_address_any_more_is_left_alone() -> None:
    world, low, high = with_places(LAN)
    low.ask(lambda request: AddPeer(request, replace(places(high), addresses=(RELAY,))))
    world.wait(2_000)
    assert len(low.all(Connect)) == 1


def test_whoever_was_hung_up_on_is_not_looked_for() -> None:
    world, low, high = with_places(LAN)
    low.ask(lambda request: HangUp(request, high.key))
    world.wait(2_000)
    assert len(low.all(Connect)) == 1


# --- the network changed ----------------------------------------------------------------------------------------------


def test_after_a_change_a_link_that_answers_stays() -> None:
    world, low, high = with_places()
    low.feed(NetworkChanged())
    world.wait(LIMITS.probe_timeout_s + 1)
    assert low.all(Disconnect) == []
    assert by(world, low, high) == [BY_LAN]


def test_after_a_change_a_dead_link_is_known_in_seconds_and_dialled_again() -> None:
    world, low, high = with_places()
    number = the_link(low, high).number
    world.wires[low, number].other = None  # what is sent goes nowhere, and nobody says so
    world.wait(10)
    low.feed(NetworkChanged())
    world.wait(LIMITS.probe_timeout_s + 0.1)
    (down,) = low.news(PeerDown)
    assert "nothing heard from high" in str(down.error)
    world.wait(1)
    assert by(world, low, high) == [BY_LAN]


def test_two_changes_do_not_give_a_dead_link_more_time() -> None:
    world, low, high = with_places()
    world.wires[low, the_link(low, high).number].other = None
    world.wait(10)
    low.feed(NetworkChanged())
    world.wait(LIMITS.probe_timeout_s / 2)
    low.feed(NetworkChanged())
    world.wait(LIMITS.probe_timeout_s / 2 + 0.1)
    assert len(low.news(PeerDown)) == 1


def test_a_link_that_is_asked_again_and_again_has_one_timer_afterwards() -> None:
    world, low, high = with_places()
    link = the_link(low, high)
    for _ in range(20):
        low.feed(NetworkChanged())
        world.wait(LIMITS.probe_timeout_s)
    world.wait(2 * LIMITS.ping_interval_s)
    assert [subject for _, _, subject in low.node._timers._heap].count(link.number) == 1


def test_after_a_change_whoever_is_missing_is_dialled_at_once() -> None:
    world, low, high = strangers()
    world.unreachable.add(high.key)
    low.dial(high.key, persist=True)
    world.wait(300)
    due = low.node.next_deadline()
    assert due is not None
    assert due - world.now > 1
    world.unreachable.clear()
    low.feed(NetworkChanged())
    world.run()
    assert low.peer(high.key).state is PeerState.CONNECTED


def test_after_a_change_a_better_path_is_tried_at_once() -> None:
    world, low, high = with_places(LAN)
    world.dead.clear()
    low.feed(NetworkChanged())
    assert by(world, low, high) == [BY_LAN]


def test_a_change_means_nothing_to_a_node_that_is_stopped_or_knows_nobody() -> None:
    world = World()
    assert world.add(LOW, "low").feed(NetworkChanged()) == []


# --- seen on the local network ----------------------------------------------------------------------------------------


def seen_at(side: Side, address: str) -> PeerSeen:
    place = parse_address(address)
    return PeerSeen(side.key, place.host, place.port)


def test_where_a_peer_was_seen_is_one_more_place_and_the_first() -> None:
    world, low, high = strangers()
    low.add(places(high))
    for moved in ("192.168.0.77:9001", "192.168.0.78:9001", LAN):
        low.feed(seen_at(high, moved))
    assert [one.text for one in low.peer(high.key).places] == [LAN, RELAY]
    low.feed(seen_at(high, "192.168.0.78:9001"))
    low.add(replace(places(high), id="renamed"))
    assert [one.text for one in low.peer(high.key).places] == ["192.168.0.78:9001", LAN, RELAY]
    assert low.peer(high.key).info.addresses == (RELAY, LAN), "what people wrote stays as it is"
    assert low.all(Connect) == [], "who is dialled is not decided by that"
    assert low.feed(PeerSeen(bytes(33), "192.168.0.1", 9000)) == [], "nobody of ours"
    assert world


def test_whoever_is_dialled_in_vain_is_dialled_at_once_where_it_is_seen() -> None:
    world, low, high = strangers()
    world.unreachable.add(high.key)
    low.dial(high.key, persist=True)
    world.wait(300)
    world.unreachable.clear()
    low.feed(seen_at(high, LAN))
    (connect,) = low.all(Connect)[-1:]
    assert connect.addresses[0].text == LAN
    world.run()
    assert low.peer(high.key).live


def test_a_link_by_a_relay_gives_way_to_the_place_where_the_peer_is_seen() -> None:
    world, low, high = with_places(LAN)
    assert by(world, low, high) == [BY_RELAY]
    low.feed(seen_at(high, "192.168.0.77:9001"))
    assert by(world, low, high) == [BY_LAN]
