"""Three people with nodes of their own, a chain, and nothing but the command line: synced, sent, signed, confirmed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.nodes import GROUP, GROUP_FILE, RunningNode, cli, cli_json, make_data
from musignet.app.chain.service import ChainService, on_a_thread
from musignet.bitcoin.group import RECEIVE
from musignet.bitcoin.psbt import Psbt
from musignet.chain import Chain
from musignet.errors import LocalError
from support.wallet import MEMBERS

from support.esplora import answering, hung  # isort: skip  # skips where there is no bdkpython
from musignet.app.regtest_client import ask  # isort: skip
from musignet.app.regtest_server import serve  # isort: skip

pytestmark = pytest.mark.driver

SOMEBODY = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
WALLET = GROUP.wallet


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("served") / "chain") as served:
        yield served


def group_json(data: Path, *args: str) -> Any:
    done = group(data, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def group(data: Path, command: str, *args: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "musignet", "group", command, "--data", str(data), *args]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)


def started(
    stack: ExitStack, path: Path, name: str, peers: list[RunningNode], backend: str, **settings: Any
) -> RunningNode:
    infos = [one.info for one in peers]
    make_data(path / name, name, groups=[GROUP_FILE], peers=infos, chain_backend=backend, **settings)
    node = stack.enter_context(RunningNode(path / name, name))
    node.ready()
    return node


def test_from_a_funded_address_to_a_confirmed_payment(url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        nodes: list[RunningNode] = []
        for name in MEMBERS:
            nodes.append(started(stack, tmp_path, name, nodes, f"esplora+{url}"))
        alice, bob = tmp_path / "alice", tmp_path / "bob"

        empty = group(alice, "balance", "savings")
        assert (empty.returncode, "musignet group sync" in empty.stderr) == (1, True)
        first = group_json(alice, "sync", "savings")
        assert (first["confirmed_sat"], first["next_address"]) == (0, WALLET.address(RECEIVE, 0))
        for amount_sat in (60_000, 50_000):
            ask(url, "/regtest/fund", {"address": first["next_address"], "amount_sat": amount_sat})
        shown = group(alice, "sync", "savings").stdout
        assert "110000 sat confirmed" in shown
        assert f"next address {WALLET.address(RECEIVE, 1)} (0/1)" in shown
        assert group(alice, "balance", "savings", "--verbose").stdout.count(" confirmations") == 2

        found = group_json(alice, "send", "savings", SOMEBODY, "0.0002btc", "--memo", "rent")
        assert cli(bob, "watch", found["id"], "--timeout", "30").returncode == 0
        txid = cli_json(bob, "broadcast", found["id"][:8])["txid"]
        assert txid == cli_json(alice, "export", found["id"])["txid"]
        assert txid in cli(alice, "broadcast", found["id"]).stdout  # twice does no harm
        after = group_json(alice, "sync", "savings")
        change = next(one for one in after["coins"] if one["branch"] == 1)
        assert (change["outpoint"][:64], change["index"], change["confirmations"]) == (txid, 0, 1)
        assert 89_000 < after["confirmed_sat"] < 90_000

        done = group(alice, "send", "savings", SOMEBODY, "max", "--fee-rate", "2", "--coin", change["outpoint"])
        session = done.stdout.split()[1]
        assert f"musignet broadcast {session[:8]}" in done.stdout
        again = group(bob, "send", "savings", SOMEBODY, "max", "--coin", change["outpoint"], "--json")
        assert (again.returncode, json.loads(again.stderr)["kind"]) == (1, "LocalError")
        assert "spent by another session" in again.stderr
        assert cli(alice, "watch", session, "--timeout", "30").returncode == 0
        cli_json(alice, "broadcast", session)

        file = tmp_path / "rest.psbt"
        assert (
            f"musignet propose savings {file}"
            in group(alice, "send", "savings", SOMEBODY, "max", "--fee-rate", "1", "--psbt", str(file)).stdout
        )
        assert Psbt.parse_untrusted(file.read_bytes()).tx.outputs[0].amount_sat > 49_000
        nowhere = group(alice, "send", "savings", SOMEBODY, "max", "--psbt", str(tmp_path / "no" / "where"))
        assert (nowhere.returncode, "check the path" in nowhere.stderr) == (1, True)

        for words, sentence in (
            ((SOMEBODY, "0.5"), "a whole number alone is satoshi"),
            ((SOMEBODY, "9btc"), "sat are missing, the fee included"),
            ((SOMEBODY, "10"), "do not relay such an amount"),
            (("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "1000"), "another network"),
            ((SOMEBODY, "1000", "--fee-rate", "1.5"), "not a fee rate"),
            ((SOMEBODY, "1000", "--coin", "x"), "not a coin"),
        ):
            refused = group(alice, "send", "savings", *words)
            assert (refused.returncode, sentence in refused.stderr) == (1, True), refused.stderr
        assert (
            "has no transaction" in cli(alice, "broadcast", "ff").stderr
            or "no session" in cli(alice, "broadcast", "ff").stderr
        )


def test_a_node_passes_on_what_is_finished_by_itself_also_what_it_could_not_before_a_restart(
    url: str, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"
    with ExitStack() as stack:
        nodes: list[RunningNode] = []
        for name in MEMBERS:
            backend = nowhere if name == "bob" else url
            own = started(stack, tmp_path, name, nodes, f"esplora+{backend}", chain_broadcast=name == "bob")
            nodes.append(own)
        alice, bob = tmp_path / "alice", tmp_path / "bob"
        address = group_json(alice, "sync", "savings")["next_address"]
        ask(url, "/regtest/fund", {"address": address, "amount_sat": 60_000})
        session = group_json(alice, "send", "savings", SOMEBODY, "20000sat")["id"]
        assert cli(bob, "watch", session, "--timeout", "30").returncode == 0
        nodes[MEMBERS.index("bob")].expect("is not passed on yet")
        assert not confirmed(alice, session)

        assert nodes[MEMBERS.index("bob")].stop() == 0
        (bob / "config.toml").write_text((bob / "config.toml").read_text().replace(nowhere, url))
        again = stack.enter_context(RunningNode(bob, "bob"))
        again.expect("is passed on: [0-9a-f]{64}")
        assert confirmed(alice, session)


def confirmed(data: Path, session: str) -> bool:
    txid = cli_json(data, "export", session)["txid"]
    return any(one["outpoint"].startswith(txid) for one in group_json(data, "sync", "savings")["coins"])


def test_a_node_without_a_backend(tmp_path: Path) -> None:
    with ExitStack() as stack:
        started(stack, tmp_path, "alice", [], "")
        done = group(tmp_path / "alice", "sync", "savings")
        assert (done.returncode, "no chain backend" in done.stderr, "[chain]" in done.stderr) == (1, True, True)


def test_a_node_stops_while_its_backend_hangs(tmp_path: Path) -> None:
    """The thread that waits for the backend keeps nobody: not the command that asked, not the end of the node."""
    with hung() as port, ExitStack() as stack:
        node = started(stack, tmp_path, "alice", [], f"esplora+http://127.0.0.1:{port}")
        call = [sys.executable, "-m", "musignet", "group", "sync", "--data", str(tmp_path / "alice"), "savings"]
        asking = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert cli(tmp_path / "alice", "status").returncode == 0  # the loop is free
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(1)
        begun = time.monotonic()
        assert node.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 10
        asking.communicate(timeout=10)
        assert asking.returncode != 0


def test_a_url_of_no_backend_is_refused_at_the_start(tmp_path: Path) -> None:
    make_data(tmp_path / "alice", "alice", chain_backend="http://127.0.0.1:1")
    with RunningNode(tmp_path / "alice", "alice") as node:
        node.expect("Error: not the URL of a chain backend")
        assert node.process.wait(10) == 1


async def _asked() -> None:
    service = ChainService("", Chain.REGTEST)
    with pytest.raises(LocalError, match="no chain backend"):
        service.wallet(b"", WALLET)
    assert await on_a_thread(lambda: 7) == 7
    with pytest.raises(LocalError, match="x"):
        await on_a_thread(lambda: (_ for _ in ()).throw(LocalError("x")))


def test_calls_on_a_thread() -> None:
    asyncio.run(_asked())


# --- the chain to play on -------------------------------------------------------------------------------------------


def run(*args: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "musignet", "regtest", *args]
    return subprocess.run(call, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_chain_as_a_command(number: signal.Signals) -> None:
    call = [sys.executable, "-u", "-m", "musignet", "regtest", "--esplora", "127.0.0.1:0"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = line.split()[4].rstrip(";")
        assert f'backend = "esplora+{url}"' in line
        done = run("fund", WALLET.address(RECEIVE, 0), "0.5btc", "--url", url)
        assert (done.returncode, done.stdout.startswith("coin "), done.stderr) == (0, True, "")
        height = json.loads(run("mine", "3", "--url", url, "--json").stdout)["height"]
        assert f"has {height + 1} blocks" in run("mine", "--url", url).stdout
        refused = run("fund", "nobody", "1btc", "--url", url)
        assert (refused.returncode, "not a Bitcoin address" in refused.stderr) == (1, True)
        server.send_signal(number)
        assert server.wait(10) == 0
    gone = run("mine", "--url", url)
    assert (gone.returncode, "no regtest chain answers" in gone.stderr) == (1, True)


def test_the_chain_stays_on_this_machine() -> None:
    done = run("--esplora", "0.0.0.0:0")
    assert (done.returncode, "stays on this machine" in done.stderr) == (1, True)


def test_answers_that_are_no_answers() -> None:
    with answering(lambda *_: (200, b"[]")) as url:
        done = run("mine", "--url", url)
    assert (done.returncode, "no regtest chain answers" in done.stderr) == (1, True)
