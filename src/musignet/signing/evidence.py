"""What a keyholder is shown by its node before it makes nonces or signs, and what it checks of it.

In mesh it sees the signed messages of everybody. In star only the collector does; a signer sees what the collector
signed. That is enough, because MuSig2 trusts its aggregator with nothing: a wrong sum of nonces gives a signature that
does not verify, and no partial signature under any sum tells anything about a key whose nonce is used once. What is
signed comes from the keyholder's own review in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..bitcoin.rules import Rule, RuleBroken
from ..crypto.musig2 import SigningSession
from ..errors import InvalidMessage, LocalError
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from . import rounds
from .group import SigningGroup
from .holding import Attempt, Holding
from .proposal import require_member
from .records import (
    AggregateNonces,
    Approval,
    AttemptBegin,
    PublicNonce,
    Topology,
    decode_untrusted,
    nonce_root,
    star_transcript_hash,
    transcript_hash,
)

__all__ = ["require_approved", "signing_transcript"]


def require_approved(
    group: SigningGroup, identity: bytes, holding: Holding, attempt: int, messages: Sequence[VerifiedMessage]
) -> None:
    """Check that everybody approved the very same digest (THREATS.md P1), or that the collector of a star says so.

    Raises: RuleBroken (X15) for another digest, LocalError when one is missing, PeerError for what is of no use here.
    """
    if _is_signer_in_star(group, identity, holding, attempt):
        begin = _of_collector(group, holding, attempt, messages, MessageType.ATTEMPT_BEGIN)
        read = decode_untrusted(MessageType.ATTEMPT_BEGIN, begin.payload)
        if not isinstance(read, AttemptBegin) or read.attempt != attempt:
            raise InvalidMessage("the beginning of another attempt", expected=attempt)
        _require_digest(holding, read.digest)
        return
    for message in _one_each(group, identity, holding, messages, MessageType.APPROVAL).values():
        approval = decode_untrusted(MessageType.APPROVAL, message.payload)
        assert isinstance(approval, Approval)
        _require_digest(holding, approval.digest)


def signing_transcript(
    group: SigningGroup, identity: bytes, holding: Holding, attempt: Attempt, messages: Sequence[VerifiedMessage]
) -> tuple[bytes, tuple[SigningSession, ...]]:
    """Return the transcript that round 2 signs, and what each slot signs.

    Raises: LocalError when a message is missing, PeerError for one that is bad, or about something else.
    """
    if _is_signer_in_star(group, identity, holding, attempt.number):
        return _collected_transcript(group, holding, attempt, messages)
    payloads = {identity: attempt.payload}
    found = _one_each(group, identity, holding, messages, MessageType.PUBLIC_NONCE)
    payloads |= {member: message.payload for member, message in found.items()}
    signed, points = {}, {}
    for member, payload in payloads.items():
        record = decode_untrusted(MessageType.PUBLIC_NONCE, payload)
        if not isinstance(record, PublicNonce) or record.attempt != attempt.number:
            raise InvalidMessage("nonces of another attempt", expected=attempt.number)
        signed[member] = (record.epoch, payload)
        points[member] = rounds.parse_nonces(holding.slots, member, record.nonces)
    sessions = rounds.signing_sessions(holding.slots, points)
    about = (group, holding.session, attempt.number, holding.digest)
    if holding.topology is Topology.MESH:
        return transcript_hash(*about, signed), sessions
    return star_transcript_hash(*about, nonce_root(group, signed), rounds.encoded_aggregates(sessions)), sessions


def _collected_transcript(
    group: SigningGroup, holding: Holding, attempt: Attempt, messages: Sequence[VerifiedMessage]
) -> tuple[bytes, tuple[SigningSession, ...]]:
    message = _of_collector(group, holding, attempt.number, messages, MessageType.AGGREGATE_NONCE)
    read = decode_untrusted(MessageType.AGGREGATE_NONCE, message.payload)
    if not isinstance(read, AggregateNonces) or read.attempt != attempt.number:
        raise InvalidMessage("the aggregate of another attempt", expected=attempt.number)
    sessions = rounds.aggregate_sessions(holding.slots, read.aggregates)
    about = (group, holding.session, attempt.number, holding.digest)
    return star_transcript_hash(*about, read.root, read.aggregates), sessions


def _is_signer_in_star(group: SigningGroup, identity: bytes, holding: Holding, attempt: int) -> bool:
    return holding.topology is Topology.STAR and group.collector(attempt) != identity


def _of_collector(
    group: SigningGroup, holding: Holding, attempt: int, messages: Sequence[VerifiedMessage], kind: MessageType
) -> VerifiedMessage:
    """Return the one message, if it is the collector's by our own count."""
    if len(messages) != 1:
        raise LocalError(f"not one {kind.name} of the collector", got=f"{len(messages)} messages")
    require_member(messages[0], group, kind, holding.session)
    if messages[0].sender_key != group.collector(attempt):
        raise InvalidMessage("not from the collector of this attempt", expected=group.collector(attempt).hex())
    return messages[0]


def _one_each(
    group: SigningGroup, identity: bytes, holding: Holding, messages: Iterable[VerifiedMessage], kind: MessageType
) -> dict[bytes, VerifiedMessage]:
    found = {}
    for message in messages:
        require_member(message, group, kind, holding.session)
        found[message.sender_key] = message
    missing = len(group.identities) - 1 - len(found)
    if missing or identity in found:
        raise LocalError(f"not one {kind.name} of each other cosigner", got=f"{missing} missing")
    return found


def _require_digest(holding: Holding, digest: bytes) -> None:
    if digest != holding.digest:
        raise RuleBroken(Rule.X15, "a cosigner approved something else", expected=holding.digest.hex())
