"""Amounts and fee rates as people type them."""

from __future__ import annotations

import re
from typing import Final

from ... import limits
from ...errors import LocalError

__all__ = ["parse_amount", "parse_fee_rate"]

_AMOUNT: Final = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,8}))? ?(sat|sats|btc)?", re.ASCII | re.IGNORECASE)
_SAT_PER_BITCOIN: Final = 100_000_000
_HOW: Final = "such as 25000sat or 0.01btc; a whole number alone is satoshi"


def parse_amount(text: str) -> int:
    """Return satoshi: `25000`, `25000sat` or `0.01btc`. A fraction needs its unit: nobody shall lose a factor of 10^8.

    Raises: LocalError for anything else, 0, or more than there are.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise LocalError("not an amount", expected=_HOW, got=text)
    whole, part, unit = match.groups()
    if (unit or "sat").lower() != "btc":
        if part is not None:
            raise LocalError("a fraction of a satoshi, or bitcoin without the unit", expected=_HOW, got=text)
        amount_sat = int(whole)
    else:
        amount_sat = int(whole) * _SAT_PER_BITCOIN + int((part or "").ljust(8, "0"))
    if not 0 < amount_sat <= limits.MONEY_MAX_SAT:
        raise LocalError("not an amount that can be sent", expected=f"1 to {limits.MONEY_MAX_SAT} sat", got=text)
    return amount_sat


def parse_fee_rate(text: str) -> int:
    """Return sat/vB from a whole number. Raises: LocalError for anything else, or more than a person is to be asked."""
    rate = int(text) if text.isascii() and text.isdecimal() and len(text) <= 6 else 0
    if not 0 < rate <= limits.FEE_RATE_MAX_SAT_VB:
        raise LocalError("not a fee rate", expected=f"1 to {limits.FEE_RATE_MAX_SAT_VB} sat/vB", got=text)
    return rate
