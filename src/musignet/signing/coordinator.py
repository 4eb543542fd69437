"""All sessions of one group at one node (`Sessions`), and a facade for people who bring their own network.

`SigningCoordinator` is `Sessions` and a `Keyholder` with a disk in between: give it verified messages, send what it
returns to every other cosigner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from ..bitcoin.group import Known
from ..crypto.keys import Identity
from ..errors import InvalidMessage, LocalError, NetworkError
from ..limits import (
    EARLY_MESSAGES_MAX,
    SESSION_FAILED_COUNTS_S,
    SESSIONS_FAILED_PER_PROPOSER_MAX,
    SESSIONS_PER_GROUP_MAX,
    SESSIONS_PER_PROPOSER_MAX,
    Limits,
)
from ..wire.envelope import Message, SignedMessage, VerifiedMessage
from ..wire.messages import Abort, MessageType, payload_encode
from .base import ABORT_CODES
from .blame import verify_blame
from .effects import End, News, Outcome, Publish, Save, Saved, SendToGroup, SessionEffect, Void, read_end
from .group import SigningGroup
from .keyholder import Keyholder
from .mesh import MeshSession
from .proposal import Proposal, require_member
from .records import Topology, TransactionProposal, decode_untrusted, encode, session_id
from .session import Cancel, Consent, Present, Session, Start
from .star import StarSession
from .verbs import KeyholderInput, Reply, Store, Stored, Woken

__all__ = ["Sessions", "SigningCoordinator", "ToSend"]

_KINDS: Final[Mapping[Topology, type[Session]]] = {Topology.MESH: MeshSession, Topology.STAR: StarSession}

SessionsInput: TypeAlias = VerifiedMessage | Consent | Cancel | Void | Present | Saved | Reply | Woken


class Sessions:
    """The open sessions of one group. Bounded (THREATS.md P3). `handle` raises nothing."""

    def __init__(
        self,
        group: SigningGroup,
        identity: bytes,
        *,
        known: Known | None = None,
        bounds: Limits | None = None,
        by_hand: bool = False,
    ) -> None:
        """`by_hand`: our key is in another signer, and people carry our part in the rounds there and back."""
        self.group, self.identity, self.by_hand = group, identity, by_hand
        self._known, self._bounds = known, bounds
        self._sessions: dict[bytes, Session] = {}
        self._working: list[Session] = []
        """Those that have not ended, and perhaps some that just have."""
        self._early: dict[bytes, deque[VerifiedMessage]] = {}
        self._resumed: list[Session] = []
        """Those that were open before this start."""
        self._voided = 0
        """The last `Void` that our journal has."""
        self._present = Present(frozenset(group.identities))

    def __contains__(self, session: bytes) -> bool:
        return session in self._sessions

    def __getitem__(self, session: bytes) -> Session:
        return self._sessions[session]

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def resume(self, records: Iterable[bytes], now: float) -> list[SessionEffect]:
        """Go on after a restart, from the node's journal. Call it once, before anything else.

        What has ended is told again, with its end alone; of a completion that has expired, too.
        """
        proposals: dict[bytes, SignedMessage] = {}
        ends: dict[bytes, tuple[int, bytes]] = {}
        for record in records:
            if record[0] == 0:
                message = Message.from_bytes(record[1:])
                proposals[message.session] = message
            elif record[0] == 3:
                self._voided = int.from_bytes(record[1:])
            else:
                ends[record[1:33]] = (record[0], record[33:])
        out: list[SessionEffect] = []
        for session, message in proposals.items():
            out += self._resume_one(message, *ends.get(session, (0, b"")), now)
        return out

    def _resume_one(self, message: SignedMessage, kind: int, rest: bytes, now: float) -> list[SessionEffect]:
        """Args: kind, rest - of the last record of its end; 0 and nothing where there is none."""
        ended = None
        if kind == 1:
            end, blame = read_end(rest)
            ended = Outcome(
                message.session, end, verdict=verify_blame(blame, self.group) if blame else None, blame=blame
            )
        if _expired(message, now):
            return [Publish(ended or Outcome(message.session, End.COMPLETED if kind == 2 else End.EXPIRED))]
        proposal = message.verify()
        completion = rest if kind == 2 else b""
        return self._open(proposal, now, Start(proposal, restarted=True, completion=completion, ended=ended))

    def handle(self, event: SessionsInput, now: float) -> list[SessionEffect]:
        """Take one input and return the effects, to be performed in order."""
        out: list[SessionEffect] = []
        if isinstance(event, Woken):
            for session in list(self._sessions.values()):
                out += session.handle(event, now)
            self._forget(now)
        elif isinstance(event, Present):
            self._present = event
            for session in list(self._sessions.values()):
                out += session.handle(event, now)
        elif isinstance(event, Void):
            out += self._void(event, now)
        elif isinstance(event, VerifiedMessage) and event.type == MessageType.TRANSACTION_PROPOSAL:
            out += self._open(event, now, Start(event))
        else:
            found = self._sessions.get(event.session)
            if found is not None:
                out += found.handle(event, now)
            elif isinstance(event, VerifiedMessage):
                self._keep_early(event)
        return out

    def _void(self, event: Void, now: float) -> list[SessionEffect]:
        """End what was open before this start. Their ends are in the journal before what says that this was done."""
        if event.number <= self._voided:
            return []
        self._voided = event.number
        out: list[SessionEffect] = []
        for session in self._resumed:
            out += session.handle(event, now)
        self._resumed.clear()
        out.append(Save(b"", 0, b"\x03" + event.number.to_bytes(8)))
        return out

    def _keep_early(self, message: VerifiedMessage) -> None:
        """Keep what a member says of a session whose proposal is still on its way: members have links of their own."""
        if message.sender_key in self.group and message.body.recipient == self.group.id:
            said = self._early.setdefault(message.sender_key, deque(maxlen=EARLY_MESSAGES_MAX))
            said.append(message)

    def _take_early(self, session: bytes) -> list[VerifiedMessage]:
        taken = [message for said in self._early.values() for message in said if message.session == session]
        for message in taken:
            self._early[message.sender_key].remove(message)
        return taken

    def next_deadline(self) -> float | None:
        """Return when `Woken` is due."""
        self._working = [one for one in self._working if one.outcome is None]
        due = (one.next_deadline() for one in self._working)
        return min((at for at in due if at is not None), default=None)

    def _open(self, message: VerifiedMessage, now: float, start: Start) -> list[SessionEffect]:
        """Open a session, or refuse it with a reason that everybody is told."""
        if message.session in self._sessions:
            return []
        try:
            require_member(message, self.group, MessageType.TRANSACTION_PROPOSAL, message.session)
            if not start.restarted:
                self._require_room(message.sender_key, now)  # before its PSBT is parsed
            proposal = Proposal.open_untrusted(message, self.group)
            if not start.restarted:
                proposal.require_time(now)
            kind = _KINDS[proposal.record.topology]
            session = kind(
                self.group,
                self.identity,
                proposal,
                now,
                known=self._known,
                bounds=self._bounds,
                by_hand=self.by_hand,
            )
        except NetworkError as error:
            return self._refuse(message, error)
        self._sessions[proposal.session] = session
        self._working.append(session)
        if start.restarted:
            self._resumed.append(session)
        out = session.handle(self._present, now)
        out += session.handle(start, now)
        for early in self._take_early(session.id):
            out += session.handle(early, now)
        return out

    def _refuse(self, message: VerifiedMessage, error: NetworkError) -> list[SessionEffect]:
        outcome = Publish(Outcome(message.session, End.REFUSED, error=error.with_traceback(None)))  # it may be kept
        if message.sender_key not in self.group or message.body.recipient != self.group.id:
            return [outcome]
        abort = payload_encode(MessageType.ABORT, Abort(ABORT_CODES[End.REFUSED], str(error)[:200]))
        return [SendToGroup(MessageType.ABORT, message.session, abort), outcome]

    def _require_room(self, proposer: bytes, now: float) -> None:
        self._forget(now)
        of_proposer = [one for one in self._sessions.values() if one.proposal.proposer == proposer]
        open_ = sum(one.outcome is None for one in of_proposer)
        failed = sum(not one.completed for one in of_proposer) - open_
        for what, count, most in (
            ("open sessions of this group", sum(one.outcome is None for one in self._working), SESSIONS_PER_GROUP_MAX),
            ("open sessions of this proposer", open_, SESSIONS_PER_PROPOSER_MAX),
            ("sessions of this proposer that came to nothing", failed, SESSIONS_FAILED_PER_PROPOSER_MAX),
        ):
            if count >= most:
                raise InvalidMessage(f"too many {what}", expected=f"at most {most}", hint="all count until they expire")

    def _forget(self, now: float) -> None:
        """Drop what has ended and expired: until then it answers those who come back. What failed counts longer."""
        self._resumed = [one for one in self._resumed if one.outcome is None]
        for session in list(self._sessions.values()):
            counts_until = session.opened_at + (0.0 if session.completed else SESSION_FAILED_COUNTS_S)
            if session.settled and now >= max(session.proposal.expires_at, counts_until):
                del self._sessions[session.id]


class ToSend(bytes):
    """A signed message on its way out: bytes, and the identity key of whom it is for (`to`; None: everybody else).

    `again`: it only repeats what a link may have lost, so it need not go to those who get mail.
    """

    to: bytes | None
    again: bool

    def __new__(cls, raw: bytes, to: bytes | None, again: bool = False) -> ToSend:
        made = super().__new__(cls, raw)
        made.to, made.again = to, again
        return made


def _expired(message: SignedMessage, now: float) -> bool:
    record = decode_untrusted(MessageType.TRANSACTION_PROPOSAL, message.payload)
    assert isinstance(record, TransactionProposal)
    return now >= record.expires_at_ms / 1000


class SigningCoordinator:
    """One cosigner, for people who bring their own network and disk.

    Each call returns the signed messages to send to every other member of the group, in order; `news` collects what
    to tell a person. Call `wake` when `next_deadline` comes. Many are for one member alone (`ToSend.to`): sending those
    to everybody does no harm, and sending them to that one makes a star as cheap as it can be.

    Say with `present` who is connected, each time that changes, and nobody who is away is taken for silent. Without
    it everybody counts as here.

    Args:
        identity:  signs the messages.
        keyholder: of the same member; made with the journal that `store` has written.
        store:     writes a record of the keyholder (True) or of the node (False) and returns once it would survive a
                   loss of power. Nothing leaves before it has returned.
        label:     shown to the others.
    """

    def __init__(
        self,
        identity: Identity,
        keyholder: Keyholder,
        store: Callable[[bool, bytes], None],
        *,
        label: str = "",
        records: Iterable[bytes] = (),
        bounds: Limits | None = None,
    ) -> None:
        account = keyholder.account
        if account.identity != identity.pubkey:
            raise LocalError("this keyholder is another member's", expected=account.identity.hex())
        self.group = account.group
        self.news: list[News] = []
        self.sessions = Sessions(self.group, identity.pubkey, known=account.known, bounds=bounds)
        self._identity, self._keyholder, self._store, self._label = identity, keyholder, store, label
        self._records = tuple(records)
        self._sequence = 0

    def propose(
        self,
        psbt: bytes,
        random: bytes,
        expires_at: float,
        now: float,
        memo: str = "",
        topology: Topology = Topology.MESH,
    ) -> list[bytes]:
        """Open a session for a PSBT. `random` is 32 fresh bytes. Raises SerializationError for a field out of bounds.

        A PSBT that breaks a rule ends in an `Outcome` in `news`, and nothing is sent but the refusal.
        """
        record = TransactionProposal(self.group.id, random, int(expires_at * 1000), psbt, memo, topology)
        payload = encode(record)  # within all bounds, or it has no session id
        session = session_id(self._identity.pubkey, record)
        signed = self._sign(MessageType.TRANSACTION_PROPOSAL, session, payload, now)
        return self._run(self.sessions.handle(signed, now), now)

    def approve(
        self, session: bytes, proof: bytes, now: float, replaces: frozenset[bytes] = frozenset()
    ) -> list[bytes]:
        """A person said yes to what an `Asked` in `news` showed."""
        return self._run(self.sessions.handle(Consent(session, proof, replaces), now), now)

    def cancel(self, session: bytes, now: float) -> list[bytes]:
        """Leave a session. What has been signed stays signed."""
        return self._run(self.sessions.handle(Cancel(session), now), now)

    def handle_transaction_proposal(self, message: VerifiedMessage, now: float) -> list[bytes]:
        """Take a proposal."""
        return self._take(message, now, MessageType.TRANSACTION_PROPOSAL)

    def handle_public_nonce(self, message: VerifiedMessage, now: float) -> list[bytes]:
        """Take a nonce message: round 1."""
        return self._take(message, now, MessageType.PUBLIC_NONCE)

    def handle_partial_signature(self, message: VerifiedMessage, now: float) -> list[bytes]:
        """Take a partial signature message: round 2."""
        return self._take(message, now, MessageType.PARTIAL_SIGNATURE)

    def handle_session_completion(self, message: VerifiedMessage, now: float) -> list[bytes]:
        """Take a completion; it is believed once its signatures verified here."""
        return self._take(message, now, MessageType.TRANSACTION_COMPLETE)

    def handle_other(self, message: VerifiedMessage, now: float) -> list[bytes]:
        """Take any other message of a ceremony: approvals, lost attempts, lists of nonces, blame, aborts."""
        return self._run(self.sessions.handle(message, now), now)

    def present(self, identities: Iterable[bytes], now: float, by_mail: Iterable[bytes] = ()) -> list[bytes]:
        """These members are connected now, and no others; messages to and from those `by_mail` are carried by people.

        Call it each time that changes, and each time mail comes or is about to go.
        """
        return self._run(self.sessions.handle(Present(frozenset(identities), frozenset(by_mail)), now), now)

    def resume(self, now: float) -> list[bytes]:
        """Go on after a restart. Call it once, before anything else."""
        return self._run(self.sessions.resume(self._records, now), now)

    def wake(self, now: float) -> list[bytes]:
        """The deadline has come."""
        out = self._run(self.sessions.handle(Woken(), now), now)
        return out + self._ask(Woken(), now)

    def next_deadline(self) -> float | None:
        """Return when `wake` is due, or None."""
        due = (self.sessions.next_deadline(), self._keyholder.next_deadline())
        return min((at for at in due if at is not None), default=None)

    def _take(self, message: VerifiedMessage, now: float, kind: MessageType) -> list[bytes]:
        if message.type != kind:
            raise LocalError("that message belongs to another call", expected=kind.name, got=int(message.type))
        return self._run(self.sessions.handle(message, now), now)

    def _run(self, effects: list[SessionEffect], now: float) -> list[bytes]:
        out: list[bytes] = []
        for effect in effects:
            if isinstance(effect, SendToGroup):
                signed = self._sign(effect.kind, effect.session, effect.payload, now)
                out.append(ToSend(signed.to_bytes(), effect.to, effect.again))
            elif isinstance(effect, Save):
                self._store(False, effect.record)
                out += self._run(self.sessions.handle(Saved(effect.session, effect.number), now), now)
            elif isinstance(effect, Publish):
                self.news.append(effect.news)
            else:
                out += self._ask(effect, now)
        return out

    def _ask(self, verb: KeyholderInput, now: float) -> list[bytes]:
        out: list[bytes] = []
        for effect in self._keyholder.handle(verb, now):
            if isinstance(effect, Store):
                self._store(True, effect.record)
                out += self._ask(Stored(effect.number), now)
            else:
                out += self._run(self.sessions.handle(effect, now), now)
        return out

    def _sign(self, kind: MessageType, session: bytes, payload: bytes, now: float) -> VerifiedMessage:
        self._sequence += 1
        message = Message(kind, self._label, payload, session=session)
        return message.sign(
            self._identity,
            to=self.group.id,
            seq=self._sequence,
            sent_at_ms=int(now * 1000),
            epoch=self._keyholder.epoch,
            chain=self.group.wallet.chain,
        ).verify()
