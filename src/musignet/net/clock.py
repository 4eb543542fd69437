"""The one clock of the real drivers."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Seconds since 1970 that never go back: the wall clock where it was made, the monotonic one from there on."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._begun + time.monotonic()
