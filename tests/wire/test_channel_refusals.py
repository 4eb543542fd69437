"""`SecureChannel` against a peer that breaks the rules, and a network that changes bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.errors import Action, ReceiveError
from musignet.limits import MESSAGE_MAX_BYTES, NOISE_MESSAGE_MAX_BYTES
from musignet.wire.channel import Acked, CloseReceived, EnvelopeReceived, Event, ReassemblyBudget, SecureChannel
from musignet.wire.messages import Priority
from support.channels import connected, dead, drain, frame, raw_peer, sealed, wire

WHOLE, FIRST, NEXT, EMPTY, CLOSE = range(5)
ID = bytes(range(16))


def first(total: int, data: bytes, priority: int = 3) -> bytes:
    return frame(FIRST, priority, total.to_bytes(4, "big") + data)


# --- frames that an authenticated peer must not send ------------------------------------------------------------------

HEADER = "a malformed frame header: expected a priority below 4 and all acknowledged ids, got "
KIND = "a malformed frame: expected a known kind; nothing behind the ids of an empty one, got "
LENGTH = f"a fragmented message of impossible length: expected at most {MESSAGE_MAX_BYTES} bytes, got "
STRAY = "a fragment of no message: got BULK"

REFUSED: dict[str, tuple[list[bytes], str]] = {
    "no byte": ([b""], "a frame without a header: expected at least 2 bytes, got 0"),
    "one byte": ([b"\0"], "a frame without a header: expected at least 2 bytes, got 1"),
    "an id announced, none there": ([b"\x30\x01"], HEADER + "3001"),
    "an id cut short": ([b"\x30\x01" + ID[1:]], HEADER + "3001"),
    "255 ids announced, 254 there": ([b"\x30\xff" + ID * 254], HEADER + "30ff"),
    "priority 4": ([frame(WHOLE, 4, b"x")], HEADER + "0400"),
    "priority 15 on a close": ([frame(CLOSE, 15, bytes(2))], HEADER + "4f00"),
    "kind 5": ([frame(5, 0, b"x")], KIND + "5000"),
    "kind 15": ([frame(15, 3)], KIND + "f300"),
    "an unknown kind with good ids": ([frame(5, 0, b"", ID)], KIND + "5001"),
    "an empty frame that is not empty": ([frame(EMPTY, 0, b"x")], KIND + "3000"),
    "an empty frame with ids and more": ([frame(EMPTY, 0, b"x", ID)], KIND + "3001"),
    "a close without a code": ([frame(CLOSE, 0)], "a malformed close notice: expected 2 to 202 bytes, got 0"),
    "a close with half a code": ([frame(CLOSE, 0, b"\0")], "a malformed close notice: expected 2 to 202 bytes, got 1"),
    "a close with a novel": (
        [frame(CLOSE, 0, bytes(2) + b"x" * (limits.CLOSE_TEXT_MAX_BYTES + 1))],
        "a malformed close notice: expected 2 to 202 bytes, got 203",
    ),
    "a fragment of nothing": ([frame(NEXT, 3, b"x")], STRAY),
    "a fragment of another priority's": ([first(10, b"x", priority=2), frame(NEXT, 3, b"x")], STRAY),
    "a fragment after the end": ([first(2, b"x"), frame(NEXT, 3, b"x"), frame(NEXT, 3, b"x")], STRAY),
    "an empty fragment": ([first(10, b"x"), frame(NEXT, 3)], STRAY),
    "a fragment longer than the rest": (
        [first(3, b"x"), frame(NEXT, 3, b"xxx")],
        "a message longer than it said: expected 3 bytes, got 4 or more",
    ),
    "a second beginning": (
        [first(10, b"x"), first(10, b"x")],
        "a second message begins before the first of its priority has ended: got BULK",
    ),
    "a beginning without a length": ([frame(FIRST, 3)], LENGTH + "0"),
    "a beginning with half a length": ([frame(FIRST, 3, b"\1\0\0")], LENGTH + str(0x010000)),
    "a beginning of nothing": ([first(10, b"")], LENGTH + "10"),
    "a length of zero": ([first(0, b"x")], LENGTH + "0"),
    "a beginning that is all": ([first(3, b"xxx")], LENGTH + "3"),
    "a beginning that is more than all": ([first(3, b"xxxx")], LENGTH + "3"),
    "4 MiB and a byte": ([first(MESSAGE_MAX_BYTES + 1, b"x")], LENGTH + str(MESSAGE_MAX_BYTES + 1)),
    "4 GiB": ([first(2**32 - 1, b"x")], LENGTH + str(2**32 - 1)),
}


def _feed(channel: SecureChannel, data: bytes) -> tuple[list[Event], ReceiveError | None]:
    """Return the events, and the error that ended them if one did; a failed channel must stay so."""
    channel.receive_data(data)
    events: list[Event] = []
    try:
        while some := channel.next_events():
            events += some
    except ReceiveError as raised:
        failure = raised
    else:
        return events, None
    assert dead(channel) is failure
    return events, failure


@pytest.mark.parametrize(("frames", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_frame_that_breaks_the_rules_ends_the_link(frames: list[bytes], sentence: str) -> None:
    budget = ReassemblyBudget()
    channel, keys = raw_peer(budget=budget)
    channel.send(b"never leaves")
    before = frame(WHOLE, 0, b"fine")
    events, error = _feed(channel, sealed(keys, before, *frames, before))
    assert [event for event in events if not isinstance(event, Acked)][:1] == [EnvelopeReceived(b"fine")]
    assert error is not None
    assert str(error) == sentence
    assert error.action is Action.CLOSE
    assert budget.held_bytes == 0


def test_a_bad_frame_acknowledges_nothing() -> None:
    channel, keys = raw_peer()
    assert _feed(channel, sealed(keys, frame(9, 0, b"", ID)))[0] == []


ACCEPTED: dict[str, tuple[list[bytes], list[Event]]] = {
    "the shortest frame": ([frame(EMPTY, 0)], []),
    "the largest frame": (
        [frame(WHOLE, 0, bytes(NOISE_MESSAGE_MAX_BYTES - 2))],
        [EnvelopeReceived(bytes(NOISE_MESSAGE_MAX_BYTES - 2))],
    ),
    "a frame with 255 ids": ([frame(EMPTY, 3, b"", ID * 255)], [Acked(ID * 255)]),
    "the longest close": ([frame(CLOSE, 0, b"\0\1" + b"x" * 200)], [CloseReceived(1, "x" * 200)]),
    "a close that is not ASCII": ([frame(CLOSE, 0, b"\0\1\xff")], [CloseReceived(1, "\ufffd")]),
    "fragments of one byte": (
        [first(3, b"a"), frame(NEXT, 3, b"b"), frame(NEXT, 3, b"c")],
        [EnvelopeReceived(b"abc")],
    ),
    "a whole message between fragments": (
        [first(2, b"a"), frame(WHOLE, 0, b"urgent"), frame(NEXT, 3, b"b")],
        [EnvelopeReceived(b"urgent"), EnvelopeReceived(b"ab")],
    ),
}


@pytest.mark.parametrize(("frames", "events"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_frame_within_the_rules_is_taken(frames: list[bytes], events: list[Event]) -> None:
    channel, keys = raw_peer()
    assert _feed(channel, sealed(keys, *frames)) == (events, None)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_frames_from_an_authenticated_peer_are_events_or_a_receive_error(frames: list[bytes]) -> None:
    budget = ReassemblyBudget()
    channel, keys = raw_peer(budget=budget)
    _feed(channel, sealed(keys, *frames))
    assert budget.held_bytes <= sum(map(len, frames))
    channel.connection_lost()
    assert budget.held_bytes == 0


FRAMES = st.builds(
    frame,
    st.integers(min_value=0, max_value=5),
    st.integers(min_value=0, max_value=4),
    st.binary(max_size=6)
    | st.builds(lambda total, data: bytes((0, 0, 0, total)) + data, st.integers(0, 9), st.binary()),
    st.sampled_from([b"", ID, ID * 3]),
)


@given(st.lists(FRAMES, max_size=12))
def test_almost_valid_frames_are_events_or_a_receive_error(frames: list[bytes]) -> None:
    budget = ReassemblyBudget(max_bytes=64)
    channel, keys = raw_peer(budget=budget)
    _feed(channel, sealed(keys, *frames))
    assert budget.held_bytes <= budget.max_bytes
    channel.connection_lost()
    assert budget.held_bytes == 0


@given(st.binary(min_size=18, max_size=300))
def test_any_bytes_on_an_open_channel_are_a_receive_error(garbage: bytes) -> None:
    channel, _ = raw_peer()
    events, error = _feed(channel, garbage)
    assert events == []
    assert str(error).startswith("a frame does not decrypt; bytes were changed, lost or reordered on the way")


# --- a network that changes a recorded transcript ---------------------------------------------------------------------

EXPECTED: list[Event] = [
    Acked(ID),
    EnvelopeReceived(b"one"),
    EnvelopeReceived(b"two"),
    Acked(ID),
    CloseReceived(0, "bye"),
]
EVENTS_BEFORE = [0, 2, 3, 4, 5]
"""How many events the whole packets before packet 0, 1, 2, 3 and the end make."""


def _packets() -> list[bytes]:
    sender, _ = connected()
    packets = []
    sender.acknowledge(ID)
    for message in (b"one", b"two"):
        sender.send(message, Priority.ROUND_2)
        packets.append(wire(sender))
    sender.acknowledge(ID)
    packets.append(wire(sender))
    sender.close(0, "bye")
    packets.append(wire(sender))
    return packets


PACKETS = _packets()
TRANSCRIPT = b"".join(PACKETS)
STARTS = [sum(map(len, PACKETS[:number])) for number in range(len(PACKETS) + 1)]


def _packet_at(position: int) -> int:
    return max(number for number, start in enumerate(STARTS) if start <= position)


def test_the_recorded_transcript_is_read_as_it_was_sent() -> None:
    assert _feed(connected()[1], TRANSCRIPT) == (EXPECTED, None)


def test_every_flipped_bit_ends_the_link_before_the_packet_it_is_in() -> None:
    for bit in range(8 * len(TRANSCRIPT)):
        flipped = bytearray(TRANSCRIPT)
        flipped[bit // 8] ^= 1 << bit % 8
        events, error = _feed(connected()[1], bytes(flipped))
        assert events == EXPECTED[: EVENTS_BEFORE[_packet_at(bit // 8)]]
        assert error is not None


def test_every_truncation_yields_the_whole_packets_and_never_a_close() -> None:
    for size in range(len(TRANSCRIPT)):
        receiver = connected()[1]
        events, error = _feed(receiver, TRANSCRIPT[:size])
        assert (events, error) == (EXPECTED[: EVENTS_BEFORE[_packet_at(size)]], None)
        assert receiver.mid_frame is (size not in STARTS)
        receiver.connection_lost()
        with pytest.raises(ReceiveError, match="the connection is closed"):
            drain(receiver)


@pytest.mark.parametrize("number", range(len(PACKETS)))
def test_a_dropped_repeated_swapped_or_reflected_packet_ends_the_link(number: int) -> None:
    before, one, after = PACKETS[:number], PACKETS[number], PACKETS[number + 1 :]
    changed = {
        "dropped": [*before, *after] if after else None,
        "repeated": [*before, one, one, *after],
        "swapped": [*before, after[0], one, *after[1:]] if after else None,
    }
    for name, packets in changed.items():
        if packets is not None:
            events, error = _feed(connected()[1], b"".join(packets))
            assert error is not None, name
            assert events == EXPECTED[: EVENTS_BEFORE[number + (name == "repeated")]], name
    assert _feed(connected()[0], one)[1] is not None, "sent back to its sender"
