"""BIP-341: output keys, addresses and key-path digests, by the published vectors."""

from __future__ import annotations

from typing import Any

import pytest

from musignet.bitcoin import taproot, wally
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.transaction import Transaction, TxOut
from musignet.chain import Chain
from musignet.errors import InvalidMessage
from support.bip import table
from support.wallet import EXTERNAL, group, spend

KEY_PATH = range(7)
COMPUTED_BY_US = [1, 0]
"""The sighash types ALL and DEFAULT, of two of the seven rows. The other five (SINGLE, NONE, ANYONECANPAY) are what
rule X4 refuses, so only libwally computes them. The vectors for script trees, leaf hashes and control blocks have
no counterpart: script paths are refused."""


def vectors() -> Any:
    return table("bip341_wallet.json")


def spending() -> tuple[Transaction, list[TxOut], list[dict[str, Any]]]:
    case = vectors()["keyPathSpending"][0]
    tx = Transaction.parse_untrusted(bytes.fromhex(case["given"]["rawUnsignedTx"]), witness=False)
    spent = [TxOut(one["amountSats"], bytes.fromhex(one["scriptPubKey"])) for one in case["given"]["utxosSpent"]]
    return tx, spent, case["inputSpending"]


def test_the_vectors_have_exactly_these_rows() -> None:
    assert len(vectors()["scriptPubKey"]) == 7
    assert [len(case["inputSpending"]) for case in vectors()["keyPathSpending"]] == [len(KEY_PATH)]


@pytest.mark.parametrize("row", range(7))
def test_output_keys(row: int) -> None:
    case = vectors()["scriptPubKey"][row]
    root = case["intermediary"].get("merkleRoot")
    tweak, key = taproot.output_key(
        bytes.fromhex(case["given"]["internalPubkey"]), bytes.fromhex(root) if root else b""
    )
    assert tweak.value.hex() == case["intermediary"]["tweak"]
    assert tweak.xonly
    assert key[1:].hex() == case["intermediary"]["tweakedPubkey"]
    assert taproot.output_script(key).hex() == case["expected"]["scriptPubKey"]
    assert taproot.address(taproot.output_script(key), Chain.MAINNET) == case["expected"]["bip350Address"]


@pytest.mark.parametrize("row", KEY_PATH)
def test_key_path_digests(row: int) -> None:
    tx, spent, cases = spending()
    given, right = cases[row]["given"], cases[row]["intermediary"]["sigHash"]
    wanted = [(given["txinIndex"], given["hashType"])]
    assert [one.hex() for one in wally.key_path_sighashes(tx.to_bytes(), spent, wanted)] == [right]
    if given["hashType"] in (taproot.SIGHASH_DEFAULT, taproot.SIGHASH_ALL):
        assert [one.hex() for one in taproot.key_path_digests(tx, spent, wanted)] == [right]


def test_which_rows_we_compute() -> None:
    _, _, cases = spending()
    ours = [case["given"]["hashType"] for case in cases if case["given"]["hashType"] in (0, 1)]
    assert ours == COMPUTED_BY_US


def test_the_signed_transaction_keeps_its_id() -> None:
    tx, _, _ = spending()
    signed = bytes.fromhex(vectors()["keyPathSpending"][0]["auxiliary"]["fullySignedTx"])
    parsed = Transaction.parse_untrusted(signed, witness=True)
    script_sigs = [txin.script_sig for txin in parsed.inputs]
    assert parsed.txid() == tx.txid(script_sigs)


def test_the_two_implementations_must_agree() -> None:
    """A sighash type that only libwally knows is one that they hash differently."""
    tx, spent = spend(group())
    with pytest.raises(RuleBroken) as caught:
        taproot.key_path_digests(tx, spent, [(0, 0x81)])
    assert caught.value.rule is Rule.X12
    with pytest.raises(RuleBroken):
        taproot.key_path_digests(tx, spent, [(7, 0)])


@pytest.mark.parametrize("internal", [b"\xff" * 32, b"", b"\x02" + bytes(32)])
def test_what_is_no_internal_key(internal: bytes) -> None:
    with pytest.raises(InvalidMessage):
        taproot.output_key(internal)


SCRIPTS: list[tuple[str, str, str | None]] = [
    ("P2WPKH", EXTERNAL.hex(), "bcrt1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysnard0ew"),
    ("P2PKH", "76a914" + "00" * 20 + "88ac", "mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8"),
    ("P2SH", "a914" + "00" * 20 + "87", "2MsFDzHRUAMpjHxKyoEHU3aMCMsVtMqs1PV"),
    ("OP_RETURN", "6a0401020304", None),
    ("P2PK", "21" + "02" * 33 + "ac", None),
    ("a witness program that cannot be", "000a" + "00" * 10, None),
    ("nothing", "", None),
]


@pytest.mark.parametrize(("script", "right"), [row[1:] for row in SCRIPTS], ids=[row[0] for row in SCRIPTS])
def test_addresses(script: str, right: str | None) -> None:
    assert taproot.address(bytes.fromhex(script), Chain.REGTEST) == right


def test_a_legacy_address_of_the_main_network() -> None:
    script = bytes.fromhex("76a914" + "00" * 20 + "88ac")
    assert taproot.address(script, Chain.MAINNET) == "1111111111111111111114oLvT2"
