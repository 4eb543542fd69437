"""The real client of Esplora against a real chain: what a wallet sees, what it spends, and every way it can fail."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count

import pytest

import musignet.app.chain.bdk as bdk_module
from musignet.app.chain.base import (
    BackendFault,
    BroadcastRefused,
    ChainNotReady,
    ChainTimeout,
    ChainUnreachable,
    NoFeeEstimate,
    Unsupported,
    WrongChain,
)
from musignet.app.chain.scan import Seen, scan
from musignet.app.chain.wallet import GroupWallet
from musignet.app.regtest_client import ask
from musignet.app.regtest_server import serve
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.finalise import finalise
from musignet.bitcoin.group import CHANGE, RECEIVE, Group
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.review import review
from musignet.bitcoin.select import InsufficientFunds
from musignet.bitcoin.transaction import Outpoint, Transaction, TxIn, TxOut
from musignet.chain import Chain
from musignet.errors import LocalError
from support.cosigners import cosign, wallet_of
from support.esplora import BdkBackend, Electrum, Esplora, answering, hung
from support.spending import SOMEBODY
from support.wallet import SHAPES, descriptor_text, xpub

pytestmark = pytest.mark.driver


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("served") / "chain") as served:
        yield served


_numbers = count()


def fresh(shape: str = "aggregate") -> Group:
    """A wallet of two that no test before has used: the chain is shared."""
    text = descriptor_text(shape, names=("alice", "bob")).replace("/<0;1>", f"/{next(_numbers)}/<0;1>")
    return Group(Descriptor.parse_untrusted(text), Chain.REGTEST)


def wallet_at(url: str, shape: str = "aggregate") -> GroupWallet:
    return GroupWallet(fresh(shape), BdkBackend(Esplora(url), Chain.REGTEST))


def fund(url: str, wallet: GroupWallet, amount_sat: int, index: int = 0, branch: int = RECEIVE) -> Outpoint:
    paid = ask(url, "/regtest/fund", {"address": wallet.group.address(branch, index), "amount_sat": amount_sat})
    return Outpoint(bytes.fromhex(paid["txid"])[::-1], paid["vout"])


def finished(wallet: GroupWallet, psbt: Psbt) -> bytes:
    signed, done, signatures = cosign(wallet.group, psbt.serialize(), wallet.snapshot.known())
    return finalise(signed, done, signatures).raw


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_wallet_is_empty(url: str, shape: str) -> None:
    wallet = wallet_at(url, shape)
    with pytest.raises(LocalError, match="not synced yet"):
        wallet.balance()
    assert wallet.sync().coins == ()
    assert wallet.balance() == (0, 0, 0)
    assert wallet.next_address() == (0, wallet.group.address(RECEIVE, 0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rate", [None, 7])
def test_received_spent_confirmed_and_the_change_is_ours(url: str, rate: int | None, shape: str) -> None:
    wallet = wallet_at(url, shape)
    fund(url, wallet, 100_000, 3)
    coin = wallet.sync().coins[0]
    assert (coin.out.amount_sat, coin.branch, coin.index, coin.confirmations) == (100_000, RECEIVE, 3, 1)
    assert wallet.next_address()[0] == 4
    psbt = wallet.send(SOMEBODY, 30_000, fee_rate_sat_vb=rate)
    done = review(psbt, wallet.group, wallet.snapshot.known())
    assert (done.sent_sat, done.fee_rate_sat_vb) == (30_000, pytest.approx(rate or 3, abs=0.1))
    assert [(out.change.branch, out.change.index) for out in done.outputs if out.change] == [(CHANGE, 0)]
    raw = finished(wallet, psbt)
    txid = wallet.broadcast(raw)
    (left,) = wallet.sync().coins
    assert left.outpoint.txid == txid
    assert (left.branch, left.index, left.confirmations) == (CHANGE, 0, 1)
    assert left.out.amount_sat == 70_000 - done.fee_sat
    assert wallet.snapshot.last_index == (3, 0)
    assert wallet.broadcast(raw) == txid  # the next cosigner does the same


def test_everything_is_sent(url: str) -> None:
    wallet = wallet_at(url)
    for index, amount_sat in enumerate((50_000, 60_000, 100)):
        fund(url, wallet, amount_sat, index)
    wallet.sync()
    psbt = wallet.send(SOMEBODY, None, fee_rate_sat_vb=2)
    assert (len(psbt.tx.inputs), len(psbt.tx.outputs)) == (2, 1)  # 100 sat are not worth their fee
    wallet.broadcast(finished(wallet, psbt))
    assert wallet.sync().balance == (100, 0, 0)
    with pytest.raises(InsufficientFunds):
        wallet.send(SOMEBODY, None, fee_rate_sat_vb=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_beyond_the_gap_is_not_seen(url: str, shape: str) -> None:
    wallet = wallet_at(url, shape)
    fund(url, wallet, 10_000, 19)
    fund(url, wallet, 10_000, 40)
    assert wallet.sync().last_index == (19, -1)
    fund(url, wallet, 10_000, 30)
    assert wallet.sync().last_index == (40, -1)
    assert wallet.balance().confirmed_sat == 30_000


@pytest.mark.parametrize("shape", SHAPES)
def test_more_transactions_than_one_page_has(url: str, shape: str) -> None:
    wallet = wallet_at(url, shape)
    for _ in range(27):
        fund(url, wallet, 1_000)
    assert (len(wallet.sync().coins), wallet.balance().confirmed_sat) == (27, 27_000)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_mined_waits_for_a_hundred_blocks(url: str, shape: str) -> None:
    wallet = wallet_at(url, shape)
    ask(url, "/regtest/mine", {"blocks": 1, "address": wallet.group.address(RECEIVE, 0)})
    ask(url, "/regtest/mine", {"blocks": 98})
    assert wallet.sync().coins == ()
    immature_sat = wallet.balance().immature_sat
    assert immature_sat > 0
    ask(url, "/regtest/mine", {"blocks": 1})
    assert wallet.sync().balance == (immature_sat, 0, 0)
    wallet.broadcast(finished(wallet, wallet.send(SOMEBODY, None, fee_rate_sat_vb=1)))


def test_what_consensus_refuses_is_not_broadcast(url: str) -> None:
    wallet = wallet_at(url)
    fund(url, wallet, 50_000)
    wallet.sync()
    raw = bytearray(finished(wallet, wallet.send(SOMEBODY, 10_000, fee_rate_sat_vb=1)))
    raw[-10] ^= 1
    with pytest.raises(BroadcastRefused, match="Schnorr"):
        wallet.broadcast(bytes(raw))
    with pytest.raises(LocalError, match="not a finished transaction"):
        wallet.broadcast(b"\x00")
    assert wallet.sync().balance.confirmed_sat == 50_000


def test_a_server_that_refuses_us() -> None:
    with answering(lambda *_: (403, b"go away")) as url, pytest.raises(BackendFault, match="HTTP status 403"):
        wallet_at(url).sync()


def test_two_implementations_derive_the_same_addresses(url: str) -> None:
    """bdkpython's from the synthetic xpub, ours from the descriptor: `sync` compares each coin's."""
    wallet = wallet_at(url)
    for branch in (RECEIVE, CHANGE):
        for index in (0, 7, 19):
            fund(url, wallet, 5_000, index, branch)
    assert {(coin.branch, coin.index) for coin in wallet.sync().coins} == {
        (branch, index) for branch in (RECEIVE, CHANGE) for index in (0, 7, 19)
    }


def test_a_coin_that_is_elsewhere_than_said(url: str) -> None:
    wallet = wallet_at(url)
    fund(url, wallet, 5_000, 2)
    watching = bdk_module._wallet(wallet.group)
    watching.apply_update(Esplora(url).scan(watching.start_full_scan().build()))
    (listed,) = watching.list_unspent()
    assert bdk_module._coin(listed, wallet.group, 10**6).index == 2
    listed.derivation_index = 3
    with pytest.raises(BackendFault, match="disagree about our addresses: got 0/3"):
        bdk_module._coin(listed, wallet.group, 10**6)


ODD = [
    f"tr(musig({xpub('alice')},{xpub('bob')})/77/*)",
    f"tr(musig({xpub('alice')},{xpub('bob')})/<7;8>)",
    f"tr(musig({xpub('alice')},{xpub('bob')})/<7;8;9>/*)",
    f"tr(musig({xpub('alice')}/70/*,{xpub('bob')}/70/*))",
]


@pytest.mark.parametrize("text", ODD)
def test_wallets_of_other_forms_are_read_by_their_addresses(url: str, text: str) -> None:
    wallet = GroupWallet(
        Group(Descriptor.parse_untrusted(text), Chain.REGTEST), BdkBackend(Esplora(url), Chain.REGTEST)
    )
    index = 4 if wallet.group.descriptor.ranged else 0
    assert wallet.sync().last_index == (-1, -1)
    outpoint = fund(url, wallet, 5_000, index)
    assert [(coin.outpoint, coin.index, coin.confirmations) for coin in wallet.sync().coins] == [(outpoint, index, 1)]


@pytest.mark.parametrize("text", [descriptor_text("participants"), *ODD])
def test_what_electrum_cannot_watch(url: str, text: str) -> None:
    class Half(Electrum):
        def genesis(self) -> object:
            return Esplora(url).genesis()

    group = Group(Descriptor.parse_untrusted(text), Chain.REGTEST)
    with pytest.raises(Unsupported, match=r"esplora\+https.*core\+http"):
        BdkBackend(Half("tcp://127.0.0.1:1"), Chain.REGTEST).sync(group)


def test_a_server_without_an_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the same page again and again, or that everything was paid: the thread ends all the same."""
    wallet = wallet_at(url, "participants")
    fund(url, wallet, 5_000)
    with urllib.request.urlopen(f"{url}/address/{wallet.group.address(RECEIVE, 0)}/txs") as answer:
        page = answer.read()

    def same(_: str, path: str) -> tuple[int, bytes]:
        if "/txs" in path:
            return 200, page
        with urllib.request.urlopen(url + path) as answer:
            return 200, answer.read()

    monkeypatch.setattr("musignet.limits.CHAIN_HISTORY_MAX_PAGES", 3)
    with answering(same) as endless, pytest.raises(BackendFault, match="a history without an end"):
        BdkBackend(Esplora(endless), Chain.REGTEST).sync(wallet.group)
    coinbase = Transaction(2, 0, (TxIn(Outpoint(bytes(32), 0xFFFF_FFFF)),), (TxOut(1, b"Q"),))
    monkeypatch.setattr("musignet.limits.CHAIN_ADDRESSES_MAX", 30)
    with pytest.raises(BackendFault, match="every address"):
        scan(wallet.group, 1, lambda _: [Seen(coinbase, 1)])


@pytest.mark.parametrize("chain", Chain)
def test_the_first_blocks_are_those_that_bdkpython_has(chain: Chain) -> None:
    group = Group(Descriptor.parse_untrusted(descriptor_text("aggregate", chain)), chain)
    first = bdk_module._wallet(group).latest_checkpoint()
    assert (first.height, str(first.hash)) == (0, bdk_module.GENESIS[chain])


@pytest.mark.parametrize("chain", [Chain.MAINNET, Chain.SIGNET, Chain.TESTNET4])
def test_a_server_of_another_network(url: str, chain: Chain) -> None:
    group = Group(Descriptor.parse_untrusted(descriptor_text("aggregate", chain)), chain)
    with pytest.raises(WrongChain, match=chain.name.lower()):
        BdkBackend(Esplora(url), chain).sync(group)


# --- servers that are none ------------------------------------------------------------------------------------------

TIP = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"


def genesis_and(body: bytes) -> Callable[[str, str], tuple[int, bytes]]:
    """The right first block, and the same for everything else."""
    return lambda _, path: (200, TIP.encode() if path == "/block-height/0" else body)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b"[{}]", b"\xff" * 100, b"0" * 64, b"[" * 10_000], ids=range(8)
)
def test_garbage_is_a_fault(body: bytes) -> None:
    with answering(genesis_and(body)) as url, pytest.raises(BackendFault, match="does not answer as such a server"):
        wallet_at(url).sync()


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b'{"x": 1}', b'{"1": "much"}'])
def test_garbage_for_a_fee(body: bytes) -> None:
    with answering(lambda *_: (200, body)) as url, pytest.raises((BackendFault, NoFeeEstimate)):
        BdkBackend(Esplora(url), Chain.REGTEST).fee_rate(6)


@pytest.mark.parametrize(("body", "wanted"), [
    (b"{}", "has no fee estimate"),
    (b'{"144": 1.0}', "has no fee estimate"),
    (b'{"2": 100000.0}', "no plausible fee estimate"),
    (b'{"2": 0.0}', "no plausible fee estimate"),
    (b'{"2": -4.0}', "no plausible fee estimate"),
])  # fmt: skip
def test_estimates_that_nobody_should_pay(body: bytes, wanted: str) -> None:
    with answering(lambda *_: (200, body)) as url, pytest.raises(NoFeeEstimate, match=wanted) as caught:
        BdkBackend(Esplora(url), Chain.REGTEST).fee_rate(6)
    assert "--fee-rate" in str(caught.value)


def test_an_estimate_is_rounded_up_and_never_for_a_later_block() -> None:
    with answering(lambda *_: (200, b'{"1": 9.01, "5": 2.01, "7": 1.0}')) as url:
        backend = BdkBackend(Esplora(url), Chain.REGTEST)
        assert [backend.fee_rate(target) for target in (1, 4, 6, 7, 1008)] == [10, 10, 3, 1, 1]


def test_too_many_requests_is_not_the_servers_fault() -> None:
    """Raised here: the client itself tries again for 16 s before it says so."""
    with pytest.raises(ChainNotReady, match="no more requests"), bdk_module._told("it"):
        raise bdk_module.bdk.EsploraError.HttpResponse(status=429, error_message="slow down")


def test_nobody_there() -> None:
    with hung() as port:
        pass
    for server in (Esplora(f"http://127.0.0.1:{port}"), Electrum(f"tcp://127.0.0.1:{port}")):
        with pytest.raises(ChainUnreachable, match=r"cannot reach .*(refused|AllAttemptsErrored).*config\.toml"):
            BdkBackend(server, Chain.REGTEST).sync(fresh())


# --- servers that say nothing ---------------------------------------------------------------------------------------


def short(port: int) -> BdkBackend:
    return BdkBackend(Esplora(f"http://127.0.0.1:{port}"), Chain.REGTEST, call_timeout_s=0.2, sync_timeout_s=0.2)


def test_a_hung_server_ends_at_the_deadline() -> None:
    with hung() as port:
        backend = short(port)
        begun = time.monotonic()
        with pytest.raises(ChainTimeout, match=r"the first block's hash: no answer from .*within 0\.2 s"):
            backend.sync(fresh())
        with pytest.raises(ChainTimeout, match="a fee estimate: no answer"):
            backend.fee_rate(6)
        assert time.monotonic() - begun < 5


def test_a_scan_that_hangs_is_named_too() -> None:
    with hung() as silent:
        locked = Esplora(f"http://127.0.0.1:{silent}")

        class HalfDead(Esplora):
            scan = staticmethod(locked.scan)  # type: ignore[assignment]

        with answering(genesis_and(b"")) as url:
            backend = BdkBackend(HalfDead(url), Chain.REGTEST, sync_timeout_s=0.2)
            with pytest.raises(ChainTimeout, match="sync: no answer"):
                backend.sync(fresh())


def test_calls_that_hang_are_counted_and_come_back() -> None:
    with hung() as port:
        backend = short(port)
        for _ in range(4):
            with pytest.raises(ChainTimeout, match="no answer"):
                backend.fee_rate(6)
        with pytest.raises(ChainTimeout, match="4 calls before it still wait"):
            backend.fee_rate(6)


PROGRAM = """
from musignet.app.chain.bdk import BdkBackend, Esplora
from musignet.chain import Chain
from musignet.errors import Timeout
try:
    BdkBackend(Esplora("http://127.0.0.1:{port}"), Chain.REGTEST, call_timeout_s=0.3).fee_rate(6)
except Timeout:
    print("timeout")
"""


def test_a_hung_call_does_not_keep_the_program_from_ending() -> None:
    with hung() as port:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(port=port)], capture_output=True, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "timeout\n", "")


def test_an_electrum_server_that_says_nothing() -> None:
    with hung() as port:
        backend = BdkBackend(Electrum(f"tcp://127.0.0.1:{port}"), Chain.REGTEST, call_timeout_s=0.3)
        with pytest.raises(ChainTimeout, match="no answer from tcp://"):
            backend.sync(wallet_of(2, SHAPES[0]))
