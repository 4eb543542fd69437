"""What a machine has on disk of its messages: it survives crashes, but for what was still on its way there."""

from __future__ import annotations

import random
from collections import deque

from ..node.changes import counted
from ..node.effects import Store
from ..node.inputs import Restore
from ..node.kept import Box, Kept
from ..wire.envelope import Message

__all__ = ["Disk"]


class Disk:
    """A disk that writes in the order it is asked to. `records` is what would be found after a crash now."""

    def __init__(self) -> None:
        self.records: dict[tuple[Box, bytes, bytes], Kept] = {}
        self.waiting: deque[Store] = deque()

    def take(self, effect: Store) -> None:
        """A write is on its way."""
        self.waiting.append(effect)

    def write(self) -> Store:
        """Finish the oldest write."""
        effect = self.waiting.popleft()
        for one in effect.puts:
            self.records.setdefault((one.box, effect.peer, one.message_id), one)
        for box, message_id in effect.drops:
            self.records.pop((box, effect.peer, message_id), None)
        return effect

    def crash(self, draw: random.Random | None) -> None:
        """Power is gone: the first of the waiting writes may still have come through; without `draw` none has."""
        for _ in range(draw.randint(0, len(self.waiting)) if draw is not None else 0):
            self.write()
        self.waiting.clear()

    def copy(self) -> Disk:
        """Return what a copy of it would have."""
        copy = Disk()
        copy.records = dict(self.records)
        return copy

    def restore(self) -> Restore:
        """Return what the next run finds."""
        boxes: dict[Box, list[tuple[bytes, Kept]]] = {box: [] for box in Box}
        for (box, peer, _), one in self.records.items():
            boxes[box].append((peer, one))
        return Restore(
            tuple((peer, Message.from_bytes(one.envelope), one.expires_ms) for peer, one in boxes[Box.OUT]),
            tuple((peer, Message.from_bytes(one.envelope).verify()) for peer, one in boxes[Box.IN]),
            tuple((peer, one.message_id, one.expires_ms) for peer, one in boxes[Box.HANDLED]),
            tuple((peer, Message.from_bytes(one.envelope)) for peer, one in boxes[Box.ANNOUNCED]),
            *counted([(one.message_id, one.envelope) for _, one in boxes[Box.CHANGES]]),
        )
