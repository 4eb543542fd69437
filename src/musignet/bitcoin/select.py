"""Which coins pay: as few as possible, largest first. Every cosigner's device reviews and signs each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .. import limits
from ..errors import LocalError
from .build import fee_for
from .checks import dust_sat
from .transaction import Outpoint, TxOut

__all__ = ["InsufficientFunds", "payment", "select", "sweep"]

_NOTHING: Final[Mapping[Outpoint, TxOut]] = {}


class InsufficientFunds(LocalError):
    """The coins that may be spent are not enough. `missing_sat` is what must be added, the fee included."""

    def __init__(self, missing_sat: int, held_sat: int, hint: str = "") -> None:
        self.missing_sat = missing_sat
        self.held_sat = held_sat
        super().__init__(
            f"the coins are not enough: {missing_sat} sat are missing, the fee included",
            got=f"{held_sat} sat",
            hint=hint,
        )


def payment(amount_sat: int, script: bytes) -> TxOut:
    """Return an output that nodes relay.

    Raises: LocalError for an amount that is dust there, or more than all bitcoins.
    """
    out = TxOut(amount_sat, script) if 0 < amount_sat <= limits.MONEY_MAX_SAT else None
    least = dust_sat(TxOut(0, script))
    if out is None or amount_sat < least:
        raise LocalError("nodes do not relay such an amount", expected=f"{least} sat or more", got=f"{amount_sat} sat")
    return out


def select(coins: Mapping[Outpoint, TxOut], payments: Sequence[TxOut], fee_rate_sat_vb: int) -> dict[Outpoint, TxOut]:
    """Return the largest coins that pay `payments` and the fee without change. With change `build` needs no more:
    what would not pay for the change output goes to the fee.

    Raises: InsufficientFunds, with what is missing when all coins that are worth their own fee are spent.
    """
    ranked = sorted(worth(coins, fee_rate_sat_vb).items(), key=lambda coin: (-coin[1].amount_sat, coin[0]))
    usable = ranked[: limits.PSBT_INPUTS_MAX]
    low, high = 1, len(usable)
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _missing_sat(dict(usable[:middle]), payments, fee_rate_sat_vb) <= 0 else (middle + 1, high)
        )
    chosen = dict(usable[:low])
    missing_sat = _missing_sat(chosen, payments, fee_rate_sat_vb)
    if missing_sat > 0:
        hint = (
            f"more than {limits.PSBT_INPUTS_MAX} coins do not fit: gather them first"
            if len(ranked) > len(usable)
            else ""
        )
        raise InsufficientFunds(missing_sat, sum(out.amount_sat for out in coins.values()), hint)
    return chosen


def sweep(coins: Mapping[Outpoint, TxOut], script: bytes, fee_rate_sat_vb: int) -> tuple[dict[Outpoint, TxOut], TxOut]:
    """Return the coins that are worth their own fee, at most 250 of them, and the output that takes all they hold.

    Raises: InsufficientFunds when that is dust.
    """
    ranked = sorted(worth(coins, fee_rate_sat_vb).items(), key=lambda coin: (-coin[1].amount_sat, coin[0]))
    chosen = dict(ranked[: limits.PSBT_INPUTS_MAX])
    left_sat = -_missing_sat(chosen, [TxOut(0, script)], fee_rate_sat_vb)
    least = dust_sat(TxOut(0, script))
    if left_sat < least:
        raise InsufficientFunds(least - left_sat, sum(out.amount_sat for out in coins.values()))
    return chosen, TxOut(left_sat, script)


def worth(coins: Mapping[Outpoint, TxOut], fee_rate_sat_vb: int) -> dict[Outpoint, TxOut]:
    """Return the coins that hold more than spending them costs."""
    empty = fee_for(_NOTHING, (), fee_rate_sat_vb)
    return {
        outpoint: out
        for outpoint, out in coins.items()
        if out.amount_sat > fee_for({outpoint: out}, (), fee_rate_sat_vb) - empty
    }


def _missing_sat(coins: Mapping[Outpoint, TxOut], payments: Sequence[TxOut], fee_rate_sat_vb: int) -> int:
    held_sat, paid_sat = (sum(out.amount_sat for out in outs) for outs in (coins.values(), payments))
    return paid_sat + fee_for(coins, payments, fee_rate_sat_vb) - held_sat
