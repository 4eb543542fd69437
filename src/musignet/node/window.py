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
    """The last `size` messages of one sender in one boot epoch, by arrival.

    By arrival and not by number, because priorities, resends and relays all reorder honestly, and because numbers
    have gaps: the sender counts over all its recipients.
    """

    __slots__ = ("_arrived", "_floor", "_ids", "_size", "highest")

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: dict[int, bytes] = {}
        self._arrived: list[
            int
        ] = []  # of at most `size`: taking the first is one small memmove, and idle it costs nothing
        self._floor = -1
        self.highest = -1

    def judge(self, seq: int, message_id: bytes) -> Verdict:
        """Say what this message is. A new one is remembered, and the oldest forgotten."""
        ids = self._ids
        known = ids.get(seq)
        if known is not None:
            return Verdict.REPEAT if known == message_id else Verdict.CONFLICT
        if seq <= self._floor:
            return Verdict.STALE
        ids[seq] = message_id
        self._arrived.append(seq)
        if seq > self.highest:
            self.highest = seq
        if len(ids) > self._size:
            forgotten = self._arrived.pop(0)
            del ids[forgotten]
            self._floor = max(self._floor, forgotten)
        return Verdict.NEW

    def unsee(self, seq: int) -> None:
        """Take the message with this number for new when it comes again: it could not be kept."""
        if self._ids.pop(seq, None) is not None:
            self._arrived.remove(seq)
