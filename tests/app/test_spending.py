"""Three people spend together: node processes of their own, and nothing but the command line."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.nodes import GROUP_FILE, RunningNode, cli, cli_json, make_data
from musignet.bitcoin.psbt import Psbt
from support.wallet import MEMBERS, psbt

pytestmark = pytest.mark.driver


class People:
    """The three with their running nodes."""

    def __init__(self, path: Path, policies: dict[str, str]) -> None:
        self.path, self.policies = path, policies
        self.nodes: dict[str, RunningNode] = {}
        (path / "rent.psbt").write_bytes(psbt().serialize())

    def data(self, name: str) -> Path:
        return self.path / name

    def start(self, stack: ExitStack) -> None:
        for name in MEMBERS:
            peers = [one.info for one in self.nodes.values()]
            make_data(self.data(name), name, groups=[GROUP_FILE], peers=peers)
            self.run(name, stack)

    def run(self, name: str, stack: ExitStack) -> RunningNode:
        node = stack.enter_context(RunningNode(self.data(name), name, self.policies.get(name, "yes")))
        node.ready()
        self.nodes[name] = node
        return node

    def propose(self, name: str = "alice", *args: str) -> str:
        found = cli_json(self.data(name), "propose", "savings", str(self.path / "rent.psbt"), *args)
        return str(found["id"])

    def watch(self, name: str, session: str, code: int = 0) -> str:
        done = cli(self.data(name), "watch", session, "--timeout", "30")
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def people(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[People]:
    with ExitStack() as stack:
        found = People(tmp_path, getattr(request, "param", {}))
        found.start(stack)
        yield found


def test_a_psbt_becomes_a_transaction_that_can_still_be_had_after_a_restart(people: People) -> None:
    session = people.propose()
    assert "completed" in people.watch("bob", session[:8])
    raw = {cli(people.data(name), "export", session[:6], "--tx").stdout.strip() for name in MEMBERS}
    assert len(raw) == 1
    (tx,) = raw
    assert re.fullmatch("[0-9a-f]{300,}", tx)
    signed = Psbt.parse_untrusted(base64.b64decode(cli(people.data("carol"), "export", session, "--psbt").stdout))
    assert all(one.get(0x13) for one in signed.inputs)

    for number in (15, 2):  # SIGTERM, SIGINT
        assert people.nodes["carol"].stop(number) == 0
        assert "stopped" in people.nodes["carol"].seen
        with ExitStack() as stack:
            people.run("carol", stack)
            again = cli_json(people.data("carol"), "export", session)
            assert again["tx"] == tx
            assert cli_json(people.data("carol"), "show", session)["txid"] == again["txid"]
            (listed,) = cli_json(people.data("carol"), "sessions")
            assert (listed["state"], listed["ended"], listed["proposer"]) == ("completed", True, "alice")
            assert cli_json(people.data("carol"), "sessions", "--open") == []
            people.nodes["carol"].stop()


def test_who_is_waited_for_is_named(people: People) -> None:
    assert people.nodes["carol"].stop() == 0
    session = people.propose("alice", "--memo", "rent\u202e\x1b[31m")
    shown = cli(people.data("alice"), "show", session[:8]).stdout
    assert "waits for" in shown
    assert "carol" in shown
    assert "0.00600000 BTC to " in shown
    assert "change 1/3: bcrt" in shown
    assert re.search(r"to bcrt( ?\S{4}){8,}", shown), "an address is in groups of four"
    assert r'"rent\u202e\x1b[31m"' in shown
    assert shown.isascii()
    assert re.search(r"waits for (bob, )?carol", cli(people.data("alice"), "sessions").stdout)
    done = cli(people.data("bob"), "watch", session, "--timeout", "0.3")
    assert done.returncode == 4
    with ExitStack() as stack:
        people.run("carol", stack)
        people.watch("alice", session)


@pytest.mark.parametrize("people", [{"bob": "ask"}], indirect=True)
def test_a_person_says_no_and_everybody_hears_why(people: People) -> None:
    session = people.propose()
    assert "waits for YOU: musignet approve" in _until_asked(people, session)
    assert cli_json(people.data("bob"), "status")["asked"] == [session]
    done = cli(people.data("bob"), "reject", session, "--reason", "who is this?")
    assert (done.returncode, done.stdout) == (0, "rejected: nothing of yours was signed\n")
    assert "who is this?" in people.watch("alice", session, 1)
    late = cli(people.data("bob"), "cancel", session)
    assert late.returncode == 1
    assert "this session has ended" in late.stderr
    none = cli(people.data("bob"), "export", session)
    assert none.returncode == 1
    assert "no finished transaction" in none.stderr


def _until_asked(people: People, session: str) -> str:
    """Bob's screen, once the proposal has come to him: his own events say when."""
    while True:
        shown = cli(people.data("bob"), "sessions").stdout
        if session[:8] in shown:
            return shown


@pytest.mark.parametrize("people", [{"bob": "ask"}], indirect=True)
def test_leaving_in_time_and_too_late(people: People) -> None:
    session = people.propose()
    done = cli(people.data("alice"), "cancel", session)
    assert (done.returncode, done.stdout) == (0, "cancelled: nothing of yours was signed\n")


BAD_PSBTS = [
    (b"not a psbt", "is no PSBT"),
    (b"psbt\xff\x00", "SerializationError"),
    (psbt().serialize()[:-40], "SerializationError"),
]


@pytest.mark.parametrize("people", [{"alice": "ask"}], indirect=True)
def test_what_cannot_be_proposed_is_refused_in_a_sentence(people: People, tmp_path: Path) -> None:
    for data, sentence in BAD_PSBTS:
        (tmp_path / "bad").write_bytes(data)
        done = cli(people.data("alice"), "propose", "savings", str(tmp_path / "bad"), "--json")
        assert done.returncode == 1, done.stdout
        assert sentence in done.stderr or "rule X" in done.stderr, done.stderr
        assert json.loads(done.stderr)["error"]
        assert "Traceback" not in done.stderr
    for args, sentence in (
        (("propose", "rent-a-car", str(tmp_path / "rent.psbt")), "there is savings"),
        (("propose", "savings", str(tmp_path / "nowhere")), "No such file"),
        (("show", "ffff"), "no session 'ffff'"),
        (("export", "ffff"), "no session"),
        (("forget", "bob"), "is a cosigner of savings"),
    ):
        done = cli(people.data("alice"), *args)
        assert done.returncode == 1
        assert sentence in done.stderr
