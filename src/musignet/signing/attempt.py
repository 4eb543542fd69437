"""One attempt at a node: who has sent what, and the transcript once every nonce is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from .. import limits
from ..crypto.musig2 import PublicNonce, SigningSession
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from . import rounds
from .group import SigningGroup
from .proposal import Proposal
from .records import (
    AggregateNonces,
    NonceList,
    PartialSignature,
    decode_untrusted,
    encode,
    nonce_root,
    split,
    star_transcript_hash,
    transcript_hash,
)
from .records import PublicNonce as NonceRecord

__all__ = ["Arrival", "Collected"]


class Arrival(Enum):
    """What a contribution is, beside what is here already."""

    FIRST = "first"
    REPEAT = "repeat"
    EQUIVOCATION = "equivocation"
    """Another payload of the same boot epoch. Proof."""
    OTHER_EPOCH = "other epoch"
    """Another payload of another boot epoch: the sender may have an old disk restored. The first one stays."""


@dataclass(slots=True, eq=False)
class Collected:
    """What arrived for one attempt. The first contribution of each member wins (DESIGN, row 4)."""

    number: int
    nonces: dict[bytes, VerifiedMessage] = field(default_factory=dict)
    partials: dict[bytes, VerifiedMessage] = field(default_factory=dict)
    lists: dict[bytes, VerifiedMessage] = field(default_factory=dict)
    aggregates: dict[bytes, VerifiedMessage] = field(default_factory=dict)
    """Star: the collector's, under its key."""
    own_nonce: bytes = b""
    own_partial: bytes = b""
    own_aggregate: bytes = b""
    transcript: bytes = b""
    """Ours, once every nonce is here."""
    compared: bool = False
    """Whether our list of signed nonces was sent."""
    points: dict[bytes, Sequence[PublicNonce]] = field(default_factory=dict)
    sessions: tuple[SigningSession, ...] = ()

    def take(self, message: VerifiedMessage, epoch: bytes) -> Arrival:
        """Keep a nonce, aggregate or partial message unless one of this sender is here."""
        first = self.kept(message.type).setdefault(message.sender_key, message)
        if first is message:
            return Arrival.FIRST
        if first.payload == message.payload:
            return Arrival.REPEAT
        same = decode_untrusted(first.type, first.payload)
        assert isinstance(same, NonceRecord | PartialSignature | AggregateNonces)
        return Arrival.EQUIVOCATION if same.epoch == epoch else Arrival.OTHER_EPOCH

    def kept(self, kind: int) -> dict[bytes, VerifiedMessage]:
        """Return what is here of a kind: nonces, aggregate nonces or partial signatures."""
        if kind == MessageType.AGGREGATE_NONCE:
            return self.aggregates
        return self.nonces if kind == MessageType.PUBLIC_NONCE else self.partials

    def payloads(self, identity: bytes) -> dict[bytes, bytes]:
        """Return every nonce payload here, our own under `identity`."""
        return {one: message.payload for one, message in self.nonces.items()} | {identity: self.own_nonce}

    def fix(self, group: SigningGroup, identity: bytes, proposal: Proposal, digest: bytes, slots: Slots) -> None:
        """Compute the transcript and what each slot signs. Every nonce is here and was parsed once before."""
        signed = {}
        for one, payload in self.payloads(identity).items():
            read = decode_untrusted(MessageType.PUBLIC_NONCE, payload)
            assert isinstance(read, NonceRecord)
            signed[one] = (read.epoch, payload)
            self.points[one] = rounds.parse_nonces(slots, one, read.nonces)
        self.transcript = transcript_hash(group, proposal.session, self.number, digest, signed)
        self.sessions = rounds.signing_sessions(slots, self.points)

    def aggregate(self, group: SigningGroup, identity: bytes, session: bytes, digest: bytes, slots: Slots) -> bytes:
        """Star: compute the same at the collector, and return the payload that tells the signers.

        Every nonce is here, and the points of the others'.
        """
        signed = {}
        for one, payload in self.payloads(identity).items():
            read = decode_untrusted(MessageType.PUBLIC_NONCE, payload)
            assert isinstance(read, NonceRecord)
            signed[one] = (read.epoch, payload)
            if one == identity:
                self.points[one] = rounds.parse_nonces(slots, one, read.nonces)
        self.sessions = rounds.signing_sessions(slots, self.points)
        root, aggregates = nonce_root(group, signed), rounds.encoded_aggregates(self.sessions)
        self.transcript = star_transcript_hash(group, session, self.number, digest, root, aggregates)
        self.own_aggregate = encode(AggregateNonces(self.number, signed[identity][0], root, aggregates))
        return self.own_aggregate

    def strangers(self) -> list[VerifiedMessage]:
        """Return the partial signatures that were made under another transcript than ours."""
        return [one for one in self.partials.values() if _partial(one.payload).transcript != self.transcript]

    def complete(self, identity: bytes, slots: Slots) -> tuple[bytes, ...] | rounds.Contribution:
        """Return the final signatures, or whose contribution is bad. All are here, all under our transcript."""
        payloads = {one: message.payload for one, message in self.partials.items()} | {identity: self.own_partial}
        partials: Mapping[bytes, Sequence[bytes]] = {
            one: split(_partial(payload).partials, limits.PARTIAL_BYTES, len(slots))
            for one, payload in payloads.items()
        }
        return rounds.complete(slots, self.sessions, self.points, partials)

    def list_payload(self, group: SigningGroup) -> bytes:
        """Return our list of signed nonces."""
        envelopes = tuple(self.nonces[one].to_bytes() for one in group.identities if one in self.nonces)
        return encode(NonceList(self.number, self.own_nonce, envelopes))


Slots = Sequence[rounds.SlotContext]


def _partial(payload: bytes) -> PartialSignature:
    read = decode_untrusted(MessageType.PARTIAL_SIGNATURE, payload)
    assert isinstance(read, PartialSignature)
    return read
