"""BIP-341 for the key path: output keys, addresses, and what a signature signs. Each digest is computed twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from ..chain import Chain
from ..crypto import backend
from ..crypto.schnorr import TaggedHash
from ..errors import InvalidMessage
from . import wally
from .rules import Rule, RuleBroken
from .transaction import Transaction, TxOut, with_size

__all__ = ["SIGHASH_ALL", "SIGHASH_DEFAULT", "Tweak", "address", "key_path_digests", "output_key", "output_script"]

SIGHASH_DEFAULT: Final = 0x00
"""Commits to the whole transaction; the signature is 64 bytes."""
SIGHASH_ALL: Final = 0x01
"""Commits to the same; the signature is followed by this byte."""

_tap_tweak = TaggedHash("TapTweak")
_tap_sighash = TaggedHash("TapSighash")
_EPOCH: Final = b"\x00"
_KEY_PATH_NO_ANNEX: Final = b"\x00"


class Tweak(NamedTuple):
    """One tweak of an aggregate key, as BIP-327 "ApplyTweak" takes it."""

    value: bytes
    """32 bytes."""
    xonly: bool
    """True for the TapTweak, False for a step of BIP-328."""


def output_key(internal: bytes, merkle_root: bytes = b"") -> tuple[Tweak, bytes]:
    """Return the TapTweak and the 33-byte output key of an x-only internal key.

    Args:   merkle_root - 32 bytes, or empty for an output without scripts.
    Raises: InvalidMessage when there is no such point.
    """
    tweak = _tap_tweak(internal, merkle_root)
    try:
        return Tweak(tweak, xonly=True), backend.xonly_tweak(internal, tweak)
    except backend.BackendError as error:
        raise InvalidMessage(f"not an internal key: {error}", got=internal.hex()) from None


def output_script(key: bytes) -> bytes:
    """Return the script of an output locked with a 33-byte output key: OP_1 and its x coordinate."""
    return b"\x51\x20" + key[1:]


def address(script: bytes, chain: Chain) -> str | None:
    """Return the address that people know a script by, or None where it has none."""
    try:
        if TxOut(0, script).is_witness:
            return wally.segwit_address(script, chain)
        return wally.legacy_address(script, chain)
    except wally.WallyError:
        return None


def key_path_digests(tx: Transaction, spent: Sequence[TxOut], wanted: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
    """Return what the signature of each wanted (input, sighash type) signs: BIP-341 "SigMsg", hashed, 32 bytes each.

    Computed here and by libwally. Args: sighash types DEFAULT and ALL only; rule X4 has refused the others.

    Raises: RuleBroken (X12) when the two do not agree: then nothing must be signed.
    """
    ours = _digests(tx, spent, wanted)
    try:
        theirs = wally.key_path_sighashes(tx.to_bytes(), spent, wanted)
    except wally.WallyError:
        theirs = []
    if ours != theirs:
        raise RuleBroken(Rule.X12, "two implementations disagree about what is signed", hint="report this transaction")
    return tuple(ours)


def _digests(tx: Transaction, spent: Sequence[TxOut], wanted: Sequence[tuple[int, int]]) -> list[bytes]:
    common = b"".join(
        (
            tx.version.to_bytes(4, "little"),
            tx.locktime.to_bytes(4, "little"),
            _sha256(txin.outpoint.to_bytes() for txin in tx.inputs),
            _sha256(out.to_bytes()[:8] for out in spent),
            _sha256(with_size(out.script) for out in spent),
            _sha256(txin.sequence.to_bytes(4, "little") for txin in tx.inputs),
            _sha256(out.to_bytes() for out in tx.outputs),
            _KEY_PATH_NO_ANNEX,
        )
    )
    return [_tap_sighash(_EPOCH, bytes((kind,)), common, index.to_bytes(4, "little")) for index, kind in wanted]


def _sha256(parts: Iterable[bytes]) -> bytes:
    return sha256(b"".join(parts)).digest()
