"""New users on one local network: nobody types an address. Real processes, and machines of their own where allowed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.nodes import RunningNode, cli, cli_json, make_data
from app.people import at, init, run, sign, until
from app.terminal import Terminal
from musignet.limits import Limits
from musignet.net.lan import interfaces
from musignet.node.peers import PeerInfo
from musignet.wire.invite import Invite
from support.ceremony import identity
from support.netns import Machine, network

pytestmark = pytest.mark.driver

PATIENCE_S = 40.0
"""A few seconds, unless both sides dialled each other just before: then the pause of 30 s between two dials is over."""

LOOPBACK = next((one.name for one in interfaces([name for _, name in socket.if_nameindex()]) if one.is_loopback), "")


def invite_of(host: Terminal) -> str:
    return host.expect(r"(musig1[a-z0-9]{80,})").group(1)


def confirm(*screens: Terminal) -> None:
    """Both people compare the words, and say yes."""
    assert len({one.expect(r"\n +((?:[a-z]+ ){5}[a-z]+)\n").group(1) for one in screens}) == 1
    for one in screens:
        one.expect("Do both screens")
        one.type("y")
    assert [one.exit_code() for one in screens] == [0] * len(screens)


def test_two_new_users_find_each_other_pair_and_sign_with_no_address_typed(tmp_path: Path) -> None:
    """Two machines, and the commands with their defaults."""
    with network(("a", "b")) as machines, ExitStack() as stack:
        alice, bob = (
            stack.enter_context(run(init(tmp_path / name, name, listen=""), machine))
            for name, machine in zip(("alice", "bob"), machines, strict=True)
        )
        alice.ready()
        bob.ready()
        with at(bob, "discover") as looking:
            looking.expect("looking on eth0, UDP port 8738")
            with at(alice, "invite", "--lan", "--no-qr") as host:
                invite = invite_of(host)
                assert Invite.parse_untrusted(invite).addresses == ()
                looking.expect(r"alice +[0-9a-f]{8}  10\.77\.0\.1:8737  invites somebody")
                with at(bob, "join", invite) as guest:
                    confirm(host, guest)
            looking.expect(r"alice +[0-9a-f]{8}  10\.77\.0\.1:8737  your peer, connected")
        sign(alice, bob, tmp_path)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[list[RunningNode], list[Machine]]]:
    """Three machines; each node has the others in its book, without an address."""
    names = ("alice", "bob", "carol")
    quick = Limits(ping_interval_s=0.5, dead_after_s=2.0, backoff_max_s=1.0)
    with network(names) as machines, ExitStack() as stack:
        nodes = []
        for name, machine in zip(names, machines, strict=True):
            peers = [PeerInfo(id=one, pubkey_hex=identity(one).pubkey_hex) for one in names if one != name]
            data = make_data(
                tmp_path / name, name, peers=peers, limits=quick, listen_host="0.0.0.0", discovery_interfaces=("lan",)
            )
            nodes.append(stack.enter_context(RunningNode(data, name, machine=machine)))
        yield nodes, machines


def connected(node: RunningNode) -> dict[str, str]:
    return {one["label"]: one["at"] for one in cli_json(node.data, "peers") if one["state"] == "connected"}


def shown(node: RunningNode) -> set[tuple[str, str]]:
    lines = cli(node.data, "discover", "--for", "1", "--json").stdout.splitlines()
    return {(one["label"], one["host"]) for one in map(json.loads, lines[:2])}


def test_three_machines_find_each_other_and_again_where_one_has_moved(three: Any) -> None:
    nodes, machines = three
    for node in nodes:
        node.ready()
    for node in nodes:
        until(lambda node=node: len(connected(node)) == 2, PATIENCE_S)
    machines[1].move("10.77.0.99")
    alice, bob, carol = nodes
    for node in (alice, carol):  # whether or not anybody looks in the moment in which it is lost
        until(lambda node=node: connected(node).get("bob", "").startswith("10.77.0.99:"), PATIENCE_S)
    until(lambda: len(connected(bob)) == 2, PATIENCE_S)
    until(lambda: shown(carol) == {("alice", "10.77.0.1"), ("bob", "10.77.0.99")}, PATIENCE_S)


def test_the_doctor_names_what_blocks(three: Any) -> None:
    nodes, machines = three
    alice, machine = nodes[0], machines[0]
    for node in nodes:
        node.ready()
    until(lambda: len(shown(alice)) == 2, PATIENCE_S)  # whoever dialled it may not have been seen by it

    def doctor() -> str:
        words = (sys.executable, "-m", "musignet", "doctor", "--data", str(alice.data))
        done = subprocess.run(machine.command(*words), capture_output=True, text=True, timeout=30)
        assert (done.returncode == 1) is ("BLOCKED" in done.stdout), done.stdout + done.stderr
        return done.stdout

    well = doctor()
    assert "BLOCKED" not in well
    for line in ("interface: eth0: 10.77.0.1", "broadcast on eth0: to 10.77.0.255: sent, and heard by this machine",
                 f"10.77.0.1:{alice.port} answers", "sees 2 of 2 peers"):  # fmt: skip
        assert line in well
    if shutil.which("nft") is not None:
        for words in ("add table ip t", "add chain ip t in { type filter hook input priority 0 ; }",
                      "add rule ip t in udp dport 8738 drop"):  # fmt: skip
            machine.run("nft", words)
        ill = doctor()
        assert "BLOCKED  broadcast on eth0: to 10.77.0.255: sent, but not heard: a firewall here drops it" in ill
        assert "let UDP port 8738 in" in ill
        machine.run("nft", "delete table ip t")
    machine.run("ip", "link", "set", "eth0", "down")
    machine.run("ip", "addr", "flush", "dev", "eth0")
    assert "BLOCKED  interface: none of lan is up with an address" in doctor()


# --- several nodes on one machine -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("", 0))
        port: int = made.getsockname()[1]
        return port


@pytest.fixture
def pair_of_nodes(tmp_path: Path) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Alice and Bob on one machine, on its loopback; they do not know each other."""
    if not LOOPBACK:
        pytest.skip("no loopback interface with an address")
    port = free_port()
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                RunningNode(
                    make_data(tmp_path / name, name, discovery_interfaces=(LOOPBACK,), discovery_port=port), name
                )
            )
            for name in ("alice", "bob")
        ]
        for node in nodes:
            node.ready()
        yield nodes[0], nodes[1]


@pytest.mark.parametrize("wrong", [(), ("--address", "127.0.0.1:1"), ("--address", "192.0.2.1:1")])
def test_an_invite_without_an_address_that_works_leads_to_its_maker(
    pair_of_nodes: tuple[RunningNode, RunningNode], wrong: tuple[str, ...]
) -> None:
    alice, bob = pair_of_nodes
    with at(alice, "invite", "--no-qr", *(wrong or ("--lan",))) as host:
        invite = invite_of(host)
        began = time.monotonic()
        with at(bob, "join", invite) as guest:
            confirm(host, guest)
            assert time.monotonic() - began < 20
    assert [one["label"] for one in cli_json(bob.data, "peers")] == ["alice"]
    known = cli_json(bob.data, "peers")[0]
    assert (known["host"], known["port"]) == ("127.0.0.1", alice.port)
    seen = cli(alice.data, "discover", "--for", "2").stdout
    assert re.search(r"bob +[0-9a-f]{8}  127\.0\.0\.1:\d+  your peer, connected", seen)


def test_an_invite_that_is_over_is_announced_no_longer(pair_of_nodes: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = pair_of_nodes
    with at(alice, "invite", "--no-qr", "--lan") as host:
        invite = invite_of(host)
        host.interrupt()
        assert host.exit_code() == 130
    done = cli(bob.data, "join", invite)
    assert done.returncode == 1
    assert "is not seen on the local network" in done.stderr
    assert "doctor" in done.stderr
    assert cli(bob.data, "discover", "--for", "1").returncode == 4, "and nobody is shown"


def test_discovery_that_is_off_says_so(tmp_path: Path) -> None:
    with RunningNode(make_data(tmp_path / "alice", "alice"), "alice") as alice:
        alice.ready()
        done = cli(alice.data, "discover")
        assert done.returncode == 1
        assert "[discovery]" in done.stderr
        done = cli(alice.data, "doctor")
        assert done.returncode == 1
        assert "BLOCKED  discovery: it is switched off" in done.stdout
        assert "BLOCKED  listening: on 127.0.0.1, which is this machine only" in done.stdout
