"""How heavy a transaction will be when everybody has signed (BIP-141)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .fields import In
from .psbt import FieldMap, Psbt
from .transaction import TxOut, with_size

__all__ = ["weight_wu"]

_KEY_PATH_WU: Final = 66
"""A stack of one 64-byte signature."""
_PUBKEY_HASH_WU: Final = 108
"""A stack of a signature of up to 71 bytes with its type, and a key of 33."""
_LEGACY_SCRIPT_WU: Final = 4 * 107
"""The same two in a scriptSig, whose bytes weigh four times as much."""
_MARKER_WU: Final = 2


def weight_wu(psbt: Psbt, spent: Sequence[TxOut]) -> int:
    """Return the weight units of the finished transaction.

    Inputs that are final already count as they are; others by what their kind of script takes. Script hashes do
    not say, and count as a key path: for them the true weight is higher and the true fee rate lower.
    """
    witnesses = sum(_witness_wu(one, out) for one, out in zip(psbt.inputs, spent, strict=True))
    return 4 * len(psbt.tx.to_bytes()) + _MARKER_WU + witnesses


def _witness_wu(one: FieldMap, out: TxOut) -> int:
    witness, script_sig = one.get(In.FINAL_SCRIPTWITNESS), one.get(In.FINAL_SCRIPTSIG)
    if witness is not None or script_sig is not None:
        return len(witness or b"\x00") + 4 * (len(with_size(script_sig or b"")) - 1)
    if not out.is_witness:
        return _LEGACY_SCRIPT_WU + 1
    return _PUBKEY_HASH_WU if len(out.script) == 22 else _KEY_PATH_WU
