"""How peers behave, and what the node makes of it: scores, the rates that follow from them, and a closed door."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import (
    AuthenticationError,
    InvalidMessage,
    NetworkError,
    ReceiveError,
    SerializationError,
    Timeout,
)
from ..limits import Limits
from ..signing.effects import End, Outcome
from ..wire.channel import NoRoom
from ..wire.noise import BrokenFrame
from .peers import Link, PeerRecord
from .rates import Gauge, Rates, Standing
from .reputation import Deed, Reputation, share

__all__ = ["Conduct", "deed_of"]

_SERVED_AFTER_S: Final = 600.0
"""A link that lasted so long was of use."""

_DEEDS: Final[tuple[tuple[type[NetworkError], Deed | None], ...]] = (
    (NoRoom, None),
    (BrokenFrame, Deed.BROKEN_FRAME),
    (ReceiveError, Deed.MALFORMED),
    (SerializationError, Deed.MALFORMED),
    (AuthenticationError, Deed.BAD_SIGNATURE),
    (InvalidMessage, Deed.OUT_OF_PLACE),
    (Timeout, Deed.SILENT),
)


def deed_of(error: NetworkError | None) -> Deed | None:
    """Return what an error on an open link says of the peer at its other end; None: nothing."""
    return next((deed for kind, deed in _DEEDS if isinstance(error, kind)), None)


class Conduct:
    """One per node."""

    def __init__(self, limits: Limits) -> None:
        self.rates = Rates(limits)
        self.reputation = Reputation(limits)
        self._unknown = self.rates.gauge(Standing.UNKNOWN)

    def gauge(self, peer: PeerRecord | None) -> Gauge:
        """Return the gauge of a peer of the book; of nobody: one that says so."""
        return self._unknown if peer is None else peer.gauge

    def known(self, peer: PeerRecord, now: float) -> None:
        """A peer is in the book: what is remembered of it counts."""
        self._apply(peer, self.reputation.score(peer.key, now))

    def restored(self, peers: Iterable[PeerRecord], now: float) -> None:
        """The scores of an earlier run are here."""
        for peer in peers:
            self.known(peer, now)

    def note(self, peer: PeerRecord | None, deed: Deed | None, now: float) -> None:
        """A peer did something. Whoever is not in the book has no score."""
        if peer is not None and deed is not None:
            self._apply(peer, self.reputation.note(peer.key, deed, now, peer.gauge.standing))

    def refused_s(self, peer: PeerRecord, now: float) -> float:
        """Return for how many seconds a peer that dials us is not let in."""
        return self.reputation.refused_s(peer.key, now, peer.gauge.standing)

    def refusal(self, peer: PeerRecord, now: float) -> str:
        """Return what a peer that dials us is told when it is not let in; empty when it is."""
        seconds = self.refused_s(peer, now)
        return f"refused for {seconds:.0f} s more: {self.reputation.why(peer.key)}" if seconds else ""

    def lost(self, link: Link, error: NetworkError | None, now: float) -> None:
        """A link ended. An old one was of use, if nothing speaks against it."""
        deed = deed_of(error)
        if deed is None and link.epoch and now - link.since >= _SERVED_AFTER_S:
            deed = Deed.SERVED
        self.note(link.peer, deed, now)

    def looked_at(self, link: Link, error: NetworkError | None, now: float) -> None:
        """A link was looked after, and may be silent. What fades has faded, and whoever floods is told from others."""
        peer = link.peer
        if error is not None:
            self.note(peer, deed_of(error), now)
        elif link.floods != peer.gauge.floods:
            link.floods = peer.gauge.floods
            self.note(peer, Deed.FLOODED, now)
        elif peer.gauge.score:
            self.known(peer, now)

    def ended(self, news: Outcome, members: Iterable[PeerRecord], accused: PeerRecord | None, now: float) -> None:
        """A session ended: the one at fault, or everybody who took part."""
        if news.verdict is not None:
            self.note(accused, Deed.BLAMED, now)
        elif news.end is End.COMPLETED:
            for peer in members:
                self.note(peer, Deed.SERVED, now)

    def _apply(self, peer: PeerRecord, score: float) -> None:
        peer.gauge.score = score
        peer.gauge.scale(share(score))
