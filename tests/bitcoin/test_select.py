"""Coins are chosen so that what is built pays what was asked, and what is missing is said to the satoshi."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.bitcoin.build import build, fee_for
from musignet.bitcoin.group import RECEIVE, Known
from musignet.bitcoin.select import InsufficientFunds, payment, select, sweep, worth
from musignet.bitcoin.transaction import Outpoint, TxOut
from musignet.errors import LocalError
from support.wallet import EXTERNAL, group, outpoint

WALLET = group()
SCRIPT = WALLET.derive(RECEIVE, 0).script


def coins(*amounts_sat: int) -> dict[Outpoint, TxOut]:
    return {outpoint(number): TxOut(amount, SCRIPT) for number, amount in enumerate(amounts_sat)}


def held(chosen: dict[Outpoint, TxOut]) -> list[int]:
    return sorted((out.amount_sat for out in chosen.values()), reverse=True)


@pytest.mark.parametrize(
    ("amounts", "paid", "wanted"),
    [
        ((10_000, 20_000, 30_000), 5_000, [30_000]),
        ((10_000, 20_000, 30_000), 29_900, [30_000]),
        ((10_000, 20_000, 30_000), 29_950, [30_000, 20_000]),
        ((10_000, 20_000, 30_000), 55_000, [30_000, 20_000, 10_000]),
        ((10_000, 50, 30_000), 39_500, [30_000, 10_000]),
    ],
)
def test_as_few_as_possible_and_the_largest_first(amounts: tuple[int, ...], paid: int, wanted: list[int]) -> None:
    assert held(select(coins(*amounts), [TxOut(paid, EXTERNAL)], 1)) == wanted


def test_what_is_missing_is_said_with_the_fee() -> None:
    with pytest.raises(InsufficientFunds, match=r"\d+ sat are missing, the fee included: got 30000 sat") as caught:
        select(coins(10_000, 20_000), [TxOut(35_000, EXTERNAL)], 3)
    missing_sat = caught.value.missing_sat
    assert missing_sat == 5_000 + fee_for(coins(10_000, 20_000), [TxOut(35_000, EXTERNAL)], 3)
    assert held(select(coins(10_000, 20_000 + missing_sat), [TxOut(35_000, EXTERNAL)], 3))
    with pytest.raises(InsufficientFunds) as caught:
        select(coins(10_000, 20_000 + missing_sat - 1), [TxOut(35_000, EXTERNAL)], 3)
    assert caught.value.missing_sat == 1


@pytest.mark.parametrize("amounts", [(), (10,), (57,)])
def test_nothing_that_is_worth_its_fee(amounts: tuple[int, ...]) -> None:
    assert worth(coins(*amounts), 1) == {}
    with pytest.raises(InsufficientFunds):
        select(coins(*amounts), [TxOut(1_000, EXTERNAL)], 1)
    with pytest.raises(InsufficientFunds):
        sweep(coins(*amounts), EXTERNAL, 1)


def test_more_coins_than_fit() -> None:
    many = coins(*[1_000] * 260)
    with pytest.raises(InsufficientFunds, match="more than 250 coins do not fit"):
        select(many, [TxOut(240_000, EXTERNAL)], 1)
    assert len(sweep(many, EXTERNAL, 1)[0]) == 250


def test_a_sweep_takes_everything_and_leaves_the_fee() -> None:
    chosen, paid = sweep(coins(50_000, 40, 70_000), EXTERNAL, 2)
    assert held(chosen) == [70_000, 50_000]
    psbt = build(WALLET, chosen, [paid], fee_rate_sat_vb=2, known=Known(utxos=chosen, last_index=(0, 0)))
    assert psbt.tx.outputs == (paid,)
    assert paid.amount_sat == 120_000 - fee_for(chosen, [paid], 2)


def test_a_sweep_that_would_be_dust() -> None:
    with pytest.raises(InsufficientFunds) as caught:
        sweep(coins(300), EXTERNAL, 1)
    _, paid = sweep(coins(300 + caught.value.missing_sat), EXTERNAL, 1)
    assert paid.amount_sat == 294  # Bitcoin Core's dust limit of P2WPKH


@pytest.mark.parametrize("amount", [-1, 0, 1, 293, 21_000_000 * 10**8 + 1])
def test_amounts_that_are_not_relayed(amount: int) -> None:
    with pytest.raises(LocalError, match="294 sat or more"):
        payment(amount, EXTERNAL)
    assert payment(294, EXTERNAL) == TxOut(294, EXTERNAL)


@given(st.lists(st.integers(1, 200_000), max_size=30), st.integers(300, 300_000), st.integers(1, 60))
def test_what_is_chosen_can_be_built(amounts: list[int], paid_sat: int, rate: int) -> None:
    """Invariant: `build` makes it from the chosen coins, at no less than the rate; or one more coin, of what is missing
    and its own fee, is enough.
    """
    paid = TxOut(paid_sat, EXTERNAL)
    try:
        chosen = select(coins(*amounts), [paid], rate)
    except InsufficientFunds as error:
        one_more = {outpoint(99): TxOut(error.missing_sat + 59 * rate, SCRIPT)}
        select(worth(coins(*amounts), rate) | one_more, [paid], rate)
        return
    psbt = build(WALLET, chosen, [paid], fee_rate_sat_vb=rate, known=Known(utxos=chosen, last_index=(0, 0)))
    fee_sat = sum(held(chosen)) - sum(out.amount_sat for out in psbt.tx.outputs)
    assert fee_sat >= fee_for(chosen, psbt.tx.outputs, rate)
    assert paid in psbt.tx.outputs
