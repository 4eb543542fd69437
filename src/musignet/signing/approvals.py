"""What every holder of a key has: reviews and approvals, their journal, and the life of each attempt.

`Keyholder` has the wallet's key itself; `Bridge` passes on what another signer makes of a PSBT. Both trust nothing
that the node says: they read the signed messages themselves, review the PSBT themselves, and recompute what was
approved before anything is signed. After a restart each is made again from its journal: no nonce survives, each stored
partial signature does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from .. import limits
from ..bitcoin.group import Known
from ..bitcoin.rules import Rule, RuleBroken
from ..bitcoin.transaction import Outpoint
from ..errors import LocalError, NetworkError, SerializationError, Timeout
from ..wire.envelope import Message
from . import journal, rounds
from .evidence import require_approved
from .group import SigningGroup
from .holding import Attempt, Holding
from .policy import Ask, Day, No, Policy, Yes, ask_always
from .proposal import Proposal
from .records import consent_digest
from .states import Event, State
from .verbs import (
    Approve,
    Approved,
    Asked,
    AttemptLost,
    KeyholderEffect,
    KeyholderInput,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    Resumed,
    Status,
    StatusIs,
    Store,
    Stored,
    Verb,
    Wipe,
    Wiped,
    Woken,
)

__all__ = ["Approvals", "Place", "Verifier"]

Verifier: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""(session id, what is consented to, proof) to whether a person said so. The node holds nothing that makes a proof."""


def _nobody(_session: bytes, _digest: bytes, _proof: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Our place in a group, and what our own wallet knows."""

    group: SigningGroup
    identity: bytes
    """Our own identity key; only its public half is here."""
    known: Known = field(default_factory=Known)
    policy: Policy = ask_always
    verifier: Verifier = _nobody
    nonce_ttl_s: float = limits.NONCE_TTL_S
    """How long secret nonces may wait, in memory, for the others': at most `NONCE_TTL_MAX_S`. Longer than the default
    only where people carry the rounds to and fro: a copy of the memory made meanwhile costs the key (THREATS.md K5)."""


class Approvals(ABC):
    """See the module. `handle` raises nothing: what cannot be done is answered with `Refused`."""

    def __init__(self, place: Place, draw: Callable[[int], bytes], records: Iterable[bytes]) -> None:
        place.group.require(place.identity)
        self.place = place
        self._group = place.group
        self._draw = draw
        self._held: dict[bytes, Holding] = {}
        self._signed: dict[bytes, frozenset[Outpoint]] = {}
        """The coins of what a partial signature has left for, once it is over: nothing else of it is needed."""
        self._after: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._now = 0.0
        self._forget_at = 0.0
        self._known = place.known
        """With the change that was signed: the gap begins behind it, also after a restart."""
        self._out: list[KeyholderEffect] = []
        self.epoch = draw(limits.BOOT_EPOCH_BYTES)
        for record in records:
            self._replay(journal.read(record))

    @abstractmethod
    def _make_nonces(self, verb: MakeNonces) -> None:
        """Begin an attempt. Raises NetworkError: it is refused."""

    @abstractmethod
    def _make_partials(self, verb: MakePartials) -> None:
        """Sign. Raises NetworkError: it is refused."""

    def handle(self, event: KeyholderInput, now: float) -> list[KeyholderEffect]:
        """Take one input and return its effects, to be performed in order.

        Args: `now` is seconds since 1970 by the keyholder's own clock, and never goes back.
        """
        self._now = now
        self._out = []
        self._forget_old()
        if isinstance(event, Stored):
            after = self._after.pop(event.number, None)
            if after is not None:
                after()
        elif isinstance(event, Resumed):
            self._resume()
        elif not isinstance(event, Woken):
            self._verb(event)
        return self._out

    def next_deadline(self) -> float | None:
        """Return when `Woken` is due: the oldest nonces die then."""
        return min((self._dies_at(one, one.live) for one in self._held.values() if one.live), default=None)

    def day(self) -> Day:
        """Return what was approved within the last 24 hours, for a policy that bounds it (`policyfile`)."""
        since = self._now - limits.POLICY_DAY_S
        counted = [one.review for one in self._held.values() if one.counts(since)]
        fee_sat = sum(review.fee_sat for review in counted)
        return Day(sum(review.sent_sat for review in counted) + fee_sat, fee_sat)

    def _verb(self, verb: Verb) -> None:
        try:
            if isinstance(verb, Approve):
                self._approve(verb)
            elif isinstance(verb, MakeNonces):
                self._make_nonces(verb)
            elif isinstance(verb, MakePartials):
                self._make_partials(verb)
            elif isinstance(verb, Wipe):
                self._wipe(verb)
            else:
                self._status(verb)
        except NetworkError as error:
            self._out.append(Refused(verb.session, type(verb), error.with_traceback(None)))  # it is kept

    def _store(self, entry: journal.Entry, after: Callable[[], None]) -> None:
        self._number += 1
        self._after[self._number] = after
        self._out.append(Store(self._number, journal.write(entry)))

    def _holding(self, session: bytes) -> Holding:
        """Return an approved session. Raises LocalError for any other, Timeout when it has expired."""
        holding = self._held.get(session)
        if holding is None or holding.state is not State.APPROVED:
            raise LocalError("no approval for this session", got=holding.state.value if holding else "unknown session")
        if self._now >= holding.proposal.expires_at:
            raise Timeout("the approval has expired")
        return holding

    # --- approve ------------------------------------------------------------------------------------------------------

    def _approve(self, verb: Approve) -> None:
        proposal = Proposal.open_untrusted(verb.proposal, self._group)
        holding = self._held.get(proposal.session)
        if holding is not None:
            return self._approve_again(holding)
        proposal.require_time(self._now)
        holding = self._judge(proposal)
        rivals = self._rivals(holding, verb.replaces)
        if self._needs_person(holding, verb, rivals):
            self._out.append(Asked(proposal.session, holding.digest, holding.review, rivals))
            return None
        self._give(holding, verb.replaces)
        return None

    def _give(self, holding: Holding, replaces: frozenset[bytes]) -> None:
        """Approve it in place of others, as soon as that is on disk."""
        for session in replaces & self._held.keys():
            self._wipe(Wipe(session))
        self._held[holding.session] = holding
        holding.approved_at = self._now
        self._remember(holding)
        given = journal.ApprovalGiven(holding.session, holding.digest, holding.proposal.envelope, int(self._now * 1000))
        self._store(given, lambda: self._approval_stored(holding))

    def _approval_stored(self, holding: Holding) -> None:
        if holding.state is State.STORING:
            holding.advance(Event.STORED)
            self._out.append(Approved(holding.session, holding.digest))

    def _approve_again(self, holding: Holding) -> None:
        if holding.state is State.WIPED:
            raise LocalError("the approval was revoked", hint="propose it again: a new session")
        if holding.state is State.APPROVED:
            self._out.append(Approved(holding.session, holding.digest))

    def _judge(self, proposal: Proposal) -> Holding:
        """Review it by our own wallet. Raises RuleBroken, or LocalError when there is nothing of ours to sign."""
        reviewed = proposal.review(self._group, self._known, self._now)
        if not 1 <= len(reviewed.slots) <= limits.SLOTS_MAX:
            raise LocalError("nothing here is ours to sign", got=f"{len(reviewed.slots)} slots")
        slots = rounds.contexts(self._group, reviewed.slots)
        return Holding(proposal, reviewed, slots, proposal.digest(self._group, reviewed))

    def _rivals(self, holding: Holding, replaces: frozenset[bytes]) -> frozenset[bytes]:
        """Return the sessions that its coins are locked for, and that a person may give up (THREATS.md P4, P5).

        Raises: LocalError for one that can be revoked instead, unless it is named; for all, where no person is asked.
        """
        locking = [one for one in self._held.values() if one.locks(self._now)]
        rivals = {one.session: one.released for one in locking if not one.outpoints.isdisjoint(holding.outpoints)}
        rivals |= {one: True for one, spent in self._signed.items() if not spent.isdisjoint(holding.outpoints)}
        for session, released in rivals.items():
            if session not in replaces and not (released and self._has_person):
                raise LocalError(
                    "another approval spends the same coin",
                    got=f"session {session.hex()[:8]}",
                    hint="cancel that session first, or have a person replace it",
                )
        if sum(not one.released and one.session not in replaces for one in locking) >= limits.SESSIONS_PER_GROUP_MAX:
            raise LocalError("too many open approvals", expected=f"at most {limits.SESSIONS_PER_GROUP_MAX}")
        return frozenset(rivals)

    @property
    def _has_person(self) -> bool:
        """Whether there is somebody to ask."""
        return self.place.verifier is not _nobody

    def _needs_person(self, holding: Holding, verb: Approve, rivals: frozenset[bytes]) -> bool:
        """Return whether a person must still be asked. Raises LocalError when the policy says no, or a proof is bad."""
        answer = self.place.policy(holding.review)
        if isinstance(answer, No):
            raise LocalError(f"the policy says no: {answer.reason}")
        if isinstance(answer, Yes) and not holding.review.confirm and not verb.replaces and not rivals:
            return False
        assert isinstance(answer, Yes | Ask)
        if not verb.proof or not rivals <= verb.replaces:
            return True
        digest = consent_digest(holding.digest, verb.replaces)
        if len(verb.proof) > limits.PROOF_MAX_BYTES or not self.place.verifier(holding.session, digest, verb.proof):
            raise LocalError("the proof of consent does not hold", hint="a person consents to one session and digest")
        return False

    # --- what both rounds have ----------------------------------------------------------------------------------------

    def _next_attempt(self, verb: MakeNonces) -> Holding:
        """End the attempt before, and return the session. Raises LocalError unless all approved and attempts rise."""
        holding = self._holding(verb.session)
        if not holding.attempt < verb.attempt <= limits.ATTEMPTS_MAX:
            raise LocalError(
                "attempts only rise", expected=f"{holding.attempt + 1} to {limits.ATTEMPTS_MAX}", got=verb.attempt
            )
        require_approved(self._group, self.place.identity, holding, verb.attempt, verb.approvals)
        self._lose(holding)
        holding.attempt = verb.attempt
        return holding

    def _nonces_stored(self, holding: Holding, attempt: Attempt) -> None:
        if attempt.state is State.STORING_NONCES:
            attempt.advance(Event.STORED)
            self._out.append(NoncesMade(holding.session, attempt.number, attempt.epoch, attempt.payload))

    def _require_unchanged(self, holding: Holding) -> None:
        """Recompute what was approved from what is about to be signed. Raises RuleBroken (X15)."""
        if holding.proposal.digest(self._group, holding.review) != holding.digest:
            raise RuleBroken(Rule.X15, "not what was approved", expected=holding.digest.hex())

    def _partials_stored(self, holding: Holding, attempt: Attempt, payload: bytes) -> None:
        holding.partials[attempt.number] = payload
        self._known = self._known.after(holding.review.last_change)
        if attempt.state is State.STORING_PARTIALS:
            attempt.advance(Event.STORED)
            self._out.append(PartialsMade(holding.session, attempt.number, payload))

    # --- wipe, status, time -------------------------------------------------------------------------------------------

    def _wipe(self, verb: Wipe) -> None:
        holding = self._held.get(verb.session)
        if holding is None:
            raise LocalError("no approval for this session")
        self._lose(holding)
        if holding.state is not State.WIPED:
            holding.advance(Event.WIPED)
        self._store(
            journal.ApprovalWiped(verb.session),
            lambda: self._out.append(Wiped(verb.session, holding.released)),
        )

    def _status(self, verb: Status) -> None:
        holding = self._held.get(verb.session)
        if holding is None or holding.state is State.STORING:
            self._out.append(StatusIs(verb.session, b"", 0, b"", self.epoch, wiped=False))
            return
        wiped = holding.state is State.WIPED
        partials = b"" if wiped else holding.partials.get(holding.attempt, b"")
        self._out.append(StatusIs(verb.session, holding.digest, holding.attempt, partials, self.epoch, wiped))

    def _lose(self, holding: Holding) -> Attempt | None:
        """End the attempt of a session. Returns the one that died of it."""
        attempt, holding.live = holding.live, None
        if attempt is None or not attempt.dies:
            return None
        attempt.advance(Event.LOST)
        return attempt

    def _forget_old(self) -> None:
        """Nonces beyond their time to live, or their session's, die before anything else happens (THREATS.md K5)."""
        if self._now < self._forget_at:
            return
        for holding in list(self._held.values()):
            if holding.live and self._now >= self._dies_at(holding, holding.live):
                self._tell_lost(holding)
            if holding.live or self._now < holding.proposal.expires_at:
                continue
            if not holding.released:
                del self._held[holding.session]
            elif self._now >= holding.approved_at + limits.POLICY_DAY_S:
                self._signed[holding.session] = holding.outpoints
                del self._held[holding.session]
        self._forget_at = min((at for one in self._held.values() for at in self._ages(one)), default=inf)

    def _dies_at(self, holding: Holding, live: Attempt) -> float:
        return min(live.born + self.place.nonce_ttl_s, holding.proposal.expires_at)

    def _ages(self, holding: Holding) -> Iterator[float]:
        """Yield when something about a session may have to be forgotten."""
        if holding.live:
            yield self._dies_at(holding, holding.live)
        for at in (holding.proposal.expires_at, holding.approved_at + limits.POLICY_DAY_S):
            if self._now < at:
                yield at

    def _remember(self, holding: Holding) -> None:
        """Have `_forget_old` look at this session in time."""
        self._forget_at = min((self._forget_at, *self._ages(holding)))

    def _resume(self) -> None:
        """Everything in memory dies, and a new boot epoch begins, as after a restart."""
        for holding in self._held.values():
            self._tell_lost(holding)
        self.epoch = self._draw(limits.BOOT_EPOCH_BYTES)

    def _tell_lost(self, holding: Holding) -> None:
        lost = self._lose(holding)
        if lost is not None:
            self._out.append(AttemptLost(holding.session, lost.number, lost.epoch))

    def _replay(self, entry: journal.Entry) -> None:
        if isinstance(entry, journal.ApprovalGiven):
            message = Message.from_bytes(entry.proposal).verify()
            holding = self._judge_again(Proposal.open_untrusted(message, self._group))
            if holding.digest != entry.digest:  # our own view of the wallet changed: it is not what was approved
                holding.state, holding.digest = State.WIPED, entry.digest
            holding.approved_at = entry.at_ms / 1000
            self._held[entry.session] = holding
            return
        found = self._held.get(entry.session)
        if found is None:
            raise SerializationError("the journal has a gap", expected="an approval before what follows from it")
        if isinstance(entry, journal.NoncesOut | journal.NoncesLent):
            found.attempt = entry.attempt
        elif isinstance(entry, journal.PartialsOut):
            found.partials[entry.attempt] = entry.payload
            self._known = self._known.after(found.review.last_change)
        elif isinstance(entry, journal.ApprovalWiped):
            found.state = State.WIPED

    def _judge_again(self, proposal: Proposal) -> Holding:
        holding = self._judge(proposal)
        holding.state = State.APPROVED
        return holding
