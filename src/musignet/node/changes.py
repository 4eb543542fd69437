"""Whether this node, or a peer, came back with an old copy of its disk (THREATS.md K4).

What becomes of our sessions is counted on disk, and announcements say how far the count is. Each side keeps the newest
announcement of the other. Whoever announces less than before is shown its own announcement: its own signature is the
proof, and nobody's word counts.

    a step of a session --(1 s)--> Store --> Stored --> announced to everybody who is linked
    a peer announces less than it did --> its own announcement, back to it
    shown one of ours, ahead of our count --> Store, counted past it --> Stored --> OldDisk: what was open ends

Counted past what was shown, the same proof proves nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ..crypto.keys import Identity
from ..errors import InvalidMessage, PeerError, SerializationError
from ..limits import ANNOUNCEMENT_KEPT_MAX_BYTES, CHANGES_COUNTED_AFTER_S, MESSAGE_ID_BYTES, SIGNATURE_BYTES
from ..signing.effects import Void
from ..text import who
from ..wire.envelope import Message, SignedMessage, VerifiedMessage
from ..wire.messages import Chain, MessageType, PeerAnnouncement
from .book import Book
from .config import NodeConfig
from .effects import Effect, Fault, OldDisk, Publish, Send, Store
from .inputs import Restore, Stored
from .kept import Box, Kept
from .outbox import Outbox
from .peers import Link, Mail, PeerRecord
from .reasons import cloned, old_disk
from .timers import Timers

__all__ = ["COUNT", "Changes", "counted", "shown_untrusted"]

COUNT: Final = b"count"
"""The subject of the timer for changes that are not counted yet."""

_OWN: Final = b""
"""Whose records those about ourselves are."""


class _Newest(NamedTuple):
    """What is kept of a peer: how much it announced, and with what."""

    changes: int
    id: bytes
    envelope: bytes


class Changes:
    """See the module. Effects go to the end of `out`.

    Attributes:
        count: how many changes of our sessions are counted on disk. It never goes back; without a disk it stays 0.
        void:  what ended, or has still to end, because our disk was old; the last time.
    """

    __slots__ = (
        "_config",
        "_due",
        "_epoch",
        "_identity",
        "_newest",
        "_outbox",
        "_proof",
        "_proving",
        "_records",
        "_timers",
        "count",
        "void",
    )

    def __init__(self, identity: Identity, config: NodeConfig, epoch: bytes, outbox: Outbox, timers: Timers) -> None:
        self.count = 0
        self.void: Void | None = None
        self._identity = identity
        self._config = config
        self._epoch = epoch
        self._outbox = outbox
        self._timers = timers
        self._newest: dict[bytes, _Newest] = {}
        self._records: list[int] = []
        """The counts on disk: the last one is needed, and that of the last proof."""
        self._proof = 0
        self._proving = 0
        """What a proof that is on its way to the disk is counted as; 0 where none is."""
        self._due = False

    def restore(self, event: Restore, book: Book, now: float) -> None:
        """Take up what an earlier run left on disk."""
        for key, message in event.announced[-self._config.limits.peers_max :]:
            said = message.content
            if isinstance(said, PeerAnnouncement):
                self._newest[key] = _Newest(said.changes, message.id, message.raw)
        self.count = event.changes
        self._records = [event.changes] if event.changes else []
        if event.old is not None:
            self._proof, proof = event.old
            self._records.append(self._proof)
            self.void = Void(
                self._proof, old_disk(_name(book, proof.body.recipient), now - proof.body.sent_at_ms / 1000)
            )

    # --- our own ------------------------------------------------------------------------------------------------------

    def announcement(self, link: Link, now: float) -> Send:
        """Return our announcement for a link."""
        windows = reversed(link.peer.windows.items())
        seen_epoch, seen_seq = next(((epoch, one.highest) for epoch, one in windows if one.highest >= 0), (b"", 0))
        said = PeerAnnouncement(
            self._config.label, self._config.addresses, (), self._epoch, seen_epoch, seen_seq, self.count
        )
        return self._outbox.own(link, MessageType.PEER_ANNOUNCEMENT, said, now)

    def changed(self, now: float) -> None:
        """One of our sessions took a step that must not be forgotten. It is counted soon, with those to come."""
        if self._config.disk and not self._due:
            self._due = True
            self._timers.set(now + CHANGES_COUNTED_AFTER_S, COUNT)

    def write(self, out: list[Effect]) -> None:
        """Count what has changed; when it is on disk, it is announced."""
        if self._due:
            self._due = False
            self._put(max((self.count, *self._records)) + 1, b"", out)

    def _put(self, count: int, proof: bytes, out: list[Effect]) -> None:
        if proof:
            self._proof = count
        drops = tuple((Box.CHANGES, _id(one)) for one in self._records if one not in (count, self._proof))
        self._records = [count, self._proof] if self._proof else [count]
        out.append(Store(_OWN, (Kept(Box.CHANGES, _id(count), proof),), drops))

    def stored(self, event: Stored, book: Book, now: float, out: list[Effect]) -> Void | None:
        """The disk has answered. Returns what ends because it is old, where it is."""
        before, found = self.count, None
        for kept in event.store.puts if event.store.peer == _OWN else ():
            count = int.from_bytes(kept.message_id)
            if event.error is None:
                self.count = max(self.count, count)
            if kept.envelope:  # it is old, also where it cannot take note of that
                found = self._proved(count, Message.from_bytes(kept.envelope), book, now, out)
        if self.count > before:
            self._announce(book, now, out)
        return found

    def _proved(self, count: int, proof: SignedMessage, book: Book, now: float, out: list[Effect]) -> Void:
        key, self._proving = proof.body.recipient, 0
        self.void = Void(count, old_disk(_name(book, key), now - proof.body.sent_at_ms / 1000))
        out.append(Publish(OldDisk(key, self.void.error)))
        return self.void

    def _announce(self, peers: Iterable[PeerRecord], now: float, out: list[Effect]) -> None:
        out.extend(self.announcement(one.links[-1], now) for one in peers if one.live and not one.provisional)

    def shown(self, link: Link, data: bytes, out: list[Effect]) -> PeerError | None:
        """A peer shows an announcement of ours, and says that we are behind it. Returns its fault, where it lies."""
        peer = link.peer
        try:
            proof, said = shown_untrusted(data, self._identity.pubkey, peer.key, self._config.chain, peer.name)
            if not self._config.disk or said.changes <= self.count or said.changes < self._proving:
                return None  # it has not heard the newest one, or says it again
            if not self._identity.public.verify(proof.digest, proof.raw[:SIGNATURE_BYTES]):
                raise InvalidMessage("an announcement in our name that we did not sign", peer=peer.name)
        except PeerError as error:
            return error
        self._proving = said.changes + 1
        self._put(self._proving, proof.raw, out)
        return None

    # --- others' ------------------------------------------------------------------------------------------------------

    def heard(
        self, link: Link, message: VerifiedMessage, said: PeerAnnouncement, now: float, out: list[Effect]
    ) -> None:
        """A peer has announced itself: keep the newest there is, and show it to a peer that is behind it."""
        peer = link.peer
        if said.seen_epoch == self._epoch and said.seen_seq > self._outbox.seq:
            out.append(Publish(Fault(peer.key, cloned(peer))))
        if peer.provisional:
            return
        newest = self._newest.get(peer.key)
        if newest is not None and said.changes < newest.changes:
            if link.mail is not Mail.NO:
                return  # nobody acknowledges it: it would be carried for good
            out.append(self._outbox.own(link, MessageType.ANNOUNCEMENT_SHOWN, newest.envelope, now))
        elif said.changes > (newest.changes if newest else 0) and len(message.raw) <= ANNOUNCEMENT_KEPT_MAX_BYTES:
            self._keep(peer.key, _Newest(said.changes, message.id, message.raw), out)

    def _keep(self, key: bytes, newest: _Newest, out: list[Effect]) -> None:
        last = self._newest.pop(key, None)
        self._newest[key] = newest
        if self._config.disk:
            drops = () if last is None else ((Box.ANNOUNCED, last.id),)
            out.append(Store(key, (Kept(Box.ANNOUNCED, newest.id, newest.envelope),), drops))
        if len(self._newest) > self._config.limits.peers_max:
            self.forget(next(iter(self._newest)), out)

    def forget(self, key: bytes, out: list[Effect]) -> None:
        """A peer is forgotten, and what it announced with it."""
        last = self._newest.pop(key, None)
        if last is not None and self._config.disk:
            out.append(Store(key, (), ((Box.ANNOUNCED, last.id),)))


def shown_untrusted(
    data: bytes, own: bytes, to: bytes, chain: Chain, peer: str
) -> tuple[SignedMessage, PeerAnnouncement]:
    """Return what a peer shows as an announcement of `own` (33 bytes) to `to` (33 bytes), its signature not checked.

    Raises: SerializationError for what is no announcement; InvalidMessage for one of somebody else, to somebody else,
    or on another Bitcoin network.
    """
    try:
        message = Message.from_bytes(data)
        said = message.content
    except SerializationError as error:
        raise SerializationError(f"undecodable announcement: {error}", peer=peer) from None
    body = message.body
    if not isinstance(said, PeerAnnouncement):
        raise InvalidMessage("shown is no announcement", peer=peer, got=f"type {body.type}")
    if (body.sender_key, body.recipient, body.chain) != (own, to, chain):
        raise InvalidMessage("shown is no announcement of ours to this peer", peer=peer)
    return message, said


def counted(records: Iterable[tuple[bytes, bytes]]) -> tuple[int, tuple[int, SignedMessage] | None]:
    """Return `changes` and `old` of a `Restore`. Args: `records` - id and envelope of each in `Box.CHANGES`.

    Raises: SerializationError for an envelope that is none.
    """
    by_count = sorted((int.from_bytes(key), envelope) for key, envelope in records)
    proofs = [(count, Message.from_bytes(envelope)) for count, envelope in by_count if envelope]
    return by_count[-1][0] if by_count else 0, proofs[-1] if proofs else None


def _id(count: int) -> bytes:
    return count.to_bytes(MESSAGE_ID_BYTES)


def _name(book: Book, key: bytes) -> str:
    peer = book.get(key)
    return who("", key) if peer is None else peer.name
