"""A key that no person has confirmed yet: it may be paired, and gets nothing else."""

from __future__ import annotations

import pytest
from pair import HIGH, LOW, Side, World, chat, info_of

from musignet.errors import AuthenticationError, SendError
from musignet.node.effects import Fault, MessageArrived, PeerDown, PeerUp
from musignet.node.inputs import AddPeer, PeerConnected
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType, PairConfirm, PairHello
from support.keys import CAROL

HELLO, CONFIRM = MessageType.PAIR_HELLO, MessageType.PAIR_CONFIRM


def met(*, host_pins: bool = False) -> tuple[World, Side, Side]:
    """Return a host that has let a key in provisionally, and its guest, linked."""
    world = World()
    host, guest = world.add(LOW, "host"), world.add(HIGH, "guest")
    host.ask(lambda request: AddPeer(request, info_of(HIGH, "somebody"), not host_pins))
    guest.ask(lambda request: AddPeer(request, info_of(LOW, "host"), False))
    guest.dial(host.key)
    world.run()
    return world, host, guest


def test_it_is_linked_and_speaks_of_its_pairing() -> None:
    _, host, guest = met()
    assert host.news(PeerUp)
    assert host.peer(guest.key).provisional
    for record, kind in ((PairHello(bytes(32), "x", ()), HELLO), (PairConfirm(bytes(32)), CONFIRM)):
        assert guest.answer_after_run(guest.send(Message(kind, "guest", record), host.key)) is None
    assert [news.message.type for news in host.news(MessageArrived)] == [HELLO, CONFIRM]
    assert host.answer_after_run(host.send(Message(HELLO, "host", PairHello(bytes(32), "x", ())), guest.key)) is None


@pytest.mark.parametrize("kind", [MessageType.CHAT, MessageType.TRANSACTION_PROPOSAL, MessageType.BLAME, 99])
def test_anything_else_closes_the_link_and_reaches_nobody(kind: int) -> None:
    world, host, guest = met()
    guest.send(chat(kind=kind), host.key)
    world.run()
    assert not host.news(MessageArrived)
    assert "before the pairing" in str(host.news(Fault)[0].error)
    assert host.news(PeerDown)


def test_nothing_else_is_sent_to_it() -> None:
    world, host, guest = met()
    assert isinstance(host.answer_after_run(host.send(chat(), guest.key)), SendError)
    request = host.send(chat())
    world.run()
    (reply,) = host.replies(request)
    assert (reply.error, reply.peers) == (None, 0), "a broadcast leaves it out"
    assert not guest.news(MessageArrived)


def test_once_confirmed_it_is_a_peer_like_any_other_and_stays_one() -> None:
    world, host, guest = met()
    for provisional in (False, True):
        host.ask(lambda request, provisional=provisional: AddPeer(request, info_of(HIGH, "guest"), provisional))
        assert not host.peer(guest.key).provisional
    guest.send(chat(), host.key)
    world.run()
    assert host.news(MessageArrived)


def test_a_taken_label_does_not_keep_it_from_being_paired_under_another() -> None:
    """Its own name belongs to another key here. Unconfirmed, it comes in; confirmed by another name, it stays in."""
    world = World()
    host, guest = world.add(LOW, "host"), world.add(HIGH, "carol")
    host.add(info_of(CAROL, "carol"))
    host.ask(lambda request: AddPeer(request, info_of(HIGH, "somebody"), True))
    guest.add(info_of(LOW, "host"))
    assert guest.answer_after_run(guest.dial(host.key)) is None
    assert host.news(PeerUp)
    confirmed = PeerInfo(id="carol at work", name="carol", pubkey_hex=HIGH.pubkey_hex)
    host.add(confirmed)
    number = next(number for side, number in world.wires if side is guest)
    world.break_link(guest, number)
    world.wait(5)
    assert host.peer(guest.key).links
    assert not [one for one in host.news(Fault) if isinstance(one.error, AuthenticationError)]


def test_the_transcript_of_the_link_is_kept() -> None:
    _, host, guest = met()
    host.feed(PeerConnected(77, guest.key, False, b"t" * 32))
    assert host.node._links[77].transcript == b"t" * 32
