"""What a node thinks of others: of each peer by what it is proved to have done, of strangers by where they come from.

    a peer        a score that fades, and what made it; it makes buckets smaller, is looked at when slots are short, and
                  at its worst closes the door for a while: 15 minutes at most for a cosigner, who is never evicted
    a prefix      before anybody has proved a key: a bucket of handshakes, and a refusal of 10 minutes at most

Whatever somebody else can cause in a peer's name weighs little, and never enough to close the door (THREATS.md T12): a
frame that does not decrypt may be the work of whoever sits on the path, and silence proves nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from ..limits import (
    KNOWN_PREFIX_FACTOR,
    PREFIX_PARDON_S,
    PREFIX_REFUSAL_MAX_S,
    PREFIXES_MAX,
    REFUSAL_COSIGNER_MAX_S,
    REFUSAL_MIN_S,
    REFUSAL_STRANGER_MAX_S,
    SCORES_MAX,
    WELCOME_S,
    Limits,
)
from .rates import Standing, TokenBucket

__all__ = ["BEST", "REFUSED_AT", "WORST", "Deed", "Doors", "Reputation", "Score", "share"]

_TOO_MANY: Final = "too many handshakes from this address"

WORST: Final = -100.0
BEST: Final = 20.0
REFUSED_AT: Final = -50.0
"""A bad deed that leaves a score at this or below it closes the door for a while."""


class Deed(Enum):
    """What can be said of a peer: the words for people, what it adds to the score, and how far it alone can move it."""

    SERVED = ("good service", 2.0, BEST)
    """A link that lasted, or a session that was completed together."""
    SILENT = ("fell silent", -2.0, -20.0)
    """Nothing heard in time, or too slow to read. Networks do that by themselves."""
    BROKEN_FRAME = ("frames that do not decrypt", -3.0, -30.0)
    """Whoever sits on the path can cause it."""
    FLOODED = ("more messages than it may send", -5.0, -40.0)
    """A minute without a pause. Nothing was lost, and honest bulk does it too."""
    OUT_OF_PLACE = ("messages that have no place here", -10.0, -60.0)
    """Another version or network, another's label, a type that nobody asked for. Often a mistake of its owner."""
    MALFORMED = ("malformed messages", -25.0, WORST)
    BAD_SIGNATURE = ("invalid signatures", -40.0, WORST)
    EQUIVOCATED = ("two messages under one number", -100.0, WORST)
    BLAMED = ("proved to have broken a session", -100.0, WORST)

    def __init__(self, words: str, weight: float, bound: float) -> None:
        self.words = words
        self.weight = weight
        self.bound = bound


def share(score: float) -> float:
    """Return the share of the usual rates for a peer with this score: all from -10 up, a fifth from -50 down."""
    return min(1.0, max(0.2, 1.0 + (score + 10.0) / 50.0))


class Score(Struct):
    """What is known of one peer. Times are seconds since 1970."""

    value: float = 0.0
    """At the time `at`; it halves with each half-life."""
    at: float = 0.0
    deeds: dict[str, int] = {}
    """How often, by the name of the deed. Counted for as long as the peer is remembered."""
    refusals: int = 0
    """Refusals in a row: each is twice as long as the one before."""
    refused_from: float = 0.0
    refused_until: float = 0.0


class Reputation:
    """Scores by key, at most `SCORES_MAX` of them: the one that was changed least recently makes room."""

    def __init__(self, limits: Limits) -> None:
        self._half_life_s = limits.score_half_life_s
        self._scores: OrderedDict[bytes, Score] = OrderedDict()
        self.changed = False
        """Whether there is something to write to disk. Its reader resets it."""

    def __len__(self) -> int:
        return len(self._scores)

    def note(self, key: bytes, deed: Deed, now: float, standing: Standing) -> float:
        """Take in a deed. Returns the new score."""
        found = self._scores.get(key)
        if found is None:
            found = self._scores[key] = Score(at=now)
            if len(self._scores) > SCORES_MAX:
                self._scores.popitem(last=False)
        self._scores.move_to_end(key)
        before = self._faded(found, now)
        moved = before + deed.weight
        found.value = max(before, min(deed.bound, moved)) if deed.weight > 0 else min(before, max(deed.bound, moved))
        found.at = now
        found.deeds[deed.name] = found.deeds.get(deed.name, 0) + 1
        self.changed = True
        if deed.weight < 0 and found.value <= REFUSED_AT and deed.bound <= REFUSED_AT:
            found.refusals = found.refusals + 1 if before <= REFUSED_AT / 2 else 1
            pause = REFUSAL_MIN_S * 2.0 ** min(found.refusals - 1, 20)
            found.refused_from, found.refused_until = now, now + min(pause, _longest(standing))
        return found.value

    def score(self, key: bytes, now: float) -> float:
        """Return the score of a peer, from -100 to 20; 0 for who is not known."""
        found = self._scores.get(key)
        return 0.0 if found is None else self._faded(found, now)

    def refused_s(self, key: bytes, now: float, standing: Standing) -> float:
        """Return for how many more seconds this peer is not let in; 0: it is. Whoever was refused as a stranger and has
        become a cosigner since waits as long as a cosigner would have.
        """
        found = self._scores.get(key)
        if found is None:
            return 0.0
        return max(0.0, min(found.refused_until, found.refused_from + _longest(standing)) - now)

    def why(self, key: bytes) -> str:
        """Return what the score is made of, for people: `2x invalid signatures`; empty when nothing is known."""
        found = self._scores.get(key)
        deeds = {} if found is None else found.deeds
        return ", ".join(f"{count}x {Deed[name].words}" for name, count in deeds.items())

    def forget(self, key: bytes) -> None:
        """Forget what is known of a peer."""
        if self._scores.pop(key, None) is not None:
            self.changed = True

    def dump(self) -> bytes:
        """Return all of it as JSON."""
        return msgspec.json.encode({key.hex(): score for key, score in self._scores.items()})

    def load(self, data: bytes, now: float) -> bool:
        """Take in what `dump` returned. Whatever it says of the future is cut to the present.

        Returns: False, and nothing is taken in, when it is something else.
        """
        try:
            found = msgspec.json.decode(data, type=dict[str, Score])
            scores = [(bytes.fromhex(key), score) for key, score in found.items()]
        except (msgspec.DecodeError, ValueError):
            return False
        for key, score in scores[-SCORES_MAX:]:
            score.at = min(score.at, now)
            score.refused_from = min(score.refused_from, now)
            score.refused_until = min(score.refused_until, now + REFUSAL_COSIGNER_MAX_S)
            score.value = max(WORST, min(BEST, score.value))
            score.deeds = {name: count for name, count in score.deeds.items() if name in Deed.__members__}
            self._scores[key] = score
        return True

    def _faded(self, score: Score, now: float) -> float:
        passed = now - score.at
        return score.value * 0.5 ** (passed / self._half_life_s) if passed > 0 else score.value


def _longest(standing: Standing) -> float:
    return REFUSAL_COSIGNER_MAX_S if standing is Standing.COSIGNER else REFUSAL_STRANGER_MAX_S


class _Door:
    """One prefix: a token for each handshake, and one for each that failed."""

    __slots__ = ("faults", "handshakes", "refusals", "refused_until")

    def __init__(self, limits: Limits, now: float) -> None:
        self.handshakes = TokenBucket(limits.prefix_handshakes_per_s, limits.prefix_burst_handshakes, now)
        most = limits.prefix_faults_max
        self.faults = TokenBucket(most / PREFIX_REFUSAL_MAX_S, most, now)
        self.refusals = 0
        self.refused_until = -PREFIX_PARDON_S


class _Known:
    """A prefix that a cosigner came from: several may, behind a router that broke all their links at once."""

    __slots__ = ("at", "handshakes")

    def __init__(self, limits: Limits, now: float) -> None:
        per_s, burst = limits.prefix_handshakes_per_s, limits.prefix_burst_handshakes
        self.handshakes = TokenBucket(KNOWN_PREFIX_FACTOR * per_s, KNOWN_PREFIX_FACTOR * burst, now)
        self.at = now


class Doors:
    """Who may begin a handshake, before any curve operation is spent on it (THREATS.md T1, T12). By address prefix.

    Where a cosigner has come from within `WELCOME_S` is known: such a prefix does not wait for the handshakes of all
    others, and is never refused; only a larger bucket of its own bounds it. Both tables are bounded, least recently
    used first. What all handshakes cost is counted in seconds of a processor: so many are done as it can carry.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._work = TokenBucket(limits.handshakes_share, limits.handshakes_burst_s, 0.0)
        self._doors: OrderedDict[str, _Door] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._doors) + len(self._known)

    def is_known(self, prefix: str, now: float) -> bool:
        """Whether a cosigner has come from there not long ago."""
        known = self._known.get(prefix)
        return known is not None and now - known.at < WELCOME_S

    def knock(self, prefix: str, now: float) -> str:
        """Somebody begins a handshake. Returns why not, or an empty string: then a token was taken."""
        if self.is_known(prefix, now):
            return "" if self._known[prefix].handshakes.allow(now) else _TOO_MANY
        door = self._door(prefix, now)
        if now < door.refused_until:
            return "too many failed handshakes from this address: refused for a while"
        return "" if door.handshakes.allow(now) else _TOO_MANY

    def has_failed(self, prefix: str, now: float) -> bool:
        """Whether handshakes from there have failed, within the last half a minute for each of them."""
        door = self._doors.get(prefix)
        return door is not None and door.faults.level(now) < door.faults.burst

    def worked(self, seconds: float, now: float) -> None:
        """So much of a processor's time went into somebody's handshake."""
        self._work.take(seconds, now)

    def rest_s(self, now: float) -> float:
        """Return for how many seconds no handshake of a stranger may be worked on; 0: there is time for one."""
        return max(0.0, -self._work.level(now) / self._work.per_s)

    def welcome(self, prefix: str, now: float) -> None:
        """A peer that is let in came from there: the token comes back, and failures are forgiven."""
        if self.is_known(prefix, now):
            self._known[prefix].handshakes.give_back()
            return
        door = self._door(prefix, now)
        door.handshakes.give_back()
        door.refused_until = -PREFIX_PARDON_S
        door.refusals = 0

    def remember(self, prefix: str, now: float) -> None:
        """A cosigner came from there."""
        known = self._known.get(prefix)
        if known is None:
            known = self._known[prefix] = _Known(self._limits, now)
        known.at = now
        self._known.move_to_end(prefix)
        if len(self._known) > PREFIXES_MAX:
            self._known.popitem(last=False)

    def failed(self, prefix: str, now: float) -> None:
        """A handshake from there came to nothing. More than a few close the door, each time twice as long.

        Between two refusals there are `PREFIX_PARDON_S` in which it stays open, whoever goes on failing.
        """
        door = self._door(prefix, now)
        if door.faults.allow(now) or now < door.refused_until + PREFIX_PARDON_S:
            return
        pause = REFUSAL_MIN_S * 2.0 ** min(door.refusals, 20)
        door.refusals += 1
        door.refused_until = now + min(pause, PREFIX_REFUSAL_MAX_S)

    def _door(self, prefix: str, now: float) -> _Door:
        door = self._doors.get(prefix)
        if door is None:
            door = self._doors[prefix] = _Door(self._limits, now)
            if len(self._doors) > PREFIXES_MAX:
                self._doors.popitem(last=False)
        else:
            self._doors.move_to_end(prefix)
        return door
