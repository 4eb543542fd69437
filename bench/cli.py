"""The command line as a person waits for it: whole processes, beside `python -c pass` in the same run.

`python -m bench cli`: `--help`, `peers` of a running node, and a node with 10,000 stored messages until it is ready.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes

from musignet.app.config import Config, template
from musignet.app.places import CONFIG_FILE
from musignet.bitcoin.bip32 import Xpub
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import Group
from musignet.chain import Chain
from musignet.crypto.keys import Identity, SigningKey
from musignet.net.cosigner import _NODE_KINDS
from musignet.net.folder import DataFolder
from musignet.net.keystore import save_identity
from musignet.net.store import Journal, Record
from musignet.signing.group import Member, SigningGroup
from musignet.signing.groupfile import GroupFile
from musignet.signing.records import TransactionProposal, encode, session_id
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType

__all__ = ["add_to", "main"]

_PYTHON = [sys.executable]
_MUSIGNET = [sys.executable, "-m", "musignet"]
_TARGETS_MS = {"musignet --help": 200, "musignet peers": 300, "run, ready with 10,000 stored": 2000}
_PSBT_BYTES = 1285
"""Of the demo: two inputs, two outputs."""


def add_to(cases: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the case `cli` to the benchmark's command."""
    cli = cases.add_parser("cli", help="whole processes: --help, peers, run with 10,000 stored messages")
    cli.add_argument("--rounds", type=int, default=5)
    cli.add_argument("--stored", type=int, default=10_000, help="messages in the journal of the node that is started")
    cli.add_argument("--json", type=Path, metavar="FILE")


def main(options: argparse.Namespace) -> int:
    """Measure, print a table, and write JSON where that is wanted."""
    folder = Path(tempfile.mkdtemp(prefix="musignet-bench-"))
    try:
        _make(folder, options.stored)
        node, ready_ms = _start(folder)
        try:
            samples = _measure(folder, options.rounds)
        finally:
            _stop(node)
        ready = [ready_ms, *(_ready_once(folder) for _ in range(options.rounds - 1))]
    finally:
        shutil.rmtree(folder)
    samples[f"run, ready with {options.stored:,} stored"] = ready
    _print(samples)
    if options.json is not None:
        options.json.write_text(json.dumps({"samples_ms": samples, "targets_ms": _TARGETS_MS}, indent=1) + "\n")
    return 0


def _measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Alternate, so that all of them meet the same machine."""
    cases: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: _process([*_PYTHON, "-c", "pass"]),
        "musignet --help": lambda: _process([*_MUSIGNET, "--help"]),
        "musignet peers": lambda: _process([*_MUSIGNET, "peers", "--data", str(folder)]),
    }
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, once in cases.items():
            samples[name].append(once())
    return samples


def _process(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return 1000 * (time.perf_counter() - began)


def _start(folder: Path) -> tuple[subprocess.Popen[str], float]:
    began = time.perf_counter()
    node = subprocess.Popen(
        [*_PYTHON, "-m", "bench.cli_node", str(folder)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert node.stdout is not None
    line = node.stdout.readline()
    if " on regtest" not in line:
        raise SystemExit(f"the node did not start: {line}")
    return node, 1000 * (time.perf_counter() - began)


def _stop(node: subprocess.Popen[str]) -> None:
    node.send_signal(signal.SIGTERM)
    node.communicate(timeout=30)


def _ready_once(folder: Path) -> float:
    node, took_ms = _start(folder)
    _stop(node)
    return took_ms


def _print(samples: dict[str, list[float]]) -> None:
    floor = statistics.median(samples["python -c pass"])
    print(f"{'':32} {'median ms':>10} {'beside pass':>12} {'target':>8}")
    for name, times in samples.items():
        median = statistics.median(times)
        print(f"{name:32} {median:10.0f} {median / floor:12.1f} {_TARGETS_MS.get(name, ''):>8}")


def _make(folder: Path, stored: int) -> None:
    """A data folder of one of two cosigners, whose journal has half as many sessions as `stored`, all ended."""
    identity, other = Identity.generate(), Identity.generate()
    secret = token_bytes(32)
    keys = [SigningKey.from_secret(secret), SigningKey.from_secret(token_bytes(32))]
    xpubs = [str(Xpub(Chain.REGTEST.xpub_version, key.pubkey, token_bytes(32))) for key in keys]
    wallet = Group(Descriptor.parse_untrusted(f"tr(musig({','.join(xpubs)})/<0;1>/*)"), Chain.REGTEST)
    members = [Member(one.pubkey, xpub) for one, xpub in zip((identity, other), xpubs, strict=True)]
    group = GroupFile("bench", SigningGroup(wallet, members), {identity.pubkey: "here", other.pubkey: "there"})
    locked = DataFolder.lock(folder)
    save_identity(identity, folder / "identity.key", None, insecure_no_passphrase=True)
    (folder / "secret").write_bytes(secret)
    (folder / CONFIG_FILE).write_text(template(replace(Config(), network=Chain.REGTEST, listen_port=0)))
    (folder / "groups").mkdir(mode=0o700)
    (folder / "groups" / f"{group.group.id.hex()}.json").write_bytes(group.encode())
    with Journal.open(locked, f"node-{group.group.id.hex()[:16]}", _NODE_KINDS) as journal:
        for at in range(0, stored // 2, 256):
            rows = [row for _ in range(min(256, stored // 2 - at)) for row in _session(group.group, identity)]
            journal.append(rows)
    locked.close()


def _session(group: SigningGroup, identity: Identity) -> list[Record]:
    expired_ms = int(time.time() * 1000) - 1000
    record = TransactionProposal(group.id, os.urandom(32), expired_ms, os.urandom(_PSBT_BYTES), "")
    session = session_id(identity.pubkey, record)
    message = Message(MessageType.TRANSACTION_PROPOSAL, "here", encode(record), session=session)
    envelope = message.sign(identity, to=group.id, chain=Chain.REGTEST).to_bytes()
    return [Record(0, session, b"\x00" + envelope), Record(0, session, b"\x01" + session + b"expired")]
