"""The PSBT fields that have a form: their numbers and their sizes (BIP-174, 370, 371, 373).

A field is a key, whose first byte is its type, and a value. Types that are not in these tables are kept as they
are and never interpreted (THREATS.md X12).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from .rules import Rule, RuleBroken
from .transaction import Reader

__all__ = ["GLOBAL", "INPUT", "OUTPUT", "Field", "Global", "In", "Out", "Table", "check"]


class Global:
    """Types in the global map."""

    UNSIGNED_TX: Final = 0x00
    XPUB: Final = 0x01
    TX_VERSION: Final = 0x02
    FALLBACK_LOCKTIME: Final = 0x03
    INPUT_COUNT: Final = 0x04
    OUTPUT_COUNT: Final = 0x05
    TX_MODIFIABLE: Final = 0x06
    VERSION: Final = 0xFB


class In:
    """Types in the map of an input."""

    NON_WITNESS_UTXO: Final = 0x00
    WITNESS_UTXO: Final = 0x01
    PARTIAL_SIG: Final = 0x02
    SIGHASH_TYPE: Final = 0x03
    REDEEM_SCRIPT: Final = 0x04
    WITNESS_SCRIPT: Final = 0x05
    BIP32_DERIVATION: Final = 0x06
    FINAL_SCRIPTSIG: Final = 0x07
    FINAL_SCRIPTWITNESS: Final = 0x08
    PREVIOUS_TXID: Final = 0x0E
    OUTPUT_INDEX: Final = 0x0F
    SEQUENCE: Final = 0x10
    TIME_LOCKTIME: Final = 0x11
    HEIGHT_LOCKTIME: Final = 0x12
    TAP_KEY_SIG: Final = 0x13
    TAP_SCRIPT_SIG: Final = 0x14
    TAP_LEAF_SCRIPT: Final = 0x15
    TAP_BIP32_DERIVATION: Final = 0x16
    TAP_INTERNAL_KEY: Final = 0x17
    TAP_MERKLE_ROOT: Final = 0x18
    MUSIG2_PARTICIPANTS: Final = 0x1A
    MUSIG2_PUB_NONCE: Final = 0x1B
    MUSIG2_PARTIAL_SIG: Final = 0x1C


class Out:
    """Types in the map of an output."""

    REDEEM_SCRIPT: Final = 0x00
    WITNESS_SCRIPT: Final = 0x01
    BIP32_DERIVATION: Final = 0x02
    AMOUNT: Final = 0x03
    SCRIPT: Final = 0x04
    TAP_INTERNAL_KEY: Final = 0x05
    TAP_TREE: Final = 0x06
    TAP_BIP32_DERIVATION: Final = 0x07
    MUSIG2_PARTICIPANTS: Final = 0x08


Form: TypeAlias = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """The form of one type: what its key holds after the type, what its value holds, and which versions have it."""

    name: str
    key: Form
    value: Form
    versions: tuple[int, ...] = (0, 2)
    rule: Rule = Rule.X12


Table: TypeAlias = dict[int, Field]

V2: Final = (2,)
_COMPRESSED: Final = (2, 3)


def _size(*sizes: int) -> Form:
    return lambda data: len(data) in sizes


def _any(data: bytes) -> bool:
    return True


def _points(data: bytes) -> bool:
    """One or more keys of 33 bytes, each with the prefix of a compressed point. BIP-373: never x-only."""
    return len(data) > 0 and len(data) % 33 == 0 and all(prefix in _COMPRESSED for prefix in data[::33])


def _point(data: bytes) -> bool:
    return len(data) == 33 and _points(data)


def _contribution(data: bytes) -> bool:
    """Participant and signing key, and the leaf hash for a script path (BIP-373)."""
    return len(data) in (66, 98) and _points(data[:66])


def _nonce(data: bytes) -> bool:
    return len(data) == 66 and _points(data)


def _pubkey(data: bytes) -> bool:
    return _point(data) or (len(data) == 65 and data[0] == 4)


def _origin(data: bytes) -> bool:
    return len(data) >= 4 and len(data) % 4 == 0


def _control(data: bytes) -> bool:
    return 33 <= len(data) <= 33 + 32 * 128 and len(data) % 32 == 1


def _leaf(data: bytes) -> bool:
    return len(data) >= 1


def _tap_origin(data: bytes) -> bool:
    """Leaf hashes behind their number, then a fingerprint and a path."""
    if not data or data[0] >= 0xFD:
        return False
    return _origin(data[1 + 32 * data[0] :])


def _time(data: bytes) -> bool:
    return len(data) == 4 and int.from_bytes(data, "little") >= LOCKTIME_TIME


def _height(data: bytes) -> bool:
    return len(data) == 4 and 0 < int.from_bytes(data, "little") < LOCKTIME_TIME


LOCKTIME_TIME: Final = 500_000_000
"""BIP-370, and consensus: a lock time from here on is seconds since 1970, below it a height."""

_NONE: Final = _size(0)

GLOBAL: Final[Table] = {
    Global.UNSIGNED_TX: Field("unsigned transaction", _NONE, _any, (0,)),
    Global.XPUB: Field("extended public key", _size(78), _origin),
    Global.TX_VERSION: Field("transaction version", _NONE, _size(4), V2),
    Global.FALLBACK_LOCKTIME: Field("fallback lock time", _NONE, _size(4), V2),
    Global.INPUT_COUNT: Field("input count", _NONE, _any, V2),
    Global.OUTPUT_COUNT: Field("output count", _NONE, _any, V2),
    Global.TX_MODIFIABLE: Field("modifiable flags", _NONE, _size(1), V2),
    Global.VERSION: Field("version", _NONE, _size(4)),
}

INPUT: Final[Table] = {
    In.NON_WITNESS_UTXO: Field("previous transaction", _NONE, _any),
    In.WITNESS_UTXO: Field("witness UTXO", _NONE, _any),
    In.PARTIAL_SIG: Field("ECDSA signature", _pubkey, _any),
    In.SIGHASH_TYPE: Field("sighash type", _NONE, _size(4)),
    In.REDEEM_SCRIPT: Field("redeem script", _NONE, _any),
    In.WITNESS_SCRIPT: Field("witness script", _NONE, _any),
    In.BIP32_DERIVATION: Field("BIP-32 derivation", _pubkey, _origin),
    In.FINAL_SCRIPTSIG: Field("final scriptSig", _NONE, _any),
    In.FINAL_SCRIPTWITNESS: Field("final witness", _NONE, _any),
    In.PREVIOUS_TXID: Field("previous transaction id", _NONE, _size(32), V2),
    In.OUTPUT_INDEX: Field("spent output index", _NONE, _size(4), V2),
    In.SEQUENCE: Field("sequence", _NONE, _size(4), V2),
    In.TIME_LOCKTIME: Field("required time", _NONE, _time, V2),
    In.HEIGHT_LOCKTIME: Field("required height", _NONE, _height, V2),
    In.TAP_KEY_SIG: Field("key-path signature", _NONE, _size(64, 65)),
    In.TAP_SCRIPT_SIG: Field("script-path signature", _size(64), _size(64, 65)),
    In.TAP_LEAF_SCRIPT: Field("leaf script", _control, _leaf),
    In.TAP_BIP32_DERIVATION: Field("taproot derivation", _size(32), _tap_origin),
    In.TAP_INTERNAL_KEY: Field("internal key", _NONE, _size(32)),
    In.TAP_MERKLE_ROOT: Field("merkle root", _NONE, _size(32)),
    In.MUSIG2_PARTICIPANTS: Field("MuSig2 participants", _point, _points, rule=Rule.X11),
    In.MUSIG2_PUB_NONCE: Field("MuSig2 public nonce", _contribution, _nonce, rule=Rule.X11),
    In.MUSIG2_PARTIAL_SIG: Field("MuSig2 partial signature", _contribution, _size(32), rule=Rule.X11),
}

OUTPUT: Final[Table] = {
    Out.REDEEM_SCRIPT: Field("redeem script", _NONE, _any),
    Out.WITNESS_SCRIPT: Field("witness script", _NONE, _any),
    Out.BIP32_DERIVATION: Field("BIP-32 derivation", _pubkey, _origin),
    Out.AMOUNT: Field("amount", _NONE, _size(8), V2),
    Out.SCRIPT: Field("script", _NONE, _any, V2),
    Out.TAP_INTERNAL_KEY: Field("internal key", _NONE, _size(32)),
    Out.TAP_TREE: Field("script tree", _NONE, _leaf),
    Out.TAP_BIP32_DERIVATION: Field("taproot derivation", _size(32), _tap_origin),
    Out.MUSIG2_PARTICIPANTS: Field("MuSig2 participants", _point, _points, rule=Rule.X11),
}


def check(table: Table, key: bytes, value: bytes) -> None:
    """Check the form of one field. A type that is not in the table only needs the shortest form of its number.

    Raises: RuleBroken: X11 for a field of BIP-373, X12 for any other.
    """
    if key[0] >= 0xFD:
        Reader(key).compact()
        return
    field = table.get(key[0])
    if field is None or (field.key(key[1:]) and field.value(value)):
        return
    raise RuleBroken(
        field.rule,
        f"malformed {field.name}",
        expected="the form of its BIP, keys compressed",
        got=f"{len(key) - 1} bytes of key, {len(value)} of value",
    )
