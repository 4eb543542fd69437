"""Nodes with several addresses, over real sockets: TLS beside Noise, dead places beside live ones, what is shown."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from endpoints import CARRIERS, aio, passed
from services import Party, chat

from musignet.errors import IoError
from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.net.transport.carriers import Unreachable
from musignet.node.addresses import Path, Rank, address_text
from musignet.node.effects import PeerUp
from musignet.node.peers import PeerInfo
from support.keys import ALICE, BOB

HOST = "127.0.0.1"


def dead_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as made:
        made.bind((HOST, 0))
        port: int = made.getsockname()[1]
        return port


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[Party, Party]]:
    """Return two started nodes; the second one listens for TLS as well, and knows the first one's key."""
    carrier: Any = CARRIERS["tcp"]()
    alice = Party(carrier, ALICE, "alice", **options)
    bob = Party(carrier, BOB, "bob", tls_port=0, **options)
    await alice.start()
    await bob.start()
    bob.service.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
    try:
        yield alice, bob
    finally:
        await alice.service.stop()
        await bob.service.stop()


def at(*places: str) -> PeerInfo:
    return PeerInfo(id="bob", addresses=places, pubkey_hex=BOB.pubkey_hex)


@aio
async def test_a_node_says_where_it_listens_and_is_reached_by_tls() -> None:
    async with pair() as (alice, bob):
        assert bob.service.tls_port
        tls = address_text(HOST, bob.service.tls_port, "tls")
        assert bob.service.info.addresses == (tls,)
        assert alice.service.tls_port is None
        assert alice.service.info.addresses == ()
        peer = await alice.service.connect_to_peer(at(tls))
        await bob.learns(PeerUp)
        by_tls = Path(Rank.LAN, "tls")
        assert peer.path == bob.service.peer("alice").path == by_tls
        assert peer.link_address == f"{HOST}:{bob.service.tls_port}"
        await alice.service.send_message_to("bob", chat("hello", "alice"), wait_ack=True)
        assert bob.got == [("alice", "hello")]
        assert peer.handshake_hash == bob.service.peer("alice").handshake_hash != b""


@aio
async def test_a_dead_place_does_not_keep_from_a_live_one() -> None:
    async with pair() as (alice, bob):
        assert bob.service.tls_port
        dead, live = address_text(HOST, dead_port()), address_text(HOST, bob.service.tls_port, "tls")
        peer = await alice.service.connect_to_peer(at(dead, live), timeout_s=5)
        assert peer.path == Path(Rank.LAN, "tls")


@aio
async def test_where_no_place_is_alive_the_error_names_them_all() -> None:
    async with pair() as (alice, _):
        dead = address_text(HOST, dead_port()), address_text(HOST, dead_port(), "tls"), "ice:"
        with pytest.raises(Unreachable) as caught:
            await alice.service.connect_to_peer(at(*dead))
        assert all(one in str(caught.value) for one in dead)
        assert alice.service.peer("bob").last_error is caught.value


@aio
async def test_on_a_worse_path_the_better_address_is_shown_with_what_keeps_from_it_and_taken_once_it_answers() -> None:
    soon = {"better_path_min_s": 0.05, "better_path_max_s": 0.05, "ice_offers_pause_s": 0.05, "ice_gather_s": 0.05}
    limits = Limits(**soon)
    async with pair(limits=limits) as (alice, bob):
        port = dead_port()
        peer = await alice.service.connect_to_peer(bob.info)
        alice.service.add_peer(PeerInfo(id="bob", addresses=(address_text(HOST, port),), pubkey_hex=BOB.pubkey_hex))
        (link,) = alice.service._find("bob").links
        link.path = Path(Rank.RELAYED, "wss")  # as if it were: no relay is needed to see what follows
        alice.service.add_peer(PeerInfo(id="bob", addresses=(address_text(HOST, port),), pubkey_hex=BOB.pubkey_hex))
        await bob.learns(PeerUp)
        while peer.path_error is None:
            await passed(0.02)
        assert peer.better == (address_text(HOST, port),)
        assert "cannot reach" in str(peer.path_error)
        assert peer.path == Path(Rank.RELAYED, "wss")
        alice.service.add_peer(bob.info)
        while peer.path != Path(Rank.LAN, "tcp"):
            await passed(0.02)
        assert peer.better == ()
        assert len(alice.told(PeerUp)) == 1


@aio
async def test_a_tls_port_that_is_taken_stops_the_start_and_frees_the_other_port() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        tcp = dead_port()
        with pytest.raises(IoError, match=f"cannot listen on {HOST}:{port}"):
            await NetworkService("x", host=HOST, port=tcp, tls_port=port).start()
        again = NetworkService("x", host=HOST, port=tcp)
        await again.start()
        await again.stop()
