"""The command line as a whole: what is listed is there, is quick, has an example, and fails in a sentence."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import click
import pytest

from musignet.app.cli import COMMANDS, main
from musignet.app.client import ApiError, Client, NotRunning, path
from musignet.app.commands.blame import COMMANDS as BLAME_COMMANDS
from musignet.app.commands.common import Command, Exit, Failure
from musignet.app.commands.group import COMMANDS as GROUP_COMMANDS
from musignet.app.commands.inbox import COMMANDS as INBOX_COMMANDS
from musignet.app.commands.outbox import COMMANDS as OUTBOX_COMMANDS
from musignet.app.places import CONFIG_FILE
from musignet.app.sessions import NotFound
from musignet.errors import IoError, LocalError, Timeout
from musignet.limits import LABEL_MAX_CHARS
from musignet.net.folder import DataFolder
from musignet.signing.groupfile import GroupFile
from support.ceremony import identity, signing_group
from support.wallet import MEMBERS

ROOT = Path(__file__).resolve().parents[2]
SAVINGS = GroupFile("savings", signing_group(), {identity(name).pubkey: name for name in MEMBERS})
OTHER = GroupFile("savings", signing_group("participants"), {identity(name).pubkey: name for name in MEMBERS})


PLACES = (
    COMMANDS
    | {f"group {name}": place for name, place in GROUP_COMMANDS.items()}
    | {f"blame {name}": place for name, place in BLAME_COMMANDS.items()}
    | {f"outbox {name}": place for name, place in OUTBOX_COMMANDS.items()}
    | {f"inbox {name}": place for name, place in INBOX_COMMANDS.items()}
)
GROUPS = ("group", "blame", "regtest", "outbox", "inbox")
"""Every command, also those of groups of commands."""


def command(name: str) -> click.Command:
    found: click.Command | None = main
    for part in name.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), part)
    assert found is not None
    return found


@pytest.mark.parametrize("name", PLACES)
def test_each_command_is_what_the_list_says_and_has_an_example(name: str) -> None:
    found = command(name)
    assert found.name == name.split()[-1]
    assert (found.help or "").splitlines()[0] == PLACES[name].help
    with click.Context(found, info_name=f"musignet {name}") as context:
        text = found.get_help(context)
    assert f"Example: musignet {name}" in text
    assert all(line.isascii() for line in text.splitlines())


@pytest.mark.parametrize("name", [name for name in PLACES if name not in ("chat", "relay", "run", *GROUPS)])
def test_each_command_speaks_json(name: str) -> None:
    assert "--json" in [option for one in command(name).params for option in one.opts]


@pytest.mark.parametrize("name", PLACES)
def test_the_page_has_each_command(name: str) -> None:
    if name not in ("chat", "demo"):
        assert f"`musignet {name}" in (ROOT / "docs" / "cli.md").read_text("utf-8")


def test_the_list_needs_none_of_our_modules_but_the_list() -> None:
    script = (
        "import sys; sys.argv = ['musignet', '--help']\n"
        "from musignet.app.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('musignet')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "Exit codes: 0 done" in done.stdout
    assert "_MUSIGNET_COMPLETE=bash_source" in done.stdout
    assert eval(done.stderr) == ["musignet", "musignet.app", "musignet.app.cli", "musignet.app.lazy"]


EXTRAS = (
    "aioice", "aioquic", "bdkpython", "bitcoin_core_rpc", "keyring", "miniupnpc", "nostr_sdk", "pbk",
    "prometheus_client", "python_socks", "segno", "starlette", "uvicorn", "websockets", "zeroconf",
)  # fmt: skip


def test_without_extras_each_says_what_it_is_and_a_node_says_what_to_install(tmp_path: Path) -> None:
    script = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from click.testing import CliRunner
from musignet.app.cli import main
def run(*args):
    done = CliRunner().invoke(main, args)
    return done.exit_code, done.output
for name in {list(PLACES)!r}:
    code, text = run(*name.split(), "--help")
    assert code == 0 and "Example: " in text, (name, text)
where = ("--data", {str(tmp_path / "a")!r})
assert run("init", *where, "--no-wallet", "--insecure-no-passphrase")[0] == 0
code, text = run("run", *where)
assert code == 1 and 'pip install "musignet[node]"' in text, text
assert run("stop", *where)[0] == 3
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_completion_knows_the_commands() -> None:
    environment = {"_MUSIGNET_COMPLETE": "bash_complete", "COMP_WORDS": "musignet sho", "COMP_CWORD": "1", "PATH": ""}
    code = "from musignet.app.cli import main; main(prog_name='musignet')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "plain,show\n"


NODE_COMMANDS = [
    ("status",), ("peers",), ("rename", "a", "b"), ("forget", "a"), ("sessions",), ("show", "ff"), ("approve", "ff"),
    ("reject", "ff"), ("cancel", "ff"), ("export", "ff"), ("watch",), ("watch", "ff"),
]  # fmt: skip


@pytest.mark.parametrize("args", NODE_COMMANDS, ids=" ".join)
def test_without_a_node_each_says_how_to_start_one(args: tuple[str, ...], tmp_path: Path) -> None:
    line = ["--data", str(tmp_path), *args[1:]]
    for step in ("make it: musignet init", "start it: musignet run"):
        with pytest.raises(Failure, match=f"no node is running on .*{step} --data {tmp_path}") as caught:
            command(args[0]).main(line, standalone_mode=False)
        assert caught.value.exit_code == Exit.NOT_RUNNING
        (tmp_path / CONFIG_FILE).touch()


def test_with_json_an_error_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command("status").main(["--data", str(tmp_path), "--json"], standalone_mode=False)
    assert caught.value.code == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err).keys() == {"error", "kind", "hint"}
    assert json.loads(err)["kind"] == "NotRunning"


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Timeout("too slow"), Exit.TIMEOUT, "Timeout"),
        (ApiError("too slow", "Timeout", 504), Exit.TIMEOUT, "Timeout"),
        (ApiError("no", "NotFound", 404), Exit.REFUSED, "NotFound"),
        (NotRunning("gone"), Exit.NOT_RUNNING, "NotRunning"),
        (Failure("no", hint="do that"), Exit.REFUSED, "Refused"),
    ],
)
def test_each_error_has_its_code(error: Exception, code: Exit, kind: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(Failure) as caught:
        Command("x", example="x", callback=fail).main([], standalone_mode=False)
    assert (caught.value.exit_code, caught.value.facts["kind"]) == (code, kind)


def test_ctrl_c_is_130() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        Command("x", example="x", callback=interrupt).main([], standalone_mode=False)
    assert caught.value.code == Exit.INTERRUPTED


@pytest.mark.parametrize(("cause", "code"), [(KeyboardInterrupt, Exit.INTERRUPTED), (EOFError, Exit.REFUSED)])
def test_a_prompt_ends_by_ctrl_c_or_for_want_of_a_person(cause: type[BaseException], code: Exit) -> None:
    def prompt() -> None:
        try:
            raise cause
        except cause:
            raise click.Abort from None  # as click does

    with pytest.raises((SystemExit, Failure)) as caught:
        Command("x", example="x", callback=prompt).main([], standalone_mode=False)
    assert getattr(caught.value, "code", None) == code or getattr(caught.value, "exit_code", None) == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_sigterm_and_a_closed_terminal_unwind_a_command(number: int, code: int) -> None:
    undone = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            undone.append(True)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught:
        Command("x", example="x", callback=work).main([], standalone_mode=False)
    assert (caught.value.code, undone) == (code, [True])
    assert signal.getsignal(number) is before


def test_nohup_is_heard() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        Command("x", example="x", callback=partial(signal.raise_signal, signal.SIGHUP)).main([], standalone_mode=False)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("init", ["--passphrase-fd", "-1"], "file descriptor -1 is not open"),
        ("init", ["--secret-fd", "9" * 30], "file descriptor 9{20} is not open"),
        ("run", ["--background", "--wallet-passphrase-fd", "777"], "file descriptor 777 is not open"),
        ("approve", ["ff", "--passphrase-fd", "x"], "file descriptor x is not open"),
        ("invite", ["--expires-in", "9" * 400], "such as 90, 10m or 24h"),
        ("invite", ["--expires-in", "9" * 5000], "such as 90, 10m or 24h"),
        ("invite", ["--expires-in", "-1"], "such as 90, 10m or 24h"),
    ],
)
def test_nonsense_is_wrong_usage(name: str, args: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match=sentence):
        command(name).main(["--data", str(tmp_path), *args], standalone_mode=False)


def test_what_is_shown_of_an_error_is_safe() -> None:
    assert re.fullmatch(r"[\x20-\x7e]*", Failure("a\x1b[2J\u202eb\n", hint="\u2028c").format_message())


# --- the client ---------------------------------------------------------------------------------------------------


def answering(folder: Path, answer: bytes) -> Path:
    """A socket at which one request gets these bytes, and then the end."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "s"))
    listening.listen(1)

    def serve() -> None:
        with listening, listening.accept()[0] as one:
            one.recv(65_536)
            one.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return folder / "s"


@pytest.mark.driver
@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (b"", NotRunning, "the node hung up"),
        (b"nonsense\r\n\r\n", NotRunning, "the node hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", NotRunning, "the node hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", NotRunning, "the node hung up"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n{", NotRunning, "the node hung up"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", ApiError, "answered with code 500"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]", ApiError, "answered with code 500"),
    ],
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes, kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        Client(answering(tmp_path, answer)).get("/v1/status")


def stream(line: bytes) -> bytes:
    """What a node answers to whoever listens, with one event and no end."""
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(line), line)


@pytest.mark.driver
def test_an_event_may_name_a_thousand_members(tmp_path: Path) -> None:
    event = {"event": "session", "waiting_for": ["\U0001d11e" * LABEL_MAX_CHARS] * 1000}
    line = b"data: %s\n\n" % json.dumps(event, ensure_ascii=False).encode()
    assert next(Client(answering(tmp_path, stream(line))).events()) == event


@pytest.mark.driver
def test_half_an_event_is_the_end(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="the node hung up"):
        list(Client(answering(tmp_path, stream(b'data: {"event": "pee'))).events())


@pytest.mark.driver
def test_a_node_that_is_silent_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(1)
        with pytest.raises(Timeout, match="did not answer in time"):
            Client(tmp_path / "s", 0.05).get("/v1/status")


def test_a_socket_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for place in (tmp_path / "s", tmp_path / ("x" * 200)):
        with pytest.raises((IoError, NotRunning)):
            Client(place).get("/v1/status")


def test_no_name_is_no_route() -> None:
    """`musignet forget ""` would otherwise ask for another route than it means, and be told that all is well."""
    for one in ("", " "):
        with pytest.raises(LocalError, match="a name is missing"):
            path("v1", "peers", one)


@pytest.mark.driver
def test_an_answer_that_sends_us_elsewhere_is_none(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v1/peers\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(ApiError, match="code 307"):
        Client(answering(tmp_path, answer)).delete("/v1/peers/")


def test_names_in_routes_are_quoted() -> None:
    assert path("v1", "peers", "a b/../c?d") == "/v1/peers/a%20b%2F..%2Fc%3Fd"


# --- groups -------------------------------------------------------------------------------------------------------


def test_a_mark_without_its_group_means_nothing_once_the_key_is_here(tmp_path: Path) -> None:
    """The mark is written first; a crash in between must not send the next import's PSBTs to another signer."""
    from musignet.app.groups import Groups

    folder = DataFolder.lock(tmp_path / "a")
    groups = Groups(folder)
    (tmp_path / "a" / "groups" / f"{SAVINGS.group.id.hex()}.elsewhere").touch(0o600)
    groups.add(SAVINGS)
    assert not groups.elsewhere(SAVINGS.group.id)
    assert not Groups(folder).elsewhere(SAVINGS.group.id)
    folder.close()


def test_groups_are_found_by_name_or_the_digits_of_their_id(tmp_path: Path) -> None:
    from musignet.app.groups import Groups

    folder = DataFolder.lock(tmp_path / "a")
    groups = Groups(folder)
    with pytest.raises(NotFound, match="there is none"):
        groups.find("savings")
    groups.add(SAVINGS)
    groups.add(SAVINGS)
    with pytest.raises(Exception, match="another group is called savings"):
        groups.add(OTHER)
    renamed = GroupFile("other", OTHER.group, OTHER.labels)
    groups.add(renamed)
    again = Groups(folder)
    assert sorted(one.name for one in again) == ["other", "savings"]
    assert again.find("savings").group.id == again.find(SAVINGS.group.id.hex()[:8]).group.id == SAVINGS.group.id
    assert again.get(OTHER.group.id).name == "other"
    (tmp_path / "a" / "groups").chmod(0o500)
    folder.close()


def test_a_group_file_under_another_name_is_not_read(tmp_path: Path) -> None:
    """THREATS.md Z2: a name decides nothing but what the content says."""
    from musignet.app.groups import Groups

    folder = DataFolder.lock(tmp_path / "a")
    Groups(folder).add(SAVINGS)
    (made,) = (tmp_path / "a" / "groups").iterdir()
    assert made.name == f"{SAVINGS.group.id.hex()}.json"
    made.rename(made.with_stem(OTHER.group.id.hex()))
    with pytest.raises(IoError, match="expected the name"):
        Groups(folder)
    folder.close()
