"""Portable proof of who broke a ceremony: the signed messages themselves, for anybody to check without a network.

What is only suspected - silence, another transcript that nobody explained - is never in a blame record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta

from .. import limits
from ..bitcoin.finalise import verify_signature
from ..bitcoin.group import Known
from ..errors import InvalidMessage, PeerError, SerializationError
from ..text import short_key
from ..wire.codec import Codec, Record
from ..wire.envelope import Message, VerifiedMessage
from ..wire.messages import MessageType
from . import rounds
from .group import SigningGroup
from .proposal import Proposal, require_member
from .records import (
    AggregateNonces,
    Approval,
    AttemptBegin,
    NonceList,
    PartialSignature,
    PublicNonce,
    Topology,
    TransactionComplete,
    decode_untrusted,
    nonce_root,
    split,
    star_transcript_hash,
    transcript_hash,
)

__all__ = ["BlameRecord", "Kind", "Verdict", "accuse", "list_payloads", "read_contribution", "verify_blame"]


class Kind(IntEnum):
    """What was done."""

    BAD_PARTIAL = 1
    """A partial signature that does not verify under the very transcript its sender signed."""
    EQUIVOCATION = 2
    """Two payloads where there may be one: same session, attempt, boot epoch and type."""
    MALFORMED = 3
    """A message that no honest node makes: undecodable, no points, or not one part for each slot."""
    WRONG_COMPLETION = 4
    """Signatures that do not hold, said to be final."""
    WRONG_TRANSCRIPT = 5
    """A transcript that does not follow from the nonces which the sender says it is of."""
    WRONG_AGGREGATE = 6
    """Star: an aggregate nonce that is not the sum, or not of the root, of the nonces its collector shows for it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a blame record proves."""

    accused: bytes
    """33 bytes: the identity key of the one at fault."""
    kind: Kind
    session: bytes
    slot: int | None = None
    """Which signature it was about, counted from 0; None where it is about the whole message."""

    def __str__(self) -> str:
        at = "" if self.slot is None else f", slot {self.slot}"
        return f"key {short_key(self.accused)} is proved at fault: {self.kind.name.lower().replace('_', ' ')}{at}"


class BlameRecord(Record, frozen=True):
    """The proof. Envelopes are whole signed messages; `nonces` are payloads that a signed transcript commits to.

    In mesh those are everybody's nonces. In star it is the collector's aggregate: the accused signed for that very one,
    so it needs nobody else's signature.
    """

    kind: Annotated[int, Meta(ge=1, le=len(Kind))]
    proposal: Annotated[bytes, Meta(max_length=limits.MESSAGE_MAX_BYTES)]
    evidence: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=2)]
    nonces: Annotated[tuple[bytes, ...], Meta(max_length=limits.GROUP_KEYS_MAX)]


_codec: Final = Codec(BlameRecord)


def accuse(kind: Kind, proposal: Proposal, evidence: Sequence[VerifiedMessage], nonces: Sequence[bytes] = ()) -> bytes:
    """Return a blame record. Raises SerializationError when it would be too large to carry."""
    raw = tuple(message.to_bytes() for message in evidence)
    record = _codec.check(BlameRecord(kind, proposal.envelope, raw, tuple(nonces)))
    if len(record) > limits.BLAME_MAX_BYTES:
        raise SerializationError("the proof is too large", expected=limits.BLAME_MAX_BYTES, got=len(record))
    return record


def verify_blame(record: bytes, group: SigningGroup) -> Verdict:
    """Check a blame record by itself: no network, no journal, nobody's word.

    Raises: SerializationError when it is none; InvalidMessage (or another PeerError of a message in it) when it does
            not prove what it says. That says nothing about who is at fault instead.
    """
    read = _codec.decode_untrusted(record)
    case = _Case.open(read, group)
    slot = _CHECKS[case.proposal.record.topology, Kind(read.kind)](case)
    return Verdict(case.messages[0].sender_key, Kind(read.kind), case.proposal.session, slot)


class _Case:
    """A blame record, opened: its messages verified, and the slots of its proposal."""

    __slots__ = ("digest", "group", "messages", "nonces", "proposal", "slots")

    def __init__(
        self, group: SigningGroup, proposal: Proposal, messages: Sequence[VerifiedMessage], nonces: Sequence[bytes]
    ) -> None:
        reviewed = proposal.review(group, Known(), 0.0)
        self.group, self.proposal, self.messages, self.nonces = group, proposal, messages, nonces
        self.slots = rounds.contexts(group, reviewed.slots)
        self.digest = proposal.digest(group, reviewed)

    @classmethod
    def open(cls, read: BlameRecord, group: SigningGroup) -> _Case:
        proposal = Proposal.open_untrusted(Message.from_bytes(read.proposal).verify(), group)
        messages = [Message.from_bytes(raw).verify() for raw in read.evidence]
        for message in messages:
            _require(isinstance(message.type, MessageType), "messages of a ceremony")
            require_member(message, group, MessageType(message.type), proposal.session)
            _require(message.sender_key == messages[0].sender_key, "the messages of one sender")
        return cls(group, proposal, messages, read.nonces)

    def pair(self) -> tuple[VerifiedMessage, VerifiedMessage]:
        _require(len(self.messages) == 2, "two messages")
        return self.messages[0], self.messages[1]

    def approved(self) -> VerifiedMessage:
        """Return the first message of a sender who approved these very slots: so they know how many there are."""
        message, approval = self.pair()
        _require(approval.type in (MessageType.APPROVAL, MessageType.ATTEMPT_BEGIN), "an approval")
        read = decode_untrusted(approval.type, approval.payload)
        assert isinstance(read, Approval | AttemptBegin)
        _require(read.digest == self.digest, "an approval of this proposal")
        return message


def _require(held: bool, expected: str) -> None:
    if not held:
        raise InvalidMessage("this blame record proves nothing", expected=expected)


def _bad_partial(case: _Case) -> int:
    signed = decode_untrusted(MessageType.PARTIAL_SIGNATURE, case.messages[0].payload)
    _require(case.messages[0].type == MessageType.PARTIAL_SIGNATURE, "a partial signature")
    _require(isinstance(signed, PartialSignature) and len(case.nonces) == len(case.group.identities), "all nonces")
    assert isinstance(signed, PartialSignature)
    payloads = dict(zip(case.group.identities, case.nonces, strict=True))
    right = _transcript(case.group, case.proposal.session, signed.attempt, case.digest, payloads)
    _require(right == signed.transcript, "the nonces that the accused signed for")
    points = {one: rounds.parse_nonces(case.slots, one, _nonce(payloads[one]).nonces) for one in payloads}
    accused = case.messages[0].sender_key
    partials = split(signed.partials, limits.PARTIAL_BYTES, len(case.slots))
    for at, session in enumerate(rounds.signing_sessions(case.slots, points)):
        signer = case.slots[at].places[accused]
        if not session.partial_verify(signer, points[accused][at], partials[at]):
            return at
    raise InvalidMessage("this blame record proves nothing", expected="a partial signature that does not verify")


def _bad_partial_in_star(case: _Case) -> int:
    """The accused signed a transcript of this aggregate, and their own nonce: other sums are no excuse."""
    partial, nonce_message = case.pair()
    _require(partial.type == MessageType.PARTIAL_SIGNATURE, "a partial signature")
    _require(nonce_message.type == MessageType.PUBLIC_NONCE, "the nonces of the accused")
    _require(len(case.nonces) == 1, "the aggregate that was signed for")
    signed = decode_untrusted(MessageType.PARTIAL_SIGNATURE, partial.payload)
    aggregate = decode_untrusted(MessageType.AGGREGATE_NONCE, case.nonces[0])
    nonce = _nonce(nonce_message.payload)
    assert isinstance(signed, PartialSignature)
    assert isinstance(aggregate, AggregateNonces)
    _require((signed.attempt, signed.epoch) == (nonce.attempt, nonce.epoch), "the nonces of this partial signature")
    about = (case.group, case.proposal.session, signed.attempt, case.digest)
    right = star_transcript_hash(*about, aggregate.root, aggregate.aggregates)
    _require(right == signed.transcript, "the aggregate that the accused signed for")
    points = rounds.parse_nonces(case.slots, partial.sender_key, nonce.nonces)
    partials = split(signed.partials, limits.PARTIAL_BYTES, len(case.slots))
    for at, session in enumerate(rounds.aggregate_sessions(case.slots, aggregate.aggregates)):
        if not session.partial_verify(case.slots[at].places[partial.sender_key], points[at], partials[at]):
            return at
    raise InvalidMessage("this blame record proves nothing", expected="a partial signature that does not verify")


def _wrong_aggregate(case: _Case) -> None:
    aggregate_message, list_message = case.pair()
    _require(aggregate_message.type == MessageType.AGGREGATE_NONCE, "an aggregate nonce")
    said = decode_untrusted(MessageType.AGGREGATE_NONCE, aggregate_message.payload)
    assert isinstance(said, AggregateNonces)
    payloads = list_payloads(list_message, case.group)
    own = _nonce(payloads[list_message.sender_key])
    _require((said.attempt, said.epoch) == (own.attempt, own.epoch), "the same attempt of the same boot epoch")
    signed = {one: (_nonce(payload).epoch, payload) for one, payload in payloads.items()}
    points = {one: rounds.parse_nonces(case.slots, one, _nonce(payload).nonces) for one, payload in payloads.items()}
    sums = rounds.encoded_aggregates(rounds.signing_sessions(case.slots, points))
    right = (nonce_root(case.group, signed), sums)
    _require((said.root, said.aggregates) != right, "another root or sum than those of the list")


def _equivocation(case: _Case) -> None:
    first, second = (_stated(message) for message in case.pair())
    _require(first[0] == second[0], "two messages for one session, attempt, boot epoch and type")
    _require(first[1] != second[1], "two different payloads")


def _stated(message: VerifiedMessage) -> tuple[tuple[int, int, bytes], bytes]:
    """Return what a message says once and for all, and for what (type, attempt, boot epoch)."""
    read = decode_untrusted(message.type, message.payload)
    if isinstance(read, NonceList):  # what its sender says that it sent itself
        own = _nonce(read.own)
        _require(own.attempt == read.attempt, "a list of one attempt")
        return (MessageType.PUBLIC_NONCE, own.attempt, own.epoch), read.own
    _require(isinstance(read, PublicNonce | AggregateNonces | PartialSignature), "nonces or partial signatures")
    assert isinstance(read, PublicNonce | AggregateNonces | PartialSignature)
    return (message.type, read.attempt, read.epoch), message.payload


def _malformed(case: _Case) -> None:
    message = case.approved()
    _require(message.type in _CONTRIBUTIONS, "a contribution to a signature")
    try:
        read_contribution(message, case.slots)
    except PeerError:
        return
    raise InvalidMessage("this blame record proves nothing", expected="a malformed message")


def _wrong_completion(case: _Case) -> int:
    message = case.approved()
    _require(message.type == MessageType.TRANSACTION_COMPLETE, "a completion")
    read = read_contribution(message, case.slots)
    assert isinstance(read, TransactionComplete)
    signatures = split(read.signatures, limits.SIGNATURE_BYTES, len(case.slots))
    for at, (context, signature) in enumerate(zip(case.slots, signatures, strict=True)):
        if not verify_signature(context.slot, signature):
            return at
    raise InvalidMessage("this blame record proves nothing", expected="a signature that does not hold")


def _wrong_transcript(case: _Case) -> None:
    signed_message, list_message = case.pair()
    _require(signed_message.type == MessageType.PARTIAL_SIGNATURE, "a partial signature")
    signed = decode_untrusted(MessageType.PARTIAL_SIGNATURE, signed_message.payload)
    payloads = list_payloads(list_message, case.group)
    assert isinstance(signed, PartialSignature)
    own = _nonce(payloads[list_message.sender_key])
    _require((signed.attempt, signed.epoch) == (own.attempt, own.epoch), "the same attempt of the same boot epoch")
    right = _transcript(case.group, case.proposal.session, signed.attempt, case.digest, payloads)
    _require(right != signed.transcript, "a transcript that is not that of the list")


def _transcript(
    group: SigningGroup, session: bytes, attempt: int, digest: bytes, payloads: Mapping[bytes, bytes]
) -> bytes:
    nonces = {one: (_nonce(payload).epoch, payload) for one, payload in payloads.items()}
    return transcript_hash(group, session, attempt, digest, nonces)


def _nonce(payload: bytes) -> PublicNonce:
    read = decode_untrusted(MessageType.PUBLIC_NONCE, payload)
    assert isinstance(read, PublicNonce)
    return read


def list_payloads(message: VerifiedMessage, group: SigningGroup) -> dict[bytes, bytes]:
    """Return the nonce payloads of a signed list, by identity key, its sender's own one included.

    Raises: PeerError when it is not one signed nonce message of each other member, all of the list's attempt.
    """
    listed = list_messages(message, group)
    payloads = {one.sender_key: one.payload for one in listed}
    read = decode_untrusted(MessageType.NONCE_LIST, message.payload)
    assert isinstance(read, NonceList)
    payloads[message.sender_key] = read.own
    attempts = {_nonce(payload).attempt for payload in payloads.values()}
    _require(set(payloads) == set(group.identities) and attempts == {read.attempt}, "one of each member")
    return payloads


def list_messages(message: VerifiedMessage, group: SigningGroup) -> list[VerifiedMessage]:
    """Return the messages in a list, each verified, from others than the list's sender. Raises PeerError."""
    _require(message.type == MessageType.NONCE_LIST, "a list of nonces")
    read = decode_untrusted(MessageType.NONCE_LIST, message.payload)
    assert isinstance(read, NonceList)
    _require(len(read.envelopes) < len(group.identities), "one of each other member")
    messages = [Message.from_bytes(raw).verify() for raw in read.envelopes]
    for one in messages:
        require_member(one, group, MessageType.PUBLIC_NONCE, message.session)
        _require(one.sender_key != message.sender_key, "the messages of others")
    return messages


def read_contribution(message: VerifiedMessage, slots: Sequence[rounds.SlotContext]) -> Record:
    """Return what a nonce, an aggregate, a partial signature or a completion says, in full length, with its points.

    Raises: PeerError for a message that no honest node makes.
    """
    read = decode_untrusted(message.type, message.payload)
    if isinstance(read, PublicNonce):
        rounds.parse_nonces(slots, message.sender_key, read.nonces)
    elif isinstance(read, AggregateNonces):
        rounds.parse_aggregates(slots, read.aggregates)
    elif isinstance(read, PartialSignature):
        split(read.partials, limits.PARTIAL_BYTES, len(slots))
    elif isinstance(read, TransactionComplete):
        split(read.signatures, limits.SIGNATURE_BYTES, len(slots))
    return read


_CONTRIBUTIONS: Final = frozenset(
    (
        MessageType.PUBLIC_NONCE,
        MessageType.AGGREGATE_NONCE,
        MessageType.PARTIAL_SIGNATURE,
        MessageType.TRANSACTION_COMPLETE,
    )
)


def _no_such_fault(_: _Case) -> None:
    raise InvalidMessage("this blame record proves nothing", expected="a fault that there is in this topology")


_COMMON: Final = {
    Kind.EQUIVOCATION: _equivocation,
    Kind.MALFORMED: _malformed,
    Kind.WRONG_COMPLETION: _wrong_completion,
}
_MESH: Final = {
    **_COMMON,
    Kind.BAD_PARTIAL: _bad_partial,
    Kind.WRONG_TRANSCRIPT: _wrong_transcript,
    Kind.WRONG_AGGREGATE: _no_such_fault,
}
_STAR: Final = {
    **_COMMON,
    Kind.BAD_PARTIAL: _bad_partial_in_star,
    Kind.WRONG_TRANSCRIPT: _no_such_fault,
    Kind.WRONG_AGGREGATE: _wrong_aggregate,
}
_CHECKS: Final[Mapping[tuple[Topology, Kind], Callable[[_Case], int | None]]] = {
    (topology, kind): check
    for topology, checks in ((Topology.MESH, _MESH), (Topology.STAR, _STAR))
    for kind, check in checks.items()
}
