"""Clock jumps, as tables of readings."""

from __future__ import annotations

import pytest

from musignet.signing.clockjump import JumpDetector, Readings, jump

START = Readings(1_800_000_000.0, 500.0, 900.0)


def later(real: float, monotonic: float, boot: float | None, busy: float = 0.0) -> Readings:
    return Readings(START.real + real, START.monotonic + monotonic, None if boot is None else 900.0 + boot, busy)


TABLE: list[tuple[str, Readings, bool, str | None]] = [
    ("nothing", later(0, 0, 0), True, None),
    ("a tick", later(0.25, 0.25, 0.25), True, None),
    ("a busy machine", later(5.0, 5.0, 5.0), True, None),
    ("a stall", later(5.1, 5.1, 5.1), True, "stood still for 5 s"),
    ("the nonces of a thousand signers are summed", later(9, 9, 9, busy=4.1), True, None),
    ("a stall after a computation", later(20, 20, 20, busy=4), True, "stood still for 16 s"),
    ("a long wait while nothing is alive", later(90_000, 90_000, 90_000), False, None),
    ("a short sleep", later(2.1, 0.2, 2.1), True, None),
    ("sleep", later(2.4, 0.2, 2.4), True, "slept for 2 s"),
    ("hibernation", later(30_000, 0.2, 30_000), False, "slept for 30000 s"),
    ("a boot clock that lost time", later(5.1, 5.1, 2.9), False, "slept for -2 s"),
    ("NTP slews", later(5.2, 0.25, 0.25), True, None),
    ("the wall clock is set ahead", later(5.5, 0.25, 0.25), True, "wall clock moved by 5 s"),
    ("the wall clock is set back", later(-4.9, 0.25, 0.25), True, "wall clock moved by -5 s"),
    ("a snapshot is resumed an hour later", later(3_600, 0.25, 0.25), True, "wall clock moved by 3600 s"),
    ("no boot clock: a tick", later(0.25, 0.25, None), True, None),
    ("no boot clock: sleep shows in the wall clock", later(30, 0.25, None), True, "wall clock moved by 30 s"),
    ("no boot clock: a stall", later(6, 6, None), True, "stood still for 6 s"),
    ("a clone on another machine", later(1, -300, -300), False, "wall clock moved by 301 s"),
    ("the steady clocks go back", later(-1, -1, -1), False, "stood still for -1 s"),
]


@pytest.mark.parametrize(("now", "ticking", "happened"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_the_clocks_say(now: Readings, ticking: bool, happened: str | None) -> None:
    said = jump(START, now, ticking=ticking)
    assert said == happened if happened is None else happened in str(said)


def test_each_reading_is_compared_with_the_one_before() -> None:
    detector = JumpDetector(START)
    assert detector.check(later(60, 60, 60), ticking=True) is None, "nothing was to tick before"
    assert detector.check(later(66, 66, 66), ticking=True) is not None
    assert detector.check(later(66.2, 66.2, 66.2), ticking=False) is None, "it is said once"
    assert detector.check(later(99, 99, 99), ticking=False) is None
