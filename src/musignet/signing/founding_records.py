"""What the messages of a founding carry, and the hashes that tie them together.

The session field of the envelope around them is the founding's id.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from .. import limits
from ..bitcoin.transaction import with_size
from ..chain import Chain
from ..crypto.keys import Identity, SigningKey
from ..crypto.schnorr import PublicKey, TaggedHash
from ..errors import AuthenticationError, InvalidMessage
from ..text import name_fault, safe
from ..wire.codec import Codec, Record
from ..wire.messages import Code, Label, MessageType, Millis, Text

__all__ = [
    "EndCode",
    "FoundingEnd",
    "FoundingKey",
    "FoundingProposal",
    "FoundingView",
    "Proposal",
    "Seat",
    "Shape",
    "SignedProposal",
    "decode_untrusted",
    "encode",
    "key_hash",
    "possession_digest",
    "possession_statement",
    "propose",
    "prove_possession",
]

_founding_id = TaggedHash("musignet/founding")
_proposal = TaggedHash("musignet/founding-proposal")
_key_statement = TaggedHash("musignet/founding-key")
_possession = TaggedHash("musignet/possession")
_key_hash = TaggedHash("musignet/founding-key-text")

Key33: TypeAlias = Annotated[bytes, Meta(min_length=33, max_length=33)]
Hash32: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]


class Shape(IntEnum):
    """How the keys of a wallet are derived (BIP-390)."""

    AGGREGATE = 0
    """`musig(A,B)/<0;1>/*`: the aggregate key is derived. Any watch-only wallet can follow it (BIP-328)."""
    EACH = 1
    """`musig(A/<0;1>/*,B/<0;1>/*)`: each key is derived, then all are aggregated."""


class EndCode(IntEnum):
    """Why a member leaves a founding."""

    DECLINED = 1
    MISMATCH = 2
    CANCELLED = 3


class Seat(Record, frozen=True):
    """One member of a proposed group, by the name that the proposer has for them."""

    identity: Key33
    label: Label


class FoundingProposal(Record, frozen=True):
    """Let us have a wallet together."""

    name: Label
    shape: Annotated[int, Meta(ge=0, le=1)]
    random: Hash32
    expires_at_ms: Millis
    members: Annotated[tuple[Seat, ...], Meta(min_length=2, max_length=limits.FOUNDING_MEMBERS_MAX)]
    """In the order of their keys, the proposer among them."""


class SignedProposal(Record, frozen=True):
    """A proposal that any member can hand on: `body` is the `FoundingProposal`, signed by `proposer`."""

    chain: Annotated[int, Meta(ge=0, le=255)]
    proposer: Key33
    body: Annotated[bytes, Meta(max_length=limits.FOUNDING_PAYLOAD_MAX_BYTES)]
    signature: Signature


class FoundingKey(Record, frozen=True):
    """I take part, and this is my key: an extended key with its origin, and a signature by it."""

    proposal: SignedProposal
    key: Annotated[str, Meta(max_length=limits.XPUB_MAX_CHARS)]
    possession: Signature


class FoundingView(Record, frozen=True):
    """What I made of everybody's keys: the group's id, and a hash of each member's key, in the order of members.

    `confirmed`: my person compared it and said yes. A member who has the group already leaves `keys` empty.
    """

    group: Hash32
    keys: Annotated[tuple[Hash32, ...], Meta(max_length=limits.FOUNDING_MEMBERS_MAX)]
    confirmed: bool


class FoundingEnd(Record, frozen=True):
    """I do not take part, or not any more. `code` is an `EndCode`."""

    code: Code
    text: Text


_CODECS: Final[dict[int, Codec[Record]]] = {
    MessageType.FOUNDING_PROPOSAL: Codec[Record](SignedProposal),
    MessageType.FOUNDING_KEY: Codec[Record](FoundingKey),
    MessageType.FOUNDING_VIEW: Codec[Record](FoundingView),
    MessageType.FOUNDING_END: Codec[Record](FoundingEnd),
}
_body_codec = Codec(FoundingProposal)


def encode(kind: MessageType, record: Record) -> bytes:
    """Return the payload. Raises SerializationError for a field out of bounds."""
    return _CODECS[kind].check(record)


def decode_untrusted(kind: int, payload: bytes) -> Record:
    """Return the record in the payload of a message of a founding. Raises SerializationError."""
    return _CODECS[kind].decode_untrusted(payload)


class Proposal:
    """A proposal whose signature held and whose content makes sense.

    Attributes: `id` (32 bytes) stands for everything in it, and for who proposed it.
    """

    __slots__ = ("chain", "content", "id", "proposer", "shape", "signed")

    def __init__(self, signed: SignedProposal, content: FoundingProposal) -> None:
        self.signed: Final = signed
        self.content: Final = content
        self.proposer: Final = signed.proposer
        self.chain: Final = Chain(signed.chain)
        self.shape: Final = Shape(content.shape)
        self.id: Final = _founding_id(bytes((signed.chain,)), signed.proposer, signed.body)

    @property
    def members(self) -> tuple[bytes, ...]:
        """The identity keys, in order."""
        return tuple(seat.identity for seat in self.content.members)

    @property
    def expires_at(self) -> float:
        """Seconds since 1970."""
        return self.content.expires_at_ms / 1000

    @classmethod
    def open_untrusted(cls, signed: SignedProposal, chain: Chain) -> Proposal:
        """Check a proposal as far as anybody can.

        Raises: SerializationError, AuthenticationError (its signature), InvalidMessage: another network, a name that
                cannot be shown, members out of order or given twice, or without the proposer.
        """
        if signed.chain != chain:
            raise InvalidMessage("a group on another Bitcoin network", expected=chain.name.lower())
        digest = _proposal(bytes((signed.chain,)), signed.body)
        if not PublicKey(signed.proposer).verify(digest, signed.signature):
            raise AuthenticationError("the signature of a proposed group does not verify")
        content = _body_codec.decode_untrusted(signed.body)
        for name in (content.name, *(seat.label for seat in content.members)):
            if fault := name_fault(name):
                raise InvalidMessage(f"a name that cannot be shown: {fault}", got=safe(name))
        keys = [seat.identity for seat in content.members]
        if keys != sorted(set(keys)) or len({key[1:] for key in keys}) != len(keys) or signed.proposer not in keys:
            raise InvalidMessage("members of a proposed group", expected="different keys in order, the proposer's too")
        return cls(signed, content)


def propose(
    identity: Identity,
    chain: Chain,
    name: str,
    seats: dict[bytes, str],
    *,
    shape: Shape,
    random: bytes,
    expires_at: float,
) -> Proposal:
    """Return a new proposal by `identity`. `seats` are identity keys and their labels, our own among them.

    Raises: InvalidMessage for a name or members that cannot be, SerializationError for a field out of bounds.
    """
    members = tuple(Seat(key, label) for key, label in sorted(seats.items()))
    if not 2 <= len(members) <= limits.FOUNDING_MEMBERS_MAX:
        raise InvalidMessage(
            "members of a group", expected=f"2 to {limits.FOUNDING_MEMBERS_MAX}", got=len(members),
            hint="larger groups: write the group file by hand and import it everywhere",
        )  # fmt: skip
    body = _body_codec.check(FoundingProposal(name, shape, random, int(expires_at * 1000), members))
    signature = identity.sign(_proposal(bytes((chain,)), body))
    return Proposal.open_untrusted(SignedProposal(chain, identity.pubkey, body, signature), chain)


def possession_statement(founding: bytes, identity: bytes, key: str) -> bytes:
    """Return what a proof of possession says: this key, by this member, for this founding. 32 bytes."""
    return _key_statement(founding, identity, with_size(key.encode()))


def possession_digest(stated: bytes) -> bytes:
    """Return what the wallet key signs. The keyholder makes it itself: it is the digest of nothing else."""
    return _possession(stated)


def prove_possession(key: SigningKey, stated: bytes) -> bytes:
    """Return the proof that goes with our key: the keyholder's part. Raises LocalError for a wiped key."""
    return key.prove(possession_digest(stated))


def key_hash(key: str) -> bytes:
    """Return a hash of a key's text, to compare by."""
    return _key_hash(key.encode())
