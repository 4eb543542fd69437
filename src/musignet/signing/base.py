"""What every signing session has: its state, what it says, and its ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from ..bitcoin.finalise import FinalTransaction, finalise
from ..bitcoin.group import Known
from ..errors import NetworkError, PeerError, SerializationError
from ..limits import PROGRESS_NAMES_MAX, Limits
from ..wire.codec import Record
from ..wire.envelope import VerifiedMessage
from ..wire.messages import Abort, MessageType, payload_cap_bytes, payload_encode
from . import rounds
from .attempt import Collected
from .blame import Kind, Verdict, accuse, verify_blame
from .effects import End, Outcome, Progress, Publish, Save, Saved, SendToGroup, SessionEffect, write_end
from .group import SigningGroup
from .proposal import Proposal
from .records import TransactionComplete, encode
from .rounds import Slots
from .states import IN_ATTEMPT, Event, Role, State, step
from .verbs import Wipe

__all__ = ["ABORT_CODES", "Proved", "SessionBase"]

ABORT_CODES: Final[Mapping[End, int]] = {End.REFUSED: 1, End.CANCELLED: 2, End.SILENT: 3, End.OLD_DISK: 4}
"""What the code of an `Abort` says. Other ends need no word: everybody sees them, or is sent the proof."""


class Proved(Exception):
    """Inside this module: a cosigner's fault, with the messages that prove it."""

    def __init__(self, kind: Kind, evidence: Sequence[VerifiedMessage], nonces: Sequence[bytes] = ()) -> None:
        self.kind, self.evidence, self.nonces = kind, evidence, nonces
        super().__init__(kind.name)


class SessionBase:
    """See the module. `Session` is the whole.

    Raises: RuleBroken when the PSBT breaks a rule of our own wallet: nothing is begun then.
    """

    def __init__(
        self,
        group: SigningGroup,
        identity: bytes,
        proposal: Proposal,
        now: float,
        *,
        known: Known | None = None,
        bounds: Limits | None = None,
        by_hand: bool = False,
    ) -> None:
        self.group, self.identity, self.proposal = group, identity, proposal
        self.id: Final = proposal.session
        self.review = proposal.review(group, known or Known(), now)
        self.slots: Slots = rounds.contexts(group, self.review.slots)
        self.digest = proposal.digest(group, self.review)
        self.state = State.REVIEWING
        self.attempt = 0
        self.outcome: Outcome | None = None
        self.opened_at: Final = now
        self.released = False
        """Whether a partial signature of ours has left: nothing can call that back."""
        self._bounds = bounds or Limits()
        self._others = group.others(identity)
        self._everybody_else = frozenset(self._others)
        self._away: frozenset[bytes] = frozenset()
        self._by_mail: frozenset[bytes] = frozenset()
        """Whose part is carried to and fro: they are waited for without a clock, and the rounds run all the same."""
        self.by_hand: Final = by_hand
        """Whether our own part is: our key is in another signer."""
        self._hands: set[bytes] = set()
        """Members who are here, and said so of theirs."""
        self._reached = self._everybody_else
        self._again = False
        """Whether what is said now only repeats what may have been lost on a link."""
        self._message: VerifiedMessage | None = None
        self._approvals: dict[bytes, VerifiedMessage] = {}
        self._collected: dict[int, Collected] = {}
        self._silent: Counter[bytes] = Counter()
        self._answered: Counter[bytes] = Counter()
        self._began = now
        self._deadline = proposal.expires_at
        self._saves: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._now = now
        self._out: list[SessionEffect] = []

    @property
    def settled(self) -> bool:
        """Whether it has ended, and its owner knows."""
        return self.outcome is not None and not self._saves

    @property
    def completed(self) -> bool:
        """Whether its signatures are here."""
        return self.state is State.COMPLETED

    @property
    def waiting_for(self) -> tuple[bytes, ...]:
        """The identity keys of those whose contribution to this phase is not here, or who are away."""
        return tuple(self._waited_for())

    def _waited_for(self) -> Iterator[bytes]:
        if self.state in (State.COMPLETED, State.FAILED):
            return iter(())
        if self.state in IN_ATTEMPT:
            here = self._current.nonces if self.state is State.ROUND_1 else self._current.partials
            return (one for one in self._others if one not in here)
        return (one for one in self._others if one not in self._approvals or one in self._away)

    @property
    def _current(self) -> Collected:
        return self._at(self.attempt)

    def _at(self, attempt: int) -> Collected:
        return self._collected.setdefault(attempt, Collected(attempt))

    def _send(self, kind: MessageType, payload: bytes, to: bytes | None = None) -> None:
        if len(payload) > payload_cap_bytes(kind):
            return  # the list of many signers' nonces: what it would prove stays unproved
        self.released = self.released or kind is MessageType.PARTIAL_SIGNATURE
        self._out.append(SendToGroup(kind, self.id, payload, to, self._again))

    def _say(self, kind: MessageType, record: Record, to: bytes | None = None) -> None:
        self._send(kind, encode(record), to)

    def _save(self, record: bytes, after: Callable[[], None]) -> None:
        self._number += 1
        self._saves[self._number] = after
        self._out.append(Save(self.id, self._number, record))

    def _saved(self, event: Saved) -> None:
        after = self._saves.pop(event.number, None)
        if after is not None:
            after()

    def _advance(self, event: Event) -> None:
        self.state = step(Role.SIGNER, self.state, event)
        self._publish_progress()

    def _publish_progress(self) -> None:
        shown = tuple(islice(self._waited_for(), PROGRESS_NAMES_MAX))
        away = tuple(one for one in shown if one in self._away)
        self._out.append(Publish(Progress(self.id, self.state, self.attempt, shown, away)))

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _complete(self, signatures: tuple[bytes, ...], *, on_disk: bool = False, heard: bool = False) -> None:
        if self.state is State.COMPLETED:
            return
        by_input = {one.slot.input_index: mine for one, mine in zip(self.slots, signatures, strict=True)}
        transaction: FinalTransaction | None = None
        error: NetworkError | None = None
        try:
            transaction = finalise(self.proposal.psbt, self.review, by_input)
        except NetworkError as raised:  # inputs of strangers that are not signed yet
            error = raised.with_traceback(None)
        self._advance(Event.COMPLETED)
        self.outcome = outcome = Outcome(self.id, End.COMPLETED, signatures, transaction, error=error)
        payload = encode(TransactionComplete(b"".join(signatures)))

        def saved() -> None:
            if self._spreads(heard):
                self._send(MessageType.TRANSACTION_COMPLETE, payload)
            self._out.append(Publish(outcome))

        if on_disk:
            saved()
        else:
            self._save(b"\x02" + self.id + payload, saved)

    def _spreads(self, heard: bool) -> bool:
        """Return whether we tell everybody how it ended; `heard`: somebody told us."""
        return True

    def _blame(self, proof: Proved) -> None:
        message = proof.evidence[0]
        try:
            record = accuse(proof.kind, self.proposal, proof.evidence, proof.nonces)
            verdict = verify_blame(record, self.group)
        except SerializationError as error:  # too large to carry; we know it all the same
            record, verdict = b"", Verdict(message.sender_key, proof.kind, self.id)
            self._end(End.BLAMED, verdict=verdict, error=error.with_traceback(None))
            return
        except PeerError as error:
            self._end(End.ABORTED, suspects=(message.sender_key,), error=error.with_traceback(None))
            return
        self._end(End.BLAMED, verdict=verdict, blame=record)

    def _end(
        self,
        end: End,
        *,
        suspects: tuple[bytes, ...] = (),
        verdict: Verdict | None = None,
        blame: bytes = b"",
        error: NetworkError | None = None,
        heard: bool = False,
    ) -> None:
        """End it, revoke our approval, and tell the others unless they have said so themselves."""
        if self.outcome is not None:
            return
        self.outcome = outcome = Outcome(self.id, end, suspects=suspects, verdict=verdict, blame=blame, error=error)
        self._advance(Event.FAILED)
        self._out.append(Wipe(self.id))
        self._save(write_end(self.id, end, blame), lambda: self._out.append(Publish(outcome)))
        if blame and self._spreads(heard):
            self._send(MessageType.BLAME, blame)
        elif end in ABORT_CODES:
            self._say_abort(end, error)

    def _say_abort(self, end: End, error: NetworkError | None, to: bytes | None = None) -> None:
        text = str(error)[:200] if error else end.value
        self._send(MessageType.ABORT, payload_encode(MessageType.ABORT, Abort(ABORT_CODES[end], text)), to)
