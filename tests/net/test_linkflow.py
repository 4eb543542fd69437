"""The flow of a link: read no faster than its gauge allows, losing nothing; a peer that does not read; our own pace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from endpoints import CARRIERS, FREELY, Carrier, Recorder, Rogue, aio, passed, turns

from musignet.errors import Timeout
from musignet.limits import FRAME_MIN_COST_BYTES, KIB, LINK_FRAMES_MAX, MIB, Limits
from musignet.net.transport.base import Connection
from musignet.net.transport.link import ChannelLink
from musignet.wire.channel import SecureChannel
from musignet.wire.messages import Priority
from support.channels import drain, wire
from support.keys import ALICE, BOB, CAROL

LINK = Limits(slow_reader_timeout_s=0.2)


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()


class Two:
    """Alice, who may send anything, and Bob, who counts. `near` and `far` are the two ends of their link."""

    near: ChannelLink
    far: ChannelLink

    def __init__(self, carrier: Carrier, near: Limits, far: Limits, link: Limits) -> None:
        self.alice, self.bob = Recorder(near), Recorder(far)
        self.dialler = carrier.transport(ALICE, self.alice, limits=link)
        self.listener = carrier.transport(BOB, self.bob, limits=link)


@asynccontextmanager
async def two(
    carrier: Carrier, *, near: Limits = FREELY, far: Limits = FREELY, link: Limits = LINK
) -> AsyncIterator[Two]:
    both = Two(carrier, near, far, link)
    await both.dialler.start()
    await both.listener.start()
    try:
        both.near = await both.dialler.connect(BOB.pubkey_hex, carrier.host, both.listener.port)  # type: ignore[attr-defined]
        await both.bob.hears("connected")
        both.far = both.bob.connections[0]  # type: ignore[assignment]
        yield both
    finally:
        await both.dialler.stop()
        await both.listener.stop()


def say(link: Connection, *envelopes: bytes, priority: int = Priority.BULK) -> None:
    for envelope in envelopes:
        link.send(envelope, priority)
    link.flush()


def numbered(count: int, size: int = 100) -> list[bytes]:
    return [n.to_bytes(4, "big") + bytes(size - 4) for n in range(count)]


# --- reading ----------------------------------------------------------------------------------------------------------


@aio
async def test_what_comes_too_fast_waits_and_all_of_it_arrives_in_order(carrier: Carrier) -> None:
    limits = replace(FREELY, peer_messages_per_s=200.0, peer_burst_messages=20)
    async with two(carrier, far=limits) as both:
        began = asyncio.get_running_loop().time()
        sent = numbered(100)
        say(both.near, *sent)
        await both.bob.hears("received", 20)
        await turns(20)
        assert 20 <= len(both.bob.envelopes) < 40, "a burst, and what has flowed in since"
        await both.bob.hears("received", 100)
        assert both.bob.envelopes == sent
        assert asyncio.get_running_loop().time() - began >= 80 / 200 * 0.95
        gauge = both.far.gauge
        assert gauge is not None
        assert gauge.messages_in == 100
        assert gauge.held_s > 0.3


@pytest.mark.parametrize("kind", ["tcp", "tcp on uvloop"])
@aio
async def test_what_comes_together_with_act_three_is_taken_no_faster(kind: str) -> None:
    carrier, bob = CARRIERS[kind](), Recorder(replace(FREELY, peer_messages_per_s=200.0, peer_burst_messages=20))
    listener = carrier.transport(BOB, bob, limits=LINK)
    await listener.start()
    end = await carrier.raw_dial(listener)
    channel = SecureChannel(carrier.initiator(ALICE, BOB.public, bytes(31) + b"\1", end))
    end.send(wire(channel))
    await end.until(lambda: len(end.received) == carrier.acts[1])
    channel.receive_data(end.take())
    drain(channel)
    for envelope in numbered(100):
        channel.send(envelope)
    end.send(wire(channel))
    await bob.hears("received", 20)
    await turns(20)
    assert 20 <= len(bob.envelopes) < 40, "not what one read brings"
    await bob.hears("received", 100)
    await listener.stop()


@aio
async def test_bytes_are_bounded_too(carrier: Carrier) -> None:
    limits = replace(FREELY, peer_bytes_per_s=MIB, peer_burst_bytes=64 * KIB)
    async with two(carrier, far=limits) as both:
        began = asyncio.get_running_loop().time()
        say(both.near, bytes(512 * KIB))
        await both.bob.hears("received")
        say(both.near, b"the debt is paid first")
        await both.bob.hears("received", 2)
        assert asyncio.get_running_loop().time() - began >= 448 / 1024 * 0.95


@aio
async def test_a_peer_that_is_held_back_costs_the_others_nothing(carrier: Carrier) -> None:
    limits = replace(FREELY, peer_messages_per_s=1.0, peer_burst_messages=2)
    async with two(carrier, far=limits) as both:
        carol = carrier.transport(CAROL, Recorder())
        await carol.start()
        link = await carol.connect(BOB.pubkey_hex, carrier.host, both.listener.port)  # type: ignore[attr-defined]
        say(both.near, *numbered(50))
        await both.bob.hears("received", 2)
        say(link, b"carol")
        await both.bob.until(lambda: b"carol" in both.bob.envelopes)
        assert len(both.bob.envelopes) < 10
        await carol.stop()


@aio
async def test_the_owners_pause_and_the_rates_do_not_undo_each_other(carrier: Carrier) -> None:
    limits = replace(FREELY, peer_messages_per_s=100.0, peer_burst_messages=1)
    async with two(carrier, far=limits) as both:
        say(both.near, *numbered(10))
        await both.bob.hears("received")
        both.far.resume_reading()
        await turns(5)
        assert len(both.bob.envelopes) < 10, "nobody had paused, so nothing goes on"
        both.far.pause_reading()
        await passed(0.1)
        held = len(both.bob.envelopes)
        await passed(0.1)
        assert len(both.bob.envelopes) == held < 10, "the bucket is full again, and the owner has not said so"
        both.far.resume_reading()
        await both.bob.hears("received", 10)
        assert both.bob.envelopes == numbered(10)


@aio
async def test_a_goodbye_behind_a_flood_is_heard_after_all_of_it(carrier: Carrier) -> None:
    limits = replace(FREELY, peer_messages_per_s=500.0, peer_burst_messages=10)
    async with two(carrier, far=limits, link=replace(LINK, stop_timeout_s=5.0)) as both:
        say(both.near, *numbered(60))
        both.near.close(text="enough")
        await both.bob.hears("closed")
        assert both.bob.envelopes == numbered(60)
        assert both.bob.goodbyes[0] is not None


@aio
async def test_a_flood_of_empty_frames_is_held_back(carrier: Carrier) -> None:
    """Each costs as much to open as half a kilobyte, and counts as that."""
    async with two(carrier) as both:
        rogue = await Rogue.dial(carrier, both.listener, CAROL, BOB.public)
        await both.bob.hears("connected", 2)
        gauge = both.bob.gauge(CAROL.pubkey)
        gauge._meter.bytes_per_s, gauge._meter.level_bytes = 1e6, 10 * FRAME_MIN_COST_BYTES
        for _ in range(40):
            rogue.channel.acknowledge(bytes(16))
            rogue.flush()
        await both.bob.until(lambda: gauge.held_s > 0)
        rogue.end.close()


# --- a peer that does not read ----------------------------------------------------------------------------------------


@aio
async def test_a_peer_that_takes_nothing_is_dropped_in_time(carrier: Carrier) -> None:
    async with two(carrier) as both:
        both.far.pause_reading()
        loop = asyncio.get_running_loop()
        began = loop.time()
        say(both.near, *(bytes(MIB) for _ in range(16)))
        await both.alice.hears("closed")
        assert isinstance(both.alice.errors[0], Timeout)
        assert "took hardly anything of what it was sent for 0.2 s" in str(both.alice.errors[0])
        assert loop.time() - began < 3.0
        both.far.resume_reading()


@aio
async def test_a_slow_reader_that_reads_is_kept(carrier: Carrier) -> None:
    async with two(carrier, link=replace(LINK, slow_reader_timeout_s=0.4)) as both:
        say(both.near, *(bytes((n,)) * MIB for n in range(16)))
        for _ in range(40):
            both.far.pause_reading()
            await passed(0.02)
            both.far.resume_reading()
            await turns(4)
        await both.bob.hears("received", 16)
        assert both.alice.errors == []


async def clog(link: ChannelLink) -> None:
    """Fill a link until it takes nothing for longer than a kernel delays an acknowledgement."""
    clock = asyncio.get_running_loop().time
    since = clock()
    while clock() - since < 0.3:
        if not link._clogged:
            say(link, bytes(MIB))
            since = clock()
        await turns(30)


@aio
async def test_whoever_does_not_read_our_answers_is_read_no_further(carrier: Carrier) -> None:
    async with two(carrier, link=replace(LINK, slow_reader_timeout_s=60.0, slow_reader_messages=12)) as both:
        both.near.pause_reading()
        await clog(both.far)
        both.bob.on_received = lambda link: say(link, b"pong", priority=Priority.CONTROL)
        for n in range(40):
            say(both.near, numbered(40)[n])
            await turns(3)
        await both.bob.hears("received", 12)
        await turns(20)
        assert len(both.bob.envelopes) < 40
        assert both.far._channel.answers_waiting[0] >= 12
        both.near.resume_reading()
        await both.bob.hears("received", 40)
        assert both.bob.envelopes == numbered(40)
        await both.alice.until(lambda: both.alice.envelopes.count(b"pong") >= 12)


@aio
async def test_answers_beyond_their_bytes_end_the_link(carrier: Carrier) -> None:
    async with two(carrier, link=replace(LINK, slow_reader_timeout_s=60.0, slow_reader_max_bytes=1000)) as both:
        both.near.pause_reading()
        await clog(both.far)
        both.bob.on_received = lambda link: link.send(bytes(1001), Priority.CONTROL)
        say(both.near, b"ping")
        await both.bob.hears("closed")
        assert isinstance(both.bob.errors[0], Timeout)
        assert "of answers wait for a peer that does not read them" in str(both.bob.errors[0])
        both.near.resume_reading()


@aio
async def test_two_that_send_bulk_to_each_other_do_not_wait_for_each_other(carrier: Carrier) -> None:
    async with two(carrier, link=replace(LINK, slow_reader_timeout_s=10.0)) as both:
        bulk = [bytes((n,)) * MIB for n in range(12)]
        for sink in (both.alice, both.bob):
            sink.on_received = lambda link: link.acknowledge(bytes(16))
        say(both.near, *bulk)
        say(both.far, *bulk)
        await both.bob.hears("received", 12)
        await both.alice.hears("received", 12)
        assert both.alice.envelopes == both.bob.envelopes == bulk


# --- our own pace -----------------------------------------------------------------------------------------------------


@aio
async def test_a_configured_pace_holds_and_a_round_does_not_wait_for_it(carrier: Carrier) -> None:
    near = replace(FREELY, peer_send_bytes_per_s=256 * KIB)
    async with two(carrier, near=near) as both:
        loop = asyncio.get_running_loop()
        began = loop.time()
        say(both.near, bytes(256 * KIB))
        await turns(20)
        say(both.near, b"partial", priority=Priority.ROUND_2)
        await both.bob.hears("received")
        assert both.bob.envelopes == [b"partial"]
        assert loop.time() - began < 0.3
        await both.bob.hears("received", 2)
        assert loop.time() - began >= 0.5
        gauge = both.near.gauge
        assert gauge is not None
        assert gauge.bytes_out > 256 * KIB


@aio
async def test_closing_does_not_wait_for_the_pace(carrier: Carrier) -> None:
    near = replace(FREELY, total_send_bytes_per_s=1000)
    async with two(carrier, near=near) as both:
        say(both.near, *numbered(100))
        both.near.close()
        await both.bob.hears("closed")
        assert both.bob.envelopes == numbered(100)


# --- priorities -------------------------------------------------------------------------------------------------------


@aio
async def test_a_partial_signature_never_waits_behind_a_psbt_of_4_mib(carrier: Carrier) -> None:
    """It is sent while three are queued, and arrives before all that the carrier has not taken yet."""
    async with two(carrier, link=replace(LINK, slow_reader_timeout_s=60.0)) as both:
        psbts = [bytes((n,)) * (4 * MIB - 1) for n in range(5)]
        both.far.pause_reading()
        say(both.near, *psbts)
        await turns(50)
        queued = both.near._channel.queued_bytes
        assert queued > 8 * MIB, "most of it waits where it can be overtaken"
        say(both.near, b"partial", priority=Priority.ROUND_2)
        both.far.resume_reading()
        await both.bob.hears("received", 6)
        behind = both.bob.envelopes[both.bob.envelopes.index(b"partial") :]
        assert sum(map(len, behind)) >= queued


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this kernel cannot be told")
@pytest.mark.parametrize("carrier", ["tcp", "tcp on uvloop"], indirect=True)
@aio
async def test_the_kernel_takes_little_ahead_of_a_slow_network(carrier: Carrier) -> None:
    """Megabytes in the kernel's own buffer could not be overtaken any more."""
    async with two(carrier, link=replace(LINK, slow_reader_timeout_s=60.0)) as both:
        raw: Any = both.far._stream.get_extra_info("socket")  # type: ignore[attr-defined]
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * KIB)
        both.far.pause_reading()
        say(both.near, *(bytes(MIB) for _ in range(12)))
        await passed(0.2)
        taken = 12 * MIB - both.near._channel.queued_bytes
        assert taken < MIB
        both.far.resume_reading()
        await both.bob.hears("received", 12)


# --- the end of a link's life -----------------------------------------------------------------------------------------


@aio
async def test_a_link_that_has_carried_all_it_may_says_goodbye(carrier: Carrier) -> None:
    """THREATS.md T15, with counters set near their end."""
    async with two(carrier) as both:
        for channel in (both.near._channel, both.far._channel):
            channel.frames_sent = channel.frames_received = LINK_FRAMES_MAX - 20
        say(both.near, *numbered(19, 10))
        await both.bob.hears("received", 19)
        assert both.bob.goodbyes == []
        say(both.near, *numbered(3, 10))
        await both.bob.hears("closed")
        await both.alice.hears("closed")
        assert both.bob.envelopes == numbered(19, 10) + numbered(3, 10), "nothing of it was lost"
        (goodbye,) = [one for one in (*both.alice.goodbyes, *both.bob.goodbyes) if one is not None]
        assert goodbye.text == "this link has carried all it may; dial again"
