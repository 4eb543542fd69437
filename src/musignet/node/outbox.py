"""What this node says: signed, numbered, kept until acknowledged, sent again on the next link, bounded.

In memory a message survives a lost link. One that is kept on disk (`SendMessage.keep_s`) survives the process too: its
sender is answered when it is there, and it goes out only then. It leaves the disk when it was acknowledged, when its
time is over, which is said, or when its peer is forgotten.
"""

from __future__ import annotations

from typing import Final

from ..crypto.keys import Identity
from ..errors import NetworkError, SendError, Timeout
from ..limits import CEREMONY_WAITING_MAX, FAULTS_PER_MESSAGE_MAX, MESSAGE_ID_BYTES, OUTBOX_TTL_MAX_S
from ..wire.channel import CloseReceived
from ..wire.codec import Record
from ..wire.envelope import Message, SignedMessage
from ..wire.messages import CloseCode, MessageType, Priority
from .book import Book
from .config import NodeConfig
from .effects import Effect, Expired, Publish, Reply, Send, Undelivered
from .inputs import Drain, Restore, SendMessage, Stored
from .peers import Delivery, Link, Mail, Outgoing, PeerRecord
from .reasons import UNPAIRED_MAY, refused_error
from .shelf import Shelf
from .timers import Timers
from .window import Verdict, Window

__all__ = ["NODES_OWN", "ROUNDS", "Outbox", "leaves_at_once"]

NODES_OWN: Final = frozenset(
    (
        *(MessageType.PEER_ANNOUNCEMENT, MessageType.DISCOVERY, MessageType.PING, MessageType.PONG, MessageType.ACK),
        *(MessageType.ANNOUNCEMENT_SHOWN, MessageType.HOLE),
    )
)
"""Types that nodes exchange among themselves. An application neither sends nor sees them."""


ROUNDS: Final = frozenset(
    (
        *(MessageType.PUBLIC_NONCE, MessageType.PARTIAL_SIGNATURE, MessageType.NONCE_LIST, MessageType.LIST_WANTED),
        *(MessageType.ATTEMPT_BEGIN, MessageType.AGGREGATE_NONCE, MessageType.AGGREGATE_SHOWN),
    )
)
"""Types that make sense in one attempt, while everybody is there. They are left nowhere (`Mail.LETTERS`)."""

_GROUP_ID_BYTES: Final = 32


class Outbox:
    """Signs and numbers every message of one boot epoch, and keeps those of the application until they arrived.

    What waits for a peer stands in the `unacked` and `parked` of its `PeerRecord`. Effects go to the end of `out`.
    """

    __slots__ = ("_config", "_draining", "_epoch", "_identity", "_presigned", "_shelf", "seq")

    def __init__(self, identity: Identity, config: NodeConfig, epoch: bytes, timers: Timers) -> None:
        self._identity = identity
        self._config = config
        self._epoch = epoch
        self._presigned = Window(config.limits.receive_window)
        self._shelf = Shelf(timers)
        self._draining: list[int] = []
        self.seq = 0
        """The number of the last message signed."""

    # --- signing ------------------------------------------------------------------------------------------------------

    def own(self, link: Link, kind: MessageType, payload: Record | bytes, now: float) -> Send:
        """Return a message between nodes. It is not kept: the link it is about is the only one it makes sense on."""
        signed = self._sign(Message(kind, self._config.label, payload), link.peer.key, now)
        return Send(link.number, signed.raw, Priority.of(kind))

    def submit(self, event: SendMessage, book: Book, now: float, out: list[Effect]) -> None:
        """Sign a message of the application once, and offer it to each of its peers."""
        try:
            peers = _recipients(book, event.keys, event.keep_s > 0)
            to = peers[0].key if event.keys is not None and len(peers) == 1 else b""
            for peer in peers:
                if peer.provisional:
                    _refuse_unpaired(peer, event.message)
                if event.keep_s:
                    self._refuse_to_keep(event.keep_s, peer)
            signed = self._signed(event.message, to, peers, now)
        except NetworkError as error:
            out.append(Reply(event.request, error))
            return
        if not peers:
            out.append(Reply(event.request))
        delivery = Delivery(event.request, len(peers), event.until_acked)
        priority = Priority.of(signed.type)
        for peer in peers:
            message = Outgoing(signed.id, signed.raw, priority, delivery)
            if event.keep_s:
                message.expires_ms = int((now + event.keep_s) * 1000)
                peer.parked.append(message)
                self._shelf.put(peer.key, message, out)
            else:
                self._offer(peer, message, out)

    def to_group(self, kind: MessageType, session: bytes, payload: bytes, group: bytes, now: float) -> SignedMessage:
        """Return a signed message of a ceremony, addressed to a group. Raises SerializationError when out of bounds."""
        return self._sign(Message(kind, self._config.label, payload, session=session), group, now)

    def spread(self, signed: SignedMessage, peers: list[PeerRecord], out: list[Effect]) -> None:
        """Send a message of a ceremony to connected peers. Nobody waits for an answer to it, and it waits for none of
        the application's that have not left yet."""
        delivery, priority = Delivery(0, len(peers), False), Priority.of(signed.type)
        for peer in peers:
            message = Outgoing(signed.id, signed.raw, priority, delivery)
            message.of_a_round = signed.type in ROUNDS
            if not _may_leave(peer, message):
                continue
            waiting = next((at for at, one in enumerate(peer.parked) if not _of_a_ceremony(one)), len(peer.parked))
            if waiting >= CEREMONY_WAITING_MAX:
                continue  # whoever does not acknowledge asks again, or is asked again
            if waiting or not self._has_room(peer, message):
                peer.parked.insert(waiting, message)
            else:
                self._accept(peer, message, out)

    def _sign(self, message: Message, to: bytes, now: float) -> SignedMessage:
        self.seq += 1
        return message.sign(
            self._identity,
            to=to,
            seq=self.seq,
            sent_at_ms=int(now * 1000),
            epoch=self._epoch,
            chain=self._config.chain,
        )

    def _signed(self, message: Message, to: bytes, peers: list[PeerRecord], now: float) -> SignedMessage:
        """Sign a message, or check one that its caller signed."""
        if message.type in NODES_OWN:
            raise SendError(
                f"{MessageType(message.type).name} is sent by the node itself", hint="use CHAT or another type"
            )
        if not isinstance(message, SignedMessage):
            return self._sign(message, to, now)
        body = message.body
        if body.sender_key != self._identity.pubkey or (body.recipient and body.recipient != to):
            raise SendError("this message is signed by another key, or for another peer", hint="send the unsigned one")
        if body.chain != self._config.chain:
            raise SendError("this message is signed for another Bitcoin network", hint="sign it with chain=")
        if any(_on_its_way(peer, message.id) for peer in peers):
            raise SendError("this very message is on its way already", hint="wait until it is acknowledged")
        if self._presigned.judge(body.seq, message.id) in (Verdict.CONFLICT, Verdict.STALE):
            raise SendError(
                f"number {body.seq} was used before", hint="sign with another seq=, or send the unsigned one"
            )
        return message

    # --- delivery -----------------------------------------------------------------------------------------------------

    def acknowledged(self, peer: PeerRecord, ids: bytes, out: list[Effect]) -> None:
        """The peer has these messages. Ids that are not waited for mean nothing."""
        done = []
        for at in range(0, len(ids), MESSAGE_ID_BYTES):
            message = peer.unacked.pop(ids[at : at + MESSAGE_ID_BYTES], None)
            if message is not None:
                peer.unacked_bytes -= len(message.data)
                if message.expires_ms:
                    done.append(message)
                if message.delivery.until_acked:
                    _count_down(message.delivery, out)
        if done:
            self._shelf.drop(peer.key, done, out)
        if peer.parked:
            self._unpark(peer, out)

    def resend(self, peer: PeerRecord, out: list[Effect]) -> None:
        """Send again, byte for byte and in order, what went out on links that are gone. Then what was parked."""
        alive = {link.number for link in peer.links}
        number = peer.links[-1].number
        for message in peer.unacked.values():
            if message.link not in alive and _may_leave(peer, message):
                message.link = number
                out.append(Send(number, message.data, message.priority))
        self._unpark(peer, out)

    def link_ended(self, link: Link, goodbye: CloseReceived, out: list[Effect]) -> None:
        """The peer closed a link and said why. A message that it will never take would close each link to come.

        It acknowledges in the order in which it hears, so the oldest message that it has not acknowledged is most
        likely the one it closed the link for. The second time that one is given up, alone, and `Undelivered` says why.

        The risk: the fault may have been something else, such as a younger message that overtook it, or a message
        between nodes. Then an innocent message is lost, and said to be; a peer that wants to lose what we send it
        can do so anyway.
        """
        peer = link.peer
        message = next(iter(peer.unacked.values()), None)
        if goodbye.code != CloseCode.FAULT or message is None or message.link != link.number:
            return
        message.faults += 1
        if message.faults == FAULTS_PER_MESSAGE_MAX:
            error = refused_error(peer, goodbye)
            if message.expires_ms:
                self._shelf.drop(peer.key, [message], out)
            _take_back(peer, [message], error, out)
            out.append(Publish(Undelivered(peer.key, 1, error)))

    def parted(self, peer: PeerRecord, out: list[Effect]) -> None:
        """The last link to a peer is gone: what is on disk for it is accepted, however long it waits now."""
        for message in peer.parked:
            if message.expires_ms and message.ready:
                _accepted(message, out)

    def give_up(self, peer: PeerRecord, error: NetworkError, out: list[Effect], *, forget: bool = False) -> int:
        """Forget what waits for this peer; `error` answers who still waits for it. Returns how many messages.

        What is kept on disk stays there, for the next link or the next run, unless the peer itself is forgotten.
        """
        waiting = [*peer.unacked.values(), *peer.parked]
        peer.unacked.clear()
        peer.unacked_bytes = 0
        peer.parked.clear()
        for message in waiting:
            stays = message.expires_ms and not forget
            if message.delivery.until_acked or not (stays or message.link):
                _fail(message.delivery, error, out)
            if stays:
                peer.parked.append(message)
                if message.ready:
                    _accepted(message, out)
        if forget:
            self._shelf.drop(peer.key, [message for message in waiting if message.expires_ms], out)
        return len(waiting) - len(peer.parked)

    def drain(self, event: Drain, book: Book, out: list[Effect]) -> None:
        """Answer this once nothing is on its way to a connected peer."""
        self._draining.append(event.request)
        self.answer_drains(book, out)

    def answer_drains(self, book: Book, out: list[Effect]) -> None:
        """Look whether that is so now."""
        if self._draining and not any(peer.live and (peer.unacked or peer.parked) for peer in book):
            drains, self._draining = self._draining, []
            out.extend(Reply(request) for request in drains)

    def _offer(self, peer: PeerRecord, message: Outgoing, out: list[Effect]) -> None:
        if peer.parked or not self._has_room(peer, message):
            peer.parked.append(message)
        else:
            self._accept(peer, message, out)

    def _has_room(self, peer: PeerRecord, message: Outgoing) -> bool:
        count = len(peer.unacked) + self._shelf.dropping(peer.key)
        if not count:
            return True
        limits = self._config.limits
        held = peer.unacked_bytes + len(message.data)
        return count < limits.unacked_max and held <= limits.unacked_max_bytes

    def _accept(self, peer: PeerRecord, message: Outgoing, out: list[Effect]) -> None:
        peer.unacked[message.message_id] = message
        peer.unacked_bytes += len(message.data)
        message.link = peer.links[-1].number
        out.append(Send(message.link, message.data, message.priority))
        _accepted(message, out)

    def _unpark(self, peer: PeerRecord, out: list[Effect]) -> None:
        while peer.parked and peer.links and peer.parked[0].ready and self._has_room(peer, peer.parked[0]):
            message = peer.parked.pop(0)
            if _may_leave(peer, message):
                self._accept(peer, message, out)

    # --- on disk ------------------------------------------------------------------------------------------------------

    def stored(self, event: Stored, book: Book, out: list[Effect]) -> None:
        """The disk did what it was asked: what waited for it is accepted, and goes out; or it could not."""
        peer = book.get(event.store.peer)
        for message in self._shelf.stored(event):
            if event.error is not None:
                self._shelf.forget(event.store.peer, message)
                _take_back(peer, [message], event.error, out)
            elif peer is None or not peer.links:
                _accepted(message, out)
        if peer is not None:
            self._unpark(peer, out)

    def restore(self, event: Restore, book: Book, out: list[Effect]) -> None:
        """Take up what an earlier run left on disk, in the order it was written. A peer that is added later gets its
        part then (`adopt`)."""
        for key, signed, expires_ms in event.outgoing:
            message = Outgoing(signed.id, signed.raw, Priority.of(signed.type), Delivery(0, 1, False))
            message.expires_ms = expires_ms
            self._shelf.restore(key, message)
        for peer in book:
            self.adopt(peer, out)

    def adopt(self, peer: PeerRecord, out: list[Effect]) -> None:
        """A peer is in the book: what an earlier run had for it waits for it again."""
        peer.parked.extend(self._shelf.adopt(peer.key))
        self._unpark(peer, out)

    def expire(self, book: Book, now: float, out: list[Effect]) -> None:
        """Drop the messages whose time is over, and say which."""
        for key, late in self._shelf.expired(now).items():
            peer = book.get(key)
            self._shelf.drop(key, late, out)
            _take_back(peer, late, Timeout("not acknowledged in time, and kept no longer"), out)
            out.append(Publish(Expired(key, tuple(message.message_id for message in late))))
            if peer is not None:
                self._unpark(peer, out)

    def _refuse_to_keep(self, keep_s: float, peer: PeerRecord) -> None:
        limits = self._config.limits
        if not self._config.disk:
            raise SendError("this node has no disk to keep a message on", hint="NetworkService(data_dir=...)")
        if not 0 < keep_s <= OUTBOX_TTL_MAX_S:
            raise SendError("not a time to keep a message", expected=f"at most {OUTBOX_TTL_MAX_S:g} s", got=keep_s)
        count, size = self._shelf.count(peer.key), self._shelf.size
        if not peer.links and (count >= limits.outbox_max or size >= limits.outbox_max_bytes):
            expected = f"at most {limits.outbox_max} for one peer and {limits.outbox_max_bytes} bytes in all"
            raise SendError(
                f"too much waits for {peer.name} already", expected=expected, got=f"{count} with {size} bytes in all"
            )


def _recipients(book: Book, keys: tuple[bytes, ...] | None, kept: bool) -> list[PeerRecord]:
    """Return who a message goes to. Raises SendError when one of them is not connected, and it is not kept."""
    if keys is None:
        return [peer for peer in book if peer.live and not peer.provisional]
    peers = [*filter(None, map(book.get, keys))]
    for peer in peers:
        if not peer.live and not kept:
            why = f" ({peer.last_error})" if peer.last_error else ""
            raise SendError(
                f"{peer.name} is {peer.state.value}{why}", hint="send when it is connected; nothing was kept"
            )
    return peers


def _refuse_unpaired(peer: PeerRecord, message: Message) -> None:
    if message.type not in UNPAIRED_MAY:
        raise SendError(f"{peer.name} is not paired yet", hint="compare the six words and confirm them first")


def _on_its_way(peer: PeerRecord, message_id: bytes) -> bool:
    return message_id in peer.unacked or any(message.message_id == message_id for message in peer.parked)


def _may_leave(peer: PeerRecord, message: Outgoing) -> bool:
    """Whether the link to a peer carries this. What is left for who is away lies at a relay for days: no round does."""
    return not message.of_a_round or peer.links[-1].mail is not Mail.LETTERS


def leaves_at_once(message: SignedMessage) -> bool:
    """Whether a node lets this message wait for none of the application's: its own, and those to a group."""
    return message.type in NODES_OWN or len(message.body.recipient) == _GROUP_ID_BYTES


def _of_a_ceremony(message: Outgoing) -> bool:
    return not (message.delivery.request or message.expires_ms)


def _take_back(peer: PeerRecord | None, messages: list[Outgoing], error: NetworkError, out: list[Effect]) -> None:
    """Do not send these (any more); who waits for them hears the error."""
    ids = {message.message_id for message in messages}
    for message in messages:
        _fail(message.delivery, error, out)
    if peer is not None:
        for message in messages:
            if peer.unacked.pop(message.message_id, None) is not None:
                peer.unacked_bytes -= len(message.data)
        peer.parked = [message for message in peer.parked if message.message_id not in ids]


def _accepted(message: Outgoing, out: list[Effect]) -> None:
    if not message.delivery.until_acked and message.delivery.missing > 0:
        _count_down(message.delivery, out)


def _count_down(delivery: Delivery, out: list[Effect]) -> None:
    delivery.missing -= 1
    if delivery.missing == 0 and delivery.request:
        out.append(Reply(delivery.request, None, delivery.peers))


def _fail(delivery: Delivery, error: NetworkError, out: list[Effect]) -> None:
    if delivery.request and delivery.missing > 0:
        delivery.missing = 0
        out.append(Reply(delivery.request, error))
