"""Duplicates, replays and second bodies."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from musignet.limits import KIB
from musignet.node.window import Verdict, Window

A, B, C = (name * 16 for name in (b"a", b"b", b"c"))


def test_a_number_is_new_once_then_a_repeat_or_a_conflict() -> None:
    window = Window(10)
    assert window.judge(5, A) is Verdict.NEW
    assert window.judge(5, A) is Verdict.REPEAT
    assert window.judge(5, B) is Verdict.CONFLICT
    assert window.judge(5, A) is Verdict.REPEAT, "a conflict replaces nothing"


def test_numbers_may_have_gaps_and_come_in_any_order() -> None:
    window = Window(10)
    assert [window.judge(seq, A) for seq in (9, 2, 7, 0)] == [Verdict.NEW] * 4
    assert window.highest == 9


def test_nothing_has_been_seen_at_first() -> None:
    assert Window(1).highest == -1


def test_the_oldest_by_arrival_is_forgotten_and_everything_below_it_is_stale() -> None:
    window = Window(2)
    assert [window.judge(seq, A) for seq in (5, 1, 9)] == [Verdict.NEW] * 3
    assert window.judge(5, A) is Verdict.STALE, "forgotten: cannot be told from a replay"
    assert window.judge(4, A) is Verdict.STALE
    assert window.judge(1, A) is Verdict.REPEAT, "still remembered, though its number is below the floor"
    assert window.judge(1, B) is Verdict.CONFLICT
    assert window.judge(6, A) is Verdict.NEW


def test_the_floor_never_falls() -> None:
    window = Window(1)
    for seq in (9, 3, 10):
        window.judge(seq, A)
    assert window.judge(9, A) is Verdict.STALE
    assert window.judge(3, A) is Verdict.STALE
    assert window.highest == 10


def test_what_leaves_at_once_makes_nothing_stale_that_waited() -> None:
    window = Window(2)
    for seq in (20, 21, 22, 23):
        assert window.judge(seq, A, at_once=True) is Verdict.NEW
    assert [window.judge(seq, A) for seq in (1, 2, 3)] == [Verdict.NEW] * 3
    assert window.judge(20, A, at_once=True) is Verdict.STALE, "each row forgets its own"
    assert window.judge(1, A) is Verdict.STALE
    assert window.judge(3, B, at_once=True) is Verdict.CONFLICT, "and a number is used once in both"
    window.unsee(23)
    assert window.judge(23, A, at_once=True) is Verdict.NEW


def test_what_is_unseen_is_new_when_it_comes_again_and_its_neighbours_are_not() -> None:
    window = Window(3)
    for seq, message_id in ((4, A), (9, B), (6, C)):
        window.judge(seq, message_id)
    window.unsee(6)
    window.unsee(7)
    assert [window.judge(*one) for one in ((4, A), (9, B), (6, B))] == [Verdict.REPEAT, Verdict.REPEAT, Verdict.NEW]
    assert window.judge(10, C) is Verdict.NEW
    assert [window.judge(*one) for one in ((4, A), (9, A))] == [Verdict.STALE, Verdict.CONFLICT]


def test_a_full_window_is_small() -> None:
    """A member has `epochs_per_sender` of them, whatever it does."""
    tracemalloc.start()
    try:
        window = Window(1024)
        for seq in range(2**40, 2**40 + 3000):
            window.judge(seq, seq.to_bytes(16, "big"))
        assert tracemalloc.get_traced_memory()[0] < 40 * KIB
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([A, B, C]))), st.integers(1, 5))
def test_no_message_is_new_twice_and_no_number_has_two_bodies(arrivals: list[tuple[int, bytes]], size: int) -> None:
    window, accepted = Window(size), dict[int, bytes]()
    for seq, message_id in arrivals:
        verdict = window.judge(seq, message_id)
        if verdict is Verdict.NEW:
            assert seq not in accepted
            accepted[seq] = message_id
        elif verdict is Verdict.REPEAT:
            assert accepted[seq] == message_id
        elif verdict is Verdict.CONFLICT:
            assert accepted[seq] != message_id
        assert window.highest == max(accepted)


@given(st.lists(st.integers(0, 50), unique=True, max_size=20))
def test_nothing_new_is_dropped_while_the_window_is_large_enough(numbers: list[int]) -> None:
    window = Window(20)
    assert all(window.judge(seq, A) is Verdict.NEW for seq in numbers)
    assert all(window.judge(seq, A) is Verdict.REPEAT for seq in numbers)
