"""BIP-327 key aggregation: one key from many, and the tweaks on it.

    keys --KeyAggCache.aggregate--> KeyAgg --tweak(...)--> KeyAgg --> SigningSession

The order of keys matters: another order is another key. `key_sort` where a descriptor asks for it (BIP-390);
never where an order is given (PSBT field 0x1a).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from ..errors import Action, AuthenticationError, InvalidMessage, LocalError
from ..limits import KEY_AGGREGATES_MAX
from ..text import short_key
from . import backend, musig_backend
from .schnorr import PublicKey

__all__ = ["Contribution", "InvalidContributionError", "KeyAgg", "KeyAggCache", "Tweak", "key_sort", "keys_untrusted"]


class Contribution(Enum):
    """What a signer, or whoever aggregates nonces, can get wrong. The values are the words of BIP-327's vectors."""

    PUBKEY = "pubkey"
    PUBNONCE = "pubnonce"
    AGGNONCE = "aggnonce"
    PSIG = "psig"


class InvalidContributionError(InvalidMessage):
    """One party's contribution is invalid: BIP-327 "Identifying Disruptive Signers".

    It blames whoever contributed it, and no more than that. Who that was is proved only by a signed message around
    the contribution; for a `PSIG` it must also be sure that the session is the one its sender signed, with
    nonces that were aggregated honestly.

    Attributes:
        signer:       index in the list of keys; None for whoever aggregated the nonces.
        pubkey:       that signer's 33-byte key, or b"" where it is not known or is itself what is invalid.
        contribution: what is invalid.
    """

    action = Action.ABORT_SESSION

    def __init__(
        self, contribution: Contribution, signer: int | None, pubkey: bytes, *, expected: object, got: object = None
    ) -> None:
        self.contribution = contribution
        self.signer = signer
        self.pubkey = pubkey
        named = (
            "the aggregator" if signer is None else f"signer {signer}" + (f" ({short_key(pubkey)})" if pubkey else "")
        )
        super().__init__(f"invalid {contribution.value}", peer=named, expected=expected, got=got)


class Tweak(NamedTuple):
    """A tweak that was applied: 32 bytes, and whether in x-only mode (BIP-341) or plain (BIP-32, BIP-328)."""

    scalar: bytes
    xonly: bool


class KeyAgg:
    """An ordered list of keys, their aggregate and the tweaks on it: BIP-327 "KeyAgg Context". It never changes.

    Duplicate keys are legal here; a wallet group refuses them.

    Attributes:
        keys:      the signers' keys, in order; a signer's index in them names it.
        aggregate: the key without tweaks, as BIP-328 and PSBT field 0x1a want it: 33 bytes.
        output:    the key with all tweaks, under which the final signature verifies.
        tweaks:    those applied so far, in order.
        context:   opaque, for `crypto` alone.
    """

    __slots__ = ("_members", "aggregate", "context", "keys", "output", "tweaks")

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        """Aggregate one key or more. It costs about as much as verifying a signature for each: see `KeyAggCache`.

        Raises: LocalError when there are none.
        """
        self.keys = tuple(keys)
        try:
            context = musig_backend.keyagg([key.point for key in self.keys])
        except backend.BackendError as error:
            raise LocalError(f"cannot aggregate {len(self.keys)} keys: {error}", expected="1 or more") from None
        self._members = frozenset(key.compressed for key in self.keys)
        self._become(context, ())
        self.aggregate = self.output.compressed

    def _become(self, context: backend.Handle, tweaks: tuple[Tweak, ...]) -> None:
        self.context = context
        self.tweaks = tweaks
        self.output = PublicKey(backend.point_serialize(musig_backend.keyagg_point(context)))

    @property
    def xonly(self) -> bytes:
        """The x-only form of `output`, as in a Taproot output script: 32 bytes."""
        return self.output.compressed[1:]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, PublicKey) and key.compressed in self._members

    def tweak(self, scalar: bytes, *, xonly: bool) -> KeyAgg:
        """Return the same keys with one more tweak: BIP-327 "Applying Tweaks".

        Args:   scalar, 32 bytes, always computed here and never taken from a peer (THREATS.md K14).
        Raises: LocalError when it is not 32 bytes below the group order, or the tweaked key is infinity.
        """
        try:
            context = musig_backend.keyagg_tweak(self.context, scalar, xonly=xonly)
        except backend.BackendError as error:
            raise LocalError(
                f"cannot tweak the aggregate key: {error}", expected="32 bytes below the group order, and a key left"
            ) from None
        tweaked = KeyAgg.__new__(KeyAgg)
        tweaked.keys, tweaked._members, tweaked.aggregate = self.keys, self._members, self.aggregate
        tweaked._become(context, (*self.tweaks, Tweak(scalar, xonly)))
        return tweaked

    def __repr__(self) -> str:
        return f"<KeyAgg {short_key(self.output.compressed)}: {len(self.keys)} keys, {len(self.tweaks)} tweaks>"


class KeyAggCache:
    """Remembers the last aggregations, so that many inputs and sessions of one group pay once.

    A thousand keys cost 828 signature verifications; finding them here costs less than one. Untweaked aggregates
    only: a tweak is cheap, and every input has its own.
    """

    __slots__ = ("_held", "_max_entries")

    def __init__(self, max_entries: int = KEY_AGGREGATES_MAX) -> None:
        self._max_entries = max_entries
        self._held: dict[tuple[bytes, ...], KeyAgg] = {}

    def aggregate(self, keys: Sequence[PublicKey]) -> KeyAgg:
        """Return the aggregate of `keys` in that order. Raises what `KeyAgg` raises."""
        return self._get(tuple([key.compressed for key in keys]), lambda: keys)

    def aggregate_points(self, points: Sequence[bytes]) -> KeyAgg:
        """Return the aggregate of encoded keys, which are parsed only when it is not here.

        Raises: what `KeyAgg` raises; AuthenticationError when one of them is no 33-byte point.
        """
        return self._get(tuple(points), lambda: [PublicKey(point) for point in points])

    def _get(self, name: tuple[bytes, ...], keys: Callable[[], Sequence[PublicKey]]) -> KeyAgg:
        found = self._held.pop(name, None) or KeyAgg(keys())
        self._held[name] = found  # a dict keeps its order: the last one used is the last one
        if len(self._held) > self._max_entries:
            del self._held[next(iter(self._held))]
        return found


def key_sort(keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    """Return the keys in lexicographical order: BIP-327 "Key Sorting"."""
    return tuple(sorted(keys, key=lambda key: key.compressed))


def keys_untrusted(encoded: Sequence[bytes]) -> tuple[PublicKey, ...]:
    """Parse signers' keys of 33 bytes each, in order. Raises InvalidContributionError naming the first invalid one."""
    keys = []
    for signer, data in enumerate(encoded):
        try:
            keys.append(PublicKey(data))
        except AuthenticationError as error:
            raise InvalidContributionError(
                Contribution.PUBKEY, signer, b"", expected=error.expected, got=error.got
            ) from None
    return tuple(keys)
