"""The life of one node as its owner sees it: init, run, stop, and everything that can be wrong with its folder."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.nodes import GROUP_FILE, RunningNode, cli, cli_json, make_data
from app.people import until
from app.terminal import Terminal
from musignet.app import passphrase
from musignet.app.places import API_SOCKET, APPROVER_FILE, CONFIG_FILE, IDENTITY_FILE, WALLET_FILE
from musignet.bitcoin.walletkey import WalletKey
from musignet.errors import IoError, LocalError
from musignet.limits import PASSPHRASE_MAX_BYTES
from musignet.net.keystore import load_identity, load_wallet_key

pytestmark = pytest.mark.driver

TESTS = Path(__file__).resolve().parents[1]
WORDS = "abandon " * 11 + "about"
XPRV = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"
FAST = ("--insecure-no-passphrase",)


def start(data: Path, *args: str, **options: Any) -> RunningNode:
    return RunningNode(data, command=[sys.executable, "-m", "musignet", "run", "--data", str(data), *args], **options)


def with_fd(text: str, *texts: str) -> tuple[list[str], tuple[int, ...]]:
    """Pipes that hold these lines: their numbers as text, and to be inherited."""
    fds = []
    for one in (text, *texts):
        read, write = os.pipe()
        os.write(write, one.encode() + b"\n")
        os.close(write)
        fds.append(read)
    return [str(fd) for fd in fds], tuple(fds)


def init(data: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = cli(data, "init", "--network", "regtest", "--listen", "127.0.0.1:0", *args, **options)
    for fd in options.get("pass_fds", ()):
        os.close(fd)
    return done


HERE = ("--network", "regtest", "--listen", "127.0.0.1:0")
FIRST, SECOND = "1st phrase", "2nd phrase"
"""No word of BIP-39, so that neither is among the words that are shown."""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose two keys are encrypted, made by a person at a terminal. Its phrases are `FIRST` and `SECOND`."""
    data = tmp_path_factory.mktemp("locked") / "data"
    with Terminal("init", "--data", str(data), "--name", "alice", *HERE) as screen:
        words: dict[int, str] = {}
        while len(words) < 24:
            found = screen.expect(r"(\d+)\. ([a-z]+)")
            words[int(found.group(1))] = found.group(2)
        screen.expect("written down")
        screen.type("")
        for _ in range(2):
            screen.type(words[int(screen.expect(r"Word (\d+):").group(1))])
        for phrase in (FIRST, SECOND):
            for _ in range(2):
                screen.expect(r"passphrase|[Rr]epeat")
                screen.type(phrase)
        screen.expect(r"this node's key is ([0-9a-f]{66})")
        assert screen.exit_code() == 0
        after_words = screen.seen.split("written down")[1]
        assert FIRST not in screen.seen
        assert not any(f" {word} " in after_words.split("Word")[0] for word in words.values())
    (data / "words").write_text(" ".join(words[at] for at in sorted(words)))
    return data


def test_words_shown_once_are_the_wallet_and_the_keys_are_encrypted_apart(locked: Path) -> None:
    wallet = load_wallet_key(locked / WALLET_FILE, SECOND)
    assert wallet.public == WalletKey.from_words((locked / "words").read_text()).public
    assert load_identity(locked / IDENTITY_FILE, FIRST).pubkey != wallet.public
    for name in (IDENTITY_FILE, WALLET_FILE, APPROVER_FILE, CONFIG_FILE):
        assert (locked / name).stat().st_mode & 0o777 == 0o600
    assert (locked / WALLET_FILE).parent.stat().st_mode & 0o777 == 0o700


def test_a_node_with_a_passphrase_starts_with_it_alone(locked: Path) -> None:
    for text, sentence in (("wrong", "wrong passphrase"), ("", "passphrase"), (SECOND, "wrong passphrase")):
        (fd,), fds = with_fd(text)
        done = cli(locked, "run", "--passphrase-fd", fd, pass_fds=fds)
        os.close(fds[0])
        assert done.returncode == 1, text
        assert sentence in done.stderr
    none = cli(locked, "run", stdin=subprocess.DEVNULL)
    assert none.returncode == 1
    assert "--passphrase-fd" in none.stderr
    closed = cli(locked, "run", "--passphrase-fd", "77")
    assert closed.returncode == 2
    assert "file descriptor 77" in closed.stderr


def test_a_passphrase_may_be_mistyped_twice(locked: Path) -> None:
    for typed, end in ((FIRST, "passphrase for the wallet"), ("wrong", "Error: wrong passphrase")):
        with Terminal("run", "--data", str(locked)) as screen:
            for _ in range(2):
                screen.expect("Passphrase of the identity")
                screen.type("wrong")
                screen.expect("wrong passphrase.*; type it again")
            screen.expect("Passphrase of the identity")
            screen.type(typed)
            screen.expect(end)


@pytest.mark.parametrize(("typed", "end"), [(SECOND, "nobody to wait for"), ("wrong", "Error: wrong passphrase")])
def test_the_wallets_passphrase_may_be_mistyped_twice_too(locked: Path, typed: str, end: str) -> None:
    with Terminal("run", "--data", str(locked), controlling=True) as screen:
        screen.expect("Passphrase of the identity")
        screen.type(FIRST)
        for _ in range(2):
            screen.expect("Passphrase of the wallet in")
            screen.type("wrong")
            screen.expect("wrong passphrase.*; type it again")
        screen.expect("Passphrase of the wallet in")
        screen.type(typed)
        screen.expect(end)
        assert screen.echoes
        assert SECOND not in screen.seen
        if typed == SECOND:
            screen.interrupt()
        assert screen.exit_code() == (0 if typed == SECOND else 1)


@pytest.mark.parametrize(("end", "code"), [("Ctrl-C", 130), ("SIGTERM", 143)])
def test_it_can_be_stopped_while_it_waits_for_a_passphrase(locked: Path, end: str, code: int) -> None:
    """And then nothing says that it ran, or that it failed."""
    with Terminal("run", "--data", str(locked), controlling=True) as screen:
        screen.expect("Passphrase of the identity")
        screen.type(FIRST)
        screen.expect("Passphrase of the wallet in")
        if end == "Ctrl-C":
            screen.type("\x03")
        else:
            screen.signal(15)
        assert screen.exit_code() == code
        assert screen.unread("stopped|Error|keyholder") is None


def test_in_the_background_nothing_of_it_keeps_the_terminal(locked: Path) -> None:
    """The keyholder neither: a shell over a network waits for whoever has it open."""
    with Terminal("run", "--data", str(locked), "--background", controlling=True) as screen:
        screen.expect("Passphrase of the identity")
        screen.type(FIRST)
        screen.expect("Passphrase of the wallet in")
        screen.type(SECOND)
        screen.expect("runs in the background")
        try:
            until(lambda: screen.over)
        finally:
            assert cli(locked, "stop").returncode == 0


@pytest.mark.parametrize("prompt", ["identity", "wallet"])
def test_a_prompt_that_is_ended_gives_the_terminal_its_echo_back(locked: Path, prompt: str) -> None:
    """The wallet's is the keyholder's own: a process that reads from nobody but the terminal."""
    with Terminal("run", "--data", str(locked), controlling=True) as screen:
        screen.expect("Passphrase of the identity")
        if prompt == "wallet":
            screen.type(FIRST)
            screen.expect("Passphrase of the wallet")
        until(lambda: not screen.echoes)
        screen.signal(15)
        screen.exit_code()
        assert screen.echoes


def test_a_second_init_replaces_nothing(locked: Path) -> None:
    before = (locked / IDENTITY_FILE).read_bytes()
    done = init(locked, *FAST)
    assert done.returncode == 1
    assert "is there already; start it: musignet run" in done.stderr
    assert (locked / IDENTITY_FILE).read_bytes() == before


def test_words_that_were_not_written_down_make_no_wallet(tmp_path: Path) -> None:
    with Terminal("init", "--data", str(tmp_path / "a")) as screen:
        screen.expect("written down")
        screen.type("")
        number = screen.expect(r"Word (\d+):").group(1)
        for _ in range(2):
            screen.type("nonsense")
            screen.expect(f"another word; look at number {number} on your paper\nWord {number}:")
        screen.type("nonsense")
        screen.expect("another word; nothing was made")
        assert screen.exit_code() == 1
    assert sorted(one.name for one in (tmp_path / "a").iterdir()) == ["lock"]


def test_whoever_leaves_in_the_middle_is_told_that_the_words_are_none(tmp_path: Path) -> None:
    with Terminal("init", "--data", str(tmp_path / "a"), *HERE, controlling=True) as screen:
        screen.expect("written down")
        screen.type("\x03")
        screen.expect("\nnothing was made; if words were shown, they are no wallet\n")
        assert screen.exit_code() == 130


def test_one_passphrase_typed_for_both_keys_is_asked_for_again(tmp_path: Path) -> None:
    """Not refused with everything that was typed before it."""
    (fd,), fds = with_fd(FIRST)
    with Terminal(
        "init", "--data", str(tmp_path / "a"), *HERE, "--restore", "--passphrase-fd", fd, pass_fds=fds
    ) as screen:
        screen.expect("The words of the wallet")
        screen.type(WORDS)
        for phrase, said in ((FIRST, "choose another one for the wallet"), (SECOND, "made .* for regtest; this node")):
            screen.expect("New passphrase for the wallet")
            screen.type(phrase)
            screen.expect("Repeat")
            screen.type(phrase)
            screen.expect(said)
        assert screen.exit_code() == 0
    os.close(fds[0])


@pytest.mark.parametrize(
    ("option", "secret"), [("--restore", WORDS), ("--restore", f"  {WORDS.upper()} "), ("--xprv", XPRV)]
)
def test_a_wallet_is_restored_from_its_words_or_its_key(tmp_path: Path, option: str, secret: str) -> None:
    (fd,), fds = with_fd(secret)
    done = init(tmp_path / "a", option, "--secret-fd", fd, "--json", *FAST, pass_fds=fds)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["wallet"] is True
    expected = WalletKey.from_words(WORDS) if option == "--restore" else WalletKey.from_xprv(XPRV)
    assert load_wallet_key(tmp_path / "a" / WALLET_FILE, None).public == expected.public


BAD_INITS: list[tuple[tuple[str, ...], str, int, str]] = [
    (("--restore",), "abandon " * 12, 1, "these are not the words of a seed"),
    (("--xprv",), "xpub661MyMwAq", 1, "not an extended private key"),
    (("--restore", "--xprv"), "", 2, "exclude each other"),
    (("--json",), "", 1, "for a person's eyes"),
    (("--name", "a\x1b[31m"), "", 2, "no control"),
    (("--name", "a\u202eb"), "", 2, "no control, direction"),
    (("--name", "../a"), "", 2, "neither a dot"),
    (("--name", "a/b"), "", 2, "no slashes"),
    (("--listen", "nowhere"), "", 2, "HOST:PORT"),
    (("--network", "litecoin"), "", 2, "'litecoin' is not one of"),
]


@pytest.mark.parametrize(("args", "secret", "code", "sentence"), BAD_INITS)
def test_a_bad_init_makes_nothing(tmp_path: Path, args: tuple[str, ...], secret: str, code: int, sentence: str) -> None:
    (fd,), fds = with_fd(secret)
    done = init(tmp_path / "a", *args, "--secret-fd", fd, *FAST, pass_fds=fds)
    assert (done.returncode, sentence in done.stderr.replace("\n", " ")) == (code, True), done.stderr
    assert done.stderr.isascii()
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "a" / CONFIG_FILE).exists()
    assert not (tmp_path / "a" / IDENTITY_FILE).exists()


def test_settings_are_whole_or_not_there(tmp_path: Path) -> None:
    """A folder with half of them would start, on another network than it was made for."""
    full = 4096  # the keys fit, the settings do not
    done = init(
        tmp_path / "a", *FAST, "--network", "regtest", "--no-wallet",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full, full)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert (tmp_path / "a" / IDENTITY_FILE).exists()
    assert not (tmp_path / "a" / CONFIG_FILE).exists()


def test_one_passphrase_for_both_keys_is_refused(tmp_path: Path) -> None:
    numbers, fds = with_fd("same", "same")
    done = init(
        tmp_path / "a", "--name", "a", "--restore", "--secret-fd", "0", "--passphrase-fd", numbers[0],
        "--wallet-passphrase-fd", numbers[1], pass_fds=fds, input=WORDS + "\n",
    )  # fmt: skip
    assert done.returncode == 1
    assert "one passphrase for both keys" in done.stderr
    assert not (tmp_path / "a" / IDENTITY_FILE).exists()


# --- running ------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    done = init(tmp_path / "a", "--name", "alice", "--no-wallet", *FAST)
    assert done.returncode == 0, done.stderr
    return tmp_path / "a"


def test_it_says_what_runs_and_stops_cleanly(data: Path) -> None:
    for number in (15, 2, 1):
        with start(data) as node:
            line = node.ready()
            assert re.match(rf"alice \(\w{{8}}\) on regtest; data in {data}; listening on 127.0.0.1:\d+; API on ", line)
            assert line.endswith("groups: none; nobody to wait for")
            assert "INSECURE: the identity key is not encrypted" in node.seen, "at each start"
            status = cli_json(data, "status")
            assert (status["label"], status["network"], status["open_sessions"]) == ("alice", "regtest", 0)
            assert node.stop(number) == 0
            assert node.seen.endswith("stopped\n")
    assert cli(data, "status").returncode == 3


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_closed_terminal_stops_it_cleanly(data: Path) -> None:
    with Terminal("run", "--data", str(data), controlling=True) as screen:
        screen.expect("nobody to wait for")
        screen.close()
        assert screen.exit_code() == 0
    assert not (data / API_SOCKET).exists()


def test_its_process_leaves_no_core_and_its_files_are_its_own(data: Path) -> None:
    with start(data) as node:
        node.ready()
        proc = Path("/proc", str(node.process.pid))
        assert re.search(r"^Umask:\s0077$", (proc / "status").read_text(), re.MULTILINE)
        assert re.search(r"^Max core file size +0 +0 ", (proc / "limits").read_text(), re.MULTILINE)


def test_two_nodes_do_not_share_a_folder(data: Path) -> None:
    with start(data) as node:
        node.ready()
        second = cli(data, "run")
        assert second.returncode == 1
        assert f"another node runs on {data}" in second.stderr
        assert cli(data, "init", *FAST).returncode == 1
        assert cli(data, "status").returncode == 0, "the first one did not notice"
        assert node.stop() == 0


def test_after_a_kill_it_starts_again(data: Path) -> None:
    with start(data) as node:
        node.ready()
        node.process.kill()
    with start(data) as node:
        node.ready()
        assert node.stop() == 0


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def _scribble(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 :] = bytes(len(whole) - len(whole) // 2)
    path.write_bytes(whole)


def _open_to_all(path: Path) -> None:
    path.chmod(0o644)


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


BROKEN = [
    ("book.db", _scribble, "journal"),
    ("book.db", _cut, "journal"),
    ("book.db", _open_to_all, "mode 600"),
    (IDENTITY_FILE, _cut, "key file"),
    (IDENTITY_FILE, _open_to_all, "chmod 600"),
    (IDENTITY_FILE, _link, "symbolic link"),
    (IDENTITY_FILE, Path.unlink, "musignet init"),
    (CONFIG_FILE, Path.unlink, "musignet init"),
    (CONFIG_FILE, lambda path: path.write_text("[node]\ncolour = 1\n"), "unknown key in [node]"),
    ("groups/" + "0" * 64 + ".json", lambda path: path.write_text("{}"), "damaged group file"),
    ("groups/" + "0" * 64 + ".json", lambda path: path.write_bytes(GROUP_FILE.encode()), "expected the name"),
    (
        "groups/" + GROUP_FILE.group.id.hex() + ".json",
        lambda path: path.write_bytes(GROUP_FILE.encode()),
        "musignet init makes a node with one, in another data folder",
    ),
]


@pytest.mark.parametrize(("name", "damage", "sentence"), BROKEN, ids=[f"{one[0][:12]}-{one[2]}" for one in BROKEN])
def test_a_damaged_folder_refuses_to_start(data: Path, name: str, damage: Any, sentence: str) -> None:
    with start(data) as node:
        node.ready()
        assert node.stop() == 0
    damage(data / name)
    done = cli(data, "run")
    assert done.returncode == 1, done.stdout
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (data / "api.sock").exists()


def test_a_port_that_is_taken_is_one_sentence(data: Path, tmp_path: Path) -> None:
    with start(data) as node:
        port = re.search(r"listening on \S+:(\d+)", node.ready())
        assert port is not None
        other = make_data(tmp_path / "b", "bob", listen_port=int(port.group(1)))
        with RunningNode(other, "bob") as second:
            second.expect(f"Error: cannot listen on 127.0.0.1:{port.group(1)}")
            assert second.process.wait(30) == 1
            assert not (other / "api.sock").exists()
        assert node.stop() == 0


def test_a_log_in_json_holds_the_links_news(data: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = (data / CONFIG_FILE).read_text()
    settings = config.replace('# format = "console"', 'format = "json"').replace('# file = ""', f'file = "{log}"')
    (data / CONFIG_FILE).write_text(settings)
    with start(data) as node:
        node.ready()
        assert node.stop() == 0
    assert all(json.loads(line)["text"].isascii() for line in log.read_text().splitlines())


# --- the keyring --------------------------------------------------------------------------------------------------


def test_the_keyring_keeps_the_passphrase_of_the_identity(tmp_path: Path, locked: Path) -> None:
    pytest.importorskip("keyring")
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "PYTHON_KEYRING_BACKEND": "app.keyring_file.FileKeyring",
        "TEST_KEYRING": str(tmp_path / "ring"),
    }
    without = cli(locked, "run", "--keyring", env=environment)
    assert without.returncode == 1
    assert "the keyring has no passphrase for this folder" in without.stderr
    (tmp_path / "ring").write_text(json.dumps({f"musignet {locked}": "wrong"}))
    wrong = cli(locked, "run", "--keyring", env=environment)
    assert "wrong passphrase" in wrong.stderr


def test_a_passphrase_is_one_line_of_bounded_length() -> None:
    (_,), fds = with_fd("secret\nmore")
    assert passphrase.from_fd(fds[0]) == "secret"
    with pytest.raises(IoError, match="file descriptor"):
        passphrase.from_fd(fds[0])
    (_,), fds = with_fd("x" * (PASSPHRASE_MAX_BYTES + 1))
    with pytest.raises(LocalError, match="too long"):
        passphrase.from_fd(fds[0])
    read, write = os.pipe()
    os.write(write, b"\xff\n")
    os.close(write)
    with pytest.raises(LocalError, match="not UTF-8"):
        passphrase.from_fd(read)


@pytest.fixture(autouse=True)
def _no_data_of_somebody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUSIGNET_DATA", str(tmp_path / "default"))


def test_the_folder_may_come_from_the_environment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "musignet", "init", "--no-wallet", *FAST], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "default" / CONFIG_FILE).exists()
