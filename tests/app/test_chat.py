"""The chat as two people use it: two terminals, keys compared, lines, Ctrl-C."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.terminal import Terminal
from musignet.app.chat import Chat
from musignet.limits import CHAT_STRANGERS_MAX
from musignet.node.peers import PeerInfo
from musignet.text import short_key
from support.ceremony import identity

pytestmark = pytest.mark.driver


@pytest.fixture
def alice() -> Iterator[Terminal]:
    with Terminal("chat", "alice") as terminal:
        yield terminal


def _command(alice: Terminal) -> list[str]:
    """The arguments that alice's screen says to type on the other side."""
    line = alice.expect(r"musignet (chat bob --connect \S+)\n")
    return line.group(1).split()


def test_two_terminals(alice: Terminal) -> None:
    with Terminal(*_command(alice)) as bob:
        key = bob.expect(r"bob has key ([0-9a-f]{66})").group(1)
        bob.expect(r"\* dialling 127\.0\.0\.1:\d+\n")
        bob.expect(r"not yet: .* closed the connection before letting us in")
        alice.expect(f"somebody at 127.0.0.1 wants to talk, with key {key}")
        alice.type("hello?")
        alice.expect("nobody is here yet; the line was not sent")
        alice.type("/accept")
        alice.expect(rf"\* bob \(\w+\) is here: key {key}")
        bob.expect(r"\* alice \(\w+\) is here")
        alice.type("hello bob")
        bob.expect(r"<alice \(\w+\)> hello bob")
        bob.type("\u202eolleh \x07")
        assert "olleh" in alice.expect(r"<bob \(\w+\)> (.*)\n").group(1)
        assert alice.seen.isascii()
        bob.type("/who")
        bob.expect(r"alice \(\w+\) is connected")
        bob.interrupt()
        bob.expect("goodbye")
        assert bob.exit_code() == 0
        alice.expect(r"\* bob \(\w+\) is gone: bob \(\w+\)|\* bob \(\w+\) is gone")
    alice.type("/quit")
    alice.expect("goodbye")
    assert alice.exit_code() == 0


def test_what_it_says_to_type_dials_an_ipv6_address() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    with Terminal("chat", "alice", "--listen", "[::1]:0") as other, Terminal(*_command(other)) as bob:
        bob.expect(r"\* dialling \[::1\]:\d+\n")
        other.expect("somebody at ::1 wants to talk")


def test_accept_without_anybody(alice: Terminal) -> None:
    alice.expect("listening")
    alice.type("/accept")
    alice.expect("! nobody waits")


def test_many_strangers_are_few_lines_and_one_that_is_known_gets_in(capsys: pytest.CaptureFixture[str]) -> None:
    chat = Chat("alice", identity("alice"), ("127.0.0.1", 0), None)
    strangers = [PeerInfo(id="x", pubkey_hex=identity(str(number)).pubkey_hex) for number in range(200)]
    assert not any(chat._on_stranger(one) for one in strangers)
    seen = capsys.readouterr().out
    assert seen.count("wants to talk") == len(chat._strangers) == CHAT_STRANGERS_MAX
    assert seen.count("more want to talk") == 1
    chat._accept(strangers[-1].pubkey_hex)
    assert f"let in: {short_key(strangers[-1].pubkey_hex)}" in capsys.readouterr().out
    chat._accept("f" * 66)
    assert "nobody waits" in capsys.readouterr().out


@pytest.mark.parametrize("errors", ["surrogateescape", "strict"])
def test_what_is_no_text_ends_in_no_traceback(errors: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": f"utf-8:{errors}"}
    done = subprocess.run(
        [sys.executable, "-m", "musignet", "chat", "alice"], input=b"\xff\n/quit\n", capture_output=True, timeout=60,
        env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"goodbye" in done.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("chat", ""), "printable characters"),
        (("chat", "a\x1b[31m"), "printable characters"),
        (("chat", "a", "--connect", "02ab@127.0.0.1:1"), "66 hex digits"),
        (("chat", "a", "--connect", "02" * 33 + "@nowhere"), "HOST:PORT"),
        (("chat", "a", "--listen", "127.0.0.1:99999"), "HOST:PORT"),
        (("chat", "a", "--connect", "02" + "ff" * 32 + "@127.0.0.1:1"), "not a public key"),
        (("nonsense",), "No such command"),
    ],
)
def test_wrong_arguments_are_one_sentence(args: tuple[str, ...], sentence: str) -> None:
    with Terminal(*args) as terminal:
        code = terminal.exit_code()
        assert sentence in terminal.seen
        assert "Traceback" not in terminal.seen
        assert code != 0


def test_a_taken_port_is_one_sentence(alice: Terminal) -> None:
    port = alice.expect(r"listening on 127.0.0.1:(\d+)").group(1)
    with Terminal("chat", "bob", "--listen", f"127.0.0.1:{port}") as bob:
        bob.expect(f"Error: cannot listen on 127.0.0.1:{port}: .*another program may have this port")
        assert bob.exit_code() == 1


def test_a_key_file_keeps_the_key_and_its_passphrase(tmp_path: Path) -> None:
    path = str(tmp_path / "alice.key")

    def key(*passphrases: str) -> tuple[str, int]:
        with Terminal("chat", "alice", "--key-file", path) as terminal:
            for passphrase in passphrases:
                terminal.expect("assphrase of|assphrase:|confirmation")
                terminal.type(passphrase)
            found = terminal.expect(r"alice has key ([0-9a-f]{66})|Error: (.*)\n").group(1)
            if found:
                terminal.type("/quit")
            return found, terminal.exit_code()

    made, code = key("correct horse", "correct horse")
    assert code == 0
    assert key("correct horse") == (made, 0)
    assert key("wrong", "right", "correct horse") == (made, 0)
    assert key("wrong", "wrong", "wrong") == (None, 1)
