"""Offers and answers of hole punching on their way through a node: it signs ours, and checks the shape of theirs."""

from __future__ import annotations

from ..errors import PeerNotFound
from ..text import short_key
from ..wire.candidates import Signal
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from .addresses import HOLE
from .book import Book
from .effects import Effect, Reply, SignalHeard
from .inputs import SaySignal
from .outbox import Outbox
from .peers import PeerRecord

__all__ = ["hear_signal", "learn_hole", "say_signal"]


def say_signal(event: SaySignal, book: Book, outbox: Outbox, now: float, out: list[Effect]) -> None:
    """Send a signal on the newest live link to its peer. It is not kept: its sockets do not wait either."""
    peer = book.get(event.key)
    if peer is None or not peer.live or peer.provisional:
        error = PeerNotFound(
            f"no link to {short_key(event.key)} for an offer", hint="a relay, or any other link, is one"
        )
        out.append(Reply(event.request, error))
        return
    out.append(outbox.own(peer.links[-1], MessageType.HOLE, event.data, now))
    out.append(Reply(event.request))


def learn_hole(peer: PeerRecord, own: tuple[str, ...], announced: tuple[str, ...]) -> None:
    """Where both sides punch holes, that is one of the peer's addresses from here on.

    Nothing else of an announcement is dialled: any other address could be a stranger's.
    """
    punches = HOLE.text in own and HOLE.text in announced
    if punches != peer.punches:
        peer.punches = punches
        peer.look_up()


def hear_signal(peer: PeerRecord, message: VerifiedMessage, out: list[Effect]) -> None:
    """Hand a peer's signal on. Raises SerializationError for a payload that is none."""
    Signal.parse_untrusted(message.payload)
    out.append(SignalHeard(peer.key, message.payload))
