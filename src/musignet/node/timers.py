"""Deadlines in one heap. Cancelling is forgetting: who set a deadline knows whether it still counts when it comes."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TypeAlias

__all__ = ["Subject", "Timers", "jitter"]

Subject: TypeAlias = int | bytes
"""What a deadline is about: a link's number or a peer's key."""


class Timers:
    """Deadlines, soonest first. Setting one costs O(log n), looking at the next one nothing."""

    __slots__ = ("_count", "_heap", "next")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Subject]] = []
        self._count = 0
        self.next: float | None = None
        """The soonest deadline, or None."""

    def set(self, at: float, subject: Subject) -> None:
        """Be reminded of `subject` at `at`."""
        self._count += 1
        heappush(self._heap, (at, self._count, subject))
        self.next = self._heap[0][0]

    def due(self, now: float) -> Subject | None:
        """Take out one subject whose time has come, or return None."""
        if self.next is None or self.next > now:
            return None
        subject = heappop(self._heap)[2]
        self.next = self._heap[0][0] if self._heap else None
        return subject


def jitter(share: float, draw: Callable[[int], bytes]) -> float:
    """Return a random factor between 1 - share and 1 + share, so that a crowd does not move as one."""
    return 1 + share * (2 * int.from_bytes(draw(4), "big") / 0xFFFFFFFF - 1)
