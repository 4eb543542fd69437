"""What is on disk for peers that have not acknowledged it: the books on it, and no decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from .effects import Effect, Store
from .inputs import Stored
from .kept import Box, Kept
from .peers import Outgoing
from .timers import Timers

__all__ = ["EXPIRY", "Shelf"]

EXPIRY: Final = b""
"""The subject of the timer for messages whose time is over."""

_EXPIRY_PAUSE_S: Final = 1.0
"""Between two looks for those: each goes over all that is kept."""


class Shelf:
    """See the module. Also for peers that are not in the book (yet). Effects go to the end of `out`."""

    __slots__ = ("_dropping", "_due", "_kept", "_orphans", "_timers", "_undropped", "size")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._kept: dict[bytes, dict[bytes, Outgoing]] = {}
        """On disk, or on the way there: by peer, then by id."""
        self._orphans: dict[bytes, list[Outgoing]] = {}
        """Of those the ones from an earlier run whose peer is not in the book yet."""
        self._dropping: Counter[bytes] = Counter()
        self._undropped: dict[bytes, tuple[tuple[Box, bytes], ...]] = {}
        """Done with, and the disk refused to drop them: tried again with the next ones."""
        self._due: float | None = None
        self.size = 0
        """Bytes of all messages."""

    def count(self, key: bytes) -> int:
        """Return how many messages are kept for a peer."""
        return len(self._kept.get(key, ()))

    def dropping(self, key: bytes) -> int:
        """Return how many messages to a peer are done with, and perhaps on disk still.

        A crash now would send them again. So they count as on their way: the receiver remembers the ids of one window,
        and no message that may come again may be older than that.
        """
        return self._dropping.get(key, 0)

    def put(self, key: bytes, message: Outgoing, out: list[Effect]) -> None:
        """Put a message there, with its expiry. It is ready when `stored` returns it."""
        message.ready = False
        self._add(key, message)
        out.append(Store(key, (Kept(Box.OUT, message.message_id, message.data, message.expires_ms),)))

    def drop(self, key: bytes, messages: Sequence[Outgoing], out: list[Effect]) -> None:
        """Take messages away: they arrived, expired, or their peer is forgotten."""
        if not messages:
            return
        for message in messages:
            self.forget(key, message)
        drops = tuple((Box.OUT, message.message_id) for message in messages)
        self._dropping[key] += len(drops)
        out.append(Store(key, (), (*self._undropped.pop(key, ()), *drops)))

    def forget(self, key: bytes, message: Outgoing) -> None:
        """Do not count on a message any more: it is to be dropped, or never came to the disk."""
        kept = self._kept[key]
        del kept[message.message_id]
        self.size -= len(message.data)
        if not kept:
            del self._kept[key]

    def stored(self, event: Stored) -> list[Outgoing]:
        """The disk has answered. Returns the messages that the answer is about and that are still wanted."""
        key, drops = event.store.peer, event.store.drops
        out = [drop for drop in drops if drop[0] is Box.OUT]
        if out:
            self._dropping[key] = max(0, self._dropping[key] - len(out))
            if not self._dropping[key]:
                del self._dropping[key]
            if event.error is not None:
                self._undropped[key] = (*self._undropped.get(key, ()), *out)
        kept = self._kept.get(key, {})
        wanted = [kept[one.message_id] for one in event.store.puts if one.box is Box.OUT and one.message_id in kept]
        for message in wanted:
            message.ready = event.error is None
        return wanted

    def restore(self, key: bytes, message: Outgoing) -> None:
        """Take up a message that is on disk from an earlier run."""
        self._add(key, message)
        self._orphans.setdefault(key, []).append(message)

    def adopt(self, key: bytes) -> list[Outgoing]:
        """Return the messages of an earlier run for this peer, once."""
        kept = self._kept.get(key, {})
        return [message for message in self._orphans.pop(key, ()) if message.message_id in kept]

    def expired(self, now: float) -> dict[bytes, list[Outgoing]]:
        """Return the messages whose time is over, by peer, and look again when the next one's is."""
        if self._due is None or now < self._due:
            return {}
        self._due = None
        late: dict[bytes, list[Outgoing]] = {}
        left: list[float] = []
        for key, kept in self._kept.items():
            for message in kept.values():
                if message.expires_ms / 1000 <= now:
                    late.setdefault(key, []).append(message)
                else:
                    left.append(message.expires_ms / 1000)
        if left:
            self._look_at(max(min(left), now + _EXPIRY_PAUSE_S))
        return late

    def _add(self, key: bytes, message: Outgoing) -> None:
        self._kept.setdefault(key, {})[message.message_id] = message
        self.size += len(message.data)
        self._look_at(message.expires_ms / 1000)

    def _look_at(self, at: float) -> None:
        if self._due is None or at < self._due:
            self._due = at
            self._timers.set(at, EXPIRY)
