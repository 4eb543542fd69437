"""A bound on log lines that others can cause."""

from __future__ import annotations

import time

from ..limits import LOG_AHEAD_MAX_LINES, LOG_DEBT_MAX_S

__all__ = ["LinesPerSecond"]


class LinesPerSecond:
    """So many lines a second, and a count of those left out."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next = 0.0
        """When the next line that needs leave may be written, for those before it that needed leave."""
        self._paid = 0.0
        """Until when the second's lines are spoken for, by every line."""
        self._left_out = 0

    def allow(self) -> bool:
        """Return whether a line may be written now."""
        now = time.monotonic()
        if now < max(self._next, self._paid - LOG_AHEAD_MAX_LINES * self._interval_s):
            self._left_out += 1
            return False
        self._next = now + self._interval_s
        self.charge()
        return True

    def charge(self) -> None:
        """Count a line that is written in any case: later ones that need leave make up for it."""
        now = time.monotonic()
        self._paid = min(max(now, self._paid) + self._interval_s, now + LOG_DEBT_MAX_S)

    def left_out(self) -> str:
        """Return a note on the lines that were not written since the last one."""
        count, self._left_out = self._left_out, 0
        return f" ({count} more since the last line)" if count else ""
