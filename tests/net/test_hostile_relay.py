"""Relays that do everything wrong that a relay can do. Each may delay what nodes say to each other, and no more."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from endpoints import Recorder, aio, soon
from relays import shared_relay

from musignet import limits
from musignet.crypto.keys import Identity
from musignet.limits import Limits
from musignet.net.transport.relay import RelayTransport
from musignet.net.transport.relayreader import Reader
from musignet.wire.relaytalk import LETTERS
from support.hostile_relay import BEHAVIOURS, Behaviour, Challenges, Client, HostileRelay
from support.keys import ALICE, BOB, secret

MESSAGES = [secret(f"message {n}") * (1 + 40 * (n % 3 == 2)) for n in range(9)]
WITHIN_S = 15.0
PATIENT = Limits(act_one_timeout_s=15, handshake_timeout_s=15, dial_timeout_s=15)


@pytest.fixture(params=BEHAVIOURS.values(), ids=BEHAVIOURS.keys())
def behaviour(request: pytest.FixtureRequest) -> Callable[[], Behaviour]:
    made: Callable[[], Behaviour] = request.param
    return made


@pytest.fixture
def honest() -> str:
    return shared_relay().url


ALONE = [name for name, make in BEHAVIOURS.items() if make().alone]


@asynccontextmanager
async def nodes(*relays: str) -> AsyncIterator[tuple[RelayTransport, RelayTransport]]:
    """Two nodes that know the same relays. Afterwards nothing of them is left."""
    made = [RelayTransport(who, Recorder(), relays=relays, limits=PATIENT) for who in (ALICE, BOB)]
    for one in made:
        await one.start()
    try:
        yield made[0], made[1]
    finally:
        for one in made:
            await one.stop()
    for one in made:
        assert not one.streams._streams
        assert (len(one.slots.inbound), one.slots.outbound, len(one.slots.half_open)) == (0, 0, 0)


def heard(node: RelayTransport) -> Recorder:
    sink = node.sink
    assert isinstance(sink, Recorder)
    return sink


async def converse(alice: RelayTransport, bob: RelayTransport, at: str) -> None:
    """Both say everything; both hear everything once, in order."""
    await dial(alice, BOB, at)
    await heard(bob).hears("connected")
    for message in MESSAGES:
        await alice.send(BOB.pubkey_hex, message)
        await bob.send(ALICE.pubkey_hex, message[::-1])
    for node, due in ((bob, MESSAGES), (alice, [message[::-1] for message in MESSAGES])):
        await heard(node).until(lambda node=node: len(heard(node).envelopes) >= len(MESSAGES), WITHIN_S)  # type: ignore[misc]
        assert heard(node).envelopes == due


async def dial(node: RelayTransport, peer: Identity, at: str) -> None:
    """As a node does: again, when it came to nothing."""
    for _ in range(3):
        try:
            await node.connect(peer.pubkey_hex, at, 0)
        except OSError:
            continue
        return
    await node.connect(peer.pubkey_hex, at, 0)


def bounded(node: RelayTransport) -> None:
    """Nothing that a relay can fill is beyond its bound."""
    streams = node.streams
    assert len(streams._seen) <= limits.RELAY_SEEN_MAX
    assert len(streams._past) <= limits.RELAY_STRAYS_MAX
    assert len(streams._lines) <= limits.RELAY_LINES_MAX
    assert len(node.slots.half_open) <= node.limits.half_open_slots
    for line in streams.lines:
        assert line._waiting.qsize() <= limits.RELAY_WAITING_MAX
        assert len(line._reader._delivered) <= limits.RELAY_SEEN_MAX


def silent_about_us(relay: HostileRelay) -> None:
    """What the relay's owner holds names nobody, repeats no sender, and comes in the agreed sizes."""
    text = json.dumps(relay.behaviour.events)
    for known in (ALICE.pubkey.hex()[2:], BOB.pubkey.hex()[2:], MESSAGES[0].hex(), MESSAGES[0].decode("latin-1")):
        assert known not in text
    events = relay.behaviour.events
    assert len({event["pubkey"] for event in events}) == len({event["id"] for event in events})
    assert len({len(json.dumps(event)) for event in events}) <= len(limits.RELAY_STEPS_BYTES)


@aio
async def test_beside_an_honest_relay_it_does_no_harm(
    behaviour: Callable[[], Behaviour], honest: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "musignet")
    async with HostileRelay(behaviour()).running() as relay, nodes(relay.url, honest) as (alice, bob):
        await converse(alice, bob, relay.url)
        for node in (alice, bob):
            bounded(node)
        silent_about_us(relay)
    lines = [record for record in caplog.records if "the relay" in record.getMessage()]
    assert len(lines) <= 2 * (1 + WITHIN_S)
    assert not any(char in record.getMessage() for record in lines for char in "\x1b\x00\n")


@pytest.mark.parametrize("name", ALONE)
@aio
async def test_where_it_delivers_anything_at_all_it_only_delays(name: str) -> None:
    async with HostileRelay(BEHAVIOURS[name]()).running() as relay, nodes(relay.url) as (alice, bob):
        await converse(alice, bob, relay.url)
        for node in (alice, bob):
            bounded(node)
        silent_about_us(relay)


def test_ends_of_subscriptions_that_nobody_asked_for_are_not_collected() -> None:
    """A relay may say so for ever, at the pace at which it is read."""
    node = RelayTransport(ALICE, Recorder())
    reader = Reader("wss://relay.example", node.streams, dict, lambda text: None, lambda event, inbox: None)
    for number in range(1000):
        reader.take(json.dumps(["EOSE", f"s{number}"]))
    reader.take(json.dumps(["EOSE", LETTERS]))
    assert reader.read == {LETTERS}


BROKEN = [
    "garbage", "binary data", "an event of 64 KiB", "a harmless message of more than 64 KiB", "an event of 16 MiB",
    "deep JSON", "deep tags", "lone surrogates",
    "numbers out of range", "events of others", "another kind of event", "another subscription",
    "challenges without end", "refusals without end", "pings without end", "ends subscriptions",
]  # fmt: skip


RULES = dict.fromkeys(BROKEN, "") | {"another subscription": "an event for another subscription"}


@pytest.mark.parametrize(("name", "rule"), RULES.items(), ids=RULES.keys())
@aio
async def test_a_relay_that_breaks_a_rule_is_left_named_and_asked_more_and_more_seldom(
    name: str, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "musignet")
    async with HostileRelay(BEHAVIOURS[name]()).running() as relay:
        node = RelayTransport(ALICE, Recorder(), relays=[relay.url])
        await node.start()
        (line,) = node.streams.lines
        await soon(lambda: line._failures >= 2, WITHIN_S)
        assert line.trouble
        await node.stop()
    assert relay.count <= 3
    assert f"the relay {relay.url} broke the rules" in caplog.text
    assert rule in caplog.text


@aio
async def test_each_pause_before_a_relay_that_breaks_the_rules_is_twice_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """THREATS.md R5: six pauses from 0.03 s on are 1.4 s together, and would be 0.2 s if they did not grow."""
    monkeypatch.setattr(limits, "RELAY_BACKOFF_S", (0.03, 0.5))
    clock = asyncio.get_running_loop().time
    async with HostileRelay(BEHAVIOURS["garbage"]()).running() as relay:
        node = RelayTransport(ALICE, Recorder(), relays=[relay.url])
        began = clock()
        await node.start()
        await soon(lambda: relay.count == 7, WITHIN_S)
        assert clock() - began > 0.9
        await node.stop()


class StallsOnVisits(Challenges):
    """It shows nothing of other days, and does not say so."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        if client.number == 1:
            await super().subscribed(client, subscription)


@aio
async def test_a_day_that_a_relay_does_not_show_keeps_nobody_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """THREATS.md R5."""
    monkeypatch.setattr(limits, "RELAY_VISIT_S", 0.05)
    async with HostileRelay(StallsOnVisits()).running() as relay:
        node = RelayTransport(ALICE, Recorder(), relays=[relay.url])
        await node.start()
        days = len(node.streams.inboxes())
        await soon(lambda: relay.count == days, WITHIN_S)
        await node.stop()


@aio
async def test_a_relay_whose_pings_took_days_has_broken_no_rule(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "RELAY_PINGS_S", 0.0)
    caplog.set_level(logging.WARNING, "musignet")
    async with HostileRelay(BEHAVIOURS["pings without end"]()).running() as relay:
        node = RelayTransport(ALICE, Recorder(), relays=[relay.url])
        await node.start()
        (line,) = node.streams.lines
        await soon(lambda: line._failures, WITHIN_S)
        await node.stop()
    assert "is not reached: after so many pings it is made anew" in caplog.text
    assert "broke the rules" not in caplog.text


class Chatters(Behaviour):
    """It says a second's worth more than is read at once, and then that it serves nobody."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        for number in range(limits.RELAY_EVENTS_BURST + int(limits.RELAY_EVENTS_PER_S)):
            await client.say("NOTICE", f"{number}")
        await client.say("CLOSED", subscription, "go away")


@aio
async def test_what_comes_faster_than_50_messages_a_second_waits_in_its_connection() -> None:
    """THREATS.md R5: a burst is read at once, the rest at the pace, however fast the relay speaks."""
    clock = asyncio.get_running_loop().time
    async with HostileRelay(Chatters()).running() as relay:
        node = RelayTransport(ALICE, Recorder(), relays=[relay.url])
        began = clock()
        await node.start()
        await soon(lambda: bool(relay.read), WITHIN_S)
        assert clock() - began > 0.9
        await node.stop()


def test_there_are_many_of_them() -> None:
    assert len(BEHAVIOURS) > 40
