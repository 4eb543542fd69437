"""A session in mesh: everybody sends to everybody, and everybody collects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from ..errors import LocalError, PeerError
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from . import rounds
from .attempt import Collected
from .base import Proved
from .blame import Kind, accuse, list_messages, list_payloads, verify_blame
from .effects import End
from .records import (
    Approval,
    AttemptFailed,
    AttemptGone,
    NonceList,
    PartialSignature,
    PublicNonce,
    decode_untrusted,
    named,
)
from .session import Session
from .states import IN_ATTEMPT, Event, State
from .verbs import MakeNonces, MakePartials, NoncesMade, PartialsMade

__all__ = ["MeshSession"]


class MeshSession(Session):
    """See the module. `handle` raises nothing."""

    _ROUNDS_BY_MAIL = True

    _excused: frozenset[bytes] = frozenset()
    """Who said of this attempt that somebody is away from them: they are not silent."""

    # --- approvals, and who is here -----------------------------------------------------------------------------------

    def _repeat_approval(self, to: bytes | None = None) -> None:
        if self.state is State.APPROVING or self.state in IN_ATTEMPT:
            self._say(MessageType.APPROVAL, Approval(self.digest, by_hand=self.by_hand), to)

    def _ready(self) -> bool:
        return self.state is State.APPROVING and len(self._approvals) == len(self._others) and not self._away

    def _begin_if_ready(self) -> None:
        if self._ready():
            self._begin(max([self.attempt + 1, *self._collected]))

    def _begin(self, attempt: int, because_of: bytes = b"") -> None:
        """Begin an attempt with fresh nonces. What the one before has collected is forgotten."""
        if not self._enter(attempt, because_of):
            return
        self._collected = {number: one for number, one in self._collected.items() if number >= attempt}
        self._excused = frozenset()
        if attempt > 1:  # whoever was not there may wait for nothing but this
            self._repeat_approval()
        self._advance(Event.ATTEMPT_BEGAN)
        self._out.append(MakeNonces(self.id, attempt, tuple(self._approvals.values())))

    def _answer(self, sender: bytes) -> None:
        current = self._current
        if current.own_partial:
            self._send(MessageType.PARTIAL_SIGNATURE, current.own_partial, sender)
        elif current.own_nonce:
            self._send(MessageType.PUBLIC_NONCE, current.own_nonce, sender)

    def _catch_up(self, member: bytes) -> None:
        if self.state not in IN_ATTEMPT:
            return
        if self._current.own_nonce:
            self._send(MessageType.PUBLIC_NONCE, self._current.own_nonce, member)
        if self._current.own_partial:
            self._send(MessageType.PARTIAL_SIGNATURE, self._current.own_partial, member)

    def _waited(self) -> None:
        self._repeat_approval()

    def _lost(self, gone: AttemptGone) -> None:
        self._say(MessageType.ATTEMPT_GONE, gone)
        if self._by_mail or self._hands:  # new ones would be as old before anybody reads them: with what comes next
            self._wait(frozenset())
        else:
            self._begin(self.attempt + 1)

    def _gone(self, sender: bytes, attempt: int) -> None:
        if attempt >= self.attempt and sender not in self._current.partials:
            if self._hands.isdisjoint(self.waiting_for):  # one step: whoever is further has nonces to be followed by
                self._begin(self.attempt + 1, sender)
            else:  # whoever is waited for begins it, with new nonces
                self._wait(frozenset())
        else:
            self._catch_up(sender)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        """Whoever is here and did not answer is counted; for whoever is away, or says that somebody is, we wait."""
        missing = frozenset(self.waiting_for)
        if missing & (self._away | self._excused):
            self._wait(missing & self._away)
            return
        self._count(self.waiting_for)
        if not self._end_if_silent():
            self._begin(self.attempt + 1)

    def _wait(self, away: frozenset[bytes]) -> None:
        """This attempt is dead; the next one begins when everybody is here."""
        self._deadline = self._now + self._bounds.reapprove_s
        if away:
            self._say(MessageType.ATTEMPT_FAILED, AttemptFailed(self.attempt, (), named(away)))
        self._advance(Event.ATTEMPT_FAILED)

    def _attempt_failed(self, message: VerifiedMessage) -> None:
        """A member cannot go on because somebody is away from them."""
        read = decode_untrusted(MessageType.ATTEMPT_FAILED, message.payload)
        assert isinstance(read, AttemptFailed)
        if read.attempt == self.attempt and read.away:
            self._excused |= {message.sender_key}

    def _gave_up(self, sender: bytes) -> tuple[bytes, ...]:
        return tuple(one for one in self.waiting_for if one != sender) if self.state in IN_ATTEMPT else ()

    # --- the rounds ---------------------------------------------------------------------------------------------------

    def _public_nonce(self, message: VerifiedMessage) -> None:
        read = self._contribution(message)
        assert isinstance(read, PublicNonce)
        if read.attempt < self.attempt or not self._take(message, read.attempt, read.epoch):
            return
        if read.attempt > self.attempt:
            self._follow(message.sender_key, read.attempt)
        self._sign_if_all_nonces()

    def _follow(self, sender: bytes, attempt: int) -> None:
        """A member has begun a later attempt: begin it, too, or say who is away from us."""
        if self.state in IN_ATTEMPT:
            if self._now - self._began >= self._bounds.phase_timeout_s / 2:
                self._count(one for one in self.waiting_for if one not in self._away | self._by_mail | self._hands)
            self._begin(attempt)
        elif self._ready():
            self._begin(attempt)
        elif self.state is State.APPROVING and self._away and self._may_answer(sender):
            self._say(MessageType.ATTEMPT_FAILED, AttemptFailed(attempt, (), named(self._away)), sender)

    def _partial_signature(self, message: VerifiedMessage) -> None:
        read = self._contribution(message)
        assert isinstance(read, PartialSignature)
        if read.attempt >= self.attempt and self._take(message, read.attempt, read.epoch):
            self._judge_partials()

    def _nonce_list(self, message: VerifiedMessage) -> None:
        """Somebody signed another transcript: whoever has two payloads is proved."""
        read = decode_untrusted(MessageType.NONCE_LIST, message.payload)
        assert isinstance(read, NonceList)
        if read.attempt != self.attempt or self.state not in IN_ATTEMPT:
            return
        if message.sender_key in self._current.lists:
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

    _MESSAGES: ClassVar[Mapping[MessageType, Callable[[Any, VerifiedMessage], None]]] = {
        **Session._MESSAGES,
        MessageType.PUBLIC_NONCE: _public_nonce,
        MessageType.PARTIAL_SIGNATURE: _partial_signature,
        MessageType.NONCE_LIST: _nonce_list,
        MessageType.ATTEMPT_FAILED: _attempt_failed,
    }
