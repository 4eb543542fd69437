"""What the messages of a ceremony carry, and the hashes that tie them together.

Who said it stands in the signed envelope, never here; so do the group (the recipient) and the session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from .. import limits
from ..bitcoin.slots import SigningSlot
from ..bitcoin.transaction import compact_size, with_size
from ..crypto.schnorr import TaggedHash
from ..errors import SerializationError
from ..wire.codec import Codec, Record
from ..wire.messages import BootEpoch, Label, MessageType, Millis
from .group import SigningGroup

__all__ = [
    "AggregateNonces",
    "AggregateShown",
    "Approval",
    "AttemptBegin",
    "AttemptFailed",
    "AttemptGone",
    "ListWanted",
    "NonceList",
    "PartialSignature",
    "PublicNonce",
    "Topology",
    "TransactionComplete",
    "TransactionProposal",
    "approval_digest",
    "consent_digest",
    "decode_untrusted",
    "encode",
    "named",
    "nonce_root",
    "payload_hash",
    "session_id",
    "split",
    "star_transcript_hash",
    "transcript_hash",
]

Hash32: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Attempt: TypeAlias = Annotated[int, Meta(ge=1, le=limits.ATTEMPTS_MAX)]
Key33: TypeAlias = Annotated[bytes, Meta(min_length=33, max_length=33)]
Names: TypeAlias = Annotated[tuple[Key33, ...], Meta(max_length=limits.PROGRESS_NAMES_MAX)]
LastAttempt: TypeAlias = Annotated[int, Meta(ge=0, le=limits.ATTEMPTS_MAX)]


class Topology(IntEnum):
    """Which way the messages of a session go. The proposal says it, so everybody is of one mind."""

    MESH = 0
    """Everybody sends to everybody: the quickest, for up to about 15."""
    STAR = 1
    """Everybody sends to the collector of the attempt: the cost of each signer is the same in a group of any size."""


class TransactionProposal(Record, frozen=True):
    """Please sign this. The session id follows from it and from who signed the message around it."""

    group: Hash32
    random: Hash32
    """Drawn by the proposer, so that the same PSBT can be proposed again."""
    expires_at_ms: Millis
    psbt: Annotated[bytes, Meta(min_length=1, max_length=limits.PSBT_MAX_BYTES)]
    memo: Label
    """The proposer's words: shown, never trusted (THREATS.md X16)."""
    topology: Topology = Topology.MESH


class Approval(Record, frozen=True):
    """I will sign that. `digest` is `approval_digest`."""

    digest: Hash32
    turn: LastAttempt = 0
    """Star: the attempt that its sender awaits, so that nobody waits for another collector. 0 in mesh."""
    by_hand: bool = False
    """Mesh: a person carries its sender's part in the rounds to another signer and back. They are waited for without a
    clock."""


class PublicNonce(Record, frozen=True):
    """Round 1. `epoch` is the boot epoch of the keyholder that made the nonces: 66 bytes for each slot."""

    attempt: Attempt
    epoch: BootEpoch
    nonces: Annotated[
        bytes,
        Meta(min_length=limits.PUBLIC_NONCE_BYTES, max_length=limits.PUBLIC_NONCE_BYTES * limits.SLOTS_MAX),
    ]


class PartialSignature(Record, frozen=True):
    """Round 2: 32 bytes for each slot, and the transcript under which they were made."""

    attempt: Attempt
    epoch: BootEpoch
    transcript: Hash32
    partials: Annotated[
        bytes, Meta(min_length=limits.PARTIAL_BYTES, max_length=limits.PARTIAL_BYTES * limits.SLOTS_MAX)
    ]


class TransactionComplete(Record, frozen=True):
    """The final signatures: 64 bytes for each slot."""

    signatures: Annotated[
        bytes, Meta(min_length=limits.SIGNATURE_BYTES, max_length=limits.SIGNATURE_BYTES * limits.SLOTS_MAX)
    ]


class AttemptGone(Record, frozen=True):
    """I restarted: my nonces up to this attempt are gone, and I may have missed what you said. 0: I had made none."""

    attempt: LastAttempt
    epoch: BootEpoch


class AttemptFailed(Record, frozen=True):
    """I do not go on with this attempt. It says whom its sender waited for, and proves nothing about them."""

    attempt: Attempt
    silent: Names
    """Identity keys of members who are here and did not answer."""
    away: Names
    """Of members who are not connected to me: the next attempt waits until they are."""


class AttemptBegin(Record, frozen=True):
    """Star: the collector has everybody's approval of `digest`, and everybody is here: make your nonces."""

    attempt: Attempt
    digest: Hash32


class AggregateNonces(Record, frozen=True):
    """Star: what the collector made of everybody's nonces, 66 bytes for each slot, and the list it is committed to.

    One for each (session, attempt, boot epoch of the collector's own nonces).
    """

    attempt: Attempt
    epoch: BootEpoch
    root: Hash32
    """`nonce_root` of the signed nonces. The list itself travels only when something fails."""
    aggregates: Annotated[
        bytes,
        Meta(min_length=limits.PUBLIC_NONCE_BYTES, max_length=limits.PUBLIC_NONCE_BYTES * limits.SLOTS_MAX),
    ]


class AggregateShown(Record, frozen=True):
    """Star: the signed `AggregateNonces` that a failed attempt had, for the next collector to compare."""

    envelope: Annotated[bytes, Meta(max_length=limits.MESSAGE_MAX_BYTES)]


class ListWanted(Record, frozen=True):
    """Star: show the list of signed nonces behind your aggregate of this attempt. Asked by the next collector."""

    attempt: Attempt


class NonceList(Record, frozen=True):
    """The signed nonce messages of one attempt as I have them, in the order of members, my own one left out.

    Sent only when something failed. In mesh: somebody signed another transcript than ours, and whoever has two payloads
    is then proved. In star: a collector who signed another root or another sum than those of this list is.
    """

    attempt: Attempt
    own: Annotated[bytes, Meta(max_length=limits.PAYLOAD_MAX_BYTES)]
    """The payload of the sender's own nonce message."""
    envelopes: Annotated[tuple[bytes, ...], Meta(max_length=limits.GROUP_KEYS_MAX)]


_CODECS: Final[Mapping[int, Codec[Record]]] = {
    MessageType.TRANSACTION_PROPOSAL: Codec[Record](TransactionProposal),
    MessageType.APPROVAL: Codec[Record](Approval),
    MessageType.PUBLIC_NONCE: Codec[Record](PublicNonce),
    MessageType.PARTIAL_SIGNATURE: Codec[Record](PartialSignature),
    MessageType.TRANSACTION_COMPLETE: Codec[Record](TransactionComplete),
    MessageType.ATTEMPT_GONE: Codec[Record](AttemptGone),
    MessageType.NONCE_LIST: Codec[Record](NonceList),
    MessageType.ATTEMPT_FAILED: Codec[Record](AttemptFailed),
    MessageType.ATTEMPT_BEGIN: Codec[Record](AttemptBegin),
    MessageType.AGGREGATE_NONCE: Codec[Record](AggregateNonces),
    MessageType.AGGREGATE_SHOWN: Codec[Record](AggregateShown),
    MessageType.LIST_WANTED: Codec[Record](ListWanted),
}
_KINDS: Final[Mapping[type[Record], int]] = {
    TransactionProposal: MessageType.TRANSACTION_PROPOSAL,
    Approval: MessageType.APPROVAL,
    PublicNonce: MessageType.PUBLIC_NONCE,
    PartialSignature: MessageType.PARTIAL_SIGNATURE,
    TransactionComplete: MessageType.TRANSACTION_COMPLETE,
    AttemptGone: MessageType.ATTEMPT_GONE,
    NonceList: MessageType.NONCE_LIST,
    AttemptFailed: MessageType.ATTEMPT_FAILED,
    AttemptBegin: MessageType.ATTEMPT_BEGIN,
    AggregateNonces: MessageType.AGGREGATE_NONCE,
    AggregateShown: MessageType.AGGREGATE_SHOWN,
    ListWanted: MessageType.LIST_WANTED,
}


def encode(record: Record) -> bytes:
    """Return the payload of a ceremony record. Raises SerializationError when a field is out of bounds."""
    return _CODECS[_KINDS[type(record)]].check(record)


def decode_untrusted(kind: int, payload: bytes) -> Record:
    """Return the record that a ceremony message of this type carries.

    Raises: SerializationError when it is not canonical, out of bounds, or no ceremony record is of this type.
    """
    codec = _CODECS.get(kind)
    if codec is None:
        raise SerializationError("not a ceremony message", expected=", ".join(MessageType(one).name for one in _CODECS))
    return codec.decode_untrusted(payload)


def split(data: bytes, size: int, slots: int) -> tuple[bytes, ...]:
    """Return `slots` parts of `size` bytes each. Raises SerializationError when `data` is not that long."""
    if len(data) != size * slots:
        raise SerializationError("not one part for each slot", expected=f"{slots} x {size} bytes", got=len(data))
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def named(members: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the members that a message names: as many as there is room for."""
    return tuple(sorted(members)[: limits.PROGRESS_NAMES_MAX])


# --- hashes -----------------------------------------------------------------------------------------------------------

_proposal_hash = TaggedHash("musignet/proposal")
_session_hash = TaggedHash("musignet/session")
_approval_hash = TaggedHash("musignet/approval")
_consent_hash = TaggedHash("musignet/consent")
_payload_hash = TaggedHash("musignet/nonce-payload")
_transcript_hash = TaggedHash("musignet/transcript")
_nonce_root = TaggedHash("musignet/nonce-root")
_aggregates_hash = TaggedHash("musignet/aggregate-nonces")
_star_transcript_hash = TaggedHash("musignet/star-transcript")


def session_id(proposer: bytes, proposal: TransactionProposal) -> bytes:
    """Return the 32-byte id of the session that a proposal of this identity key opens (THREATS.md P2)."""
    hashed = _proposal_hash(
        proposal.expires_at_ms.to_bytes(8, "little"),
        with_size(proposal.psbt),
        with_size(proposal.memo.encode()),
        bytes((proposal.topology,)),
    )
    return _session_hash(proposal.group, proposer, proposal.random, hashed)


def approval_digest(
    session: bytes, group: bytes, expires_at_ms: int, transaction: bytes, slots: Sequence[SigningSlot]
) -> bytes:
    """Return what an approval is for (THREATS.md X15): the session, its expiry, the transaction, and every slot."""
    return _approval_hash(
        session,
        group,
        expires_at_ms.to_bytes(8, "little"),
        transaction,
        compact_size(len(slots)),
        *(slot.commitment() for slot in slots),
    )


def consent_digest(digest: bytes, replaces: Iterable[bytes]) -> bytes:
    """Return what a person consents to: an approval, or one in place of earlier ones for the same coins (P5)."""
    replaced = sorted(replaces)
    return _consent_hash(digest, *replaced) if replaced else digest


def payload_hash(payload: bytes) -> bytes:
    """Return the hash of a nonce payload. Envelopes differ from copy to copy, payloads do not."""
    return _payload_hash(payload)


def transcript_hash(
    group: SigningGroup, session: bytes, attempt: int, digest: bytes, nonces: Mapping[bytes, tuple[bytes, bytes]]
) -> bytes:
    """Return what every round-2 message signs.

    Args: nonces - identity key of each member to (boot epoch, nonce payload).
    """
    return _transcript_hash(
        bytes((group.wallet.chain,)),
        group.id,
        session,
        attempt.to_bytes(4, "little"),
        digest,
        *(
            identity + group.wallet_key(identity) + nonces[identity][0] + payload_hash(nonces[identity][1])
            for identity in group.identities
        ),
    )


def nonce_root(group: SigningGroup, nonces: Mapping[bytes, tuple[bytes, bytes]]) -> bytes:
    """Return what commits a collector to the ordered list of everybody's nonces.

    Args: nonces - identity key of each member to (boot epoch, nonce payload).
    """
    return _nonce_root(
        *(identity + nonces[identity][0] + payload_hash(nonces[identity][1]) for identity in group.identities)
    )


def star_transcript_hash(
    group: SigningGroup, session: bytes, attempt: int, digest: bytes, root: bytes, aggregates: bytes
) -> bytes:
    """Return what every round-2 message signs in star: the same cost in a group of any size."""
    return _star_transcript_hash(
        bytes((group.wallet.chain,)),
        group.id,
        session,
        attempt.to_bytes(4, "little"),
        digest,
        group.collector(attempt),
        root,
        _aggregates_hash(aggregates),
    )
