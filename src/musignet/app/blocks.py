"""Blocks for a regtest chain: built, mined and nothing more. Whether they are valid is for a kernel to say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Final

from ..bitcoin.transaction import SEQUENCE_FINAL, Outpoint, Transaction, TxIn, TxOut, compact_size

__all__ = ["COINBASE_MATURITY_BLOCKS", "GENESIS_HEADER", "Block", "Mined", "mine", "subsidy_sat"]

COINBASE_MATURITY_BLOCKS: Final = 100
"""What a block pays can be spent in the 100th block after it: Bitcoin Core, `COINBASE_MATURITY`."""

_GENESIS_TIME_S: Final = 1_296_688_602
_SPACING_S: Final = 600
_HALVING_BLOCKS: Final = 150
_SUBSIDY_SAT: Final = 50 * 10**8
_VERSION: Final = (0x2000_0000).to_bytes(4, "little")
_BITS: Final = (0x207F_FFFF).to_bytes(4, "little")
_TARGET: Final = 0x7F_FFFF << 8 * (0x20 - 3)
GENESIS_HEADER: Final = b"".join(
    (
        (1).to_bytes(4, "little"),
        bytes(32),
        bytes.fromhex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b")[::-1],
        _GENESIS_TIME_S.to_bytes(4, "little"),
        _BITS,
        (2).to_bytes(4, "little"),
    )
)
"""Bitcoin Core, `CRegTestParams`: version, no block before, the root of the one coinbase of all networks, time, bits
and nonce."""
_RESERVED: Final = bytes(32)
_COMMITMENT_SCRIPT: Final = bytes.fromhex("6a24aa21a9ed")
"""BIP-141 "Commitment structure": OP_RETURN, 36 bytes, and the four that mark it."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction of a block: what the block holds, and what it means."""

    raw: bytes
    tx: Transaction

    @property
    def txid(self) -> bytes:
        """32 bytes in hashing order."""
        return self.tx.txid()


@dataclass(frozen=True, slots=True)
class Block:
    """A block with its proof of work."""

    header: bytes
    """80 bytes."""
    transactions: tuple[Mined, ...]
    """The coinbase first."""

    @property
    def hash(self) -> bytes:
        """32 bytes in hashing order."""
        return _sha256d(self.header)

    def to_bytes(self) -> bytes:
        return self.header + compact_size(len(self.transactions)) + b"".join(one.raw for one in self.transactions)


def subsidy_sat(height: int) -> int:
    """Return what a block at `height` may pay beside its fees."""
    halvings = height // _HALVING_BLOCKS
    return _SUBSIDY_SAT >> halvings


def mine(previous: bytes, height: int, script: bytes, transactions: Sequence[Mined], extra_nonce: int) -> Block:
    """Return a block on top of `previous` that pays the subsidy to `script`. The fees of `transactions` are burnt.

    The time is ten minutes after that of the block below, counted from the genesis block of 2011: no clock is read.

    Args: previous    - hash of the block at `height - 1`, in hashing order.
          extra_nonce - below 2^32; blocks that differ only in it differ in their hash.
    """
    witness_root = _merkle_root([_RESERVED, *(_sha256d(one.raw) for one in transactions)])
    coinbase = _coinbase(height, script, _sha256d(witness_root + _RESERVED), extra_nonce)
    everything = (coinbase, *transactions)
    root = _merkle_root([one.txid for one in everything])
    time = (_GENESIS_TIME_S + _SPACING_S * height).to_bytes(4, "little")
    start = _VERSION + previous + root + time + _BITS
    return Block(next(_worked(start)), everything)


def _worked(start: bytes) -> Iterator[bytes]:
    """Yield the headers that begin with `start` and meet the target: every second one does."""
    headers = (start + nonce.to_bytes(4, "little") for nonce in count())
    return (header for header in headers if int.from_bytes(_sha256d(header), "little") <= _TARGET)


def _coinbase(height: int, script: bytes, commitment: bytes, extra_nonce: int) -> Mined:
    outputs = (TxOut(subsidy_sat(height), script), TxOut(0, _COMMITMENT_SCRIPT + commitment))
    script_sig = _push_number(height) + b"\x04" + extra_nonce.to_bytes(4, "little")
    tx = Transaction(2, 0, (TxIn(Outpoint(bytes(32), 0xFFFF_FFFF), SEQUENCE_FINAL, script_sig),), outputs)
    return Mined(tx.to_bytes([b"\x01\x20" + _RESERVED]), tx)


def _push_number(number: int) -> bytes:
    """Return the script that pushes a positive number in the shortest way, as BIP-34 wants the height."""
    if number <= 16:
        return bytes((0x50 + number,))
    data = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return bytes((len(data),)) + data


def _merkle_root(hashes: Sequence[bytes]) -> bytes:
    while len(hashes) > 1:
        even = [*hashes, hashes[-1]] if len(hashes) % 2 else hashes
        hashes = [_sha256d(left + right) for left, right in zip(even[::2], even[1::2], strict=True)]
    return hashes[0]


def _sha256d(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()
