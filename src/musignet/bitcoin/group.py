"""What a wallet knows by itself: its descriptor and network, its bounds, and the state of the chain it was told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from .. import limits
from ..chain import Chain
from ..crypto.keyagg import KeyAggCache
from ..errors import InvalidMessage
from . import taproot
from .bip32 import KeyOrigin, Xpub
from .descriptor import Aggregated, Derived, Descriptor
from .psbt import FieldMap
from .rules import Rule, RuleBroken
from .transaction import Outpoint, TxOut

__all__ = ["CHANGE", "RECEIVE", "Bounds", "Group", "Known"]

RECEIVE: Final = 0
"""The branch of addresses that are given to others."""
CHANGE: Final = 1
"""The branch of change addresses: only there an output is change (X5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one wallet allows a transaction to be. All configurable; the defaults are those of `limits`."""

    fee_cap_sat: int = limits.FEE_CAP_SAT
    fee_rate_max_sat_vb: int = limits.FEE_RATE_MAX_SAT_VB
    fee_share_max_percent: int = limits.FEE_SHARE_MAX_PERCENT
    outputs_max: int = limits.PSBT_OUTPUTS_MAX
    address_gap: int = limits.ADDRESS_GAP
    locktime_ahead_blocks: int = limits.LOCKTIME_AHEAD_BLOCKS
    locktime_ahead_s: int = limits.LOCKTIME_AHEAD_S
    allow_sighash_all: bool = False
    """65-byte signatures: they say the same as DEFAULT and cost a byte."""
    allow_legacy_inputs: bool = False
    """Inputs of others whose spender can still change the transaction id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What our own wallet and node say at the moment of a review. Everything that is left out is shown as unknown."""

    utxos: Mapping[Outpoint, TxOut] = field(default_factory=lambda: MappingProxyType({}))
    """Our coins, by our own record."""
    last_index: tuple[int, int] = (-1, -1)
    """The highest index that was used for receiving, and for change; -1 for none."""
    tip_height: int | None = None
    now_s: int | None = None
    """Seconds since 1970."""

    def after(self, change: int) -> Known:
        """Return the same once change was paid to this index: change is looked for from there on (X5)."""
        receive, last = self.last_index
        return self if change <= last else replace(self, last_index=(receive, change))


class Group:
    """One wallet: the same for all of its cosigners, and the only source of its keys, scripts and addresses.

    Args:   descriptor - of 2 to 1,000 different keys.
            cache      - of key aggregations, shared with other wallets of this process; its own by default. Reviews,
                         sessions, keyholder and blame of one wallet all use it: keys are aggregated once.
    Raises: InvalidMessage for one key, or the same key twice (usually one seed on two devices; THREATS.md P9);
            RuleBroken (X7) when a key is of another network.
    """

    __slots__ = ("_aggregated", "_branches", "_derived", "_ranged", "bounds", "cache", "chain", "descriptor")

    def __init__(
        self, descriptor: Descriptor, chain: Chain, bounds: Bounds | None = None, *, cache: KeyAggCache | None = None
    ) -> None:
        self.descriptor: Final = descriptor
        self.chain: Final = chain
        self.bounds: Final = bounds or Bounds()
        self._branches, self._ranged = descriptor.branches, descriptor.ranged
        self._derived: dict[tuple[int, int], Derived] = {}
        self.cache: Final = cache or KeyAggCache()
        self._aggregated = self._aggregate(0, 0) if descriptor.path else None
        points = {_point(member.key) for member in descriptor.members}
        if not 2 <= len(points) == len(descriptor.members):
            raise InvalidMessage(
                "not a group", expected="2 or more different keys", got=f"{len(points)} of {len(descriptor.members)}",
                hint="is one seed on two devices?",
            )  # fmt: skip
        for member in descriptor.members:
            if isinstance(member.key, Xpub) and member.key.version != chain.xpub_version:
                raise RuleBroken(Rule.X7, "a key of another network", expected=chain.name.lower(), got=str(member)[:60])

    def derive(self, branch: int, index: int) -> Derived:
        """Return everything about the address at (branch, index). Remembered.

        Raises: InvalidMessage for a branch or an index that the descriptor does not have.
        """
        at = (branch, index)
        derived = self._derived.get(at)
        if derived is None:
            if not 0 <= branch < self._branches or (index and not self._ranged):
                raise InvalidMessage("no such address in this wallet", got=f"branch {branch}, index {index}")
            derived = self.descriptor.derive(branch, index, self._aggregated or self._aggregate(branch, index))
            if len(self._derived) >= limits.ADDRESS_CACHE_MAX:
                self._derived.clear()
            self._derived[at] = derived
        return derived

    def _aggregate(self, branch: int, index: int) -> Aggregated:
        return self.descriptor.aggregated(branch, index, self.cache)

    def address(self, branch: int, index: int) -> str:
        """Return an address of this wallet, in the form of its network."""
        return str(taproot.address(self.derive(branch, index).script, self.chain))

    def hinted(self, fields: FieldMap, kind: int) -> tuple[Derived, ...]:
        """Return the addresses that the derivation fields of a map point at. Hints: compare before believing (X5).

        Args: kind - `In.TAP_BIP32_DERIVATION` or `Out.TAP_BIP32_DERIVATION`.
        """
        return tuple(self.derive(branch, index) for branch, index in self._hints(fields, kind))

    def _hints(self, fields: FieldMap, kind: int) -> tuple[tuple[int, int], ...]:
        found: dict[tuple[int, int], None] = {}
        last: bytes | None = None
        for _, value in fields.of_type(kind):
            origin = value[1 + 32 * value[0] :]
            if origin[4:] == last:  # cosigners of one address mostly have one path below keys of their own
                continue
            last = origin[4:]
            at = self.descriptor.locate(KeyOrigin.from_bytes(origin).path)
            if at is not None:
                found[at] = None
            if len(found) == limits.DERIVATION_HINTS_MAX:
                break
        return tuple(found)

    def own_input(self, out: TxOut, fields: FieldMap, kind: int, known: Known) -> Derived | None:
        """Return the address of ours that `out` is locked with, at any index that is hinted or near those in use."""
        if not out.is_taproot:
            return None
        near = (at for branch in range(self._branches) for at in self._near(branch, known))
        return self._first(out, self._hints(fields, kind)) or self._first(out, near)

    def own_change(self, out: TxOut, fields: FieldMap, kind: int, known: Known) -> Derived | None:
        """Return our change address that `out` is locked with, at most the gap beyond the last one used (X5).

        An output to one of our receiving addresses is not change: it is shown like anybody's.
        """
        if not out.is_taproot or self._branches <= CHANGE:
            return None
        last = known.last_index[CHANGE] + self.bounds.address_gap
        hints = (at for at in self._hints(fields, kind) if at[0] == CHANGE and at[1] <= last)
        return self._first(out, hints) or self._first(out, self._near(CHANGE, known))

    def _near(self, branch: int, known: Known) -> Iterable[tuple[int, int]]:
        """Yield the addresses within the gap of the last one used, on both sides."""
        last = known.last_index[min(branch, CHANGE)]
        first, end = max(0, last - self.bounds.address_gap), last + self.bounds.address_gap + 1
        return ((branch, index) for index in (range(first, end) if self._ranged else (0,)))

    def _first(self, out: TxOut, places: Iterable[tuple[int, int]]) -> Derived | None:
        derived = (self.derive(branch, index) for branch, index in places)
        return next((one for one in derived if one.script == out.script), None)


def _point(key: Xpub | bytes) -> bytes:
    return key if isinstance(key, bytes) else key.point
