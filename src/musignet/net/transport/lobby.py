"""The lobby: streams that were accepted and have no handshake yet, who is served next, and who has to go.

Whoever says nothing costs a descriptor here and no more. Whoever has said its first bytes is served when there is time:
where a cosigner came from first, then prefixes that never failed, then the others; among equals one neighbourhood after
the other. A full lobby sends the oldest of the fullest neighbourhood away, of the silent or of those who spoke,
whichever are more. So many who do one thing push each other out, and not one who does something else.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Final, Generic, Protocol, TypeVar

from ...limits import Limits

__all__ = ["Crowd", "Guest", "Lobby", "count_down"]

KNOWN: Final = 0
"""The rank of a guest from where a cosigner has come from."""
CLEAN: Final = 1
"""No handshake from its prefix has failed."""
FAILED: Final = 2


class Guest(Protocol):
    """A stream, as far as it waits."""

    since: float
    """When it came."""
    prefix: str
    neighbourhood: str
    rank: int
    """`KNOWN`, `CLEAN` or `FAILED`."""


_One = TypeVar("_One")
_Guest = TypeVar("_Guest", bound=Guest)


class Crowd(Generic[_One]):
    """Who waits, by neighbourhood, each in the order of coming. Nothing here depends on how many there are."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, dict[_One, None]] = OrderedDict()
        self._by_size: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._most = 0
        """No neighbourhood has more."""
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def add(self, one: _One, neighbourhood: str) -> None:
        place = self._places.setdefault(neighbourhood, {})
        place[one] = None
        self._resized(neighbourhood, len(place) - 1, len(place))

    def remove(self, one: _One, neighbourhood: str) -> bool:
        """Returns whether it was there."""
        place = self._places.get(neighbourhood)
        if place is None or one not in place:
            return False
        del place[one]
        if not place:
            del self._places[neighbourhood]
        self._resized(neighbourhood, len(place) + 1, len(place))
        return True

    def take(self) -> _One:
        """Take out the oldest of the neighbourhood whose turn it is. Its next one has to wait for all others."""
        neighbourhood, place = next(iter(self._places.items()))
        one = next(iter(place))
        self._places.move_to_end(neighbourhood)
        self.remove(one, neighbourhood)
        return one

    def fullest(self) -> _One:
        """Return the oldest of the neighbourhood with the most; of several, of the one that has had so many longest."""
        while not self._by_size[self._most]:
            self._most -= 1
        return next(iter(self._places[next(iter(self._by_size[self._most]))]))

    def _resized(self, neighbourhood: str, before: int, size: int) -> None:
        self._by_size[before].pop(neighbourhood, None)
        if size:
            self._by_size[size][neighbourhood] = None
        self._most = max(self._most, size)
        self.count += size - before


class Lobby(Generic[_Guest]):
    """Of one transport."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._silent: dict[_Guest, None] = {}
        """In the order of coming, the known included."""
        self._silent_crowd: Crowd[_Guest] = Crowd()
        self._spoken: tuple[Crowd[_Guest], ...] = (Crowd(), Crowd(), Crowd())
        """By rank."""
        self._by_prefix: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, prefix: str) -> int:
        """Return how many of a prefix are here."""
        return self._by_prefix.get(prefix, 0)

    @property
    def prefixes(self) -> int:
        """How many prefixes are here."""
        return len(self._by_prefix)

    def enter(self, guest: _Guest) -> _Guest | None:
        """Take somebody in who has said nothing yet. Returns who had to go for it."""
        gone = self.make_room() if self._count >= self._limits.lobby_slots else None
        self._silent[guest] = None
        if guest.rank != KNOWN:
            self._silent_crowd.add(guest, guest.neighbourhood)
        self._count += 1
        self._by_prefix[guest.prefix] = self.of(guest.prefix) + 1
        return gone

    def spoke(self, guest: _Guest) -> None:
        """It has said its first bytes."""
        if guest in self._silent:
            self._hush(guest)
            self._spoken[guest.rank].add(guest, guest.neighbourhood)

    def next(self, *, known_only: bool) -> _Guest | None:
        """Take out who is served next; None: nobody, or only those who have to wait."""
        for rank, crowd in enumerate(self._spoken):
            if crowd.count and (rank == KNOWN or not known_only):
                guest = crowd.take()
                self._forget(guest)
                return guest
        return None

    @property
    def anybody_spoke(self) -> bool:
        return self._count > len(self._silent)

    def make_room(self) -> _Guest | None:
        """Send away whoever is least welcome; the known go last. Returns it; None: nobody is here."""
        spoken = self._spoken[FAILED] or self._spoken[CLEAN]
        strangers = len(self._spoken[FAILED]) + len(self._spoken[CLEAN])
        if self._silent_crowd and len(self._silent_crowd) >= strangers:
            guest = self._silent_crowd.fullest()
        elif spoken:
            guest = spoken.fullest()
        elif self._silent:
            guest = next(iter(self._silent))
        elif self._spoken[KNOWN]:
            guest = self._spoken[KNOWN].fullest()
        else:
            return None
        self.leave(guest)
        return guest

    def leave(self, guest: _Guest) -> bool:
        """It goes. Returns whether it was here."""
        if guest in self._silent:
            self._hush(guest)
        elif not self._spoken[guest.rank].remove(guest, guest.neighbourhood):
            return False
        self._forget(guest)
        return True

    def overdue(self, now: float) -> _Guest | None:
        """Send away somebody who has been silent for too long. Returns it; None: nobody."""
        oldest = next(iter(self._silent), None)
        if oldest is None or now < oldest.since + self._limits.act_one_timeout_s:
            return None
        self.leave(oldest)
        return oldest

    def next_deadline(self) -> float | None:
        """Return when the next one has been silent for too long."""
        oldest = next(iter(self._silent), None)
        return None if oldest is None else oldest.since + self._limits.act_one_timeout_s

    def _hush(self, guest: _Guest) -> None:
        """It is not among the silent any more."""
        del self._silent[guest]
        if guest.rank != KNOWN:
            self._silent_crowd.remove(guest, guest.neighbourhood)

    def _forget(self, guest: _Guest) -> None:
        self._count -= 1
        count_down(self._by_prefix, guest.prefix)


def count_down(counts: dict[str, int], name: str) -> None:
    """Take one from a count, and forget it at zero."""
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
