"""PSBTs: published vectors, losslessness, the two versions, and everything that is refused at the edge."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.bitcoin import wally
from musignet.bitcoin.fields import Global, In, Out
from musignet.bitcoin.psbt import FieldMap, Psbt
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.transaction import Transaction, TxIn, TxOut, compact_size, with_size
from support.bip import table
from support.wallet import group, outpoint, psbt, spend

MAGIC = b"psbt\xff"


def join(globals_: FieldMap, *maps: FieldMap, tail: bytes = b"") -> bytes:
    return MAGIC + b"".join(one.to_bytes() for one in (globals_, *maps)) + tail


def raw(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return one map, which may hold a key twice."""
    return b"".join(with_size(key) + with_size(value) for key, value in entries) + b"\x00"


def refused(data: bytes) -> RuleBroken:
    with pytest.raises(RuleBroken) as caught:
        Psbt.parse_untrusted(data)
    return caught.value


# --- BIP-373 ----------------------------------------------------------------------------------------------------------


def cases(kind: str) -> list[dict[str, Any]]:
    return list(table("bip373.json")[kind])


def test_the_vectors_have_exactly_these_rows() -> None:
    assert (len(cases("valid")), len(cases("invalid"))) == (14, 10)


@pytest.mark.parametrize("row", range(14))
def test_bip373_valid(row: int) -> None:
    data = base64.b64decode(cases("valid")[row]["base64"])
    parsed = Psbt.parse_untrusted(data)
    assert parsed.serialize() == data
    assert parsed.tx.to_bytes() == wally.unsigned_transaction(data, parsed.version)


@pytest.mark.parametrize("row", range(10))
def test_bip373_invalid(row: int) -> None:
    assert refused(base64.b64decode(cases("invalid")[row]["base64"])).rule is Rule.X11


# --- losslessness -----------------------------------------------------------------------------------------------------

BYTES = st.binary(max_size=300)
UNKNOWN_KEYS = st.binary(min_size=1, max_size=40).filter(lambda key: 0x60 <= key[0] < 0xFB)
ENTRIES = st.lists(st.tuples(UNKNOWN_KEYS, BYTES), max_size=8, unique_by=lambda entry: entry[0])


@given(st.sampled_from((0, 2)), ENTRIES, ENTRIES, ENTRIES, st.randoms(use_true_random=False))
def test_unknown_fields_and_their_order_survive(version: int, first: Any, second: Any, third: Any, random: Any) -> None:
    made = psbt(version=version)
    maps = []
    for known, extra in zip((made.globals, made.inputs[0], made.outputs[1]), (first, second, third), strict=True):
        entries = [*known._fields.items(), *extra]
        random.shuffle(entries)
        maps.append(FieldMap(entries))
    data = join(maps[0], maps[1], *made.inputs[1:], made.outputs[0], maps[2])
    parsed = Psbt.parse_untrusted(data)
    assert parsed.serialize() == data
    assert parsed.tx == made.tx


@pytest.mark.parametrize("version", [0, 2])
def test_both_versions_describe_the_same_transaction(version: int) -> None:
    tx, spent = spend(group(), locktime=500)
    made = Psbt.create(tx, spent, version=version)
    again = Psbt.parse_untrusted(made.serialize())
    assert (again.version, again.tx, again.spent) == (version, tx, spent)
    assert again == made


def test_a_changed_map_is_another_psbt() -> None:
    made = psbt()
    changed = made.with_input(1, made.inputs[1].with_field(0x77, b"", b"x"))
    assert changed != made
    assert changed.inputs[0] == made.inputs[0]
    assert changed.inputs[1].without(0x77) == made.inputs[1]
    assert made.inputs[1].get(0x77) is None
    assert repr(FieldMap({b"\x01": b""})) == "<FieldMap of 1 fields>"


# --- BIP-370: the lock time -------------------------------------------------------------------------------------------

TIME, HEIGHT = In.TIME_LOCKTIME, In.HEIGHT_LOCKTIME
LOCKS: list[tuple[str, list[dict[int, int]], int]] = [
    ("fallback", [{}, {}], 77),
    ("one height", [{HEIGHT: 10_000}, {}], 10_000),
    ("the higher height", [{HEIGHT: 10_000}, {HEIGHT: 9_000}], 10_000),
    ("both kinds: height", [{HEIGHT: 5, TIME: 500_000_001}, {HEIGHT: 9, TIME: 500_000_009}], 9),
    ("only time fits", [{HEIGHT: 5, TIME: 500_000_001}, {TIME: 500_000_009}], 500_000_009),
]


def locked(locks: list[dict[int, int]]) -> bytes:
    tx, spent = spend(group(), locktime=77)
    made = Psbt.create(tx, spent, version=2)
    for index, fields in enumerate(locks):
        for kind, value in fields.items():
            made = made.with_input(index, made.inputs[index].with_field(kind, b"", value.to_bytes(4, "little")))
    return made.serialize()


@pytest.mark.parametrize(("locks", "right"), [row[1:] for row in LOCKS], ids=[row[0] for row in LOCKS])
def test_lock_time(locks: list[dict[int, int]], right: int) -> None:
    data = locked(locks)
    assert Psbt.parse_untrusted(data).tx.locktime == right
    assert wally.unsigned_transaction(data, 2)[-4:] == right.to_bytes(4, "little")


def test_no_lock_time_fits() -> None:
    assert refused(locked([{HEIGHT: 5}, {TIME: 500_000_001}])).rule is Rule.X12


# --- refused at the edge ----------------------------------------------------------------------------------------------

V0, V2 = psbt(described=False), psbt(described=False, version=2)
UTXO = V0.inputs[0].get(In.WITNESS_UTXO) or b""
PREVIOUS = Transaction(2, 0, (TxIn(outpoint(9)),), (TxOut(5, b"\x51"), TxOut(1_000_000, UTXO[9:])))


def with_global(made: Psbt, kind: int, value: bytes, data: bytes = b"") -> bytes:
    return join(made.globals.with_field(kind, data, value), *made.inputs, *made.outputs)


def with_in(made: Psbt, kind: int, value: bytes, data: bytes = b"") -> bytes:
    return made.with_input(0, made.inputs[0].with_field(kind, data, value)).serialize()


def with_out(made: Psbt, kind: int, value: bytes, data: bytes = b"") -> bytes:
    return made.with_output(0, made.outputs[0].with_field(kind, data, value)).serialize()


def lacking(made: Psbt, where: str, kind: int) -> bytes:
    if where == "globals":
        return join(made.globals.without(kind), *made.inputs, *made.outputs)
    if where == "inputs":
        return made.with_input(0, made.inputs[0].without(kind)).serialize()
    return made.with_output(0, made.outputs[0].without(kind)).serialize()


def wide(number: int) -> bytes:
    """Return a compact size in its longest form."""
    return b"\xff" + number.to_bytes(8, "little")


SIGNED = Transaction(2, 0, (TxIn(outpoint(0), 0, b"\x51"),), V0.tx.outputs)
POINT = b"\x02" + bytes(32)

REFUSED: list[tuple[str, bytes, Rule]] = [
    ("nothing", b"", Rule.X12),
    ("another magic", b"psbt\xfe" + V0.serialize()[5:], Rule.X12),
    ("trailing byte", V0.serialize() + b"\x00", Rule.X12),
    ("a byte less", V0.serialize()[:-1], Rule.X12),
    ("key twice", MAGIC + raw([*V0.globals._fields.items()] * 2) + join(*V0.inputs, *V0.outputs)[5:], Rule.X12),
    ("long length of a key", V0.serialize().replace(b"psbt\xff\x01\x00", MAGIC + wide(1) + b"\x00"), Rule.X12),
    ("long type of a key", with_in(V0, 0xFD, b"", b"\x10\x00"), Rule.X12),
    ("version 1", with_global(V0, Global.VERSION, (1).to_bytes(4, "little")), Rule.X12),
    ("version 2 in a version 0", with_global(V0, Global.VERSION, (2).to_bytes(4, "little")), Rule.X12),
    ("version 0 in a version 2", with_global(V2, Global.VERSION, bytes(4)), Rule.X12),
    ("unsigned transaction in version 2", with_global(V2, Global.UNSIGNED_TX, V0.tx.to_bytes()), Rule.X12),
    ("input field of version 2", with_in(V0, In.SEQUENCE, bytes(4)), Rule.X12),
    ("output field of version 2", with_out(V0, Out.SCRIPT, b"\x51"), Rule.X12),
    ("no unsigned transaction", lacking(V0, "globals", Global.UNSIGNED_TX), Rule.X12),
    ("a scriptSig", with_global(V0, Global.UNSIGNED_TX, SIGNED.to_bytes()), Rule.X12),
    ("unsigned transaction with witnesses", with_global(V0, 0, V0.tx.to_bytes([b"\x00", b"\x00"])), Rule.X12),
    ("unsigned transaction and a byte", with_global(V0, 0, V0.tx.to_bytes() + b"\x00"), Rule.X12),
    *((f"no global {k:#x}", lacking(V2, "globals", k), Rule.X12) for k in (0x02, 0x04, 0x05)),
    *((f"no input {k:#x}", lacking(V2, "inputs", k), Rule.X12) for k in (In.PREVIOUS_TXID, In.OUTPUT_INDEX)),
    *((f"no output {k:#x}", lacking(V2, "outputs", k), Rule.X12) for k in (Out.AMOUNT, Out.SCRIPT)),
    ("a count and a byte", with_global(V2, Global.INPUT_COUNT, b"\x02\x00"), Rule.X12),
    ("a long count", with_global(V2, Global.INPUT_COUNT, wide(2)), Rule.X12),
    ("more inputs than maps", with_global(V2, Global.INPUT_COUNT, b"\x05"), Rule.X12),
    ("fewer inputs than maps", with_global(V2, Global.INPUT_COUNT, b"\x01"), Rule.X12),
    ("UTXO and a byte", with_in(V0, In.WITNESS_UTXO, UTXO + b"\x00"), Rule.X12),
    ("previous transaction of nothing", with_in(V0, In.NON_WITNESS_UTXO, bytes(10)), Rule.X12),
    ("another previous transaction", with_in(V0, In.NON_WITNESS_UTXO, PREVIOUS.to_bytes()), Rule.X1),
    # One field of each form of the tables:
    ("key data", with_in(V0, In.SIGHASH_TYPE, bytes(4), b"x"), Rule.X12),
    ("xpub of 77 bytes", with_global(V0, Global.XPUB, bytes(4), bytes(77)), Rule.X12),
    ("origin of 5 bytes", with_global(V0, Global.XPUB, bytes(5), bytes(78)), Rule.X12),
    ("origin of nothing", with_global(V0, Global.XPUB, b"", bytes(78)), Rule.X12),
    ("sighash of 1 byte", with_in(V0, In.SIGHASH_TYPE, b"\x01"), Rule.X12),
    ("ECDSA x-only key", with_in(V0, In.PARTIAL_SIG, b"\x30", bytes(32)), Rule.X12),
    ("ECDSA hybrid key", with_in(V0, In.PARTIAL_SIG, b"\x30", b"\x06" + bytes(64)), Rule.X12),
    ("key-path signature of 63", with_in(V0, In.TAP_KEY_SIG, bytes(63)), Rule.X12),
    ("internal key of 33", with_in(V0, In.TAP_INTERNAL_KEY, POINT), Rule.X12),
    ("control block of 34", with_in(V0, In.TAP_LEAF_SCRIPT, b"\xc0", bytes(34)), Rule.X12),
    ("no leaf script", with_in(V0, In.TAP_LEAF_SCRIPT, b"", bytes(33)), Rule.X12),
    ("derivation with a leaf missing", with_in(V0, In.TAP_BIP32_DERIVATION, b"\x01" + bytes(8), bytes(32)), Rule.X12),
    ("derivation of nothing", with_in(V0, In.TAP_BIP32_DERIVATION, b"", bytes(32)), Rule.X12),
    ("derivation with too many leaves", with_in(V0, 0x16, b"\xfd\x00\x01" + bytes(9000), bytes(32)), Rule.X12),
    ("time as a height", with_in(V2, In.HEIGHT_LOCKTIME, (500_000_000).to_bytes(4, "little")), Rule.X12),
    ("height 0", with_in(V2, In.HEIGHT_LOCKTIME, bytes(4)), Rule.X12),
    ("height as a time", with_in(V2, In.TIME_LOCKTIME, (499_999_999).to_bytes(4, "little")), Rule.X12),
    ("no participants", with_in(V0, In.MUSIG2_PARTICIPANTS, b"", POINT), Rule.X11),
    ("hybrid participant", with_in(V0, In.MUSIG2_PARTICIPANTS, b"\x06" + bytes(32), POINT), Rule.X11),
    ("hybrid aggregate", with_in(V0, In.MUSIG2_PARTICIPANTS, POINT, b"\x04" + bytes(32)), Rule.X11),
    ("nonce of two halves", with_in(V0, In.MUSIG2_PUB_NONCE, POINT + bytes(33), POINT * 2), Rule.X11),
    ("nonce key with half a leaf", with_in(V0, In.MUSIG2_PUB_NONCE, POINT * 2, POINT * 2 + bytes(16)), Rule.X11),
    ("output participants", with_out(V0, Out.MUSIG2_PARTICIPANTS, POINT + b"\x02", POINT), Rule.X11),
]  # fmt: skip


@pytest.mark.parametrize(("data", "rule"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(data: bytes, rule: Rule) -> None:
    error = refused(data)
    assert error.rule is rule
    assert f"rule {rule.name}" in str(error)


@pytest.mark.parametrize("at", range(0, len(V2.serialize()), 7))
def test_cut_anywhere(at: int) -> None:
    refused(V2.serialize()[:at])


def test_the_table_refuses_what_it_says_and_the_samples_are_fine() -> None:
    for made in (V0, V2):
        assert Psbt.parse_untrusted(made.serialize()) == made
    many_leaves = with_in(V0, In.TAP_BIP32_DERIVATION, b"\x02" + bytes(64) + bytes(8), bytes(32))
    assert Psbt.parse_untrusted(many_leaves)
    assert Psbt.parse_untrusted(with_in(V0, 0xFD, b"", b"\x00\x01"))


# --- the previous transaction (X1) ------------------------------------------------------------------------------------


def from_previous(witness: TxOut | None, *, segwit: bool = False, vout: int = 1) -> bytes:
    tx = Transaction(2, 0, (TxIn(type(outpoint(0))(PREVIOUS.txid(), vout)),), V0.tx.outputs)
    made = Psbt.create(tx, [PREVIOUS.outputs[1]])
    body = PREVIOUS.to_bytes([b"\x01\x01\x07"] if segwit else ())
    one = made.inputs[0].without(In.WITNESS_UTXO).with_field(In.NON_WITNESS_UTXO, b"", body)
    if witness is not None:
        one = one.with_field(In.WITNESS_UTXO, b"", witness.to_bytes())
    return made.with_input(0, one).serialize()


@pytest.mark.parametrize("segwit", [False, True])
@pytest.mark.parametrize("witness", [None, PREVIOUS.outputs[1]])
def test_the_previous_transaction_says_what_is_spent(witness: TxOut | None, segwit: bool) -> None:
    data = from_previous(witness, segwit=segwit)
    assert Psbt.parse_untrusted(data).spent == (PREVIOUS.outputs[1],)


@pytest.mark.parametrize("lie", [TxOut(999_999, PREVIOUS.outputs[1].script), TxOut(1_000_000, b"\x51\x20" + bytes(32))])
def test_a_utxo_against_its_own_previous_transaction(lie: TxOut) -> None:
    assert refused(from_previous(lie)).rule is Rule.X1


def test_an_output_that_the_previous_transaction_does_not_have() -> None:
    assert refused(from_previous(None, vout=2)).rule is Rule.X1


def test_nothing_said_about_what_is_spent() -> None:
    assert Psbt.parse_untrusted(lacking(V0, "inputs", In.WITNESS_UTXO)).spent[0] is None


# --- bounds (X17) -----------------------------------------------------------------------------------------------------


def big(inputs: int, outputs: int, version: int) -> Psbt:
    tx = Transaction(
        2, 0, tuple(TxIn(outpoint(n)) for n in range(inputs)), tuple(TxOut(1000 + n, b"\x51") for n in range(outputs))
    )
    return Psbt.create(tx, [TxOut(5000, b"\x51")] * inputs, version=version)


@pytest.mark.parametrize("version", [0, 2])
def test_counts(version: int) -> None:
    most = limits.PSBT_INPUTS_MAX, limits.PSBT_OUTPUTS_MAX
    assert len(big(*most, version).inputs) == most[0]
    for counts in ((most[0] + 1, 1), (1, most[1] + 1)):
        with pytest.raises(RuleBroken) as caught:
            big(*counts, version)
        assert caught.value.rule is Rule.X17


def test_size() -> None:
    room = limits.PSBT_MAX_BYTES - len(V0.serialize()) - 1 - 1 - 5
    assert len(with_global(V0, 0x70, bytes(room))) == limits.PSBT_MAX_BYTES
    assert Psbt.parse_untrusted(with_global(V0, 0x70, bytes(room)))
    assert refused(with_global(V0, 0x70, bytes(room + 1))).rule is Rule.X17


def test_fields() -> None:
    many = {b"\x70" + n.to_bytes(3, "big"): b"" for n in range(limits.PSBT_FIELDS_MAX)}
    assert refused(join(FieldMap(V0.globals._fields | many), *V0.inputs, *V0.outputs)).rule is Rule.X17
    fewer = dict(list(many.items())[: -len(V0.inputs) - 1])
    assert Psbt.parse_untrusted(join(FieldMap(V0.globals._fields | fewer), *V0.inputs, *V0.outputs))


# --- compact sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 0xFC, 0xFD, 0xFFFF, 0x1_0000, 0xFFFF_FFFF, 0x1_0000_0000, 2**64 - 1])
def test_compact_size(number: int) -> None:
    from_wide = {1: compact_size(number)[0]}.get(len(compact_size(number)))
    assert number == (from_wide if from_wide is not None else int.from_bytes(compact_size(number)[1:], "little"))


def test_no_compact_size_beyond_64_bits() -> None:
    with pytest.raises(OverflowError):
        compact_size(2**64)
