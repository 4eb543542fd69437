"""Messages of the application: sent, acknowledged, sent again, delivered once, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
from pair import HIGH, LOW, Side, World, announcement, chat, connected, info_of, strangers

from musignet.crypto.keys import Identity
from musignet.errors import ConnectionError, InvalidMessage, NetworkError, SendError, SerializationError
from musignet.limits import MESSAGE_ID_BYTES, Limits
from musignet.node.effects import (
    Acknowledge,
    Disconnect,
    Fault,
    MessageArrived,
    PeerDown,
    Reply,
    Send,
    Undelivered,
)
from musignet.node.inputs import Acknowledged, ForgetPeer, HangUp, PeerLost, SendMessage, Stop
from musignet.node.outbox import NODES_OWN
from musignet.wire.channel import CloseReceived
from musignet.wire.envelope import Message, SignedMessage
from musignet.wire.messages import Ack, Chain, CloseCode, MessageType, Priority
from support.keys import CAROL


def texts(side: Side) -> list[str]:
    """Return the texts that reached the application."""
    return [arrived.message.payload.decode() for arrived in side.news(MessageArrived)]


def sent(side: Side) -> list[SignedMessage]:
    """Return the application's messages that a node has put on the wire."""
    messages = [Message.from_bytes(send.data) for send in side.all(Send)]
    return [message for message in messages if message.type not in NODES_OWN]


def receiver(limits: Limits | None = None) -> tuple[World, Side, int]:
    """Return a node connected to HIGH, which is the test itself."""
    world = World()
    low = world.add(LOW, "low", limits=limits or Limits())
    low.add(info_of(HIGH, "high"))
    link = world.half_link(low, HIGH)
    world.raw(low, link, announcement().sign(HIGH, epoch=b"epoch--1", chain=Chain.REGTEST))
    return world, low, link


def signed(
    text: str = "hello", seq: int = 1, *, kind: int = MessageType.CHAT, epoch: bytes = b"epoch--1"
) -> SignedMessage:
    return chat(text, kind=kind).sign(HIGH, seq=seq, epoch=epoch, chain=Chain.REGTEST)


# --- sending ----------------------------------------------------------------------------------------------------------


def test_a_message_arrives_once_verified_and_is_acknowledged() -> None:
    world, low, high = connected()
    request = low.send(chat(), high.key)
    assert low.replies(request) == [Reply(request, None, 1)]
    (message,) = sent(low)
    body = message.body
    assert (body.recipient, body.epoch, body.chain) == (high.key, low.node.epoch, Chain.REGTEST)
    assert body.sent_at_ms == int(world.now * 1000)
    assert body.seq == low.node._outbox.seq
    world.run()
    (arrived,) = high.news(MessageArrived)
    assert (arrived.key, arrived.message) == (low.key, message)
    record = low.peer(high.key)
    assert (record.unacked, record.unacked_bytes) == ({}, 0)


def test_numbers_rise_over_all_messages_and_recipients() -> None:
    world, low, high = connected()
    for text in "abc":
        low.send(chat(text), high.key)
    seqs = [Message.from_bytes(send.data).body.seq for send in low.all(Send)]
    assert seqs == list(range(1, len(seqs) + 1))
    world.run()
    assert texts(high) == ["a", "b", "c"]


def test_until_acked_is_answered_when_the_peer_has_it() -> None:
    world, low, high = connected()
    request = low.send(chat(), high.key, until_acked=True)
    assert low.replies(request) == []
    world.run()
    assert low.replies(request) == [Reply(request, None, 1)]


@pytest.mark.parametrize(
    ("kind", "priority"),
    [
        (MessageType.PARTIAL_SIGNATURE, Priority.ROUND_2),
        (MessageType.PUBLIC_NONCE, Priority.ROUND_1),
        (MessageType.CHAT, Priority.BULK),
        (65_535, Priority.BULK),
    ],
)
def test_a_message_is_sent_with_the_priority_of_its_type(kind: int, priority: Priority) -> None:
    _, low, high = connected()
    low.send(chat(kind=kind), high.key)
    assert low.all(Send)[-1].priority == priority


@pytest.mark.parametrize("kind", sorted(NODES_OWN))
def test_what_nodes_say_among_themselves_is_not_for_applications(kind: MessageType) -> None:
    _, low, high = connected()
    error = low.answer(low.send(Message(kind, "x"), high.key))
    assert isinstance(error, SendError)
    assert str(error).startswith(f"{kind.name} is sent by the node itself; use CHAT")


def test_a_message_that_cannot_be_signed_is_refused() -> None:
    _, low, high = connected()
    error = low.answer(low.send(Message(MessageType.CHAT, "x" * 65, b"hi"), high.key))
    assert isinstance(error, SerializationError)
    assert sent(low) == []


def test_nothing_is_kept_for_a_peer_that_is_not_connected() -> None:
    world, low, high = strangers()
    error = low.answer(low.send(chat(), high.key))
    assert isinstance(error, SendError)
    assert "is disconnected; send when it is connected; nothing was kept" in str(error)
    low.dial(high.key)
    world.run()
    assert sent(low) == []


def test_the_refusal_says_why_the_peer_is_away() -> None:
    world, low, high = connected()
    world.break_link(low, low.peer(high.key).links[0].number)
    world.run()
    error = low.answer(low.send(chat(), high.key))
    assert "is reconnecting (the connection broke)" in str(error)


def test_one_of_several_recipients_that_is_away_refuses_all() -> None:
    _, low, high = connected()
    low.add(info_of(CAROL, "carol"))
    error = low.answer(low.send(chat(), high.key, CAROL.pubkey))
    assert isinstance(error, SendError)
    assert "carol" in str(error)
    assert sent(low) == []


def test_recipients_that_are_not_in_the_book_are_nobody() -> None:
    _, low, _ = connected()
    request = low.send(chat(), CAROL.pubkey)
    assert low.replies(request) == [Reply(request, None, 0)]


def test_a_stopped_node_sends_nothing() -> None:
    _, low, high = connected()
    low.ask(Stop)
    assert isinstance(low.answer(low.send(chat(), high.key)), SendError)
    request = low.send(chat())
    assert low.replies(request) == [Reply(request, None, 0)]


# --- broadcast --------------------------------------------------------------------------------------------------------


def trio() -> tuple[World, Side, Side, Side]:
    world, low, high = connected()
    carol = world.add(CAROL, "carol")
    low.add(info_of(CAROL, "carol"))
    carol.add(info_of(LOW, "low"))
    low.dial(carol.key)
    world.run()
    return world, low, high, carol


@pytest.mark.parametrize("until_acked", [False, True])
def test_a_broadcast_is_signed_once_and_the_same_bytes_go_to_everybody(until_acked: bool) -> None:
    world, low, high, carol = trio()
    low.add(info_of(Identity.from_secret(bytes(31) + b"\5"), "away"))
    before = low.node._outbox.seq
    request = low.send(chat(), until_acked=until_acked)
    first, second = sent(low)
    assert first.raw == second.raw
    assert first.body.recipient == b""
    assert low.node._outbox.seq == before + 1
    assert bool(low.replies(request)) is not until_acked
    world.run()
    assert low.replies(request) == [Reply(request, None, 2)]
    assert texts(high) == texts(carol) == ["hello"]


def test_a_broadcast_to_nobody_is_done() -> None:
    _, low, _ = strangers()
    request = low.send(chat())
    assert low.replies(request) == [Reply(request, None, 0)]


def test_several_named_recipients_get_the_same_bytes_too() -> None:
    _, low, high, carol = trio()
    low.send(chat(), high.key, carol.key)
    first, second = sent(low)
    assert first.raw == second.raw


def test_a_broadcast_waiting_for_a_peer_that_is_hung_up_on_is_answered_once_with_the_reason() -> None:
    world, low, high, carol = trio()
    request = low.send(chat(), until_acked=True)
    low.ask(lambda hang_up: HangUp(hang_up, carol.key))
    assert isinstance(low.answer(request), ConnectionError)
    world.run()
    assert texts(high) == ["hello"]
    assert len(low.replies(request)) == 1
    assert [(lost.key, lost.count) for lost in low.news(Undelivered)] == [(carol.key, 1)]


# --- signed by the caller ---------------------------------------------------------------------------------------------


def presigned(
    seq: int = 0,
    text: str = "hello",
    *,
    to: bytes | None = None,
    who: Identity = LOW,
    chain: Chain = Chain.REGTEST,
    kind: int = MessageType.CHAT,
) -> SignedMessage:
    return chat(text, kind=kind).sign(who, to=to, seq=seq, chain=chain)


def test_a_message_that_its_caller_signed_goes_out_as_it_is() -> None:
    world, low, high = connected()
    message = presigned(to=HIGH.pubkey)
    assert low.answer(low.send(message, high.key)) is None
    assert sent(low) == [message]
    world.run()
    assert high.news(MessageArrived)[0].message == message


@pytest.mark.parametrize(
    "message",
    [presigned(who=HIGH), presigned(to=CAROL.pubkey), presigned(to=bytes(32))],
    ids=["by another key", "for another peer", "for a group"],
)
def test_a_message_signed_for_or_by_somebody_else_is_refused(message: SignedMessage) -> None:
    _, low, high = connected()
    error = low.answer(low.send(message, high.key))
    assert isinstance(error, SendError)
    assert "signed by another key, or for another peer; send the unsigned one" in str(error)
    assert sent(low) == []


def test_a_message_signed_for_one_peer_is_not_broadcast() -> None:
    _, low, _ = connected()
    assert isinstance(low.answer(low.send(presigned(to=HIGH.pubkey))), SendError)


def test_a_message_signed_for_another_bitcoin_network_is_refused_here_and_not_by_every_peer() -> None:
    _, low, high = connected()
    error = low.answer(low.send(presigned(chain=Chain.MAINNET), high.key))
    assert isinstance(error, SendError)
    assert "another Bitcoin network" in str(error)


def test_a_type_of_nodes_is_refused_also_when_signed() -> None:
    _, low, high = connected()
    message = presigned(kind=MessageType.PING)
    assert isinstance(low.answer(low.send(message, high.key)), SendError)


def test_a_second_message_under_one_number_is_refused_before_it_can_look_like_a_lie() -> None:
    world, low, high = connected(Limits(receive_window=2))
    for seq in (1, 2, 3):
        low.send(presigned(seq), high.key)
    world.run()
    for message in (presigned(3, "other"), presigned(0)):
        error = low.answer(low.send(message, high.key))
        assert isinstance(error, SendError)
        assert f"number {message.body.seq} was used before; sign with another seq=" in str(error)


def test_the_same_signed_message_may_be_sent_twice_and_arrives_once() -> None:
    world, low, high = connected()
    for _ in range(2):
        assert low.answer(low.send(presigned(), high.key)) is None
        world.run()
    assert texts(high) == ["hello"]
    assert low.peer(high.key).unacked == {}


@pytest.mark.parametrize("parked", [False, True])
def test_the_same_signed_message_is_not_put_on_its_way_twice_at_once(parked: bool) -> None:
    world, low, high = connected(Limits(unacked_max=1))
    if parked:
        low.send(chat("before"), high.key)
    first, second = (low.send(presigned(), high.key, until_acked=True) for _ in range(2))
    error = low.answer(second)
    assert isinstance(error, SendError)
    assert "this very message is on its way already" in str(error)
    world.run()
    assert low.answer(first) is None
    assert (low.peer(high.key).unacked, low.peer(high.key).unacked_bytes) == ({}, 0)
    assert texts(high) == ["before"] * parked + ["hello"]


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_an_identical_repeat_is_acknowledged_and_dropped() -> None:
    world, low, link = receiver()
    message = signed()
    first, again = world.raw(low, link, message), world.raw(low, link, message)
    assert first == [Acknowledge(link, message.id), *first[1:]]
    assert again == [Acknowledge(link, message.id)]
    assert texts(low) == ["hello"]


def test_a_second_body_under_one_number_closes_the_link() -> None:
    world, low, link = receiver()
    world.raw(low, link, signed("one", 7))
    world.raw(low, link, signed("two", 7))
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, InvalidMessage)
    assert "two different messages under one number from high" in str(fault.error)
    assert "got another body under number 7" in str(fault.error)
    assert texts(low) == ["one"]
    assert [d.code for d in low.all(Disconnect)] == [CloseCode.FAULT]
    assert [down.error for down in low.news(PeerDown)] == [fault.error]


def test_a_message_under_the_number_of_the_announcement_closes_the_link() -> None:
    world, low, link = receiver()
    world.raw(low, link, signed("hello", 0))
    assert "two different messages under one number" in str(low.news(Fault)[0].error)


def test_one_number_in_two_boot_epochs_is_two_messages() -> None:
    world, low, link = receiver()
    world.raw(low, link, signed("one", 7))
    world.raw(low, link, signed("two", 7, epoch=b"epoch--2"))
    assert texts(low) == ["one", "two"]


def test_a_message_older_than_the_window_is_dropped_without_a_word() -> None:
    world, low, link = receiver(Limits(receive_window=2))
    for seq in (5, 6, 7):
        world.raw(low, link, signed(str(seq), seq))
    assert world.raw(low, link, signed("5", 5)) == []
    assert texts(low) == ["5", "6", "7"]


def test_windows_of_the_oldest_boot_epochs_are_forgotten_but_not_of_the_run_we_are_linked_to() -> None:
    world, low, link = receiver(Limits(epochs_per_sender=2))
    for name in (b"epoch--2", b"epoch--3"):
        world.raw(low, link, signed(epoch=name))
    assert list(low.peer(HIGH.pubkey).windows) == [b"epoch--1", b"epoch--3"]


def test_replays_are_known_over_links() -> None:
    world, low, link = receiver()
    message = signed()
    world.raw(low, link, message)
    second = world.half_link(low, HIGH)
    world.raw(low, second, announcement().sign(HIGH, seq=9, epoch=b"epoch--1", chain=Chain.REGTEST))
    assert world.raw(low, second, message) == [Acknowledge(second, message.id)]
    assert texts(low) == ["hello"]


# --- unknown types ----------------------------------------------------------------------------------------------------


def test_an_unknown_odd_type_is_acknowledged_and_ignored() -> None:
    world, low, link = receiver()
    message = signed(kind=65_535)
    assert world.raw(low, link, message) == [Acknowledge(link, message.id)]
    assert low.news(Fault) == []


def test_an_unknown_even_type_closes_the_link() -> None:
    world, low, link = receiver()
    world.raw(low, link, signed(kind=65_534))
    (fault,) = low.news(Fault)
    assert "unknown message type" in str(fault.error)
    assert [d.code for d in low.all(Disconnect)] == [CloseCode.FAULT]
    assert not any(isinstance(effect, Acknowledge) for effect in low.effects)


# --- acknowledgements and resending -----------------------------------------------------------------------------------


def test_acknowledgements_of_nothing_mean_nothing() -> None:
    _, low, high = connected()
    low.send(chat(), high.key)
    link = low.peer(high.key).links[0].number
    for ids in (b"", bytes(16), bytes(160), b"odd"):
        assert low.feed(Acknowledged(link, ids)) == []
    assert len(low.peer(high.key).unacked) == 1


def test_acknowledgements_may_come_many_at_once_or_as_a_message() -> None:
    world, low, link = receiver()
    for text in "abc":
        low.send(chat(text), HIGH.pubkey)
    ids = list(low.peer(HIGH.pubkey).unacked)
    low.feed(Acknowledged(link, ids[0] + bytes(16) + ids[1]))
    assert list(low.peer(HIGH.pubkey).unacked) == [ids[2]]
    ack = Message(MessageType.ACK, "high", Ack((ids[2],)))
    world.raw(low, link, ack.sign(HIGH, seq=1, epoch=b"epoch--1", chain=Chain.REGTEST))
    assert low.peer(HIGH.pubkey).unacked == {}


def test_what_was_not_acknowledged_is_sent_again_byte_for_byte_and_delivered_once() -> None:
    world, low, high = connected()
    world.acks_lost = True
    for text in "ab":
        low.send(chat(text), high.key)
    world.run()
    low.send(chat("c"), high.key)
    world.break_link(low, low.peer(high.key).links[0].number)
    world.acks_lost = False
    world.wait(1)
    messages = [message.raw for message in sent(low)]
    assert messages[3:] == messages[:3]
    assert texts(high) == ["a", "b", "c"]
    assert low.peer(high.key).unacked == {}
    assert low.peer(high.key).unacked_bytes == 0


def test_what_is_under_way_on_a_link_that_stays_is_not_sent_again() -> None:
    _, low, _ = receiver()
    low.send(chat(), HIGH.pubkey)
    world = low.world
    second = world.half_link(low, HIGH)
    world.raw(low, second, announcement().sign(HIGH, seq=1, epoch=b"epoch--1", chain=Chain.REGTEST))
    links = [send.link for send in low.all(Send) if Message.from_bytes(send.data).type == MessageType.CHAT]
    assert links == [1, second], "the older link was closed, so it went to the newer one, once"


def test_until_acked_survives_a_lost_link() -> None:
    world, low, high = connected()
    world.acks_lost = True
    request = low.send(chat(), high.key, until_acked=True)
    world.run()
    world.break_link(low, low.peer(high.key).links[0].number)
    world.acks_lost = False
    world.run()
    assert low.replies(request) == []
    world.wait(1)
    assert low.answer(request) is None
    assert texts(high) == ["hello"]


@pytest.mark.parametrize(
    "leave", [HangUp, ForgetPeer, lambda request, _: Stop(request)], ids=["hang up", "forget", "stop"]
)
def test_leaving_gives_up_what_was_never_acknowledged_and_says_so(leave: partial[HangUp]) -> None:
    world, low, high = connected()
    world.acks_lost = True
    plain, waiting = low.send(chat("a"), high.key), low.send(chat("b"), high.key, until_acked=True)
    world.run()
    low.ask(lambda request: leave(request, high.key))
    assert low.answer(plain) is None
    assert isinstance(low.answer(waiting), ConnectionError)
    assert [(lost.key, lost.count) for lost in low.news(Undelivered)] == [(high.key, 2)]


# --- a message that the peer will never take --------------------------------------------------------------------------


def test_a_message_over_which_the_peer_closes_two_links_is_given_up_alone() -> None:
    world, low, high = connected()
    poison = low.send(chat("poison", kind=65_534), high.key, until_acked=True)
    follows = low.send(chat("after"), high.key, until_acked=True)
    world.wait(5)
    error = low.answer(poison)
    assert isinstance(error, SendError)
    assert "unknown message type" in str(error)
    assert low.news(Undelivered) == [Undelivered(high.key, 1, error)]
    assert low.answer(follows) is None
    assert texts(high) == ["after"]
    assert [message.type for message in sent(low)].count(65_534) == 2
    record = low.peer(high.key)
    assert (record.unacked, record.unacked_bytes, len(record.links)) == ({}, 0, 1)


def close_and_return(world: World, low: Side, code: CloseCode | None) -> int:
    """Let HIGH close its link, with a goodbye or by accident, and come back."""
    link = low.peer(HIGH.pubkey).links[-1].number
    goodbye = None if code is None else CloseReceived(code, "")
    low.feed(PeerLost(link, ConnectionError("the connection broke") if code is None else None, goodbye))
    link = world.half_link(low, HIGH)
    world.raw(low, link, announcement().sign(HIGH, seq=link, epoch=b"epoch--1", chain=Chain.REGTEST))
    return link


@pytest.mark.parametrize("code", [*(code for code in CloseCode if code is not CloseCode.FAULT), None])
def test_links_that_end_for_any_other_reason_give_nothing_up(code: CloseCode | None) -> None:
    world, low, _ = receiver()
    low.send(chat(), HIGH.pubkey)
    for _ in range(5):
        close_and_return(world, low, code)
    assert low.news(Undelivered) == []
    assert len(sent(low)) == 6


def test_one_fault_is_forgiven_and_the_next_message_starts_at_none() -> None:
    world, low, _ = receiver()
    for text in "ab":
        low.send(chat(text), HIGH.pubkey)
    link = close_and_return(world, low, CloseCode.FAULT)
    first, second = low.peer(HIGH.pubkey).unacked.values()
    low.feed(Acknowledged(link, first.message_id))
    close_and_return(world, low, CloseCode.FAULT)
    assert (low.news(Undelivered), second.faults) == ([], 1)
    close_and_return(world, low, CloseCode.FAULT)
    assert [(lost.count, "it says: nothing" in str(lost.error)) for lost in low.news(Undelivered)] == [(1, True)]
    assert low.peer(HIGH.pubkey).unacked == {}


def test_a_fault_with_nothing_on_its_way_or_only_on_another_link_gives_nothing_up() -> None:
    world, low, link = receiver()
    for _ in range(3):
        link = close_and_return(world, low, CloseCode.FAULT)
    low.send(chat(), HIGH.pubkey)
    second = world.half_link(low, HIGH)
    for _ in range(3):
        low.feed(PeerLost(second, None, CloseReceived(CloseCode.FAULT, "not let in")))
        second = world.half_link(low, HIGH)
    (message,) = low.peer(HIGH.pubkey).unacked.values()
    assert (message.faults, message.link, low.news(Undelivered)) == (0, link, [])


def test_what_was_parked_behind_a_message_that_is_given_up_follows() -> None:
    world, low, high = connected(Limits(unacked_max=1))
    low.send(chat(kind=65_534), high.key)
    parked = low.send(chat("parked"), high.key)
    world.wait(5)
    assert low.answer(parked) is None
    assert texts(high) == ["parked"]


# --- bounds -----------------------------------------------------------------------------------------------------------


def flood(side: Side, key: bytes, count: int, *, size: int = 100, until_acked: bool = False) -> list[int]:
    return [side.send(chat(f"{n:04}" + "x" * (size - 4)), key, until_acked=until_acked) for n in range(count)]


def test_what_exceeds_the_count_in_the_air_waits_and_then_follows_in_order() -> None:
    world, low, high = connected(Limits(unacked_max=3))
    requests = flood(low, high.key, 5)
    assert [bool(low.replies(request)) for request in requests] == [True, True, True, False, False]
    assert len(low.peer(high.key).unacked) == 3
    world.run()
    assert [low.answer(request) for request in requests] == [None] * 5
    assert [text[:4] for text in texts(high)] == ["0000", "0001", "0002", "0003", "0004"]


def test_what_exceeds_the_bytes_in_the_air_waits_but_one_message_is_always_allowed() -> None:
    world, low, high = connected(Limits(unacked_max_bytes=1_000))
    large = low.send(chat("x" * 2_000), high.key)
    assert low.answer(large) is None
    small = low.send(chat("y"), high.key)
    assert low.replies(small) == []
    world.run()
    assert low.answer(small) is None
    requests = flood(low, high.key, 5)
    assert 1 < sum(bool(low.replies(request)) for request in requests) < 5
    record = low.peer(high.key)
    assert record.unacked_bytes == sum(len(one.data) for one in record.unacked.values()) <= 1_000
    world.run()
    assert len(texts(high)) == 7


def test_a_message_that_would_fit_does_not_overtake_one_that_waits() -> None:
    world, low, high = connected(Limits(unacked_max_bytes=1_000))
    for text in ("a" * 500, "b" * 900, "c"):
        low.send(chat(text), high.key)
    world.run()
    assert [text[0] for text in texts(high)] == ["a", "b", "c"]


def test_what_waits_survives_a_lost_link_and_follows_what_is_sent_again() -> None:
    world, low, high = connected(Limits(unacked_max=2))
    flood(low, high.key, 4)
    world.break_link(low, low.peer(high.key).links[0].number)
    world.wait(1)
    assert [text[:4] for text in texts(high)] == ["0000", "0001", "0002", "0003"]


def test_an_acknowledgement_after_the_link_is_gone_frees_nothing_for_it() -> None:
    world, low, high = connected(Limits(unacked_max=1))
    link = low.peer(high.key).links[0].number
    requests = flood(low, high.key, 2)
    ids = next(iter(low.peer(high.key).unacked))
    world.break_link(low, link)
    world.run()
    assert low.feed(Acknowledged(link, ids)) == []
    assert low.replies(requests[1]) == []


@pytest.mark.parametrize("until_acked", [False, True])
def test_giving_up_answers_everybody_who_waits(until_acked: bool) -> None:
    _, low, high = connected(Limits(unacked_max=1))
    requests = flood(low, high.key, 3, until_acked=until_acked)
    low.ask(lambda request: HangUp(request, high.key))
    answers: list[NetworkError | None] = [low.answer(request) for request in requests]
    assert [type(answer) for answer in answers] == [
        ConnectionError if until_acked else type(None),
        ConnectionError,
        ConnectionError,
    ]
    assert [(lost.key, lost.count) for lost in low.news(Undelivered)] == [(high.key, 3)]


def test_a_broadcast_waits_for_room_at_each_peer() -> None:
    world, low, high, carol = trio()
    low.node._outbox._config = type(low.node.config)(chain=Chain.REGTEST, limits=Limits(unacked_max=1))
    low.send(chat("first"), carol.key)
    request = low.send(chat("second"))
    assert low.replies(request) == [], "accepted for one of two"
    world.run()
    assert low.replies(request) == [Reply(request, None, 2)]
    assert texts(carol) == ["first", "second"]
    assert texts(high) == ["second"]


def test_hanging_up_on_a_peer_that_was_served_does_not_answer_for_one_that_still_waits() -> None:
    world, low, high, carol = trio()
    low.node._outbox._config = type(low.node.config)(chain=Chain.REGTEST, limits=Limits(unacked_max=1))
    low.send(chat("first"), carol.key)
    request = low.send(chat("second"))
    low.ask(lambda hang_up: HangUp(hang_up, high.key))
    assert low.replies(request) == []
    world.run()
    assert low.replies(request) == [Reply(request, None, 2)]


def test_ids_are_sixteen_bytes() -> None:
    assert len(presigned().id) == MESSAGE_ID_BYTES == 16
    assert SendMessage(1, None, chat()).until_acked is False
