"""Beacons by mDNS: the same beacons, another way. The nodes here share no UDP port, so that there is no other."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from endpoints import Signal, aio

from musignet import limits
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.errors import LocalError, TransportError
from musignet.net.discovery import PeerDiscovery
from musignet.net.lan import interfaces
from musignet.node.peers import PeerInfo
from musignet.node.sightings import Unheard
from musignet.wire.beacon import Audience
from support.keys import ALICE, BOB

pytest.importorskip("zeroconf", reason="the extra mdns is not installed")
import zeroconf  # isort: skip
from musignet.app.daemon import _mdns  # isort: skip
from musignet.net.mdns import SERVICE, Mdns  # isort: skip

LOOPBACK = next((one.name for one in interfaces([name for _, name in socket.if_nameindex()]) if one.is_loopback), "")

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(not LOOPBACK, reason="no loopback interface with an address"),
]
PAIR = Audience.pair(ALICE, BOB.public)


class Seeker(Signal):
    def __init__(self, identity: Identity, label: str, port: int) -> None:
        super().__init__()
        self.found: list[PeerInfo] = []
        info = PeerInfo(id=label, host="127.0.0.1", port=port, pubkey_hex=identity.pubkey_hex)
        self.discovery = PeerDiscovery(
            info, 0, self._found, identity=identity, interfaces=(LOOPBACK,), mdns=Mdns, chain=Chain.REGTEST
        )
        self.discovery.listen([PAIR])

    def _found(self, info: PeerInfo) -> None:
        self.found.append(info)
        self.poke()


@asynccontextmanager
async def seekers() -> AsyncIterator[tuple[Seeker, Seeker]]:
    alice, bob = Seeker(ALICE, "alice", 40_001), Seeker(BOB, "bob", 40_002)
    for one in (alice, bob):
        await one.discovery.start()
    try:
        assert alice.discovery.port != bob.discovery.port
        yield alice, bob
    finally:
        for one in (alice, bob):
            await one.discovery.stop()
            await one.discovery.stop()


@aio
async def test_two_find_each_other_by_mdns_alone() -> None:
    async with seekers() as (alice, bob):
        for one in (alice, bob):
            await one.discovery.start_periodic_broadcast()
        await alice.until(lambda: bool(alice.found))
        await bob.until(lambda: bool(bob.found))
        assert (alice.found[0].host, alice.found[0].port) == ("127.0.0.1", 40_002)
        assert alice.discovery.seen()[0].ways == {"mDNS"}
        assert alice.discovery.problems == {}


@aio
async def test_a_listener_learns_neither_keys_nor_names_and_a_name_ends_with_the_hour() -> None:
    async with seekers() as (alice, _):
        mdns = alice.discovery._mdns
        assert mdns is not None
        await alice.discovery.broadcast_discovery()
        await asyncio.gather(*mdns._tasks)
        first = mdns._said
        assert first is not None
        text = b"".join((first.name.encode(), first.server.encode(), first.text))  # type: ignore[union-attr]
        for secret in (ALICE.pubkey, ALICE.pubkey[1:], b"alice", ALICE.pubkey_hex[:8].encode()):
            assert secret not in text
        mdns._said_at -= limits.BEACON_HOUR_S + 1
        await asyncio.gather(*mdns._tasks)
        await alice.discovery.broadcast_discovery()
        await asyncio.gather(*mdns._tasks)
        assert mdns._said is not None
        assert mdns._said.name != first.name


@aio
async def test_an_address_that_is_not_on_our_networks_is_not_dialled() -> None:
    """Somebody says that a captured beacon is at a victim's address. U1."""
    async with seekers() as (alice, bob):
        (datagram,) = list(bob.discovery._datagrams())
        mdns = alice.discovery._mdns
        assert mdns is not None
        for addresses in (["198.51.100.9"], ["198.51.100.9"] * 7 + ["127.0.0.1"]):
            mdns._take(mdns._service("x", [datagram], addresses, 9000))
        assert alice.discovery.sightings.unheard[Unheard.SOURCE] == 8
        assert [one.host for one in alice.found] == ["127.0.0.1"]
        assert alice.found[0].port == 40_002, "the port is in the beacon, signed"


@aio
async def test_a_flood_of_services_is_looked_at_a_few_at_a_time() -> None:
    async with seekers() as (alice, _):
        mdns = alice.discovery._mdns
        assert mdns is not None
        added = zeroconf.ServiceStateChange.Added
        for number in range(1000):
            name = f"{number}.{SERVICE}"
            mdns._changed(mdns._zeroconf.zeroconf, SERVICE, name, added)  # type: ignore[union-attr]
        assert len(mdns._looking) == len(mdns._tasks) == limits.MDNS_LOOKS_MAX
        mdns._changed(mdns._zeroconf.zeroconf, SERVICE, "gone", zeroconf.ServiceStateChange.Removed)  # type: ignore[union-attr]


def test_a_node_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _mdns() is Mdns
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    monkeypatch.delitem(sys.modules, "musignet.net.mdns")
    with pytest.raises(LocalError, match=r"musignet\[mdns\]"):
        _mdns()


@aio
async def test_what_cannot_be_had_is_said() -> None:
    heard: list[Any] = []
    mdns = Mdns(lambda *one: heard.append(one))
    mdns.say([b"x"], ["127.0.0.1"], 9000)
    assert not mdns._tasks, "it does not run"
    with pytest.raises(TransportError, match="no interface with an IPv4 address"):
        await mdns.start([])
    await mdns.stop()
