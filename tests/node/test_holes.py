"""Offers and answers of hole punching pass through the node: signed, to who is connected, and never kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pair import HIGH, LOW, Side, World, announcement, connected, draws, info_of, strangers

from musignet.errors import PeerNotFound, SendError, SerializationError
from musignet.node.addresses import Rank
from musignet.node.effects import Connect, Disconnect, Fault, MessageArrived, Send, SignalHeard
from musignet.node.inputs import AddPeer, SaySignal
from musignet.node.peers import PeerInfo
from musignet.wire.candidates import Candidate, Kind, Role, Signal
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, CloseCode, MessageType

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
    for side, other, identity in ((low, high, HIGH), (high, low, LOW)):
        side.node.book.remove(other.key)
        side.ask(lambda request, i=identity: AddPeer(request, info_of(i, "new"), provisional=True))  # type: ignore[misc]
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
        side.node.config = replace(side.config, addresses=addresses)
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
        side.node.config = replace(side.config, addresses=ICE)
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
        side.node.config = replace(side.config, addresses=ICE)
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
