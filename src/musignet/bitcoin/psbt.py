"""PSBTs of version 0 and 2 (BIP-174, BIP-370) as values that lose nothing.

`parse_untrusted` accepts one reading of the bytes or refuses; `serialize` gives the same bytes back, unknown fields
and the order of fields included. What a PSBT *means* for the wallet is judged by `review`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from .. import limits
from . import fields
from .fields import Global, In, Out
from .rules import Rule, RuleBroken
from .transaction import SEQUENCE_FINAL, Outpoint, Reader, Transaction, TxIn, TxOut, compact_size, with_size

__all__ = ["FieldMap", "Psbt"]

_MAGIC: Final = b"psbt\xff"


class FieldMap:
    """The fields of one map, in their order. Never changed: `with_field` and `without` return another map."""

    __slots__ = ("_fields",)

    def __init__(self, entries: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._fields = dict(entries)

    def get(self, kind: int, data: bytes = b"") -> bytes | None:
        """Return the value of the field of this type with this key data, or None."""
        return self._fields.get(bytes((kind,)) + data)

    def of_type(self, kind: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield key data and value of each field of this type."""
        return ((key[1:], value) for key, value in self._fields.items() if key[0] == kind)

    def with_field(self, kind: int, data: bytes, value: bytes) -> FieldMap:
        """Return the map with this field, in its old place or at the end."""
        return FieldMap(self._fields | {bytes((kind,)) + data: value})

    def without(self, *kinds: int) -> FieldMap:
        """Return the map without any field of these types."""
        return FieldMap((key, value) for key, value in self._fields.items() if key[0] not in kinds)

    def first_of(self, kind: int, seen: set[bytes]) -> FieldMap:
        """Return the map without the fields of this type whose key is in `seen`. Those that stay join it."""
        again = {key for key in self._fields if key[0] == kind and key in seen}
        seen.update(key for key in self._fields if key[0] == kind)
        return FieldMap((key, value) for key, value in self._fields.items() if key not in again) if again else self

    def only(self, table: fields.Table) -> FieldMap:
        """Return the map without any field whose type is not in `table`."""
        return FieldMap((key, value) for key, value in self._fields.items() if key[0] in table)

    def picked(self, kinds: Iterable[int]) -> FieldMap:
        """Return the map with nothing but the fields of these types that have no key data."""
        found = ((bytes((kind,)), self.get(kind)) for kind in kinds)
        return FieldMap((key, value) for key, value in found if value is not None)

    def differs(self, other: FieldMap) -> set[int]:
        """Return the types of the fields that are not the same in both."""
        return {key[0] for key, _ in self._fields.items() ^ other._fields.items()}

    def to_bytes(self) -> bytes:
        """Return the fields, each behind its lengths, and the zero byte that ends a map."""
        parts = (with_size(key) + with_size(value) for key, value in self._fields.items())
        return b"".join(parts) + b"\x00"

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same fields. Their order means nothing."""
        return isinstance(other, FieldMap) and other._fields == self._fields

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<FieldMap of {len(self)} fields>"


@dataclass(frozen=True, slots=True)
class Psbt:
    """One PSBT: its maps, and the transaction that they describe."""

    version: int
    """0 or 2."""
    globals: FieldMap
    inputs: tuple[FieldMap, ...]
    outputs: tuple[FieldMap, ...]
    tx: Transaction
    """The unsigned transaction, every scriptSig empty."""
    spent: tuple[TxOut | None, ...]
    """What each input says that it spends. None where it says nothing. Unverified, but see `review`."""

    @classmethod
    def parse_untrusted(cls, data: bytes) -> Psbt:
        """Return the PSBT in `data`.

        Raises: RuleBroken, an InvalidMessage: X17 beyond a bound of `limits`, X11 for a malformed field of BIP-373,
                X1 where an input contradicts the previous transaction it carries, X12 for anything else.
        """
        if len(data) > limits.PSBT_MAX_BYTES:
            raise RuleBroken(
                Rule.X17, "the PSBT is too large", expected=f"at most {limits.PSBT_MAX_BYTES} bytes", got=len(data)
            )
        maps = _Maps(data)
        globals_ = maps.read(fields.GLOBAL)
        version = _version(globals_)
        _check_versions((globals_,), fields.GLOBAL, version)
        unsigned = _unsigned(globals_) if version == 0 else None
        n_inputs, n_outputs = _counts(globals_, unsigned)
        inputs = tuple(maps.read(fields.INPUT) for _ in range(n_inputs))
        outputs = tuple(maps.read(fields.OUTPUT) for _ in range(n_outputs))
        maps.end()
        _check_versions(inputs, fields.INPUT, version)
        _check_versions(outputs, fields.OUTPUT, version)
        tx = unsigned or _described(globals_, inputs, outputs)
        spent = tuple(_spent(one, txin.outpoint) for one, txin in zip(inputs, tx.inputs, strict=True))
        return cls(version, globals_, inputs, outputs, tx, spent)

    @classmethod
    def create(cls, tx: Transaction, spent: Sequence[TxOut], *, version: int = 0) -> Psbt:
        """Return a PSBT of version 0 or 2 for an unsigned transaction and the outputs that it spends.

        Raises: RuleBroken (X17, X12) where `parse_untrusted` would.
        """
        inputs = [FieldMap({bytes((In.WITNESS_UTXO,)): out.to_bytes()}) for out in spent]
        outputs = [FieldMap() for _ in tx.outputs]
        if version == 0:
            head = FieldMap({bytes((Global.UNSIGNED_TX,)): tx.to_bytes()})
        else:
            head = _head(tx)
            inputs = [_with_outpoint(one, txin) for one, txin in zip(inputs, tx.inputs, strict=True)]
            outputs = [_amount_and_script(out) for out in tx.outputs]
        return cls.parse_untrusted(_MAGIC + b"".join(one.to_bytes() for one in (head, *inputs, *outputs)))

    def serialize(self) -> bytes:
        """Return the bytes: those that were parsed, or the fields in the order in which they were added."""
        return _MAGIC + b"".join(one.to_bytes() for one in (self.globals, *self.inputs, *self.outputs))

    def understood(self) -> Psbt:
        """Return the PSBT without unknown fields: they mean nothing here, and libwally refuses empty ones."""
        return replace(
            self,
            globals=self.globals.only(fields.GLOBAL),
            inputs=tuple(one.only(fields.INPUT) for one in self.inputs),
            outputs=tuple(one.only(fields.OUTPUT) for one in self.outputs),
        )

    def with_input(self, index: int, one: FieldMap) -> Psbt:
        """Return the PSBT with another map for one input. It must describe the same transaction."""
        return replace(self, inputs=(*self.inputs[:index], one, *self.inputs[index + 1 :]))

    def with_output(self, index: int, one: FieldMap) -> Psbt:
        """Return the PSBT with another map for one output. It must describe the same transaction."""
        return replace(self, outputs=(*self.outputs[:index], one, *self.outputs[index + 1 :]))


def _head(tx: Transaction) -> FieldMap:
    """Return the global map of version 2."""
    return FieldMap(
        {
            bytes((Global.TX_VERSION,)): tx.version.to_bytes(4, "little"),
            bytes((Global.FALLBACK_LOCKTIME,)): tx.locktime.to_bytes(4, "little"),
            bytes((Global.INPUT_COUNT,)): compact_size(len(tx.inputs)),
            bytes((Global.OUTPUT_COUNT,)): compact_size(len(tx.outputs)),
            bytes((Global.VERSION,)): (2).to_bytes(4, "little"),
        }
    )


def _with_outpoint(one: FieldMap, txin: TxIn) -> FieldMap:
    return (
        one.with_field(In.PREVIOUS_TXID, b"", txin.outpoint.txid)
        .with_field(In.OUTPUT_INDEX, b"", txin.outpoint.vout.to_bytes(4, "little"))
        .with_field(In.SEQUENCE, b"", txin.sequence.to_bytes(4, "little"))
    )


def _amount_and_script(out: TxOut) -> FieldMap:
    return FieldMap({bytes((Out.AMOUNT,)): out.to_bytes()[:8], bytes((Out.SCRIPT,)): out.script})


class _Maps:
    """Reads map after map, and counts their fields."""

    __slots__ = ("_left", "_reader")

    def __init__(self, data: bytes) -> None:
        self._reader = Reader(data)
        self._left = limits.PSBT_FIELDS_MAX
        if data[: len(_MAGIC)] != _MAGIC:
            raise RuleBroken(Rule.X12, "not a PSBT", expected="psbt\\xff", got=bytes(data[: len(_MAGIC)]).hex())
        self._reader.take(len(_MAGIC))

    def read(self, table: fields.Table) -> FieldMap:
        found: dict[bytes, bytes] = {}
        sized = self._reader.sized
        while key := sized():
            value = sized()
            if key in found:
                raise RuleBroken(Rule.X12, "a field comes twice", expected="each key once per map", got=key[:40].hex())
            self._left -= 1
            if self._left < 0:
                raise RuleBroken(Rule.X17, "too many fields", expected=f"at most {limits.PSBT_FIELDS_MAX}")
            fields.check(table, key, value)
            found[key] = value
        return FieldMap(found)

    def end(self) -> None:
        self._reader.end("the PSBT")


def _version(globals_: FieldMap) -> int:
    version = int.from_bytes(globals_.get(Global.VERSION) or b"", "little")
    if version not in (0, 2):
        raise RuleBroken(Rule.X12, "unknown PSBT version", expected="0 or 2", got=version)
    return version


def _check_versions(maps: Iterable[FieldMap], table: fields.Table, version: int) -> None:
    """BIP-370 "Versions Requiring Exclusion": a field of the other version would be a second reading."""
    excluded = [(kind, field.name) for kind, field in table.items() if version not in field.versions]
    for one in maps:
        for kind, name in excluded:
            if one.get(kind) is not None:
                raise RuleBroken(
                    Rule.X12, "fields of two PSBT versions", expected=f"no {name} in version {version}", got="one"
                )


def _required(one: FieldMap, table: fields.Table, kind: int) -> bytes:
    value = one.get(kind)
    if value is None:
        raise RuleBroken(Rule.X12, "a field is missing", expected=table[kind].name, got="none")
    return value


def _unsigned(globals_: FieldMap) -> Transaction:
    raw = _required(globals_, fields.GLOBAL, Global.UNSIGNED_TX)
    tx = Transaction.parse_untrusted(raw, witness=False)
    if any(txin.script_sig for txin in tx.inputs):
        raise RuleBroken(Rule.X12, "the unsigned transaction is signed", expected="empty scriptSigs")
    return tx


def _counts(globals_: FieldMap, unsigned: Transaction | None) -> tuple[int, int]:
    if unsigned is not None:
        counts = len(unsigned.inputs), len(unsigned.outputs)
    else:
        counts = _count(globals_, Global.INPUT_COUNT), _count(globals_, Global.OUTPUT_COUNT)
    for count, most in zip(counts, (limits.PSBT_INPUTS_MAX, limits.PSBT_OUTPUTS_MAX), strict=True):
        if count > most:
            raise RuleBroken(Rule.X17, "too many inputs or outputs", expected=f"at most {most}", got=count)
    return counts


def _count(globals_: FieldMap, kind: int) -> int:
    reader = Reader(_required(globals_, fields.GLOBAL, kind))
    count = reader.compact()
    reader.end("a count")
    return count


def _described(globals_: FieldMap, inputs: Sequence[FieldMap], outputs: Sequence[FieldMap]) -> Transaction:
    """Return the transaction that a PSBT of version 2 describes."""
    version = _required(globals_, fields.GLOBAL, Global.TX_VERSION)
    return Transaction(
        int.from_bytes(version, "little"),
        _locktime(globals_, inputs),
        tuple(_input(one) for one in inputs),
        tuple(_output(one) for one in outputs),
    )


def _input(one: FieldMap) -> TxIn:
    txid = _required(one, fields.INPUT, In.PREVIOUS_TXID)
    vout = _required(one, fields.INPUT, In.OUTPUT_INDEX)
    sequence = one.get(In.SEQUENCE)
    return TxIn(
        Outpoint(txid, int.from_bytes(vout, "little")),
        SEQUENCE_FINAL if sequence is None else int.from_bytes(sequence, "little"),
    )


def _output(one: FieldMap) -> TxOut:
    amount = _required(one, fields.OUTPUT, Out.AMOUNT)
    return TxOut(int.from_bytes(amount, "little", signed=True), _required(one, fields.OUTPUT, Out.SCRIPT))


def _locktime(globals_: FieldMap, inputs: Sequence[FieldMap]) -> int:
    """BIP-370 "Determining Lock Time": the type that every input with one allows, its maximum; heights first."""
    locked = [one for one in inputs if one.get(In.HEIGHT_LOCKTIME) or one.get(In.TIME_LOCKTIME)]
    if not locked:
        return int.from_bytes(globals_.get(Global.FALLBACK_LOCKTIME) or b"", "little")
    for kind in (In.HEIGHT_LOCKTIME, In.TIME_LOCKTIME):
        values = [value for one in locked if (value := one.get(kind)) is not None]
        if len(values) == len(locked):
            return max(int.from_bytes(value, "little") for value in values)
    raise RuleBroken(Rule.X12, "inputs require a height and a time", expected="one kind of lock time")


def _spent(one: FieldMap, outpoint: Outpoint) -> TxOut | None:
    """Return the output that an input says it spends.

    Raises: RuleBroken (X1) when the previous transaction it carries is not the one it names, or says otherwise.
    """
    claimed = one.get(In.WITNESS_UTXO)
    witness = None
    if claimed is not None:
        reader = Reader(claimed)
        witness = TxOut.read(reader)
        reader.end("a witness UTXO")
    raw = one.get(In.NON_WITNESS_UTXO)
    if raw is None:
        return witness
    previous = Transaction.parse_untrusted(raw, witness=True)
    if previous.txid() != outpoint.txid or outpoint.vout >= len(previous.outputs):
        raise RuleBroken(Rule.X1, "an input carries another previous transaction", expected=outpoint)
    proved = previous.outputs[outpoint.vout]
    if witness is not None and witness != proved:
        raise RuleBroken(
            Rule.X1,
            f"an input lies about the output it spends, {outpoint}",
            expected=f"{proved.amount_sat} sat",
            got=f"{witness.amount_sat} sat",
        )
    return proved
