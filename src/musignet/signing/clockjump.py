"""Whether this machine slept, was restored or cloned, by what its clocks say (THREATS.md K5).

Three clocks: the wall clock, one that stops while the machine sleeps, and one that does not (Linux; None elsewhere).
Between two readings they agree, unless something happened to the machine. A copy that is made without a trace in them
is not found; whoever can make one has the key already.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import limits

__all__ = ["JumpDetector", "Readings", "jump"]


class Readings(NamedTuple):
    """The clocks at one moment, in seconds."""

    real: float
    """Since 1970."""
    monotonic: float
    """It stops while the machine sleeps."""
    boot: float | None
    """It goes on. None where there is no such clock."""
    busy: float = 0.0
    """CPU time of this process: while it computes, it does not stand still."""


def jump(before: Readings, now: Readings, *, ticking: bool) -> str | None:
    """Return what happened between two readings, in words; None for nothing.

    Args: ticking - whether readings were to come every `limits.CLOCK_TICK_S`, so that a long pause is one more sign.
    """
    monotonic = now.monotonic - before.monotonic
    going = monotonic if now.boot is None or before.boot is None else now.boot - before.boot
    if abs(going - monotonic) > limits.CLOCK_SLEEP_MAX_S:
        return f"the machine slept for {going - monotonic:.0f} s"
    step = now.real - before.real - going
    if abs(step) > limits.CLOCK_STEP_MAX_S:
        return f"the wall clock moved by {step:.0f} s"
    still = monotonic - max(0.0, now.busy - before.busy)
    if monotonic < 0 or (ticking and still > limits.CLOCK_STALL_MAX_S):
        return f"this process stood still for {min(still, monotonic):.0f} s"
    return None


class JumpDetector:
    """Compares each reading with the one before it."""

    __slots__ = ("_last", "_ticking")

    def __init__(self, first: Readings) -> None:
        self._last = first
        self._ticking = False

    def check(self, now: Readings, *, ticking: bool) -> str | None:
        """Take a reading. Returns what happened since the last one.

        Args: ticking - whether the next reading comes within `limits.CLOCK_TICK_S`: while secret nonces are alive.
        """
        last, self._last = self._last, now
        ticked, self._ticking = self._ticking, ticking
        return jump(last, now, ticking=ticked)
