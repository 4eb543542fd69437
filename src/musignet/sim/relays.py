"""Relays of a seeded world: what is left there is kept and handed out, and harmed in every way that a relay can.

A relay cannot alter or make up a letter that anybody would open. It drops, delays and so reorders, replays, forgets,
and shows each reader something else. Once `until` has passed it is honest: whatever was lost has to be left again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from .actors import Actor
from .tape import Tape

__all__ = ["FAULTS", "Relay"]

FAULTS: Final = ("drop", "reorder", "replay", "delay", "forget", "differ")
_QUICK_S: Final = 0.1
_SLOW_S: Final = 8.0


class Relay:
    """See the module.

    Args:
        at:      does something at a time.
        deliver: hands a part of a letter to a reader who is up.
        until:   when it begins to be honest.
    """

    def __init__(
        self,
        name: str,
        draws: random.Random,
        tape: Tape,
        at: Callable[[float, Callable[[], None]], None],
        deliver: Callable[[Actor, bytes], None],
        until: float,
    ) -> None:
        self.name = name
        self._draws = draws
        self._tape = tape
        self._at = at
        self._deliver = deliver
        self._until = until
        self._kept: list[tuple[Actor, bytes]] = []
        self._due: dict[str, float] = {}
        """When the last part for a reader is due: what is due before it overtakes."""

    def leave(self, reader: Actor, part: bytes, now: float) -> None:
        """Somebody leaves a part of a letter for a reader."""
        if self._faulty(now, "drop", 0.2):
            return
        self._kept.append((reader, part))
        if reader.node is not None and not self._faulty(now, "differ", 0.1):
            self._hand_out(reader, part, now)

    def read(self, reader: Actor, now: float) -> None:
        """A reader has come: it is shown what is kept for it, as the relay likes."""
        for one, part in self._kept:
            if one is reader and not self._faulty(now, "differ", 0.2):
                self._hand_out(reader, part, now)

    def forget(self, now: float) -> None:
        """Lose everything that is kept."""
        self._tape.write(now, self.name, "forget")
        self._kept.clear()

    def replay(self, now: float) -> None:
        """Hand something out once more that may be long read."""
        if self._kept:
            self._tape.write(now, self.name, "replay")
            self._hand_out(*self._draws.choice(self._kept), now)

    def _hand_out(self, reader: Actor, part: bytes, now: float) -> None:
        slow = self._faulty(now, "delay", 0.2)
        due = now + (_SLOW_S if slow else _QUICK_S) * self._draws.random()
        if due < self._due.get(reader.name, 0.0):
            self._tape.write(now, self.name, "reorder")
        self._due[reader.name] = max(due, self._due.get(reader.name, 0.0))
        life = reader.life
        self._at(due, lambda: self._deliver(reader, part) if reader.life == life else None)

    def _faulty(self, now: float, what: str, share: float) -> bool:
        if now >= self._until or self._draws.random() >= share:
            return False
        self._tape.write(now, self.name, what)
        return True
