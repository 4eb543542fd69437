"""A disk without a disk: records are safe only once they are synced, and a loss of power falls wherever it likes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TypeAlias

from ..node.inputs import Saved
from ..signing.verbs import Stored

__all__ = ["Again", "Disk", "Draws", "Ready", "Write"]

Ready: TypeAlias = Stored | Saved
"""What tells a machine that its record is on disk."""


@dataclass(slots=True, eq=False)
class Write:
    """One record on its way to the platter, and what is said once it is there."""

    record: bytes
    ready: Ready


@dataclass(slots=True)
class Disk:
    """One journal. Records reach it in the order they were written."""

    synced: list[bytes] = field(default_factory=list)
    pending: list[Write] = field(default_factory=list)
    free_at: float = 0.0

    def sync(self, write: Write) -> None:
        """Make the oldest record safe."""
        self.pending.remove(write)
        self.synced.append(write.record)

    def crash(self, pick: random.Random) -> None:
        """The machine is gone. What was not synced survives up to somewhere: nobody was told that it would."""
        kept = pick.randint(0, len(self.pending))
        self.synced += [write.record for write in self.pending[:kept]]
        self.pending = []
        self.free_at = 0.0

    def snapshot(self) -> tuple[bytes, ...]:
        """Return what a backup would have."""
        return tuple(self.synced)

    def fork(self) -> Disk:
        """Return the disk of a clone, with what is on its way."""
        return Disk(list(self.synced), [Write(one.record, one.ready) for one in self.pending])


class Draws:
    """A source of bytes that remembers what it gave in this life, so that a clone can be made to remember it, too."""

    __slots__ = ("_source", "given")

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self.given: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        self.given.append(self._source.randbytes(size))
        return self.given[-1]


class Again:
    """Gives what another source gave, then its own: the randomness of a clone."""

    __slots__ = ("_left", "_own")

    def __init__(self, given: list[bytes], own: Draws) -> None:
        self._left = given[::-1]
        self._own = own
        own.given = list(given)

    def __call__(self, size: int) -> bytes:
        return self._left.pop() if self._left else self._own(size)
