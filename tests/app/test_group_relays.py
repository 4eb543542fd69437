"""A group's relays: members who have no other address meet there, and nobody's node goes where another one says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.nodes import GROUP, GROUP_FILE, RunningNode, cli, cli_json, make_data
from app.people import at, group, group_json
from app.terminal import Terminal
from musignet.app import config
from musignet.app.daemon import Daemon
from musignet.app.grouprelays import relay_list
from musignet.app.keys import KeysHere
from musignet.errors import InvalidMessage
from musignet.limits import GROUP_RELAYS_MAX
from musignet.net.folder import DataFolder
from musignet.node.peers import PeerState
from musignet.wire.envelope import Message
from musignet.wire.invite import Invite
from musignet.wire.messages import GroupRelays, MessageType
from net.endpoints import soon
from support.ceremony import account, identity
from support.hostile_relay import Behaviour, HostileRelay

pytestmark = pytest.mark.driver


@asynccontextmanager
async def member(folder: Path, name: str, **settings: object) -> AsyncIterator[Daemon]:
    """A member's node, which knows no address of anybody, and listens nowhere."""
    path = folder / name
    if not path.exists():
        make_data(path, name, groups=[GROUP_FILE], listen_host="", **settings)
    locked = DataFolder.lock(path)
    daemon = Daemon(locked, config.load(path), identity(name), KeysHere({GROUP.id: account(name, GROUP)}))
    try:
        await daemon.start()
        yield daemon
    finally:
        await daemon.stop()
        locked.close()


def connected(daemon: Daemon, name: str) -> bool:
    return daemon.network.peer_state(identity(name).pubkey_hex) is PeerState.CONNECTED


def told(daemon: Daemon) -> dict[str, tuple[str, ...]]:
    return {daemon.label_of(key): relays for key, relays in daemon.group_relays.told(GROUP.id).items()}


def test_members_without_an_address_meet_at_the_relays_of_their_group(tmp_path: Path) -> None:
    async def main() -> None:
        async with HostileRelay(Behaviour()).running() as relay:
            async with member(tmp_path, "alice") as alice, member(tmp_path, "bob") as bob:
                for one in (alice, bob):
                    one.group_relays.set(GROUP_FILE, (relay.url,))
                await soon(lambda: connected(alice, "bob") and connected(bob, "alice"))
                assert alice.network.peer("bob").info.addresses == (relay.url,)
            async with member(tmp_path, "alice") as alice, member(tmp_path, "bob") as bob:
                await soon(lambda: connected(alice, "bob") and connected(bob, "alice"))

    asyncio.run(main())


def test_what_another_member_tells_is_shown_and_nobody_goes_there_until_a_person_takes_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with HostileRelay(Behaviour()).running() as relay, HostileRelay(Behaviour()).running() as other:
            async with member(tmp_path, "alice") as alice, member(tmp_path, "bob", relays=(relay.url,)) as bob:
                alice.group_relays.set(GROUP_FILE, (relay.url,))
                await soon(lambda: connected(bob, "alice"))
                await soon(lambda: told(bob) == {"alice": (relay.url,)})
                assert bob.group_relays.of(GROUP.id) == ()
                before = other.count
                alice.group_relays.set(GROUP_FILE, (relay.url, other.url))
                await soon(lambda: told(bob) == {"alice": (relay.url, other.url)})
                await soon(lambda: other.clients)
                assert other.count == before + 1, "alice reads there; bob does not"
                assert bob.relays == (relay.url,)
                bob.group_relays.set(GROUP_FILE, (relay.url, other.url))
                assert told(bob) == {}
                await soon(lambda: told(alice) == {} and len(other.clients) == 2)

    asyncio.run(main())


def test_who_is_no_member_or_tells_what_cannot_be_is_not_heard(tmp_path: Path) -> None:
    said = [
        GroupRelays(GROUP.id, ("wss://good.example",)),
        GroupRelays(bytes(32), ("wss://other.example",)),
        GroupRelays(GROUP.id, ("http://not.a.relay",)),
        GroupRelays(GROUP.id, ("ice:",)),
    ]

    async def main() -> None:
        async with HostileRelay(Behaviour()).running() as relay:
            relays = (relay.url,)
            async with member(tmp_path, "alice", relays=relays) as alice, member(tmp_path, "bob", relays=relays) as bob:
                alice.group_relays.set(GROUP_FILE, relays)
                await soon(lambda: connected(bob, "alice"))
                for record in reversed(said):
                    await alice.network.send_message_to("bob", Message(MessageType.GROUP_RELAYS, "alice", record))
                await soon(lambda: told(bob) == {"alice": ("wss://good.example",)})
                stranger = bob.network.peer("alice")
                bob.groups._groups.clear()
                bob.group_relays._heard(Message(MessageType.GROUP_RELAYS, "alice", said[0]), stranger)
                assert list(bob.group_relays._told) == [GROUP.id]

    asyncio.run(main())


LISTS = {
    "none": ([], ()),
    "each once": (["wss://a.example", "ws://b.example", "wss://a.example"], ("wss://a.example", "ws://b.example")),
}


@pytest.mark.parametrize(("texts", "relays"), LISTS.values(), ids=LISTS.keys())
def test_a_list_of_relays(texts: list[str], relays: tuple[str, ...]) -> None:
    assert relay_list(texts) == relays


@pytest.mark.parametrize(
    "texts", [["http://a.example"], ["a.example:1"], [""], [f"wss://{n}.example" for n in range(GROUP_RELAYS_MAX + 1)]]
)
def test_what_is_no_list_of_relays(texts: list[str]) -> None:
    with pytest.raises(InvalidMessage, match="relay"):
        relay_list(texts)


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    path = make_data(tmp_path / "alice", "alice", groups=[GROUP_FILE])
    (path / "groups" / f"{GROUP.id.hex()}.relays").write_text('{"musignet_relays": 1, "relays": ["ftp://x"]}')
    with RunningNode(path, "alice") as node:
        node.expect(r"Error: damaged .*\.relays.*set the relays again")
        assert node.process.wait() == 1


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[str]:
    with Terminal("relay", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "relay")) as keeper:
        yield keeper.expect(r"a relay at (ws://127\.0\.0\.1:\d+)").group(1)


def test_the_command_sets_shows_and_takes_and_invites_carry_them(tmp_path: Path, relay: str) -> None:
    folders = [make_data(tmp_path / name, name, groups=[GROUP_FILE], listen_host="") for name in ("alice", "bob")]
    with RunningNode(folders[0], "alice") as alice, RunningNode(folders[1], "bob") as bob:
        for node in (alice, bob):
            node.expect("not listening")
            assert "no relays of savings" in group(node, "relays", "savings").stdout
            assert group_json(node, "relays", "savings", relay)["relays"] == [relay]
        for _ in range(200):
            found = next(one for one in cli_json(bob.data, "peers") if one["label"] == "alice")
            if found["state"] == "connected":
                break
        assert (found["addresses"], found["path"]) == ([relay], "relayed by ws")
        assert f"ok       relay: {relay} passes on what is said" in cli(bob.data, "doctor").stdout
        with at(alice, "invite", "--no-qr") as host:
            assert Invite.parse_untrusted(host.expect(r"(musig1[a-z0-9]{80,})").group(1)).addresses == (relay,)
            host.interrupt()
        group_json(alice, "relays", "savings", relay, "wss://two.example")
        for _ in range(200):
            found = group_json(bob, "relays", "savings")
            if found["relays_told"]:
                break
        assert (found["relays"], found["relays_told"]) == ([relay], {"alice": [relay, "wss://two.example"]})
        assert "take it: musignet group relays savings --as alice" in group(bob, "relays", "savings").stdout
        assert group_json(bob, "relays", "savings", "--as", "alice")["relays"] == [relay, "wss://two.example"]
        refused = group(bob, "relays", "savings", "--as", "alice")
        assert refused.returncode == 1
        assert "alice has told no other relays" in refused.stderr
        assert group_json(bob, "relays", "savings", "--none")["relays"] == []
