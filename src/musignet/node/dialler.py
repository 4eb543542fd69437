"""Dialling: who is dialled when, who waits for it, and the pauses between.

A peer that is not connected is dialled at all its addresses. One that is reached by a worse path than they promise is
dialled again at the better ones: with growing pauses, and soon where something says that both sides are there now.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import NetworkError, TransportError
from ..limits import Limits
from .addresses import HOLE, TURN, Address
from .book import Book
from .effects import Connect, Effect, Reply
from .inputs import Dial
from .peers import Link, PeerRecord
from .timers import Timers, jitter

__all__ = ["Dialler"]


class Dialler:
    """One per node. It emits `Connect`, and answers those who asked for a link."""

    def __init__(self, limits: Limits, timers: Timers, draw: Callable[[int], bytes]) -> None:
        self._limits = limits
        self._timers = timers
        self._draw = draw
        self.stopped = False

    def dial(self, event: Dial, book: Book, out: list[Effect]) -> None:
        """Dial a peer of the book, or wait with those who do already."""
        peer = book.get(event.key)
        if peer is None or not peer.places or self.stopped:
            name = (
                "this node is stopped" if self.stopped else f"no address for {peer.name if peer else event.key.hex()}"
            )
            error = TransportError(name, hint="add_peer(PeerInfo(..., addresses=(...,))) gives one")
            out.append(Reply(event.request, error))
            return
        peer.wanted = peer.wanted or event.persist or peer.live
        peer.abandoned = False
        if peer.live:
            out.append(Reply(event.request))
            return
        (peer.patient if event.persist else peer.dials).append(event.request)
        if not peer.dialling:
            peer.attempts = 0  # who asks now does not wait as long as who asked for an hour
            self._connect(peer, out)

    def failed(self, peer: PeerRecord, error: NetworkError, now: float, out: list[Effect]) -> None:
        """A dial came to nothing: tell those who wait for this one, and dial again where the peer is wanted."""
        peer.dialling = peer.abandoned = False
        dials, peer.dials = peer.dials, []
        out.extend(Reply(request, error) for request in dials)
        if peer.live:
            peer.path_error = error
            self.better_later(peer, now)
        else:
            peer.last_error = error
            self.again_later(peer, now)

    def missed(self, peer: PeerRecord | None, error: NetworkError) -> None:
        """A dial found a link, and before that nobody at other addresses: what keeps from those, if they are better."""
        if peer is not None:
            peer.path_error = error

    def answer(self, peer: PeerRecord, error: NetworkError | None, out: list[Effect]) -> None:
        """Answer everybody who waits for a link to this peer, the patient ones too."""
        dials, peer.dials, peer.patient = [*peer.dials, *peer.patient], [], []
        out.extend(Reply(request, error) for request in dials)

    def again_later(self, peer: PeerRecord, now: float) -> None:
        """Dial again after a pause that doubles each time, with jitter, so that a crowd does not return as one."""
        if not peer.wanted or peer.dialling or not peer.places or self.stopped:
            return
        pause = min(self._limits.backoff_max_s, self._limits.backoff_min_s * 2 ** min(peer.attempts, 20))
        peer.attempts += 1
        peer.redial_at = now + pause * jitter(0.3, self._draw)
        self._timers.set(peer.redial_at, peer.key)

    def linked(self, link: Link, now: float) -> None:
        """A link is up, perhaps by a worse path than there is.

        What was dialled in vain a moment ago is not dialled again at once. A hole was not: an offer needs a link.
        """
        peer = link.peer
        if link.path == TURN:
            peer.better_tries = max(peer.better_tries, 1)  # this is what a hole came to
            self.better_later(peer, now)
        elif link.outbound and HOLE not in peer.better:
            self.better_later(peer, now)
        else:
            self.better_soon(peer, now)

    def better_later(self, peer: PeerRecord, now: float) -> None:
        """Look for a better path after a pause that doubles with each try, where the addresses promise one."""
        better = peer.better
        pause = min(self._limits.better_path_max_s, self._limits.better_path_min_s * 2 ** min(peer.better_tries, 20))
        if not peer.better_tries and HOLE in better:
            pause = min(pause, self._limits.first_hole_s)  # only now is there a link that an offer can take
        self._better_after(pause, better, peer, now)

    def better_soon(self, peer: PeerRecord, now: float) -> None:
        """The peer is back, or a session with it begins: look for a better path now, and begin the pauses anew.

        However often it comes back, it is not dialled more often than it answers offers: each costs datagrams to
        wherever it points.
        """
        peer.better_tries = 0
        self._better_after(self._limits.first_hole_s, peer.better, peer, now)

    def _better_after(self, pause: float, better: tuple[Address, ...], peer: PeerRecord, now: float) -> None:
        peer.better_at = None
        if not better:
            peer.better_tries = 0
            peer.path_error = None
        elif peer.wanted and not self.stopped:
            apart = self._limits.ice_offers_pause_s + self._limits.ice_gather_s  # its pause begins when it hears us
            peer.better_at = max(now + pause * jitter(0.3, self._draw), peer.better_tried_at + apart)
            self._timers.set(peer.better_at, peer.key)

    def network_changed(self, book: Book, now: float, out: list[Effect]) -> None:
        """What failed before may work now: end every pause."""
        for peer in book:
            if peer.redial_at is not None:
                peer.attempts = 0
                self._connect(peer, out)
            elif peer.better_at is not None:
                peer.better_tries = 0
                self._connect_better(peer, now, out)

    def seen(self, peer: PeerRecord, now: float, out: list[Effect]) -> None:
        """It is on the local network now: end its pause, if it is dialled at all."""
        if peer.redial_at is not None:
            peer.attempts = 0
            self._connect(peer, out)
        elif peer.links and peer.better and peer.wanted:
            peer.better_tries = 0
            self._connect_better(peer, now, out)

    def woken(self, peer: PeerRecord | None, now: float, out: list[Effect]) -> None:
        """A pause of a peer may be over."""
        if peer is None:
            return
        if peer.redial_at is not None and peer.redial_at <= now:
            self._connect(peer, out)
        if peer.better_at is not None and peer.better_at <= now:
            self._connect_better(peer, now, out)

    def _connect(self, peer: PeerRecord, out: list[Effect]) -> None:
        peer.dialling = True
        peer.redial_at = peer.path_error = None
        out.append(Connect(peer.key, peer.places))

    def _connect_better(self, peer: PeerRecord, now: float, out: list[Effect]) -> None:
        peer.better_at = None
        if peer.better and not peer.dialling:
            peer.dialling = True
            peer.better_tried_at = now
            peer.better_tries += 1
            out.append(Connect(peer.key, peer.better))
