"""A wallet of alice's keyholder and bob's other signer, founded and used by commands and files alone."""

from __future__ import annotations

import base64
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.nodes import RunningNode, cli, cli_json
from musignet.signing.groupfile import GroupFile
from support.keys import secret
from support.signers import BtclibSigner
from support.wallet import psbt, spend, xpub

pytestmark = pytest.mark.driver


def run(data: Path, *args: str) -> str:
    """A command of a group of commands, on a data folder."""
    command = [sys.executable, "-m", "musignet", *args[:2], "--data", str(data), *args[2:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(path: Path, name: str, *args: str) -> RunningNode:
    data = path / name
    done = cli(data, "init", "--name", name, "--network", "regtest", "--listen", "127.0.0.1:0", *args)
    assert done.returncode == 0, done.stderr
    return RunningNode(data, command=[sys.executable, "-m", "musignet", "run", "--data", str(data)])


def test_a_group_file_by_hand_and_a_transaction_by_files(tmp_path: Path) -> None:
    alice, bob, group_file = tmp_path / "alice", tmp_path / "bob", tmp_path / "savings.json"
    with ExitStack() as stack:
        stack.enter_context(start(tmp_path, "alice", "--insecure-no-passphrase")).ready()
        stack.enter_context(start(tmp_path, "bob", "--no-wallet", "--insecure-no-passphrase")).ready()
        bobs = f"bob={cli_json(bob, 'status')['key']}=[00000001/87h/1h/0h]{xpub('bob')}"
        group_file.write_text(run(alice, "group", "write", "savings", run(alice, "group", "key").strip(), bobs))
        group = GroupFile.parse_untrusted(group_file.read_bytes()).group
        run(alice, "group", "import", str(group_file), "--yes")
        run(bob, "group", "import", str(group_file), "--yes", "--elsewhere")

        tx, spent = spend(group.wallet)
        (tmp_path / "rent.psbt").write_bytes(psbt(group.wallet, tx, spent).serialize())
        session = cli_json(alice, "propose", "savings", str(tmp_path / "rent.psbt"))["id"]
        while not cli_json(alice, "sessions")[0]["asked"]:
            pass
        assert cli(alice, "approve", session, "--yes").returncode == 0

        def carry(sender: Path, to: Path) -> None:
            run(sender, "outbox", "export", "--to", to.name, str(tmp_path / "stick"))
            run(to, "inbox", "import", str(tmp_path / "stick"))

        carry(alice, bob)
        refused = cli(bob, "approve", session, "--yes")
        assert refused.returncode == 1
        with BtclibSigner(secret("bob")) as signer:
            for brought in ("nonces", "partial signatures"):
                (tmp_path / "back").write_bytes(signer(base64.b64decode(cli(bob, "export", session, "--psbt").stdout)))
                taken = cli(bob, "import", session, str(tmp_path / "back"))
                assert taken.stdout.startswith(f"{brought} taken"), taken.stderr
                carry(bob, alice)
                carry(alice, bob)
        ends = [cli_json(one, "sessions")[0]["state"] for one in (alice, bob)]
        assert ends == ["completed", "completed"]
        assert len({cli_json(one, "export", session)["tx"] for one in (alice, bob)}) == 1
