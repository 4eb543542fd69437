"""What is thought of peers and prefixes: weights, fading, refusals and their bounds (THREATS.md T1, T12)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.limits import (
    KNOWN_PREFIX_FACTOR,
    PREFIX_PARDON_S,
    PREFIX_REFUSAL_MAX_S,
    PREFIXES_MAX,
    REFUSAL_COSIGNER_MAX_S,
    REFUSAL_MIN_S,
    REFUSAL_STRANGER_MAX_S,
    SCORES_MAX,
    WELCOME_S,
    Limits,
)
from musignet.node.rates import Standing
from musignet.node.reputation import BEST, REFUSED_AT, WORST, Deed, Doors, Reputation, share

KEY = b"\x02" * 33
OTHER = b"\x03" * 33
LIMITS = Limits()
COSIGNER, STRANGER = Standing.COSIGNER, Standing.STRANGER
CAUSED_BY_OTHERS = (Deed.SILENT, Deed.BROKEN_FRAME)
DEEDS = st.sampled_from(Deed)


@pytest.fixture
def table() -> Reputation:
    return Reputation(LIMITS)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_nobody_is_thought_of_before_anything_is_known(table: Reputation) -> None:
    assert table.score(KEY, 0.0) == 0
    assert table.why(KEY) == ""
    assert table.refused_s(KEY, 0.0, STRANGER) == 0
    assert not table.changed


def test_a_deed_counts_and_fades_by_half(table: Reputation) -> None:
    assert table.note(KEY, Deed.BAD_SIGNATURE, 0.0, COSIGNER) == -40
    assert table.score(KEY, LIMITS.score_half_life_s) == -20
    assert table.score(OTHER, 0.0) == 0
    assert table.changed


def test_good_service_makes_up_for_little(table: Reputation) -> None:
    for _ in range(1000):
        table.note(KEY, Deed.SERVED, 0.0, COSIGNER)
    assert table.score(KEY, 0.0) == BEST
    assert table.note(KEY, Deed.EQUIVOCATED, 0.0, COSIGNER) == BEST - 100


def test_people_are_told_why(table: Reputation) -> None:
    for deed in (Deed.MALFORMED, Deed.MALFORMED, Deed.SERVED):
        table.note(KEY, deed, 0.0, COSIGNER)
    assert table.why(KEY) == "2x malformed messages, 1x good service"


@pytest.mark.parametrize("deed", CAUSED_BY_OTHERS)
def test_what_others_can_cause_in_its_name_never_closes_the_door(table: Reputation, deed: Deed) -> None:
    """Whoever sits on the path flips a bit in every frame, for ever: the cosigner is still let in (T12)."""
    for second in range(10_000):
        table.note(KEY, deed, float(second), COSIGNER)
        assert table.refused_s(KEY, float(second), COSIGNER) == 0
    assert table.score(KEY, 10_000.0) > REFUSED_AT


def test_what_others_can_cause_does_not_add_to_what_is_proved(table: Reputation) -> None:
    table.note(KEY, Deed.BAD_SIGNATURE, 0.0, COSIGNER)
    for _ in range(100):
        table.note(KEY, Deed.BROKEN_FRAME, 0.0, COSIGNER)
    assert table.score(KEY, 0.0) == -40


@pytest.mark.parametrize(("standing", "most"), [(COSIGNER, REFUSAL_COSIGNER_MAX_S), (STRANGER, REFUSAL_STRANGER_MAX_S)])
def test_refusals_double_up_to_their_bound(table: Reputation, standing: Standing, most: float) -> None:
    pauses = []
    now = 0.0
    for _ in range(12):
        table.note(KEY, Deed.EQUIVOCATED, now, standing)
        pauses.append(table.refused_s(KEY, now, standing))
        now += pauses[-1]
        assert table.refused_s(KEY, now, standing) == 0
    assert pauses[:3] == [REFUSAL_MIN_S, 2 * REFUSAL_MIN_S, 4 * REFUSAL_MIN_S]
    assert max(pauses) == pauses[-1] == most


def test_one_invalid_signature_is_not_refused_and_two_are(table: Reputation) -> None:
    table.note(KEY, Deed.BAD_SIGNATURE, 0.0, COSIGNER)
    assert table.refused_s(KEY, 0.0, COSIGNER) == 0
    table.note(KEY, Deed.BAD_SIGNATURE, 1.0, COSIGNER)
    assert table.refused_s(KEY, 1.0, COSIGNER) == REFUSAL_MIN_S


def test_a_stranger_that_is_paired_is_refused_no_longer_than_a_cosigner(table: Reputation) -> None:
    for _ in range(9):
        table.note(KEY, Deed.EQUIVOCATED, 0.0, STRANGER)
    assert table.refused_s(KEY, 0.0, STRANGER) == REFUSAL_STRANGER_MAX_S
    assert table.refused_s(KEY, 0.0, COSIGNER) == REFUSAL_COSIGNER_MAX_S
    assert table.refused_s(KEY, REFUSAL_COSIGNER_MAX_S - 1.0, COSIGNER) == 1
    assert table.refused_s(KEY, REFUSAL_COSIGNER_MAX_S, COSIGNER) == 0


@given(st.lists(st.tuples(st.floats(min_value=0, max_value=1e5), DEEDS, st.sampled_from((COSIGNER, STRANGER)))))
def test_whatever_happens_scores_and_refusals_stay_in_their_bounds(
    story: list[tuple[float, Deed, Standing]],
) -> None:
    table, now = Reputation(LIMITS), 0.0
    for pause, deed, standing in story:
        now += pause
        assert WORST <= table.note(KEY, deed, now, standing) <= BEST
        assert 0 <= table.refused_s(KEY, now, COSIGNER) <= REFUSAL_COSIGNER_MAX_S
        assert table.refused_s(KEY, now + REFUSAL_COSIGNER_MAX_S, COSIGNER) == 0


def test_the_table_is_bounded_and_the_least_recently_changed_makes_room(table: Reputation) -> None:
    table.note(KEY, Deed.MALFORMED, 0.0, STRANGER)
    table.note(OTHER, Deed.MALFORMED, 0.0, STRANGER)
    table.note(KEY, Deed.MALFORMED, 0.0, STRANGER)
    for number in range(SCORES_MAX - 1):
        table.note(b"\x02" + number.to_bytes(32, "big"), Deed.MALFORMED, 0.0, STRANGER)
    assert len(table) == SCORES_MAX
    assert (table.score(KEY, 0.0), table.score(OTHER, 0.0)) == (-50, 0)


@pytest.mark.parametrize(("score", "expected"), [(20, 1.0), (0, 1.0), (-10, 1.0), (-30, 0.6), (-50, 0.2), (-100, 0.2)])
def test_a_bad_score_is_a_smaller_share(score: float, expected: float) -> None:
    assert share(score) == pytest.approx(expected)


# --- on disk ----------------------------------------------------------------------------------------------------------


def test_a_dump_gives_the_same_table_again(table: Reputation) -> None:
    table.note(KEY, Deed.EQUIVOCATED, 100.0, COSIGNER)
    table.note(OTHER, Deed.SERVED, 200.0, COSIGNER)
    again = Reputation(LIMITS)
    assert again.load(table.dump(), 200.0)
    assert again.dump() == table.dump()
    assert again.refused_s(KEY, 110.0, COSIGNER) == REFUSAL_MIN_S - 10


def test_a_file_from_the_future_or_with_impossible_numbers_is_cut_to_what_can_be(table: Reputation) -> None:
    far = {"value": -1e9, "at": 1e12, "deeds": {"NO_SUCH_DEED": 3, "SILENT": 1}}
    far |= {"refused_from": 1e12, "refused_until": 1e12}
    assert table.load(json.dumps({KEY.hex(): far}).encode(), 100.0)
    assert table.score(KEY, 100.0) == WORST
    assert table.score(KEY, 100.0 + LIMITS.score_half_life_s) == WORST / 2
    assert table.refused_s(KEY, 100.0, COSIGNER) == REFUSAL_COSIGNER_MAX_S
    assert table.refused_s(KEY, 100.0 + REFUSAL_COSIGNER_MAX_S, COSIGNER) == 0
    assert table.refused_s(KEY, 100.0 + REFUSAL_STRANGER_MAX_S, STRANGER) == 0
    assert table.why(KEY) == "1x fell silent"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"zz":{}}', b'{"02":{"value":"x"}}', b"\xff"])
def test_what_is_no_dump_is_not_taken_in(table: Reputation, data: bytes) -> None:
    assert not table.load(data, 0.0)
    assert len(table) == 0


def test_the_largest_dump_fits_its_bound() -> None:
    table = Reputation(LIMITS)
    for number in range(SCORES_MAX):
        for deed in Deed:
            table.note(b"\x02" + number.to_bytes(32, "big"), deed, 1.8e9 + number / 7, STRANGER)
    assert len(table.dump()) <= limits.SCORES_FILE_MAX_BYTES


# --- doors ------------------------------------------------------------------------------------------------------------


def knocks(doors: Doors, prefix: str, now: float, count: int) -> int:
    """Return how many of so many handshakes may begin."""
    return sum(doors.knock(prefix, now) == "" for _ in range(count))


def test_one_prefix_may_knock_a_few_times_and_then_once_a_second() -> None:
    doors = Doors(LIMITS)
    assert knocks(doors, "a", 0.0, 20) == LIMITS.prefix_burst_handshakes
    assert knocks(doors, "a", 1.0, 20) == 1
    assert knocks(doors, "b", 1.0, 1) == 1, "another prefix has its own bucket"


def worked(doors: Doors, now: float, each_s: float) -> int:
    """Work on handshakes while there is time. Returns on how many."""
    count = 0
    while doors.rest_s(now) == 0:
        doors.worked(each_s, now)
        count += 1
    return count


@pytest.mark.parametrize("each_s", [0.0001, 0.0004, 0.002, 0.02])
def test_what_handshakes_cost_is_a_share_of_the_processor_however_fast_it_is(each_s: float) -> None:
    doors, count = Doors(LIMITS), 0
    for ms in range(10_000):
        count += worked(doors, ms / 1000, each_s)
    assert count * each_s == pytest.approx(10 * LIMITS.handshakes_share, abs=LIMITS.handshakes_burst_s + each_s)


def test_at_once_they_cost_no_more_than_a_turn_of_the_loop_bears() -> None:
    doors = Doors(LIMITS)
    assert worked(doors, 100.0, 0.0001) * 0.0001 <= LIMITS.handshakes_burst_s + 0.0002
    assert 0 < doors.rest_s(100.0) < 0.001
    assert worked(doors, 100.0 + doors.rest_s(100.0) + 1e-9, 0.0001) > 0


def test_where_a_cosigner_came_from_does_not_wait_for_the_rest_of_the_world() -> None:
    doors = Doors(LIMITS)
    doors.remember("home", 0.0)
    for n in range(10_000):
        assert doors.knock(str(n), 10.0) == ""
    assert knocks(doors, "home", 10.0, 100) == KNOWN_PREFIX_FACTOR * LIMITS.prefix_burst_handshakes
    assert knocks(doors, "new", 10.0, 100) == LIMITS.prefix_burst_handshakes
    assert knocks(doors, "home", WELCOME_S + 10.0, 100) == LIMITS.prefix_burst_handshakes


def test_who_is_let_in_gets_its_token_back() -> None:
    doors = Doors(LIMITS)
    for _ in range(1000):
        assert doors.knock("a", 0.0) == ""
        doors.welcome("a", 0.0)


def test_a_prefix_has_failed_for_half_a_minute_after_each_failure() -> None:
    doors = Doors(LIMITS)
    doors.knock("a", 0.0)
    assert not doors.has_failed("a", 0.0)
    doors.failed("a", 0.0)
    doors.failed("a", 0.0)
    assert [doors.has_failed("a", now) for now in (0.0, 59.0, 61.0)] == [True, True, False]
    assert not doors.has_failed("b", 0.0)


def fail(doors: Doors, prefix: str, now: float) -> None:
    """Fail more often than is borne."""
    for _ in range(LIMITS.prefix_faults_max + 1):
        doors.failed(prefix, now)


def test_a_prefix_that_fails_again_and_again_is_refused_each_time_longer_up_to_ten_minutes() -> None:
    doors, now, pauses = Doors(LIMITS), 0.0, []
    for _ in range(8):
        fail(doors, "a", now)
        began = now
        while "refused" in doors.knock("a", now):
            now += 1.0
        pauses.append(now - began)
        now += PREFIX_PARDON_S
    assert pauses[:3] == [REFUSAL_MIN_S, 2 * REFUSAL_MIN_S, 4 * REFUSAL_MIN_S]
    assert max(pauses) == PREFIX_REFUSAL_MAX_S


def test_failing_while_refused_does_not_make_it_longer() -> None:
    doors = Doors(LIMITS)
    fail(doors, "a", 0.0)
    fail(doors, "a", 1.0)
    fail(doors, "a", REFUSAL_MIN_S)
    assert doors.knock("a", REFUSAL_MIN_S) == "", "nor right afterwards"
    fail(doors, "a", REFUSAL_MIN_S + PREFIX_PARDON_S)
    assert "refused" in doors.knock("a", REFUSAL_MIN_S + PREFIX_PARDON_S)


def test_a_few_failures_now_and_then_are_forgotten() -> None:
    doors = Doors(LIMITS)
    for minute in range(600):
        doors.failed("a", 60.0 * minute)
        assert "refused" not in doors.knock("a", 60.0 * minute)


def test_a_cosigners_prefix_is_never_refused_whoever_else_fails_from_there() -> None:
    """One router, a cosigner and somebody who spoils its name behind it (T12)."""
    doors = Doors(LIMITS)
    doors.remember("nat", 0.0)
    fail(doors, "nat", 10.0)
    assert doors.knock("nat", 10.0) == ""


def test_a_spoiled_prefix_keeps_a_cosigner_out_for_ten_minutes_at_most_and_only_the_first_time() -> None:
    """T12: somebody fails from the cosigner's prefix, every second, for hours. It has never been there before."""
    doors, now = Doors(LIMITS), 0.0
    while now < 10 * PREFIX_REFUSAL_MAX_S:
        doors.failed("nat", now)
        if now and now % 30 == 0:  # the longest pause of a dialler
            if doors.knock("nat", now) == "":
                break
        now += 1.0
    assert now <= PREFIX_REFUSAL_MAX_S
    doors.welcome("nat", now)
    doors.remember("nat", now)
    for second in range(7200):
        doors.failed("nat", now + second)
        if second % 30 == 0:
            assert doors.knock("nat", now + second) == ""


def test_both_tables_of_prefixes_are_bounded() -> None:
    doors = Doors(LIMITS)
    for n in range(2 * PREFIXES_MAX):
        doors.knock(str(n), 0.0)
        doors.remember(str(n), 0.0)
    assert len(doors) == 2 * PREFIXES_MAX
