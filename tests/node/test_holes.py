"""Offers and answers of hole punching pass through the node: signed, to who is connected, and never kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pair import HIGH, LOW, Side, World, announcement, connected, draws, info_of, strangers

from musignet.errors import PeerNotFound, SendError, SerializationError, TransportError
from musignet.node.addresses import TURN, Path, Rank
from musignet.node.config import NodeConfig
from musignet.node.core import Node
from musignet.node.effects import Connect, Disconnect, Fault, MessageArrived, Save, Send, SignalHeard
from musignet.node.inputs import (
    AddPeer,
    ConnectFailed,
    JoinGroup,
    MessageReceived,
    PeerConnected,
    Propose,
    Saved,
    SaySignal,
    Woken,
)
from musignet.node.peers import Mail, PeerInfo
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import Saved as RecordSaved
from musignet.wire.candidates import Candidate, Kind, Role, Signal
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, CloseCode, MessageType, PeerAnnouncement
from support.ceremony import NOW, identity, signing_group
from support.wallet import psbt

OFFER = Signal(Role.OFFER, bytes(16), "abcd", "p" * 22, (Candidate.of(Kind.HOST, "8.8.8.8", 4000),)).encode()


def test_a_signal_reaches_the_other_sides_driver_and_no_application() -> None:
    world, low, high = connected()
    request = low.ask(lambda request: SaySignal(request, high.key, OFFER))
    world.run()
    assert low.answer(request) is None
    assert high.all(SignalHeard) == [SignalHeard(low.key, OFFER)]
    assert high.news(MessageArrived) == []
    assert low.peer(high.key).unacked == {}


def test_without_a_link_it_is_refused_and_not_kept() -> None:
    world, low, high = strangers()
    for key in (high.key, bytes(33)):
        request = low.ask(lambda request, key=key: SaySignal(request, key, OFFER))
        assert isinstance(low.answer(request), PeerNotFound)
    low.dial(high.key)
    world.run()
    assert high.all(SignalHeard) == []


def test_a_key_that_no_person_has_confirmed_is_neither_told_nor_heard() -> None:
    world, low, high = strangers()
    for side, other, who in ((low, high, HIGH), (high, low, LOW)):
        side.node.book.remove(other.key)
        side.ask(lambda request, i=who: AddPeer(request, info_of(i, "new"), provisional=True))  # type: ignore[misc]
    low.dial(high.key)
    world.run()
    request = low.ask(lambda request: SaySignal(request, high.key, OFFER))
    assert isinstance(low.answer(request), PeerNotFound)
    signed = Message(MessageType.HOLE, "", OFFER).sign(
        LOW, to=high.key, seq=50, sent_at_ms=1, epoch=bytes(8), chain=Chain.REGTEST
    )
    (link,) = [number for side, number in world.wires if side is high]
    world.gates[link] = world.wires[high, link].gate
    world.raw(high, link, signed)
    assert high.all(SignalHeard) == []


@pytest.mark.parametrize("payload", [b"", b"\x95", OFFER + b"\0", OFFER[:-1]], ids=["none", "cut", "longer", "shorter"])
def test_a_signal_that_is_none_closes_the_link_with_a_reason(payload: bytes) -> None:
    world, _, high = connected()
    link = world.half_link(high, LOW)
    epoch = draws("x")(8)
    world.raw(
        high, link, announcement(epoch).sign(LOW, to=high.key, seq=1, sent_at_ms=1, epoch=epoch, chain=Chain.REGTEST)
    )
    before = len(high.all(Disconnect))
    world.raw(high, link, Message(MessageType.HOLE, "", payload).sign(
        LOW, to=high.key, seq=2, sent_at_ms=1, epoch=epoch, chain=Chain.REGTEST))  # fmt: skip
    assert high.all(SignalHeard) == []
    closed = high.all(Disconnect)[before:]
    assert [one.code for one in closed] == [CloseCode.FAULT]
    assert isinstance(high.news(Fault)[-1].error, SerializationError)


def test_an_application_does_not_send_signals() -> None:
    world, low, high = connected()
    request = low.send(Message(MessageType.HOLE, "", OFFER), high.key)
    assert isinstance(low.answer(request), SendError)
    before = len(low.all(Send))
    world.run()
    assert len(low.all(Send)) == before


ICE = ("ice:",)
BY_RELAY = Path(Rank.RELAYED, "wss")


@pytest.mark.parametrize(
    ("own", "theirs", "learned"),
    [(ICE, ICE, True), ((), ICE, False), (ICE, (), False), (ICE, ("6.6.6.6:8737", "tls://6.6.6.6:1"), False)],
    ids=["both", "only the peer", "only we", "another address"],
)
def test_hole_punching_is_an_address_where_both_sides_announce_it_and_nothing_else_is(
    own: tuple[str, ...], theirs: tuple[str, ...], learned: bool
) -> None:
    world, low, high = strangers()
    for side, addresses in ((low, own), (high, theirs)):
        side.announce(*addresses)
    before = low.peer(high.key).places
    low.dial(high.key)
    world.run()
    places = low.peer(high.key).places
    assert [one.text for one in places if one not in before] == (["ice:"] if learned else [])
    assert list(places) == sorted(places, key=lambda one: one.rank)


def by_relay(*dead: str) -> tuple[World, Side, Side]:
    """Return two sides that punch holes, and whose first link goes by a relay."""
    world, low, high = strangers()
    for side in (low, high):
        side.announce(*ICE)
    low.add(PeerInfo(id="high", addresses=("wss://relay.example",), pubkey_hex=HIGH.pubkey_hex))
    high.add(PeerInfo(id="low", pubkey_hex=LOW.pubkey_hex))
    world.dead.update(dead)
    low.dial(high.key)
    world.run()
    return world, low, high


def test_a_hole_is_tried_soon_after_there_is_a_link_and_then_with_growing_pauses() -> None:
    world, low, _ = by_relay("ice:")
    assert len(low.all(Connect)) == 1
    times = [world.now]
    for _ in range(3):
        while len(low.all(Connect)) == len(times):
            world.wait(0.5)
        times.append(world.now)
        assert [one.text for one in low.all(Connect)[-1].addresses] == ["ice:"]
    pauses = [late - early for early, late in pairwise(times)]
    assert pauses[0] <= 2
    assert 40 <= pauses[1] <= 80 < pauses[2]


def test_once_a_person_has_confirmed_the_key_a_hole_is_tried_soon_and_stays_an_address() -> None:
    world, low, high = strangers()
    info = PeerInfo(id="high", addresses=("10.0.0.9:9000", "wss://relay.example"), pubkey_hex=HIGH.pubkey_hex)
    for side in (low, high):
        side.announce(*ICE)
    low.node.book.remove(high.key)
    low.ask(lambda request: AddPeer(request, info, provisional=True))
    world.dead.update(("10.0.0.9:9000", "ice:"))
    low.dial(high.key)
    world.wait(5)
    assert len(low.all(Connect)) == 1
    low.add(info)
    world.wait(2)
    assert [one.text for one in low.all(Connect)[-1].addresses] == ["10.0.0.9:9000", "ice:"]
    low.add(replace(info, name="renamed"))
    assert "ice:" in [one.text for one in low.peer(high.key).places]


def test_a_punched_link_takes_the_place_of_the_relays() -> None:
    world, low, high = by_relay()
    world.wait(3)
    for side, other in ((low, high), (high, low)):
        assert [link.path.rank for link in side.peer(other.key).links] == [Rank.PUNCHED]


# --- both sides are there now -------------------------------------------------------------------------------------


def tries(side: Side) -> int:
    """Return how often the hole alone was dialled."""
    return sum([one.text for one in connect.addresses] == ["ice:"] for connect in side.all(Connect))


def back(world: World, low: Side, high: Side) -> None:
    """Let the link break, and high come back by the relay, where low had left it letters meanwhile."""
    (link,) = low.peer(high.key).links
    world.unreachable.update((low.key, high.key))
    world.break_link(low, link.number)
    world.wait(1)
    low.feed(PeerConnected(10_000 + tries(low), high.key, True, path=BY_RELAY, mail=Mail.LETTERS))
    world.unreachable.clear()
    world.link(high, low, BY_RELAY)
    world.run()
    assert low.peer(high.key).live


def test_when_the_peer_is_back_a_hole_is_tried_at_once_however_long_the_pause_had_grown() -> None:
    world, low, high = by_relay("ice:")
    world.wait(2_000)
    before = tries(low)
    back(world, low, high)
    world.wait(2 * low.limits.first_hole_s)
    assert tries(low) == before + 1
    world.dead.clear()
    back(world, low, high)
    world.wait(10)
    assert [link.path.rank for link in low.peer(high.key).links] == [Rank.PUNCHED]


def test_a_peer_that_comes_back_and_back_is_not_dialled_more_often_than_it_would_answer() -> None:
    world, low, high = by_relay("ice:")
    world.wait(2_000)
    before, began = tries(low), world.now
    for _ in range(50):
        back(world, low, high)
        world.wait(1)
    apart = low.limits.ice_offers_pause_s + low.limits.ice_gather_s
    assert 5 < tries(low) - before <= (world.now - began) / apart + 1


def test_a_link_by_way_of_turn_is_what_a_hole_came_to_and_none_is_tried_soon() -> None:
    world, low, high = by_relay("ice:")
    world.link(high, low, TURN)
    world.run()
    before = tries(low)
    world.wait(30)
    assert ([link.path for link in low.peer(high.key).links], tries(low)) == ([TURN], before)
    world.wait(60)
    assert tries(low) == before + 1


def test_a_direct_address_that_was_dialled_in_vain_waits_unless_the_peer_itself_comes() -> None:
    for dialler, soon in (("low", False), ("high", True)):
        world, low, high = strangers()
        low.add(PeerInfo(id="high", addresses=("8.8.8.8:9", "wss://relay.example"), pubkey_hex=HIGH.pubkey_hex))
        low.peer(high.key).wanted = True
        world.dead.add("8.8.8.8:9")
        world.link(*((low, high) if dialler == "low" else (high, low)), BY_RELAY)
        world.wait(3)
        assert len(low.all(Connect)) == soon, dialler


GROUP = signing_group()


def dials(node: Node, now: float) -> list[Connect]:
    """Return whom a node dials when it is woken."""
    return [one for one in node.handle(Woken(), now) if isinstance(one, Connect)]


def linked_node(name: str, other: str) -> Node:
    """Return a node that punches holes, with a link by a relay to another that does, and a first try behind it."""
    config = NodeConfig(label=name, chain=Chain.REGTEST, addresses=ICE)
    made = Node(identity(name), config, draws(name))
    peer = identity(other)
    info = PeerInfo(id=other, addresses=("wss://relay.example",), pubkey_hex=peer.pubkey_hex)
    made.handle(AddPeer(1, info), NOW)
    made.handle(JoinGroup(2, Sessions(GROUP, identity(name).pubkey)), NOW)
    made.handle(PeerConnected(3, peer.pubkey, True, path=BY_RELAY), NOW)
    hello = Message(MessageType.PEER_ANNOUNCEMENT, other, PeerAnnouncement(other, ICE, (), b"epoch--1", b"", 0))
    signed = hello.sign(peer, to=made.identity.pubkey, seq=0, sent_at_ms=1, epoch=b"epoch--1", chain=Chain.REGTEST)
    made.handle(MessageReceived(3, signed.verify()), NOW)
    assert dials(made, NOW + 2)
    made.handle(ConnectFailed(peer.pubkey, TransportError("no path")), NOW + 10)
    assert not dials(made, NOW + 12)
    return made


def test_a_session_begins_with_a_look_for_the_direct_path_on_both_sides() -> None:
    alice, bob = linked_node("alice", "bob"), linked_node("bob", "alice")
    at = NOW + 13
    effects = alice.handle(Propose(4, GROUP.id, psbt().serialize(), NOW + 600), at)
    (save,) = [one.save for one in effects if isinstance(one, Save)]
    effects += alice.handle(Saved(GROUP.id, RecordSaved(save.session, save.number)), at)
    (sent,) = [one.data for one in effects if isinstance(one, Send) and one.link == 3]
    proposal = Message.from_bytes(sent).verify()
    assert proposal.type == MessageType.TRANSACTION_PROPOSAL
    bob.handle(MessageReceived(3, proposal), at)
    for node in (alice, bob):
        assert dials(node, at + 2)
    bob.handle(ConnectFailed(alice.identity.pubkey, TransportError("no path")), at + 3)
    bob.handle(MessageReceived(3, proposal), at + 4)  # said again, which begins nothing
    assert not dials(bob, at + 20)
