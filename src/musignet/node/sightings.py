"""Who is seen on the local network: beacons in, addresses to dial out. It answers nothing, ever (THREATS.md U2).

What costs little is looked at first, so that a flood costs little:

    form, version, network -> tag (a look-up) -> the source's bucket -> what is left of the bucket of all -> decrypt ->
    age, replay -> signature

Only the address that a datagram came from is ever dialled, on a network that this machine is itself a part of, and at
most once in 30 s for one key (U1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, TypeAlias

from .. import limits
from ..chain import Chain
from ..errors import PeerError, SerializationError
from ..wire.beacon import Audience, Beacon, Claim, Datagram, Listening

__all__ = ["Mark", "Network", "Sighting", "Sightings", "Unheard"]

Network: TypeAlias = IPv4Network | IPv6Network


class Mark(NamedTuple):
    """The newest beacon of a member: nothing older is believed, nor the same again (THREATS.md U3)."""

    epoch: bytes
    seq: int
    sent_at_ms: int


class Unheard(Enum):
    """Why a datagram came to nothing."""

    FORM = "no beacon of this version and network"
    TAG = "for somebody else"
    SOURCE = "from an address that is not on a network of this machine"
    OPEN = "open, and nobody looks"
    OFTEN = "too many from one address"
    SEALED = "made without the secret"
    OURS = "our own"
    AGE = "its clock and ours differ by more than a minute"
    REPLAY = "heard before"
    BUSY = "too many signatures to check"
    FORGED = "not signed by its key"


@dataclass(slots=True)
class Sighting:
    """One node that is seen."""

    beacon: Beacon
    """The newest."""
    label: str
    """Said in an open beacon, the last that had one: to be shown with care."""
    host: str
    ways: set[str]
    """How its last beacons came: `broadcast`, `multicast`, `multicast6`, ..."""
    first_at: float
    last_at: float
    member: bool
    """Of an audience; a stranger, who has announced itself openly or was given an invite, is not."""
    came: bool
    """Whether it was not there before this beacon: it is new, or has restarted."""
    changed: bool
    """Whether there is something to tell a person: it came, moved, or shows itself openly now."""
    open_at: float = float("-inf")
    """When it last announced itself openly."""
    dialled_at: float = float("-inf")


class Sightings:
    """See the module. `own` is this node's key.

    `unheard` counts what came to nothing, by its reason; `verified` the signatures that were checked. `marks` is what
    an earlier run of this node has heard, by key, and is kept up: store it before anybody is dialled for a beacon.
    """

    __slots__ = (
        "_all", "_by_key", "_chain", "_listening", "_look_until", "_networks", "_open", "_own", "_sources",
        "marks", "unheard", "verified",
    )  # fmt: skip

    def __init__(self, own: bytes, chain: Chain, marks: Mapping[bytes, Mark] | None = None) -> None:
        self._own = own
        self._chain = chain
        self._listening = Listening(())
        self._networks: tuple[Network, ...] = ()
        self._look_until = float("-inf")
        self._by_key: dict[bytes, Sighting] = {}
        self._sources: dict[str, _Bucket] = {}
        self._all = _Bucket(limits.BEACON_VERIFICATIONS_S)
        self._open = _Bucket(limits.OPEN_VERIFICATIONS_S)
        self.marks: Final = dict(marks or {})
        self.unheard: Final[Counter[Unheard]] = Counter()
        self.verified = 0

    # --- what is listened for -----------------------------------------------------------------------------------------

    def listen(self, audiences: Iterable[Audience]) -> None:
        """Hear the beacons for these audiences from now on, and no others'."""
        self._listening = Listening(audiences)

    def reach(self, networks: Iterable[Network]) -> None:
        """Believe beacons from addresses on these networks: those that this machine's interfaces are on."""
        found = tuple(networks)
        if found != self._networks:
            self._networks = found
            self._sources.clear()  # those in there are on our networks

    def look(self, until: float) -> None:
        """Take note of open beacons until then; `now` or earlier ends it."""
        self._look_until = until

    # --- what is seen -------------------------------------------------------------------------------------------------

    def seen(self, now: float) -> list[Sighting]:
        """Return who was seen in the last 180 s, members first."""
        self.forget(now)
        return sorted(self._by_key.values(), key=lambda one: (not one.member, one.first_at))

    def get(self, key: bytes, now: float) -> Sighting | None:
        """Return where a key was seen in the last 180 s."""
        self.forget(now)
        return self._by_key.get(key)

    def forget(self, now: float) -> list[Sighting]:
        """Take those out of the table who were not seen for 180 s, and return them."""
        old = [one for one in self._by_key.values() if _old(one, now)]
        for one in old:
            del self._by_key[one.beacon.key]
        for key in [key for key, mark in self.marks.items() if _stale(mark, now)]:
            del self.marks[key]
        return old

    def heard(self, data: bytes, source: str, way: str, now: float) -> Sighting | Unheard:
        """Take a datagram from the address `source` in. Returns whose it is, or why it came to nothing."""
        try:
            claim, member = self._claim(data, source, now)
            judged = self._judge(claim.beacon, way, now)
            if judged is None:
                return self._see(self._verify(claim, member, now), source, way, now, member)
        except _Refused as refused:
            judged = refused.why
        self.unheard[judged] += 1
        return judged

    def may_dial(self, sighting: Sighting, now: float) -> bool:
        """Return whether to dial a node where it was seen: not when that was done less than 30 s ago."""
        if abs(now - sighting.dialled_at) < limits.SIGHTING_DIAL_PAUSE_S:
            return False
        sighting.dialled_at = now
        return True

    # --- inside -------------------------------------------------------------------------------------------------------

    def _claim(self, data: bytes, source: str, now: float) -> tuple[Claim, bool]:
        """Return what a datagram claims, and whether its key is a member's. Raises _Refused."""
        try:
            datagram = Datagram.parse_untrusted(data)
        except SerializationError:
            raise _Refused(Unheard.FORM) from None
        if datagram.chain is not self._chain:
            raise _Refused(Unheard.FORM)
        found = self._listening.find(datagram.tag, now) if datagram.tag else None
        if found is None and datagram.tag:
            raise _Refused(Unheard.TAG)
        if found is None and now >= self._look_until:
            raise _Refused(Unheard.OPEN)
        self._admit(source, now)
        if not (self._open if found is None else self._all).has(now):
            raise _Refused(Unheard.BUSY)
        try:
            if found is None:
                return datagram.read_untrusted(), False
            claim = datagram.unseal_untrusted(*found)
            return claim, claim.beacon.key in found[0].members
        except SerializationError:
            raise _Refused(Unheard.SEALED if found else Unheard.FORM) from None

    def _admit(self, source: str, now: float) -> None:
        """Raise _Refused for an address that is not on our networks, or says too much."""
        bucket = self._sources.pop(source, None)
        if bucket is None:
            address = _address(source)
            if address is None or not any(address in network for network in self._networks):
                raise _Refused(Unheard.SOURCE)
            bucket = _Bucket(limits.BEACONS_PER_SOURCE_S)
        self._sources[source] = bucket  # the last one heard stands last
        if len(self._sources) > limits.BEACON_SOURCES_MAX:
            del self._sources[next(iter(self._sources))]
        if not bucket.take(now):
            raise _Refused(Unheard.OFTEN)

    def _judge(self, beacon: Beacon, way: str, now: float) -> Unheard | None:
        """Return why a beacon is not worth a look at its signature. A copy by a second way is noted."""
        if beacon.key == self._own:
            return Unheard.OURS
        if abs(now - beacon.sent_at_ms / 1000) > limits.BEACON_AGE_MAX_S:
            return Unheard.AGE
        last = self._by_key.get(beacon.key)
        if last is not None and beacon == last.beacon:
            last.ways.add(way)
        mark = self.marks.get(beacon.key)
        for newest in (None if last is None or _old(last, now) else _mark(last.beacon), mark):
            if newest is not None and not _stale(newest, now) and not _newer(beacon, newest):
                return Unheard.REPLAY
        return None

    def _verify(self, claim: Claim, member: bool, now: float) -> Beacon:
        if not (self._all if member else self._open).take(now):
            raise _Refused(Unheard.BUSY)
        self.verified += 1
        try:
            return claim.verify()
        except PeerError:  # also where the key is no point
            raise _Refused(Unheard.FORGED) from None

    def _see(self, beacon: Beacon, source: str, way: str, now: float, member: bool) -> Sighting:
        self.forget(now)
        last = self._by_key.pop(beacon.key, None)  # the last one heard stands last
        seen = Sighting(beacon, beacon.label, source, {way}, now, now, member, came=True, changed=True)
        if beacon.label:
            seen.open_at = now
        if last is not None:
            _follow(seen, last)
        self._by_key[beacon.key] = seen
        if len(self._by_key) > limits.SIGHTINGS_MAX:
            del self._by_key[min(self._by_key, key=lambda key: (self._by_key[key].member, self._by_key[key].last_at))]
        if member:
            self.marks[beacon.key] = _mark(beacon)
        if len(self.marks) > limits.SIGHTINGS_MAX:
            del self.marks[min(self.marks, key=lambda key: self.marks[key].sent_at_ms)]
        return seen


class _Refused(Exception):
    """Leaves the row of checks; the reason is counted."""

    def __init__(self, why: Unheard) -> None:
        super().__init__(why.value)
        self.why = why


class _Bucket:
    """So many a second, and no more than a second's worth at once."""

    __slots__ = ("_at", "_left", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = self._left = rate
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Return whether one more is allowed, and count it."""
        if not self.has(now):
            return False
        self._left -= 1
        return True

    def has(self, now: float) -> bool:
        """Return whether one more is allowed. Time that goes back gives nothing, and counts from there."""
        self._left = min(self._rate, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left >= 1


def _old(sighting: Sighting, now: float) -> bool:
    """Whether a sighting is to be forgotten; one of the future, too: then the clock was set back."""
    return abs(now - sighting.last_at) > limits.SIGHTING_TTL_S


def _follow(seen: Sighting, last: Sighting) -> None:
    """Take over what the last sighting of the same node knew."""
    moved = (seen.host, seen.beacon.port) != (last.host, last.beacon.port)
    shown = seen.beacon.label != "" and seen.first_at - last.open_at > limits.BEACON_AGE_MAX_S
    seen.came = seen.beacon.epoch != last.beacon.epoch
    seen.changed = seen.came or moved or shown
    seen.ways = seen.ways if moved else last.ways | seen.ways
    seen.first_at, seen.dialled_at = last.first_at, last.dialled_at
    seen.open_at = max(seen.open_at, last.open_at)
    seen.label, seen.member = seen.label or last.label, seen.member or last.member


def _mark(beacon: Beacon) -> Mark:
    return Mark(beacon.epoch, beacon.seq, beacon.sent_at_ms)


def _stale(mark: Mark, now: float) -> bool:
    """Whether a mark is needed no longer: what it keeps out is too old by itself, or the clock was set back."""
    return abs(now - mark.sent_at_ms / 1000) > 2 * limits.BEACON_AGE_MAX_S


def _newer(beacon: Beacon, last: Mark) -> bool:
    """Whether a beacon was made after the last one: by its number, or, after a restart, by its time."""
    if beacon.epoch == last.epoch:
        return beacon.seq > last.seq
    return beacon.sent_at_ms > last.sent_at_ms


def _address(source: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(source.partition("%")[0])
    except ValueError:
        return None
