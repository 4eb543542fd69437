"""Cosigners that lie: what becomes of a message of theirs on its way to one recipient.

A liar is an honest node with a lying mouth: it knows every secret of its own machine, and signs what it likes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from ..crypto.keys import Identity
from ..limits import SIGNATURE_BYTES
from ..signing.records import (
    AggregateNonces,
    Approval,
    AttemptBegin,
    AttemptFailed,
    PartialSignature,
    PublicNonce,
    TransactionComplete,
    TransactionProposal,
    decode_untrusted,
    encode,
    session_id,
)
from ..wire.messages import MessageType

__all__ = ["COLLECTORS", "LIARS", "Mouth", "Said", "false_nonces"]


class Said(NamedTuple):
    """A payload of a ceremony, as it would stand in a signed message."""

    kind: int
    session: bytes
    payload: bytes


@dataclass
class Mouth:
    """What a liar knows beside the message itself."""

    key: bytes
    victim: bytes
    """The one who is told something else."""
    inputs: int
    pick: random.Random
    spoken: list[Said] = field(default_factory=list)
    """Everything this liar has said."""


Lie: TypeAlias = Callable[[Mouth, Said, bytes], list[Said]]
"""(what the liar knows, what its node says, to whom) to what is sent: the first in its place, more beside it."""

_POINTS: Final = b"".join(Identity.from_secret(bytes((7, number)) * 16).pubkey for number in (1, 2))


def false_nonces(payload: bytes) -> bytes:
    """Return the same message with another first nonce."""
    read = decode_untrusted(MessageType.PUBLIC_NONCE, payload)
    assert isinstance(read, PublicNonce)
    return encode(replace(read, nonces=_POINTS + read.nonces[len(_POINTS) :]))


def _unfinished(said: Said) -> list[Said]:
    """A liar could finish the transaction with the others' partials; these do not say so."""
    return [] if said.kind == MessageType.TRANSACTION_COMPLETE else [said]


def _bad_partial(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind != MessageType.PARTIAL_SIGNATURE:
        return _unfinished(said)
    read = decode_untrusted(said.kind, said.payload)
    assert isinstance(read, PartialSignature)
    bad = read.partials[:-1] + bytes((read.partials[-1] ^ 1,))
    return [said._replace(payload=encode(replace(read, partials=bad)))]


def _two_nonces(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind == MessageType.PUBLIC_NONCE and to == mouth.victim:
        return [said._replace(payload=false_nonces(said.payload))]
    return [said]


def _both_nonces(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    """Two nonces to one recipient."""
    if said.kind == MessageType.PUBLIC_NONCE and to == mouth.victim:
        return [said, said._replace(payload=false_nonces(said.payload))]
    return [said]


def _two_proposals(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind != MessageType.TRANSACTION_PROPOSAL or to != mouth.victim:
        return [said]
    read = decode_untrusted(said.kind, said.payload)
    assert isinstance(read, TransactionProposal)
    other = replace(read, memo="another one")
    return [Said(said.kind, session_id(mouth.key, other), encode(other))]


def _wrong_approval(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind == MessageType.APPROVAL and to == mouth.victim:
        read = decode_untrusted(said.kind, said.payload)
        assert isinstance(read, Approval)
        return [said._replace(payload=encode(replace(read, digest=bytes(32))))]
    return [said]


def _silent(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    return [said] if said.kind in (MessageType.TRANSACTION_PROPOSAL, MessageType.APPROVAL) else []


def _last_mover(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    """Waits for everybody's partial signature and keeps its own."""
    return [] if said.kind == MessageType.PARTIAL_SIGNATURE else _unfinished(said)


def _wrong_completion(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind != MessageType.PARTIAL_SIGNATURE:
        return _unfinished(said)
    wrong = TransactionComplete(bytes(SIGNATURE_BYTES * mouth.inputs))
    return [Said(MessageType.TRANSACTION_COMPLETE, said.session, encode(wrong))]


def _nonce_stripper(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind != MessageType.PUBLIC_NONCE:
        return [said]
    read = decode_untrusted(said.kind, said.payload)
    assert isinstance(read, PublicNonce)
    stripped = read.nonces[len(_POINTS) :] or bytes(len(_POINTS))
    return [said._replace(payload=encode(replace(read, nonces=stripped)))]


def _wrong_transcript(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    if said.kind != MessageType.PARTIAL_SIGNATURE:
        return _unfinished(said)
    read = decode_untrusted(said.kind, said.payload)
    assert isinstance(read, PartialSignature)
    return [said._replace(payload=encode(replace(read, transcript=bytes(32))))]


def _replayer(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    """The truth, and whatever was said before: by this liar in any attempt and session, and by others in its name."""
    count = min(3, len(mouth.spoken))
    return [said, *mouth.pick.sample(mouth.spoken, count)]


LIARS: Final[Mapping[str, Lie]] = {
    "bad partial": _bad_partial,
    "two nonces": _two_nonces,
    "both nonces": _both_nonces,
    "two proposals": _two_proposals,
    "wrong approval": _wrong_approval,
    "silent": _silent,
    "last mover": _last_mover,
    "wrong completion": _wrong_completion,
    "nonce stripper": _nonce_stripper,
    "wrong transcript": _wrong_transcript,
    "replayer": _replayer,
}


# --- lies of a star, told when it is the liar's turn to collect ------------------------------------------------------


def _silent_collector(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    hidden = (MessageType.ATTEMPT_BEGIN, MessageType.ATTEMPT_FAILED, MessageType.TRANSACTION_COMPLETE)
    return [] if said.kind in hidden else [said]


def _aggregate(said: Said, **changes: bytes) -> list[Said]:
    read = decode_untrusted(said.kind, said.payload)
    assert isinstance(read, AggregateNonces)
    return [said._replace(payload=encode(replace(read, **changes)))]


def _wrong_sum(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    return _aggregate(said, aggregates=_POINTS * mouth.inputs) if _sums(said) else _unfinished(said)


def _wrong_root(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    return _aggregate(said, root=bytes(32)) if _sums(said) else _unfinished(said)


def _two_aggregates(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    """Each signer is sent another root."""
    return _aggregate(said, root=to[1:]) if _sums(said) else _unfinished(said)


def _sums(said: Said) -> bool:
    return said.kind == MessageType.AGGREGATE_NONCE


def _false_silence(mouth: Mouth, said: Said, to: bytes) -> list[Said]:
    """An honest signer is said to be silent."""
    if said.kind != MessageType.ATTEMPT_BEGIN:
        return [] if said.kind == MessageType.AGGREGATE_NONCE else _unfinished(said)
    read = decode_untrusted(said.kind, said.payload)
    assert isinstance(read, AttemptBegin)
    false = AttemptFailed(read.attempt, (mouth.victim,), ())
    return [Said(MessageType.ATTEMPT_FAILED, said.session, encode(false))]


COLLECTORS: Final[Mapping[str, Lie]] = {
    "silent collector": _silent_collector,
    "wrong sum": _wrong_sum,
    "wrong root": _wrong_root,
    "two aggregates": _two_aggregates,
    "false silence": _false_silence,
}
