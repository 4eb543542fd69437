"""The heap of deadlines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musignet.node.timers import Timers


def test_without_deadlines_nothing_is_due() -> None:
    timers = Timers()
    assert timers.next is None
    assert timers.due(1e18) is None


def test_a_deadline_is_due_at_its_time_and_once() -> None:
    timers = Timers()
    timers.set(5.0, b"key")
    assert timers.next == 5.0
    assert timers.due(4.999) is None
    assert timers.due(5.0) == b"key"
    assert timers.due(5.0) is None
    assert timers.next is None


def test_the_same_time_keeps_the_order_of_setting_whatever_the_subjects_are() -> None:
    timers = Timers()
    subjects = [7, b"b", 1, b"a", 7]
    for subject in subjects:
        timers.set(1.0, subject)
    assert [timers.due(1.0) for _ in subjects] == subjects


@given(st.lists(st.floats(0, 100)))
def test_deadlines_come_soonest_first(times: list[float]) -> None:
    timers = Timers()
    for number, at in enumerate(times):
        timers.set(at, number)
    order = []
    while timers.next is not None:
        at = timers.next
        subject = timers.due(at)
        assert isinstance(subject, int)
        assert times[subject] == at
        order.append(at)
    assert order == sorted(times)
