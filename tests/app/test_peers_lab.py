"""`musignet peers` through real routers: by which path a peer is reached, and what keeps from a better one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.nodes import RunningNode, cli, cli_json, make_data
from app.people import staying, until
from musignet.limits import Limits
from musignet.node.peers import PeerInfo
from support.ceremony import identity
from support.netlab import INTERNET, Lab, reason_against

pytest.importorskip("nostr_sdk", reason="needs the extra `relay`")

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against()), reason=why or "a lab can be built"),
]

RELAY = f"ws://{INTERNET}:7777"
FORWARDED = f"{Lab.outside('B')}:8737"
SOON = Limits(
    dial_timeout_s=1.0, better_path_min_s=0.5, better_path_max_s=0.5, ice_offers_pause_s=0.1, ice_gather_s=0.1
)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(("cone", "cone")) as made:
        listen = ("relay", "--listen", f"{INTERNET}:7777", "--data", str(tmp_path / "relay"))
        with staying(made.machine("pub"), *listen):
            yield made


def person(folder: Path, name: str, other: str, *addresses: str, **settings: Any) -> Path:
    info = PeerInfo(id=other, addresses=addresses, pubkey_hex=identity(other).pubkey_hex)
    return make_data(folder / name, name, peers=[info], relays=(RELAY,), limits=SOON, **settings)


def shown(node: RunningNode, true: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until what a node says of its peer is so."""

    def look() -> bool:
        (one,) = cli_json(node.data, "peers")
        return true(one)

    until(look, 20)


def test_a_relay_until_the_router_forwards_the_port_and_then_the_direct_path(lab: Lab, tmp_path: Path) -> None:
    alices = person(tmp_path, "alice", "bob", RELAY, FORWARDED, listen_host="")
    bobs = person(tmp_path, "bob", "alice", RELAY, listen_host="0.0.0.0", listen_port=8737)
    with RunningNode(alices, "alice", machine=lab.machine("A")) as alice:
        alice.ready()
        with RunningNode(bobs, "bob", machine=lab.machine("B")) as bob:
            bob.ready()
            shown(alice, lambda one: one["path"] == "relayed by ws" and one["state"] == "connected")
            shown(alice, lambda one: one["better"].startswith(f"{FORWARDED}: {FORWARDED} did not answer within 1 s"))
            verbose = cli(alice.data, "peers", "--verbose").stdout
            assert f"    reached relayed by ws at {RELAY}\n    better: {FORWARDED}: " in verbose
            shown(bob, lambda one: (one["path"], one["better"]) == ("relayed by ws", ""))

            lab.forward("B", 8737)
            shown(alice, lambda one: one["path"] == "direct by tcp" and one["better"] == "")
            shown(bob, lambda one: one["path"] == "direct by tcp" and one["at"].startswith(Lab.outside("A")))
            assert bob.stop() == 0
        shown(alice, lambda one: (one["path"], one["better"], one["left_at"]) == ("", "", f"at {RELAY}"))
        assert f"    away: what it is told is left at {RELAY}\n" in cli(alice.data, "peers", "--verbose").stdout
