"""The clocks of the real drivers."""

from __future__ import annotations

import time

from ..signing.clockjump import Readings

__all__ = ["Clock", "readings"]

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)  # Linux


class Clock:
    """Seconds since 1970 that never go back: the wall clock where it was made, and from there on one that counts sleep.

    Where there is none that does (only Linux has one), it is behind by as long as the machine slept.
    """

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = 0.0
        self._begun = time.time() - self.now()

    def now(self) -> float:
        """Return the time."""
        return self._begun + (time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT))


def readings() -> Readings:
    """Return the clocks that tell whether this machine slept (`signing.clockjump`)."""
    boot = time.clock_gettime(_BOOT) if _BOOT is not None else None
    return Readings(time.time(), time.monotonic(), boot, time.process_time())
