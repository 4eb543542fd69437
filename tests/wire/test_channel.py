"""`SecureChannel` in pairs: feeding, fragments, priorities, acknowledgements, closing, rotation, the shared budget."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.errors import ReceiveError, SendError
from musignet.limits import FRAGMENT_BYTES, MESSAGE_MAX_BYTES, MIB
from musignet.node.conduct import deed_of
from musignet.wire.channel import (
    Acked,
    CloseReceived,
    EnvelopeReceived,
    Established,
    Event,
    ReassemblyBudget,
    SecureChannel,
)
from musignet.wire.messages import Priority
from musignet.wire.noise import Initiator
from support.channels import carry, connected, dead, drain, frame, fresh, raw_peer, sealed, wire
from support.keys import ALICE, BOB, secret

WHOLE, FIRST, NEXT, EMPTY, CLOSE = range(5)
ID = bytes(range(16))


def pattern(size: int, start: int = 0) -> bytes:
    """Return bytes in which a lost, repeated or swapped fragment shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(start, start + size // 4 + 1))[:size]


def envelopes(events: list[Event]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, EnvelopeReceived)]


# --- feeding ----------------------------------------------------------------------------------------------------------


def feed_whole(channel: SecureChannel, data: bytes) -> list[Event]:
    channel.receive_data(data)
    return drain(channel)


def feed_bytewise(channel: SecureChannel, data: bytes) -> list[Event]:
    events = []
    for at in range(len(data)):
        channel.receive_data(data[at : at + 1])
        events += drain(channel)
    return events


def feed_whole_read_late(channel: SecureChannel, data: bytes) -> list[Event]:
    """Feed two uneven parts before the first `next_event`."""
    channel.receive_data(data[: len(data) // 3])
    channel.receive_data(data[len(data) // 3 :])
    return drain(channel)


def feed_uneven(channel: SecureChannel, data: bytes) -> list[Event]:
    """Feed pieces that end inside packets, so that a rest is kept each time."""
    events = []
    for at in range(0, len(data), 37):
        channel.receive_data(data[at : at + 37])
        events += drain(channel)
    return events


FEEDS = [feed_whole, feed_bytewise, feed_whole_read_late, feed_uneven]


def _chatter() -> tuple[SecureChannel, bytes, list[Event]]:
    """Return a receiver, bytes for it, and what they mean."""
    sender, receiver = connected()
    sender.acknowledge(ID)
    sender.send(b"first", Priority.CONTROL)
    data = wire(sender)
    sender.send(pattern(FRAGMENT_BYTES + 500))
    sender.send(b"urgent", Priority.ROUND_2)
    sender.acknowledge(ID)
    sender.close(7, "bye")
    data += wire(sender)
    return (
        receiver,
        data,
        [
            Acked(ID),
            EnvelopeReceived(b"first"),
            Acked(ID),
            EnvelopeReceived(b"urgent"),
            EnvelopeReceived(pattern(FRAGMENT_BYTES + 500)),
            CloseReceived(7, "bye"),
        ],
    )


@pytest.mark.parametrize("feed", FEEDS)
def test_frames_mean_the_same_however_they_arrive(feed: Callable[[SecureChannel, bytes], list[Event]]) -> None:
    receiver, data, expected = _chatter()
    assert feed(receiver, data) == expected
    assert not receiver.mid_frame


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("junk", [b"\0", bytes(18), b"\xff" * 200])
def test_trailing_junk_does_not_change_what_came_before(
    feed: Callable[[SecureChannel, bytes], list[Event]], junk: bytes
) -> None:
    receiver, data, expected = _chatter()
    assert feed(receiver, data) == expected
    receiver.receive_data(junk)
    if len(junk) < 18:
        assert drain(receiver) == []
        assert receiver.mid_frame
    else:
        assert isinstance(dead(receiver), ReceiveError)


@pytest.mark.parametrize("feed", FEEDS)
def test_the_handshake_arrives_however_it_is_cut_with_messages_right_behind(
    feed: Callable[[SecureChannel, bytes], list[Event]],
) -> None:
    dialler, responder = fresh()
    assert feed(responder, wire(dialler)) == []
    assert responder.acts_received == 1
    assert [type(event) for event in feed(dialler, wire(responder))] == [Established]
    dialler.send(b"hello")
    assert [type(event) for event in feed(responder, wire(dialler))] == [Established, EnvelopeReceived]
    assert (dialler.acts_received, responder.acts_received) == (1, 2)


def test_a_frame_that_has_begun_is_known_until_it_is_whole() -> None:
    sender, receiver = connected()
    sender.send(b"x" * 100)
    data = wire(sender)
    for at in range(len(data)):
        assert receiver.mid_frame is (at > 0)
        receiver.receive_data(data[at : at + 1])
        arrived = drain(receiver)
    assert arrived == [EnvelopeReceived(b"x" * 100)]
    assert not receiver.mid_frame


def test_a_message_sent_during_the_handshake_leaves_after_it() -> None:
    dialler, responder = fresh()
    dialler.send(b"early")
    responder.acknowledge(ID)
    assert carry(dialler, responder) == []
    assert [type(event) for event in carry(responder, dialler)] == [Established]
    assert envelopes(carry(dialler, responder)) == [b"early"]
    assert carry(responder, dialler) == [Acked(ID)]


def test_it_prints_the_peer_and_no_secret() -> None:
    dialler, _ = fresh()
    assert repr(dialler) == "<SecureChannel in its handshake>"
    dialler, _ = connected()
    assert repr(dialler) == f"<SecureChannel with {BOB.pubkey_hex[2:10]}>"


# --- sizes and fragments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        1,
        FRAGMENT_BYTES - 1,
        FRAGMENT_BYTES,
        FRAGMENT_BYTES + 1,
        2 * FRAGMENT_BYTES,
        2 * FRAGMENT_BYTES + 1,
        MIB,
        MESSAGE_MAX_BYTES - 1,
        MESSAGE_MAX_BYTES,
    ],
)
def test_a_message_of_any_size_arrives_as_it_was(size: int) -> None:
    budget = ReassemblyBudget()
    sender, receiver = connected(budget=budget)
    message = pattern(size)
    sender.send(message)
    assert sender.queued_bytes == size
    assert carry(sender, receiver) == [EnvelopeReceived(message)]
    assert sender.queued_bytes == budget.held_bytes == 0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            bytes(MESSAGE_MAX_BYTES + 1),
            f"^message too large: expected at most {MESSAGE_MAX_BYTES} bytes, got {4 * MIB + 1}",
        ),
        (b"", "^an empty message"),
    ],
    ids=["4 MiB + 1", "empty"],
)
def test_what_cannot_be_sent_is_refused_and_nothing_of_it_leaves(message: bytes, reason: str) -> None:
    sender, _ = connected()
    with pytest.raises(SendError, match=reason):
        sender.send(message)
    assert not sender.pending


def test_one_write_is_about_as_large_as_asked() -> None:
    sender, receiver = connected()
    sender.send(bytes(MIB))
    writes = []
    while sender.pending:
        writes.append(b"".join(sender.data_to_send(3 * FRAGMENT_BYTES)))
        receiver.receive_data(writes[-1])
    assert max(map(len, writes)) < 4.1 * FRAGMENT_BYTES
    assert len(writes) >= MIB // (4 * FRAGMENT_BYTES)
    assert envelopes(drain(receiver)) == [bytes(MIB)]


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_no_more_envelopes_are_opened_than_there_is_room_for(most: int) -> None:
    sender, receiver = connected()
    for n in range(7):
        sender.acknowledge(ID)
        sender.send(b"%d" % n)
        receiver.receive_data(wire(sender))
    read = []
    while events := receiver.next_events(most):
        read.append(len(envelopes(events)))
        assert receiver.frames_received == sum(read), "what there is no room for is not decrypted"
    assert read == [most] * (7 // most) + [7 % most] * (7 % most > 0)


def test_nothing_leaves_when_nothing_is_asked_for() -> None:
    sender, _ = connected()
    sender.send(b"x")
    sender.acknowledge(ID)
    sender.close()
    assert sender.data_to_send(0) == []
    assert sender.pending


@pytest.mark.parametrize("urgent", [Priority.ROUND_2, Priority.ROUND_1, Priority.CONTROL])
def test_an_urgent_message_overtakes_between_two_fragments(urgent: Priority) -> None:
    sender, receiver = connected()
    bulk = pattern(MESSAGE_MAX_BYTES)
    sender.send(bulk, Priority.BULK)
    receiver.receive_data(b"".join(sender.data_to_send(1)))
    assert drain(receiver) == []
    sender.send(b"urgent", urgent)
    receiver.receive_data(b"".join(sender.data_to_send(1)))
    assert drain(receiver) == [EnvelopeReceived(b"urgent")], "it came before the second fragment"
    assert carry(sender, receiver) == [EnvelopeReceived(bulk)]


def test_every_priority_may_have_a_message_in_fragments() -> None:
    sender, receiver = connected()
    messages = {priority: pattern(3 * FRAGMENT_BYTES, 1000 * priority) for priority in reversed(Priority)}
    for priority, message in messages.items():  # from the least urgent to the most: each interrupts the one before
        sender.send(message, priority)
        receiver.receive_data(b"".join(sender.data_to_send(1)))
    assert envelopes(drain(receiver) + carry(sender, receiver)) == [messages[priority] for priority in Priority]


def test_one_priority_keeps_its_order() -> None:
    sender, receiver = connected()
    messages = [b"small", pattern(FRAGMENT_BYTES + 1), b"behind it", pattern(2 * FRAGMENT_BYTES, 7), b"last"]
    for message in messages:
        sender.send(message, Priority.ROUND_1)
    assert envelopes(carry(sender, receiver)) == messages


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(Priority), st.integers(min_value=1, max_value=3 * FRAGMENT_BYTES))
    | st.integers(min_value=1, max_value=3 * FRAGMENT_BYTES)
    | st.binary(min_size=16, max_size=16),
    max_size=25,
)


@given(OPERATIONS, st.integers(min_value=1, max_value=50_000))
def test_whatever_is_queued_arrives_once_in_the_order_of_its_priority(operations: list[object], cut: int) -> None:
    """Send (a pair), write at most so many bytes (a number), acknowledge (an id); then compare both ends."""
    sender, receiver = connected(budget=(budget := ReassemblyBudget()))
    sent: dict[Priority, list[bytes]] = {priority: [] for priority in Priority}
    acked, written = b"", b""
    for number, operation in enumerate(operations):
        if isinstance(operation, tuple):
            priority, size = operation
            message = bytes((number, priority)) + pattern(size)
            sent[priority].append(message)
            sender.send(message, priority)
        elif isinstance(operation, bytes):
            acked += operation
            sender.acknowledge(operation)
        else:
            written += b"".join(sender.data_to_send(operation))
    written += wire(sender)
    events = []
    for at in range(0, len(written), cut):
        receiver.receive_data(written[at : at + cut])
        events += drain(receiver)
    assert {p: [e for e in envelopes(events) if e[1] == p] for p in Priority} == sent
    assert b"".join(event.ids for event in events if isinstance(event, Acked)) == acked
    assert budget.held_bytes == 0


# --- acknowledgements -------------------------------------------------------------------------------------------------


def test_an_acknowledgement_rides_on_the_next_frame() -> None:
    alone, with_ack = connected()[0], connected()[0]
    alone.send(b"x")
    with_ack.send(b"x")
    with_ack.acknowledge(ID)
    assert len(wire(with_ack)) == len(wire(alone)) + len(ID)
    assert not with_ack.pending


def test_without_a_message_an_acknowledgement_gets_a_frame_of_its_own() -> None:
    sender, receiver = connected()
    sender.acknowledge(ID)
    assert carry(sender, receiver) == [Acked(ID)]


@pytest.mark.parametrize("count", [1, 254, 255, 256, 510, 511, 1000])
@pytest.mark.parametrize("message", [b"", b"with a message"])
def test_any_number_of_acknowledgements_arrives_in_order(count: int, message: bytes) -> None:
    sender, receiver = connected()
    ids = [number.to_bytes(16, "big") for number in range(count)]
    for one in ids:
        sender.acknowledge(one)
    if message:
        sender.send(message)
    events = carry(sender, receiver)
    acked = [event.ids for event in events if isinstance(event, Acked)]
    assert b"".join(acked) == b"".join(ids)
    assert len(acked) == -(-count // limits.ACKS_PER_FRAME_MAX)
    assert envelopes(events) == [message] * bool(message)


# --- closing ----------------------------------------------------------------------------------------------------------


def test_a_close_notice_comes_after_everything_queued_and_only_once() -> None:
    sender, receiver = connected()
    sender.send(pattern(FRAGMENT_BYTES * 2))
    sender.acknowledge(ID)
    sender.close(3, "done\x1b[2J")
    sender.close(4, "again")
    assert carry(sender, receiver) == [
        Acked(ID),
        EnvelopeReceived(pattern(FRAGMENT_BYTES * 2)),
        CloseReceived(3, r"done\x1b[2J"),
    ]
    sender.close(5)
    assert not sender.pending
    with pytest.raises(SendError, match=r"^this link is closing; send again when the peer is connected"):
        sender.send(b"late")


def test_a_close_text_is_cut_to_its_bound() -> None:
    sender, receiver = connected()
    sender.close(0xFFFF, "x" * 500)
    (event,) = carry(sender, receiver)
    assert isinstance(event, CloseReceived)
    assert (event.code, len(event.text)) == (0xFFFF, limits.CLOSE_TEXT_MAX_BYTES)


def test_nothing_arrives_after_the_connection_is_lost() -> None:
    sender, receiver = connected()
    sender.send(b"x")
    receiver.send(b"y")
    receiver.connection_lost()
    receiver.connection_lost()
    receiver.receive_data(wire(sender))
    assert str(dead(receiver)) == "the connection is closed"


# --- rotation ---------------------------------------------------------------------------------------------------------


def test_keys_rotate_in_both_directions_at_their_own_pace() -> None:
    """500 frames use up a key: 2,600 one way are five rotations, 900 the other way are one."""
    alice, bob = connected()
    for number in range(2600):
        alice.send(b"a%d" % number)
        assert carry(alice, bob) == [EnvelopeReceived(b"a%d" % number)]
        if number % 26 < 9:
            bob.send(b"b%d" % number)
            assert carry(bob, alice) == [EnvelopeReceived(b"b%d" % number)]


def test_the_key_changes_with_the_501st_frame_and_not_before() -> None:
    """The sealed length of equal frames under one key differs only by the nonce; the peer's old cipher proves it."""
    channel, keys = raw_peer()
    old = connected()[0]  # the same bytes as `keys`: all randomness is fixed
    for _ in range(500):
        channel.receive_data(sealed(keys, frame(EMPTY, 0)))
        assert drain(channel) == []
        old.acknowledge(ID)
        wire(old)
    old.acknowledge(ID)
    assert feed_whole(channel, wire(old)) == [Acked(ID)], "two independent senders rotated at the same frame"


# --- the shared budget ------------------------------------------------------------------------------------------------

PART = bytes(1000)


def _first(total: int, priority: int = 0) -> bytes:
    return frame(FIRST, priority, total.to_bytes(4, "big") + PART)


def test_incomplete_messages_of_all_channels_count_together() -> None:
    budget = ReassemblyBudget(max_bytes=2500)
    channels = [raw_peer(budget=budget) for _ in range(3)]
    for number, (channel, keys) in enumerate(channels[:2], 1):
        assert feed_whole(channel, sealed(keys, _first(9000))) == []
        assert budget.held_bytes == 1000 * number
    channel, keys = channels[2]
    channel.receive_data(sealed(keys, _first(9000)))
    error = dead(channel)
    assert deed_of(error) is None, "others filled it: that is not held against whoever comes last (THREATS.md T12)"
    assert isinstance(error, ReceiveError)
    assert str(error) == "too many incomplete messages in this node: expected at most 2500 bytes held, got 3000"
    assert budget.held_bytes == 2000, "who went over it gives its own share back"
    channels[0][0].connection_lost()
    assert budget.held_bytes == 1000
    channels[0][0].connection_lost()
    assert budget.held_bytes == 1000, "given back once"
    channel, keys = channels[1]
    channel.receive_data(bytes(18))
    assert isinstance(dead(channel), ReceiveError)
    assert budget.held_bytes == 0


def test_a_message_that_completes_gives_its_bytes_back() -> None:
    budget = ReassemblyBudget(max_bytes=2000)
    channel, keys = raw_peer(budget=budget)
    for _ in range(3):
        assert feed_whole(channel, sealed(keys, _first(2000), frame(NEXT, 0, PART))) == [EnvelopeReceived(PART * 2)]
        assert budget.held_bytes == 0


@pytest.mark.parametrize("ids", [b"", ID * 255])
def test_what_is_counted_is_what_is_held(ids: bytes) -> None:
    """Fragments of one byte, each in a frame full of acknowledgements, hold no more memory than the budget says."""
    budget = ReassemblyBudget()
    channel, keys = raw_peer(budget=budget)
    data = sealed(keys, frame(FIRST, 0, (100_000).to_bytes(4, "big") + b"x"))
    data_next = [sealed(keys, frame(NEXT, 0, b"x", ids)) for _ in range(3000)]
    channel.receive_data(data)
    assert drain(channel) == []
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for one in data_next:
        channel.receive_data(one)
        drain(channel)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert budget.held_bytes == 3001
    assert held < 30_000


def test_each_side_is_made_by_name() -> None:
    assert wire(SecureChannel.initiator(ALICE, BOB.public, secret("e"))) == wire(
        SecureChannel(Initiator(ALICE, BOB.public, secret("e")))
    )
    assert wire(SecureChannel.responder(BOB, secret("r"))) == b""
