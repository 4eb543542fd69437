"""A bound on log lines that others can cause."""

from __future__ import annotations

import time

__all__ = ["LinesPerSecond"]


class LinesPerSecond:
    """So many lines a second, and a count of those left out."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next = 0.0
        self._left_out = 0

    def allow(self) -> bool:
        """Return whether a line may be written now."""
        now = time.monotonic()
        if now < self._next:
            self._left_out += 1
            return False
        self._next = now + self._interval_s
        return True

    def left_out(self) -> str:
        """Return a note on the lines that were not written since the last one."""
        count, self._left_out = self._left_out, 0
        return f" ({count} more since the last line)" if count else ""
