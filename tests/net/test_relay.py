"""Links over relays: what is otherwise there than where somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import cast

import msgspec
import pytest
from endpoints import Recorder, aio, soon, turns
from relays import HOST, LocalRelay, RelayCarrier, shared_relay

from musignet import limits
from musignet.crypto.keys import Identity
from musignet.crypto.relaykey import inbox_of
from musignet.errors import ConnectionError, LocalError, Timeout, TransportError
from musignet.limits import Limits
from musignet.net.transport.relay import RelayTransport
from musignet.net.transport.relayline import RelayLine
from musignet.net.transport.relayreader import Reader
from musignet.net.transport.relaystream import RelayStreams
from musignet.wire.channel import CloseReceived
from musignet.wire.giftwrap import MAIL, wrap
from musignet.wire.messages import CloseCode
from musignet.wire.relaytalk import LETTERS
from musignet.wire.segment import DATA, DIALLER, RESET, Segment
from support.hostile_relay import BEHAVIOURS, Behaviour, HostileRelay
from support.keys import ALICE, BOB, CAROL, secret

SHORT = Limits(act_one_timeout_s=0.2, handshake_timeout_s=0.2, stop_timeout_s=0.2)
SLOW = Limits(act_one_timeout_s=60, handshake_timeout_s=60)
PATIENT = Limits(act_one_timeout_s=15, handshake_timeout_s=15, dial_timeout_s=15)
"""A hello that nobody reads yet is said again after a second; a busy machine may need several."""
SILENT = "ws://127.0.0.1:1"


@pytest.fixture
def relay() -> LocalRelay:
    return shared_relay()


@pytest.fixture
def relays() -> list[LocalRelay]:
    """Three of our own: a test may kill them."""
    return [LocalRelay() for _ in range(3)]


@asynccontextmanager
async def nodes(*relays: list[str], limits: Limits | None = None) -> AsyncIterator[list[RelayTransport]]:
    """One started transport for each list of relays: Alice's, Bob's, Carol's."""
    identities = (ALICE, BOB, CAROL)
    made = [
        RelayTransport(who, Recorder(), relays=own, limits=limits or PATIENT)
        for who, own in zip(identities, relays, strict=False)
    ]
    for one in made:
        await one.start()
    try:
        yield made
    finally:
        for one in made:
            await one.stop()


def sink(node: RelayTransport) -> Recorder:
    assert isinstance(node.sink, Recorder)
    return node.sink


async def says(node: RelayTransport, to: RelayTransport, what: bytes) -> None:
    await node.send(to.identity.pubkey_hex, what)
    await sink(to).until(lambda: sink(to).envelopes[-1:] == [what])


# --- nobody there -----------------------------------------------------------------------------------------------------


@aio
async def test_a_peer_that_is_away_or_has_another_key_is_a_timeout(relay: LocalRelay) -> None:
    async with nodes([relay.url], limits=SHORT) as (alice,):
        with pytest.raises(Timeout, match=r"no handshake with ws://127.0.0.1.* within 0.2 s"):
            await alice.connect(CAROL.pubkey_hex, relay.url, 0)
        assert (alice.slots.outbound, alice.streams._streams) == (0, {})


@aio
async def test_a_relay_that_is_not_there_is_a_connection_error(relay: LocalRelay) -> None:
    async with nodes([]) as (alice,):
        with pytest.raises(ConnectionError, match=r"cannot reach the relay ws://127.0.0.1:1: "):
            await alice.connect(BOB.pubkey_hex, SILENT, 0)
    async with nodes([SILENT, relay.url], [SILENT, relay.url]) as (alice, bob):
        await bob.streams.lines[1].ready()
        await alice.connect(BOB.pubkey_hex, SILENT, 0)
        await sink(bob).hears("connected")


@pytest.mark.parametrize("url", ["", "http://h:1", "ws://", "ws://h:0", "127.0.0.1:8737", "tls://h:1"])
@aio
async def test_a_relay_has_an_address_of_its_kind(url: str) -> None:
    with pytest.raises(LocalError, match=r"not a(n address| relay)"):
        RelayTransport(ALICE, Recorder(), relays=[url])
    async with nodes([]) as (alice,):
        with pytest.raises(TransportError, match="is no address"):
            await alice.connect(BOB.pubkey_hex, url, 0)


@aio
async def test_relays_are_counted(relay: LocalRelay) -> None:
    with pytest.raises(LocalError, match="too many relays: expected at most 4, got 5"):
        RelayTransport(ALICE, Recorder(), relays=[f"{HOST}:{port}" for port in range(1, 6)])
    async with nodes([relay.url]) as (alice,):
        dials = [alice.connect(BOB.pubkey_hex, HOST, port) for port in range(1, limits.RELAY_LINES_MAX)]
        with pytest.raises(TransportError, match="too many relays"):
            await asyncio.wait_for(_and_one_more(alice, dials), 10)


async def _and_one_more(alice: RelayTransport, dials: list[object]) -> None:
    trying = [asyncio.ensure_future(one) for one in dials]  # type: ignore[call-overload]
    try:
        await soon(lambda: len(alice.streams.lines) == limits.RELAY_LINES_MAX)
        await alice.connect(BOB.pubkey_hex, HOST, 99)
    finally:
        for one in trying:
            one.cancel()
        await asyncio.gather(*trying, return_exceptions=True)


# --- several relays ---------------------------------------------------------------------------------------------------


@aio
async def test_nodes_with_relays_of_their_own_meet_at_the_one_that_is_dialled(relays: list[LocalRelay]) -> None:
    first, second, _ = (one.url for one in relays)
    async with nodes([first], [second]) as (alice, bob):
        await alice.connect(BOB.pubkey_hex, second, 0)
        await sink(bob).hears("connected")
        await says(alice, bob, b"there")
        await says(bob, alice, b"back")
        assert len(bob.streams.lines) == 1


@aio
async def test_a_relay_that_is_only_visited_is_left_when_no_link_uses_it(
    relays: list[LocalRelay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RELAY_IDLE_S", 0.05)
    first, second, _ = (one.url for one in relays)
    async with nodes([first], [second]) as (alice, bob):
        await alice.connect(BOB.pubkey_hex, second, 0)
        await says(alice, bob, b"there")
        assert len(alice.streams.lines) == 2
        await alice.disconnect(BOB.pubkey_hex)
        await soon(lambda: len(alice.streams.lines) == 1)
        assert [line.url for line in alice.streams.lines] == [first]


@aio
async def test_a_relay_that_was_dialled_in_vain_is_left_too(relay: LocalRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be anybody's: an address in an invite, or of a peer. It is not called on for ever."""
    monkeypatch.setattr(limits, "RELAY_IDLE_S", 0.05)
    async with nodes([], []) as (alice, _):
        with pytest.raises(ConnectionError):
            await alice.connect(BOB.pubkey_hex, "ws://127.0.0.1:1", 0)
        await soon(lambda: not alice.streams.lines)


@aio
async def test_links_live_while_one_relay_is_left_and_messages_come_once(relays: list[LocalRelay]) -> None:
    urls = [one.url for one in relays]
    async with nodes(urls, urls) as (alice, bob):
        await alice.connect(BOB.pubkey_hex, urls[0], 0)
        await sink(bob).hears("connected")
        for n, relay in enumerate(relays[:2]):
            await says(alice, bob, b"before %d" % n)
            relay.kill()
            await says(alice, bob, b"after %d" % n)
            await says(bob, alice, b"back %d" % n)
        assert sink(bob).envelopes == [b"before 0", b"after 0", b"before 1", b"after 1"]
        assert sink(alice).errors == sink(bob).errors == []


@aio
async def test_what_came_by_one_relay_is_not_taken_again_from_another() -> None:
    """THREATS.md R2: neither is it decrypted again."""
    taken: list[bytes] = []
    streams = RelayStreams(ALICE, (), lambda stream, url: None, 1.0, letters=lambda part, line: taken.append(part))
    streams.start()
    now = streams.now_s()
    inbox = inbox_of(ALICE.public, now // limits.RELAY_PERIOD_S)
    event = wrap(MAIL, b"part", inbox, now_s=now, expires_s=now + 60, secret=secret("one"), nonce=secret("nonce"))
    line = cast(RelayLine, None)
    for url in ("wss://one.example", "wss://two.example"):
        reader = Reader(url, streams, streams.inboxes, lambda _: None, partial(streams.delivered, line))
        reader.take(msgspec.json.encode(("EVENT", LETTERS, event)).decode())
    assert taken == [b"part"]
    assert len(streams._seen) == 1
    await streams.stop()


def ids(relay: HostileRelay) -> set[str]:
    return {event["id"] for event in relay.behaviour.events}


@aio
async def test_each_message_is_at_every_relay_of_the_link_and_says_when_it_expires() -> None:
    first, second = (HostileRelay(Behaviour()) for _ in range(2))
    async with first.running(), second.running():
        urls = [first.url, second.url]
        async with nodes(urls, urls) as (alice, bob):
            for line in (*alice.streams.lines, *bob.streams.lines):
                await line.ready()
            await alice.connect(BOB.pubkey_hex, urls[0], 0)
            for n in range(5):
                await says(alice, bob, b"message %d" % n)
                await says(bob, alice, b"answer %d" % n)
            await soon(lambda: ids(first) == ids(second))
            assert len(ids(first)) > 10
    for event in first.behaviour.events:
        assert event["tags"][1] == ["expiration", str(event["created_at"] + limits.RELAY_TTL_S)]


@aio
async def test_a_relay_that_comes_back_carries_what_waited_at_once() -> None:
    hostile = HostileRelay(Behaviour())
    async with hostile.running():
        url = hostile.url
        async with nodes([url], [url]) as (alice, bob):
            await alice.connect(BOB.pubkey_hex, url, 0)
            await says(alice, bob, b"before")
            for client in list(hostile.clients):
                client.cut()
            await says(alice, bob, b"after")
            assert sink(alice).errors == []


# --- what a relay or a stranger can try -------------------------------------------------------------------------------


@aio
async def test_a_restarted_node_says_that_it_knows_nothing_of_an_old_link(relay: LocalRelay) -> None:
    async with nodes([relay.url], [relay.url]) as (alice, bob):
        await alice.connect(BOB.pubkey_hex, relay.url, 0)
        await sink(bob).hears("connected")
        for stream in list(bob.streams._streams.values()):
            stream.drop()  # as a process does that is killed
        await alice.send(BOB.pubkey_hex, b"are you there?")
        await sink(alice).hears("closed")
        assert isinstance(sink(alice).errors[0], ConnectionError)
        bob._links.clear()
        bob.slots.inbound.clear()


@aio
async def test_a_recorded_beginning_does_not_open_a_link_again(relay: LocalRelay) -> None:
    async with nodes([relay.url], [relay.url]) as (alice, bob):
        said: list[Segment] = []
        send = alice.streams.send
        alice.streams.send = lambda segment, *where: (said.append(segment), send(segment, *where))[1]  # type: ignore[method-assign]
        await alice.connect(BOB.pubkey_hex, relay.url, 0)
        await sink(bob).hears("connected")
        await alice.disconnect(BOB.pubkey_hex)
        await sink(bob).hears("closed")
        hello = said[0]
        assert hello.flags & DIALLER
        assert len(hello.data) == 50, "act one, as it was"
        bob.streams._unknown(hello, bob.streams.lines[0])
        assert not bob.streams._streams
        assert not bob.slots.half_open


@aio
async def test_a_relay_that_sends_us_elsewhere_is_not_followed() -> None:
    async with HostileRelay(Behaviour()).running() as victim:
        redirects = BEHAVIOURS["sends us elsewhere"]()
        redirects.VICTIM = victim.url  # type: ignore[attr-defined]
        async with HostileRelay(redirects).running() as hostile, nodes([hostile.url]) as (alice,):
            await soon(lambda: alice.streams.lines[0]._failures >= 1)
            assert victim.count == 0


@aio
async def test_strangers_never_hold_more_than_the_half_open_slots_and_the_newest_gets_one(relay: LocalRelay) -> None:
    carrier = RelayCarrier()
    slots = replace(SLOW, half_open_slots=2)
    async with nodes([relay.url], [relay.url], limits=slots) as (alice, bob):
        for _ in range(5):
            end = await carrier.raw_dial(bob)
            end.send(b"\0")
        await sink(bob).hears("refused", 3)
        assert len(bob.slots.half_open) == 2
        await alice.connect(BOB.pubkey_hex, relay.url, 0)
        assert len(bob.slots.half_open) <= 2
        await carrier.unlisten()


@aio
async def test_a_node_without_room_says_so(relay: LocalRelay) -> None:
    async with nodes([relay.url], [relay.url], limits=replace(PATIENT, inbound_slots=1)) as (alice, bob):
        await alice.connect(BOB.pubkey_hex, relay.url, 0)
        await sink(bob).hears("connected")
        await alice.connect(BOB.pubkey_hex, relay.url, 0)
        await sink(alice).hears("closed")
        assert sink(alice).goodbyes == [CloseReceived(CloseCode.GOING_AWAY, "others need this slot")]


@aio
async def test_resets_for_unknown_links_are_few(relay: LocalRelay) -> None:
    async with nodes([relay.url]) as (alice,):
        line = alice.streams.lines[0]
        await line.ready()
        sent: list[str] = []
        line.publish = lambda frame, event_id: sent.append(frame)  # type: ignore[method-assign]
        for n in range(200):
            alice.streams._unknown(Segment(DATA, n.to_bytes(16), BOB.pubkey, 5), line)
            alice.streams._unknown(Segment(RESET, n.to_bytes(16), BOB.pubkey), line)
        assert 1 <= len(sent) <= 1 + limits.RELAY_RESETS_PER_S


# --- inboxes ----------------------------------------------------------------------------------------------------------


@aio
async def test_an_inbox_is_read_under_the_names_of_all_days_that_letters_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that differ by a day still meet; and at midnight the names change."""
    behaviour = Behaviour()
    async with HostileRelay(behaviour).running() as hostile, nodes([hostile.url]) as (alice,):
        await soon(lambda: hostile.clients and hostile.clients[0].inboxes)
        today = alice.streams.now_s() // limits.RELAY_PERIOD_S
        client = hostile.clients[0]
        assert set(client.inboxes) == {inbox_of(ALICE.public, today + n).hex() for n in range(-limits.LETTER_DAYS, 2)}
        tomorrow = alice.streams.now_s() + limits.RELAY_PERIOD_S
        monkeypatch.setattr(alice.streams, "now_s", lambda: tomorrow)
        alice.streams._turn_page()
        await soon(lambda: inbox_of(ALICE.public, today + 2).hex() in client.inboxes)
        days = range(1 - limits.LETTER_DAYS, 3)
        assert set(client.inboxes) == {inbox_of(ALICE.public, today + n).hex() for n in days}


@aio
async def test_a_relay_that_asks_whose_inbox_it_is_is_asked_for_one_in_each_connection() -> None:
    """It knows one key for each. What passes live, it shows for all of them."""
    behaviour = BEHAVIOURS["wants to know whose inbox it is"]()
    async with HostileRelay(behaviour).running() as hostile, nodes([hostile.url]) as (alice,):
        today = alice.streams.now_s() // limits.RELAY_PERIOD_S
        names = [inbox_of(ALICE.public, today + n).hex() for n in (0, 1, *range(-1, -1 - limits.LETTER_DAYS, -1))]
        await soon(lambda: hostile.count == len(names) and len(hostile.clients) == 1)
        lasting = hostile.clients[0].asked
        assert (lasting["letters"]["#p"], lasting["live"]["#p"]) == (names[:1], names)
        asked = hostile.read
        assert [one["letters"]["#p"] for one in asked] == [[name] for name in names[1:]]
        assert not any("live" in one for one in asked)
        tomorrow = alice.streams.now_s() + limits.RELAY_PERIOD_S
        alice.streams.now_s = lambda: tomorrow  # type: ignore[method-assign]
        alice.streams._turn_page()
        new = inbox_of(ALICE.public, today + 1).hex()
        await soon(
            lambda: any(one.asked.get("live") and one.asked["letters"]["#p"] == [new] for one in hostile.clients)
        )


@pytest.mark.parametrize("days", [-1, 1])
@aio
async def test_nodes_whose_clocks_differ_by_a_day_meet(
    relay: LocalRelay, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nodes([relay.url], [relay.url]) as (alice, bob):
        now = alice.streams.now_s()
        monkeypatch.setattr(alice.streams, "now_s", lambda: now + days * limits.RELAY_PERIOD_S)
        await alice.connect(BOB.pubkey_hex, relay.url, 0)
        await sink(bob).hears("connected")


@aio
async def test_a_relay_sees_no_stable_key_of_anybody() -> None:
    """THREATS.md R3, over two days: what the owner of a relay holds in hand."""
    behaviour = Behaviour()
    seen: list[set[str]] = []
    async with HostileRelay(behaviour).running() as hostile:
        for day in (0, 1):
            behaviour.events.clear()
            async with nodes([hostile.url], [hostile.url]) as (alice, bob):
                for node in (alice, bob):
                    later = node.streams.now_s() + 3 * day * limits.RELAY_PERIOD_S
                    node.streams.now_s = lambda later=later: later  # type: ignore[method-assign,misc]
                    node.streams._turn_page()
                await alice.connect(BOB.pubkey_hex, hostile.url, 0)
                await says(alice, bob, b"x")
            keys = {event["pubkey"] for event in behaviour.events}
            seen.append(keys | {event["tags"][0][1] for event in behaviour.events})
    assert not seen[0] & seen[1]


def test_it_prints_no_secret() -> None:
    node = RelayTransport(Identity.from_secret(secret("quiet")), Recorder(), relays=["wss://relay.example"])
    assert secret("quiet").hex() not in repr(vars(node.streams))


@aio
async def test_stopping_in_the_middle_of_everything_leaves_nothing(relay: LocalRelay) -> None:
    async with nodes([relay.url, SILENT], [relay.url], limits=SLOW) as (alice, bob):
        trying = [asyncio.ensure_future(alice.connect(one.pubkey_hex, relay.url, 0)) for one in (BOB, CAROL)]
        await sink(bob).hears("connected")
        await alice.stop()
        results = await asyncio.gather(*trying, return_exceptions=True)
        assert isinstance(results[1], Exception)
        await turns()
        assert not alice.streams._streams
