"""Slots: how many links there may be, who gets one, and who has to go when they are short.

lobby       256 that have said nothing yet or wait to be served, of one prefix 4 with the half-open ones: see `lobby`.
half open   256 whose handshake is under way. Full: the oldest of the neighbourhood with the most goes; where a
            cosigner came from is left alone.
inbound     64. Full: a stranger goes, the worst score first. A cosigner always has a slot, and is never evicted.
outbound    16, dials under way included. A cosigner always has one.
"""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, Protocol

from ...errors import TransportError
from ...limits import Limits
from ...node.rates import Gauge, Standing
from ...node.reputation import Doors
from .lobby import Crowd, count_down

__all__ = ["Seat", "Slots", "neighbourhood", "prefix"]

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""An IPv4 address as an IPv6 socket shows it."""


class Seat(Protocol):
    """A link, as far as it takes a slot."""

    outbound: bool
    address: str
    gauge: Gauge | None
    """Of its peer, once it is let in."""

    @property
    def since(self) -> float:
        """When it came."""
        ...

    @property
    def key(self) -> bytes:
        """The proved key; empty during the handshake."""
        ...

    def evict(self, error: TransportError) -> None:
        """Give the slot back now."""
        ...


class Slots:
    """The slots of one transport, or of several that share them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.doors = Doors(limits)
        self.inbound: dict[Seat, str] = {}
        """Their prefixes. In the order in which they came, half-open ones included."""
        self.outbound = 0
        self.half_open: dict[Seat, str] = {}
        """Their neighbourhoods."""
        self._admitted: dict[bytes, list[Seat]] = {}
        """Inbound links that the sink has let in, by key."""
        self._strangers: Crowd[Seat] = Crowd()
        """The half-open ones that are not from where a cosigner came."""
        self._by_prefix: dict[str, int] = {}

    @property
    def prefixes(self) -> int:
        """How many address prefixes have half-open links."""
        return len(self._by_prefix)

    # --- dials --------------------------------------------------------------------------------------------------------

    def dial(self, standing: Standing) -> None:
        """Take an outbound slot for a peer. Raises TransportError when there is none."""
        most = self.limits.outbound_slots
        if self.outbound >= most and standing is not Standing.COSIGNER:
            raise TransportError("no free slot to dial", expected=f"at most {most} outbound links")
        self.outbound += 1

    # --- strangers ----------------------------------------------------------------------------------------------------

    def why_not(self, address: str, now: float, waiting: int = 0) -> str:
        """Return why a stream from this address is not taken, or an empty string: then it used up a handshake.

        Args: `waiting` is how many of its prefix are in the lobby.
        """
        source = prefix(address)
        if self._by_prefix.get(source, 0) + waiting >= self.limits.half_open_per_prefix:
            return "too many open handshakes from this address"
        return self.doors.knock(source, now) if _is_place(source) else ""

    def opened(self, link: Seat, now: float) -> None:
        """A handshake begins. It holds a half-open slot until it is done; another may have to go."""
        if len(self.half_open) >= self.limits.half_open_slots:
            self.make_room("a newer connection took its half-open slot")
        source = self.inbound[link] = prefix(link.address)
        place = self.half_open[link] = neighbourhood(link.address)
        self._by_prefix[source] = self._by_prefix.get(source, 0) + 1
        if not self.doors.is_known(source, now):
            self._strangers.add(link, place)

    def make_room(self, why: str) -> bool:
        """The half-open link that is least welcome has to go. Returns whether there was one."""
        least = self._strangers.fullest() if self._strangers else next(iter(self.half_open), None)
        if least is None:
            return False
        least.evict(TransportError(why))
        return True

    # --- links --------------------------------------------------------------------------------------------------------

    def promote(self, link: Seat) -> None:
        """The handshake of a link is done."""
        place = self.half_open.pop(link, None)
        if place is not None:
            self._strangers.remove(link, place)
            count_down(self._by_prefix, self.inbound[link])

    def admit(self, link: Seat, now: float) -> None:
        """The sink has let this link in; its gauge says who it is. Somebody may have to go for it, or it itself."""
        if link.outbound or link.gauge is None:
            return
        same = self._admitted.setdefault(link.key, [])
        same.append(link)
        count = len(same)
        if count > self.limits.links_per_peer:
            same[0].evict(TransportError("too many links of one key", expected=f"at most {self.limits.links_per_peer}"))
        source = self.inbound[link]
        if _is_place(source):
            if count == 1:
                self.doors.welcome(source, now)
            if link.gauge.standing is Standing.COSIGNER:
                self.doors.remember(source, now)
        if len(self.inbound) - len(self.half_open) > self.limits.inbound_slots:
            self._evict_a_stranger()

    def _evict_a_stranger(self) -> None:
        strangers = [
            (one.gauge.standing, one.gauge.score, -one.since, one)
            for one in self.inbound
            if one.gauge is not None and one.gauge.standing is not Standing.COSIGNER
        ]
        if strangers:
            least = min(strangers, key=lambda found: found[:3])[3]
            least.evict(TransportError("every inbound slot is taken, and others are known better"))

    def failed(self, address: str, now: float) -> None:
        """A stream from there came to nothing."""
        source = prefix(address)
        if _is_place(source):
            self.doors.failed(source, now)

    def closed(self, link: Seat, *, shook_hands: bool, now: float) -> None:
        """A link is gone: give its slot back. `shook_hands`: it came to a proved key, whoever that was."""
        self.promote(link)
        if link.outbound:
            self.outbound -= 1
        elif self.inbound.pop(link, None) is not None:
            same = self._admitted.get(link.key, [])
            if link in same:
                same.remove(link)
                if not same:
                    del self._admitted[link.key]
            if not shook_hands:
                self.failed(link.address, now)


def prefix(address: str) -> str:
    """Return what one host can easily have many of: an IPv4 address, or an IPv6 /64 (THREATS.md T1). Takes host:port.

    What is no IP address stays as it is: a carrier of our own, such as memory, whose links have been judged elsewhere.
    """
    return _network(_host(address), 4, 8)


def neighbourhood(address: str) -> str:
    """Return what one customer of one provider can easily have many of: an IPv4 /24, or an IPv6 /56."""
    return _network(_host(address), 3, 7)


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]").partition("%")[0]


@lru_cache(maxsize=1024)  # each address is looked at some eight times between its stream and its link
def _network(host: str, bytes_4: int, bytes_6: int) -> str:
    try:
        packed = inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        return host
    if len(packed) == 16 and packed.startswith(_MAPPED):
        packed = packed[12:]
    size = bytes_4 if len(packed) == 4 else bytes_6
    return f"{packed[:size].hex()}/{8 * size}"


def _is_place(source: str) -> bool:
    return "/" in source
