"""Duplicates, replays and second bodies, told apart by message id (DESIGN.md "One message")."""

from __future__ import annotations

from enum import Enum

__all__ = ["Verdict", "Window"]


class Verdict(Enum):
    """What a message is to those that came before it."""

    NEW = "new"
    REPEAT = "repeat"
    """The identical message again: acknowledge and drop."""
    CONFLICT = "conflict"
    """Another body under a number that was used: the sender signed two things as one."""
    STALE = "stale"
    """Older than anything remembered: cannot be told from a replay, so it is dropped."""


class Window:
    """The last `size` messages of one sender in one boot epoch, by arrival, in each of two rows.

    By arrival and not by number, because priorities, resends and relays all reorder honestly, and because numbers
    have gaps: the sender counts over all its recipients. In two rows, because it numbers a message when it signs it:
    those of its application may wait for days, and leave one after the other; what nodes and ceremonies say leaves at
    once, and overtakes thousands of them.
    """

    __slots__ = ("_floors", "_ids", "_rows", "_size", "highest")

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: dict[int, bytes] = {}
        self._rows: tuple[list[int], list[int]] = ([], [])
        """Numbers by arrival, of at most `size`: taking the first is one small memmove, and idle it costs nothing."""
        self._floors = [-1, -1]
        self.highest = -1

    def judge(self, seq: int, message_id: bytes, *, at_once: bool = False) -> Verdict:
        """Say what this message is. A new one is remembered, and the oldest of its row forgotten.

        Args: `at_once` says that its sender let it wait for no message of the application.
        """
        ids = self._ids
        known = ids.get(seq)
        if known is not None:
            return Verdict.REPEAT if known == message_id else Verdict.CONFLICT
        if seq <= self._floors[at_once]:
            return Verdict.STALE
        ids[seq] = message_id
        row = self._rows[at_once]
        row.append(seq)
        if seq > self.highest:
            self.highest = seq
        if len(row) > self._size:
            forgotten = row.pop(0)
            del ids[forgotten]
            self._floors[at_once] = max(self._floors[at_once], forgotten)
        return Verdict.NEW

    def unsee(self, seq: int) -> None:
        """Take the message with this number for new when it comes again: it could not be kept."""
        if self._ids.pop(seq, None) is not None:
            next(row for row in self._rows if seq in row).remove(seq)
