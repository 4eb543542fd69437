"""A proposal as one cosigner reads it: who made it, for what, until when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from .. import limits
from ..bitcoin.group import Known
from ..bitcoin.psbt import Psbt
from ..bitcoin.review import Review, review
from ..errors import Action, InvalidMessage
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from .group import SigningGroup
from .records import TransactionProposal, approval_digest, decode_untrusted, session_id

__all__ = ["Proposal", "require_member"]


def require_member(message: VerifiedMessage, group: SigningGroup, kind: MessageType, session: bytes) -> None:
    """Check that a message is of this type, from a member, and for this group, network and session.

    Raises: AuthenticationError for a stranger, InvalidMessage for everything else. It proves nothing about a member.
    """
    group.require(message.sender_key)
    got = (message.type, message.body.recipient, message.body.chain, message.session)
    if got != (kind, group.id, group.wallet.chain, session):
        raise InvalidMessage(
            "not of this session",
            expected=f"{kind.name} in session {session.hex()[:8]} of group {group.id.hex()[:8]}",
            got=f"type {int(message.type)} in session {message.session.hex()[:8] or 'none'}",
            action=Action.WARN,
        )


_parse_untrusted = lru_cache(maxsize=limits.PARSED_PSBTS_MAX)(Psbt.parse_untrusted)
"""A parsed PSBT never changes: all who read the same bytes in one process share it."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal whose session id and group are right. Its PSBT is parsed, and judged by `review`."""

    session: bytes
    proposer: bytes
    record: TransactionProposal
    psbt: Psbt
    envelope: bytes

    @classmethod
    def open_untrusted(cls, message: VerifiedMessage, group: SigningGroup) -> Proposal:
        """Read a proposal.

        Raises: AuthenticationError for a stranger, SerializationError for another payload, RuleBroken for a PSBT that
                has no reading, InvalidMessage for another group or network, or a session id that does not follow from
                the proposal (THREATS.md P2).
        """
        require_member(message, group, MessageType.TRANSACTION_PROPOSAL, message.session)
        record = decode_untrusted(MessageType.TRANSACTION_PROPOSAL, message.payload)
        assert isinstance(record, TransactionProposal)
        right = session_id(message.sender_key, record)
        if record.group != group.id or message.session != right:
            raise InvalidMessage(
                "the session id is not that of this proposal", expected=right.hex(), got=message.session.hex(),
                action=Action.WARN,
            )  # fmt: skip
        return cls(right, message.sender_key, record, _parse_untrusted(record.psbt), message.to_bytes())

    @property
    def expires_at(self) -> float:
        """Seconds since 1970."""
        return self.record.expires_at_ms / 1000

    def require_time(self, now: float) -> None:
        """Raise InvalidMessage when it has expired, or says that it will last longer than a day."""
        if not now < self.expires_at <= now + limits.SESSION_MAX_S:
            raise InvalidMessage(
                "the proposal has expired, or expires too late",
                expected=f"0 to {limits.SESSION_MAX_S:.0f} s from now",
                got=f"{self.expires_at - now:.0f} s",
                action=Action.ABORT_SESSION,
            )

    def review(self, group: SigningGroup, known: Known, now: float) -> Review:
        """Return what it would do, by the wallet's own rules. Raises RuleBroken."""
        return review(self.psbt, group.wallet, replace(known, now_s=int(now)), self.record.memo)

    def digest(self, group: SigningGroup, reviewed: Review) -> bytes:
        """Return what an approval of it is for: 32 bytes, recomputed before each use (X15)."""
        return approval_digest(self.session, group.id, self.record.expires_at_ms, reviewed.digest, reviewed.slots)
