"""A wallet's state from the histories of its addresses, one after the other: for wallets that no xpub can watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ... import limits
from ...bitcoin.group import CHANGE, RECEIVE, Group
from ...bitcoin.transaction import Outpoint, Transaction
from ..blocks import COINBASE_MATURITY_BLOCKS
from .base import BackendFault, Coin, Snapshot, ordered

__all__ = ["Seen", "scan"]

_NO_COIN: Final = Outpoint(bytes(32), 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Seen:
    """A transaction in the history of an address."""

    tx: Transaction
    height: int | None
    """Of its block; None while it is in none."""

    @property
    def is_coinbase(self) -> bool:
        return any(txin.outpoint == _NO_COIN for txin in self.tx.inputs)


def scan(group: Group, tip: int, history: Callable[[str], Iterable[Seen]]) -> Snapshot:
    """Return the state of a wallet, whatever its form.

    Each branch is read until as many addresses in a row as the gap has were never paid. Whoever spends a coin is in the
    history of that coin's address, so the histories together say what is unspent.

    Args:   history - all transactions that pay to or spend from an address.
    Raises: BackendFault when every address was paid, as no wallet's are.
    """
    seen: dict[bytes, Seen] = {}
    places: dict[bytes, tuple[int, int]] = {}
    last = [-1, -1]
    for branch in range(min(group.descriptor.branches, CHANGE + 1)):
        index = 0
        while index <= last[branch] + limits.ADDRESS_GAP and (group.descriptor.ranged or index == 0):
            found = {one.tx.txid(): one for one in history(group.address(branch, index))}
            places[group.derive(branch, index).script] = (branch, index)
            seen |= found
            last[branch] = index if found else last[branch]
            index += 1
            if index > limits.CHAIN_ADDRESSES_MAX:
                raise BackendFault("every address that is asked for is said to be used", got=index)
    return _snapshot(tip, seen, places, (last[RECEIVE], last[CHANGE]))


def _snapshot(
    tip: int, seen: dict[bytes, Seen], places: dict[bytes, tuple[int, int]], last: tuple[int, int]
) -> Snapshot:
    spent = {txin.outpoint for one in seen.values() for txin in one.tx.inputs}
    coins, immature_sat = [], 0
    for txid, one in seen.items():
        confirmations = 0 if one.height is None else max(0, tip - one.height + 1)  # blocks came meanwhile
        for vout, out in enumerate(one.tx.outputs):
            outpoint = Outpoint(txid, vout)
            if out.script not in places or outpoint in spent:
                continue
            if one.is_coinbase and confirmations < COINBASE_MATURITY_BLOCKS:
                immature_sat += out.amount_sat
            else:
                coins.append(Coin(outpoint, out, *places[out.script], confirmations))
    return Snapshot(tip, ordered(coins), last, immature_sat)
