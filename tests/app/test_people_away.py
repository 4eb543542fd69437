"""Two new users behind two NATs, and one relay on the internet: what they type, and the path that their nodes find."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.nodes import RunningNode, cli_json
from app.people import approve, found, init, pair, propose, run, signed
from musignet.app.config import load, template
from musignet.limits import Limits
from support.netlab import INTERNET, INTERNET_TOO, Lab, reason_against

pytest.importorskip("aioquic", reason="needs the extra `nat`")
pytest.importorskip("nostr_sdk", reason="needs the extra `relay`")

RELAY = f"ws://{INTERNET}:7777"
SOON = Limits(ice_gather_s=1.5, backoff_max_s=2.0, reapprove_s=0.5)

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against()), reason=why or "a lab can be built"),
]


@contextmanager
def relay(lab: Lab, folder: Path) -> Iterator[None]:
    command = (sys.executable, "-m", "musignet", "relay", "--listen", f"{INTERNET}:7777", "--data", str(folder))
    with subprocess.Popen(lab.machine("pub").command(*command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "a relay at" in process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def person(folder: Path, name: str) -> Path:
    """Make a data folder with the command, and write into its file what docs/nat.md says."""
    init(folder, name, listen="")
    config = replace(
        load(folder), relays=(RELAY,), nat_punch=True, nat_stun=(f"{INTERNET}:3478", f"{INTERNET_TOO}:3478"),
        nat_turn=(f"{INTERNET}:3478",), nat_turn_username="u", nat_turn_password="p", limits=SOON,
        discovery_interfaces=(),
    )  # fmt: skip
    (folder / "config.toml").write_text(template(config))
    return folder


def until_path(node: RunningNode, path: str) -> None:
    deadline = time.monotonic() + 25
    while [one["path"] for one in cli_json(node.data, "peers")] != [path]:
        assert time.monotonic() < deadline, cli_json(node.data, "peers")


def test_they_pair_over_the_relay_find_the_direct_path_and_one_may_be_away_while_the_other_proposes(
    tmp_path: Path,
) -> None:
    folders = {name: person(tmp_path / name, name) for name in ("alice", "bob")}
    with Lab(("cone", "cone")) as lab, relay(lab, tmp_path / "relay"):
        lab.start_turn()
        with run(folders["alice"], lab.machine("A")) as alice:
            with run(folders["bob"], lab.machine("B")) as bob:
                for node in (alice, bob):
                    node.ready()
                pair(alice, bob)
                for node in (alice, bob):
                    until_path(node, "punched by ice")
                found(alice, bob)
                assert bob.stop() == 0
            session = propose(alice, tmp_path)
            assert approve(alice, session).returncode == 0
            with run(folders["bob"], lab.machine("B")) as again:
                again.ready()
                assert approve(again, session).returncode == 0
                signed(alice, session)
