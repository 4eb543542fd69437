"""Dialling: who is dialled when, who waits for it, and the pauses between."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import NetworkError, TransportError
from ..limits import Limits
from .book import Book
from .effects import Connect, Effect, Reply
from .inputs import Dial
from .peers import PeerRecord
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
        if peer is None or not peer.info.port or self.stopped:
            name = (
                "this node is stopped" if self.stopped else f"no address for {peer.name if peer else event.key.hex()}"
            )
            error = TransportError(name, hint="add_peer(PeerInfo(..., host=, port=)) gives one")
            out.append(Reply(event.request, error))
            return
        peer.wanted = peer.wanted or event.persist or peer.live
        peer.abandoned = False
        if peer.live:
            out.append(Reply(event.request))
            return
        (peer.patient if event.persist else peer.dials).append(event.request)
        if not peer.dialling:
            self._connect(peer, out)

    def failed(self, peer: PeerRecord, error: NetworkError, now: float, out: list[Effect]) -> None:
        """A dial came to nothing: tell those who wait for this one, and dial again where the peer is wanted."""
        peer.dialling = peer.abandoned = False
        peer.last_error = error
        dials, peer.dials = peer.dials, []
        out.extend(Reply(request, error) for request in dials)
        if not peer.live:
            self.again_later(peer, now)

    def answer(self, peer: PeerRecord, error: NetworkError | None, out: list[Effect]) -> None:
        """Answer everybody who waits for a link to this peer, the patient ones too."""
        dials, peer.dials, peer.patient = [*peer.dials, *peer.patient], [], []
        out.extend(Reply(request, error) for request in dials)

    def again_later(self, peer: PeerRecord, now: float) -> None:
        """Dial again after a pause that doubles each time, with jitter, so that a crowd does not return as one."""
        if not peer.wanted or peer.dialling or not peer.info.port or self.stopped:
            return
        pause = min(self._limits.backoff_max_s, self._limits.backoff_min_s * 2 ** min(peer.attempts, 20))
        peer.attempts += 1
        peer.redial_at = now + pause * jitter(0.3, self._draw)
        self._timers.set(peer.redial_at, peer.key)

    def woken(self, peer: PeerRecord | None, now: float, out: list[Effect]) -> None:
        """The pause of a peer may be over."""
        if peer is not None and peer.redial_at is not None and peer.redial_at <= now:
            self._connect(peer, out)

    def _connect(self, peer: PeerRecord, out: list[Effect]) -> None:
        peer.dialling = True
        peer.redial_at = None
        out.append(Connect(peer.key, peer.info.host, peer.info.port))
