"""A PSBT that spends coins of our own wallet: what a proposer makes, before anybody reviews it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import LocalError
from .checks import dust_sat
from .descriptor import Derived
from .fields import In
from .group import CHANGE, Group, Known
from .musig_fields import describe
from .psbt import FieldMap, Psbt
from .transaction import Outpoint, Transaction, TxIn, TxOut
from .weight import weight_wu

__all__ = ["build", "fee_for"]

_SEQUENCE: Final = 0xFFFF_FFFD
"""No relative lock, and the fee may be raised later (BIP-125)."""
_TX_VERSION: Final = 2
_NOTHING_KNOWN: Final = Known()


def build(
    group: Group,
    coins: Mapping[Outpoint, TxOut],
    payments: Sequence[TxOut],
    *,
    fee_rate_sat_vb: int,
    known: Known = _NOTHING_KNOWN,
    version: int = 0,
    locktime: int = 0,
) -> Psbt:
    """Return a PSBT that spends all of `coins`, makes the payments, and sends the rest to our next change address.

    Each input has its witness UTXO; inputs and change have what other wallets need to find their keys (BIP-371,
    BIP-373). Inputs and outputs are in the order of BIP-69, so that the place of the change says nothing. Change that
    would be dust goes to the fee. No rule is applied: whether this may be signed is for `review` to say.

    Args:   coins   - ours, at addresses within the gap of the last ones used, as `known` has it.
            version - of the PSBT, 0 or 2.
    Raises: LocalError when a coin is not ours, they are not enough, or the wallet has no change addresses;
            RuleBroken (X17) beyond the bounds of a PSBT.
    """
    if version not in (0, 2) or min(fee_rate_sat_vb, *(out.amount_sat for out in payments), 0) < 0:
        raise LocalError("cannot build this", expected="PSBT version 0 or 2, and no amount or fee rate below 0")
    ours = {outpoint: _own(group, outpoint, out, known) for outpoint, out in coins.items()}
    change = _change(group, known)
    rest = _rest(coins, payments, change, fee_rate_sat_vb)
    made = _create(coins, (*payments, rest) if rest else payments, version, locktime)
    inputs = {index: ours[txin.outpoint] for index, txin in enumerate(made.tx.inputs)}
    return describe(made, group, inputs, {index: change for index, out in enumerate(made.tx.outputs) if out == rest})


def _own(group: Group, outpoint: Outpoint, out: TxOut, known: Known) -> Derived:
    own = group.own_input(out, FieldMap(), In.TAP_BIP32_DERIVATION, known)
    if own is None:
        raise LocalError(f"coin {outpoint} is not ours", hint="was a higher address used than `known` says?")
    return own


def _change(group: Group, known: Known) -> Derived:
    if group.descriptor.branches <= CHANGE:
        raise LocalError("this wallet has no change addresses", expected="a descriptor with <0;1>")
    return group.derive(CHANGE, known.last_index[CHANGE] + 1 if group.descriptor.ranged else 0)


def _rest(
    coins: Mapping[Outpoint, TxOut], payments: Sequence[TxOut], change: Derived, fee_rate_sat_vb: int
) -> TxOut | None:
    """Return what goes back to us, or None where it would be dust."""
    held_sat, paid_sat = (sum(out.amount_sat for out in outs) for outs in (coins.values(), payments))
    if paid_sat <= held_sat:
        fee_sat = fee_for(coins, (*payments, TxOut(0, change.script)), fee_rate_sat_vb)
        rest = TxOut(held_sat - paid_sat - fee_sat, change.script)
        if rest.amount_sat >= dust_sat(rest):
            return rest
        if payments and held_sat >= paid_sat + fee_for(coins, payments, fee_rate_sat_vb):
            return None
    raise LocalError("the coins are not enough", expected=f"{paid_sat} sat and the fee", got=f"{held_sat} sat")


def fee_for(coins: Mapping[Outpoint, TxOut], outputs: Sequence[TxOut], fee_rate_sat_vb: int) -> int:
    """Return what the finished transaction pays at a fee rate, in whole virtual bytes (BIP-141)."""
    vbytes = -(-weight_wu(_create(coins, outputs, 0, 0), tuple(coins.values())) // 4)
    return vbytes * fee_rate_sat_vb


def _create(coins: Mapping[Outpoint, TxOut], outputs: Sequence[TxOut], version: int, locktime: int) -> Psbt:
    """Return the PSBT without descriptions, in the order of BIP-69."""
    ordered = sorted(coins.items(), key=lambda coin: (coin[0].txid[::-1], coin[0].vout))
    tx = Transaction(
        _TX_VERSION,
        locktime,
        tuple(TxIn(outpoint, _SEQUENCE) for outpoint, _ in ordered),
        tuple(sorted(outputs, key=lambda out: (out.amount_sat, out.script))),
    )
    return Psbt.create(tx, [out for _, out in ordered], version=version)
