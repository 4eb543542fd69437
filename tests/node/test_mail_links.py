"""Mail links: nobody is waited for, nothing is lost, and a live link takes their place."""

from __future__ import annotations

import pytest

from musignet.node.config import NodeConfig
from musignet.node.core import Node
from musignet.node.effects import (
    Acknowledge,
    Disconnect,
    Effect,
    MessageArrived,
    PeerDown,
    PeerUp,
    Publish,
    Reply,
    Send,
)
from musignet.node.inputs import (
    Acknowledged,
    AddPeer,
    Drain,
    HangUp,
    JoinGroup,
    MailMoved,
    MessageReceived,
    PeerConnected,
    PeerLost,
    SendMessage,
    Stored,
    Woken,
)
from musignet.node.peers import Mail, PeerInfo, PeerState
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import SendToGroup
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, CloseCode, MessageType, Ping, Pong
from support.ceremony import NOW, drawer, identity, signing_group

ALICE, BOB = identity("alice").pubkey, identity("bob").pubkey
GROUP = signing_group()


def node(name: str, other: str, *, provisional: bool = False) -> Node:
    made = Node(identity(name), NodeConfig(label=name, chain=Chain.REGTEST, disk=True), drawer(name))
    made.handle(AddPeer(1, PeerInfo(id=other, pubkey_hex=identity(other).pubkey.hex()), provisional), NOW)
    return made


def kinds(effects: list[Effect]) -> list[type]:
    return [type(one.news) if isinstance(one, Publish) else type(one) for one in effects]


def carry(effects: list[Effect], to: Node, link: int, now: float) -> list[Effect]:
    out: list[Effect] = []
    for one in effects:
        if isinstance(one, Send):
            out += to.handle(MessageReceived(link, Message.from_bytes(one.data).verify()), now)
    return out


def test_it_is_ready_at_once_says_who_we_are_and_waits_for_nobody() -> None:
    alice = node("alice", "bob")
    (hello,) = alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    assert Message.from_bytes(hello.data).type == MessageType.PEER_ANNOUNCEMENT
    assert alice.next_deadline() is None
    assert alice.handle(Woken(), NOW + 1e6) == []
    assert alice.book.get(BOB).state is PeerState.DISCONNECTED


def test_a_ping_that_comes_by_mail_is_answered_by_nothing() -> None:
    """Nobody waits for the answer, and nobody would ever acknowledge it: it would be carried for good."""
    alice = node("alice", "bob")
    alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    for seq, content in enumerate((Ping(1), Pong(2))):
        kind = MessageType.PING if isinstance(content, Ping) else MessageType.PONG
        ping = Message(kind, "bob", content).sign(identity("bob"), to=ALICE, seq=seq, chain=Chain.REGTEST)
        assert alice.handle(MessageReceived(5, ping.verify()), NOW) == []


def test_what_cannot_wait_does_not_go_by_mail() -> None:
    alice = node("alice", "bob")
    alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    (reply,) = alice.handle(SendMessage(7, (BOB,), Message(MessageType.CHAT, "alice", b"now")), NOW)
    assert isinstance(reply, Reply)
    assert "disconnected" in str(reply.error)
    assert alice.handle(SendMessage(8, None, Message(MessageType.CHAT, "alice", b"all")), NOW) == [Reply(8)]
    assert alice.handle(Drain(9), NOW) == [Reply(9)]


def test_the_two_sides_hear_of_each_other_and_acknowledge() -> None:
    alice, bob = node("alice", "bob"), node("bob", "alice")
    said = alice.handle(PeerConnected(5, BOB, False, mail=Mail.LETTERS), NOW)
    bob.handle(PeerConnected(6, ALICE, False, mail=Mail.LETTERS), NOW)
    assert carry(said, bob, 6, NOW + 1e5) == []
    assert carry(said, bob, 6, NOW + 2e5) == []  # the same file again
    assert bob.book.get(ALICE).links[0].epoch == alice.epoch


def test_a_live_link_takes_its_place_and_what_was_not_acknowledged_goes_over_it() -> None:
    alice, bob = node("alice", "bob"), node("bob", "alice")
    alice.handle(JoinGroup(2, Sessions(GROUP, ALICE)), NOW)
    alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    signed = alice._outbox.to_group(MessageType.ABORT, bytes(32), b"x", GROUP.id, NOW)
    out: list[Effect] = []
    alice._outbox.spread(signed, [alice.book.get(BOB)], out)
    assert [(type(one), one.link) for one in out] == [(Send, 5)]
    alice.handle(PeerConnected(9, BOB, False), NOW)
    effects = carry(bob.handle(PeerConnected(3, ALICE, True), NOW), alice, 9, NOW)
    assert kinds(effects) == [PeerUp, Disconnect, Send]
    assert effects[1] == Disconnect(5, CloseCode.DUPLICATE, "another link stays")
    assert (effects[2].link, effects[2].data) == (9, signed.raw)
    assert kinds(alice.handle(PeerLost(9), NOW + 1)) == [PeerDown]


def test_none_is_opened_beside_a_live_link_or_to_a_peer_that_nobody_confirmed() -> None:
    alice, bob = node("alice", "bob"), node("bob", "alice")
    alice.handle(PeerConnected(9, BOB, False), NOW)
    carry(bob.handle(PeerConnected(3, ALICE, True), NOW), alice, 9, NOW)
    assert alice.handle(PeerConnected(10, BOB, False, mail=Mail.ROUNDS), NOW) == [Disconnect(10, None)]
    stranger = node("alice", "bob", provisional=True)
    assert stranger.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW) == [Disconnect(5, None)]


def test_a_newer_one_takes_the_place_of_an_older() -> None:
    alice = node("alice", "bob")
    alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    assert Disconnect(5, CloseCode.DUPLICATE, "another link stays") in alice.handle(
        PeerConnected(6, BOB, False, mail=Mail.ROUNDS), NOW
    )
    assert [link.number for link in alice.book.get(BOB).links] == [6]


@pytest.mark.parametrize("end", [PeerLost(5), HangUp(4, BOB)])
def test_its_end_is_no_news(end: object) -> None:
    alice = node("alice", "bob")
    alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    assert PeerDown not in kinds(alice.handle(end, NOW))
    assert alice.book.get(BOB).links == []


ROUNDS = [MessageType.PUBLIC_NONCE, MessageType.PARTIAL_SIGNATURE, MessageType.NONCE_LIST, MessageType.AGGREGATE_NONCE]


@pytest.mark.parametrize("kind", ROUNDS)
def test_what_a_round_had_said_is_never_left_anywhere_and_goes_on_the_next_live_link(kind: MessageType) -> None:
    """Also when the link broke before it was acknowledged: `sim.absences` found that it was."""
    alice, bob = node("alice", "bob"), node("bob", "alice")
    alice.handle(JoinGroup(1, Sessions(GROUP, ALICE), ()), NOW)

    def linked(number: int, mail: Mail = Mail.NO) -> list[MessageType | int]:
        said = alice.handle(PeerConnected(number, BOB, True, mail=mail), NOW)
        if mail is Mail.NO:
            said += carry(bob.handle(PeerConnected(number, ALICE, False), NOW), alice, number, NOW)
        return [Message.from_bytes(one.data).type for one in said if isinstance(one, Send)]

    def says() -> int:
        out: list[Effect] = []
        alice.ceremonies._send(GROUP.id, SendToGroup(kind, bytes(32), b"x"), NOW, out)
        return len(out)

    linked(5)
    assert says() == 1
    alice.handle(PeerLost(5, None, None), NOW)
    assert linked(7, Mail.LETTERS) == [MessageType.PEER_ANNOUNCEMENT]
    assert says() == 0
    assert linked(9) == [MessageType.PEER_ANNOUNCEMENT, kind]
    alice.handle(PeerLost(9, None, None), NOW)
    assert linked(11, Mail.ROUNDS) == [MessageType.PEER_ANNOUNCEMENT, kind], "a stick is in somebody's hand"


@pytest.mark.parametrize(("mail", "away"), [(Mail.LETTERS, True), (Mail.ROUNDS, False)])
def test_sessions_know_who_gets_mail(mail: Mail, away: bool) -> None:
    alice = node("alice", "bob")
    alice.handle(JoinGroup(2, Sessions(GROUP, ALICE)), NOW)
    alice.handle(PeerConnected(5, BOB, False, mail=mail), NOW)
    present = alice.ceremonies._groups[GROUP.id]._present
    assert (BOB in present.letters, BOB in present.by_mail, BOB in present.identities) == (away, not away, False)
    assert alice.handle(MailMoved(5), NOW + 5) == []
    assert alice.handle(MailMoved(77), NOW + 5) == []


def test_what_only_repeats_is_said_on_links_and_not_put_into_the_mail() -> None:
    alice = node("alice", "bob")
    alice.handle(JoinGroup(2, Sessions(GROUP, ALICE)), NOW)
    alice.handle(PeerConnected(5, BOB, False, mail=Mail.ROUNDS), NOW)
    for again, count in ((False, 1), (True, 0)):
        out: list[Effect] = []
        alice.ceremonies._send(GROUP.id, SendToGroup(MessageType.ABORT, bytes(32), b"x", None, again), NOW, out)
        assert len(out) == count


def test_a_durable_message_goes_with_the_mail_and_is_handed_over_once() -> None:
    alice, bob = node("alice", "bob"), node("bob", "alice")
    hello = alice.handle(PeerConnected(5, BOB, False, mail=Mail.LETTERS), NOW)
    bob.handle(PeerConnected(6, ALICE, False, mail=Mail.LETTERS), NOW)
    (store,) = alice.handle(SendMessage(7, (BOB,), Message(MessageType.CHAT, "alice", b"later"), keep_s=9e4), NOW)
    sent = alice.handle(Stored(store), NOW)
    assert kinds(sent) == [Send, Reply]
    (kept,) = carry([*hello, *sent], bob, 6, NOW + 1e4)
    acknowledge, arrived = bob.handle(Stored(kept), NOW + 1e4)
    assert isinstance(acknowledge, Acknowledge)
    assert isinstance(arrived.news, MessageArrived)
    assert carry([*hello, *sent], bob, 6, NOW + 2e4) == [acknowledge]
    alice.handle(Acknowledged(5, acknowledge.message_id), NOW + 3e4)
    assert not alice.book.get(BOB).unacked
