"""People at their terminals: each with a data folder that `musignet init` made, a node, and what they type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.nodes import RunningNode, cli, cli_json
from app.terminal import Terminal
from musignet.bitcoin.walletkey import new_words
from musignet.signing.groupfile import GroupFile
from support.netns import Machine
from support.wallet import psbt, spend

__all__ = [
    "WORDS", "approve", "at", "file_of", "found", "group", "group_json", "init", "pair", "propose", "run", "sign",
    "signed", "staying", "until",
]  # fmt: skip

WORDS = {name: new_words(bytes((number,)) * 16) for number, name in enumerate(("alice", "bob", "carol"), 1)}


def init(path: Path, name: str, *args: str, listen: str = "127.0.0.1:0") -> Path:
    """Make a person's data folder from their words, with the command; empty `listen`: where it does by itself."""
    reader, writer = os.pipe()
    os.write(writer, WORDS[name].encode() + b"\n")
    os.close(writer)
    done = subprocess.run(
        [sys.executable, "-m", "musignet", "init", "--data", str(path), "--name", name, "--network", "regtest",
         *(["--listen", listen] if listen else []), "--restore", "--secret-fd", str(reader),
         "--insecure-no-passphrase", *args],
        pass_fds=(reader,), capture_output=True, text=True,
    )  # fmt: skip
    os.close(reader)
    assert done.returncode == 0, done.stderr
    return path


@contextmanager
def staying(machine: Machine, *args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a command that stays, on a machine. Returns it with its first line."""
    command = machine.command(sys.executable, "-u", "-m", "musignet", *args)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.send_signal(signal.SIGCONT)  # it may have been stopped
            process.terminate()


def run(path: Path, machine: Machine | None = None) -> RunningNode:
    """Run the person's node, on a machine of its own where one is given."""
    command = (sys.executable, "-m", "musignet", "run", "--data", str(path))
    return RunningNode(path, command=command if machine is None else machine.command(*command))


def group(node: RunningNode, command: str, *args: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, "-m", "musignet", "group", command, "--data", str(node.data), *args]
    return subprocess.run(done, capture_output=True, text=True, timeout=60)


def group_json(node: RunningNode, command: str, *args: str) -> Any:
    done = group(node, command, "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def at(node: RunningNode, *args: str) -> Terminal:
    return Terminal(*args, "--data", str(node.data))


def pair(host: RunningNode, guest: RunningNode) -> None:
    with at(host, "invite", "--no-qr") as inviting:
        invite = inviting.expect(r"(musig1[a-z0-9]{80,})").group(1)
        with at(guest, "join", invite) as joining:
            for one in (inviting, joining):
                one.expect("Do both screens")
                one.type("y")
            assert (inviting.exit_code(), joining.exit_code()) == (0, 0)


def file_of(node: RunningNode) -> GroupFile:
    return GroupFile.parse_untrusted(group_json(node, "export", "savings", "--file")["file"].encode())


def approve(node: RunningNode, session: str) -> subprocess.CompletedProcess[str]:
    """Say yes, as soon as the proposal has arrived there."""
    for _ in range(20):
        done = cli(node.data, "approve", session, "--yes")
        if done.returncode == 0 or "no session" not in done.stderr.lower():
            return done
    return done


def found(alice: RunningNode, bob: RunningNode) -> None:
    """Found a wallet of two."""
    with at(alice, "group", "create", "savings", "bob") as first:
        founding = first.expect(r"musignet group join ([0-9a-f]{8})").group(1)
        with at(bob, "group", "join", founding) as second:
            second.expect("Take part")
            second.type("y")
            for one in (first, second):
                one.expect("Do all screens show")
                one.type("y")
            assert (first.exit_code(), second.exit_code()) == (0, 0)


def sign(alice: RunningNode, bob: RunningNode, tmp_path: Path) -> None:
    """Found a wallet of two, and sign a payment from it."""
    found(alice, bob)
    session = propose(alice, tmp_path)
    for node in (alice, bob):
        done = approve(node, session)
        assert done.returncode == 0, done.stderr
    signed(alice, session)


def propose(node: RunningNode, tmp_path: Path) -> str:
    """Propose a payment from the wallet; return the session."""
    wallet = file_of(node).group.wallet
    (path := tmp_path / "spend.psbt").write_bytes(psbt(wallet, *spend(wallet)).serialize())
    session: str = cli_json(node.data, "propose", "savings", str(path))["id"]
    return session


def signed(node: RunningNode, session: str) -> None:
    """Wait for the transaction."""
    assert cli(node.data, "watch", session, "--timeout", "30").returncode == 0
    assert cli(node.data, "export", session, "--tx").stdout.strip()


def until(true: Callable[[], Any], patience_s: float = 10.0) -> None:
    """Ask a node until it says so: it says so within a second or a few, and is asked for longer on a busy machine."""
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
