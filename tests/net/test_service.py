"""`NetworkService` over every carrier: the calls of the specification, what they refuse, and what survives."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoints import CARRIERS, FREELY, NOISE, Carrier, aio, all_of, turns
from services import LogLines, Party, chat, friends, maker, party

from musignet.errors import (
    AuthenticationError,
    ConnectionError,
    IoError,
    LocalError,
    NetworkError,
    PeerNotFound,
    SendError,
    SerializationError,
    Timeout,
    TransportError,
)
from musignet.limits import MIB, Limits
from musignet.net import keystore
from musignet.net.handlers import MessageHandler
from musignet.net.keystore import KdfCost
from musignet.net.service import NetworkService
from musignet.node.effects import Fault, PeerDown, PeerUp, Undelivered
from musignet.node.peers import PeerInfo, PeerState
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.keys import ALICE, BOB, CAROL


@pytest.fixture(params=NOISE.values(), ids=NOISE.keys())
def carrier(request: pytest.FixtureRequest) -> Carrier:
    made: Carrier = request.param()
    return made


@pytest.fixture
def memory() -> Carrier:
    return CARRIERS["memory"]()


# --- the calls of the specification -----------------------------------------------------------------------------------


@aio
async def test_the_calls_of_the_specification_in_their_order(carrier: Carrier) -> None:
    alice, bob = Party(carrier, ALICE, "alice"), Party(carrier, BOB, "bob")
    bob.service.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
    await bob.start()
    await alice.start()
    info = PeerInfo(id="bob", name="Bob's Node", host=carrier.host, port=bob.service.port, pubkey_hex=BOB.pubkey_hex)
    network = alice.service
    peer = await network.connect_to_peer(info)
    assert (peer.info, peer.state, peer.pubkey_hex) == (info, PeerState.CONNECTED, BOB.pubkey_hex)
    assert network.peer_state("bob") is PeerState.CONNECTED
    assert network.peer("bob") is network.peer(BOB.pubkey_hex) is peer
    assert network.peers() == [peer]
    assert repr(peer) == f"<Peer bob ({BOB.pubkey_hex[2:10]}) connected>"
    assert await network.connected_peers() == [info]
    await network.send_message_to("bob", Message(MessageType.CHAT, "alice", b"hello"))
    await bob.hears()
    assert bob.got == [("alice", "hello")]
    assert await network.broadcast_message(chat("all"), wait_ack=True) == 1
    await peer.send(chat("direct"), wait_ack=True)
    assert bob.texts() == ["hello", "all", "direct"]
    await network.disconnect_from_peer("bob")
    await bob.learns(PeerDown)
    assert network.peer_state("bob") is PeerState.DISCONNECTED
    assert await network.connected_peers() == []
    assert [type(news) for news in alice.news] == [type(news) for news in bob.news] == [PeerUp, PeerDown]
    await network.stop()
    await bob.service.stop()


@aio
async def test_a_peer_can_hang_up_through_its_own_object(carrier: Carrier) -> None:
    async with party(carrier, "alice", "bob") as (alice, bob):
        await alice.service.peer("bob").disconnect()
        await bob.learns(PeerDown)


@aio
async def test_async_with_starts_and_stops(memory: Carrier) -> None:
    got: list[bytes] = []
    service = NetworkService("a", handler=lambda message, _: got.append(message.payload), transport=maker(memory))
    async with service as inside:
        assert inside is service
        assert service.port == 1
        assert len(service.pubkey_hex) == 66
        async with service:
            pass
    with pytest.raises(TransportError, match="this service is not running; await start"):
        service.peers()
    with pytest.raises(TransportError, match="was started before"):
        await service.start()
    await service.stop()


@aio
async def test_what_is_not_running_says_so(memory: Carrier) -> None:
    service = NetworkService("a", transport=maker(memory))
    await service.stop()
    service.add_peer(PeerInfo(id="bob", pubkey_hex=BOB.pubkey_hex))
    for call in (service.send_message_to("bob", chat()), service.broadcast_message(chat()),
                 service.connect_to_peer("bob"), service.disconnect_from_peer("bob"), service.connected_peers(),
                 service.remove_peer("bob")):  # fmt: skip
        with pytest.raises(TransportError, match="not running"):
            await call
    for look in (service.peer, service.peer_state):
        with pytest.raises(TransportError, match="not running"):
            look("bob")
    async with service:
        assert service.peer_state("bob") is PeerState.DISCONNECTED
        with pytest.raises(TransportError, match="was started before"):
            await service.start()


@pytest.mark.parametrize("label", ["x" * 65, "\ud800"])
def test_a_label_that_no_message_can_carry_is_refused_at_once(label: str) -> None:
    with pytest.raises(SerializationError):
        NetworkService(label)


@aio
async def test_a_port_that_is_taken_is_an_io_error_and_the_service_can_start_elsewhere(carrier: Carrier) -> None:
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob", port=alice.service.port)
        with pytest.raises(IoError, match="cannot listen"):
            await bob.start()
        with pytest.raises(TransportError, match="not running"):
            bob.service.peers()
        await alice.service.stop()
        await bob.start()
        await bob.service.stop()


@aio
async def test_a_peer_that_cannot_be_added_fails_the_start(memory: Carrier) -> None:
    service = NetworkService("a", identity=ALICE, transport=maker(memory))
    service.add_peer(PeerInfo(id="bob", pubkey_hex=BOB.pubkey_hex))
    service.add_peer(PeerInfo(id="bob", pubkey_hex=CAROL.pubkey_hex))
    with pytest.raises(AuthenticationError, match="belongs to another key"):
        await service.start()


# --- connecting -------------------------------------------------------------------------------------------------------


@aio
async def test_a_peer_that_does_not_know_us_is_an_authentication_error_on_our_side_and_one_line_on_its(
    carrier: Carrier,
) -> None:
    alice, bob = Party(carrier, ALICE, "alice"), Party(carrier, BOB, "bob")
    await alice.start()
    await bob.start()
    with LogLines() as log:
        with pytest.raises(AuthenticationError, match="before letting us in; it may not have our key in its book"):
            await alice.service.connect_to_peer(bob.info)
        await log.until(lambda: log.lines)
    assert log.lines[0].startswith(f"refused unknown key {ALICE.pubkey_hex} at ")
    assert bob.news == []
    assert bob.service.peers() == []
    assert alice.service.peer_state("bob") is PeerState.DISCONNECTED
    await alice.service.stop()
    await bob.service.stop()


@aio
async def test_another_key_at_that_address_is_an_authentication_error(carrier: Carrier) -> None:
    async with friends(carrier, "alice", "bob") as (alice, bob):
        with LogLines() as log, pytest.raises(AuthenticationError, match="closed during the handshake"):
            await alice.service.connect_to_peer(replace(bob.info, id="carol", pubkey_hex=CAROL.pubkey_hex))
        assert all("refused a connection from" in line for line in log.lines)
        assert len(log.lines) <= 1


@aio
async def test_nobody_there_is_a_connection_error_and_an_unknown_name_is_not_found(carrier: Carrier) -> None:
    async with friends(carrier, "alice", "bob") as (alice, bob):
        await bob.service.stop()
        with pytest.raises(ConnectionError, match="cannot reach"):
            await alice.service.connect_to_peer("bob")
        for call in (alice.service.connect_to_peer("carol"), alice.service.send_message_to("carol", chat()),
                     alice.service.disconnect_from_peer("carol"), alice.service.remove_peer("carol")):  # fmt: skip
            with pytest.raises(PeerNotFound, match=r"no peer 'carol' in the book; it knows bob; add_peer"):
                await call
        with pytest.raises(TransportError, match="no address for carol"):
            await alice.service.connect_to_peer(PeerInfo(id="carol", pubkey_hex=CAROL.pubkey_hex))
        with pytest.raises(AuthenticationError, match="is this node itself"):
            await alice.service.connect_to_peer(replace(alice.info, id="me"))


@pytest.mark.parametrize("host", ["bad..name", "nul\0"])
@aio
async def test_an_address_that_is_none_is_an_answer_and_not_silence(carrier: Carrier, host: str) -> None:
    async with friends(carrier, "alice", "bob") as (alice, bob):
        with pytest.raises(NetworkError):
            await alice.service.connect_to_peer(replace(bob.info, host=host), timeout_s=5)


@aio
async def test_connecting_has_a_deadline_of_its_own(carrier: Carrier) -> None:
    accepted: list[object] = []
    port = await carrier.raw_listen(accepted.append)
    async with friends(carrier, "alice", "bob") as (alice, bob):
        with pytest.raises(Timeout, match=r"bob \(.*\) is not connected after 0.05 s"):
            await alice.service.connect_to_peer(replace(bob.info, port=port), timeout_s=0.05)
        await alice.service.disconnect_from_peer("bob")
        driver = alice.service._driver
        assert driver is not None
        assert (driver._replies, driver._waiting) == ({}, {}), "an answer that nobody waits for is not kept"
    await carrier.unlisten()


@aio
async def test_a_peer_that_never_answers_is_a_timeout(carrier: Carrier) -> None:
    accepted: list[object] = []
    port = await carrier.raw_listen(accepted.append)
    async with friends(carrier, "alice", "bob", limits=Limits(handshake_timeout_s=0.05)) as (alice, bob):
        with pytest.raises(Timeout, match=r"no handshake with .* within 0\.05 s"):
            await alice.service.connect_to_peer(replace(bob.info, port=port), timeout_s=5)


@aio
async def test_persist_keeps_trying_until_the_peer_adds_us(carrier: Carrier) -> None:
    limits = Limits(backoff_min_s=0.01, log_lines_per_s=1000)
    alice, bob = Party(carrier, ALICE, "alice", limits=limits), Party(carrier, BOB, "bob", limits=limits)
    await alice.start()
    await bob.start()
    with LogLines() as log:
        connecting = asyncio.ensure_future(alice.service.connect_to_peer(bob.info, persist=True))
        await log.until(lambda: len(log.lines) >= 2)
    assert not connecting.done()
    bob.service.add_peer(alice.info)
    assert (await connecting).state is PeerState.CONNECTED
    await bob.learns(PeerUp)
    await alice.service.stop()
    await bob.service.stop()


@aio
async def test_accept_decides_about_unknown_keys(carrier: Carrier) -> None:
    asked: list[PeerInfo] = []

    def accept(info: PeerInfo) -> bool:
        asked.append(info)
        return info.pubkey_hex == ALICE.pubkey_hex

    alice, carol = Party(carrier, ALICE, "alice"), Party(carrier, CAROL, "carol")
    bob = Party(carrier, BOB, "bob", accept=accept)
    for one in (alice, bob, carol):
        await one.start()
    await alice.service.connect_to_peer(bob.info)
    with LogLines(), pytest.raises(AuthenticationError):
        await carol.service.connect_to_peer(bob.info)
    assert [(info.pubkey_hex, info.host, info.port) for info in asked] == [
        (ALICE.pubkey_hex, carrier.host, 0),
        (CAROL.pubkey_hex, carrier.host, 0),
    ]
    (peer,) = bob.service.peers()
    assert peer.info.id == ALICE.pubkey_hex[2:10]
    assert peer.info.name == "alice"
    await alice.service.send_message_to("bob", chat(), wait_ack=True)
    assert bob.got == [(ALICE.pubkey_hex[2:10], "hello")]
    for one in (alice, bob, carol):
        await one.service.stop()


def _raises(_: PeerInfo) -> bool:
    raise ZeroDivisionError("accept is broken")


@aio
async def test_an_accept_that_raises_lets_nobody_in_and_is_logged(carrier: Carrier) -> None:
    async with friends(carrier, "carol") as (carol,):
        bob = Party(carrier, BOB, "bob", accept=_raises)
        await bob.start()
        with LogLines() as log:
            with pytest.raises(AuthenticationError):
                await carol.service.connect_to_peer(bob.info)
            await log.until(lambda: len(log.lines) >= 2)
        assert bob.service.peers() == []
        assert "a callback of the application failed" in log.lines[0]
        await bob.service.stop()


@aio
async def test_accept_cannot_let_more_in_than_the_book_holds(carrier: Carrier) -> None:
    bob = Party(carrier, BOB, "bob", accept=lambda _: True, limits=Limits(peers_max=1))
    alice, carol = Party(carrier, ALICE, "alice"), Party(carrier, CAROL, "carol")
    for one in (alice, bob, carol):
        await one.start()
    await alice.service.connect_to_peer(bob.info)
    with LogLines() as log:
        with pytest.raises(AuthenticationError):
            await carol.service.connect_to_peer(bob.info)
        await log.until(lambda: log.lines)
    assert len(bob.service.peers()) == 1
    await alice.service.send_message_to("bob", chat(), wait_ack=True)
    for one in (alice, bob, carol):
        await one.service.stop()


@aio
async def test_a_removed_peer_is_gone_and_not_let_in_again(carrier: Carrier) -> None:
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob")

        async def handler(message: Message, peer: Any) -> None:
            bob.on_message(message, peer)

        await bob.start(handler)
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer(bob.info)
        await alice.service.send_message_to("bob", chat(), wait_ack=True)
        await bob.hears(1)
        await bob.service.remove_peer("alice")
        await alice.learns(PeerDown)
        with pytest.raises(PeerNotFound):
            bob.service.peer("alice")
        with LogLines(), pytest.raises(AuthenticationError):
            await alice.service.connect_to_peer("bob")
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer("bob")
        await alice.service.send_message_to("bob", chat("again"), wait_ack=True)
        await bob.hears(2)
        assert bob.texts() == ["hello", "again"]
        await bob.service.stop()


@aio
async def test_64_racing_simultaneous_connects_end_in_one_link(carrier: Carrier) -> None:
    limits = Limits(inbound_slots=128, outbound_slots=128, half_open_slots=64, half_open_per_prefix=64)
    for _ in range(3):
        async with friends(carrier, "alice", "bob", limits=limits) as (alice, bob):
            results = await all_of(
                *((alice.service.connect_to_peer("bob") if n % 2 else bob.service.connect_to_peer("alice"))
                  for n in range(64))
            )  # fmt: skip
            assert [result for result in results if isinstance(result, BaseException)] == []
            await alice.service.send_message_to("bob", chat("there"), wait_ack=True)
            await bob.service.send_message_to("alice", chat("back"), wait_ack=True)
            for one, other in ((alice, "bob"), (bob, "alice")):
                record = one.service._find(other)
                transport: Any = one.service._transport
                while len(transport.slots.inbound) + transport.slots.outbound > 1:
                    await turns(1)
                assert len(record.links) == 1
                assert one.told(Fault) == []
            assert alice.texts() == ["back"]
            assert bob.texts() == ["there"]


# --- messages ---------------------------------------------------------------------------------------------------------


@aio
async def test_a_broadcast_reaches_everybody_and_says_how_many(carrier: Carrier) -> None:
    async with party(carrier, "alice", "bob", "carol") as (alice, bob, carol):
        assert await bob.service.broadcast_message(chat("b"), wait_ack=True) == 1
        assert await alice.service.broadcast_message(chat("a"), wait_ack=True) == 2
        assert bob.got == carol.got == [("alice", "a")]
        assert alice.got == [("bob", "b")]


@aio
async def test_a_message_signed_by_its_caller_is_sent_as_it_is_and_only_ours(carrier: Carrier) -> None:
    async with party(carrier, "alice", "bob") as (alice, bob):
        await alice.service.send_message_to("bob", chat().sign(ALICE, seq=1), wait_ack=True)
        with pytest.raises(SendError, match="signed by another key"):
            await alice.service.send_message_to("bob", chat().sign(BOB))
        with pytest.raises(SendError, match="PING is sent by the node itself"):
            await alice.service.send_message_to("bob", Message(MessageType.PING, "x"))
        assert bob.texts() == ["hello"]


@aio
async def test_sending_to_a_peer_that_is_away_says_so(carrier: Carrier) -> None:
    async with friends(carrier, "alice", "bob") as (alice, _):
        with pytest.raises(SendError, match=r"bob \(.*\) is disconnected; send when it is connected"):
            await alice.service.send_message_to("bob", chat())
        assert await alice.service.broadcast_message(chat()) == 0


@pytest.mark.parametrize("kind", ["plain", "async", "mixed"])
@aio
async def test_each_senders_messages_are_handled_in_order_by_any_kind_of_handler(carrier: Carrier, kind: str) -> None:
    async with friends(carrier, "alice", "carol") as (alice, carol):
        bob = Party(carrier, BOB, "bob")
        running = 0

        async def later(message: Message, peer: Any) -> None:
            nonlocal running
            running += 1
            await turns(len(message.payload) % 3)
            bob.on_message(message, peer)
            running -= 1

        def handler(message: Message, peer: Any) -> Any:
            if kind == "plain" or (kind == "mixed" and message.payload.endswith(b"2")):
                return bob.on_message(message, peer)
            return later(message, peer)

        await bob.start(handler)
        for one in (alice, carol):
            bob.service.add_peer(one.info)
            await one.service.connect_to_peer(bob.info)
        texts = ["x" * (n % 4) + str(n) for n in range(100)]
        for text in texts:
            for one in (alice, carol):
                await one.service.send_message_to("bob", chat(text))
        await bob.hears(200)
        assert bob.texts("alice") == bob.texts("carol") == texts
        assert running == 0
        await bob.service.stop()


@aio
async def test_a_slow_handler_slows_its_sender_down_and_then_catches_up(carrier: Carrier) -> None:
    limits = replace(FREELY, inbox_max=4, unacked_max=8)
    async with friends(carrier, "alice", "carol") as (alice, carol):
        bob = Party(carrier, BOB, "bob", limits=limits)
        gate = asyncio.Event()

        async def handler(message: Message, peer: Any) -> None:
            if peer.info.id == "alice":
                await gate.wait()
            bob.on_message(message, peer)

        await bob.start(handler)
        for one in (alice, carol):
            bob.service.add_peer(one.info)
            await one.service.connect_to_peer(bob.info)
        big = "x" * 32_000
        send = alice.service.send_message_to
        sending = asyncio.gather(*(send("bob", chat(big)) for _ in range(600)))
        inbox_of = bob.service._inboxes
        while not any(inbox._throttled for inbox in inbox_of.values()):
            await turns(1)
        await turns(200)
        held = sum(len(inbox._waiting) for inbox in inbox_of.values())
        assert held < 200, "reading has stopped"
        await carol.service.send_message_to("bob", chat("carol is not held up"), wait_ack=True)
        await bob.until(lambda: bob.texts("carol"))
        assert bob.texts("alice") == []
        gate.set()
        await bob.until(lambda: len(bob.texts("alice")) == 600)
        assert await sending == [None] * 600
        assert not any(inbox._throttled for inbox in inbox_of.values())
        await bob.service.stop()


@aio
async def test_a_peer_that_reconnects_is_still_held_up_by_its_slow_handler(memory: Carrier) -> None:
    limits = Limits(inbox_max=4)
    async with friends(memory, "alice") as (alice,):
        bob = Party(memory, BOB, "bob", limits=limits)
        gate = asyncio.Event()

        async def handler(message: Message, peer: Any) -> None:
            await gate.wait()
            bob.on_message(message, peer)

        await bob.start(handler)
        bob.service.add_peer(alice.info)
        held = []
        for round_ in range(3):
            await alice.service.connect_to_peer(bob.info)
            for n in range(10):
                await alice.service.send_message_to("bob", chat(f"{round_} {n}"))
            await turns(50)
            (connection,) = (known[0] for known in bob.service._driver._connections.values())  # type: ignore[union-attr]
            assert not connection._reading, "the new link is paused as well"  # type: ignore[attr-defined]
            held.append(len(next(iter(bob.service._inboxes.values()))._waiting))
            await alice.service.disconnect_from_peer("bob")
            bob.service._find("alice").windows.clear()
            connection.resume_reading()
            await turns(50)
        gate.set()
        await bob.until(lambda: len(bob.got) >= 20)
        await bob.service.stop()


def _fail(_: Message, __: Any) -> None:
    raise ZeroDivisionError("a plain handler failed")


async def _fail_later(_: Message, __: Any) -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("an async handler failed")


async def _cancelled(_: Message, __: Any) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("broken", [_fail, _fail_later, _cancelled])
@aio
async def test_a_handler_that_raises_is_logged_and_the_link_goes_on(carrier: Carrier, broken: Any) -> None:
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob")

        def handler(message: Message, peer: Any) -> Any:
            return broken(message, peer) if message.payload == b"bad" else bob.on_message(message, peer)

        await bob.start(handler)
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer(bob.info)
        with LogLines(logging.ERROR) as log:
            for text in ("one", "bad", "two", "bad", "three"):
                await alice.service.send_message_to("bob", chat(text), wait_ack=True)
            await bob.hears(3)
        assert bob.texts() == ["one", "two", "three"]
        assert len(log.lines) == 2
        assert all("of the application" in line and "the node goes on" in line for line in log.lines)
        assert alice.told(PeerDown) == bob.told(PeerDown) == []
        await bob.service.stop()


@aio
async def test_an_on_event_that_raises_is_logged_and_nothing_else(carrier: Carrier) -> None:
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob")
        bob._event = bob.service._on_event = lambda news: 1 / 0  # type: ignore[method-assign, assignment]
        await bob.start()
        bob.service.add_peer(alice.info)
        with LogLines(logging.ERROR) as log:
            await alice.service.connect_to_peer(bob.info)
            await alice.service.send_message_to("bob", chat(), wait_ack=True)
        assert bob.texts() == ["hello"]
        assert len(log.lines) == 1
        await bob.service.stop()


@aio
async def test_a_handler_that_calls_back_in_is_not_entered_twice(carrier: Carrier) -> None:
    """Messages of one peer are handled one after the other, also when a plain handler makes the node do something."""
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob")
        depth, deepest = 0, 0

        def handler(message: Message, peer: Any) -> None:
            nonlocal depth, deepest
            depth += 1
            deepest = max(deepest, depth)
            bob.service.add_peer(PeerInfo(id="carol", pubkey_hex=CAROL.pubkey_hex))
            bob.on_message(message, peer)
            depth -= 1

        await bob.start(handler)
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer(bob.info)
        texts = [str(n) for n in range(200)]
        await all_of(*(alice.service.send_message_to("bob", chat(text)) for text in texts))
        await bob.hears(200)
        assert bob.texts() == texts
        assert deepest == 1
        await bob.service.stop()


@aio
async def test_without_a_handler_messages_are_acknowledged_and_dropped(carrier: Carrier) -> None:
    async with friends(carrier, "alice") as (alice,):
        service = NetworkService("bob", host=carrier.host, identity=BOB, transport=maker(carrier))
        service.add_peer(alice.info)
        await service.start()
        await alice.service.connect_to_peer(service.info)
        await alice.service.send_message_to("bob", chat(), wait_ack=True)
        await service.stop()


@aio
async def test_a_message_handler_routes_by_type(carrier: Carrier) -> None:
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob")
        routes, got = MessageHandler(), []

        @routes.on(MessageType.CHAT)
        def first(message: Message, _: Any) -> None:
            got.append(("first", message.payload))

        @routes.on(MessageType.CHAT, MessageType.ERROR)
        async def second(message: Message, _: Any) -> None:
            got.append(("second", message.payload))
            bob.poke()

        await bob.start(routes)
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer(bob.info)
        for kind in (MessageType.CHAT, MessageType.ABORT, MessageType.ERROR):
            await alice.service.send_message_to("bob", Message(kind, "alice", b"x"), wait_ack=True)
        await bob.until(lambda: len(got) == 3)
        assert got == [("first", b"x"), ("second", b"x"), ("second", b"x")]
        await bob.service.stop()


@aio
async def test_a_1_mib_message_and_pings_pass_at_once(carrier: Carrier) -> None:
    """A small message and a round trip are not held up behind large ones (1 MiB each, both ways)."""
    async with party(carrier, "alice", "bob", limits=FREELY) as (alice, bob):
        big = Message(MessageType.TRANSACTION_PROPOSAL, "alice", bytes(MIB))
        got: list[int] = []
        bob.service._handler = alice.service._handler = lambda message, _: got.append(len(message.payload))
        record = alice.service._find("bob")
        send = alice.service.send_message_to
        sending = asyncio.gather(*(send("bob", big, wait_ack=True) for _ in range(24)))
        driver = alice.service._driver
        assert driver is not None
        link = record.links[0]
        link.ping_at = driver.now()
        driver.node._timers.set(link.ping_at, link.number)
        driver._arm(link.ping_at)
        while record.round_trip_s is None:
            await turns(1)
        assert not sending.done(), "the pong came while messages were on their way"
        assert await sending == [None] * 24
        assert got == [MIB] * 24
        assert alice.service.peer("bob").round_trip_s == record.round_trip_s


@pytest.mark.parametrize("batch", [1, 2, 16, 10_000])
@aio
async def test_verifying_on_a_second_thread_changes_nothing(carrier: Carrier, batch: int) -> None:
    async with party(carrier, "alice", "bob", limits=replace(FREELY, verify_batch=batch)) as (alice, bob):
        texts = [str(n) for n in range(300)]
        assert await all_of(*(alice.service.send_message_to("bob", chat(text)) for text in texts)) == [None] * 300
        await bob.hears(300)
        assert bob.texts() == texts


# --- losing and finding each other ------------------------------------------------------------------------------------


@aio
async def test_a_peer_that_restarts_on_its_port_is_found_again_by_itself(carrier: Carrier) -> None:
    limits = Limits(backoff_min_s=0.01)
    async with party(carrier, "alice", "bob", limits=limits) as (alice, bob):
        port = bob.service.port
        await bob.service.stop()
        await alice.learns(PeerDown)
        assert alice.service.peer_state("bob") is not PeerState.CONNECTED
        with pytest.raises(SendError, match=r"bob .* is (reconnecting|connecting)"):
            await alice.service.send_message_to("bob", chat())
        again = Party(carrier, BOB, "bob", port=port)
        again.service.add_peer(alice.info)
        await again.start()
        await alice.learns(PeerUp, 2)
        await alice.service.send_message_to("bob", chat("welcome back"), wait_ack=True)
        assert again.texts() == ["welcome back"]
        assert alice.told(Fault) == again.told(Fault) == []
        await again.service.stop()


@aio
async def test_what_was_not_acknowledged_arrives_after_the_reconnect_and_once(carrier: Carrier) -> None:
    limits = Limits(backoff_min_s=0.01)
    async with party(carrier, "alice", "bob", limits=limits) as (alice, bob):
        (known,) = alice.service._driver._connections.values()  # type: ignore[union-attr]
        send = alice.service.send_message_to
        sending = [asyncio.ensure_future(send("bob", chat(str(n)), wait_ack=True)) for n in range(50)]
        await turns(1)
        known[0]._abort_stream()  # type: ignore[attr-defined]
        assert await all_of(*sending) == [None] * 50
        assert bob.texts() == [str(n) for n in range(50)]


@aio
async def test_stopping_tells_everybody_and_gives_up_what_waits(carrier: Carrier) -> None:
    async with party(carrier, "alice", "bob", limits=Limits(stop_timeout_s=0.05)) as (alice, bob):
        (known,) = bob.service._driver._connections.values()  # type: ignore[union-attr]
        known[0].clogged(True)  # type: ignore[attr-defined]  # no acknowledgement leaves
        sending = asyncio.ensure_future(alice.service.send_message_to("bob", chat(), wait_ack=True))
        await bob.hears()
        with LogLines() as log:
            await alice.service.stop()
        with pytest.raises(ConnectionError, match="was closed from here"):
            await sending
        await bob.learns(PeerDown)
        assert [type(news) for news in alice.news] == [PeerUp, Undelivered, PeerDown]
        assert "went away" in str(bob.told(PeerDown)[0].error)
        name = f"bob ({BOB.pubkey_hex[2:10]})"
        why = f"the link to {name} was closed from here"
        assert log.lines == [f"1 messages to {name} were never acknowledged: {why}"]


@aio
async def test_stop_goes_to_its_end_in_a_task_that_was_cancelled(carrier: Carrier) -> None:
    """As Ctrl-C does; `asyncio.timeout` cuts it short there with Python 3.11.2."""
    async with party(carrier, "alice", "bob", limits=Limits(stop_timeout_s=0.05)) as (alice, bob):
        (known,) = bob.service._driver._connections.values()  # type: ignore[union-attr]
        known[0].clogged(True)  # type: ignore[attr-defined]  # no acknowledgement leaves
        await alice.service.send_message_to("bob", chat())
        await bob.hears()

        async def live() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await alice.service.stop()

        living = asyncio.ensure_future(live())
        await turns()
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        assert alice.service._driver is None
        await bob.learns(PeerDown)


@aio
async def test_stop_lets_handlers_finish_and_cancels_those_that_do_not(carrier: Carrier) -> None:
    limits = Limits(stop_timeout_s=0.05)
    async with friends(carrier, "alice", "carol") as (alice, carol):
        bob = Party(carrier, BOB, "bob", limits=limits)
        done: list[str] = []
        started = 0

        async def handler(message: Message, peer: Any) -> None:
            nonlocal started
            started += 1
            bob.poke()
            if peer.info.id == "alice":
                await turns(20)
            else:
                await asyncio.Event().wait()
            done.append(peer.info.id)

        await bob.start(handler)
        for one in (alice, carol):
            bob.service.add_peer(one.info)
            await one.service.connect_to_peer(bob.info)
            await one.service.send_message_to("bob", chat())
            await one.service.send_message_to("bob", chat("second"))
        await bob.until(lambda: started == 2)
        await bob.service.stop()
        assert done == ["alice", "alice"]


@pytest.mark.parametrize("what", ["stop", "remove"])
@aio
async def test_a_handler_may_stop_the_service_or_remove_its_peer(carrier: Carrier, what: str) -> None:
    async with friends(carrier, "alice") as (alice,):
        bob = Party(carrier, BOB, "bob")
        ended: list[str] = []

        async def handler(_: Message, __: Any) -> None:
            if what == "stop":
                await bob.service.stop()
            else:
                await bob.service.remove_peer("alice")
            ended.append(what)
            bob.poke()

        await bob.start(handler)
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer(bob.info)
        await alice.service.send_message_to("bob", chat())
        await bob.until(lambda: ended)
        await alice.learns(PeerDown)
        await bob.service.stop()
        with pytest.raises((TransportError, PeerNotFound)):
            bob.service.peer("alice")


# --- the data folder --------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key files that are made in no time."""
    assert keystore.save_identity.__kwdefaults__ is not None
    monkeypatch.setitem(keystore.save_identity.__kwdefaults__, "cost", KdfCost(memory_kib=19 * 1024, passes=2, lanes=1))


@pytest.mark.usefixtures("cheap")
@aio
async def test_the_identity_is_made_once_and_loaded_again(memory: Carrier, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    keys = []
    for _ in range(2):
        service = NetworkService("a", data_dir=folder, passphrase="pass", transport=maker(memory))
        with pytest.raises(LocalError, match="the identity is in the data folder; start"):
            _ = service.identity
        async with service:
            keys.append(service.pubkey_hex)
    assert keys[0] == keys[1]
    assert folder.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in folder.iterdir()) == ["identity.key", "lock", "messages.db", "messages.last"]


@pytest.mark.usefixtures("cheap")
@aio
async def test_a_second_service_on_one_folder_is_refused_until_the_first_stops(memory: Carrier, tmp_path: Path) -> None:
    first, second = (
        NetworkService("a", data_dir=tmp_path / "d", passphrase="pass", transport=maker(memory)) for _ in range(2)
    )
    async with first:
        with pytest.raises(IoError, match=r"another node runs on .*; stop it first"):
            await second.start()
    await second.start()
    await second.stop()


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(("passphrase", "error"), [("wrong", AuthenticationError), (None, LocalError)])
@aio
async def test_a_start_that_fails_lets_go_of_the_folder(
    memory: Carrier, tmp_path: Path, passphrase: str | None, error: type[NetworkError]
) -> None:
    async with NetworkService("a", data_dir=tmp_path / "d", passphrase="pass", transport=maker(memory)):
        pass
    with pytest.raises(error):
        await NetworkService("a", data_dir=tmp_path / "d", passphrase=passphrase, transport=maker(memory)).start()
    async with NetworkService("a", data_dir=tmp_path / "d", passphrase="pass", transport=maker(memory)):
        pass


@aio
async def test_a_folder_that_cannot_be_is_an_io_error(memory: Carrier, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    service = NetworkService("a", data_dir=tmp_path / "file", passphrase="pass", transport=maker(memory))
    with pytest.raises(IoError, match="data folder"):
        await service.start()


@aio
async def test_with_an_identity_the_folder_holds_messages_and_no_key(memory: Carrier, tmp_path: Path) -> None:
    async with NetworkService("a", identity=ALICE, data_dir=tmp_path, transport=maker(memory)) as service:
        assert service.identity is ALICE
    assert sorted(os.listdir(tmp_path)) == ["lock", "messages.db", "messages.last"]
