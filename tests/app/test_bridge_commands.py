"""The bridge by commands alone: bob's key is in btclib-wallet, and PSBT files go there and back."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.nodes import GROUP, GROUP_FILE, RunningNode, cli, cli_json, make_data
from support.ceremony import identity
from support.signers import BtclibSigner, keys_in
from support.wallet import MEMBERS, psbt

pytestmark = pytest.mark.driver


@pytest.fixture
def people(tmp_path: Path) -> Iterator[dict[str, RunningNode]]:
    """Three running nodes; bob has the group from its file, with his key elsewhere."""
    (tmp_path / "savings.json").write_bytes(GROUP_FILE.encode())
    nodes: dict[str, RunningNode] = {}
    with ExitStack() as stack:
        for name in MEMBERS:
            groups = [] if name == "bob" else [GROUP_FILE]
            make_data(tmp_path / name, name, groups=groups, peers=[one.info for one in nodes.values()])
            nodes[name] = stack.enter_context(RunningNode(tmp_path / name, name))
            nodes[name].ready()
        done = group_import(tmp_path / "bob", tmp_path / "savings.json")
        assert done.returncode == 0, done.stderr
        assert "key in another signer" in done.stdout
        yield nodes


def group_import(data: Path, file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "musignet", "group", "import", "--data", str(data), str(file)]
    return subprocess.run([*command, "--elsewhere", "--yes"], capture_output=True, text=True, timeout=30)


def bring(data: Path, session: str, signed: bytes) -> subprocess.CompletedProcess[str]:
    file = data.parent / "back.psbt"
    file.write_bytes(signed)
    return cli(data, "import", session, str(file))


def until(data: Path, session: str, wanted: str) -> None:
    """Return once bob's node waits for this from his signer."""
    while True:
        (one,) = cli_json(data, "sessions")
        if one["signer_wants"] == wanted:
            return
        assert not one["ended"], one


def test_a_transaction_with_a_signer_elsewhere(people: dict[str, RunningNode], tmp_path: Path) -> None:
    data, bob = psbt().serialize(), tmp_path / "bob"
    (tmp_path / "rent.psbt").write_bytes(data)
    session = cli_json(tmp_path / "alice", "propose", "savings", str(tmp_path / "rent.psbt"))["id"]
    while not cli_json(bob, "sessions"):
        assert people["bob"].process.poll() is None
    until(bob, session, "nonces")
    assert f"YOUR SIGNER: musignet export {session[:8]} --psbt" in cli(bob, "sessions").stdout
    with BtclibSigner(*keys_in(data, GROUP, GROUP.positions[identity("bob").pubkey])) as signer:
        out = base64.b64decode(cli(bob, "export", session, "--psbt").stdout)
        refused = bring(bob, session, signer(out).replace((600_000).to_bytes(8, "little"), (1).to_bytes(8, "little")))
        assert (refused.returncode, "were changed: unsigned transaction" in refused.stderr) == (1, True)
        taken = bring(bob, session, signer(out))
        assert taken.stdout.startswith("nonces taken"), taken.stderr
        until(bob, session, "partial signatures")
        taken = bring(bob, session, signer(base64.b64decode(cli(bob, "export", session, "--psbt").stdout)))
        assert taken.stdout.startswith("partial signatures taken"), taken.stderr
    txs = set()
    for name in MEMBERS:
        assert cli(tmp_path / name, "watch", session, "--timeout", "30").returncode == 0
        txs.add(cli_json(tmp_path / name, "export", session)["txid"])
    assert len(txs) == 1
    late = bring(bob, session, out)
    assert late.returncode == 1
    assert "nothing is wanted" in late.stderr


def test_a_proof_is_of_no_use_there_and_others_have_no_such_signer(
    people: dict[str, RunningNode], tmp_path: Path
) -> None:
    (tmp_path / "rent.psbt").write_bytes(psbt().serialize())
    session = cli_json(tmp_path / "bob", "propose", "savings", str(tmp_path / "rent.psbt"))["id"]
    done = cli(tmp_path / "alice", "import", session, str(tmp_path / "rent.psbt"), "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["kind"] in ("LocalError", "NotFound")
    assert people["bob"].stop() == 0
    with RunningNode(tmp_path / "bob", "bob") as again:  # the file says that the key is elsewhere
        again.ready()
        until(tmp_path / "bob", session, "nonces")
