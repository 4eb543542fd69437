"""Duplicates, replays and second bodies, told apart by message id (DESIGN.md "One message")."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from enum import Enum
from typing import Final

from ..limits import MESSAGE_ID_BYTES

__all__ = ["Verdict", "Window"]

_ID: Final = MESSAGE_ID_BYTES


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

    __slots__ = ("_floors", "_ids", "_numbers", "_rows", "_size", "highest")

    def __init__(self, size: int) -> None:
        self._size = size
        self._numbers = array("q")
        """In order; `_ids` has the id of each in the same place. 32 bytes a message, where a dictionary takes 140."""
        self._ids = bytearray()
        self._rows = (array("q"), array("q"))
        self._floors = [-1, -1]
        self.highest = -1

    def judge(self, seq: int, message_id: bytes, *, at_once: bool = False) -> Verdict:
        """Say what this message is. A new one is remembered, and the oldest of its row forgotten.

        Args: `at_once` says that its sender let it wait for no message of the application.
        """
        numbers, ids = self._numbers, self._ids
        if seq > self.highest:
            self.highest = seq
            numbers.append(seq)
            ids += message_id
        else:
            at = bisect_left(numbers, seq)
            if at < len(numbers) and numbers[at] == seq:
                return Verdict.REPEAT if ids[_ID * at : _ID * at + _ID] == message_id else Verdict.CONFLICT
            if seq <= self._floors[at_once]:
                return Verdict.STALE
            numbers.insert(at, seq)
            ids[_ID * at : _ID * at] = message_id
        row = self._rows[at_once]
        row.append(seq)
        if len(row) > self._size:
            forgotten = row.pop(0)
            self._drop(forgotten)
            self._floors[at_once] = max(self._floors[at_once], forgotten)
        return Verdict.NEW

    def unsee(self, seq: int) -> None:
        """Take the message with this number for new when it comes again: it could not be kept."""
        for row in self._rows:
            if seq in row:
                row.remove(seq)
                self._drop(seq)

    def _drop(self, seq: int) -> None:
        at = 0 if self._numbers[0] == seq else bisect_left(self._numbers, seq)
        del self._numbers[at], self._ids[_ID * at : _ID * at + _ID]
