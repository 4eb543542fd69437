"""What is asked of a keyholder, and what it answers: plain values, so that it can live in a process of its own."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..bitcoin.review import Review
from ..errors import NetworkError
from ..wire.envelope import VerifiedMessage

__all__ = [
    "Approve",
    "Approved",
    "Asked",
    "AttemptLost",
    "KeyholderEffect",
    "KeyholderInput",
    "MakeNonces",
    "MakePartials",
    "NoncesMade",
    "PartialsMade",
    "Refused",
    "Reply",
    "Resumed",
    "Status",
    "StatusIs",
    "Store",
    "Stored",
    "Verb",
    "Wipe",
    "Wiped",
    "Woken",
]


class Approve(Struct, frozen=True):
    """Approve this proposal: by the policy, or with a person's proof over (session id, `consent_digest`).

    `replaces` names earlier sessions that spend the same coins and are to be left to this one (THREATS.md P5); only a
    person can say so.
    """

    proposal: VerifiedMessage
    proof: bytes = b""
    replaces: frozenset[bytes] = frozenset()

    @property
    def session(self) -> bytes:
        return self.proposal.session


class MakeNonces(Struct, frozen=True):
    """Begin an attempt. `approvals` are the signed approvals of all others; at a signer in star, the collector's signed
    `AttemptBegin` alone.
    """

    session: bytes
    attempt: int
    approvals: tuple[VerifiedMessage, ...]


class MakePartials(Struct, frozen=True):
    """Sign. `nonces` are the signed nonce messages of all others; at a signer in star, the collector's signed
    `AggregateNonces` alone.
    """

    session: bytes
    attempt: int
    nonces: tuple[VerifiedMessage, ...]


class Wipe(Struct, frozen=True):
    """Revoke the approval for good, and forget the secret nonces."""

    session: bytes


class Status(Struct, frozen=True):
    """Tell what the journal knows about a session."""

    session: bytes


Verb: TypeAlias = Approve | MakeNonces | MakePartials | Wipe | Status


class Stored(Struct, frozen=True):
    """The record with this number is on disk, and would survive a loss of power."""

    number: int


class Woken(Struct, frozen=True):
    """The deadline has come."""


class Resumed(Struct, frozen=True):
    """The clocks say that this machine slept, was restored or cloned (THREATS.md K5): nothing in memory counts."""


KeyholderInput: TypeAlias = Verb | Stored | Woken | Resumed


class Store(Struct, frozen=True):
    """Write this record to the journal, then say `Stored`. Numbers rise."""

    number: int
    record: bytes


class Approved(Struct, frozen=True):
    """The approval is on disk. `digest` is what it is for."""

    session: bytes
    digest: bytes


class Asked(Struct, frozen=True):
    """A person must say yes: to `digest`, having seen `review`.

    `replaces` are sessions that spend the same coins, and for which a partial signature of ours has left: nothing calls
    it back, so the coins stay theirs until a person gives them up. `Approve.replaces` must name them all.
    """

    session: bytes
    digest: bytes
    review: Review
    replaces: frozenset[bytes] = frozenset()


class NoncesMade(Struct, frozen=True):
    """The payload of our nonce message, and the boot epoch it belongs to. Its hash is on disk."""

    session: bytes
    attempt: int
    epoch: bytes
    payload: bytes


class PartialsMade(Struct, frozen=True):
    """The payload of our round-2 message. It is on disk, and every repeat is this one, byte for byte."""

    session: bytes
    attempt: int
    payload: bytes


class Wiped(Struct, frozen=True):
    """The approval is revoked. `released`: a partial signature had left before, which nothing can call back."""

    session: bytes
    released: bool


class StatusIs(Struct, frozen=True):
    """What the journal knows: the approved digest (empty if none), the last attempt, its partials (empty if none)."""

    session: bytes
    digest: bytes
    attempt: int
    partials: bytes
    epoch: bytes
    wiped: bool


class AttemptLost(Struct, frozen=True):
    """The nonces of this attempt are gone: too old, or the machine slept."""

    session: bytes
    attempt: int
    epoch: bytes


class Refused(Struct, frozen=True):
    """The verb was not carried out; nothing was approved, made or signed by it."""

    session: bytes
    verb: type[Verb]
    error: NetworkError


Reply: TypeAlias = Approved | Asked | NoncesMade | PartialsMade | Wiped | StatusIs | AttemptLost | Refused
KeyholderEffect: TypeAlias = Store | Reply
