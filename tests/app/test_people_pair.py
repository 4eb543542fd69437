"""Two people pair their nodes: real processes, real links, and a pseudo-terminal for each of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.nodes import RunningNode, cli, cli_json, make_data
from app.terminal import Terminal
from musignet.chain import Chain
from musignet.wire.invite import Invite
from support.ceremony import identity

pytestmark = pytest.mark.driver

INVITE = r"(musig1[a-z0-9]{80,})"
WORDS = r"\n +((?:[a-z]+ ){5}[a-z]+)\n"


@pytest.fixture
def people(tmp_path: Path) -> Iterator[tuple[RunningNode, RunningNode]]:
    """Alice and Bob, who do not know each other."""
    with ExitStack() as stack:
        yield tuple(  # type: ignore[misc]
            stack.enter_context(RunningNode(make_data(tmp_path / name, name), name)) for name in ("alice", "bob")
        )


def ready(*nodes: RunningNode) -> None:
    for node in nodes:
        node.ready()


def at(node: RunningNode, command: str, *args: str, controlling: bool = False) -> Terminal:
    return Terminal(command, "--data", str(node.data), *args, controlling=controlling)


def known(node: RunningNode) -> list[tuple[str, str]]:
    return [(one["label"], one["key"]) for one in cli_json(node.data, "peers")]


def meet(host: Terminal, guest_node: RunningNode, *args: str) -> tuple[Terminal, str]:
    """Let the guest join; return their terminal and the words that both screens show."""
    invite = host.expect(INVITE).group(1)
    guest = at(guest_node, "join", invite, *args)
    words = guest.expect(WORDS).group(1)
    assert host.expect(WORDS).group(1) == words
    return guest, words


def test_two_people_compare_six_words_and_are_paired_for_good(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    with at(alice, "invite") as host:
        guest, _ = meet(host, bob)
        assert "which is this machine only" in host.seen
        with guest:
            assert known(alice) == [(identity("bob").pubkey_hex[2:10], identity("bob").pubkey_hex)], "not pinned yet"
            host.expect(r"Do both screens show these six words\?")
            host.type("y")
            host.expect("waiting for the other side")
            guest.expect(r"Do both screens")
            guest.type("yes")
            guest.expect("paired with alice")
            host.expect("paired with bob")
            assert (host.exit_code(), guest.exit_code()) == (0, 0)
    assert known(alice) == [("bob", identity("bob").pubkey_hex)]
    assert known(bob) == [("alice", identity("alice").pubkey_hex)]
    assert bob.stop() == 0
    with RunningNode(bob.data, "bob") as again:
        again.expect("waits for alice")
        assert known(again) == [("alice", identity("alice").pubkey_hex)], "it survives a restart"


def test_one_says_no_and_nothing_is_kept(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    with at(alice, "invite", "--no-qr") as host:
        guest, _ = meet(host, bob)
        with guest:
            guest.expect("Do both screens")
            guest.type("n")
            guest.expect("not confirmed")
            assert guest.exit_code() == 1
            host.expect("Do both screens")
            host.type("y")
            host.expect("the other side ended the pairing.*invite is still open")
            assert "no words" not in host.seen, "one sentence is enough"
            host.interrupt()
            assert host.exit_code() == 130
    assert known(alice) == known(bob) == []


def test_ctrl_c_gives_up_and_says_nothing_about_the_words(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    with at(alice, "invite", "--no-qr") as host:
        guest, _ = meet(host, bob)
        with guest:
            guest.expect("Do both screens")
            guest.interrupt()
            assert guest.exit_code() == 130
            assert "not confirmed" not in guest.seen
            host.expect("Do both screens")
            host.type("y")
            host.expect("the other side ended the pairing: the pairing was cancelled.*invite is still open")
            host.signal(15)
            assert host.exit_code() == 143
    found = re.search(INVITE, host.seen)
    assert found is not None
    assert "still waiting there?" in cli(bob.data, "join", found.group(1)).stderr, "SIGTERM withdrew it, too"


def test_a_closed_terminal_gives_up_too(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    with at(alice, "invite", "--no-qr", controlling=True) as host:
        guest, _ = meet(host, bob)
        with guest:
            for one in (host, guest):
                one.expect("Do both screens")
            host.close()
            host.exit_code()
            guest.type("y")
            guest.expect("the pairing was cancelled")
    found = re.search(INVITE, host.seen)
    assert found is not None
    assert "still waiting there?" in cli(bob.data, "join", found.group(1)).stderr


def test_words_that_a_script_is_given_are_compared(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    with Script(alice, "invite") as host:
        invite = host.line()["invite"]
        done = cli(bob.data, "join", invite, "--yes-words", "zoo zoo zoo zoo zoo zoo")
        assert done.returncode == 1
        assert "not confirmed" in done.stderr
        host.line()
        host.type("zoo zoo zoo zoo zoo zoo")
        assert host.process.wait(30) == 1
    with Script(alice, "invite") as host, Script(bob, "join", invite := host.line()["invite"]) as guest:
        for one, other in ((host, guest), (guest, host)):
            one.words = one.line()["words"]
            if other.words:
                assert one.words == other.words
        host.type(guest.words.upper())
        guest.type(host.words)
        assert host.line()["paired"]
        assert guest.line()["paired"]
        assert host.process.wait(30) == guest.process.wait(30) == 0
    again = cli(bob.data, "join", invite, "--yes-words", host.words)
    assert again.returncode == 0, "the two it was for may say it again"
    assert known(bob) == [("alice", identity("alice").pubkey_hex)]


class Script:
    """A command with `--json` and `--yes-words -`, and pipes."""

    def __init__(self, node: RunningNode, command: str, *args: str) -> None:
        self.words = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "musignet", command, "--data", str(node.data), "--json", "--yes-words", "-", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        found: dict[str, Any] = json.loads(line)
        return found

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def test_a_name_that_is_taken_asks_for_another(tmp_path: Path) -> None:
    """Bob knows a carol; a second one comes, and is called by another name. Both stay connected after a restart."""
    first, second = identity("carol"), identity("alice")
    with ExitStack() as stack:
        bob = stack.enter_context(RunningNode(make_data(tmp_path / "bob", "bob"), "bob"))
        carol = stack.enter_context(RunningNode(make_data(tmp_path / "carol", "carol"), "carol"))
        other = stack.enter_context(RunningNode(make_data(tmp_path / "other", "carol"), "alice"))
        ready(bob, carol, other)
        for node in (carol, other):
            host = stack.enter_context(at(bob, "invite"))
            guest, _ = meet(host, node)
            stack.enter_context(guest)
            guest.expect("Do both screens")
            guest.type("y")
            host.expect("Do both screens")
            host.type("y")
            if node is other:
                host.expect("belongs to another key")
                host.type("up/carol")
                host.expect("no slashes")
                host.type("carol at work")
            host.expect("paired with carol")
            assert host.exit_code() == 0
        assert known(bob) == [("carol", first.pubkey_hex), ("carol at work", second.pubkey_hex)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:-20], "cut off"),
        (lambda text: text[:40] + ("q" if text[40] != "q" else "p") + text[41:], "damaged"),
        (lambda text: "bc1q" + text, "not an invite"),
        (lambda text: Invite.make(
            identity("bob").pubkey, "bob", ("127.0.0.1:1",), chain=0, expires_at=2e9, secret=bytes(16)
        ).text(), "another Bitcoin network"),  # type: ignore[arg-type]
        (lambda text: Invite.make(
            identity("bob").pubkey, "bob", ("127.0.0.1:1",), chain=3, expires_at=1e9, secret=bytes(16)
        ).text(), "expired"),  # type: ignore[arg-type]
        (lambda text: Invite.make(
            identity("bob").pubkey, "bob", ("127.0.0.1:1",), chain=3, expires_at=2e9, secret=bytes(16)
        ).text(), "cannot be reached"),  # type: ignore[arg-type]
        (lambda text: Invite.make(
            identity("bob").pubkey, "bob", (), chain=3, expires_at=2e9, secret=bytes(16)
        ).text(), "names no address"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_bad_invite_is_one_sentence_and_changes_nothing(people: Any, change: Any, sentence: str) -> None:
    alice, bob = people
    ready(alice)
    text = Invite.make(
        identity("bob").pubkey,
        "bob",
        ("127.0.0.1:1",),
        chain=3,
        expires_at=2e9,
        secret=bytes(16),  # type: ignore[arg-type]
    ).text()
    done = cli(alice.data, "join", change(text))
    assert done.returncode == 1
    assert sentence in done.stderr
    read = sentence not in ("cut off", "damaged", "not an invite")
    assert (
        done.stderr.startswith("looking for whoever made it") == read
    )  # a dial takes longer than people wait in silence
    assert len(done.stderr.splitlines()) <= 2
    assert known(alice) == []
    assert bob


def test_an_invite_that_leads_nowhere_does_not_move_a_peer(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    with at(alice, "invite") as host:
        guest, _ = meet(host, bob)
        with guest:
            for one in (host, guest):
                one.expect("Do both screens")
                one.type("y")
            assert (host.exit_code(), guest.exit_code()) == (0, 0)
    before = cli_json(bob.data, "peers")[0]
    assert (before["host"], before["port"]) == ("127.0.0.1", alice.port)
    assert alice.stop() == 0
    elsewhere = Invite.make(
        identity("alice").pubkey, "alice", ("127.0.0.1:1",), chain=Chain.REGTEST, expires_at=2e9, secret=bytes(16)
    )
    assert cli(bob.data, "join", elsewhere.text()).returncode == 1
    after = cli_json(bob.data, "peers")[0]
    assert (after["host"], after["port"], after["pinned"]) == (before["host"], before["port"], True)


def test_what_cannot_be_invited(people: tuple[RunningNode, RunningNode]) -> None:
    alice, _ = people
    ready(alice)
    for args, code in (
        (("--expires-in", "0"), 2),
        (("--expires-in", "soon"), 2),
        (("--expires-in", "48h"), 1),
        (("--address", "nowhere"), 2),
        (("--label", "a\x1b[2J"), 2),
        (("--address", "x" * 129 + ":1"), 2),
    ):
        done = cli(alice.data, "invite", *args)
        assert done.returncode == code, done.stderr
        assert "\x1b" not in done.stderr
    assert cli(alice.data, "invite", "--expires-in", "1").returncode == 4, "nobody came"


def test_a_stranger_without_an_invite_stays_outside(people: tuple[RunningNode, RunningNode]) -> None:
    alice, bob = people
    ready(alice, bob)
    forged = Invite.make(
        identity("alice").pubkey,
        "alice",
        (f"127.0.0.1:{alice.port}",),
        chain=3,
        expires_at=2e9,
        secret=bytes(16),  # type: ignore[arg-type]
    ).text()
    done = cli(bob.data, "join", forged)
    assert done.returncode == 1, "no window is open: not even a handshake"
    with at(alice, "invite") as host:
        host.expect(INVITE)
        done = cli(bob.data, "join", forged, "--yes-words", "zoo zoo zoo zoo zoo zoo")
        assert done.returncode == 1
        assert "not open" in done.stderr
    assert known(alice) == known(bob) == []
