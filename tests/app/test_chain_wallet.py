"""What a wallet decides by itself, over a backend that answers from memory; and what people type."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.app.chain.amounts import parse_amount, parse_fee_rate
from musignet.app.chain.base import BackendFault, ChainBackend, Coin, NoFeeEstimate, Snapshot
from musignet.app.chain.deadline import Deadlines
from musignet.app.chain.url import open_backend
from musignet.app.chain.wallet import GroupWallet, parse_outpoint
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import CHANGE, RECEIVE, Group
from musignet.bitcoin.review import review
from musignet.bitcoin.select import InsufficientFunds
from musignet.bitcoin.transaction import Outpoint, TxOut
from musignet.chain import Chain
from musignet.errors import IoError, LocalError, Timeout
from support.wallet import group, outpoint, xpub

WALLET = group()
SOMEBODY = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


def coin(number: int, amount_sat: int, at: tuple[int, int] = (RECEIVE, 0), confirmations: int = 3) -> Coin:
    return Coin(outpoint(number), TxOut(amount_sat, WALLET.derive(*at).script), *at, confirmations)


@dataclass
class InMemory:
    """A backend that is what it is told."""

    snapshot: Snapshot
    rate: int | None = 4
    asked: list[int] = field(default_factory=list)
    name: str = "memory"

    def sync(self, group: Group) -> Snapshot:
        return self.snapshot

    def fee_rate(self, target_blocks: int) -> int:
        self.asked.append(target_blocks)
        if self.rate is None:
            raise NoFeeEstimate("none")
        return self.rate

    def broadcast(self, raw: bytes) -> bytes:
        return raw[:32]


def wallet(*coins: Coin, last_index: tuple[int, int] = (2, 1)) -> tuple[GroupWallet, InMemory]:
    backend = InMemory(Snapshot(150, coins, last_index))
    as_protocol: ChainBackend = backend
    made = GroupWallet(WALLET, as_protocol)
    made.sync()
    return made, backend


SURE = coin(1, 50_000)
CHANGE_SEEN = coin(2, 40_000, (CHANGE, 1), 0)
SEEN = coin(3, 90_000, (RECEIVE, 2), 0)


def spent(made: GroupWallet, *args: object, **options: object) -> set[Outpoint]:
    psbt = made.send(*args, **options)  # type: ignore[arg-type]
    return {txin.outpoint for txin in psbt.tx.inputs}


def test_balance_and_what_a_review_is_told() -> None:
    made, _ = wallet(SURE, CHANGE_SEEN, SEEN)
    assert made.balance() == (50_000, 130_000, 0)
    known = made.snapshot.known(7)
    assert (known.last_index, known.tip_height, known.now_s, len(known.utxos)) == ((2, 1), 150, 7, 3)
    assert made.next_address() == (3, WALLET.address(RECEIVE, 3))


def test_strangers_coins_in_no_block_are_spent_only_by_name() -> None:
    made, _ = wallet(SURE, CHANGE_SEEN, SEEN)
    assert spent(made, SOMEBODY, 80_000) == {SURE.outpoint, CHANGE_SEEN.outpoint}
    assert spent(made, SOMEBODY, None) == {SURE.outpoint, CHANGE_SEEN.outpoint}
    with pytest.raises(InsufficientFunds, match=f"{SEEN.out.amount_sat} sat more are in no block yet"):
        made.send(SOMEBODY, 100_000)
    tied = f"{SURE.out.amount_sat} sat more are in other sessions: musignet sessions"
    with pytest.raises(InsufficientFunds, match=tied):
        made.send(SOMEBODY, 80_000, reserved=[SURE.outpoint])
    assert spent(made, SOMEBODY, 80_000, coins=[SEEN.outpoint]) == {SEEN.outpoint}


def test_named_coins_are_spent_all_of_them() -> None:
    made, _ = wallet(SURE, CHANGE_SEEN, SEEN)
    both = [SURE.outpoint, SEEN.outpoint]
    assert spent(made, SOMEBODY, 1_000, coins=both) == set(both)
    assert spent(made, SOMEBODY, None, coins=both) == set(both)
    with pytest.raises(LocalError, match=r"is not in this wallet, or spent; sync"):
        made.send(SOMEBODY, 1_000, coins=[outpoint(9)])
    with pytest.raises(LocalError, match="not enough"):
        made.send(SOMEBODY, 60_000, coins=[SURE.outpoint])


def test_the_change_is_at_the_next_index_and_named_as_ours() -> None:
    made, _ = wallet(SURE)
    done = review(made.send(SOMEBODY, 20_000), WALLET, made.snapshot.known())
    assert [one.change.index for one in done.outputs if one.change] == [2]
    assert (done.confirm, done.fee_rate_sat_vb) == (frozenset(), pytest.approx(4, abs=0.1))


def test_a_fee_rate_is_asked_for_only_where_none_is_given() -> None:
    made, backend = wallet(SURE)
    made.send(SOMEBODY, 20_000, fee_rate_sat_vb=9)
    assert backend.asked == []
    made.send(SOMEBODY, 20_000, target_blocks=144)
    assert backend.asked == [144]
    backend.rate = None
    with pytest.raises(NoFeeEstimate):
        made.send(SOMEBODY, 20_000)


@pytest.mark.parametrize(
    ("address", "amount", "text"),
    [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 1_000, "another network: expected regtest, got mainnet"),
        ("nobody", 1_000, "not a Bitcoin address"),
        (SOMEBODY, 200, "do not relay such an amount: expected 294 sat or more"),
        (SOMEBODY, 10**9, "sat are missing, the fee included"),
    ],
)
def test_what_is_refused_before_anybody_is_asked(address: str, amount: int, text: str) -> None:
    made, _ = wallet(SURE)
    with pytest.raises(LocalError, match=text):
        made.send(address, amount)


def test_a_failed_sync_leaves_the_last_one() -> None:
    made, backend = wallet(SURE)
    before = made.snapshot
    backend.snapshot = replace(before, tip_height=151)
    assert made.sync().tip_height == 151

    class Failing(InMemory):
        def sync(self, group: Group) -> Snapshot:
            raise BackendFault("garbage")

    failing = GroupWallet(WALLET, Failing(before))
    with pytest.raises(BackendFault):
        failing.sync()
    with pytest.raises(LocalError, match="not synced yet"):
        failing.balance()
    assert made.broadcast(b"\x07" * 40) == b"\x07" * 32


def test_a_wallet_of_one_address() -> None:
    text = f"tr(musig({xpub('alice')},{xpub('bob')})/0/5)"
    one = Group(Descriptor.parse_untrusted(text), Chain.REGTEST)
    made = GroupWallet(one, InMemory(Snapshot(1, (), (0, -1))))
    made.sync()
    assert made.next_address() == (0, one.address(0, 0))


# --- as people type it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("25000", 25_000),
        ("25000sat", 25_000),
        ("25000 sats", 25_000),
        (" 1SAT ", 1),
        ("0.01btc", 1_000_000),
        ("1btc", 100_000_000),
        ("1.5 BTC", 150_000_000),
        ("0.00000001btc", 1),
        ("21000000btc", 21_000_000 * 10**8),
    ],
)
def test_amounts(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    ["", "0.01", "1.0", "1.5sat", "0", "0btc", "-1", "+1", "1e3", "1,000", "1_000", "0.000000001btc", "21000000.1btc",
     "9" * 17, "btc", ".5btc", "5.btc", "\u0661", "1 000", "1mbtc", "1\nsat2"],
)  # fmt: skip
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(LocalError):
        parse_amount(text)


@given(st.integers(1, 21_000_000 * 10**8))
def test_every_amount_in_both_units(amount: int) -> None:
    whole, part = divmod(amount, 10**8)
    assert parse_amount(f"{whole}.{part:08d}btc") == parse_amount(f"{amount}sat") == amount


@pytest.mark.parametrize("text", ["0", "501", "1.5", "-1", "", "\u0661", "9" * 5_000])
def test_fee_rates_that_are_none(text: str) -> None:
    assert (parse_fee_rate("1"), parse_fee_rate("500")) == (1, 500)
    with pytest.raises(LocalError, match="1 to 500 sat/vB"):
        parse_fee_rate(text)


def test_coins_by_name() -> None:
    assert parse_outpoint(str(outpoint(4))) == outpoint(4)
    for text in ("", ":0", "00" * 32, f"{'00' * 31}:0", f"{'00' * 32}:-1", f"{'zz' * 32}:0", f"{'00' * 32}:{1 << 32}"):
        with pytest.raises(LocalError, match="not a coin"):
            parse_outpoint(text)


def test_urls(tmp_path: Path) -> None:
    pytest.importorskip("bdkpython", reason="no bdkpython here (Python below 3.14)")
    passfile = tmp_path / "pass"
    passfile.write_text("secret\n")
    for url, name in (
        ("esplora+https://example.com/api/", "https://example.com/api"),
        ("esplora+http://127.0.0.1:3002", "http://127.0.0.1:3002"),
        ("electrum://127.0.0.1:50001", "tcp://127.0.0.1:50001"),
        ("electrum+ssl://example.com:50002", "ssl://example.com:50002"),
        ("core+http://127.0.0.1:18443", "http://127.0.0.1:18443"),
        (f"core+http://127.0.0.1:18443?cookie={tmp_path}/.cookie&since=2026-11-01", "http://127.0.0.1:18443"),
        (f"core+https://alice@127.0.0.1:18443?passfile={passfile}", "https://127.0.0.1:18443"),
    ):
        backend = open_backend(url, Chain.REGTEST)
        assert backend.name == name


SECRET = "hunter2"


def test_a_password_in_a_url_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("other")
    with pytest.raises(LocalError, match="no password in a URL") as caught:
        open_backend(f"core+http://alice:{SECRET}@127.0.0.1:8332?passfile={tmp_path / 'pass'}", Chain.REGTEST)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://127.0.0.1:3002",
        "esplora://127.0.0.1",
        "esplora+http://",
        "esplora+http://127.0.0.1:99999",
        "esplora+http://127.0.0.1:0",
        f"esplora+http://{SECRET}@127.0.0.1",
        f"esplora+http://127.0.0.1?{SECRET}",
        f"esplora+http://127.0.0.1#{SECRET}",
        "electrum://127.0.0.1",
        "electrum://127.0.0.1:1/path",
        "core+http://127.0.0.1",
        f"core+http://alice:{SECRET}@127.0.0.1:8332",
        f"core+http://127.0.0.1:8332?{SECRET}=1",
        "core+http://127.0.0.1:8332?since=yesterday",
        "core+http://127.0.0.1:8332?passfile=/etc/hostname",
        "core+http://alice@127.0.0.1:8332",
        "core+http://alice@127.0.0.1:8332?cookie=x&passfile=y",
        "esplora+http://ex\u0430mple.com",
        "esplora+http://[::1",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(LocalError) as caught:
        open_backend(url, Chain.REGTEST)
    assert SECRET not in str(caught.value)


def test_a_password_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\xff")
    for name in ("missing", "bad"):
        with pytest.raises(IoError, match="cannot read"):
            open_backend(f"core+http://alice@127.0.0.1:1?passfile={tmp_path / name}", Chain.REGTEST)


@pytest.mark.parametrize("url", ["esplora+http://127.0.0.1:1", "core+http://127.0.0.1:1"])
def test_without_the_extra(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("musignet.app.chain.bdk", "musignet.app.chain.core"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("bdkpython", "bitcoin_core_rpc"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LocalError, match=r"pip install.*chain"):
        open_backend(url, Chain.REGTEST)


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_a_call_in_time() -> None:
    assert Deadlines("it").within(10, "a sum", lambda: 1 + 1) == 2
    with pytest.raises(LocalError, match="no"):
        Deadlines("it").within(10, "a sum", lambda: (_ for _ in ()).throw(LocalError("no")))


def test_threads_that_came_back_are_not_counted() -> None:
    deadlines, released = Deadlines("it"), threading.Event()
    for _ in range(4):
        with pytest.raises(Timeout, match=r"a wait: no answer from it: expected one within 0\.01 s"):
            deadlines.within(0.01, "a wait", released.wait)
    with pytest.raises(Timeout, match="4 calls before it still wait for it"):
        deadlines.within(10, "a sum", lambda: 1)
    released.set()
    for thread in deadlines._hung:
        thread.join()
    assert deadlines.within(10, "a sum", lambda: 1) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_fails_as_it_never_should() -> None:
    with pytest.raises(BackendFault, match="a division: failed with it"):
        Deadlines("it").within(10, "a division", lambda: 1 // 0)
