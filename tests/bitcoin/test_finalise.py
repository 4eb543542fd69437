"""From signatures to bytes: verified first, finished by two implementations, refused otherwise."""

from __future__ import annotations

import dataclasses

import pytest
import wallycore

from musignet.bitcoin import finalise as module
from musignet.bitcoin import wally
from musignet.bitcoin.fields import In
from musignet.bitcoin.finalise import finalise, verify_signature
from musignet.bitcoin.group import Bounds, Group, Known
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.review import Review, review
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.transaction import Transaction, TxIn, TxOut, with_size
from musignet.errors import AuthenticationError, LocalError
from support.wallet import EXTERNAL, KNOWN, SHAPES, cosign, group, known, outpoint, psbt, replace_tx, secrets_of, spend

WALLET = group()


def signatures(wallet: Group, done: Review) -> dict[int, bytes]:
    return {slot.input_index: cosign(slot, secrets_of(wallet, slot))[0] for slot in done.slots}


DONE = review(psbt(), WALLET, KNOWN)
SIGNATURES = signatures(WALLET, DONE)


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_cosigned_transaction(shape: str, version: int) -> None:
    wallet = group(shape)
    made = psbt(wallet, version=version)
    done = review(made, wallet, known(shape))
    made_signatures = signatures(wallet, done)
    final = finalise(made, done, made_signatures)
    parsed = wallycore.tx_from_bytes(final.raw, wallycore.WALLY_TX_FLAG_USE_WITNESS)
    assert bytes(wallycore.tx_get_txid(parsed)) == final.txid
    assert wallycore.tx_get_weight(parsed) == done.weight_wu
    assert final.txid_hex == final.txid[::-1].hex()
    assert [bytes(wallycore.tx_get_input_witness(parsed, n, 0)) for n in range(2)] == [*made_signatures.values()]
    assert Transaction.parse_untrusted(final.raw, witness=True) == done.tx


def test_sighash_all_ends_in_its_byte() -> None:
    wallet = group(bounds=Bounds(allow_sighash_all=True))
    made = psbt()
    for index in range(2):
        made = made.with_input(index, made.inputs[index].with_field(In.SIGHASH_TYPE, b"", b"\x01\0\0\0"))
    done = review(made, wallet, KNOWN)
    final = finalise(made, done, signatures(wallet, done))
    parsed = wallycore.tx_from_bytes(final.raw, wallycore.WALLY_TX_FLAG_USE_WITNESS)
    witness = bytes(wallycore.tx_get_input_witness(parsed, 0, 0))
    assert (len(witness), witness[64]) == (65, 1)


BAD: list[tuple[str, bytes]] = [
    ("zeros", bytes(64)),
    ("a bit flipped", bytes((SIGNATURES[0][0] ^ 1,)) + SIGNATURES[0][1:]),
    ("the other input's", SIGNATURES[1]),
    ("a byte short", SIGNATURES[0][:63]),
    ("with a sighash byte", SIGNATURES[0] + b"\x01"),
]


@pytest.mark.parametrize("bad", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_a_signature_that_does_not_hold(bad: bytes) -> None:
    assert not verify_signature(DONE.slots[0], bad)
    with pytest.raises(AuthenticationError, match="input 1"):
        finalise(psbt(), DONE, SIGNATURES | {0: bad})


def test_a_missing_signature() -> None:
    with pytest.raises(LocalError, match="no signature for input 2"):
        finalise(psbt(), DONE, {0: SIGNATURES[0]})


def test_the_review_of_another_transaction() -> None:
    tx, spent = spend(WALLET, locktime=7)
    with pytest.raises(RuleBroken) as caught:
        finalise(psbt(tx=tx, spent=spent), DONE, SIGNATURES)
    assert caught.value.rule is Rule.X15


def test_a_psbt_that_lost_what_it_spends() -> None:
    made = psbt()
    lost = Psbt.parse_untrusted(made.with_input(1, made.inputs[1].without(In.WITNESS_UTXO)).serialize())
    with pytest.raises(RuleBroken) as caught:
        finalise(lost, DONE, SIGNATURES)
    assert caught.value.rule is Rule.X1


# --- inputs of others -------------------------------------------------------------------------------------------------

LEGACY = bytes.fromhex("76a914" + "00" * 20 + "88ac")
ALLOWING = group(bounds=Bounds(allow_legacy_inputs=True))
WITNESS = b"\x02" + with_size(bytes(71)) + with_size(b"\x02" * 33)


def shared(script: bytes, *fields: tuple[int, bytes]) -> tuple[Psbt, Review, dict[int, bytes]]:
    tx, spent = spend(WALLET)
    tx = replace_tx(tx, inputs=(*tx.inputs, TxIn(outpoint(9))))
    made = psbt(tx=tx, spent=(*spent, TxOut(5000, script)))
    for kind, value in fields:
        made = made.with_input(2, made.inputs[2].with_field(kind, b"", value))
    done = review(made, ALLOWING, Known())
    return made, done, signatures(WALLET, done)


@pytest.mark.parametrize(
    ("script", "fields", "end"),
    [
        (EXTERNAL, [(In.FINAL_SCRIPTWITNESS, WITNESS)], WITNESS),
        (LEGACY, [(In.FINAL_SCRIPTSIG, b"\x51\x51")], b"\x00"),
        (b"\x51\x20" + b"\x07" * 32, [(In.TAP_KEY_SIG, b"\x01" * 64)], b"\x01\x40" + b"\x01" * 64),
    ],
)
def test_inputs_that_others_have_signed(script: bytes, fields: list[tuple[int, bytes]], end: bytes) -> None:
    made, done, ours = shared(script, *fields)
    final = finalise(made, done, ours)
    assert final.raw.endswith(end + bytes(4))
    parsed = wallycore.tx_from_bytes(final.raw, wallycore.WALLY_TX_FLAG_USE_WITNESS)
    assert bytes(wallycore.tx_get_txid(parsed)) == final.txid


def test_an_input_that_its_owner_has_not_signed() -> None:
    with pytest.raises(LocalError, match="input 3 is not signed by its owner"):
        finalise(*shared(EXTERNAL))


def test_the_two_implementations_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.wally, "finish", lambda psbt: b"")
    with pytest.raises(RuleBroken) as caught:
        finalise(psbt(), DONE, SIGNATURES)
    assert caught.value.rule is Rule.X12


def test_libwally_refuses_to_finish() -> None:
    """A witness of a stranger's input that is cut off: we would copy it, libwally does not take it."""
    made, done, ours = shared(EXTERNAL, (In.FINAL_SCRIPTWITNESS, WITNESS))
    spoiled = made.with_input(0, made.inputs[0].with_field(In.FINAL_SCRIPTWITNESS, b"", WITNESS[:-1]))
    with pytest.raises(RuleBroken) as caught:
        finalise(spoiled, done, ours)
    assert caught.value.rule is Rule.X12
    with pytest.raises(wally.WallyError):
        wally.finish(spoiled.serialize())


def test_slots_are_verified_against_the_review_not_the_psbt() -> None:
    """A review whose slot was exchanged takes no signature of the old one."""
    slot = dataclasses.replace(DONE.slots[0], message=bytes(32))
    with pytest.raises(AuthenticationError):
        finalise(psbt(), dataclasses.replace(DONE, slots=(slot, DONE.slots[1])), SIGNATURES)
