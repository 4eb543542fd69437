"""What a proposer makes: everything that other wallets need, the fee that was asked for, and no more."""

from __future__ import annotations

import pytest
import wallycore

from musignet.bitcoin.build import build
from musignet.bitcoin.checks import dust_sat
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.fields import In, Out
from musignet.bitcoin.finalise import finalise
from musignet.bitcoin.group import CHANGE, RECEIVE, Group, Known
from musignet.bitcoin.musig_fields import participants
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.review import review
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.transaction import Outpoint, TxOut
from musignet.chain import Chain
from musignet.errors import LocalError
from support.cosigners import cosign
from support.wallet import EXTERNAL, SHAPES, group, outpoint, xpub

WALLET = group()
PAYMENT = TxOut(600_000, EXTERNAL)


def coins(wallet: Group = WALLET, *amounts_sat: int) -> dict[Outpoint, TxOut]:
    """Return a coin of each amount, at the receiving addresses 0, 1, ..."""
    return {
        outpoint(number): TxOut(amount, wallet.derive(RECEIVE, number).script)
        for number, amount in enumerate(amounts_sat or (1_000_000, 500_000))
    }


def known(held: dict[Outpoint, TxOut]) -> Known:
    return Known(utxos=held, last_index=(5, 2))


def made(rate: int = 2, held: dict[Outpoint, TxOut] | None = None, *payments: TxOut, version: int = 0) -> Psbt:
    held = coins() if held is None else held
    return build(WALLET, held, payments or [PAYMENT], fee_rate_sat_vb=rate, known=known(held), version=version)


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_built_is_what_is_reviewed(shape: str, version: int) -> None:
    wallet = group(shape)
    held = coins(wallet)
    psbt = build(wallet, held, [PAYMENT], fee_rate_sat_vb=2, known=known(held), version=version)
    assert (psbt.version, psbt.tx.version) == (version, 2)
    assert {txin.sequence for txin in psbt.tx.inputs} == {0xFFFFFFFD}
    assert Psbt.parse_untrusted(psbt.serialize()) == psbt
    done = review(psbt, wallet, known(held))
    assert (done.sent_sat, done.confirm, len(done.slots)) == (600_000, frozenset(), 2)
    assert [(one.change.branch, one.change.index) for one in done.outputs if one.change] == [(CHANGE, 3)]
    assert all(one.verified for one in done.inputs)


@pytest.mark.parametrize("rate", [0, 1, 7, 40])
def test_the_fee_is_the_rate_times_the_size_of_the_finished_transaction(rate: int) -> None:
    psbt, done, signatures = cosign(WALLET, made(rate).serialize(), known(coins()))
    raw = finalise(psbt, done, signatures).raw
    assert done.fee_sat == rate * wallycore.tx_get_vsize(wallycore.tx_from_bytes(raw, 1))


def test_every_map_says_whose_keys_it_is_about() -> None:
    """A wallet that knows nothing finds its keys by these fields alone."""
    psbt = made()
    for index, one in enumerate(psbt.inputs):
        hinted = WALLET.hinted(one, In.TAP_BIP32_DERIVATION)[0]
        assert psbt.spent[index] == coins()[psbt.tx.inputs[index].outpoint]
        assert hinted.script == coins()[psbt.tx.inputs[index].outpoint].script
        assert one.get(In.TAP_INTERNAL_KEY) == hinted.internal[1:]
        listed = [(found.aggregate, found.keys) for found in participants(one)]
        assert listed == [(hinted.aggregate, tuple(participant.pubkey for participant in hinted.participants))]
    change = next(index for index, out in enumerate(psbt.tx.outputs) if out.script == WALLET.derive(CHANGE, 3).script)
    assert WALLET.hinted(psbt.outputs[change], Out.TAP_BIP32_DERIVATION)[0] == WALLET.derive(CHANGE, 3)
    assert len(list(participants(psbt.outputs[change], Out.MUSIG2_PARTICIPANTS))) == 1
    assert len(psbt.outputs[1 - change]) == 0


@pytest.mark.parametrize("amount_sat", [100_000, 1_200_000])
def test_the_order_is_that_of_bip_69(amount_sat: int) -> None:
    psbt = made(2, None, TxOut(amount_sat, EXTERNAL))
    names = [str(txin.outpoint) for txin in psbt.tx.inputs]
    assert names == sorted(names)
    assert [out.amount_sat for out in psbt.tx.outputs] == sorted(out.amount_sat for out in psbt.tx.outputs)


def fee_sat(psbt: Psbt) -> int:
    return sum(out.amount_sat for out in psbt.spent if out) - sum(out.amount_sat for out in psbt.tx.outputs)


def test_change_that_would_be_dust_goes_to_the_fee() -> None:
    fee = fee_sat(made())
    least = dust_sat(TxOut(0, WALLET.derive(CHANGE, 3).script))
    kept = made(2, None, TxOut(1_500_000 - fee - least, EXTERNAL))
    assert sorted(out.amount_sat for out in kept.tx.outputs)[0] == least
    given = made(2, None, TxOut(1_500_000 - fee - least + 1, EXTERNAL))
    assert (len(given.tx.outputs), fee_sat(given)) == (1, fee + least - 1)
    assert all(len(one) == 0 for one in given.outputs)


def test_as_much_as_there_is() -> None:
    fee = fee_sat(made(2, None, TxOut(1_499_600, EXTERNAL)))
    assert fee == 400
    least = 2 * review(made(2, None, TxOut(1_499_600, EXTERNAL)), WALLET).vbytes
    everything = made(2, None, TxOut(1_500_000 - least, EXTERNAL))
    assert (len(everything.tx.outputs), fee_sat(everything)) == (1, least)
    with pytest.raises(LocalError, match="not enough"):
        made(2, None, TxOut(1_500_000 - least + 1, EXTERNAL))


def test_coins_are_gathered_without_a_payment() -> None:
    held = coins()
    psbt = build(WALLET, held, [], fee_rate_sat_vb=1, known=known(held))
    assert [out.script for out in psbt.tx.outputs] == [WALLET.derive(CHANGE, 3).script]


def test_the_first_change_of_a_wallet_is_number_0() -> None:
    psbt = build(WALLET, coins(), [PAYMENT], fee_rate_sat_vb=1)
    assert WALLET.derive(CHANGE, 0).script in [out.script for out in psbt.tx.outputs]


def test_the_locktime_is_passed_on() -> None:
    assert build(WALLET, coins(), [PAYMENT], fee_rate_sat_vb=1, locktime=77, version=2).tx.locktime == 77


STRANGERS = coins() | {outpoint(9): TxOut(5_000, EXTERNAL)}
BEYOND = {outpoint(1): TxOut(5_000_000, WALLET.derive(RECEIVE, 5 + 21).script)}


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("not ours", lambda: made(2, STRANGERS)),
        ("not ours", lambda: made(2, BEYOND)),
        ("not enough", lambda: made(2, {})),
        ("not enough", lambda: made(2, None, TxOut(1_500_001, EXTERNAL))),
        ("not enough", lambda: made(2, None, TxOut(1 << 70, EXTERNAL))),
        ("not enough", lambda: build(WALLET, coins(WALLET, 400), [], fee_rate_sat_vb=1)),
        ("cannot build this", lambda: made(-1)),
        ("cannot build this", lambda: made(2, None, TxOut(-1, EXTERNAL))),
        ("cannot build this", lambda: made(version=1)),
    ],
)
def test_what_cannot_be_built(text: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(LocalError, match=text):
        call()


@pytest.mark.parametrize("tail", ["/*", "/0/5"])
def test_a_wallet_without_change_addresses(tail: str) -> None:
    names = ("alice", "bob")
    text = f"tr(musig({','.join(str(xpub(name)) for name in names)}){tail})"
    wallet = Group(Descriptor.parse_untrusted(text), Chain.REGTEST)
    held = {outpoint(0): TxOut(1_000_000, wallet.derive(RECEIVE, 0).script)}
    with pytest.raises(LocalError, match="no change addresses"):
        build(wallet, held, [PAYMENT], fee_rate_sat_vb=1)


def test_a_wallet_of_two_addresses() -> None:
    text = f"tr(musig({xpub('alice')},{xpub('bob')})/<0;1>)"
    wallet = Group(Descriptor.parse_untrusted(text), Chain.REGTEST)
    held = {outpoint(0): TxOut(1_000_000, wallet.derive(RECEIVE, 0).script)}
    psbt = build(wallet, held, [PAYMENT], fee_rate_sat_vb=1, known=Known(last_index=(0, 0)))
    assert wallet.derive(CHANGE, 0).script in [out.script for out in psbt.tx.outputs]


def test_the_bounds_of_a_psbt_hold_here_too() -> None:
    payments = [TxOut(1_000, EXTERNAL)] * 250
    with pytest.raises(RuleBroken) as caught:
        made(2, None, *payments)
    assert caught.value.rule is Rule.X17
