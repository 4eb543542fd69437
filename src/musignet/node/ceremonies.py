"""The signing sessions of a node beside its links: routed by group, spoken through the outbox, kept by the keyholder.

A session's message goes to the other members of its group that are connected. The session itself says again what may
have been lost, and is told who comes and goes, so nothing waits here for a member who is not connected.
"""

from __future__ import annotations

from math import isfinite

from ..crypto.keys import Identity
from ..errors import InvalidMessage, LocalError, NetworkError
from ..signing.coordinator import Sessions, SessionsInput
from ..signing.effects import Outcome, SendToGroup, SessionEffect, Void
from ..signing.effects import Publish as Told
from ..signing.effects import Save as SaveRecord
from ..signing.group import SigningGroup
from ..signing.records import TransactionProposal, encode, session_id
from ..signing.session import Cancel, Consent, Present
from ..signing.verbs import Woken
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from .book import Book
from .changes import Changes
from .conduct import Conduct
from .dialler import Dialler
from .effects import AskKeyholder, Effect, Publish, Reply, Save, SessionNews
from .inputs import CancelSession, ConsentToSession, HandsMoved, JoinGroup, KeyholderReplied, Propose, Saved
from .outbox import Outbox
from .peers import Mail, PeerRecord
from .timers import Timers

__all__ = ["Ceremonies"]


class Ceremonies:
    """The groups this node is in. Every method appends its effects to the end of `out`; none raises.

    `ids` are the ids of the groups, for the gates: one set for as long as the node lives.
    """

    def __init__(
        self,
        identity: Identity,
        outbox: Outbox,
        book: Book,
        timers: Timers,
        conduct: Conduct,
        dialler: Dialler,
        changes: Changes,
    ) -> None:
        self.ids: set[bytes] = set()
        self._identity = identity
        self._outbox = outbox
        self._book = book
        self._timers = timers
        self._conduct = conduct
        self._dialler = dialler
        self._changes = changes
        self._groups: dict[bytes, Sessions] = {}

    def join(self, event: JoinGroup, now: float, out: list[Effect]) -> None:
        """Be in a group from now on, and go on with the sessions that its journal has."""
        group = event.sessions.group
        if group.id in self._groups or self._identity.pubkey not in group:
            error = LocalError("cannot join this group", expected="a group of this node's, once")
            out.append(Reply(event.request, error))
            return
        self._groups[group.id] = event.sessions
        self.ids.add(group.id)
        out.append(Reply(event.request))
        self._perform(group.id, event.sessions.handle(self._present(group), now), now, out)
        self._perform(group.id, event.sessions.resume(event.records, now), now, out)
        if self._changes.void is not None:
            self._feed(group.id, self._changes.void, now, out)

    def void(self, event: Void, now: float, out: list[Effect]) -> None:
        """Our disk is old: in each group end what was open before this start."""
        for group in self._groups:
            self._feed(group, event, now, out)

    def links_changed(self, key: bytes, now: float, out: list[Effect]) -> None:
        """A peer has its first link, or lost its last one: the groups it is in know who is here."""
        for group, sessions in self._groups.items():
            if key in sessions.group:
                self._feed(group, self._present(sessions.group), now, out)

    def hands_moved(self, event: HandsMoved, now: float, out: list[Effect]) -> None:
        """A signer elsewhere was brought something."""
        sessions = self._groups.get(event.group)
        if sessions is not None:
            self._feed(event.group, self._present(sessions.group), now, out)

    def _present(self, group: SigningGroup) -> Present:
        here: dict[Mail, set[bytes]] = {Mail.NO: set(), Mail.LETTERS: set(), Mail.ROUNDS: set()}
        for one in group.identities:
            peer = self._linked(one)
            if peer is not None:
                here[peer.links[-1].mail].add(one)
        live, letters, rounds = (frozenset(here[mail]) for mail in (Mail.NO, Mail.LETTERS, Mail.ROUNDS))
        return Present(live, rounds, letters)

    def _linked(self, key: bytes) -> PeerRecord | None:
        """Return the peer with this key if it is connected or has mail, and is pinned by people."""
        peer = self._book.get(key)
        return peer if peer is not None and peer.links and not peer.provisional else None

    def wants(self, message: VerifiedMessage) -> bool:
        """Return whether a message is a ceremony's: addressed to one of our groups."""
        return message.body.recipient in self._groups

    def receive(self, message: VerifiedMessage, now: float, out: list[Effect]) -> None:
        """A member of one of our groups, or somebody who says so, sent this. The session knows whom to believe."""
        self._feed(message.body.recipient, message, now, out)

    def propose(self, event: Propose, random: bytes, now: float, out: list[Effect]) -> None:
        """Open a session for a PSBT. The reply comes at once; how it goes on is published."""
        group = self._groups.get(event.group)
        if group is None:
            out.append(Reply(event.request, LocalError("this node is not in that group", hint="join it first")))
            return
        try:
            if not isfinite(event.expires_at):
                raise LocalError("no time for a proposal", expected="seconds since 1970", got=event.expires_at)
            expires_at_ms = int(event.expires_at * 1000)
            record = TransactionProposal(event.group, random, expires_at_ms, event.psbt, event.memo, event.topology)
            payload = encode(record)  # within all bounds, or it has no session id
            session = session_id(self._identity.pubkey, record)
            kind = MessageType.TRANSACTION_PROPOSAL
            signed = self._outbox.to_group(kind, session, payload, event.group, now).verify()
        except NetworkError as error:
            out.append(Reply(event.request, error))
            return
        out.append(Reply(event.request, None, 0, session))
        self._feed(event.group, signed, now, out)

    def consent(self, event: ConsentToSession, now: float, out: list[Effect]) -> None:
        """A person said yes; the keyholder checks their proof."""
        self._command(event.request, event.session, Consent(event.session, event.proof, event.replaces), now, out)

    def cancel(self, event: CancelSession, now: float, out: list[Effect]) -> None:
        """Our side leaves a session."""
        self._command(event.request, event.session, Cancel(event.session, event.reason), now, out)

    def replied(self, event: KeyholderReplied, now: float, out: list[Effect]) -> None:
        """The keyholder of a group answered."""
        self._feed(event.group, event.reply, now, out)

    def saved(self, event: Saved, now: float, out: list[Effect]) -> None:
        """A record is on disk: what waited for it goes on."""
        self._feed(event.group, event.saved, now, out)

    def woken(self, group: bytes, now: float, out: list[Effect]) -> None:
        """A deadline of a group has come."""
        sessions = self._groups.get(group)
        due = sessions.next_deadline() if sessions is not None else None
        if due is not None and due <= now:
            self._feed(group, Woken(), now, out)
        elif due is not None:
            self._timers.set(due, group)

    def _command(self, request: int, session: bytes, event: Consent | Cancel, now: float, out: list[Effect]) -> None:
        for group, sessions in self._groups.items():
            if session in sessions:
                out.append(Reply(request))
                self._feed(group, event, now, out)
                return
        out.append(Reply(request, InvalidMessage(f"no open session {session.hex()[:16]}", hint="it may have ended")))

    def _feed(self, group: bytes, event: SessionsInput, now: float, out: list[Effect]) -> None:
        sessions = self._groups.get(group)
        if sessions is not None:
            first = event.session if isinstance(event, VerifiedMessage) and event.session not in sessions else None
            effects = sessions.handle(event, now)
            if first is not None and first in sessions:
                self._began(sessions.group, now)
            for effect in effects:
                if isinstance(effect, Told) and isinstance(effect.news, Outcome):
                    self._ended(sessions.group, effect.news, now)
            self._perform(group, effects, now, out)

    def _began(self, group: SigningGroup, now: float) -> None:
        """A session is open: its rounds go by the best path there is."""
        for one in group.others(self._identity.pubkey):
            if (peer := self._linked(one)) is not None and peer.live:
                self._dialler.better_soon(peer, now)

    def _ended(self, group: SigningGroup, news: Outcome, now: float) -> None:
        """A session ended in this run of the node: that says something of those who took part."""
        accused = None if news.verdict is None else self._book.get(news.verdict.accused)
        here = [peer for one in group.others(self._identity.pubkey) if (peer := self._linked(one)) is not None]
        self._conduct.ended(news, here, accused, now)

    def _perform(self, group: bytes, effects: list[SessionEffect], now: float, out: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendToGroup):
                self._send(group, effect, now, out)
                if effect.kind is MessageType.PARTIAL_SIGNATURE:
                    self._changes.changed(now)
            elif isinstance(effect, SaveRecord):
                out.append(Save(group, effect))
                self._changes.changed(now)
            elif isinstance(effect, Told):
                out.append(Publish(SessionNews(group, effect.news)))
            else:
                out.append(AskKeyholder(group, effect))
        deadline = self._groups[group].next_deadline()
        if deadline is not None:
            self._timers.set(deadline, group)

    def _send(self, group: bytes, effect: SendToGroup, now: float, out: list[Effect]) -> None:
        """Sign once, and send to every other member that is reached, or to the one it is for."""
        signed = self._outbox.to_group(effect.kind, effect.session, effect.payload, group, now)
        others = self._groups[group].group.others(self._identity.pubkey) if effect.to is None else (effect.to,)
        peers = [peer for one in others if (peer := self._linked(one)) is not None]
        self._outbox.spread(signed, [one for one in peers if one.live or not effect.again], out)
