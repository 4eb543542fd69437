"""The whole story over real processes: three people found a wallet, spend from it, and one of them loses a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.nodes import RunningNode, cli, cli_json
from app.people import approve, at, file_of, group_json, init, pair, run

pytest.importorskip("pbk", reason="the chain needs Bitcoin Core's kernel")
pytest.importorskip("bdkpython", reason="its client has no wheel for this Python")
from musignet.app.regtest_client import ask  # isort: skip
from musignet.app.regtest_server import serve  # isort: skip

pytestmark = pytest.mark.driver

NAMES = ("alice", "bob", "carol")
SOMEBODY = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path / "chain") as served:
        yield served


def found(nodes: dict[str, RunningNode]) -> None:
    """Alice proposes a wallet of three; everybody compares what is on the screens, and confirms it."""
    with at(nodes["alice"], "group", "create", "savings", "bob", "carol") as first, ExitStack() as stack:
        founding = first.expect(r"musignet group join ([0-9a-f]{8})").group(1)
        joining = [stack.enter_context(at(nodes[name], "group", "join", founding)) for name in ("bob", "carol")]
        for one in joining:
            one.expect("of 3 who all sign")
            one.type("y")
        screens = (first, *joining)
        shown = {one.expect(r"fingerprint +(\S+ \S+)\n +first address +(bcrt1p\w+)").groups() for one in screens}
        assert len(shown) == 1
        for one in screens:
            one.expect("Do all screens show")
            one.type("y")
        for one in screens:
            one.expect("savings is founded")
            assert one.exit_code() == 0


def spend(url: str, nodes: dict[str, RunningNode], amount: str) -> str:
    """Everybody approves a payment; it is exported, mined and confirmed. Return its id."""
    alice = nodes["alice"]
    session: str = group_json(alice, "send", "savings", SOMEBODY, amount, "--fee-rate", "2")["id"]
    for node in nodes.values():
        done = approve(node, session)
        assert done.returncode == 0, done.stderr
    watched = cli(alice.data, "watch", session, "--timeout", "30")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    exported = {cli_json(node.data, "export", session)["tx"] for node in nodes.values()}
    assert len(exported) == 1, "one transaction, the same on every device"
    txid: str = cli_json(alice.data, "broadcast", session)["txid"]
    assert any(coin["outpoint"].startswith(txid) and coin["confirmations"] for coin in synced(alice)["coins"])
    return txid


def synced(node: RunningNode) -> dict:  # type: ignore[type-arg]
    found: dict = group_json(node, "sync", "savings")  # type: ignore[type-arg]
    return found


def test_three_people_one_wallet_a_refusal_a_payment_a_lost_device_and_another_payment(
    url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        nodes = {name: stack.enter_context(run(init(tmp_path / name, name, "--chain", f"esplora+{url}")))
                 for name in NAMES}  # fmt: skip
        for node in nodes.values():
            node.ready()
        for host, guest in (("alice", "bob"), ("alice", "carol"), ("bob", "carol")):
            pair(nodes[host], nodes[guest])
        found(nodes)
        alice, bob, carol = nodes.values()

        address = group_json(alice, "address", "savings", "--next")["address"]
        ask(url, "/regtest/fund", {"address": address, "amount_sat": 1_000_000})
        assert synced(alice)["confirmed_sat"] == 1_000_000

        refused: str = group_json(alice, "send", "savings", SOMEBODY, "100000sat")["id"]
        for node in (alice, bob):
            assert approve(node, refused).returncode == 0
        assert cli(carol.data, "reject", refused, "--reason", "too much").returncode == 0
        ended = cli(alice.data, "watch", refused, "--timeout", "20")
        assert (ended.returncode, "too much" in ended.stdout) == (1, True)
        assert cli(alice.data, "export", refused, "--tx").returncode == 1, "two of three are nothing"

        spend(url, nodes, "250000sat")

        (saved := tmp_path / "savings.json").write_bytes(file_of(bob).encode())
        assert carol.stop() == 0  # and the device falls into the sea
        new = stack.enter_context(run(init(tmp_path / "new", "carol", "--chain", f"esplora+{url}")))
        new.ready()
        with at(new, "group", "import", "--yes", str(saved)) as importing:
            importing.expect("is here again")
        for host in (alice, bob):
            pair(host, new)
        spend(url, {"alice": alice, "bob": bob, "carol": new}, "100000sat")
        assert 640_000 < synced(new)["confirmed_sat"] < 650_000
