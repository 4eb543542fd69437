"""The real client of Electrum against a stand-in for the server, over a chain that Bitcoin Core's kernel keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from musignet.app.chain.base import BackendFault, NoFeeEstimate, WrongChain
from musignet.app.chain.wallet import GroupWallet
from musignet.bitcoin.group import RECEIVE
from musignet.chain import Chain
from support.cosigners import wallet_of
from support.electrum import FakeElectrum, serving
from support.esplora import BdkBackend, Electrum, RegtestChain
from support.spending import SOMEBODY, pays
from support.wallet import SHAPES

pytestmark = pytest.mark.driver


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeElectrum]:
    with RegtestChain(tmp_path_factory.mktemp("chain")) as chain:
        yield FakeElectrum(chain)


@pytest.fixture
def wallet(server: FakeElectrum) -> Iterator[GroupWallet]:
    with serving(server) as url:
        yield GroupWallet(wallet_of(2, SHAPES[0]), BdkBackend(Electrum(url), Chain.REGTEST))


def test_received_spent_confirmed_and_the_change_is_ours(server: FakeElectrum, wallet: GroupWallet) -> None:
    assert wallet.sync().coins == ()
    with server.lock:
        server.chain.fund(wallet.group.derive(RECEIVE, 3).script, [100_000])
    assert [(one.branch, one.index, one.confirmations) for one in wallet.sync().coins] == [(RECEIVE, 3, 1)]
    raw, txid, _ = pays(wallet)
    assert wallet.broadcast(raw) == txid  # the next cosigner does the same


def test_another_network(server: FakeElectrum, wallet: GroupWallet) -> None:
    server.answers["server.features"] = server.server_features() | {"genesis_hash": "11" * 32}
    with pytest.raises(WrongChain):
        wallet.sync()


def test_no_estimate(server: FakeElectrum, wallet: GroupWallet) -> None:
    server.answers["blockchain.estimatefee"] = -1
    wallet.sync()
    with pytest.raises(NoFeeEstimate, match="--fee-rate"):
        wallet.send(SOMEBODY, 1_000)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("server.features", []),
        ("blockchain.headers.subscribe", {"height": 5, "hex": "00"}),
        ("blockchain.scripthash.get_history", {}),
        ("blockchain.scripthash.get_history", [{"tx_hash": "00" * 32, "height": 1}]),
    ],
)
def test_garbage(server: FakeElectrum, wallet: GroupWallet, method: str, answer: object) -> None:
    server.answers[method] = answer
    with pytest.raises(BackendFault, match="does not answer as such a server does"):
        wallet.sync()
