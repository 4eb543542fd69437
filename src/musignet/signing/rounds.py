"""The arithmetic of one attempt over all slots: whose nonce is which, what each slot signs, and the sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import limits
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


def contexts(group: SigningGroup, slots: Iterable[SigningSlot]) -> tuple[SlotContext, ...]:
    """Prepare all slots of a review. Raises LocalError when a key does not aggregate to what the review derived."""
    orders: dict[tuple[int, ...], tuple[tuple[bytes, ...], Mapping[bytes, int]]] = {}
    return tuple(_context(group, slot, orders) for slot in slots)


def _context(
    group: SigningGroup, slot: SigningSlot, orders: dict[tuple[int, ...], tuple[tuple[bytes, ...], Mapping[bytes, int]]]
) -> SlotContext:
    keyagg = group.wallet.cache.aggregate_points(slot.keys)
    for tweak in slot.tweaks:
        keyagg = keyagg.tweak(tweak.value, xonly=tweak.xonly)
    if keyagg.output.compressed != slot.signing_key:
        raise LocalError("two derivations of one signing key differ", hint="report this wallet's descriptor")
    members = tuple(one.member for one in slot.participants)
    if members not in orders:  # the same in every slot, where it is the aggregate that is derived
        order = tuple(group.by_position[one] for one in members)
        orders[members] = order, {identity: place for place, identity in enumerate(order)}
    return SlotContext(slot, keyagg, *orders[members])


def own_key(context: SlotContext, identity: bytes) -> tuple[bytes, tuple[int, ...]]:
    """Return a member's public key in a slot, and the path to it from their key in the descriptor."""
    one = context.slot.participants[context.places[identity]]
    return one.pubkey, one.path


def parse_nonces(slots: Sequence[SlotContext], identity: bytes, data: bytes) -> tuple[PublicNonce, ...]:
    """Parse the nonces of one member. Raises SerializationError or InvalidContributionError: theirs alone."""
    parts = split(data, limits.PUBLIC_NONCE_BYTES, len(slots))
    parsed = []
    for context, part in zip(slots, parts, strict=True):
        signer = context.places[identity]
        parsed.append(PublicNonce.parse_untrusted(part, signer, context.keyagg.keys[signer]))
    return tuple(parsed)


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
            signatures.append(session.complete(ordered, [partials[one][at] for one in context.order]))
        except InvalidContributionError as error:
            return Contribution(context.order[error.signer or 0], at, error)
    return tuple(signatures)
