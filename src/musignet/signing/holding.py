"""What a keyholder remembers of one session, and of the attempt whose secret nonces are alive."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..bitcoin.review import Review
from ..bitcoin.transaction import Outpoint
from ..crypto.keys import SigningKey
from ..crypto.secret_nonces import SecretNonces
from .proposal import Proposal
from .records import Topology
from .rounds import Slots
from .states import TRANSITIONS, Event, Role, State, step

__all__ = ["Attempt", "Holding", "SecretAttempt"]


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt, and the boot epoch that its nonces belong to."""

    number: int
    epoch: bytes
    born: float
    payload: bytes = b""
    """Of our nonce message."""
    state: State = State.STORING_NONCES

    @property
    def dies(self) -> bool:
        """Whether there is something to lose: it is neither signed nor gone."""
        return Event.LOST in TRANSITIONS[Role.ATTEMPT][self.state]

    def advance(self, event: Event) -> None:
        """Go on. Raises LocalError where the table has no way."""
        self.state = step(Role.ATTEMPT, self.state, event)


@dataclass(slots=True, eq=False)
class SecretAttempt(Attempt):
    """One attempt whose secret nonces are here; they are taken once."""

    secrets: SecretNonces = field(kw_only=True)


@dataclass(slots=True, eq=False)
class Holding:
    """One session at the keyholder."""

    proposal: Proposal
    review: Review
    slots: Slots
    digest: bytes
    approved_at: float = 0.0
    """Seconds since 1970."""
    state: State = State.STORING
    attempt: int = 0
    """The highest that nonces were made for, by the journal."""
    live: Attempt | None = None
    partials: dict[int, bytes] = field(default_factory=dict)
    """Attempt to the round-2 payload that is on disk."""
    keys: dict[bytes, SigningKey] = field(default_factory=dict)
    """Below our key, for as long as the attempt needs them: each is in a locked page of its own."""
    outpoints: frozenset[Outpoint] = field(init=False)
    """What it spends."""

    def __post_init__(self) -> None:
        self.outpoints = frozenset(txin.outpoint for txin in self.proposal.psbt.tx.inputs)

    @property
    def session(self) -> bytes:
        return self.proposal.session

    @property
    def topology(self) -> Topology:
        return self.proposal.record.topology

    @property
    def released(self) -> bool:
        """Whether a partial signature may have left: nothing can call it back."""
        return bool(self.partials)

    def forget_keys(self) -> None:
        for key in self.keys.values():
            key.wipe()
        self.keys.clear()

    def counts(self, since: float) -> bool:
        """Whether it spends from what a policy allows since then: it may be signed, or it was."""
        return self.approved_at > since and (self.released or self.state is not State.WIPED)

    def locks(self, now: float) -> bool:
        """Whether its coins are not free for another approval."""
        return self.released or (self.state is not State.WIPED and now < self.proposal.expires_at)

    def advance(self, event: Event) -> None:
        """Go on. Raises LocalError where the table has no way."""
        self.state = step(Role.APPROVAL, self.state, event)
