"""Files and QR codes by commands alone: three nodes that have no address of each other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from app.nodes import GROUP_FILE, RunningNode, cli_json, make_data
from app.terminal import Terminal
from musignet.node.peers import PeerInfo
from support.ceremony import identity
from support.wallet import MEMBERS, psbt

pytestmark = pytest.mark.driver


@pytest.fixture
def people(tmp_path: Path) -> Iterator[Path]:
    """Three running nodes that know each other's keys, and nowhere to dial."""
    with ExitStack() as stack:
        for name in MEMBERS:
            others = [PeerInfo(id=one, pubkey_hex=identity(one).pubkey_hex) for one in MEMBERS if one != name]
            make_data(tmp_path / name, name, groups=[GROUP_FILE], peers=others)
            stack.enter_context(RunningNode(tmp_path / name, name)).ready()
        yield tmp_path


def run(data: Path, box: str, what: str, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "musignet", box, what, "--data", str(data), *args]
    return subprocess.run(command, capture_output=True, timeout=60, input=stdin)


def carry(folder: Path, sender: str, to: str) -> str:
    file = folder / f"{sender}-for-{to}"
    done = run(folder / sender, "outbox", "export", "--to", to, str(file))
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    done = run(folder / to, "inbox", "import", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_a_ceremony_by_files_alone(people: Path) -> None:
    (people / "rent.psbt").write_bytes(psbt().serialize())
    session = cli_json(people / "alice", "propose", "savings", str(people / "rent.psbt"))["id"]
    assert "transaction proposal" in carry(people, "alice", "bob")
    carry(people, "alice", "carol")
    for sender in ("bob", "carol", "alice") * 2:
        for to in MEMBERS:
            if to != sender:
                carry(people, sender, to)
    found = [cli_json(people / name, "export", session) for name in MEMBERS]
    assert len({one["tx"] for one in found}) == 1
    assert {one["state"] for name in MEMBERS for one in cli_json(people / name, "peers")} == {"disconnected"}


def test_qr_codes_with_frames_missing_repeated_and_foreign(people: Path) -> None:
    (people / "rent.psbt").write_bytes(psbt().serialize())
    session = cli_json(people / "alice", "propose", "savings", str(people / "rent.psbt"))["id"]
    made = run(people / "alice", "outbox", "export", "--to", "bob", "--ur", "80").stdout.splitlines()
    foreign = run(people / "carol", "outbox", "export", "--to", "bob", "--ur", "10").stdout.splitlines()
    assert len(made) == 80
    random = Random(7)
    seen = [one for one in made if random.random() < 0.6] * 2 + foreign[:3] + [b"WIFI:S:cafe;;", made[0][:-4]]
    random.shuffle(seen)
    few = run(people / "bob", "inbox", "import", "-", stdin=b"\n".join(made[:4]))
    assert (few.returncode, b"not complete: 4 of " in few.stderr) == (1, True)
    lines = b"\n".join(b"QR-Code:" + one.upper() for one in seen)
    done = run(people / "bob", "inbox", "import", "-", "--json", stdin=lines)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["peer"], found["messages"]["transaction_proposal"]) == ("alice", 1)
    assert [one["id"] for one in cli_json(people / "bob", "sessions")] == [session]


def test_what_is_refused_and_why(people: Path) -> None:
    (people / "garbage").write_bytes(bytes(1024))
    done = run(people / "bob", "inbox", "import", str(people / "garbage"))
    assert (done.returncode, b"not sealed to this node" in done.stderr) == (1, True)
    done = run(people / "bob", "inbox", "import", str(people / "nothing"))
    assert (done.returncode, b"No such file" in done.stderr) == (1, True)
    for_carol = run(people / "alice", "outbox", "export", "--to", "carol", "-").stdout
    done = run(people / "bob", "inbox", "import", "-", stdin=for_carol)
    assert (done.returncode, b"not sealed to this node" in done.stderr) == (1, True)
    assert run(people / "carol", "inbox", "import", "-", stdin=for_carol).returncode == 0
    done = run(people / "alice", "outbox", "export", "--to", "mallory", "-")
    assert (done.returncode, b"mallory" in done.stderr) == (1, True)
    for wrong in ([], ["x", "--qr"], ["--ur", "3", "--qr"]):
        assert run(people / "alice", "outbox", "export", "--to", "bob", *wrong).returncode == 2
    done = run(people / "alice", "outbox", "export", "--to", "bob", "--qr")
    assert (done.returncode, b"no terminal" in done.stderr) == (1, True)


def test_codes_are_shown_one_after_the_other_until_somebody_stops_it(people: Path) -> None:
    pytest.importorskip("segno")
    with Terminal("outbox", "export", "--to", "bob", "--qr", "--data", str(people / "alice")) as screen:
        screen.expect(r"0 messages for bob, 0 acknowledged\. Frame 1;")
        screen.expect(r"Frame 3;")
        screen.interrupt()
        assert screen.exit_code() == 0
