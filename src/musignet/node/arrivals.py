"""What peers send to the application: acknowledged, and handed over once, over restarts too where there is a disk.

    arrives --> Store(IN) --> Stored --> Acknowledge, MessageArrived --> Handled --> Store(HANDLED instead of IN)

Handled is a message when its handlers have returned. A crash before that is on disk hands the same message, with the
same id, over again at the next start: whether the handlers had done their work nobody can know but they themselves.
"""

from __future__ import annotations

from ..limits import OUTBOX_TTL_MAX_S
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from .book import Book
from .config import NodeConfig
from .effects import Acknowledge, Effect, MessageArrived, Publish, Store
from .inputs import Handled, Restore, Stored
from .kept import Box, Kept
from .outbox import leaves_at_once
from .peers import Link, PeerRecord
from .window import Verdict, Window

__all__ = ["Arrivals"]


class _Coming:
    """A message on its way to the disk, and the links it came on: its acknowledgement goes to all of them, since its
    sender sends again what went out on another one that is lost, and only that."""

    __slots__ = ("links", "message")

    def __init__(self, link: int, message: VerifiedMessage) -> None:
        self.links = {link}
        self.message = message


class Arrivals:
    """See the module. Everything by the peer's key, then by message id. Effects go to the end of `out`."""

    __slots__ = ("_coming", "_disk", "_handled", "_here", "_limits", "_orphans")

    def __init__(self, config: NodeConfig) -> None:
        self._limits = config.limits
        self._disk = config.disk
        self._coming: dict[bytes, dict[bytes, _Coming]] = {}
        self._here: dict[bytes, set[bytes]] = {}
        """On disk, and not handled."""
        self._handled: dict[bytes, dict[bytes, int]] = {}
        """Handled, oldest first, and until when it is remembered: of each peer the last window. A sender has fewer in
        the air at once, and acknowledgements go out in the order of arrival, so what it may send again is among them.
        """
        self._orphans: dict[bytes, list[VerifiedMessage]] = {}
        """Not handled by an earlier run, from peers that are not in the book yet."""

    def judge(self, link: Link, message: VerifiedMessage) -> Verdict:
        """Say what a message is to those before it, in this run and on disk."""
        windows, body = link.peer.windows, message.body
        window = windows.get(body.epoch)
        if window is None:
            window = windows[body.epoch] = Window(self._limits.receive_window)
            if len(windows) > self._limits.epochs_per_sender:  # an old one: never that of the run we are linked to
                del windows[next(epoch for epoch in windows if epoch != link.epoch)]
        verdict = window.judge(body.seq, message.id, at_once=leaves_at_once(message))
        if not self._disk:
            return verdict
        key = link.peer.key
        known = message.id in self._handled.get(key, ()) or message.id in self._here.get(key, ())
        return Verdict.REPEAT if known and verdict is Verdict.NEW else verdict

    def take(self, link: Link, message: VerifiedMessage, verdict: Verdict, out: list[Effect]) -> None:
        """A message for the application, new or again."""
        key = link.peer.key
        coming = self._coming.get(key, {}).get(message.id) if self._disk else None
        if coming is not None:
            coming.links.add(link.number)
        elif verdict is Verdict.REPEAT or not isinstance(message.type, MessageType):
            out.append(Acknowledge(link.number, message.id))
        elif self._disk:
            self._coming.setdefault(key, {})[message.id] = _Coming(link.number, message)
            out.append(Store(key, (Kept(Box.IN, message.id, message.raw),)))
        else:
            out.append(Acknowledge(link.number, message.id))
            out.append(Publish(MessageArrived(key, message)))

    def stored(self, event: Stored, book: Book, stopped: bool, out: list[Effect]) -> list[int]:
        """The disk has answered. Returns the links to close: their messages cannot be kept, and must come again."""
        key, failed = event.store.peer, []
        for kept in event.store.puts:
            coming = self._coming.get(key, {}).pop(kept.message_id, None) if kept.box is Box.IN else None
            if coming is None:
                continue
            if event.error is not None:
                failed += self._lost(book.get(key), [coming, *self._coming.pop(key, {}).values()])
                continue
            self._here.setdefault(key, set()).add(kept.message_id)
            if not stopped:  # else the next run hands it over
                out.extend(Acknowledge(link, kept.message_id) for link in _open(coming, book.get(key)))
                out.append(Publish(MessageArrived(key, coming.message)))
        return failed

    def handled(self, event: Handled, now: float, out: list[Effect]) -> None:
        """The application is done with a message: from now on its id is enough."""
        key, here = event.key, self._here.get(event.key, set())
        if event.message_id not in here:
            return
        here.discard(event.message_id)
        handled = self._handled.setdefault(key, {})
        expires_ms = handled[event.message_id] = int((now + OUTBOX_TTL_MAX_S) * 1000)
        drops = [(Box.IN, event.message_id), *((Box.HANDLED, one) for one in self._forgettable(handled, now))]
        out.append(Store(key, (Kept(Box.HANDLED, event.message_id, b"", expires_ms),), tuple(drops)))

    def restore(self, event: Restore, book: Book, now: float, out: list[Effect]) -> None:
        """Take up what an earlier run left on disk. A peer that is added later gets its part then (`adopt`)."""
        for key, message_id, expires_ms in event.handled:
            self._handled.setdefault(key, {})[message_id] = expires_ms
        for key, handled in self._handled.items():
            drops = tuple((Box.HANDLED, one) for one in self._forgettable(handled, now))
            if drops:
                out.append(Store(key, (), drops))
        for key, message in event.arrived:
            self._here.setdefault(key, set()).add(message.id)
            self._orphans.setdefault(key, []).append(message)
        for peer in book:
            self.adopt(peer, out)

    def adopt(self, peer: PeerRecord, out: list[Effect]) -> None:
        """A peer is in the book: what an earlier run did not handle of it is handed over now."""
        out.extend(Publish(MessageArrived(peer.key, message)) for message in self._orphans.pop(peer.key, ()))

    def forget(self, key: bytes, out: list[Effect]) -> None:
        """A peer is forgotten, and what it sent with it."""
        coming, here, handled = self._coming.pop(key, {}), self._here.pop(key, set()), self._handled.pop(key, {})
        drops = [*((Box.IN, one) for one in (*coming, *sorted(here))), *((Box.HANDLED, one) for one in handled)]
        if drops:
            out.append(Store(key, (), tuple(drops)))

    def _forgettable(self, handled: dict[bytes, int], now: float) -> list[bytes]:
        """Take out the ids that are older than a window, or too old for their messages to be sent again."""
        gone = []
        while handled:
            oldest = next(iter(handled))
            if len(handled) <= self._limits.receive_window and handled[oldest] / 1000 > now:
                break
            del handled[oldest]
            gone.append(oldest)
        return gone

    def _lost(self, peer: PeerRecord | None, messages: list[_Coming]) -> list[int]:
        """Unsee messages: also those behind the one that failed, or they would be handed over before it."""
        if peer is None:
            return []
        for coming in messages:
            window = peer.windows.get(coming.message.body.epoch)
            if window is not None:
                window.unsee(coming.message.body.seq)
        return [link.number for link in peer.links]


def _open(coming: _Coming, peer: PeerRecord | None) -> list[int]:
    """Return those links a message came on that are still there. Over one that was closed meanwhile nothing can be
    said: its sender sends the message again on the next, and that is acknowledged."""
    return [] if peer is None else sorted(coming.links & {link.number for link in peer.links})
