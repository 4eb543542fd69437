"""All foundings at one node: which message belongs to which, and what is refused before anybody is asked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from .. import limits
from ..chain import Chain
from ..crypto.keys import Identity
from ..errors import InvalidMessage, LocalError, PeerNotFound
from ..text import safe, short_key, who
from ..wire.codec import Record
from ..wire.envelope import VerifiedMessage
from ..wire.messages import MessageType
from .founding import Founding, FoundingEffect, Step, Tell
from .founding_records import (
    FoundingKey,
    FoundingView,
    Proposal,
    Shape,
    SignedProposal,
    decode_untrusted,
    propose,
)

__all__ = ["KINDS", "Foundings"]

KINDS: Final = (
    MessageType.FOUNDING_PROPOSAL,
    MessageType.FOUNDING_KEY,
    MessageType.FOUNDING_VIEW,
    MessageType.FOUNDING_END,
)


class Foundings:
    """Foundings by id.

    Args:
        label_of: how our person calls a confirmed peer, or None for a key that is none.
        has:      whether this member has confirmed and pinned a group of this id.
    """

    def __init__(
        self,
        identity: Identity,
        chain: Chain,
        label: str,
        *,
        label_of: Callable[[bytes], str | None],
        has: Callable[[bytes, bytes], bool],
    ) -> None:
        self._identity, self._chain, self._label = identity, chain, label
        self._label_of: Final = label_of
        self._has: Final = has
        self._open: dict[bytes, Founding] = {}

    def __iter__(self) -> Iterator[Founding]:
        return iter(self._open.values())

    def get(self, founding: bytes) -> Founding:
        """Return a founding. Raises LocalError."""
        found = self._open.get(founding)
        if found is None:
            raise LocalError(f"no founding {founding.hex()[:8]}", hint="`musignet group list` shows those that wait")
        return found

    def propose(
        self, name: str, peers: list[bytes], shape: Shape, random: bytes, now: float, ttl_s: float
    ) -> tuple[Founding, list[FoundingEffect]]:
        """Propose a group of ourselves and these peers.

        Raises: InvalidMessage for a name or members that cannot be, PeerNotFound, LocalError for a time that is none.
        """
        if not 0 < ttl_s <= limits.FOUNDING_MAX_S:
            most = f"up to {limits.FOUNDING_MAX_S:g} s"
            raise LocalError("no time for the founding of a group", expected=most, got=f"{ttl_s:g} s")
        seats = {key: self._known(key) for key in (*peers, self._identity.pubkey)}
        if len(set(seats.values())) != len(seats):
            raise InvalidMessage("two members of one name", hint="rename one of them: `musignet rename`")
        proposal = propose(
            self._identity, self._chain, name, seats, shape=shape, random=random, expires_at=now + ttl_s
        )  # fmt: skip
        return self._begin(proposal)

    def heard(self, message: VerifiedMessage, now: float) -> list[FoundingEffect]:
        """A peer sent a message of one of `KINDS`.

        Raises: PeerError saying why it is refused. Nothing of it was used.
        """
        record = decode_untrusted(message.type, message.payload)
        out: list[FoundingEffect] = []
        if isinstance(record, SignedProposal | FoundingKey):
            signed = record if isinstance(record, SignedProposal) else record.proposal
            proposal = Proposal.open_untrusted(signed, self._chain)
            if proposal.id != message.session or message.sender_key not in proposal.members:
                raise InvalidMessage(
                    "a message of another founding", peer=who(message.sender, message.sender_key), got="another id"
                )
            if proposal.id not in self._open:
                out = self._take(proposal, now)
        return [*out, *self._feed(message.session, message.sender_key, record)]

    def peer_up(self, key: bytes) -> list[FoundingEffect]:
        """A peer is on the line again."""
        return [effect for one in list(self._open.values()) for effect in one.peer_up(key)]

    def woken(self, now: float) -> list[FoundingEffect]:
        """Time has passed: end what is too late, forget what is over."""
        out: list[FoundingEffect] = []
        for founding in list(self._open.values()):
            out += founding.woken(now)
            if now >= founding.proposal.expires_at:
                del self._open[founding.id]
        return out

    def next_deadline(self) -> float | None:
        """Return when `woken` is due."""
        return min((one.proposal.expires_at for one in self._open.values()), default=None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _known(self, key: bytes) -> str:
        if key == self._identity.pubkey:
            return self._label
        label = self._label_of(key)
        if label is None:
            raise PeerNotFound(
                f"{short_key(key)} is not paired", hint="`musignet invite` pairs: everybody with everybody"
            )
        return label

    def _take(self, proposal: Proposal, now: float) -> list[FoundingEffect]:
        """Check a proposal that is new here, and ask about it."""
        own = self._identity.pubkey
        name, by = safe(proposal.content.name), who(self._label_of(proposal.proposer) or "", proposal.proposer)
        if own not in proposal.members:
            raise InvalidMessage(f"the group {name!r} of {by} does not have us in it")
        if not now < proposal.expires_at <= now + limits.FOUNDING_MAX_S + limits.CLOCK_SKEW_S:
            raise InvalidMessage(
                f"the group {name!r} of {by} has expired, or expires too late", hint="check the clocks"
            )
        self._require_room(proposal.proposer, by)
        strangers = [
            seat for seat in proposal.content.members if seat.identity != own and not self._label_of(seat.identity)
        ]
        if strangers:
            raise InvalidMessage(
                f"the group {name!r} of {by} has members who are not paired with this node",
                got=", ".join(who(seat.label, seat.identity) for seat in strangers),
                hint="pair with them first, then propose again",
            )
        if len({self._known(key) for key in proposal.members}) != len(proposal.members):
            raise InvalidMessage(
                f"the group {name!r} of {by} has two members of one name", hint="`musignet rename` one"
            )
        return self._begin(proposal)[1]

    def _require_room(self, proposer: bytes, by: str) -> None:
        of_one = [one.step for one in self._open.values() if one.proposal.proposer == proposer]
        failed = of_one.count(Step.ENDED)
        for count, most in (
            (sum(not one.over for one in self._open.values()), limits.FOUNDINGS_OPEN_MAX),
            (len(of_one) - failed - of_one.count(Step.FOUNDED), limits.FOUNDINGS_PER_PROPOSER_MAX),
            (failed, limits.FOUNDINGS_FAILED_PER_PROPOSER_MAX),
        ):
            if count >= most:
                raise InvalidMessage(
                    f"too many groups wait to be founded, or came to nothing: that of {by} is refused",
                    hint="they count until they expire",
                )

    def _begin(self, proposal: Proposal) -> tuple[Founding, list[FoundingEffect]]:
        labels = {key: self._known(key) for key in proposal.members}
        founding = self._open[proposal.id] = Founding(self._identity.pubkey, proposal, labels)
        return founding, founding.begin()

    def _feed(self, session: bytes, sender: bytes, record: Record) -> list[FoundingEffect]:
        founding = self._open.get(session)
        if founding is not None:
            return founding.heard(sender, record)
        if isinstance(record, FoundingView) and self._has(record.group, sender):
            return [Tell(session, (sender,), MessageType.FOUNDING_VIEW, FoundingView(record.group, (), True))]
        return []
