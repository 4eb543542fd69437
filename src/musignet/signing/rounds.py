"""The arithmetic of one attempt over all slots: whose nonce is which, what each slot signs, and the sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .. import limits
from ..bitcoin.finalise import verified
from ..bitcoin.slots import SigningSlot
from ..crypto.keyagg import InvalidContributionError, KeyAgg
from ..crypto.musig2 import AggregateNonce, PublicNonce, SigningSession, nonce_agg
from ..errors import LocalError
from .group import SigningGroup
from .records import split

__all__ = [
    "Contribution",
    "Nonces",
    "SlotContext",
    "Slots",
    "aggregate_sessions",
    "complete",
    "contexts",
    "encoded_aggregates",
    "own_key",
    "parse_aggregates",
    "parse_nonces",
    "signing_sessions",
]

Nonces = Mapping[bytes, Sequence[PublicNonce]]
"""Identity key to one public nonce for each slot."""


@dataclass(frozen=True, slots=True)
class SlotContext:
    """One slot: its aggregate key with all tweaks, and which member is which signer of it."""

    slot: SigningSlot
    keyagg: KeyAgg
    order: tuple[bytes, ...]
    """Identity keys in aggregation order."""
    places: Mapping[bytes, int]
    """Identity key to its place in `order`."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """Whose contribution to which slot is bad."""

    identity: bytes
    slot: int
    error: InvalidContributionError


class Slots(tuple[SlotContext, ...]):
    """All slots of a review, and the last nonces of each member, so that nobody's are parsed twice."""

    def __init__(self, _: Iterable[SlotContext]) -> None:
        self.parsed: dict[bytes, tuple[bytes, tuple[PublicNonce, ...]]] = {}
        """Identity key to the bytes that were parsed last, and what they are."""


def contexts(group: SigningGroup, slots: Iterable[SigningSlot]) -> Slots:
    """Prepare all slots of a review. Raises LocalError when a key does not aggregate to what the review derived."""
    return Slots(_context(group, slot) for slot in slots)


def _context(group: SigningGroup, slot: SigningSlot) -> SlotContext:
    keyagg = group.wallet.cache.tweaked(slot.keys, slot.tweaks)
    if keyagg.output.compressed != slot.signing_key:
        raise LocalError("two derivations of one signing key differ", hint="report this wallet's descriptor")
    return SlotContext(slot, keyagg, *group.order(slot.participants))


def own_key(context: SlotContext, identity: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return a member's public key in a slot, and the path to it from their key in the descriptor."""
    one = context.slot.participants[context.places[identity]]
    return one.pubkey, one.path


def parse_nonces(slots: Slots, identity: bytes, data: bytes) -> tuple[PublicNonce, ...]:
    """Parse the nonces of one member, or take what the last call made of the same bytes.

    Raises: SerializationError or InvalidContributionError: theirs alone.
    """
    known, points = slots.parsed.get(identity, (b"", ()))
    if known != data or not points:
        points = tuple(_parse_nonces(slots, identity, data))
        slots.parsed[identity] = (data, points)
    return points


def _parse_nonces(slots: Slots, identity: bytes, data: bytes) -> Iterator[PublicNonce]:
    parts = split(data, limits.PUBLIC_NONCE_BYTES, len(slots))
    for context, part in zip(slots, parts, strict=True):
        signer = context.places[identity]
        yield PublicNonce.parse_untrusted(part, signer, context.keyagg.keys[signer])


def signing_sessions(slots: Sequence[SlotContext], nonces: Nonces) -> tuple[SigningSession, ...]:
    """Return what each slot signs, once everybody's nonces are there."""
    return tuple(
        SigningSession(nonce_agg([nonces[one][at] for one in context.order]), context.slot.message, context.keyagg)
        for at, context in enumerate(slots)
    )


def parse_aggregates(slots: Sequence[SlotContext], aggregates: bytes) -> tuple[AggregateNonce, ...]:
    """Parse the sums of a collector. Raises SerializationError or InvalidContributionError: the collector's fault."""
    parts = split(aggregates, limits.PUBLIC_NONCE_BYTES, len(slots))
    return tuple(AggregateNonce.parse_untrusted(part) for part in parts)


def aggregate_sessions(slots: Sequence[SlotContext], aggregates: bytes) -> tuple[SigningSession, ...]:
    """Return what each slot signs under the sums that a collector sent. Raises what `parse_aggregates` raises."""
    return tuple(
        SigningSession(one, context.slot.message, context.keyagg)
        for one, context in zip(parse_aggregates(slots, aggregates), slots, strict=True)
    )


def encoded_aggregates(sessions: Iterable[SigningSession]) -> bytes:
    """Return the sums that a collector sends."""
    return b"".join(one.aggregate_nonce.encoded for one in sessions)


def _signature(
    context: SlotContext, session: SigningSession, nonces: Sequence[PublicNonce], partials: Sequence[bytes]
) -> bytes:
    """Return the sum when it holds for our own sighash. Raises InvalidContributionError: it says why it does not."""
    return verified(context.slot, session.partial_agg(partials)) or session.complete(nonces, partials)


def complete(
    slots: Sequence[SlotContext],
    sessions: Sequence[SigningSession],
    nonces: Nonces,
    partials: Mapping[bytes, Sequence[bytes]],
) -> tuple[bytes, ...] | Contribution:
    """Return the final signature of each slot, each verified; or the first contribution that prevents it."""
    signatures = []
    for at, (context, session) in enumerate(zip(slots, sessions, strict=True)):
        ordered = [nonces[one][at] for one in context.order]
        try:
            signatures.append(_signature(context, session, ordered, [partials[one][at] for one in context.order]))
        except InvalidContributionError as error:
            return Contribution(context.order[error.signer or 0], at, error)
    return tuple(signatures)
