"""A session in star: everybody sends to the collector of the attempt, whose turn passes on with each attempt.

    signer     approval ->        <- begin   nonces ->      <- aggregate, root   partials ->        <- completion
    collector            all here            all: sum them                      all: sum, verify

The collector is trusted with nothing: it can delay an attempt, and then the next one is another's. Approvals go to the
next one in line, too, who takes over when the first does not begin. What a signer hears is only what the collector
says, so silence names "signer or collector", and nobody is proved by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from ..crypto.musig2 import PublicNonce as Points
from ..errors import LocalError, NetworkError, PeerError
from ..limits import ATTEMPTS_MAX
from ..wire.envelope import Message, VerifiedMessage
from ..wire.messages import MessageType
from . import rounds
from .attempt import Collected
from .base import Proved
from .blame import Kind, accuse, verify_blame
from .effects import End
from .proposal import require_member
from .records import (
    AggregateNonces,
    AggregateShown,
    Approval,
    AttemptBegin,
    AttemptFailed,
    AttemptGone,
    ListWanted,
    NonceList,
    PartialSignature,
    PublicNonce,
    decode_untrusted,
    named,
)
from .session import Session
from .states import IN_ATTEMPT, Event, State
from .verbs import MakeNonces, MakePartials, NoncesMade, PartialsMade, StatusIs

__all__ = ["StarSession"]

_PATIENCE = 1.25
"""A signer waits so much longer than the collector, whose word about who is silent is then on its way."""


class StarSession(Session):
    """See the module. `handle` raises nothing."""

    _made = 0
    """The highest attempt that our keyholder was asked to make nonces for."""
    _hurry = False
    """An attempt failed and nobody is away: the next one is awaited with a clock. Else people may take hours."""
    _stands_by = False
    """We are next in line, everything is here, and a clock runs for the collector whose turn it is."""
    _stepped = 0
    """The turn that we await because another member does."""
    _begun: VerifiedMessage | None = None
    """What the collector of this attempt signed when it began."""

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    @property
    def _turn(self) -> int:
        """The attempt that is under way, or is awaited; after the last one, that one: its completion may still come."""
        return self.attempt if self.state in IN_ATTEMPT else min(self.attempt + 1, ATTEMPTS_MAX)

    @property
    def _collector(self) -> bytes:
        return self.group.collector(self._turn)

    @property
    def _collects(self) -> bool:
        return self._collector == self.identity

    def _partials_go_to(self) -> bytes | None:
        collector = self.group.collector(max(1, self.attempt))
        return collector

    def _spreads(self, heard: bool) -> bool:
        return not heard or self.group.collector(max(1, self.attempt)) == self.identity

    def _waited_for(self) -> Iterator[bytes]:
        if self._collects or self.state in (State.COMPLETED, State.FAILED):
            return super()._waited_for()
        return iter((self._collector,))

    def _approval_of(self, member: bytes) -> VerifiedMessage | None:
        begun = self._begun if self._begun is not None and self._begun.sender_key == member else None
        return super()._approval_of(member) or begun

    # --- approvals ----------------------------------------------------------------------------------------------------

    def _repeat_approval(self, to: bytes | None = None) -> None:
        """Say it to whose turn it is, and to the next one, who takes over when that one is silent."""
        if self.state is State.APPROVING or self.state in IN_ATTEMPT:
            for turn in (self._turn, self._turn + 1):
                member = self.group.collector(turn)
                if member != self.identity and to in (None, member):
                    self._say(MessageType.APPROVAL, Approval(self.digest, self._turn), member)

    def _compare_turns(self, sender: bytes, turn: int) -> None:
        """Between attempts, whoever is behind follows: after restarts members may await different collectors.

        One step for each message: nobody uses up all attempts with a word. After a failed attempt the clock decides.
        """
        if self.state is not State.APPROVING or self._hurry or turn == self._turn:
            return
        if turn > self._turn:
            self.attempt += 1
            self._stepped = self._turn
            self._stands_by = False
            self._repeat_approval()
            self._begin_if_ready()
        elif self._may_answer(sender):
            self._say(MessageType.APPROVAL, Approval(self.digest, self._turn), sender)

    def _ask_for_approvals(self) -> None:
        """It is our turn: whoever has not approved may have finished it already, and answers with that."""
        if self._collects and self.state is State.APPROVING:
            for member in named(self._everybody_else - self._approvals.keys() - self._away):
                self._say(MessageType.APPROVAL, Approval(self.digest, self._turn), member)

    def _ready(self) -> bool:
        return self.state is State.APPROVING and len(self._approvals) == len(self._others) and not self._away

    def _begin_if_ready(self) -> None:
        if not self._ready():
            self._stands_by = False
        elif self._collects:
            self._begin(self.attempt + 1)
        elif self.group.collector(self._turn + 1) == self.identity and not self._stands_by:
            self._stands_by = True
            self._deadline = self._now + self._bounds.phase_timeout_s

    # --- an attempt begins --------------------------------------------------------------------------------------------

    def _begin(self, attempt: int) -> None:
        """It is our turn: begin."""
        if self._go_to(attempt):
            self._begun = None
            self._say(MessageType.ATTEMPT_BEGIN, AttemptBegin(attempt, self.digest))
            self._out.append(MakeNonces(self.id, attempt, tuple(self._approvals.values())))

    def _go_to(self, attempt: int) -> bool:
        if not self._enter(attempt):
            return False
        self._made, self._hurry, self._stands_by = attempt, False, False
        self._collected = {number: one for number, one in self._collected.items() if number >= attempt - 1}
        self._advance(Event.ATTEMPT_BEGAN)
        return True

    def _attempt_begin(self, message: VerifiedMessage) -> None:
        """The collector has everybody's approval: make nonces, once for each attempt, and attempts only rise."""
        read = decode_untrusted(MessageType.ATTEMPT_BEGIN, message.payload)
        assert isinstance(read, AttemptBegin)
        if message.sender_key != self.group.collector(read.attempt) or read.digest != self.digest:
            return
        if read.attempt == self.attempt and self.state in IN_ATTEMPT and self._may_answer(message.sender_key):
            self._answer(message.sender_key)
        if read.attempt <= self._made or self.state not in (State.APPROVING, *IN_ATTEMPT):
            return
        self._count_passed_over(read.attempt)
        if self._go_to(read.attempt):
            self._begun = message
            self._patiently()
            self._out.append(MakeNonces(self.id, read.attempt, (message,)))

    def _count_passed_over(self, attempt: int) -> None:
        """The one who stood by has begun: whose turn it was before did not. Only that one: it is nothing but a word."""
        before = self.group.collector(attempt - 1) if attempt > 1 else self.identity
        if attempt in (self._turn + 1, self._stepped) and before != self.identity:
            self._silent[before] += 1

    def _patiently(self) -> None:
        self._deadline = self._now + self._bounds.phase_timeout_s * _PATIENCE

    # --- round 1 ------------------------------------------------------------------------------------------------------

    def _nonces_made(self, event: NoncesMade) -> None:
        if self.state is State.ROUND_1 and event.attempt == self.attempt:
            self._current.own_nonce = event.payload
            if self._collects:
                self._sum_if_all_nonces()
            else:
                self._send(MessageType.PUBLIC_NONCE, event.payload, self._collector)

    def _public_nonce(self, message: VerifiedMessage) -> None:
        if not self._collects or self.state not in IN_ATTEMPT:
            return
        read, points = self._read_nonce(message)
        if read.attempt == self.attempt and self._take(message, read.attempt, read.epoch):
            self._current.points[message.sender_key] = points
            self._sum_if_all_nonces()

    def _read_nonce(self, message: VerifiedMessage) -> tuple[PublicNonce, tuple[Points, ...]]:
        """Parse once what is summed later. Raises as `_contribution` does."""
        try:
            read = decode_untrusted(MessageType.PUBLIC_NONCE, message.payload)
            assert isinstance(read, PublicNonce)
            return read, rounds.parse_nonces(self.slots, message.sender_key, read.nonces)
        except PeerError:
            self._contribution(message)
            raise

    def _sum_if_all_nonces(self) -> None:
        current = self._current
        if self.state is not State.ROUND_1 or not current.own_nonce or len(current.nonces) < len(self._others):
            return
        payload = current.aggregate(self.group, self.identity, self.id, self.digest, self.slots)
        self._restart_clock()
        self._advance(Event.NONCES_COMPLETE)
        self._send(MessageType.AGGREGATE_NONCE, payload)
        self._out.append(MakePartials(self.id, self.attempt, tuple(current.nonces.values())))

    def _aggregate_nonce(self, message: VerifiedMessage) -> None:
        """The collector's sum. We do not check it: a wrong one gives no signature, and does no harm to a nonce."""
        read = self._contribution(message)
        assert isinstance(read, AggregateNonces)
        if message.sender_key != self.group.collector(read.attempt) or not self._is_recent(read.attempt):
            return
        first = self._take(message, read.attempt, read.epoch)
        if first and read.attempt == self.attempt and self.state is State.ROUND_1 and self._current.own_nonce:
            self._advance(Event.NONCES_COMPLETE)
            self._patiently()
            self._out.append(MakePartials(self.id, self.attempt, (message,)))

    def _is_recent(self, attempt: int) -> bool:
        return self.attempt - 1 <= attempt <= self.attempt + 1

    # --- round 2 ------------------------------------------------------------------------------------------------------

    def _partials_made(self, event: PartialsMade) -> None:
        if self.state is State.ROUND_2 and event.attempt == self.attempt:
            self._current.own_partial = event.payload
            if self._collects:
                self._finish_if_all_partials()
            else:
                self._send(MessageType.PARTIAL_SIGNATURE, event.payload, self._collector)

    def _partial_signature(self, message: VerifiedMessage) -> None:
        read = self._contribution(message)
        assert isinstance(read, PartialSignature)
        if not self._collects or read.attempt != self.attempt or self.state is not State.ROUND_2:
            return
        if self._take(message, read.attempt, read.epoch):
            if read.transcript != self._current.transcript:  # no proof: we could have sent them another aggregate
                del self._current.partials[message.sender_key]
            elif read.epoch != self._epoch_in_sum(message.sender_key):  # a restart in between: no proof either
                del self._current.partials[message.sender_key]
                self._gone(message.sender_key, read.attempt)
                return
            self._finish_if_all_partials()

    def _epoch_in_sum(self, member: bytes) -> bytes:
        """Return the boot epoch of the nonces of a member that are in our sum."""
        read = decode_untrusted(MessageType.PUBLIC_NONCE, self._current.nonces[member].payload)
        assert isinstance(read, PublicNonce)
        return read.epoch

    def _finish_if_all_partials(self) -> None:
        current = self._current
        if not current.own_partial or len(current.partials) < len(self._others):
            return
        result = current.complete(self.identity, self.slots)
        if not isinstance(result, rounds.Contribution):
            self._complete(result)
        elif result.identity == self.identity:
            self._end(End.REFUSED, error=LocalError("our own partial signature does not verify"))
        else:
            evidence = (current.partials[result.identity], current.nonces[result.identity])
            raise Proved(Kind.BAD_PARTIAL, evidence, (current.own_aggregate,))

    # --- an attempt fails ---------------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        if self._collects:
            missing = frozenset(self.waiting_for)
            self._fail(missing - self._away, missing & self._away)
        else:
            self._collector_silent()

    def _waited(self) -> None:
        """Between attempts: nobody hurries people; after a failed attempt, or next in line, the clock counts."""
        if self._stands_by and self._ready():
            self._collector_silent()
        elif not self._hurry:
            self._repeat_approval()
            self._ask_for_approvals()
            self._begin_if_ready()
        elif self._collects:
            unapproved = self._everybody_else - self._approvals.keys()
            self._fail(unapproved - self._away, self._away)
        else:
            self._collector_silent()

    def _fail(self, silent: frozenset[bytes], away: frozenset[bytes]) -> None:
        """Our attempt does not go on: say whom it waited for, and let the next collector have its turn."""
        self._say(MessageType.ATTEMPT_FAILED, AttemptFailed(self._turn, named(silent), named(away)))
        if not away:
            self._count(silent)
        self._pass_on(paused=bool(away))

    def _collector_silent(self) -> None:
        """We hear nothing from the collector. That tells nothing about others, so what was counted of them stays."""
        collector = self._collector
        if collector not in self._away:
            self._silent[collector] += 1
            self._pass_on()
        elif self.state in IN_ATTEMPT:
            self._pass_on(paused=True)
        else:  # its turn stays: without it nothing can be signed
            self._hurry = self._stands_by = False
            self._repeat_approval()

    def _pass_on(self, *, paused: bool = False) -> None:
        """The turn passes on; `paused`: somebody is away, who is waited for without a clock."""
        if not paused and self._end_if_silent():
            return
        if self._turn >= ATTEMPTS_MAX:
            self._enter(self._turn + 1)
            return
        had_aggregate = self.state is State.ROUND_2 and not self._collects
        if self.state in IN_ATTEMPT:
            self._advance(Event.ATTEMPT_FAILED)
        else:
            self.attempt += 1
        self._hurry, self._stands_by = not paused, False
        if paused:
            self._deadline = self._now + self._bounds.reapprove_s
        elif self._collects:
            self._restart_clock()
        else:
            self._patiently()
        if had_aggregate:
            self._compare_aggregates()
        self._repeat_approval()
        self._begin_if_ready()

    def _attempt_failed(self, message: VerifiedMessage) -> None:
        """The collector gave up, and says why. It is counted with whom it names: either may be the silent one."""
        read = decode_untrusted(MessageType.ATTEMPT_FAILED, message.payload)
        assert isinstance(read, AttemptFailed)
        if message.sender_key != self.group.collector(read.attempt) or self.state is State.REVIEWING:
            return
        if read.attempt == self.attempt and self.state is State.APPROVING and read.away:
            self._hurry, self._deadline = False, self._now + self._bounds.reapprove_s
        if read.attempt > self._turn and self.state is State.APPROVING:  # we missed some
            self.attempt = read.attempt - 1
        if read.attempt == self._turn:
            if not read.away:
                self._count((frozenset(read.silent) & self._everybody_else) | {message.sender_key})
            self._pass_on(paused=bool(read.away))

    def _lost(self, gone: AttemptGone) -> None:
        if self._collects:
            self._fail(frozenset(), frozenset())
        else:
            self._say(MessageType.ATTEMPT_GONE, gone, self._collector)
            self._pass_on()

    def _gone(self, sender: bytes, attempt: int) -> None:
        if attempt < self.attempt or sender in self._current.partials:
            self._catch_up(sender)
        elif self._collects:
            self._fail(frozenset(), frozenset())
        elif sender == self._collector:
            self._pass_on()

    def _gave_up(self, sender: bytes) -> tuple[bytes, ...]:
        most = max(self._silent.values(), default=0)
        return tuple(one for one, count in self._silent.items() if count == most and one != sender)

    def _say_abort(self, end: End, error: NetworkError | None, to: bytes | None = None) -> None:
        """Everybody finds silence by themselves, at about the same time: only a collector tells everybody."""
        if end is not End.SILENT or to is not None or self._collects:
            super()._say_abort(end, error, to)
            return
        for member in sorted({self._collector, self.group.collector(self._turn + 1)} - {self.identity}):
            super()._say_abort(end, error, member)

    def _silence(self, silent: tuple[bytes, ...]) -> str:
        return super()._silence(silent) + ": silent as a signer or as the collector"

    # --- what was said in an attempt, again ---------------------------------------------------------------------------

    def _answer(self, sender: bytes) -> None:
        current = self._current
        if self._collects:
            if current.own_aggregate:
                self._send(MessageType.AGGREGATE_NONCE, current.own_aggregate, sender)
        elif sender == self._collector and (current.own_partial or current.own_nonce):
            kind = MessageType.PARTIAL_SIGNATURE if current.own_partial else MessageType.PUBLIC_NONCE
            self._send(kind, current.own_partial or current.own_nonce, sender)

    def _catch_up(self, member: bytes) -> None:
        if self.state not in IN_ATTEMPT:
            return
        if self._collects:
            self._say(MessageType.ATTEMPT_BEGIN, AttemptBegin(self.attempt, self.digest), member)
        self._answer(member)

    def _status_is(self, event: StatusIs) -> None:
        self._made = max(self._made, event.attempt)
        super()._status_is(event)

    # --- a collector who signed two aggregates, or a wrong one --------------------------------------------------------

    def _compare_aggregates(self) -> None:
        """An aggregate came and no signature: the next collector sees what each was sent, and asks for the list."""
        old = self._at(self.attempt)
        for collector, message in old.aggregates.items():
            if not self._collects:
                self._say(MessageType.AGGREGATE_SHOWN, AggregateShown(message.to_bytes()), self._collector)
            else:
                self._say(MessageType.LIST_WANTED, ListWanted(old.number), collector)

    def _aggregate_shown(self, message: VerifiedMessage) -> None:
        """A signer shows what they were sent. Verified only where it differs from what we were sent."""
        read = decode_untrusted(MessageType.AGGREGATE_SHOWN, message.payload)
        assert isinstance(read, AggregateShown)
        shown = Message.from_bytes(read.envelope)
        known = any(
            one.payload == shown.payload for each in self._collected.values() for one in each.aggregates.values()
        )
        if known or not self._may_answer(message.sender_key):
            return
        verified = shown.verify()
        require_member(verified, self.group, MessageType.AGGREGATE_NONCE, self.id)
        if verified.sender_key != self.identity:
            self._aggregate_nonce(verified)

    def _list_wanted(self, message: VerifiedMessage) -> None:
        read = decode_untrusted(MessageType.LIST_WANTED, message.payload)
        assert isinstance(read, ListWanted)
        old = self._collected.get(read.attempt, Collected(read.attempt))
        if old.own_aggregate and message.sender_key == self.group.collector(read.attempt + 1):
            if self._may_answer(message.sender_key):
                self._send(MessageType.NONCE_LIST, old.list_payload(self.group), message.sender_key)

    def _nonce_list(self, message: VerifiedMessage) -> None:
        """A collector shows its list: with another root or sum than it signed, it is proved."""
        read = decode_untrusted(MessageType.NONCE_LIST, message.payload)
        assert isinstance(read, NonceList)
        said = self._collected.get(read.attempt, Collected(read.attempt)).aggregates.get(message.sender_key)
        if said is None or not self._may_answer(message.sender_key):
            return
        verify_blame(accuse(Kind.WRONG_AGGREGATE, self.proposal, (said, message)), self.group)
        raise Proved(Kind.WRONG_AGGREGATE, (said, message))

    _MESSAGES: ClassVar[Mapping[MessageType, Callable[[Any, VerifiedMessage], None]]] = {
        **Session._MESSAGES,
        MessageType.ATTEMPT_BEGIN: _attempt_begin,
        MessageType.ATTEMPT_FAILED: _attempt_failed,
        MessageType.PUBLIC_NONCE: _public_nonce,
        MessageType.AGGREGATE_NONCE: _aggregate_nonce,
        MessageType.PARTIAL_SIGNATURE: _partial_signature,
        MessageType.AGGREGATE_SHOWN: _aggregate_shown,
        MessageType.LIST_WANTED: _list_wanted,
        MessageType.NONCE_LIST: _nonce_list,
    }
