"""`musignet run` as it is: three nodes, each with its keyholder in a process of its own, and people who approve."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from app.nodes import GROUP_FILE, RunningNode, cli, cli_json
from app.test_api import free_port
from musignet.app import config
from musignet.app.pins import Pins
from musignet.app.places import APPROVER_FILE, CONFIG_FILE, IDENTITY_FILE, KEYHOLDER_FOLDER
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import Group
from musignet.chain import Chain
from musignet.limits import Limits
from musignet.net.approver import load_approver
from musignet.net.folder import DataFolder
from musignet.net.holder import HolderProcess
from musignet.net.keystore import load_identity
from musignet.node.peers import PeerInfo
from musignet.signing.approver import prove_group
from musignet.signing.group import Member, SigningGroup
from musignet.signing.groupfile import GroupFile
from support.wallet import MEMBERS, psbt

pytestmark = pytest.mark.driver


def start(data: Path) -> RunningNode:
    return RunningNode(data, command=[sys.executable, "-m", "musignet", "run", "--data", str(data)])


def keyholder_of(node: RunningNode) -> int:
    """The process id of a node's keyholder: its only child."""
    found = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()
    assert len(found) == 1
    return int(found[0])


def made(path: Path, name: str) -> Path:
    """`musignet init` of one person, with timeouts that suit a test."""
    args = ("--name", name, "--network", "regtest", "--listen", f"127.0.0.1:{free_port()}", "--insecure-no-passphrase")
    done = cli(path / name, "init", *args)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\d+\. [a-z]+", done.stdout)) == 24
    settings = replace(config.load(path / name), limits=Limits(reapprove_s=0.5, phase_timeout_s=2.0))
    (path / name / CONFIG_FILE).write_text(config.template(settings))
    return path / name


async def found_group(folders: dict[str, Path]) -> GroupFile:
    """What founding a group does: accounts to a descriptor, and a proof of each person to their keyholder."""
    holders = {
        name: HolderProcess(data / KEYHOLDER_FOLDER, insecure_no_passphrase=True) for name, data in folders.items()
    }
    identities = {name: load_identity(data / IDENTITY_FILE, None).pubkey for name, data in folders.items()}
    for name, holder in holders.items():
        await holder.start(identities[name], Chain.REGTEST)
    accounts = {name: holder.ready.account for name, holder in holders.items()}
    descriptor = f"tr(musig({','.join(f'{account}/<0;1>/*' for account in accounts.values())}))"
    wallet = Group(Descriptor.parse_untrusted(descriptor), Chain.REGTEST)
    members = [Member(identities[name], account.partition("]")[2]) for name, account in accounts.items()]
    group = GroupFile("savings", SigningGroup(wallet, members), {identities[name]: name for name in folders})
    for name, data in folders.items():
        key = load_approver(data / APPROVER_FILE).unlock(None)
        await holders[name].pin_group(group, prove_group(key, group.group.id))
        key.wipe()
        await holders[name].stop()
        (data / "groups").mkdir(mode=0o700, exist_ok=True)
        (data / "groups" / f"{group.group.id.hex()}.json").write_bytes(group.encode())
    return group


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GroupFile, dict[str, RunningNode]]]:
    path = tmp_path_factory.mktemp("three")
    folders = {name: made(path, name) for name in MEMBERS}
    group = asyncio.run(found_group(folders))
    nodes: dict[str, RunningNode] = {}
    with ExitStack() as stack:
        for name, data in folders.items():
            folder = DataFolder.lock(data)
            pins = Pins(folder)
            for other, node in nodes.items():
                key = next(key for key, label in group.labels.items() if label == other)
                pins.pin(PeerInfo(id=other, host="127.0.0.1", port=node.port, pubkey_hex=key.hex()))
            pins.close()
            folder.close()
            nodes[name] = stack.enter_context(start(data))
            nodes[name].ready()
        yield group, nodes


def approve(data: Path, session: str) -> None:
    while "waits for YOU" not in cli(data, "sessions", "--open").stdout:
        pass
    done = cli(data, "approve", session[:8], "--yes")
    assert done.returncode == 0, done.stderr


def test_a_proof_of_somebody_else_is_worth_nothing(
    running: tuple[GroupFile, dict[str, RunningNode]], tmp_path: Path
) -> None:
    """Each has their own approver: bob's yes is none of carol's. The session ends, and nothing was signed."""
    group, nodes = running
    (tmp_path / "rent.psbt").write_bytes(psbt(group.group.wallet).serialize())
    alice, bob, carol = (nodes[name].data for name in MEMBERS)
    session = cli_json(alice, "propose", "savings", str(tmp_path / "rent.psbt"))["id"]
    while "waits for YOU" not in cli(carol, "sessions", "--open").stdout:
        pass
    own = (carol / APPROVER_FILE).read_bytes()
    (carol / APPROVER_FILE).write_bytes((bob / APPROVER_FILE).read_bytes())
    cli(carol, "approve", session, "--yes")
    (carol / APPROVER_FILE).write_bytes(own)
    done = cli(carol, "watch", session, "--timeout", "20")
    assert done.returncode == 1
    assert "refused" in done.stdout
    assert cli(carol, "export", session).returncode == 1


def test_three_people_approve_and_a_transaction_comes_of_it(
    running: tuple[GroupFile, dict[str, RunningNode]], tmp_path: Path
) -> None:
    group, nodes = running
    (tmp_path / "rent.psbt").write_bytes(psbt(group.group.wallet).serialize())
    alice, bob, carol = (nodes[name].data for name in MEMBERS)
    session = cli_json(alice, "propose", "savings", str(tmp_path / "rent.psbt"))["id"]
    approve(alice, session)
    approve(bob, session)
    waits = cli_json(alice, "show", session)["session"]
    assert waits["waiting_for"] == ["carol"]

    os.kill(keyholder_of(nodes["bob"]), 9)
    nodes["bob"].expect("ERROR nothing can be signed, the node stops: ")
    assert nodes["bob"].process.wait(30) == 1
    with start(bob) as again:
        again.ready()
        approve(carol, session)
        done = cli(bob, "watch", session, "--timeout", "25")
        assert done.returncode == 0, done.stdout + done.stderr
        raw = {cli_json(data, "export", session)["tx"] for data in (bob, carol)}
        assert len(raw) == 1
        assert again.stop() == 0
    assert nodes["alice"].stop(2) == 0, "Ctrl-C, which the keyholder hears of from the node alone"


def test_a_group_that_nobody_pinned_is_not_signed_for(tmp_path: Path) -> None:
    alice = made(tmp_path, "alice")
    (alice / "groups").mkdir(mode=0o700)
    (alice / "groups" / f"{GROUP_FILE.group.id.hex()}.json").write_bytes(GROUP_FILE.encode())
    done = cli(alice, "run")
    assert done.returncode == 1
    assert "the keyholder does not know this group" in done.stderr
    assert not (alice / "api.sock").exists()


def test_nothing_is_left_behind_when_the_node_is_killed(tmp_path: Path) -> None:
    data = made(tmp_path, "alice")
    with start(data) as node:
        node.ready()
        keyholder = keyholder_of(node)
        node.process.kill()
        node.process.wait(30)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{keyholder}").exists() and time.monotonic() < deadline:
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    assert not Path(f"/proc/{keyholder}").exists()
