"""Token buckets and gauges: what flows, what is owed, who waits for whom. Time is a number."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.limits import FRAME_MIN_COST_BYTES, MIB, Limits
from musignet.node.rates import Gauge, Meter, Rates, Standing, TokenBucket

LIMITS = Limits()
UNPACED = Limits(pace_burst_messages=10**6)
AMOUNTS = st.floats(min_value=0, max_value=1e6)


def gauge(limits: Limits = LIMITS, standing: Standing = Standing.COSIGNER, rates: Rates | None = None) -> Gauge:
    return (rates or Rates(limits)).gauge(standing)


# --- a bucket ---------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert [bucket.allow(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.allow(0.09)
    assert bucket.allow(0.1)
    assert not bucket.allow(0.1)
    assert bucket.level(1e9) == 5, "it never holds more than its burst"


def test_what_is_taken_is_owed_and_the_debt_says_how_long() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert bucket.take(5, 0.0) == 0
    assert bucket.take(20, 0.0) == 2.0
    assert bucket.take(0, 1.0) == 1.0
    assert not bucket.allow(1.9)
    assert bucket.take(0, 2.0) == 0


def test_a_clock_that_goes_back_makes_no_tokens() -> None:
    bucket = TokenBucket(10, 5, 100.0)
    bucket.take(5, 100.0)
    assert bucket.level(50.0) == 0
    assert bucket.level(100.1) == pytest.approx(1.0)


def test_a_token_that_comes_back_does_not_overfill() -> None:
    bucket = TokenBucket(1e-9, 2, 0.0)
    bucket.allow(0.0)
    for _ in range(3):
        bucket.give_back()
    assert bucket.level(0.0) == 2


@given(
    per_s=st.floats(min_value=0.1, max_value=1e5),
    burst=st.floats(min_value=1, max_value=1e6),
    takes=st.lists(st.tuples(st.floats(min_value=0, max_value=10), AMOUNTS), max_size=40),
)
def test_whoever_waits_as_long_as_it_is_told_never_gets_more_than_burst_and_rate(
    per_s: float, burst: float, takes: list[tuple[float, float]]
) -> None:
    """The invariant of a reader that obeys: before its last take, all it took fits in burst + rate * time."""
    bucket, now, taken = TokenBucket(per_s, burst, 0.0), 0.0, 0.0
    for pause, amount in takes:
        now += pause
        assert taken <= burst + per_s * now + 1e-6 * (1 + taken)
        now += bucket.take(amount, now)
        taken += amount


@given(
    rates=st.tuples(*[st.floats(min_value=0.1, max_value=1e5)] * 2),
    bursts=st.tuples(*[st.floats(min_value=1, max_value=1e6)] * 2),
    takes=st.lists(st.tuples(st.floats(min_value=-1, max_value=10), *[st.integers(0, 10**6)] * 2), max_size=40),
)
def test_a_meter_is_two_buckets(
    rates: tuple[float, float], bursts: tuple[float, float], takes: list[tuple[float, int, int]]
) -> None:
    meter = Meter(rates[0], bursts[0], rates[1], bursts[1], 5.0)
    buckets = [TokenBucket(per_s, burst, 5.0) for per_s, burst in zip(rates, bursts, strict=True)]
    now = 5.0
    for pause, *amounts in takes:
        now += pause
        late_s = [bucket.take(amount, now) for bucket, amount in zip(buckets, amounts, strict=True)]
        assert meter.take(amounts[0], amounts[1], now) == max(late_s)
        assert meter.late_s == late_s[0]


# --- a gauge ----------------------------------------------------------------------------------------------------------


def test_a_peer_has_its_burst_of_messages_and_then_its_rate() -> None:
    one = gauge(UNPACED)
    assert one.room(0.0) == LIMITS.peer_burst_messages
    assert one.arrived(0, 0, LIMITS.peer_burst_messages, 0.0) == 0
    assert one.room(0.0) == 1, "one message is always taken: it is here already"
    assert one.arrived(0, 0, 10, 0.0) == pytest.approx(10 / LIMITS.peer_messages_per_s)


def test_all_together_keep_a_pace_and_each_read_still_brings_one_message() -> None:
    rates = Rates(LIMITS)
    peers = [gauge(rates=rates) for _ in range(16)]
    took = 0
    for one in peers:
        room = one.room(0.0)
        assert one.arrived(0, 0, room, 0.0, more=True) == 0.05, "the rest waits"
        took += room
    assert took == LIMITS.pace_burst_messages + len(peers) - 1, "not 3,200 in one turn of the loop"
    assert peers[0].room(1.0) > 1, "it comes back"


def test_who_waits_for_others_does_not_flood() -> None:
    rates, now = Rates(LIMITS), 0.0
    busy, quiet = gauge(rates=rates), gauge(rates=rates)
    while now < 2 * LIMITS.flood_s:
        busy.arrived(0, 0, 50, now)
        quiet.arrived(0, 0, 1, now, more=True)
        now += 0.05
    assert (busy.floods > 0, quiet.floods) == (True, 0)


def test_what_a_peer_leaves_behind_is_taken_beyond_its_own_rate_and_not_beyond_the_pace() -> None:
    one = gauge()
    one.arrived(0, 0, LIMITS.peer_burst_messages + 1, 0.0)
    assert (one.room(0.5), one.room(0.5, last=True)) == (24, LIMITS.pace_burst_messages)
    one.arrived(0, 0, LIMITS.pace_burst_messages, 0.5)
    assert one.room(0.5, last=True) == 1


def test_a_message_of_full_size_passes_at_once_and_the_next_waits_for_its_bytes() -> None:
    one = gauge()
    assert one.arrived(4 * MIB, 128, 1, 0.0) == 0
    assert one.arrived(4 * MIB, 128, 1, 0.0) == pytest.approx(3 * MIB / LIMITS.peer_bytes_per_s)


def test_empty_frames_cost_what_their_opening_does() -> None:
    one = gauge()
    frames = LIMITS.peer_burst_bytes // FRAME_MIN_COST_BYTES
    assert one.arrived(36 * frames, frames, 0, 0.0) == 0
    assert one.arrived(36, 1, 0, 0.0) > 0
    assert one.bytes_in == 36 * (frames + 1), "counted as they are"


def test_when_all_are_too_fast_the_loud_wait_and_the_quiet_do_not() -> None:
    limits = replace(LIMITS, total_messages_per_s=10.0, total_burst_messages=150)
    rates = Rates(limits)
    loud, quiet = gauge(rates=rates), gauge(rates=rates)
    assert loud.arrived(0, 0, 160, 0.0) == pytest.approx(1.0)
    assert quiet.arrived(0, 0, 1, 0.0) == 0, "a partial signature of somebody else passes"
    assert quiet.arrived(0, 0, 100, 0.0) > 1.0


def test_the_bytes_of_all_are_bounded_too() -> None:
    limits = replace(LIMITS, total_bytes_per_s=1000, total_burst_bytes=3 * MIB)
    assert gauge(limits).arrived(4 * MIB, 0, 0, 0.0) == pytest.approx(MIB / 1000)


def test_a_bad_score_makes_the_buckets_smaller() -> None:
    one = gauge(UNPACED)
    one.scale(0.2)
    assert one.room(0.0) == 40
    assert one.arrived(0, 0, 50, 0.0) == pytest.approx(1.0)
    one.scale(1.0)
    assert one.room(1e6) == LIMITS.peer_burst_messages


def test_flooding_is_a_minute_without_a_pause() -> None:
    one, now = gauge(), 0.0
    one.arrived(0, 0, LIMITS.peer_burst_messages, now)
    while now < LIMITS.flood_s - 1:
        now += one.arrived(0, 0, 50, now)
    assert one.floods == 0
    while now < LIMITS.flood_s + 2:
        now += one.arrived(0, 0, 50, now)
    assert one.floods == 1


def test_bulk_with_pauses_is_no_flood() -> None:
    one, now = gauge(), 0.0
    for _ in range(60):
        now += one.arrived(0, 0, 250, now)
        now += 3.0
        one.arrived(0, 0, 1, now)
    assert now > 2 * LIMITS.flood_s
    assert one.floods == 0


def test_a_rate_is_that_of_the_last_seconds() -> None:
    one = gauge()
    for second in range(20):
        one.arrived(1000, 1, 3, float(second))
    messages_per_s, bytes_per_s = one.rate(20.0)
    assert messages_per_s == pytest.approx(3, rel=0.2)
    assert bytes_per_s == pytest.approx(1000, rel=0.2)
    assert one.rate(1000.0)[0] < 0.1


# --- sending ----------------------------------------------------------------------------------------------------------


def test_sending_is_not_bounded_unless_it_is_configured() -> None:
    one = gauge()
    assert not one.paced
    assert one.left(10**9, 0.0) == 0
    assert one.bytes_out == 10**9


@pytest.mark.parametrize("name", ["peer_send_bytes_per_s", "total_send_bytes_per_s"])
def test_sending_keeps_to_a_configured_rate(name: str) -> None:
    one = gauge(replace(LIMITS, **{name: 1000}))
    assert one.paced
    assert one.left(250, 0.0) == 0
    assert one.left(500, 0.0) == pytest.approx(0.5)


def test_what_all_may_be_sent_is_shared() -> None:
    rates = Rates(replace(LIMITS, total_send_bytes_per_s=1000))
    first, second = gauge(rates=rates), gauge(rates=rates)
    first.left(250, 0.0)
    assert second.left(100, 0.0) == pytest.approx(0.1)
