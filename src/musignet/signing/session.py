"""The life of one signing session at one node, whatever way its messages go: `mesh` and `star` fill in the rounds.

    proposal -> approvals of all -> attempt k: nonces of all -> partials of all -> signatures -> completion
                     ^------- the next attempt, by itself, once everybody is here -------'

It holds no secret: it asks the keyholder by verb. Who said what is taken from the signed message alone. Every session
ends by its expiry, with an `Outcome`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, TypeAlias

from msgspec import Struct

from ..bitcoin.finalise import verified
from ..errors import InvalidMessage, LocalError, PeerError, Timeout
from ..limits import ATTEMPTS_MAX, PROGRESS_NAMES_MAX, SIGNATURE_BYTES
from ..text import short_key
from ..wire.codec import Record
from ..wire.envelope import VerifiedMessage
from ..wire.messages import Abort, MessageType, payload_decode_untrusted
from .attempt import Arrival
from .base import ABORT_CODES, Proved, SessionBase
from .blame import Kind, read_contribution, verify_blame
from .effects import End, Outcome, Publish, Saved, SessionEffect, Void
from .proposal import require_member
from .records import Approval, AttemptGone, TransactionComplete, decode_untrusted, split
from .states import IN_ATTEMPT, Event, State
from .verbs import (
    Approve,
    Approved,
    Asked,
    AttemptLost,
    NoncesMade,
    PartialsMade,
    Refused,
    Reply,
    Status,
    StatusIs,
    Wipe,
    Wiped,
    Woken,
)

__all__ = ["Cancel", "Consent", "Present", "Session", "SessionInput", "Start"]

_ANSWERS_MAX: Final = 64
"""Answers to repeats and restarts of one member in one session: each costs them a message, too."""


class Start(Struct, frozen=True):
    """Begin; after a restart of the node, go on from what the keyholder knows."""

    message: VerifiedMessage
    restarted: bool = False
    completion: bytes = b""
    """The payload of our completion, where the journal has it: others may not have heard it."""
    ended: Outcome | None = None
    """Another end, where the journal has one: others may not have heard it, nor the keyholder."""


class Consent(Struct, frozen=True):
    """A person said yes, and this proves it to the keyholder."""

    session: bytes
    proof: bytes
    replaces: frozenset[bytes] = frozenset()


class Cancel(Struct, frozen=True):
    """Our side leaves. What has been signed stays signed."""

    session: bytes
    reason: str = "cancelled"


class Present(Struct, frozen=True):
    """Who is here: the identity keys of the members that are connected, all of them. Others are away.

    Nobody who is away is waited for with a clock, or called silent. Before the first of these everybody counts as here.
    It may come again unchanged: each time mail comes or goes.
    """

    identities: frozenset[bytes]
    by_mail: frozenset[bytes] = frozenset()
    """Members who are not connected, but whose part in the rounds is carried to and fro: they take hours."""
    letters: frozenset[bytes] = frozenset()
    """Members who are away, and for whom proposals and approvals can be left."""


SessionInput: TypeAlias = Start | Consent | Cancel | Void | Present | Saved | Woken | VerifiedMessage | Reply


class Session(SessionBase, ABC):
    """See the module. `handle` raises nothing."""

    _on_disk = False
    """Whether the proposal is in our journal: before that nobody hears of it from us."""
    _gone_before: AttemptGone | None = None
    """What a restart of ours took with it."""
    _ROUNDS_BY_MAIL: ClassVar[bool] = False
    """Whether the rounds work with members whose part is carried to and fro. Where not, those are away."""

    # --- what mesh and star do in their own way -----------------------------------------------------------------------

    @abstractmethod
    def _repeat_approval(self, to: bytes | None = None) -> None:
        """Say again that we approved, if we did."""

    @abstractmethod
    def _begin_if_ready(self) -> None:
        """Begin the next attempt if everybody has approved and is here."""

    @abstractmethod
    def _begin(self, attempt: int) -> None:
        """Begin this attempt, with fresh nonces."""

    @abstractmethod
    def _answer(self, sender: bytes) -> None:
        """Answer a repeat with what we said in this attempt, byte for byte."""

    @abstractmethod
    def _catch_up(self, member: bytes) -> None:
        """Say to a member who came back, or restarted, what they may have missed of this attempt."""

    @abstractmethod
    def _gone(self, sender: bytes, attempt: int) -> None:
        """A member's nonces up to this attempt are gone."""

    @abstractmethod
    def _timed_out(self) -> None:
        """The time of a phase is over."""

    @abstractmethod
    def _waited(self) -> None:
        """The time between attempts is over."""

    @abstractmethod
    def _lost(self, gone: AttemptGone) -> None:
        """Our nonces of this attempt are gone: say so, and go on."""

    @abstractmethod
    def _gave_up(self, sender: bytes) -> tuple[bytes, ...]:
        """Return whom we wait for, too, now that a member ends the session because somebody is silent."""

    # --- in and out ---------------------------------------------------------------------------------------------------

    def handle(self, event: SessionInput, now: float) -> list[SessionEffect]:
        """Take one input and return its effects, to be performed in order."""
        self._now = now
        out = self._out = []
        try:
            self._HANDLERS[type(event)](self, event)
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
        elif event.ended is not None:
            self.outcome = event.ended
            self._advance(Event.FAILED)
            self._out += (Wipe(self.id), Publish(event.ended))
        elif event.restarted:
            self._on_disk = True
            self._out.append(Status(self.id))
        else:
            self._save(b"\x00" + self.proposal.envelope, self._proposal_saved)

    def _proposal_saved(self) -> None:
        self._on_disk = True
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
        self._begin_if_ready()

    def _status_is(self, event: StatusIs) -> None:
        """After a restart: re-send what is stored, and say what is gone, so that nobody takes us for an equivocator."""
        if self.outcome is not None or self.state is not State.REVIEWING:
            return
        if event.wiped:
            self._end(End.CANCELLED, error=LocalError("the approval was revoked"))
            return
        self.attempt = event.attempt
        resends = bool(event.partials) and self._partials_go_to() != self.identity
        gone = event.attempt - 1 if resends else event.attempt
        self._gone_before = AttemptGone(gone, event.epoch)
        self._say(MessageType.ATTEMPT_GONE, self._gone_before)
        if resends:
            self._send(MessageType.PARTIAL_SIGNATURE, event.partials, self._partials_go_to())
        if event.digest:
            self._approved(Approved(self.id, event.digest))
        else:
            self._approve(b"", frozenset())

    def _partials_go_to(self) -> bytes | None:
        """Return who collects the partial signatures of this attempt; None: everybody."""
        return None

    def _repeat_proposal(self, to: bytes | None = None) -> None:
        if self._on_disk and self.proposal.proposer == self.identity:
            self._say(MessageType.TRANSACTION_PROPOSAL, self.proposal.record, to)

    def _repeat_gone(self, to: bytes) -> None:
        """Say to whoever could not be reached after our restart that its attempt is gone, until the next one begins."""
        gone = self._gone_before
        if gone is not None and gone.attempt == self.attempt > 0 and self.state is State.APPROVING:
            self._say(MessageType.ATTEMPT_GONE, gone, to)

    # --- who is here --------------------------------------------------------------------------------------------------

    def _present(self, event: Present) -> None:
        """Tell those who came back what they missed, and go on once nobody is away."""
        self._by_mail = event.by_mail if self._ROUNDS_BY_MAIL else frozenset()
        before, self._away = self._away, self._everybody_else - event.identities - self._by_mail
        reached = event.identities | event.by_mail | event.letters
        before_reached, self._reached = self._reached, self._everybody_else & reached
        back = before - self._away
        carried = bool(self._by_mail) or self.by_hand
        if self.outcome is not None or (before == self._away and before_reached == self._reached and not carried):
            return
        for member in sorted(back | self._reached - before_reached):
            self._repeat_proposal(member)
            self._repeat_approval(member)
            self._repeat_gone(member)
            self._catch_up(member)
        if back or carried:
            self._begin_if_ready()
        self._publish_progress()

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
                self._MESSAGES.get(message.type, Session._nothing)(self, message)
            elif message.type in _STILL_WORKING:
                self._answer_with_the_end(message.sender_key, self.outcome)
        except PeerError:
            return  # no member's, undecodable beyond proof, or about something else

    def _nothing(self, _: VerifiedMessage) -> None:
        """A type that has no place in a session."""

    def _may_answer(self, sender: bytes) -> bool:
        """Count an answer to a member. Returns whether they may still have it."""
        self._answered[sender] += 1
        return self._answered[sender] <= _ANSWERS_MAX

    def _answer_with_the_end(self, sender: bytes, outcome: Outcome) -> None:
        """Whoever still works on it has not heard that it is done, or who stopped it."""
        if not self._may_answer(sender) or not self.settled:
            return
        if outcome.signatures:
            self._say(MessageType.TRANSACTION_COMPLETE, TransactionComplete(b"".join(outcome.signatures)), sender)
        elif outcome.blame:
            self._send(MessageType.BLAME, outcome.blame, sender)
        elif outcome.end in (End.REFUSED, End.CANCELLED, End.OLD_DISK):
            self._say_abort(outcome.end, outcome.error, sender)

    def _approval(self, message: VerifiedMessage) -> None:
        read = decode_untrusted(MessageType.APPROVAL, message.payload)
        assert isinstance(read, Approval)
        if read.digest != self.digest:
            error = InvalidMessage("a cosigner approved something else", peer=short_key(message.sender_key))
            self._end(End.ABORTED, suspects=(message.sender_key,), error=error)
            return
        if message.sender_key not in self._approvals:
            self._approvals[message.sender_key] = message
            if read.by_hand:
                self._hands.add(message.sender_key)
            self._begin_if_ready()
            if self.state is State.APPROVING and len(self._others) <= PROGRESS_NAMES_MAX:
                self._publish_progress()  # people take hours: whoever watches sees one name less
        self._compare_turns(message.sender_key, read.turn)

    def _compare_turns(self, sender: bytes, turn: int) -> None:
        """Star: agree with a member on whose turn it is."""

    def _contribution(self, message: VerifiedMessage) -> Record:
        """Read a contribution. Raises Proved when no honest node makes it and its sender approved these slots."""
        try:
            return read_contribution(message, self.slots)
        except PeerError:
            approval = self._approval_of(message.sender_key)
            if approval is None:
                raise
            raise Proved(Kind.MALFORMED, (message, approval)) from None

    def _approval_of(self, member: bytes) -> VerifiedMessage | None:
        """Return the message in which a member agreed to the digest, if it is here."""
        return self._approvals.get(member)

    def _take(self, message: VerifiedMessage, attempt: int, epoch: bytes) -> bool:
        """Return whether this is the first contribution. Raises Proved for a second, different one."""
        collected = self._at(attempt)
        arrival = collected.take(message, epoch)
        if arrival is Arrival.EQUIVOCATION:
            raise Proved(Kind.EQUIVOCATION, (collected.kept(message.type)[message.sender_key], message))
        if arrival is Arrival.REPEAT and self._may_answer(message.sender_key) and self.state in IN_ATTEMPT:
            self._answer(message.sender_key)
        return arrival is Arrival.FIRST

    def _attempt_gone(self, message: VerifiedMessage) -> None:
        read = decode_untrusted(MessageType.ATTEMPT_GONE, message.payload)
        assert isinstance(read, AttemptGone)
        if self._may_answer(message.sender_key):
            self._repeat_approval(message.sender_key)
            if self.state in IN_ATTEMPT:
                self._gone(message.sender_key, read.attempt)

    def _transaction_complete(self, message: VerifiedMessage) -> None:
        """Believe it only when every signature holds for our own sighashes."""
        read = self._contribution(message)
        assert isinstance(read, TransactionComplete)
        signatures = split(read.signatures, SIGNATURE_BYTES, len(self.slots))
        holding = tuple(verified(one.slot, mine) for one, mine in zip(self.slots, signatures, strict=True))
        if all(holding):
            self._complete(tuple(one for one in holding if one), heard=True)
        elif (approval := self._approval_of(message.sender_key)) is not None:
            raise Proved(Kind.WRONG_COMPLETION, (message, approval))

    def _abort(self, message: VerifiedMessage) -> None:
        read = payload_decode_untrusted(MessageType.ABORT, message.payload)
        assert isinstance(read, Abort)
        waiting = self._gave_up(message.sender_key)
        error = InvalidMessage(f"a cosigner left: {read.text}", peer=short_key(message.sender_key))
        if read.code == ABORT_CODES[End.SILENT] and waiting:
            self._end(End.SILENT, suspects=waiting, error=Timeout(str(error)))
        else:
            self._end(End.ABORTED, suspects=(message.sender_key,), error=error)

    def _blame_record(self, message: VerifiedMessage) -> None:
        if not self._may_answer(message.sender_key):
            return  # each costs us a review
        verdict = verify_blame(message.payload, self.group)
        if verdict.session == self.id and verdict.accused != self.identity:
            self._end(End.BLAMED, verdict=verdict, blame=message.payload, heard=True)

    # --- an attempt ---------------------------------------------------------------------------------------------------

    def _enter(self, attempt: int, because_of: bytes = b"") -> bool:
        """Make this the current attempt. Returns False when none is left, and ends the session then.

        Args: because_of - the member without whom the one before would have gone on, if it was a member's word.
        """
        if attempt > ATTEMPTS_MAX:
            error = Timeout("no attempt is left", expected=f"at most {ATTEMPTS_MAX}")
            self._end(End.SILENT, suspects=(because_of,) if because_of else self._gave_up(b""), error=error)
            return False
        self.attempt = attempt
        self._restart_clock()
        return True

    def _restart_clock(self) -> None:
        self._began, self._deadline = self._now, self._now + self._bounds.phase_timeout_s

    def _attempt_lost(self, event: AttemptLost) -> None:
        if self.state in IN_ATTEMPT and event.attempt == self.attempt:
            self._lost(AttemptGone(event.attempt, event.epoch))

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
        late = self.state in IN_ATTEMPT and not self._by_hand_missing()
        self._again = True
        self._repeat_proposal()
        if not late:
            self._deadline = self._now + self._bounds.reapprove_s
            self._waited()
        self._again = False
        if late:
            self._timed_out()

    def _by_hand_missing(self) -> bool:
        """Return whether this phase waits for something that people carry: ours, or another member's."""
        current = self._current
        ours = current.own_nonce if self.state is State.ROUND_1 else current.own_partial
        return (self.by_hand and not ours) or not (self._by_mail | self._hands).isdisjoint(self.waiting_for)

    def _end_if_silent(self) -> bool:
        """End the session when somebody was counted too often. Returns whether it has."""
        silent = tuple(one for one, count in self._silent.items() if count >= self._bounds.silent_attempts_max)
        if silent:
            error = Timeout(self._silence(silent), hint="this proves nothing about them: networks fail")
            self._end(End.SILENT, suspects=silent, error=error)
        return bool(silent)

    def _count(self, missing: Iterable[bytes]) -> None:
        """Count who did not answer in this attempt; others start again at 0."""
        self._silent = Counter({one: self._silent[one] + 1 for one in sorted(missing)})

    def _silence(self, silent: tuple[bytes, ...]) -> str:
        return "no answer from " + ", ".join(short_key(one) for one in silent)

    _MESSAGES: ClassVar[Mapping[MessageType, Callable[[Any, VerifiedMessage], None]]] = {
        MessageType.APPROVAL: _approval,
        MessageType.TRANSACTION_COMPLETE: _transaction_complete,
        MessageType.ATTEMPT_GONE: _attempt_gone,
        MessageType.BLAME: _blame_record,
        MessageType.ABORT: _abort,
    }

    @abstractmethod
    def _nonces_made(self, event: NoncesMade) -> None:
        """Our nonces are on the keyholder's disk."""

    @abstractmethod
    def _partials_made(self, event: PartialsMade) -> None:
        """Our partial signatures are on the keyholder's disk."""

    _HANDLERS: ClassVar[Mapping[type, Callable[[Any, Any], None]]] = {
        VerifiedMessage: _receive,
        Start: _start,
        Consent: _consent,
        Cancel: _cancel,
        Void: lambda self, event: self._end(End.OLD_DISK, error=event.error),
        Present: _present,
        Saved: SessionBase._saved,
        Woken: _woken,
        Approved: _approved,
        Asked: _asked,
        NoncesMade: lambda self, event: self._nonces_made(event),
        PartialsMade: lambda self, event: self._partials_made(event),
        AttemptLost: _attempt_lost,
        Refused: _refused,
        StatusIs: lambda self, event: self._status_is(event),
        Wiped: _wiped,
    }


_STILL_WORKING: Final = (
    MessageType.APPROVAL,
    MessageType.PUBLIC_NONCE,
    MessageType.ATTEMPT_GONE,
    MessageType.ATTEMPT_BEGIN,
)
