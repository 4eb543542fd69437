"""Two people whose nodes listen nowhere: they pair by an invite and sign over a relay that a third one keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.nodes import RunningNode, cli_json, make_data
from app.people import at, pair, until
from app.terminal import Terminal
from musignet.node.peers import PeerInfo
from musignet.wire.invite import Invite
from support.ceremony import identity

pytestmark = pytest.mark.driver


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[str]:
    with Terminal("relay", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "relay")) as keeper:
        yield keeper.expect(r"a relay at (ws://127\.0\.0\.1:\d+)").group(1)
        keeper.interrupt()
        keeper.expect("stopped")


def test_two_people_behind_routers_pair_over_a_relay(tmp_path: Path, relay: str) -> None:
    folders = [make_data(tmp_path / name, name, listen_host="", relays=(relay,)) for name in ("alice", "bob")]
    with RunningNode(folders[0], "alice") as alice, RunningNode(folders[1], "bob") as bob:
        for node in (alice, bob):
            node.expect("not listening")
        with at(alice, "invite", "--no-qr") as host:
            assert Invite.parse_untrusted(host.expect(r"(musig1[a-z0-9]{80,})").group(1)).addresses == (relay,)
            host.interrupt()
        pair(alice, bob)
        for node, other in ((alice, "bob"), (bob, "alice")):
            (one,) = cli_json(node.data, "peers")
            assert (one["label"], one["key"]) == (other, identity(other).pubkey_hex)
            assert one["addresses"] == [relay], "each keeps where the other has its inbox"
            assert (one["state"], one["path"]) == ("connected", "relayed by ws")
        assert bob.stop() == 0
        with RunningNode(folders[1], "bob") as again:
            again.expect("waits for alice")
            for _ in range(100):
                (one,) = cli_json(again.data, "peers")
                if one["state"] == "connected":
                    break
            assert one["path"] == "relayed by ws"


def test_what_failed_before_the_relay_answered_is_what_keeps_from_the_direct_path(tmp_path: Path, relay: str) -> None:
    infos = {
        name: PeerInfo(id=name, addresses=(relay, "127.0.0.1:9"), pubkey_hex=identity(name).pubkey_hex)
        for name in ("alice", "bob")
    }
    quiet = {"listen_host": "", "relays": (relay,)}
    alices = make_data(tmp_path / "alice", "alice", peers=[infos["bob"]], **quiet)
    bobs = make_data(tmp_path / "bob", "bob", peers=[infos["alice"]], auto_connect=False, **quiet)
    with RunningNode(bobs, "bob") as bob, RunningNode(alices, "alice") as alice:
        for node in (bob, alice):
            node.expect("not listening")
        until(lambda: cli_json(alices, "peers")[0]["path"] == "relayed by ws")
        better = cli_json(alices, "peers")[0]["better"]
        assert re.fullmatch(
            r"127\.0\.0\.1:9: cannot reach 127\.0\.0\.1:9: .*refused.*; tried again in [23]\d s", better
        )
        assert cli_json(bobs, "peers")[0]["better"].endswith("not tried from here: this node does not dial it")
