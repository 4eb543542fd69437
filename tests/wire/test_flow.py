"""A stream over a network that loses, repeats, reorders and delays: what was written is read, once and in order."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet import limits
from musignet.errors import SerializationError
from musignet.wire.flow import Flow, Piece
from musignet.wire.segment import DATA, FIN, SEGMENT_HEAD_BYTES, Segment

LINK, SENDER = bytes(16), b"\x02" + bytes(32)
STEP_S = 0.05


def segment(piece: Piece) -> Segment:
    made = Segment(piece.flags, LINK, SENDER, piece.seq, piece.ack, piece.sack, piece.data)
    assert Segment.decode_untrusted(made.encode()) == made
    return made


class Net:
    """Two flows, and between them whatever `fate` does: it returns after how many seconds each copy arrives."""

    def __init__(self, fate: Callable[[], list[float]]) -> None:
        self.flows = (Flow(), Flow())
        self.read = [bytearray(), bytearray()]
        self.paused = [False, False]
        self.sent = 0
        self.now = 0.0
        self._fate = fate
        self._flying: list[tuple[float, int, Segment]] = []

    def step(self) -> None:
        self.now += STEP_S
        for side, flow in enumerate(self.flows):
            for piece in flow.take(self.now):
                self.sent += 1
                self._flying += [(self.now + delay, 1 - side, segment(piece)) for delay in self._fate()]
        due = [one for one in self._flying if one[0] <= self.now]
        self._flying = [one for one in self._flying if one[0] > self.now]
        for _, side, one in due:
            self.flows[side].receive(one, self.now)
        for side, flow in enumerate(self.flows):
            if not self.paused[side]:
                self.read[side] += flow.read()

    def until(self, done: Callable[[], object], within_s: float) -> None:
        while not done():
            assert self.now < within_s, "it stands still"
            self.step()


def honest() -> list[float]:
    return [0.0]


def fate(seed: int, lost: float, again: float, delay_s: float) -> Callable[[], list[float]]:
    rng = random.Random(seed)

    def roll() -> list[float]:
        copies = (rng.random() >= lost) + (rng.random() < again)
        return [rng.random() * delay_s for _ in range(copies)]

    return roll


@settings(max_examples=40)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(1, 90_000), max_size=6),
    st.lists(st.integers(1, 200), max_size=6),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 5),
)
def test_what_was_written_is_read_whatever_the_network_does(
    seed: int, there: list[int], back: list[int], lost: float, again: float, delay_s: float
) -> None:
    net, rng = Net(fate(seed, lost, again, delay_s)), random.Random(seed)
    written = [rng.randbytes(sum(sizes)) for sizes in (there, back)]
    for flow, sizes, data in zip(net.flows, (there, back), written, strict=True):
        for size in sizes:
            flow.write(data[:size])
            data = data[size:]
        flow.end()
    net.until(lambda: all(flow.ended and flow.settled for flow in net.flows), 4_000)
    assert [bytes(net.read[1]), bytes(net.read[0])] == written


def test_nothing_is_sent_twice_where_nothing_is_lost() -> None:
    net = Net(honest)
    net.flows[0].write(bytes(limits.RELAY_SEGMENT_BYTES * 40))
    net.flows[0].end()
    net.until(lambda: net.flows[0].settled, 60)
    acks = net.sent - 40
    assert acks <= 40 / limits.RELAY_ACK_EVERY + 2


def test_an_acknowledgement_rides_on_an_answer() -> None:
    near, far = Flow(), Flow()
    near.write(b"question")
    (asked,) = near.take(0)
    far.receive(segment(asked), 0)
    assert far.read() == b"question"
    assert far.take(0) == [], "it waits for something to ride on"
    far.write(b"answer")
    (answer,) = far.take(0.01)
    assert answer.ack == 1
    near.receive(segment(answer), 0.02)
    assert (near.deadline, far.deadline) == (0.02 + limits.RELAY_ACK_WAIT_S, 0.01 + limits.RELAY_AGAIN_MIN_S)


def test_the_pauses_before_sending_again_double_up_to_30_s() -> None:
    flow = Flow()
    flow.write(b"x")
    times, now = [], 0.0
    for _ in range(9):
        (piece,) = flow.take(now)
        assert piece.data == b"x"
        times.append(now)
        assert flow.deadline is not None
        assert flow.take(flow.deadline - 0.001) == []
        now = flow.deadline
    assert [b - a for a, b in pairwise(times)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_slow_network_is_given_more_time() -> None:
    net = Net(lambda: [3.0])
    net.flows[0].write(b"first")
    net.until(lambda: net.read[1] == b"first", 10)
    for n in range(5):
        net.flows[0].write(b"%d" % n)
        net.until(lambda n=n: net.read[1].endswith(b"%d" % n), 100)  # type: ignore[misc]
    net.until(lambda: not net.flows[0]._sent, 200)
    before = net.sent
    net.flows[0].write(b"last")
    net.until(lambda: net.read[1].endswith(b"last") and not net.flows[0]._sent, 400)
    assert net.sent - before == 2, "a piece and its acknowledgement: 6.1 s is not taken for a loss any more"


def test_a_reader_that_pauses_holds_a_window_and_the_writer_waits() -> None:
    net = Net(honest)
    net.paused[1] = True
    net.flows[0].write(bytes(limits.RELAY_SEGMENT_BYTES) * 40)
    for _ in range(2_000):
        net.step()
    assert len(net.flows[1]._early) == limits.RELAY_WINDOW
    assert net.flows[0]._next == limits.RELAY_WINDOW
    net.paused[1] = False
    net.until(lambda: len(net.read[1]) == 40 * limits.RELAY_SEGMENT_BYTES, 200)


def test_a_pause_whose_end_is_not_heard_ends_all_the_same() -> None:
    """Nobody says that there is room again: what is sent again asks for it."""
    deaf = False
    net = Net(lambda: [] if deaf else [0.0])
    net.paused[1] = True
    net.flows[0].write(bytes(limits.RELAY_SEGMENT_BYTES) * 20)
    for _ in range(100):
        net.step()
    deaf, net.paused[1] = True, False
    net.step()
    deaf = False
    net.until(lambda: len(net.read[1]) == 20 * limits.RELAY_SEGMENT_BYTES, 100)


def test_what_is_beyond_the_window_or_acknowledges_the_unsent_is_dropped() -> None:
    flow = Flow()
    flow.write(b"mine")
    flow.take(0)
    for seq in (limits.RELAY_WINDOW, 2**32 - 1):
        flow.receive(Segment(DATA, LINK, SENDER, seq, 0, 0, b"far"), 0)
    flow.receive(Segment(0, LINK, SENDER, 0, 5, 0xFFFF), 0)
    assert flow.read() == b""
    assert not flow._early
    assert len(flow._sent) == 1


def test_hurrying_sends_what_may_have_been_lost_at_once() -> None:
    flow = Flow()
    flow.write(b"x")
    flow.take(0)
    flow.hurry(0.1)
    assert [piece.data for piece in flow.take(0.1)] == [b"x"]


def test_nothing_is_written_after_the_end() -> None:
    net = Net(honest)
    net.flows[0].end()
    net.flows[0].write(b"late")
    net.until(lambda: net.flows[0].settled, 10)
    assert net.flows[1].ended
    assert net.read[1] == b""


BAD_SEGMENTS = {
    "nothing": b"",
    "too short": bytes(SEGMENT_HEAD_BYTES - 1),
    "another version": b"\x11" + bytes(SEGMENT_HEAD_BYTES),
    "data without a place": b"\x00" + bytes(SEGMENT_HEAD_BYTES),
    "an end without a place": bytes([FIN]) + bytes(SEGMENT_HEAD_BYTES - 1),
    "too long": bytes([DATA]) + bytes(SEGMENT_HEAD_BYTES + limits.RELAY_SEGMENT_BYTES),
}


@pytest.mark.parametrize("data", BAD_SEGMENTS.values(), ids=BAD_SEGMENTS.keys())
def test_a_segment_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(SerializationError):
        Segment.decode_untrusted(data)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_segment_or_a_serialization_error(data: bytes) -> None:
    try:
        made = Segment.decode_untrusted(data)
    except SerializationError:
        return
    assert made.encode() == data


@given(
    st.integers(0, 2**32),
    st.lists(
        st.builds(
            Segment,
            st.integers(0, 15),
            st.just(LINK),
            st.just(SENDER),
            st.integers(0, 40),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**16 - 1),
            st.binary(max_size=4),
        )
    ),
)
def test_no_segments_make_a_flow_hold_more_than_its_window(seed: int, segments: list[Segment]) -> None:
    flow, rng = Flow(), random.Random(seed)
    for n, one in enumerate(segments):
        flow.write(b"x" * rng.randrange(3))
        flow.receive(one, float(n))
        if rng.random() < 0.5:
            flow.read()
        flow.take(float(n))
        assert len(flow._early) <= limits.RELAY_WINDOW
        assert len(flow._sent) <= limits.RELAY_WINDOW
