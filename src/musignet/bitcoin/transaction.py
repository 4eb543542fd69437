"""Transactions as values, and the one reader of raw Bitcoin bytes (BIP-144, BIP-174 "compact size")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from .rules import Rule, RuleBroken

__all__ = ["Outpoint", "Reader", "Transaction", "TxIn", "TxOut", "compact_size", "with_size"]

_WIDTHS: Final = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}
_SMALL: Final = tuple(bytes((number,)) for number in range(0xFD))
SEQUENCE_FINAL: Final = 0xFFFF_FFFF


def compact_size(number: int) -> bytes:
    """Return the shortest form of `number`, 0 to 2^64-1."""
    if number < 0xFD:
        return bytes((number,))
    for prefix, (width, _) in _WIDTHS.items():
        if number < 1 << 8 * width:
            return bytes((prefix,)) + number.to_bytes(width, "little")
    raise OverflowError(f"compact size: expected below 2^64, got {number}")


def with_size(data: bytes) -> bytes:
    """Return `data` behind its length."""
    size = len(data)
    return (_SMALL[size] if size < 0xFD else compact_size(size)) + data


class Reader:
    """Reads bytes from a stranger, in order. Every method raises RuleBroken (X12) where they end early."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise RuleBroken(
                Rule.X12, "the bytes end early", expected=f"{size} more", got=f"{len(self._data) - self._at}"
            )
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, width: int) -> int:
        """Return an unsigned little-endian number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def compact(self) -> int:
        """Return a compact size. Only its shortest form is accepted."""
        first = self.number(1)
        width, least = _WIDTHS.get(first, (0, 0))
        if not width:
            return first
        number = self.number(width)
        if number < least:
            raise RuleBroken(
                Rule.X12, "a compact size is not in its shortest form", expected=f"at least {least}", got=number
            )
        return number

    def sized(self) -> bytes:
        """Return bytes that lie behind their length."""
        data, at = self._data, self._at
        size = data[at] if at < len(data) else 0xFF
        end = at + 1 + size
        if size < 0xFD and end <= len(data):  # nearly always; a PSBT of 250 inputs has thousands
            self._at = end
            return data[at + 1 : end]
        return self.take(self.compact())

    def end(self, what: str) -> None:
        """Check that nothing is left. Raises RuleBroken (X12) otherwise."""
        if self._at != len(self._data):
            raise RuleBroken(Rule.X12, f"bytes after the end of {what}", expected=0, got=len(self._data) - self._at)


class Outpoint(NamedTuple):
    """Which output is spent. Prints as explorers write it."""

    txid: bytes
    """32 bytes in hashing order: the reverse of what is shown."""
    vout: int

    def to_bytes(self) -> bytes:
        return self.txid + self.vout.to_bytes(4, "little")

    def __str__(self) -> str:
        return f"{self.txid[::-1].hex()}:{self.vout}"


@dataclass(frozen=True, slots=True)
class TxOut:
    """An output: an amount and the script that it is locked with."""

    amount_sat: int
    script: bytes

    def to_bytes(self) -> bytes:
        """Return amount (8 bytes, two's complement) and script behind its length."""
        return self.amount_sat.to_bytes(8, "little", signed=True) + with_size(self.script)

    @classmethod
    def read(cls, reader: Reader) -> TxOut:
        """Read one. The amount may be anything that 64 bits hold: rule X13 judges it."""
        amount = int.from_bytes(reader.take(8), "little", signed=True)
        return cls(amount, reader.sized())

    @property
    def is_taproot(self) -> bool:
        """Whether it is pay-to-taproot: OP_1 and 32 bytes."""
        return len(self.script) == 34 and self.script[:2] == b"\x51\x20"

    @property
    def is_witness(self) -> bool:
        """Whether it is a witness program (BIP-141): spent without a scriptSig, so its spender's txid is stable."""
        script = self.script
        return 4 <= len(script) <= 42 and (script[0] == 0 or 0x51 <= script[0] <= 0x60) and script[1] == len(script) - 2


@dataclass(frozen=True, slots=True)
class TxIn:
    """An input. `script_sig` is empty in everything that is still to be signed."""

    outpoint: Outpoint
    sequence: int = SEQUENCE_FINAL
    script_sig: bytes = b""

    def to_bytes(self, script_sig: bytes | None = None) -> bytes:
        script = self.script_sig if script_sig is None else script_sig
        return self.outpoint.to_bytes() + with_size(script) + self.sequence.to_bytes(4, "little")

    @classmethod
    def read(cls, reader: Reader) -> TxIn:
        outpoint = Outpoint(reader.take(32), reader.number(4))
        script_sig = reader.sized()
        return cls(outpoint, reader.number(4), script_sig)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction without its witnesses."""

    version: int
    locktime: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]

    def to_bytes(self, witnesses: Sequence[bytes] = (), script_sigs: Sequence[bytes] = ()) -> bytes:
        """Return the serialisation: BIP-144's where `witnesses` (one serialised stack per input) are given."""
        scripts = script_sigs or [txin.script_sig for txin in self.inputs]
        return b"".join(
            (
                self.version.to_bytes(4, "little"),
                b"\x00\x01" if witnesses else b"",
                compact_size(len(self.inputs)),
                *(txin.to_bytes(script) for txin, script in zip(self.inputs, scripts, strict=True)),
                compact_size(len(self.outputs)),
                *(out.to_bytes() for out in self.outputs),
                *witnesses,
                self.locktime.to_bytes(4, "little"),
            )
        )

    def txid(self, script_sigs: Sequence[bytes] = ()) -> bytes:
        """Return the transaction id in hashing order. Witnesses have no part in it."""
        return sha256(sha256(self.to_bytes((), script_sigs)).digest()).digest()

    @classmethod
    def parse_untrusted(cls, data: bytes, *, witness: bool) -> Transaction:
        """Read a whole transaction; its witnesses are skipped.

        Args:   witness - whether the form of BIP-144 is accepted. Never for an unsigned transaction, whose
                empty list of inputs would read as its marker.
        Raises: RuleBroken (X12).
        """
        reader = Reader(data)
        version = reader.number(4)
        count = reader.compact()
        extended = witness and count == 0
        if extended:
            if reader.number(1) != 1:
                raise RuleBroken(Rule.X12, "a transaction has no inputs and is not in the form of BIP-144")
            count = reader.compact()
        inputs = tuple(TxIn.read(reader) for _ in range(count))
        outputs = tuple(TxOut.read(reader) for _ in range(reader.compact()))
        for _ in inputs if extended else ():
            for _ in range(reader.compact()):
                reader.sized()
        locktime = reader.number(4)
        reader.end("a transaction")
        return cls(version, locktime, inputs, outputs)
