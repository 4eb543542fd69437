"""The whole way, without a network: a group's address is funded, spent by all of its keys, and Bitcoin Core agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import wallycore

from musignet.bitcoin.build import build
from musignet.bitcoin.fields import In
from musignet.bitcoin.finalise import finalise
from musignet.bitcoin.group import CHANGE, RECEIVE, Group, Known
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.transaction import TxOut, with_size
from support.cosigners import cosign, wallet_of
from support.kernel import RegtestChain, TransactionRefused
from support.wallet import EXTERNAL, SHAPES

PAID = TxOut(50_000, EXTERNAL)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegtestChain]:
    with RegtestChain(tmp_path_factory.mktemp("chain")) as opened:
        yield opened


def funded(chain: RegtestChain, wallet: Group, inputs: int) -> Known:
    """Pay as many coins to two addresses of the wallet, and return what it knows then."""
    amounts = [60_000 + number for number in range(inputs)]
    coins = chain.fund(wallet.derive(RECEIVE, 0).script, amounts[::2])
    if amounts[1::2]:
        coins |= chain.fund(wallet.derive(RECEIVE, 7).script, amounts[1::2])
    return Known(utxos=coins, last_index=(7, 3), tip_height=chain.height)


def by_us(wallet: Group, known: Known, version: int) -> bytes:
    return build(wallet, known.utxos, [PAID], fee_rate_sat_vb=2, known=known, version=version).serialize()


def by_libwally(wallet: Group, known: Known, version: int) -> bytes:
    """A PSBT that says no more than it must: no derivations, no participants."""
    plain = build(wallet, known.utxos, [PAID], fee_rate_sat_vb=2, known=known)
    made = wallycore.psbt_from_tx(wallycore.tx_from_bytes(plain.tx.to_bytes(), 0), version, 0)
    for index, out in enumerate(plain.spent):
        assert out is not None
        wallycore.psbt_set_input_witness_utxo(made, index, wallycore.tx_output_init(out.amount_sat, out.script))
    return bytes(wallycore.psbt_to_bytes(made, 0))


def finished_by_libwally(psbt: Psbt, signatures: dict[int, bytes]) -> bytes:
    for index, signature in signatures.items():
        psbt = psbt.with_input(index, psbt.inputs[index].with_field(In.TAP_KEY_SIG, b"", signature))
    parsed = wallycore.psbt_from_bytes(psbt.serialize(), wallycore.WALLY_PSBT_PARSE_FLAG_STRICT)
    wallycore.psbt_finalize(parsed, 0)
    done = wallycore.psbt_extract(parsed, wallycore.WALLY_PSBT_EXTRACT_FINAL)
    return bytes(wallycore.tx_to_bytes(done, wallycore.WALLY_TX_FLAG_USE_WITNESS))


@pytest.mark.parametrize("maker", [by_us, by_libwally])
@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("inputs", [1, 3, 25])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 3])
def test_from_funding_to_a_block(
    chain: RegtestChain, size: int, shape: str, inputs: int, version: int, maker: Callable[[Group, Known, int], bytes]
) -> None:
    wallet = wallet_of(size, shape)
    known = funded(chain, wallet, inputs)
    psbt, done, signatures = cosign(wallet, maker(wallet, known, version), known)
    assert (psbt.version, len(done.slots)) == (version, inputs)
    assert all(one.verified for one in done.inputs)
    final = finalise(psbt, done, signatures)
    assert finished_by_libwally(psbt, signatures) == final.raw
    assert chain.confirmations(final.txid) == 0
    assert chain.confirm(final.raw) == final.txid
    assert chain.confirmations(final.txid) == 1
    left = chain.unspent(wallet.derive(CHANGE, 4).script)
    change = {outpoint: out for outpoint, out in left.items() if outpoint.txid == final.txid}
    held_sat = sum(one.out.amount_sat for one in done.inputs)
    assert [out.amount_sat for out in change.values()] == [held_sat - PAID.amount_sat - done.fee_sat]


def raw_with(psbt: Psbt, signatures: dict[int, bytes]) -> bytes:
    return psbt.tx.to_bytes([b"\x01" + with_size(signatures[index]) for index in range(len(signatures))])


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("bit", [0, 255, 256, 511])
def test_one_flipped_bit_is_refused(chain: RegtestChain, bad: int, bit: int) -> None:
    wallet = wallet_of(3, SHAPES[0])
    known = funded(chain, wallet, 3)
    psbt, done, signatures = cosign(wallet, by_us(wallet, known, 0), known)
    flipped = int.from_bytes(signatures[bad], "big") ^ 1 << bit
    height = chain.height
    with pytest.raises(TransactionRefused, match=r"Schnorr signature.*input") as caught:
        chain.confirm(raw_with(psbt, signatures | {bad: flipped.to_bytes(64, "big")}))
    assert f"input {bad} of" in caught.value.reason
    assert chain.height == height
    assert raw_with(psbt, signatures) == finalise(psbt, done, signatures).raw
    chain.confirm(raw_with(psbt, signatures))
    assert chain.height == height + 1


def test_a_signature_is_for_its_own_input(chain: RegtestChain) -> None:
    wallet = wallet_of(2, SHAPES[1])
    known = funded(chain, wallet, 3)
    psbt, _, signatures = cosign(wallet, by_us(wallet, known, 2), known)
    exchanged = {0: signatures[1], 1: signatures[0], 2: signatures[2]}
    with pytest.raises(TransactionRefused, match="Schnorr"):
        chain.confirm(raw_with(psbt, exchanged))


def test_a_coin_is_spent_once(chain: RegtestChain) -> None:
    wallet = wallet_of(2, SHAPES[0])
    known = funded(chain, wallet, 1)
    for fee_rate, refused in ((2, False), (3, True)):
        data = build(wallet, known.utxos, [TxOut(9_000, EXTERNAL)], fee_rate_sat_vb=fee_rate, known=known).serialize()
        psbt, done, signatures = cosign(wallet, data, known)
        final = finalise(psbt, done, signatures)
        if refused:
            with pytest.raises(TransactionRefused, match="bad-txns-inputs-missingorspent"):
                chain.confirm(final.raw)
        else:
            chain.confirm(final.raw)
