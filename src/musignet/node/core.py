"""The whole node with nothing plugged in.

`handle(event, now)` takes one input and returns what is to be done, in order. It never awaits, reads no clock,
touches no socket or file, logs nothing, calls nobody, and raises nothing: a command that cannot be carried out is
answered with its error, a peer's fault closes the peer's link.

    Dial --> Connect --> PeerConnected --> announcements both ways --> PeerUp
                  `----> ConnectFailed --> Reply(error), and Connect again after a pause where the peer is wanted

One link per pair: of several the node with the smaller key keeps the one by the better path; when both sides dialled
at once, the one it opened. The larger key follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ..crypto.keys import Identity
from ..errors import Action, ConnectionError, InvalidMessage, NetworkError, SendError, SerializationError
from ..limits import BOOT_EPOCH_BYTES
from ..wire.envelope import VerifiedMessage
from ..wire.messages import Ack, CloseCode, MessageType, PeerAnnouncement, Ping, Pong
from .addresses import Address, address_text
from .arrivals import Arrivals
from .book import Book
from .ceremonies import Ceremonies
from .changes import COUNT, Changes
from .conduct import Conduct, deed_of
from .config import NodeConfig
from .dialler import Dialler
from .effects import Acknowledge, Disconnect, Effect, Fault, PeerDown, PeerUp, Publish, Reply, Undelivered
from .holes import hear_signal, learn_hole, say_signal
from .inputs import (
    Acknowledged,
    AddPeer,
    CancelSession,
    ConnectFailed,
    ConsentToSession,
    Dial,
    Drain,
    ForgetPeer,
    Handled,
    HandsMoved,
    HangUp,
    Input,
    JoinGroup,
    KeyholderReplied,
    MailMoved,
    MessageReceived,
    MessageRefused,
    NetworkChanged,
    PeerConnected,
    PeerLost,
    PeerSeen,
    PlacesFailed,
    Propose,
    Restore,
    Saved,
    SaySignal,
    SendMessage,
    Stop,
    Stored,
    Woken,
)
from .outbox import NODES_OWN, Outbox
from .peers import Link, Mail, PeerRecord
from .pulse import Pulse
from .reasons import conflict, goodbye_error, not_let_in, unannounced, unpaired
from .reputation import Deed
from .shelf import EXPIRY
from .timers import Timers
from .window import Verdict

__all__ = ["Node"]

_NOT_YET_KNOWN: Final = b"not yet known"
"""The boot epoch of whoever reads a mail link, until an announcement of theirs has come back."""


class Node:
    """One node: its book, its links and what is on its way.

    Args:
        identity: signs every message. Signing is deterministic, so the same inputs give the same bytes.
        config:   label, Bitcoin network, limits.
        draw:     returns n random bytes: `secrets.token_bytes` in a real driver, a seeded source in the simulator.
    """

    def __init__(self, identity: Identity, config: NodeConfig, draw: Callable[[int], bytes]) -> None:
        self.identity = identity
        self.config = config
        self.limits = config.limits
        self.epoch = draw(BOOT_EPOCH_BYTES)
        self.conduct = Conduct(config.limits)
        self.book = Book(identity.pubkey, config.limits.peers_max, self.conduct.rates, config.best_rank)
        self._key = identity.pubkey
        self._draw = draw
        self._links: dict[int, Link] = {}
        self._timers = Timers()
        self._outbox = Outbox(identity, config, self.epoch, self._timers)
        self._pulse = Pulse(config.limits, self._timers, self._outbox, draw)
        self._dialler = Dialler(config.limits, self._timers, draw)
        self._arrivals = Arrivals(config)
        self._changes = Changes(identity, config, self.epoch, self._outbox, self._timers)
        self.ceremonies = Ceremonies(
            identity, self._outbox, self.book, self._timers, self.conduct, self._dialler, self._changes
        )
        self._stopped = False
        self._now = 0.0
        self._out: list[Effect] = []

    def handle(self, event: Input, now: float) -> list[Effect]:
        """Take one input and return its effects, to be performed in order before the next input.

        Args: `now` is seconds since 1970, and never goes back.
        """
        self._now = now
        out = self._out = []
        _HANDLERS[type(event)](self, event)
        return out

    def next_deadline(self) -> float | None:
        """Return when `Woken` is due. Earlier does no harm; None: nothing to wait for."""
        return self._timers.next

    # --- links --------------------------------------------------------------------------------------------------------

    def _peer_connected(self, event: PeerConnected) -> None:
        peer = self.book.get(event.key)
        abandoned = peer is not None and event.outbound and peer.abandoned
        no_mail = event.mail is not Mail.NO and peer is not None and (peer.live or peer.provisional)
        if peer is None or abandoned or no_mail or self._stopped:
            if peer is not None and abandoned:
                peer.dialling = peer.abandoned = False
            self._out.append(Disconnect(event.link, None))
            return
        if not event.outbound and (why := self.conduct.refusal(peer, self._now)):
            self._out.append(Disconnect(event.link, CloseCode.FAULT, why))
            return
        link = Link(
            event.link, peer, event.outbound, self._now, event.transcript, event.path, event.address, event.mail
        )
        self._links[event.link] = link
        if event.mail is Mail.NO:
            self._pulse.look(link, self._now + self.limits.handshake_timeout_s, self._now)
        self._out.append(self._changes.announcement(link, self._now))
        if event.mail is not Mail.NO:
            self._mail_ready(link)

    def _mail_ready(self, link: Link) -> None:
        """Nobody answers here, so nobody is waited for. A newer one takes the place of an older."""
        link.epoch = _NOT_YET_KNOWN
        peer = link.peer
        older, peer.links = peer.links, [link]
        for one in older:
            self._close(one, CloseCode.DUPLICATE, None, "another link stays")
        self._outbox.resend(peer, self._out)
        self.ceremonies.links_changed(peer.key, self._now, self._out)

    def _mail_moved(self, event: MailMoved) -> None:
        link = self._links.get(event.link)
        if link is not None:
            self.ceremonies.links_changed(link.peer.key, self._now, self._out)

    def _connect_failed(self, event: ConnectFailed) -> None:
        peer = self.book.get(event.key)
        if peer is not None:
            self._dialler.failed(peer, event.error, self._now, self._out)

    def _peer_lost(self, event: PeerLost) -> None:
        link = self._links.get(event.link)
        if link is None:
            return  # closed from here, or never let in
        error = event.error
        if event.goodbye is not None:
            error = goodbye_error(link.peer, event.goodbye)
            link.peer.wanted = link.peer.wanted and event.goodbye.code != CloseCode.DONE
            self._outbox.link_ended(link, event.goodbye, self._out)
        self.conduct.lost(link, event.error, self._now)
        self._remove(link, error)

    def _message_refused(self, event: MessageRefused) -> None:
        link = self._links.get(event.link)
        if link is not None:
            self._fault(link, event.error)

    def _fault(self, link: Link, error: NetworkError, deed: Deed | None = None) -> None:
        """A peer broke a rule: say so once, and do what the error's action asks for."""
        action = getattr(error, "action", Action.CLOSE)
        if action is not Action.IGNORE:
            self.conduct.note(link.peer, deed or deed_of(error), self._now)
            self._out.append(Publish(Fault(link.peer.key, error)))
        if action is Action.CLOSE:
            self._close(link, CloseCode.FAULT, error, str(error))

    def _close(self, link: Link, code: CloseCode, error: NetworkError | None, text: str = "") -> None:
        """Close a link from here: a close notice, and everything that losing it means."""
        self._out.append(Disconnect(link.number, code, text))
        self._remove(link, error)

    def _remove(self, link: Link, error: NetworkError | None) -> None:
        """A link is gone, whoever closed it."""
        del self._links[link.number]
        peer = link.peer
        if not link.epoch:
            if link.outbound:
                self._dialler.failed(peer, not_let_in(peer, error), self._now, self._out)
            return
        if link in peer.links:
            peer.links.remove(link)
        if peer.links:
            self._outbox.resend(peer, self._out)
            self._dialler.better_later(peer, self._now)
            return
        if link.mail is not Mail.NO:
            self._outbox.parted(peer, self._out)
            self.ceremonies.links_changed(peer.key, self._now, self._out)
            return
        peer.better_at = peer.path_error = None
        if self._now - link.since >= self.limits.handshake_timeout_s:
            peer.attempts = 0
        peer.last_error = error
        self._outbox.parted(peer, self._out)
        self._dialler.again_later(peer, self._now)
        retry_in = None if peer.redial_at is None else peer.redial_at - self._now
        self._out.append(Publish(PeerDown(peer.key, error, retry_in)))
        self.ceremonies.links_changed(peer.key, self._now, self._out)
        self._outbox.answer_drains(self.book, self._out)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _woken(self, _: Woken) -> None:
        while (subject := self._timers.due(self._now)) is not None:
            if isinstance(subject, int):
                link = self._links.get(subject)
                if link is not None:
                    self._check_link(link)
            elif subject == EXPIRY:
                self._outbox.expire(self.book, self._now, self._out)
            elif subject == COUNT:
                self._changes.write(self._out)
            elif subject in self.ceremonies.ids:
                self.ceremonies.woken(subject, self._now, self._out)
            else:
                self._dialler.woken(self.book.get(subject), self._now, self._out)

    def _check_link(self, link: Link) -> None:
        """Ask a link for a sign of life when one is due, and close the one that gives none."""
        error = self._pulse.check(link, self._now, self._out)
        self.conduct.looked_at(link, error, self._now)
        if error is not None:
            self._close(link, CloseCode.SILENT, error)

    def _network_changed(self, _: NetworkChanged) -> None:
        """Do not wait for silence or for the end of a pause: ask every link now, and dial who is missing."""
        for link in self._links.values():
            self._pulse.probe(link, self._now, self._out)
        self._dialler.network_changed(self.book, self._now, self._out)

    def _peer_seen(self, event: PeerSeen) -> None:
        peer = self.book.get(event.key)
        if peer is not None:
            peer.seen = Address("tcp", event.host, event.port, address_text(event.host, event.port))
            peer.look_up()
            self._dialler.seen(peer, self._now, self._out)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _message_received(self, event: MessageReceived) -> None:
        link = self._links.get(event.link)
        if link is None:
            return  # closed from here a moment ago
        message = event.message
        link.heard_at = self._now
        if not link.epoch or (link.mail is not Mail.NO and message.type == MessageType.PEER_ANNOUNCEMENT):
            self._announced(link, message)
            return
        if link.peer.provisional and (stray := unpaired(link.peer, message)) is not None:
            self._fault(link, stray)
            return
        verdict = self._arrivals.judge(link, message)
        if verdict is Verdict.CONFLICT:
            self._fault(link, conflict(link.peer, message), Deed.EQUIVOCATED)
        elif message.type in NODES_OWN:
            if verdict is Verdict.NEW:
                self._own_message(link, message)
        elif self.ceremonies.wants(message):
            if verdict is not Verdict.STALE:
                self._out.append(Acknowledge(link.number, message.id))
            if verdict is Verdict.NEW:
                self.ceremonies.receive(message, self._now, self._out)
        elif verdict is not Verdict.STALE:
            self._arrivals.take(link, message, verdict, self._out)

    def _own_message(self, link: Link, message: VerifiedMessage) -> None:
        """A message between nodes: ping, pong, acknowledgement. Anything else has no place on an open link."""
        try:
            if message.type == MessageType.HOLE:
                hear_signal(link.peer, message, self._out)
                return
            if message.type == MessageType.ANNOUNCEMENT_SHOWN:
                if (lie := self._changes.shown(link, message.payload, self._out)) is not None:
                    self._fault(link, lie)
                return
            content = message.content
        except SerializationError as error:
            self._fault(link, SerializationError(f"undecodable {message.type!r}: {error}", peer=link.peer.name))
            return
        if isinstance(content, Ping | Pong):
            if link.mail is Mail.NO:  # else an answer would be carried for good: nobody acknowledges it
                self._pulse.heard(link, content, self._now, self._out)
            if len(link.peer.links) > 1:
                self._settle(link.peer)
        elif isinstance(content, Ack):
            self._outbox.acknowledged(link.peer, b"".join(content.ids), self._out)
            self._outbox.answer_drains(self.book, self._out)
        elif isinstance(content, PeerAnnouncement) and content.changes and content.boot_epoch == link.epoch:
            self._changes.heard(link, message, content, self._now, self._out)
        else:
            self._fault(link, InvalidMessage("a message out of place", peer=link.peer.name, got=type(content).__name__))

    def _announced(self, link: Link, message: VerifiedMessage) -> None:
        """The first message on a link says who is there. From here on the peer is connected."""
        peer = link.peer
        try:
            content = message.content
            if not isinstance(content, PeerAnnouncement):
                raise unannounced(peer, message)
            self.book.refuse_squatter(content.label, peer.key)
        except NetworkError as error:
            self._fault(link, error, Deed.OUT_OF_PLACE)
            return
        link.epoch = content.boot_epoch
        if not peer.given_name and peer.info.name != content.label:
            peer.info = replace(peer.info, name=content.label)
        if self._arrivals.judge(link, message) is Verdict.NEW:
            self._changes.heard(link, message, content, self._now, self._out)
        learn_hole(peer, self.config.addresses, content.addresses)
        if link.mail is Mail.NO:
            self._link_ready(link)

    def _link_ready(self, link: Link) -> None:
        peer = link.peer
        was_connected = peer.live
        peer.links.append(link)
        peer.heard_at = self._now
        peer.redial_at = None
        if link.outbound:
            peer.dialling = False
        peer.wanted = peer.wanted or link.outbound or bool(peer.dials)
        self._pulse.begin(link, self._now)
        if not was_connected:
            peer.last_error = None
            self._out.append(Publish(PeerUp(peer.key)))
            self.ceremonies.links_changed(peer.key, self._now, self._out)
        self._dialler.answer(peer, None, self._out)
        self._outbox.resend(peer, self._out)
        self._settle(peer)
        self._dialler.linked(link, self._now)

    def _settle(self, peer: PeerRecord) -> None:
        while (extra := self._superfluous(peer)) is not None:
            self._close(extra, CloseCode.DUPLICATE, None, "another link stays")

    def _superfluous(self, peer: PeerRecord) -> Link | None:
        """Return the link to close while there are several to one peer, or None.

        Only the smaller key chooses, so the two sides cannot each close the other's choice: the better path, then the
        newer link, unless both sides dialled at once. A newer link by a worse path may say that the better one is
        dead: that is asked first. A link from before a restart of the peer is closed by either.
        """
        if len(peer.links) < 2:
            return None
        older, newer = peer.links[-2], peer.links[-1]
        if older.mail is not Mail.NO:
            return older
        if older.epoch != newer.epoch or len(peer.links) > 2:
            return peer.links[0]
        if self._key > peer.key:
            return None
        if newer.path.rank > older.path.rank:
            if older.proved and older.probed_at >= newer.since:
                return newer
            self._pulse.probe(older, self._now, self._out)
            return None
        if newer.path.rank < older.path.rank:
            return older
        simultaneous = older.outbound != newer.outbound and self._now - older.since < self.limits.handshake_timeout_s
        return newer if simultaneous and older.outbound else older

    def _acknowledged(self, event: Acknowledged) -> None:
        link = self._links.get(event.link)
        if link is not None:
            link.heard_at = self._now
            self._outbox.acknowledged(link.peer, event.ids, self._out)
            self._outbox.answer_drains(self.book, self._out)

    # --- the owner ----------------------------------------------------------------------------------------------------

    def _add_peer(self, event: AddPeer) -> None:
        try:
            peer = self.book.put(event.info, provisional=event.provisional, stranger=event.stranger)
        except NetworkError as error:
            self._out.append(Reply(event.request, error))
        else:
            if not peer.places:
                peer.redial_at = None
            self._dialler.better_later(peer, self._now)
            self._out.append(Reply(event.request))
            self.conduct.known(peer, self._now)
            self._outbox.adopt(peer, self._out)
            self._arrivals.adopt(peer, self._out)

    def _send_message(self, event: SendMessage) -> None:
        if event.keep_s and self._stopped:
            self._out.append(Reply(event.request, SendError("this node is stopped", hint="nothing was kept")))
        else:
            self._outbox.submit(event, self.book, self._now, self._out)

    def _stored(self, event: Stored) -> None:
        self._outbox.stored(event, self.book, self._out)
        for number in self._arrivals.stored(event, self.book, self._stopped, self._out):
            self._close(self._links[number], CloseCode.GOING_AWAY, event.error, "the disk failed")
        if (void := self._changes.stored(event, self.book, self._now, self._out)) is not None:
            self.ceremonies.void(void, self._now, self._out)

    def _restore(self, event: Restore) -> None:
        self._outbox.restore(event, self.book, self._out)
        self._arrivals.restore(event, self.book, self._now, self._out)
        self._changes.restore(event, self.book, self._now)

    def _hang_up(self, event: HangUp) -> None:
        self._leave(event.key, CloseCode.DONE)
        self._out.append(Reply(event.request))

    def _forget_peer(self, event: ForgetPeer) -> None:
        self._leave(event.key, CloseCode.DONE, forget=True)
        self._arrivals.forget(event.key, self._out)
        self._changes.forget(event.key, self._out)
        self.book.remove(event.key)
        self.conduct.reputation.forget(event.key)
        self._out.append(Reply(event.request))

    def _leave(self, key: bytes, code: CloseCode, *, forget: bool = False) -> None:
        """Close every link to a peer, and give up what was on its way; with `forget` also what is on disk."""
        peer = self.book.get(key)
        if peer is None:
            return
        peer.wanted = False
        peer.redial_at = None
        peer.abandoned = peer.dialling
        gone = ConnectionError(f"the link to {peer.name} was closed from here")
        self._dialler.answer(peer, gone, self._out)
        lost = self._outbox.give_up(peer, gone, self._out, forget=forget)
        if lost:
            self._out.append(Publish(Undelivered(key, lost, gone)))
        for link in [link for link in self._links.values() if link.peer is peer]:
            self._close(link, code, None)

    def _stop(self, event: Stop) -> None:
        self._stopped = self._dialler.stopped = True
        for peer in self.book:
            self._leave(peer.key, CloseCode.GOING_AWAY)
        self._changes.write(self._out)
        self._out.append(Reply(event.request))


_HANDLERS: Final[dict[type[Any], Callable[[Node, Any], None]]] = {
    PeerConnected: Node._peer_connected,
    PeerLost: Node._peer_lost,
    MailMoved: Node._mail_moved,
    ConnectFailed: Node._connect_failed,
    MessageReceived: Node._message_received,
    MessageRefused: Node._message_refused,
    Acknowledged: Node._acknowledged,
    Woken: Node._woken,
    SaySignal: lambda node, event: say_signal(event, node.book, node._outbox, node._now, node._out),
    NetworkChanged: Node._network_changed,
    PeerSeen: Node._peer_seen,
    PlacesFailed: lambda node, event: node._dialler.missed(node.book.get(event.key), event.error),
    AddPeer: Node._add_peer,
    ForgetPeer: Node._forget_peer,
    Dial: lambda node, event: node._dialler.dial(event, node.book, node._out),
    HangUp: Node._hang_up,
    SendMessage: Node._send_message,
    Restore: Node._restore,
    Stored: Node._stored,
    Handled: lambda node, event: node._arrivals.handled(event, node._now, node._out),
    Drain: lambda node, event: node._outbox.drain(event, node.book, node._out),
    JoinGroup: lambda node, event: node.ceremonies.join(event, node._now, node._out),
    Propose: lambda node, event: node.ceremonies.propose(event, node._draw(32), node._now, node._out),
    ConsentToSession: lambda node, event: node.ceremonies.consent(event, node._now, node._out),
    CancelSession: lambda node, event: node.ceremonies.cancel(event, node._now, node._out),
    HandsMoved: lambda node, event: node.ceremonies.hands_moved(event, node._now, node._out),
    KeyholderReplied: lambda node, event: node.ceremonies.replied(event, node._now, node._out),
    Saved: lambda node, event: node.ceremonies.saved(event, node._now, node._out),
    Stop: Node._stop,
}
