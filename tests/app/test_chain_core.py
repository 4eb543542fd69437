"""Bitcoin Core as a backend: the real client against a stand-in for the node, over a chain that Core's kernel keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("bdkpython", reason="the stand-in derives with it (Python below 3.14)")
from bitcoin_core_rpc import BitcoinCoreRpcClient

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
from musignet.app.chain.core import CoreBackend, wallet_name, watch_only
from musignet.app.chain.wallet import GroupWallet
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import RECEIVE, Group
from musignet.chain import Chain
from musignet.errors import LocalError
from support.core import FakeCore, RpcFailure, serving
from support.cosigners import wallet_of
from support.kernel import RegtestChain
from support.spending import pays
from support.wallet import EXTERNAL, SHAPES, group, xpub

pytestmark = pytest.mark.driver


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegtestChain]:
    with RegtestChain(tmp_path_factory.mktemp("chain")) as opened:
        yield opened


@pytest.fixture
def core(chain: RegtestChain) -> FakeCore:
    return FakeCore(chain)


@pytest.fixture
def where(core: FakeCore, tmp_path: Path) -> Iterator[str]:
    with serving(core, tmp_path) as address:
        yield address


def backend(where: str, tmp_path: Path, chain: Chain = Chain.REGTEST, **options: float) -> CoreBackend:
    client = BitcoinCoreRpcClient(f"http://{where}", cookie_path=tmp_path / ".cookie")
    return CoreBackend(client, chain, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
def test_received_spent_confirmed_and_the_change_is_ours(
    core: FakeCore, where: str, tmp_path: Path, shape: str
) -> None:
    wallet = GroupWallet(wallet_of(2, shape), backend(where, tmp_path))
    assert wallet.sync().balance == (0, 0, 0)
    core.pay(wallet.group.address(RECEIVE, 3), 100_000)
    assert [(coin.branch, coin.index, coin.confirmations) for coin in wallet.sync().coins] == [(RECEIVE, 3, 1)]
    assert wallet.next_address()[0] == 4
    raw, txid, done = pays(wallet)
    assert wallet.snapshot.balance.confirmed_sat == 70_000 - done.fee_sat
    assert wallet.broadcast(raw) == txid  # it is in a block already


def test_the_wallet_is_made_once_and_found_again(core: FakeCore, where: str, tmp_path: Path) -> None:
    wallet = wallet_of(3, SHAPES[0])
    first = backend(where, tmp_path, since_s=1_700_000_000)
    first.sync(wallet)
    core.loaded.clear()  # Core was restarted
    backend(where, tmp_path).sync(wallet)
    first.sync(wallet)
    assert list(core.wallets) == [wallet_name(wallet)]
    assert [(one["timestamp"], one["internal"], one["range"]) for one in core.imported] == [
        (1_700_000_000, False, [0, 999]),
        (1_700_000_000, True, [0, 999]),
    ]
    assert "musig" not in core.imported[0]["desc"]


def test_names_and_descriptors() -> None:
    assert wallet_name(group("aggregate")) != wallet_name(group("participants"))
    assert len(watch_only(group("participants"))) == 2
    one = Group(Descriptor.parse_untrusted(f"tr(musig({xpub('alice')},{xpub('bob')})/7/*)"), Chain.REGTEST)
    assert len(watch_only(one)) == 1
    for text in (*watch_only(group("participants")), *watch_only(group("aggregate")), *watch_only(one)):
        assert "<" not in text
    shuffled = Descriptor.parse_untrusted(f"tr(musig({xpub('bob')},{xpub('alice')})/7/*)")
    assert wallet_name(one) == wallet_name(Group(shuffled, Chain.REGTEST))


def test_a_wallet_without_change(core: FakeCore, where: str, tmp_path: Path) -> None:
    wallet = Group(Descriptor.parse_untrusted(f"tr(musig({xpub('alice')},{xpub('bob')})/7/*)"), Chain.REGTEST)
    core.pay(wallet.address(0, 2), 5_000)
    done = backend(where, tmp_path).sync(wallet)
    assert (done.last_index, done.balance.confirmed_sat) == ((2, -1), 5_000)


def test_an_older_core_does_not_know_musig(core: FakeCore, where: str, tmp_path: Path) -> None:
    core.knows_musig = False
    with pytest.raises(Unsupported, match=r"not a valid key.*Core 31"):
        backend(where, tmp_path).sync(wallet_of(2, "participants"))
    backend(where, tmp_path).sync(wallet_of(2, "aggregate"))
    core.knows_musig = True
    assert backend(where, tmp_path).sync(wallet_of(2, "participants")).tip_height == core.chain.height


def test_another_network(core: FakeCore, where: str, tmp_path: Path) -> None:
    core.network = "main"
    with pytest.raises(WrongChain, match=r"expected regtest, got main.*config\.toml"):
        backend(where, tmp_path).sync(wallet_of(2, SHAPES[0]))
    assert core.wallets == {}


def test_a_node_that_is_not_ready(core: FakeCore, where: str, tmp_path: Path) -> None:
    asked = backend(where, tmp_path)
    core.warming_up = True
    with pytest.raises(ChainNotReady, match="is starting"):
        asked.sync(wallet_of(2, SHAPES[0]))
    core.warming_up, core.reading, core.headers = False, True, 900_000
    with pytest.raises(ChainNotReady, match="expected 900000 blocks"):
        asked.sync(wallet_of(2, SHAPES[0]))
    core.headers = None  # a regtest chain whose last block is old says so for ever
    asked.sync(wallet_of(2, SHAPES[0]))
    core.scanning = {"duration": 9, "progress": 0.5}
    with pytest.raises(ChainNotReady, match="50% of it"):
        asked.sync(wallet_of(2, SHAPES[0]))


def test_a_scan_goes_on_beyond_our_deadline(core: FakeCore, where: str, tmp_path: Path) -> None:
    core.import_waits_for = threading.Event()
    asked = backend(where, tmp_path, call_timeout_s=0.5)
    try:
        with pytest.raises(ChainNotReady, match=r"still reading the chain for this wallet: got 25% of it"):
            asked.sync(wallet_of(2, SHAPES[0]))
    finally:
        core.import_waits_for.set()


def test_an_import_that_hangs_without_a_scan(core: FakeCore, where: str, tmp_path: Path) -> None:
    core.import_waits_for = threading.Event()
    core.answers["getwalletinfo"] = {"scanning": False}
    core.loaded.add(wallet_name(wallet_of(2, SHAPES[0])))
    core.wallets[wallet_name(wallet_of(2, SHAPES[0]))] = {}
    try:
        with pytest.raises(ChainTimeout, match="importdescriptors: no answer"):
            backend(where, tmp_path, call_timeout_s=0.5).sync(wallet_of(2, SHAPES[0]))
    finally:
        core.import_waits_for.set()


def test_who_is_not_let_in(core: FakeCore, where: str, tmp_path: Path) -> None:
    asked = backend(where, tmp_path)
    (tmp_path / ".cookie").write_text("__cookie__:wrong")
    with pytest.raises(LocalError, match=r"refuses our credentials.*cookie"):
        asked.fee_rate(6)
    (tmp_path / ".cookie").unlink()
    with pytest.raises(ChainUnreachable, match=r"no cookie file.*\?cookie=PATH"):
        asked.fee_rate(6)


def test_nobody_there(tmp_path: Path) -> None:
    (tmp_path / ".cookie").write_text("__cookie__:x")
    with pytest.raises(ChainUnreachable, match=r"cannot reach Bitcoin Core.*server=1"):
        backend("127.0.0.1:1", tmp_path).fee_rate(6)


@pytest.mark.parametrize(("status", "kind"), [(503, ChainNotReady), (500, BackendFault), (404, BackendFault)])
def test_http_that_failed(core: FakeCore, where: str, tmp_path: Path, status: int, kind: type[Exception]) -> None:
    core.status = status
    with pytest.raises(kind):
        backend(where, tmp_path).fee_rate(6)


@pytest.mark.parametrize(("rate", "wanted"), [(0.00001, 1), (0.00012345, 13), (0.005, 500)])
def test_fee_rates(core: FakeCore, where: str, tmp_path: Path, rate: float, wanted: int) -> None:
    core.feerate = rate
    assert backend(where, tmp_path).fee_rate(6) == wanted


@pytest.mark.parametrize("rate", [None, 0.006, -1.0, 0.0])
def test_fee_rates_that_nobody_should_pay(core: FakeCore, where: str, tmp_path: Path, rate: float | None) -> None:
    core.feerate = rate
    with pytest.raises(NoFeeEstimate, match="--fee-rate"):
        backend(where, tmp_path).fee_rate(6)


COIN = {"txid": "00" * 32, "vout": 0, "amount": 1, "scriptPubKey": EXTERNAL.hex(), "confirmations": 1}


def watched(next_index: int) -> dict[str, object]:
    """What Core says it watches, when so many addresses are in use."""
    return {"descriptors": [{"desc": one, "next_index": next_index} for one in watch_only(wallet_of(2, SHAPES[0]))]}


@pytest.mark.parametrize(
    ("method", "answer", "text"),
    [
        ("listdescriptors", watched(10**9), "every address that is asked for is said to be used"),
        ("listdescriptors", watched(10**99), "does not answer listdescriptors|every address"),
        ("listunspent", [COIN | {"vout": 2**40}], "not ours|that is none"),
        ("listunspent", [COIN | {"vout": -1}], "not ours|that is none"),
        ("getblockchaininfo", [], "does not answer getblockchaininfo"),
        ("getblockchaininfo", {"chain": "regtest"}, "does not answer getblockchaininfo"),
        ("listunspent", {}, "does not answer listunspent"),
        ("listunspent", [{}], "does not answer listunspent"),
        ("listunspent", [COIN], "not ours"),
        ("listunspent", [COIN | {"txid": "zz"}], "that is none"),
        ("listunspent", [COIN | {"amount": -1}], "impossible amount"),
        ("listunspent", [COIN | {"amount": 1e-9}], "impossible amount"),
        ("listunspent", [COIN | {"amount": 30_000_000}], "impossible amount"),
        ("listunspent", RpcFailure(-4, "broken\x1b[2J"), r"refused listunspent: got .*broken"),
        ("getwalletinfo", RpcFailure(-4, "broken"), "refused getwalletinfo"),
        ("loadwallet", RpcFailure(-4, "broken"), "cannot load the wallet"),
        ("deriveaddresses", ["bcrt1nothing"], "derives other addresses"),
        ("deriveaddresses", [], "derives other addresses"),
        ("getbalances", {"mine": {}}, "does not answer getbalances"),
    ],
)
def test_answers_that_core_does_not_give(
    core: FakeCore, where: str, tmp_path: Path, method: str, answer: object, text: str
) -> None:
    core.answers[method] = answer
    with pytest.raises(BackendFault, match=text) as caught:
        backend(where, tmp_path).sync(wallet_of(2, SHAPES[0]))
    assert str(caught.value).isprintable()


def test_a_wallet_that_is_being_loaded(core: FakeCore, where: str, tmp_path: Path) -> None:
    """Between our question and the load, somebody else loaded it."""
    wallet = wallet_of(2, SHAPES[0])
    backend(where, tmp_path).sync(wallet)
    core.answers["loadwallet"] = RpcFailure(-35, "already loaded")
    core.answers["getwalletinfo"] = {"scanning": False}
    backend(where, tmp_path).sync(wallet)
    del core.answers["getwalletinfo"]
    core.loaded.clear()
    with pytest.raises(BackendFault, match="refused getwalletinfo"):
        backend(where, tmp_path).sync(wallet)


def test_what_is_not_broadcast(core: FakeCore, where: str, tmp_path: Path) -> None:
    asked = backend(where, tmp_path)
    with pytest.raises(LocalError, match="not a finished transaction"):
        asked.broadcast(b"\x00")
    tx = core.chain.blocks[0].transactions[0]
    core.answers["sendrawtransaction"] = RpcFailure(-4, "broken")
    with pytest.raises(BackendFault, match="refused sendrawtransaction"):
        asked.broadcast(tx.raw)
    core.answers["sendrawtransaction"] = RpcFailure(-26, "min relay fee not met")
    with pytest.raises(BroadcastRefused, match=r"min relay fee not met.*sync, and propose it again"):
        asked.broadcast(tx.raw)


def test_where_it_is() -> None:
    client = BitcoinCoreRpcClient("http://127.0.0.1:18443", user="alice", password="secret")
    assert CoreBackend(client, Chain.REGTEST).name == "http://127.0.0.1:18443"
