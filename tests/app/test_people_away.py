"""Two new users behind two NATs, one relay on the internet, and a chain: what they type, and what goes by itself."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.nodes import RunningNode, cli, cli_json
from app.people import approve, found, group_json, init, pair, run, signed, staying, until
from musignet.app.config import load, template
from musignet.app.places import KEYHOLDER_FOLDER
from musignet.limits import Limits
from support.netlab import INTERNET, INTERNET_TOO, Lab, reason_against

pytest.importorskip("aioquic", reason="needs the extra `nat`")
pytest.importorskip("nostr_sdk", reason="needs the extra `relay`")
pytest.importorskip("pbk", reason="the chain needs Bitcoin Core's kernel")
pytest.importorskip("bdkpython", reason="its client has no wheel for this Python")

RELAY = f"ws://{INTERNET}:7777"
SOON = Limits(ice_gather_s=1.5, backoff_max_s=2.0, reapprove_s=0.5)
SOMEBODY = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
POLICY = 'mode = "auto"\nmax_amount_per_day_sat = 500_000\n'

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against()), reason=why or "a lab can be built"),
]


def person(folder: Path, name: str, **settings: Any) -> Path:
    """Make a data folder with the command, and write into its file what docs/nat.md says."""
    init(folder, name, listen="")
    config = replace(
        load(folder), relays=(RELAY,), nat_punch=True, nat_stun=(f"{INTERNET}:3478", f"{INTERNET_TOO}:3478"),
        nat_turn=(f"{INTERNET}:3478",), nat_turn_username="u", nat_turn_password="p", limits=SOON,
        discovery_interfaces=(), **settings,
    )  # fmt: skip
    (folder / "config.toml").write_text(template(config))
    return folder


def until_direct(*nodes: RunningNode) -> None:
    """Wait until each reaches the other through the hole: seconds, and not the minute after which one looks again."""
    deadline = time.monotonic() + 15
    for node in nodes:
        while [one["path"] for one in cli_json(node.data, "peers")] != ["punched by ice"]:
            assert time.monotonic() < deadline, cli_json(node.data, "peers")


def confirmed(node: RunningNode, session: str) -> bool:
    """Return whether the change of a session's transaction is in a block that Bitcoin Core's kernel took."""
    txid = cli_json(node.data, "export", session)["txid"]
    coins = group_json(node, "sync", "savings")["coins"]
    return any(one["outpoint"].startswith(txid) and one["confirmations"] for one in coins)


def test_they_pair_over_the_relay_sign_through_the_hole_and_what_one_missed_is_confirmed_when_it_is_back(
    tmp_path: Path,
) -> None:
    with (
        Lab(("cone", "cone")) as lab,
        staying(lab.machine("pub"), "relay", "--listen", f"{INTERNET}:7777", "--data", str(tmp_path / "relay")) as (
            relay,
            up,
        ),
        staying(lab.machine("A"), "regtest", "--esplora", "127.0.0.1:0") as (_, chain),
    ):
        assert "a relay at" in up
        lab.start_turn()
        url = chain.split()[4].rstrip(";")
        data = person(tmp_path / "alice", "alice", chain_backend=f"esplora+{url}", chain_broadcast=True)
        bobs = person(tmp_path / "bob", "bob")  # who has no chain
        with run(data, lab.machine("A")) as alice:
            with run(bobs, lab.machine("B")) as bob:
                for node in (alice, bob):
                    node.ready()
                pair(alice, bob)
                until_direct(alice, bob)
                found(alice, bob)
                address = group_json(alice, "address", "savings", "--next")["address"]
                fund = (sys.executable, "-m", "musignet", "regtest", "fund", address, "1000000sat", "--url", url)
                lab.machine("A").run(*fund)

                relay.send_signal(signal.SIGSTOP)  # whatever passes now goes from one to the other
                session = group_json(alice, "send", "savings", SOMEBODY, "200000sat", "--fee-rate", "2")["id"]
                for node in (alice, bob):
                    assert approve(node, session).returncode == 0
                signed(alice, session)
                until_direct(alice, bob)
                relay.send_signal(signal.SIGCONT)
                until(lambda: confirmed(alice, session))

                (policy,) = (bobs / KEYHOLDER_FOLDER / "policy").glob("*.toml")
                policy.write_text(POLICY)
                assert bob.stop() == 0
            session = group_json(alice, "send", "savings", SOMEBODY, "100000sat", "--fee-rate", "2")["id"]
            assert approve(alice, session).returncode == 0
            with run(bobs, lab.machine("B")) as again:
                again.ready()  # and nobody touches a key from here on
                until_direct(alice, again)
                assert cli(data, "watch", session, "--timeout", "30").returncode == 0
                until(lambda: confirmed(alice, session))
