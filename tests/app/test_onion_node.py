"""Nodes that are reached through Tor alone: published, invited to, paired with, found again, and gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from app.nodes import RunningNode, cli_json, make_data
from app.terminal import Terminal
from musignet.crypto.onionkey import OnionKey
from musignet.wire.invite import Invite
from musignet.wire.onion import onion_host
from support.ceremony import identity
from support.socks import FakeTor
from support.tor_control import FakeControl

pytestmark = pytest.mark.driver

ALICES = f"{onion_host(OnionKey.of(identity('alice')).public)}:8737"
INVITE = r"(musig1[a-z0-9]{80,})"
WORDS = r"\n +((?:[a-z]+ ){5}[a-z]+)\n"
WAIT_S = 30.0


class _Published(Mapping[str, int]):
    """What the control port has published, as the SOCKS port finds it."""

    def __init__(self, control: FakeControl) -> None:
        self._services = control.services

    def __getitem__(self, host: str) -> int:
        return int(self._services[host.removesuffix(".onion")].rpartition(":")[2])

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)


class Tor:
    """Both ports of a Tor that is a whole network of its own, on a thread."""

    def __init__(self, path: Path) -> None:
        self.control = FakeControl(path)
        self.socks = FakeTor(_Published(self.control))

    def settings(self, service: str) -> dict[str, object]:
        return {
            "only_tor": True,
            "proxy_socks5": f"127.0.0.1:{self.socks.port}",
            "onion_service": service,
            "onion_control": self.control.place,
        }


@contextmanager
def network(path: Path) -> Iterator[Tor]:
    tor = Tor(path / "control.authcookie")
    loop, up = asyncio.new_event_loop(), threading.Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(tor.control.running())
            await stack.enter_async_context(tor.socks.running())
            up.set()
            await done.wait()

    done = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert up.wait(WAIT_S)
    try:
        yield tor
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(WAIT_S)
        loop.close()


def test_two_people_meet_through_tor_and_nowhere_else(tmp_path: Path) -> None:
    with network(tmp_path) as tor:
        alice = make_data(tmp_path / "alice", "alice", **tor.settings("kept"))
        bob = make_data(tmp_path / "bob", "bob", **tor.settings("fresh"))
        with RunningNode(alice, "alice") as first, RunningNode(bob, "bob") as second:
            assert f"onion service {ALICES}" in first.ready()
            second.ready()
            (fresh,) = cli_json(bob, "status")["onions"]
            assert sorted(tor.control.services) == sorted(one.removesuffix(".onion:8737") for one in (ALICES, fresh))

            with Terminal("invite", "--data", str(alice)) as host:
                invite = host.expect(INVITE).group(1)
                assert Invite.parse_untrusted(invite).addresses == (ALICES,)
                assert "this machine only" not in host.seen
                with Terminal("join", "--data", str(bob), invite) as guest:
                    words = guest.expect(WORDS).group(1)
                    assert host.expect(WORDS).group(1) == words
                    for screen in (host, guest):
                        screen.type("yes")
                    for screen in (host, guest):
                        assert screen.exit_code() == 0
            (known,) = cli_json(alice, "peers")
            assert f"{known['host']}:{known['port']}" == fresh, "bob said where he is reached"
            assert first.stop() == 0
            assert list(tor.control.services) == [fresh.removesuffix(".onion:8737")], "taken back at the stop"
            assert second.stop() == 0
        assert tor.control.services == {}
        assert {one.host for one in tor.socks.asked} <= {ALICES.partition(":")[0], fresh.partition(":")[0]}


def test_a_kept_address_is_the_same_after_a_restart_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    with network(tmp_path) as tor:
        for service, distinct in (("kept", 1), ("fresh", 2)):
            data = make_data(tmp_path / service, "alice", **tor.settings(service))
            seen = set()
            for _ in range(2):
                with RunningNode(data, "alice") as node:
                    seen.add(node.expect(r"onion service (\S+\.onion:8737)").group(1))
                    assert node.stop() == 0
            assert len(seen) == distinct
            assert (ALICES in seen) is (service == "kept")


def test_without_tor_it_does_not_start(tmp_path: Path) -> None:
    with network(tmp_path) as tor:
        settings = tor.settings("kept")
    with RunningNode(make_data(tmp_path / "data", "alice", **settings), "alice") as node:
        node.expect(r"Error: no Tor at 127.0.0.1:\d+: got .*; is Tor running, with .ControlPort 9051.")
        assert node.process.wait(WAIT_S) == 1


def test_a_node_that_does_not_listen_has_no_service(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", "alice", listen_host="", onion_service="kept")
    with RunningNode(data, "alice") as node:
        node.expect("Error: an onion service that leads nowhere; set host")
        assert node.process.wait(WAIT_S) == 1
