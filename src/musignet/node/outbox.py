"""What this node says: signed, numbered, kept until acknowledged, sent again on the next link, bounded.

In memory only: it survives a lost link, not a lost process.
"""

from __future__ import annotations

from typing import Final

from ..crypto.keys import Identity
from ..errors import NetworkError, SendError
from ..limits import FAULTS_PER_MESSAGE_MAX, MESSAGE_ID_BYTES
from ..wire.channel import CloseReceived
from ..wire.codec import Record
from ..wire.envelope import Message, SignedMessage
from ..wire.messages import CloseCode, MessageType, Priority
from .book import Book
from .config import NodeConfig
from .effects import Effect, Publish, Reply, Send, Undelivered
from .inputs import SendMessage
from .peers import Delivery, Link, Outgoing, PeerRecord
from .reasons import refused_error
from .window import Verdict, Window

__all__ = ["NODES_OWN", "Outbox"]

NODES_OWN: Final = frozenset(
    (MessageType.PEER_ANNOUNCEMENT, MessageType.DISCOVERY, MessageType.PING, MessageType.PONG, MessageType.ACK)
)
"""Types that nodes exchange among themselves. An application neither sends nor sees them."""


class Outbox:
    """Signs and numbers every message of one boot epoch, and keeps those of the application until they arrived.

    What waits for a peer stands in the `unacked` and `parked` of its `PeerRecord`. Effects go to the end of `out`.
    """

    __slots__ = ("_config", "_epoch", "_identity", "_presigned", "seq")

    def __init__(self, identity: Identity, config: NodeConfig, epoch: bytes) -> None:
        self._identity = identity
        self._config = config
        self._epoch = epoch
        self._presigned = Window(config.limits.receive_window)
        self.seq = 0
        """The number of the last message signed."""

    # --- signing ------------------------------------------------------------------------------------------------------

    def own(self, link: Link, kind: MessageType, payload: Record, now: float) -> Send:
        """Return a message between nodes. It is not kept: the link it is about is the only one it makes sense on."""
        signed = self._sign(Message(kind, self._config.label, payload), link.peer.key, now)
        return Send(link.number, signed.raw, Priority.of(kind))

    def submit(self, event: SendMessage, book: Book, now: float, out: list[Effect]) -> None:
        """Sign a message of the application once, and offer it to each of its peers."""
        try:
            peers = _recipients(book, event.keys)
            to = peers[0].key if event.keys is not None and len(peers) == 1 else b""
            signed = self._signed(event.message, to, peers, now)
        except NetworkError as error:
            out.append(Reply(event.request, error))
            return
        if not peers:
            out.append(Reply(event.request))
        delivery = Delivery(event.request, len(peers), event.until_acked)
        priority = Priority.of(signed.type)
        for peer in peers:
            self._offer(peer, Outgoing(signed.id, signed.raw, priority, delivery), out)

    def to_group(self, kind: MessageType, session: bytes, payload: bytes, group: bytes, now: float) -> SignedMessage:
        """Return a signed message of a ceremony, addressed to a group. Raises SerializationError when out of bounds."""
        return self._sign(Message(kind, self._config.label, payload, session=session), group, now)

    def spread(self, signed: SignedMessage, peers: list[PeerRecord], out: list[Effect]) -> None:
        """Send a message of a ceremony to connected peers. Nobody waits for an answer to it."""
        delivery, priority = Delivery(0, len(peers), False), Priority.of(signed.type)
        for peer in peers:
            self._offer(peer, Outgoing(signed.id, signed.raw, priority, delivery), out)

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
        for at in range(0, len(ids), MESSAGE_ID_BYTES):
            message = peer.unacked.pop(ids[at : at + MESSAGE_ID_BYTES], None)
            if message is not None:
                peer.unacked_bytes -= len(message.data)
                if message.delivery.until_acked:
                    _count_down(message.delivery, out)
        if peer.parked:
            self._unpark(peer, out)

    def resend(self, peer: PeerRecord, out: list[Effect]) -> None:
        """Send again, byte for byte and in order, what went out on links that are gone. Then what was parked."""
        alive = {link.number for link in peer.links}
        number = peer.links[-1].number
        for message in peer.unacked.values():
            if message.link not in alive:
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
            del peer.unacked[message.message_id]
            peer.unacked_bytes -= len(message.data)
            error = refused_error(peer, goodbye)
            _answer_lost(message, error, out)
            out.append(Publish(Undelivered(peer.key, 1, error)))

    def give_up(self, peer: PeerRecord, error: NetworkError, out: list[Effect]) -> int:
        """Forget everything that waits for this peer; `error` answers who still waits for it. Returns how many."""
        waiting = [*peer.unacked.values(), *peer.parked]
        for message in waiting:
            _answer_lost(message, error, out)
        peer.unacked.clear()
        peer.unacked_bytes = 0
        peer.parked.clear()
        return len(waiting)

    def _offer(self, peer: PeerRecord, message: Outgoing, out: list[Effect]) -> None:
        if peer.parked or not self._has_room(peer, message):
            peer.parked.append(message)
        else:
            self._accept(peer, message, out)

    def _has_room(self, peer: PeerRecord, message: Outgoing) -> bool:
        if not peer.unacked:
            return True
        limits = self._config.limits
        held = peer.unacked_bytes + len(message.data)
        return len(peer.unacked) < limits.unacked_max and held <= limits.unacked_max_bytes

    def _accept(self, peer: PeerRecord, message: Outgoing, out: list[Effect]) -> None:
        peer.unacked[message.message_id] = message
        peer.unacked_bytes += len(message.data)
        message.link = peer.links[-1].number
        out.append(Send(message.link, message.data, message.priority))
        if not message.delivery.until_acked:
            _count_down(message.delivery, out)

    def _unpark(self, peer: PeerRecord, out: list[Effect]) -> None:
        while peer.parked and peer.links and self._has_room(peer, peer.parked[0]):
            self._accept(peer, peer.parked.pop(0), out)


def _recipients(book: Book, keys: tuple[bytes, ...] | None) -> list[PeerRecord]:
    """Return who a message goes to. Raises SendError when one of them is not connected."""
    if keys is None:
        return [peer for peer in book if peer.links]
    peers = [peer for key in keys if (peer := book.get(key)) is not None]
    for peer in peers:
        if not peer.links:
            why = f" ({peer.last_error})" if peer.last_error else ""
            raise SendError(
                f"{peer.name} is {peer.state.value}{why}", hint="send when it is connected; nothing was kept"
            )
    return peers


def _on_its_way(peer: PeerRecord, message_id: bytes) -> bool:
    return message_id in peer.unacked or any(message.message_id == message_id for message in peer.parked)


def _answer_lost(message: Outgoing, error: NetworkError, out: list[Effect]) -> None:
    """Tell whoever still waits for this message that it is given up."""
    delivery = message.delivery
    if delivery.request and delivery.missing and (delivery.until_acked or not message.link):
        delivery.missing = 0
        out.append(Reply(delivery.request, error))


def _count_down(delivery: Delivery, out: list[Effect]) -> None:
    delivery.missing -= 1
    if delivery.missing == 0 and delivery.request:
        out.append(Reply(delivery.request, None, delivery.peers))
