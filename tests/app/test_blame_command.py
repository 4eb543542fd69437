"""`musignet blame verify`: who is proved of what, in words and for programs, and exit codes for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from musignet.app.cli import main
from musignet.signing.blamefile import BlameFile
from musignet.signing.groupfile import GroupFile
from support.blame import RECORDS
from support.ceremony import identity, signing_group
from support.wallet import MEMBERS

BOB = identity("bob").pubkey_hex
LABELS = {identity(name).pubkey: name for name in MEMBERS}
GROUP = GroupFile("savings", signing_group(), LABELS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blame.json"
    path.write_bytes(BlameFile(GROUP, RECORDS["bad partial"]).encode())
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["blame", "verify", *map(str, arguments)])


@pytest.mark.parametrize("liar", RECORDS)
def test_it_says_who_is_proved_of_what(file: Path, liar: str) -> None:
    file.write_bytes(BlameFile(GROUP, RECORDS[liar]).encode())
    done = run(file)
    assert done.exit_code == 0
    assert done.output.startswith(f"proved: bob ({BOB[2:10]}) ")
    assert BOB in done.output
    assert "The names are those of whoever wrote the file" in done.output


def test_one_object_for_programs(file: Path) -> None:
    done = run(file, "--json")
    found = json.loads(done.stdout)
    assert (found["pubkey"], found["label"], found["kind"], found["proved"]) == (BOB, "bob", "bad-partial", True)
    assert (found["slot"], found["group"]) == (1, GROUP.group.id.hex())


def test_the_names_are_those_of_the_judges_own_group_file(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_bytes(GroupFile("ours", GROUP.group, {**LABELS, identity("bob").pubkey: "robert"}).encode())
    done = run(file, "--group", own)
    assert "proved: robert (" in done.output
    assert "whoever wrote the file" not in done.output


def test_what_proves_nothing_names_nobody(file: Path, tmp_path: Path) -> None:
    record = bytearray(RECORDS["bad partial"])
    record[-40] ^= 1
    file.write_bytes(BlameFile(GROUP, bytes(record)).encode())
    done = run(file)
    assert done.exit_code == 1
    assert "proves nothing" in done.stderr
    assert "nobody is proved to be at fault" in done.stderr
    assert BOB not in done.output


def test_another_group_is_refused_by_its_name(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(GroupFile("other", signing_group("each"), LABELS).encode())
    done = run(file, "--group", other)
    assert done.exit_code == 1
    assert "about another group" in done.stderr


@pytest.mark.parametrize("data", [b"", b"{}", GROUP.encode()], ids=["empty", "no keys", "a group file"])
def test_what_is_no_blame_file_is_wrong_usage(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    done = run(file)
    assert (done.exit_code, "not a blame file" in done.stderr) == (2, True)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path / "nothing.json", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stderr)["kind"] == "IoError"
