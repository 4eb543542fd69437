"""Whole nodes that reach each other by a relay at first: offers go over it, and the punched link takes its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aioice", reason="needs the extra `nat`")
pytest.importorskip("aioquic", reason="needs the extra `nat`")

from endpoints import Signal, aio

from musignet.crypto.keys import Identity
from musignet.limits import Limits
from musignet.net.nat import Servers
from musignet.net.peer import Peer
from musignet.net.service import NetworkService
from musignet.net.transport import MemoryNetwork, MemoryTransport, Transport
from musignet.net.transport.base import Sink
from musignet.net.transport.punched import punching
from musignet.node.addresses import Rank
from musignet.node.effects import PeerUp
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.keys import ALICE, BOB

LIMITS = Limits(first_hole_s=0.1, better_path_min_s=0.1, ice_gather_s=0.5, ice_checks_s=2.0, ice_offers_pause_s=0.1)


class _Relay(MemoryTransport):
    """Links that count as a relay's."""

    carrier = "ws"


class Node(Signal):
    """A service that has a relay, and punches holes where `punches`."""

    def __init__(self, label: str, identity: Identity, network: MemoryNetwork, *, punches: bool) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.news: list[object] = []

        def relay(identity: Identity, sink: Sink, *, limits: Limits) -> Mapping[str, Transport]:
            return {"ws": _Relay(identity, sink, label, 1, network=network, limits=limits)}

        carriers: list[Any] = [relay]
        if punches:
            carriers.append(punching(Servers(), interfaces=("127.0.0.1/8",)))
        self.service = NetworkService(
            label, host="", identity=identity, carriers=carriers, announce=("ice:",) if punches else (),
            limits=LIMITS, on_event=self._told,
        )  # fmt: skip
        self.info = PeerInfo(id=label, addresses=(f"ws://{label}:1",), pubkey_hex=identity.pubkey_hex)

    def _told(self, news: object) -> None:
        self.news.append(news)
        self.poke()

    def on_message(self, message: Message, peer: Peer) -> None:
        self.heard.append(message.payload.decode())
        self.poke()

    def ranks(self, other: Node) -> list[Rank]:
        driver = self.service._driver
        assert driver is not None
        record = driver.node.book.get(bytes.fromhex(other.info.pubkey_hex))
        return [] if record is None else [link.path.rank for link in record.links]


@asynccontextmanager
async def nodes(*, bob_punches: bool = True) -> AsyncIterator[tuple[Node, Node]]:
    network = MemoryNetwork()
    pair = Node("alice", ALICE, network, punches=True), Node("bob", BOB, network, punches=bob_punches)
    for one, other in (pair, pair[::-1]):
        await one.service.start(one.on_message)
        one.service.add_peer(other.info)
    try:
        yield pair
    finally:
        for one in pair:
            await one.service.stop()


@aio
async def test_the_punched_link_takes_the_place_of_the_relays_and_nothing_is_lost() -> None:
    async with nodes() as (alice, bob):
        await alice.service.connect_to_peer("bob")
        sent = 0
        while alice.ranks(bob) != [Rank.PUNCHED] or bob.ranks(alice) != [Rank.PUNCHED]:
            await alice.service.send_message_to("bob", Message(MessageType.CHAT, "", str(sent).encode()), wait_ack=True)
            sent += 1
        await alice.service.send_message_to("bob", Message(MessageType.CHAT, "", b"last"), wait_ack=True)
        await bob.until(lambda: bob.heard[-1:] == ["last"])
        assert bob.heard == [*map(str, range(sent)), "last"]
        assert sent > 0
        for one in (alice, bob):
            assert sum(isinstance(news, PeerUp) for news in one.news) == 1


@aio
async def test_a_peer_that_punches_no_holes_stays_on_the_relay_and_is_asked_for_none() -> None:
    async with nodes(bob_punches=False) as (alice, bob):
        await alice.service.connect_to_peer("bob")
        for number in range(200):
            await alice.service.send_message_to("bob", Message(MessageType.CHAT, "", b"x"), wait_ack=number % 50 == 0)
        driver = alice.service._driver
        assert driver is not None
        record = driver.node.book.get(BOB.pubkey)
        assert record is not None
        assert record.better == ()
        assert alice.ranks(bob) == [Rank.RELAYED]
