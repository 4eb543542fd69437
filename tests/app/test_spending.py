"""Three people spend together: node processes of their own, and nothing but the command line."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.nodes import GROUP, GROUP_FILE, RunningNode, cli, cli_json, make_data
from app.terminal import Terminal
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.transaction import TxOut
from support.wallet import MEMBERS, psbt, replace_tx, spend

pytestmark = pytest.mark.driver


class People:
    """The three with their running nodes."""

    def __init__(self, path: Path, passphrases: dict[str, str]) -> None:
        self.path, self.passphrases = path, passphrases
        self.nodes: dict[str, RunningNode] = {}
        (path / "rent.psbt").write_bytes(psbt().serialize())

    def data(self, name: str) -> Path:
        return self.path / name

    def start(self, stack: ExitStack) -> None:
        for name in MEMBERS:
            peers = [one.info for one in self.nodes.values()]
            passphrase = self.passphrases.get(name)
            make_data(self.data(name), name, groups=[GROUP_FILE], peers=peers, passphrase=passphrase)
            self.run(name, stack)

    def run(self, name: str, stack: ExitStack) -> RunningNode:
        node = stack.enter_context(RunningNode(self.data(name), name))
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


@pytest.mark.parametrize("people", [{"bob": "bob says yes"}], indirect=True)
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


def _until_asked(people: People, session: str, name: str = "bob") -> str:
    """Somebody's screen, once their keyholder asks them."""
    while "waits for YOU" not in (shown := cli(people.data(name), "sessions", "--open").stdout):
        assert people.nodes[name].process.poll() is None
    assert session[:8] in shown
    return shown


@pytest.mark.parametrize("people", [{"bob": "bob says yes"}], indirect=True)
def test_nothing_is_signed_without_the_proof_of_a_person(people: People, tmp_path: Path) -> None:
    session = people.propose()
    _until_asked(people, session)
    bob = people.data("bob")

    wrong = _approve(people, "bob", session, "bob says no", "--yes")
    assert (wrong.returncode, wrong.stdout.count("bcrt") > 0) == (1, True)
    assert "wrong passphrase" in wrong.stderr
    for args, sentence in (((), "not approved"), (("--json",), "nobody was asked")):
        unasked = _approve(people, "bob", session, "bob says yes", *args, input="n\n")
        assert unasked.returncode == 1
        assert sentence in unasked.stderr
    assert cli_json(bob, "status")["asked"] == [session], "nothing of this has reached the keyholder"

    with Terminal("approve", "--data", str(bob), session[:8]) as screen:
        screen.expect("0.00600000 BTC to ")
        screen.expect(r"Approve this transaction\? \[y/N\]")
        screen.type("y")
        screen.expect("Passphrase of the wallet")
        screen.type("bob says yes")
        screen.expect("approved")
        assert screen.exit_code() == 0
    people.watch("alice", session)
    again = _approve(people, "bob", session, "bob says yes", "--yes")
    assert again.returncode == 1
    assert "does not wait for you; completed" in again.stderr


@pytest.mark.parametrize("people", [{"alice": "1", "bob": "2", "carol": "3"}], indirect=True)
def test_coins_that_are_signed_for_are_given_up_by_a_persons_word_alone(people: People) -> None:
    """A transaction that never gets into a block must not keep them for ever."""
    first = people.propose()
    for name, passphrase in people.passphrases.items():
        _until_asked(people, first, name)
        assert _approve(people, name, first, passphrase, "--yes").returncode == 0
    people.watch("alice", first)
    second = people.propose()
    for name, passphrase in people.passphrases.items():
        _until_asked(people, second, name)
        assert f"Its coins are those of session {first[:8]}" in cli(people.data(name), "show", second).stdout
        refused = _approve(people, name, second, passphrase, "--yes")
        assert refused.returncode == 1
        assert f"--replace {first[:8]} gives it up" in refused.stderr
        done = _approve(people, name, second, passphrase, "--yes", "--replace", first[:8])
        assert done.returncode == 0, done.stderr
    assert "completed" in people.watch("alice", second)


@pytest.mark.parametrize("people", [{"alice": "1", "bob": "2", "carol": "3"}], indirect=True)
def test_a_fee_that_is_unusual_is_typed(people: People) -> None:
    tx, spent = spend(GROUP.wallet)
    cheap, change = tx.outputs
    dear = replace_tx(tx, outputs=(cheap, TxOut(change.amount_sat - 400_000, change.script)))
    (people.path / "rent.psbt").write_bytes(psbt(GROUP.wallet, dear, spent).serialize())
    session = people.propose()
    _until_asked(people, session)
    for fee in ((), ("--fee-sat", "2000")):
        done = _approve(people, "bob", session, "2", "--yes", *fee)
        assert done.returncode == 1
        assert "the fee is 402000 sat" in done.stderr
    for name, passphrase in people.passphrases.items():
        _until_asked(people, session, name)
        assert _approve(people, name, session, passphrase, "--yes", "--fee-sat", "402000").returncode == 0
    people.watch("carol", session)


def _approve(
    people: People, name: str, session: str, passphrase: str, *args: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    read, write = os.pipe()
    os.write(write, passphrase.encode() + b"\n")
    os.close(write)
    try:
        fd = str(read)
        return cli(people.data(name), "approve", session, "--passphrase-fd", fd, *args, pass_fds=(read,), **options)
    finally:
        os.close(read)


@pytest.mark.parametrize("people", [{"bob": "bob says yes"}], indirect=True)
def test_leaving_in_time_and_too_late(people: People) -> None:
    session = people.propose()
    done = cli(people.data("alice"), "cancel", session)
    assert (done.returncode, done.stdout) == (0, "cancelled: nothing of yours was signed\n")


BAD_PSBTS = [
    (b"not a psbt", "is no PSBT"),
    (b"psbt\xff\x00", "SerializationError"),
    (psbt().serialize()[:-40], "SerializationError"),
]


@pytest.mark.parametrize("people", [{"alice": "alice says yes"}], indirect=True)
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
