"""One signing session at one node, in mesh: everybody sends to everybody, and everybody collects.

    proposal -> approvals of all -> attempt k: nonces of all -> partials of all -> signatures -> completion
                                        ^------ the next attempt, by itself ------'

It holds no secret: it asks the keyholder by verb. Who said what is taken from the signed message alone. Every session
ends by its expiry, with an `Outcome`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from ..bitcoin.finalise import verify_signature
from ..errors import InvalidMessage, LocalError, PeerError, Timeout
from ..limits import ATTEMPTS_MAX, SIGNATURE_BYTES
from ..text import short_key
from ..wire.codec import Record
from ..wire.envelope import VerifiedMessage
from ..wire.messages import Abort, MessageType, payload_decode_untrusted
from . import rounds
from .attempt import Arrival, Collected
from .base import ABORT_CODES, Proved, SessionBase
from .blame import Kind, accuse, list_messages, list_payloads, read_contribution, verify_blame
from .effects import End, Outcome, Publish, Saved, SessionEffect
from .proposal import require_member
from .records import (
    Approval,
    AttemptGone,
    NonceList,
    PartialSignature,
    PublicNonce,
    TransactionComplete,
    decode_untrusted,
    split,
)
from .states import Event, State
from .verbs import (
    Approve,
    Approved,
    Asked,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    Reply,
    Status,
    StatusIs,
    Wiped,
    Woken,
)

__all__ = ["Cancel", "Consent", "Session", "SessionInput", "Start"]

_ANSWERS_MAX: Final = 64
"""Answers to repeats and restarts of one member in one session: each costs them a message, too."""


class Start(Struct, frozen=True):
    """Begin; after a restart of the node, go on from what the keyholder knows."""

    message: VerifiedMessage
    restarted: bool = False
    completion: bytes = b""
    """The payload of our completion, where the journal has it: others may not have heard it."""


class Consent(Struct, frozen=True):
    """A person said yes, and this proves it to the keyholder."""

    session: bytes
    proof: bytes
    replaces: frozenset[bytes] = frozenset()


class Cancel(Struct, frozen=True):
    """Our side leaves. What has been signed stays signed."""

    session: bytes
    reason: str = "cancelled"


SessionInput: TypeAlias = Start | Consent | Cancel | Saved | Woken | VerifiedMessage | Reply


class Session(SessionBase):
    """See the module. `handle` raises nothing."""

    # --- in and out ---------------------------------------------------------------------------------------------------

    def handle(self, event: SessionInput, now: float) -> list[SessionEffect]:
        """Take one input and return its effects, to be performed in order."""
        self._now = now
        out = self._out = []
        try:
            _HANDLERS[type(event)](self, event)
        except Proved as proof:
            self._blame(proof)
        if self.outcome is None and now >= self.proposal.expires_at:
            self._end(End.EXPIRED, suspects=self.waiting_for, error=Timeout("the session has expired"))
        return out

    def next_deadline(self) -> float | None:
        """Return when `Woken` is due, or None once it has ended."""
        return None if self.outcome is not None else min(self._deadline, self.proposal.expires_at)

    # --- beginning ----------------------------------------------------------------------------------------------------

    def _start(self, event: Start) -> None:
        self._message = event.message
        self._deadline = self._now + self._bounds.reapprove_s
        if event.completion:
            read = decode_untrusted(MessageType.TRANSACTION_COMPLETE, event.completion)
            assert isinstance(read, TransactionComplete)
            self._complete(split(read.signatures, SIGNATURE_BYTES, len(self.slots)), on_disk=True)
        elif event.restarted:
            self._out.append(Status(self.id))
        else:
            self._save(b"\x00" + self.proposal.envelope, self._proposal_saved)

    def _proposal_saved(self) -> None:
        self._repeat_proposal()
        self._approve(b"", frozenset())

    def _approve(self, proof: bytes, replaces: frozenset[bytes]) -> None:
        if self._message is not None:
            self._out.append(Approve(self._message, proof, replaces))

    def _consent(self, event: Consent) -> None:
        self._approve(event.proof, event.replaces)

    def _asked(self, event: Asked) -> None:
        self._out.append(Publish(event))

    def _approved(self, event: Approved) -> None:
        if self.state is not State.REVIEWING:
            return
        if event.digest != self.digest:
            error = LocalError("node and keyholder see two transactions", hint="do both have the same coins on record?")
            self._end(End.REFUSED, error=error)
            return
        self._advance(Event.WE_APPROVED)
        self._repeat_approval()
        self._begin_if_all_approved()

    def _status_is(self, event: StatusIs) -> None:
        """After a restart: re-send what is stored, and say what is gone, so that nobody takes us for an equivocator."""
        if self.outcome is not None or self.state is not State.REVIEWING:
            return
        if event.wiped:
            self._end(End.CANCELLED, error=LocalError("the approval was revoked"))
            return
        self.attempt = event.attempt
        gone = event.attempt - 1 if event.partials else event.attempt
        self._say(MessageType.ATTEMPT_GONE, AttemptGone(gone, event.epoch))
        if event.partials:
            self._send(MessageType.PARTIAL_SIGNATURE, event.partials)
        if event.digest:
            self._approved(Approved(self.id, event.digest))
        else:
            self._approve(b"", frozenset())

    def _repeat_proposal(self) -> None:
        if self.proposal.proposer == self.identity:
            self._say(MessageType.TRANSACTION_PROPOSAL, self.proposal.record)

    def _repeat_approval(self) -> None:
        if self.state in (State.APPROVING, State.ROUND_1, State.ROUND_2):
            self._say(MessageType.APPROVAL, Approval(self.digest))

    # --- messages -----------------------------------------------------------------------------------------------------

    def _receive(self, message: VerifiedMessage) -> None:
        """Take a message of a member. What is no proof of a fault is dropped. Raises Proved."""
        try:
            if not isinstance(message.type, MessageType):
                return
            require_member(message, self.group, message.type, self.id)
            if message.sender_key == self.identity:
                return
            if self.outcome is None or (
                self.state is State.FAILED and message.type == MessageType.TRANSACTION_COMPLETE
            ):
                _MESSAGES.get(message.type, Session._nothing)(self, message)
            elif message.type in _STILL_WORKING:
                self._answer_with_the_end(message.sender_key, self.outcome)
        except PeerError:
            return  # no member's, undecodable beyond proof, or about something else

    def _nothing(self, _: VerifiedMessage) -> None:
        """A type that has no place in a session."""

    def _answer_with_the_end(self, sender: bytes, outcome: Outcome) -> None:
        """Whoever still works on it has not heard that it is done, or who is proved to have stopped it."""
        self._answered[sender] += 1
        if self._answered[sender] > _ANSWERS_MAX or not self.settled:
            return
        if outcome.signatures:
            self._say(MessageType.TRANSACTION_COMPLETE, TransactionComplete(b"".join(outcome.signatures)))
        elif outcome.blame:
            self._send(MessageType.BLAME, outcome.blame)

    def _approval(self, message: VerifiedMessage) -> None:
        read = decode_untrusted(MessageType.APPROVAL, message.payload)
        assert isinstance(read, Approval)
        if read.digest != self.digest:
            error = InvalidMessage("a cosigner approved something else", peer=short_key(message.sender_key))
            self._end(End.ABORTED, suspects=(message.sender_key,), error=error)
            return
        self._approvals.setdefault(message.sender_key, message)
        self._begin_if_all_approved()

    def _contribution(self, message: VerifiedMessage) -> Record:
        """Read a contribution. Raises Proved when no honest node makes it and its sender approved these slots."""
        try:
            return read_contribution(message, self.slots)
        except PeerError:
            approval = self._approvals.get(message.sender_key)
            if approval is None:
                raise
            raise Proved(Kind.MALFORMED, (message, approval)) from None

    def _public_nonce(self, message: VerifiedMessage) -> None:
        read = self._contribution(message)
        assert isinstance(read, PublicNonce)
        if read.attempt < self.attempt or not self._take(message, read.attempt, read.epoch):
            return
        if read.attempt > self.attempt and self.state in (State.ROUND_1, State.ROUND_2):
            self._count_silent(self._bounds.phase_timeout_s / 2)
            self._begin(read.attempt)
        self._sign_if_all_nonces()

    def _partial_signature(self, message: VerifiedMessage) -> None:
        read = self._contribution(message)
        assert isinstance(read, PartialSignature)
        if read.attempt >= self.attempt and self._take(message, read.attempt, read.epoch):
            self._judge_partials()

    def _take(self, message: VerifiedMessage, attempt: int, epoch: bytes) -> bool:
        """Return whether this is the first contribution. Raises Proved for a second, different one."""
        collected = self._at(attempt)
        arrival = collected.take(message, epoch)
        if arrival is Arrival.EQUIVOCATION:
            kept = collected.nonces if message.type == MessageType.PUBLIC_NONCE else collected.partials
            raise Proved(Kind.EQUIVOCATION, (kept[message.sender_key], message))
        if arrival is Arrival.REPEAT:
            self._answer(message.sender_key)
        return arrival is Arrival.FIRST

    def _answer(self, sender: bytes) -> None:
        """Answer a repeat with what we said in this attempt, byte for byte."""
        self._answered[sender] += 1
        if self._answered[sender] > _ANSWERS_MAX or self.state not in (State.ROUND_1, State.ROUND_2):
            return
        current = self._current
        if current.own_partial:
            self._send(MessageType.PARTIAL_SIGNATURE, current.own_partial)
        elif current.own_nonce:
            self._send(MessageType.PUBLIC_NONCE, current.own_nonce)

    def _attempt_gone(self, message: VerifiedMessage) -> None:
        read = decode_untrusted(MessageType.ATTEMPT_GONE, message.payload)
        assert isinstance(read, AttemptGone)
        self._answered[message.sender_key] += 1
        if self._answered[message.sender_key] > _ANSWERS_MAX:
            return
        self._repeat_approval()
        if self.state not in (State.ROUND_1, State.ROUND_2):
            return
        if read.attempt >= self.attempt and message.sender_key not in self._current.partials:
            self._begin(read.attempt + 1)
            return
        if self._current.own_nonce:
            self._send(MessageType.PUBLIC_NONCE, self._current.own_nonce)
        if self._current.own_partial:
            self._send(MessageType.PARTIAL_SIGNATURE, self._current.own_partial)

    def _transaction_complete(self, message: VerifiedMessage) -> None:
        """Believe it only when every signature holds for our own sighashes."""
        read = self._contribution(message)
        assert isinstance(read, TransactionComplete)
        signatures = split(read.signatures, SIGNATURE_BYTES, len(self.slots))
        if all(verify_signature(one.slot, mine) for one, mine in zip(self.slots, signatures, strict=True)):
            self._complete(signatures)
        elif message.sender_key in self._approvals:
            raise Proved(Kind.WRONG_COMPLETION, (message, self._approvals[message.sender_key]))

    def _abort(self, message: VerifiedMessage) -> None:
        read = payload_decode_untrusted(MessageType.ABORT, message.payload)
        assert isinstance(read, Abort)
        waiting = tuple(one for one in self.waiting_for if one != message.sender_key)
        error = InvalidMessage(f"a cosigner left: {read.text}", peer=short_key(message.sender_key))
        if read.code == ABORT_CODES[End.SILENT] and waiting and self.state in (State.ROUND_1, State.ROUND_2):
            self._end(End.SILENT, suspects=waiting, error=Timeout(str(error)))
        else:
            self._end(End.ABORTED, suspects=(message.sender_key,), error=error)

    def _blame_record(self, message: VerifiedMessage) -> None:
        verdict = verify_blame(message.payload, self.group)
        if verdict.session == self.id and verdict.accused != self.identity:
            self._end(End.BLAMED, verdict=verdict, blame=message.payload)

    def _nonce_list(self, message: VerifiedMessage) -> None:
        """Somebody signed another transcript: whoever has two payloads is proved."""
        read = decode_untrusted(MessageType.NONCE_LIST, message.payload)
        assert isinstance(read, NonceList)
        if read.attempt != self.attempt or self.state not in (State.ROUND_1, State.ROUND_2):
            return
        for listed in list_messages(message, self.group):
            nonce = decode_untrusted(MessageType.PUBLIC_NONCE, listed.payload)
            assert isinstance(nonce, PublicNonce)
            if listed.sender_key != self.identity and nonce.attempt == read.attempt:
                self._take(listed, nonce.attempt, nonce.epoch)
        self._current.lists.setdefault(message.sender_key, message)
        self._sign_if_all_nonces()
        if self.state is State.ROUND_2:
            self._compare(self._current)
            self._judge_lists()

    # --- an attempt ---------------------------------------------------------------------------------------------------

    def _begin_if_all_approved(self) -> None:
        if self.state is State.APPROVING and len(self._approvals) == len(self._others):
            self._begin(max([self.attempt + 1, *self._collected]))

    def _begin(self, attempt: int) -> None:
        """Begin an attempt with fresh nonces. What the one before has collected is forgotten."""
        if attempt > ATTEMPTS_MAX:
            error = Timeout("no attempt is left", expected=f"at most {ATTEMPTS_MAX}")
            self._end(End.SILENT, suspects=self.waiting_for, error=error)
            return
        self.attempt = attempt
        self._collected = {number: one for number, one in self._collected.items() if number >= attempt}
        self._restart_clock()
        if attempt > 1:  # whoever was not there may wait for nothing but this
            self._repeat_approval()
        self._advance(Event.ATTEMPT_BEGAN)
        self._out.append(MakeNonces(self.id, attempt, tuple(self._approvals.values())))

    def _restart_clock(self) -> None:
        self._began, self._deadline = self._now, self._now + self._bounds.phase_timeout_s

    def _nonces_made(self, event: NoncesMade) -> None:
        if self.state is State.ROUND_1 and event.attempt == self.attempt:
            self._current.own_nonce = event.payload
            self._send(MessageType.PUBLIC_NONCE, event.payload)
            self._sign_if_all_nonces()

    def _sign_if_all_nonces(self) -> None:
        if self.state is not State.ROUND_1 or not self._current.own_nonce or self.waiting_for:
            return
        current = self._current
        current.fix(self.group, self.identity, self.proposal, self.digest, self.slots)
        self._restart_clock()
        self._advance(Event.NONCES_COMPLETE)
        self._out.append(MakePartials(self.id, self.attempt, tuple(current.nonces.values())))
        self._judge_partials()

    def _partials_made(self, event: PartialsMade) -> None:
        if self.state is State.ROUND_2 and event.attempt == self.attempt:
            self._current.own_partial = event.payload
            self._send(MessageType.PARTIAL_SIGNATURE, event.payload)
            self._judge_partials()

    def _judge_partials(self) -> None:
        """Judge each partial only under the transcript that its sender signed."""
        current = self._current
        if self.state is not State.ROUND_2:
            return
        if current.strangers():
            self._compare(current)
            self._judge_lists()
        elif current.own_partial and not self.waiting_for:
            result = current.complete(self.identity, self.slots)
            if isinstance(result, rounds.Contribution):
                self._bad_partial(current, result.identity)
            else:
                self._complete(result)

    def _bad_partial(self, current: Collected, identity: bytes) -> None:
        if identity == self.identity:
            self._end(End.REFUSED, error=LocalError("our own partial signature does not verify"))
            return
        payloads = current.payloads(self.identity)
        nonces = tuple(payloads[one] for one in self.group.identities)
        raise Proved(Kind.BAD_PARTIAL, (current.partials[identity],), nonces)

    def _compare(self, current: Collected) -> None:
        if not current.compared:
            current.compared = True
            self._send(MessageType.NONCE_LIST, current.list_payload(self.group))

    def _judge_lists(self) -> None:
        """A signed list says which nonces its sender's transcript is of, and which one of theirs others got."""
        current = self._current
        if self.state is not State.ROUND_2:
            return
        for message in current.strangers():
            listed = current.lists.get(message.sender_key)
            if listed is None:
                continue
            for kind, pair in (
                (Kind.WRONG_TRANSCRIPT, (message, listed)),
                (Kind.EQUIVOCATION, (current.nonces[message.sender_key], listed)),
            ):
                self._prove_if_true(kind, pair)

    def _prove_if_true(self, kind: Kind, evidence: Sequence[VerifiedMessage]) -> None:
        """Raise Proved when the evidence holds before a judge who knows nothing else."""
        try:
            list_payloads(evidence[-1], self.group)
            verify_blame(accuse(kind, self.proposal, evidence), self.group)
        except PeerError:
            return
        raise Proved(kind, evidence)

    def _attempt_lost(self, event: AttemptLost) -> None:
        if self.state in (State.ROUND_1, State.ROUND_2) and event.attempt == self.attempt:
            self._say(MessageType.ATTEMPT_GONE, AttemptGone(event.attempt, event.epoch))
            self._begin(self.attempt + 1)

    def _refused(self, event: Refused) -> None:
        """An approval that is refused ends the session; a refused attempt is left to the next one."""
        if event.verb is Approve and self.state is State.REVIEWING:
            self._end(End.REFUSED, error=event.error)

    def _cancel(self, event: Cancel) -> None:
        if self.outcome is None:
            self._end(End.CANCELLED, error=LocalError(event.reason))

    def _wiped(self, _: Wiped) -> None:
        if self.outcome is None:
            self._end(End.CANCELLED, error=LocalError("the approval was revoked"))

    # --- time ---------------------------------------------------------------------------------------------------------

    def _woken(self, _: Woken) -> None:
        if self.outcome is not None or self._now < self._deadline:
            return
        self._repeat_proposal()
        if self.state not in (State.ROUND_1, State.ROUND_2):
            self._repeat_approval()
            self._deadline = self._now + self._bounds.reapprove_s
            return
        self._count_silent(0)
        silent = tuple(one for one, count in self._silent.items() if count >= self._bounds.silent_attempts_max)
        if silent:
            names = ", ".join(short_key(one) for one in silent)
            error = Timeout(f"no answer from {names}", hint="this proves nothing about them: networks fail")
            self._end(End.SILENT, suspects=silent, error=error)
        else:
            self._begin(self.attempt + 1)

    def _count_silent(self, least_s: float) -> None:
        """Count who did not answer in an attempt that has lasted at least so long; others start again at 0."""
        if self._now - self._began >= least_s:
            missing = self.waiting_for
            self._silent = Counter({one: self._silent[one] + 1 for one in missing})


_MESSAGES: Final[Mapping[MessageType, Callable[[Session, VerifiedMessage], None]]] = {
    MessageType.APPROVAL: Session._approval,
    MessageType.PUBLIC_NONCE: Session._public_nonce,
    MessageType.PARTIAL_SIGNATURE: Session._partial_signature,
    MessageType.TRANSACTION_COMPLETE: Session._transaction_complete,
    MessageType.ATTEMPT_GONE: Session._attempt_gone,
    MessageType.NONCE_LIST: Session._nonce_list,
    MessageType.BLAME: Session._blame_record,
    MessageType.ABORT: Session._abort,
}
_STILL_WORKING: Final = (MessageType.APPROVAL, MessageType.PUBLIC_NONCE, MessageType.ATTEMPT_GONE)

_HANDLERS: Final[Mapping[type, Callable[[Session, Any], None]]] = {
    VerifiedMessage: Session._receive,
    Start: Session._start,
    Consent: Session._consent,
    Cancel: Session._cancel,
    Saved: Session._saved,
    Woken: Session._woken,
    Approved: Session._approved,
    Asked: Session._asked,
    NoncesMade: Session._nonces_made,
    PartialsMade: Session._partials_made,
    AttemptLost: Session._attempt_lost,
    Refused: Session._refused,
    StatusIs: Session._status_is,
    Wiped: Session._wiped,
}
