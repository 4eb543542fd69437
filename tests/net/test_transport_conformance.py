"""One suite for every carrier over a byte stream. Each test has two real ends, or one and raw bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from endpoints import CARRIERS, Carrier, RawEnd, Recorder, Rogue, aio, all_of, flipped, passed, turns
from holes import PunchedCarrier
from relays import RelayCarrier

from musignet.crypto.keys import Identity
from musignet.errors import (
    AuthenticationError,
    ConnectionError,
    IoError,
    LocalError,
    NetworkError,
    PeerNotFound,
    ReceiveError,
    SendError,
    Timeout,
    TransportError,
)
from musignet.limits import KIB, MESSAGE_MAX_BYTES, MIB, Limits
from musignet.net.transport import Transport
from musignet.net.transport.link import ChannelTransport
from musignet.net.transport.quic import Stream
from musignet.wire.channel import CloseReceived, SecureChannel
from musignet.wire.messages import CloseCode, Priority
from musignet.wire.noise import HandshakeError
from support.channels import drain, wire
from support.keys import ALICE, BOB, CAROL, secret

SHORT = Limits(act_one_timeout_s=0.05, handshake_timeout_s=0.05, frame_timeout_s=0.05, stop_timeout_s=0.05)
SLOW = Limits(act_one_timeout_s=60, handshake_timeout_s=60)
ID = b"i" * 16


@pytest.fixture(params=[*CARRIERS.values(), RelayCarrier, PunchedCarrier], ids=[*CARRIERS.keys(), "relay", "punched"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    made: Carrier = request.param()
    return made


LISTENERS = pytest.mark.parametrize("carrier", CARRIERS.values(), ids=CARRIERS.keys(), indirect=True)
"""Where a stream is accepted before its first byte. Nobody listens at a relay, or before an offer: `test_relay.py` and
`test_punched.py` have what is so there."""

AT_ONCE = pytest.mark.parametrize(
    "carrier", [*CARRIERS.values(), RelayCarrier], ids=[*CARRIERS.keys(), "relay"], indirect=True
)
"""Where one peer may dial many times at once. Of its offers one is answered at a time."""


class End:
    """A transport and its sink."""

    def __init__(self, carrier: Carrier, identity: Identity, limits: Limits, host: str | None = None) -> None:
        self.sink = Recorder()
        self.key = identity.pubkey_hex
        self.identity = identity
        self.carrier = carrier
        self.transport = carrier.transport(identity, self.sink, host, limits=limits)

    @property
    def port(self) -> int:
        return self.transport.port  # type: ignore[attr-defined, no-any-return]

    async def dial(self, other: End, *, key: str = "") -> Any:
        return await self.transport.connect(key or other.key, self.carrier.host, other.port)

    def slots(self) -> tuple[int, int, int, int]:
        """Return what is taken: inbound, outbound, half open, prefixes."""
        mine = self.transport.slots
        return (len(mine.inbound), mine.outbound, len(mine.half_open), mine.prefixes)


@asynccontextmanager
async def ends(
    carrier: Carrier, *identities: Identity, limits: Limits | None = None, **each: Limits
) -> AsyncIterator[tuple[End, ...]]:
    """Return started transports. Afterwards all are stopped, and must have given every slot back."""
    made = tuple(End(carrier, who, each.get(f"l{n}", limits or Limits())) for n, who in enumerate(identities))
    for end in made:
        await end.transport.start()
    try:
        yield made
    finally:
        for end in made:
            await end.transport.stop()
    await turns()
    for end in made:
        assert end.slots() == (0, 0, 0, 0)
        assert end.transport._budget.held_bytes == 0


@asynccontextmanager
async def linked(carrier: Carrier, limits: Limits | None = None, **each: Limits) -> AsyncIterator[tuple[End, End]]:
    """Return two connected transports, the dialler first."""
    async with ends(carrier, ALICE, BOB, limits=limits, **each) as (alice, bob):
        await alice.dial(bob)
        await bob.sink.hears("connected")
        yield alice, bob


# --- the seven calls --------------------------------------------------------------------------------------------------


@aio
async def test_both_ends_hear_the_life_of_a_link_in_order(carrier: Carrier) -> None:
    async with linked(carrier) as (alice, bob):
        near, far = alice.sink.connections[0], bob.sink.connections[0]
        assert (near.outbound, far.outbound) == (True, False)
        assert (near.peer.compressed, far.peer.compressed) == (BOB.pubkey, ALICE.pubkey)
        assert near.number != far.number
        assert near.transcript == far.transcript
        assert len(near.transcript) == 32
        assert re.fullmatch(carrier.place(bob.port), near.address)
        await alice.transport.send(bob.key, b"one")
        await alice.transport.send(bob.key, b"two")
        await bob.sink.hears("received", 2)
        far.acknowledge(ID)
        far.flush()
        await alice.sink.hears("acknowledged")
        await bob.transport.send(alice.key, b"back")
        await alice.sink.hears("received")
        await alice.transport.disconnect(bob.key)
        await bob.sink.hears("closed")
        await alice.sink.hears("closed")
        assert alice.sink.heard == [
            ("connected", BOB.pubkey),
            ("acknowledged", ID),
            ("received", b"back"),
            ("closed", near),
        ]
        assert bob.sink.heard == [
            ("connected", ALICE.pubkey),
            ("received", b"one"),
            ("received", b"two"),
            ("closed", far),
        ]
        assert (alice.sink.errors, alice.sink.goodbyes) == ([None], [None])
        assert (bob.sink.errors, bob.sink.goodbyes) == ([None], [CloseReceived(CloseCode.DONE, "")])
        assert alice.transport.connected_peers() == bob.transport.connected_peers() == []


@aio
async def test_connect_returns_after_the_sink_heard_of_the_link(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB) as (alice, bob):
        link = await alice.dial(bob)
        assert alice.sink.connections == [link]


@aio
async def test_it_is_a_transport_and_says_who_is_connected(carrier: Carrier) -> None:
    async with linked(carrier) as (alice, bob):
        assert isinstance(alice.transport, Transport)
        assert alice.transport.is_connected(bob.key)
        assert not alice.transport.is_connected(CAROL.pubkey_hex)
        assert alice.transport.connected_peers() == [bob.key]
        assert bob.transport.connected_peers() == [alice.key]


@aio
async def test_a_broadcast_reaches_every_connected_peer_once(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, CAROL) as (alice, bob, carol):
        assert await alice.transport.broadcast(b"nobody") == 0
        await alice.dial(bob)
        await alice.dial(bob)
        await alice.dial(carol)
        await bob.sink.hears("connected", 2)
        assert await alice.transport.broadcast(b"all") == 2
        await bob.sink.hears("received")
        await carol.sink.hears("received")
        await turns()
        assert bob.sink.envelopes == carol.sink.envelopes == [b"all"]


@aio
async def test_disconnect_closes_every_link_to_that_peer_and_no_other(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, CAROL) as (alice, bob, carol):
        for other in (bob, bob, carol):
            await alice.dial(other)
        await bob.sink.hears("connected", 2)
        await alice.transport.disconnect(bob.key)
        await bob.sink.hears("closed", 2)
        assert bob.sink.goodbyes == [CloseReceived(CloseCode.DONE, "")] * 2
        await alice.sink.hears("closed", 2)
        await alice.transport.disconnect(bob.key)
        assert alice.transport.connected_peers() == [carol.key]


@aio
async def test_sending_to_nobody_or_too_much_is_refused(carrier: Carrier) -> None:
    async with linked(carrier) as (alice, bob):
        with pytest.raises(PeerNotFound, match=r"no link to key .*; connect first"):
            await alice.transport.send(CAROL.pubkey_hex, b"x")
        for send in (alice.transport.send(bob.key, bytes(MESSAGE_MAX_BYTES + 1)),
                     alice.transport.broadcast(bytes(MESSAGE_MAX_BYTES + 1))):  # fmt: skip
            with pytest.raises(SendError, match="message too large"):
                await send
        await alice.transport.send(bob.key, b"still up")
        await bob.sink.hears("received")


@pytest.mark.parametrize("key", ["", "zz", "00" * 33])
@aio
async def test_a_peer_is_named_by_a_key(carrier: Carrier, key: str) -> None:
    async with ends(carrier, ALICE, BOB) as (alice, bob):
        with pytest.raises(AuthenticationError, match="not a public key"):
            await alice.dial(bob, key=key or "0")
        for call in (alice.transport.send(key, b"x"), alice.transport.disconnect(key)):
            with pytest.raises(AuthenticationError):
                await call
        with pytest.raises(AuthenticationError):
            alice.transport.is_connected(key)


@aio
async def test_what_is_not_running_does_not_dial_and_starts_once(carrier: Carrier) -> None:
    alice, bob = End(carrier, ALICE, Limits()), End(carrier, BOB, Limits())
    await alice.transport.stop()
    await bob.transport.start()
    with pytest.raises(TransportError, match="not running; call start first"):
        await alice.dial(bob)
    await alice.transport.start()
    with pytest.raises(TransportError, match="runs already"):
        await alice.transport.start()
    await alice.transport.stop()
    await alice.transport.stop()
    with pytest.raises(TransportError, match="not running"):
        await alice.dial(bob)
    await bob.transport.stop()


@LISTENERS
@aio
async def test_an_address_belongs_to_one_transport_at_a_time(carrier: Carrier) -> None:
    async with ends(carrier, ALICE) as (alice,):
        second = carrier.transport(BOB, Recorder(), port=alice.port)
        with pytest.raises(IoError, match=f"cannot listen on {carrier.host}:{alice.port}: .*port 0 picks"):
            await second.start()
        await second.stop()
    again = carrier.transport(BOB, Recorder(), port=alice.port)
    await again.start()
    await again.stop()


@aio
async def test_without_a_host_it_only_dials(carrier: Carrier) -> None:
    dialler = End(carrier, CAROL, Limits(), host="")
    await dialler.transport.start()
    async with ends(carrier, ALICE) as (alice,):
        await dialler.dial(alice)
        await alice.sink.hears("connected")
        await dialler.transport.stop()
        await alice.sink.hears("closed")


# --- dials that come to nothing ---------------------------------------------------------------------------------------


@LISTENERS
@aio
async def test_dialling_nobody_is_a_connection_error(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB) as (alice, bob):
        await bob.transport.stop()
        with pytest.raises(ConnectionError, match=f"cannot reach {carrier.host}:{bob.port}: .*is the node running"):
            await alice.dial(bob)
        assert alice.slots() == (0, 0, 0, 0)
        assert alice.sink.heard == []


@pytest.mark.parametrize(
    ("host", "port"), [("a" * 64 + ".example", 9), ("bad..name", 9), ("nul\0", 9), (None, 70_000), (None, -1)]
)
@aio
async def test_an_address_that_is_none_is_a_typed_error(carrier: Carrier, host: str | None, port: int) -> None:
    async with ends(carrier, ALICE) as (alice,):
        with pytest.raises(NetworkError):
            await alice.transport.connect(BOB.pubkey_hex, carrier.host if host is None else host, port)
        assert alice.slots() == (0, 0, 0, 0)


@LISTENERS
@aio
async def test_the_wrong_static_key_gives_both_sides_an_authentication_error(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB) as (alice, bob):
        with pytest.raises(AuthenticationError, match="closed during the handshake; it may not know our key"):
            await alice.dial(bob, key=CAROL.pubkey_hex)
        await bob.sink.hears("refused")
        (error,) = bob.sink.refusals
        assert isinstance(error, HandshakeError)
        assert error.reason == "ACT1_BAD_TAG"
        assert alice.sink.heard == []
        assert bob.sink.words == ["refused"]
        assert bob.slots() == (0, 0, 0, 0)


@pytest.mark.parametrize("after_act_one", [False, True])
@aio
async def test_a_peer_that_closes_during_the_handshake_gives_authentication_error(
    carrier: Carrier, after_act_one: bool
) -> None:
    async def close_later(end: RawEnd) -> None:
        await end.until(lambda: len(end.received) >= carrier.acts[0] * after_act_one)
        end.close()

    tasks: list[asyncio.Task[None]] = []
    port = await carrier.raw_listen(lambda end: tasks.append(asyncio.ensure_future(close_later(end))))
    async with ends(carrier, ALICE) as (alice,):
        with pytest.raises(AuthenticationError, match="closed during the handshake"):
            await alice.transport.connect(BOB.pubkey_hex, carrier.host, port)
        assert alice.sink.heard == []
        await asyncio.gather(*tasks)
    await carrier.unlisten()


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\1"])
@aio
async def test_an_answer_that_is_no_act_two_gives_authentication_error(carrier: Carrier, begins: bytes) -> None:
    accepted: list[RawEnd] = []
    answers: list[asyncio.Task[None]] = []

    async def answer_later(end: RawEnd) -> None:
        await end.until(lambda: len(end.received) >= carrier.acts[0])
        end.send(begins.ljust(carrier.acts[1], b"\0"))

    def answer(end: RawEnd) -> None:
        accepted.append(end)
        answers.append(asyncio.ensure_future(answer_later(end)))

    port = await carrier.raw_listen(answer)
    async with ends(carrier, ALICE) as (alice,):
        with pytest.raises(HandshakeError, match="the handshake failed"):
            await alice.transport.connect(BOB.pubkey_hex, carrier.host, port)
        await accepted[0].closed()
        await asyncio.gather(*answers)
        assert len(accepted[0].received) == carrier.acts[0], "act one, and nothing after the refusal"
    await carrier.unlisten()


@aio
async def test_a_peer_that_never_answers_is_a_timeout(carrier: Carrier) -> None:
    accepted: list[RawEnd] = []
    port = await carrier.raw_listen(accepted.append)
    async with ends(carrier, ALICE, limits=SHORT) as (alice,):
        with pytest.raises(Timeout, match=f"no handshake with {carrier.place(port)} within 0.05 s"):
            await alice.transport.connect(BOB.pubkey_hex, carrier.host, port)
        await accepted[0].closed()
        assert alice.slots() == (0, 0, 0, 0)
    await carrier.unlisten()


@aio
async def test_a_cancelled_dial_leaks_nothing_at_whatever_turn(carrier: Carrier) -> None:
    accepted: list[RawEnd] = []
    port = await carrier.raw_listen(accepted.append)
    async with ends(carrier, ALICE, limits=SLOW) as (alice,):
        for count in range(8):
            dial = asyncio.ensure_future(alice.transport.connect(BOB.pubkey_hex, carrier.host, port))
            await turns(count)
            dial.cancel()
            assert isinstance((await all_of(dial))[0], asyncio.CancelledError)
            await turns()
            assert alice.slots() == (0, 0, 0, 0), count
        for end in accepted:
            await end.closed()
        assert alice.sink.heard == []
    await carrier.unlisten()


@aio
async def test_a_cancelled_dial_to_a_real_peer_leaves_no_half_link(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, limits=SLOW) as (alice, bob):
        for count in range(12):
            dial = asyncio.ensure_future(alice.dial(bob))
            await turns(count)
            dial.cancel()
            await all_of(dial)
        await alice.transport.disconnect(bob.key)
        await bob.sink.until(lambda: bob.slots() == (0, 0, 0, 0))
        await alice.sink.until(lambda: alice.sink.words.count("connected") == alice.sink.words.count("closed"))


@aio
async def test_stopping_while_dialling_ends_the_dial(carrier: Carrier) -> None:
    accepted: list[RawEnd] = []
    port = await carrier.raw_listen(accepted.append)
    async with ends(carrier, ALICE, limits=SLOW) as (alice,):
        for count in (0, 1, 3, 8):
            one = End(carrier, CAROL, SLOW)
            await one.transport.start()
            dial = asyncio.ensure_future(one.transport.connect(BOB.pubkey_hex, carrier.host, port))
            await turns(count)
            await one.transport.stop()
            error = (await all_of(asyncio.wait_for(dial, 5)))[0]
            assert isinstance(error, TransportError), count
            await turns()
            assert one.slots() == (0, 0, 0, 0)
            assert one.sink.heard == []
        assert alice.slots() == (0, 0, 0, 0)
    for end in accepted:
        await end.closed()
    await carrier.unlisten()


# --- what strangers send before the handshake is done -----------------------------------------------------------------


def act_one(carrier: Carrier, end: RawEnd) -> bytes:
    return carrier.initiator(ALICE, BOB.public, secret("ephemeral"), end).act_one()


GARBAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "HTTP": (lambda _: b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: x\r\n\r\n", "ACT1_BAD_VERSION 71"),
    "zeros": (lambda act: bytes(len(act)), "ACT1_BAD_"),
    "another version": (lambda act: b"\1" + act[1:], "ACT1_BAD_VERSION 1"),
    "a flipped tag": (lambda act: flipped(act, -1), "ACT1_BAD_TAG"),
    "a flipped key": (lambda act: flipped(act, 32), "ACT1_BAD_"),
    "1 MiB": (lambda _: b"\0" * MIB, "ACT1_BAD_"),
}


@pytest.mark.parametrize(("garbage", "reason"), GARBAGE.values(), ids=GARBAGE.keys())
@aio
async def test_garbage_before_the_handshake_is_refused_with_no_answer(
    carrier: Carrier, garbage: Callable[[bytes], bytes], reason: str
) -> None:
    async with linked(carrier) as (alice, bob):
        end = await carrier.raw_dial(bob.transport)
        end.send(garbage(act_one(carrier, end)))
        await bob.sink.hears("refused")
        await end.closed()
        assert end.received == b""
        (error,) = bob.sink.refusals
        assert isinstance(error, HandshakeError)
        assert error.reason.startswith(reason)
        assert bob.slots() == (1, 0, 0, 0)
        await alice.transport.send(bob.key, b"the other link is untouched")
        await bob.sink.hears("received")


@pytest.mark.parametrize("at", [0, 1, 37, 50, -1])
@aio
async def test_a_flipped_bit_in_act_three_is_refused(carrier: Carrier, at: int) -> None:
    async with linked(carrier) as (alice, bob):
        end = await carrier.raw_dial(bob.transport)
        initiator = carrier.initiator(CAROL, BOB.public, secret("ephemeral"), end)
        end.send(initiator.act_one())
        await end.until(lambda: len(end.received) == carrier.acts[1])
        end.send(flipped(initiator.act_three(bytes(end.received))[0], at))
        await end.closed()
        assert len(end.received) == carrier.acts[1]
        assert [type(error) for error in bob.sink.refusals] == [HandshakeError]
        assert bob.transport.connected_peers() == [alice.key]


@LISTENERS
@pytest.mark.parametrize("last", [0, -1, None], ids=["nothing", "all but a byte", "act one alone"])
@aio
async def test_whoever_falls_silent_in_the_handshake_is_closed_in_time(carrier: Carrier, last: int | None) -> None:
    async with ends(carrier, BOB, limits=SHORT) as (bob,):
        end = await carrier.raw_dial(bob.transport)
        if data := act_one(carrier, end)[:last]:
            end.send(data)
        await bob.sink.hears("refused")
        await end.closed()
        (error,) = bob.sink.refusals
        assert isinstance(error, Timeout)
        assert "within 0.05 s" in str(error)
        assert bob.slots() == (0, 0, 0, 0)


@aio
async def test_the_clock_of_act_one_is_its_own_and_bytes_do_not_wind_it_up(carrier: Carrier) -> None:
    """A slow-loris gets `act_one_timeout_s` in total, not per byte (THREATS.md T2)."""
    limits = Limits(act_one_timeout_s=0.1, handshake_timeout_s=60)
    async with ends(carrier, BOB, limits=limits) as (bob,):
        loop = asyncio.get_running_loop()
        end = await carrier.raw_dial(bob.transport)
        began = loop.time()
        for byte in act_one(carrier, end)[:-1]:
            end.send(bytes((byte,)))
            await turns(3)
        await bob.sink.hears("refused")
        assert loop.time() - began < 5
        assert "within 0.1 s" in str(bob.sink.refusals[0])


@aio
async def test_a_stranger_who_closes_before_the_handshake_is_done_is_refused_once(carrier: Carrier) -> None:
    async with ends(carrier, BOB) as (bob,):
        end = await carrier.raw_dial(bob.transport)
        end.send(act_one(carrier, end))
        await end.until(lambda: len(end.received) == carrier.acts[1])
        end.close()
        await bob.sink.hears("refused")
        assert [type(error) for error in bob.sink.refusals] == [AuthenticationError]
        assert bob.slots() == (0, 0, 0, 0)


# --- on an open link --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def rogue_link(carrier: Carrier, limits: Limits | None = None) -> AsyncIterator[tuple[End, End, Rogue]]:
    """Return two linked transports, and a rogue that is linked to the second one as well."""
    async with linked(carrier, limits) as (alice, bob):
        rogue = await Rogue.dial(carrier, bob.transport, CAROL, BOB.public)
        await bob.sink.hears("connected", 2)
        yield alice, bob, rogue
        rogue.end.close()
        await bob.sink.until(lambda: len(bob.transport.slots.inbound) <= 1)


async def assert_untouched(alice: End, bob: End) -> None:
    """Alice's link to Bob still carries messages."""
    await alice.transport.send(bob.key, b"still here")
    await bob.sink.until(lambda: b"still here" in bob.sink.envelopes)


@pytest.mark.parametrize("at", [0, 17, 18, 30, -1])
@aio
async def test_a_flipped_bit_mid_stream_is_a_receive_error_and_closes_that_link_only(carrier: Carrier, at: int) -> None:
    async with rogue_link(carrier) as (alice, bob, rogue):
        rogue.say(b"first")
        await bob.sink.hears("received")
        rogue.channel.send(b"second")
        rogue.end.send(b"".join(rogue.channel.data_to_send()), flip=at)
        rogue.end.send(b"more")
        await bob.sink.hears("closed")
        await rogue.end.closed()
        (error,) = bob.sink.errors
        assert isinstance(error, ReceiveError)
        assert "does not decrypt" in str(error)
        assert bob.sink.goodbyes == [None]
        assert bob.sink.envelopes == [b"first"]
        await assert_untouched(alice, bob)


@aio
async def test_what_came_whole_before_a_broken_frame_is_still_delivered(carrier: Carrier) -> None:
    async with rogue_link(carrier) as (_, bob, rogue):
        rogue.channel.send(b"whole")
        rogue.end.send(b"".join(rogue.channel.data_to_send()) + bytes(18))
        await bob.sink.hears("closed")
        assert bob.sink.words[-2:] == ["received", "closed"]
        assert isinstance(bob.sink.errors[0], ReceiveError)


@aio
async def test_the_end_of_the_stream_without_a_close_notice_is_a_truncation(carrier: Carrier) -> None:
    async with rogue_link(carrier) as (alice, bob, rogue):
        rogue.end.close()
        await bob.sink.hears("closed")
        (error,) = bob.sink.errors
        assert isinstance(error, ConnectionError)
        assert "broke" in str(error)
        assert CAROL.pubkey_hex[2:10] in str(error)
        assert bob.sink.goodbyes == [None]
        await assert_untouched(alice, bob)


@aio
async def test_a_close_notice_is_a_goodbye_and_what_follows_it_is_nothing(carrier: Carrier) -> None:
    async with rogue_link(carrier) as (_, bob, rogue):
        rogue.channel.send(b"last")
        rogue.channel.close(CloseCode.FAULT, "bye")
        data = b"".join(rogue.channel.data_to_send())
        rogue.end.send(data + b"trailing junk")
        await bob.sink.hears("closed")
        await rogue.end.closed()
        assert bob.sink.errors == [None]
        assert bob.sink.goodbyes == [CloseReceived(CloseCode.FAULT, "bye")]
        assert bob.sink.envelopes == [b"last"]


@aio
async def test_a_frame_that_dribbles_in_has_its_time_in_total(carrier: Carrier) -> None:
    limits = replace(SHORT, act_one_timeout_s=5, handshake_timeout_s=5)
    async with rogue_link(carrier, limits) as (alice, bob, rogue):
        rogue.channel.send(bytes(1_000))
        data = b"".join(rogue.channel.data_to_send())
        for at in range(100):
            if not bob.sink.errors:
                rogue.end.send(data[at : at + 1])
                await passed(0.01)
        (error,) = bob.sink.errors
        assert isinstance(error, Timeout)
        assert "a frame took longer than 0.05 s" in str(error)
        await assert_untouched(alice, bob)


@aio
async def test_frames_that_come_one_after_the_other_are_each_in_time(carrier: Carrier) -> None:
    limits = replace(SHORT, act_one_timeout_s=5, handshake_timeout_s=5, frame_timeout_s=0.4)
    async with rogue_link(carrier, limits) as (_, bob, rogue):
        packets = b""
        for n in range(8):
            rogue.channel.send(b"%d" % n)
            packets += b"".join(rogue.channel.data_to_send())
        size = len(packets) // 8
        for n in range(8):
            at = n * size + size - 1
            rogue.end.send(packets[max(0, at - size) : at])
            await passed(0.08)
        rogue.end.send(packets[-1:])
        await bob.sink.hears("received", 8)
        assert bob.sink.errors == []


@pytest.mark.parametrize("pause_s", [0.28, 0.7], ids=["a pause that ends just in time", "a longer pause"])
@aio
async def test_a_reader_that_pauses_in_the_middle_of_a_frame_does_not_blame_the_sender(
    carrier: Carrier, pause_s: float
) -> None:
    limits = replace(SHORT, act_one_timeout_s=5, handshake_timeout_s=5, frame_timeout_s=0.3)
    async with rogue_link(carrier, limits) as (_, bob, rogue):
        connection = bob.sink.connections[1]
        rogue.say(b"first")
        await bob.sink.hears("received")
        rogue.channel.send(b"second")
        data = b"".join(rogue.channel.data_to_send())
        bob.sink.on_received = lambda connection: connection.pause_reading()
        rogue.channel.send(b"third")
        rest = b"".join(rogue.channel.data_to_send())
        rogue.end.send(data + rest[:20])
        await bob.sink.hears("received", 2)
        await passed(pause_s)
        assert bob.sink.errors == []
        bob.sink.on_received = None
        connection.resume_reading()
        await passed(0.1)
        rogue.end.send(rest[20:])
        await bob.sink.hears("received", 3)
        assert bob.sink.errors == []


@pytest.mark.parametrize("size", [MIB, MESSAGE_MAX_BYTES], ids=["1 MiB", "4 MiB"])
@aio
async def test_large_messages_pass_both_ways_at_once(carrier: Carrier, size: int) -> None:
    async with linked(carrier) as (alice, bob):
        there, back = b"a" * size, b"b" * size
        await alice.transport.send(bob.key, there)
        await bob.transport.send(alice.key, back)
        await bob.sink.hears("received", 1, carrier.bulk_s)
        await alice.sink.hears("received", 1, carrier.bulk_s)
        assert bob.sink.envelopes == [there]
        assert alice.sink.envelopes == [back]


@aio
async def test_behind_a_clogged_reader_little_is_handed_on_and_the_urgent_overtakes(carrier: Carrier) -> None:
    limits = Limits(write_chunk_bytes=64 * KIB)
    async with linked(carrier, limits) as (alice, bob):
        near, far = alice.sink.connections[0], bob.sink.connections[0]
        far.pause_reading()
        bulk = [bytes((n,)) * MIB for n in range(carrier.fill_mib)]
        for one in bulk:
            near.send(one)
        near.flush()
        await turns(50)
        channel = near._channel  # type: ignore[attr-defined]
        assert near._clogged  # type: ignore[attr-defined]
        taken = carrier.fill_mib * MIB - channel.queued_bytes
        assert 0 < taken <= 8 * MIB, "the rest waits where it can still be overtaken"
        stream = getattr(near, "_stream", None)
        if stream is not None:
            waiting = stream._unsent() if isinstance(stream, Stream) else stream.get_write_buffer_size()
            assert waiting <= 3 * limits.write_chunk_bytes
        near.send(b"urgent", Priority.ROUND_2)
        near.flush()
        far.resume_reading()
        await bob.sink.hears("received", carrier.fill_mib + 1, carrier.bulk_s)
        assert sorted(bob.sink.envelopes, key=len)[0] == b"urgent"
        assert [one for one in bob.sink.envelopes if one != b"urgent"] == bulk
        assert bob.sink.envelopes.index(b"urgent") <= taken // MIB + 1


@aio
async def test_what_was_sent_before_closing_arrives_and_nothing_sent_after_it(carrier: Carrier) -> None:
    async with linked(carrier) as (alice, bob):
        near = alice.sink.connections[0]
        near.send(b"x" * MIB)
        near.close(CloseCode.GOING_AWAY, "text")
        near.close(CloseCode.DONE, "twice is once")
        near.send(b"too late")
        near.acknowledge(ID)
        near.flush()
        await bob.sink.hears("closed")
        assert bob.sink.envelopes == [b"x" * MIB]
        assert bob.sink.goodbyes == [CloseReceived(CloseCode.GOING_AWAY, "text")]
        await alice.sink.hears("closed")
        near.send(b"gone")
        near.flush()
        near.close()
        near.pause_reading()
        near.resume_reading()
        assert alice.sink.words.count("closed") == 1


@aio
async def test_closing_without_a_word_looks_like_a_broken_line(carrier: Carrier) -> None:
    async with linked(carrier) as (alice, bob):
        alice.sink.connections[0].close(None)
        await bob.sink.hears("closed")
        assert isinstance(bob.sink.errors[0], ConnectionError)
        assert bob.sink.goodbyes == [None]


@aio
async def test_a_sink_may_close_a_link_at_once_and_the_dialler_hears_of_both(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB) as (alice, bob):
        bob.sink.on_connected = lambda connection: connection.close(None)
        await alice.dial(bob)
        await alice.sink.hears("closed")
        await bob.sink.hears("closed")
        assert alice.sink.words == bob.sink.words == ["connected", "closed"]


@aio
async def test_a_sink_that_closes_a_link_gets_nothing_more_from_it(carrier: Carrier) -> None:
    async with rogue_link(carrier) as (_, bob, rogue):
        bob.sink.on_received = lambda connection: connection.close()
        rogue.channel.send(b"one")
        first = b"".join(rogue.channel.data_to_send())
        rogue.channel.send(b"two")
        rogue.end.send(first)
        await bob.sink.hears("closed")
        rogue.end.send(b"".join(rogue.channel.data_to_send()))
        await turns()
        assert bob.sink.envelopes == [b"one"]
        assert bob.sink.errors == [None]


@aio
async def test_what_comes_together_with_act_three_is_not_for_a_sink_that_closes_at_once(carrier: Carrier) -> None:
    async with ends(carrier, BOB) as (bob,):
        bob.sink.on_connected = lambda connection: connection.close(None)
        end = await carrier.raw_dial(bob.transport)
        channel = SecureChannel(carrier.initiator(CAROL, BOB.public, secret("eager"), end))
        end.send(wire(channel))
        await end.until(lambda: len(end.received) == carrier.acts[1])
        channel.receive_data(end.take())
        drain(channel)
        channel.send(b"together with act three")
        end.send(wire(channel))
        await bob.sink.hears("closed")
        assert bob.sink.words == ["connected", "closed"]


@aio
async def test_a_link_that_closes_takes_nothing_more_in_while_its_bytes_leave(carrier: Carrier) -> None:
    async with linked(carrier, l1=Limits(stop_timeout_s=60)) as (alice, bob):
        near, far = alice.sink.connections[0], bob.sink.connections[0]
        near.pause_reading()
        for _ in range(carrier.fill_mib):
            far.send(bytes(MIB))
        far.close(CloseCode.GOING_AWAY)
        await alice.transport.send(bob.key, b"too late")
        await turns(50)
        assert bob.sink.words == ["connected"]
        near.resume_reading()
        await alice.sink.hears("received", carrier.fill_mib, carrier.bulk_s)
        await bob.sink.hears("closed")
        assert bob.sink.envelopes == []


@LISTENERS
@aio
async def test_a_link_in_its_handshake_has_no_peer_yet(carrier: Carrier) -> None:
    async with ends(carrier, BOB, limits=SLOW) as (bob,):
        end = await carrier.raw_dial(bob.transport)
        end.send(act_one(carrier, end))
        await end.until(lambda: len(end.received) == carrier.acts[1])
        (link,) = bob.transport.slots.half_open
        with pytest.raises(TransportError, match="still in its handshake"):
            _ = link.peer
        link.close()
        await turns()


# --- slots ------------------------------------------------------------------------------------------------------------


@aio
async def test_outbound_slots_are_bounded_and_given_back(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, limits=Limits(outbound_slots=2)) as (alice, bob):
        for _ in range(2):
            await alice.dial(bob)
        with pytest.raises(TransportError, match="no free slot to dial: expected at most 2 outbound links"):
            await alice.dial(bob)
        alice.sink.connections[0].close()
        await alice.sink.hears("closed")
        await alice.dial(bob)


@AT_ONCE
@aio
async def test_dials_under_way_count_as_outbound_slots(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, limits=Limits(outbound_slots=4)) as (alice, bob):
        results = await all_of(*(alice.dial(bob) for _ in range(7)))
        assert sum(isinstance(result, TransportError) for result in results) == 3
        assert alice.slots()[1] == 4


@aio
async def test_inbound_slots_are_bounded_and_given_back(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, l1=Limits(inbound_slots=2)) as (alice, bob):
        for count in (1, 2):
            await alice.dial(bob)
            await bob.sink.hears("connected", count)
        await alice.dial(bob)
        await alice.sink.hears("closed")
        await bob.sink.hears("closed")
        assert alice.sink.goodbyes == [CloseReceived(CloseCode.GOING_AWAY, "others need this slot")]
        assert bob.slots()[0] == 2, "the newest of strangers of one score goes"
        alice.sink.connections[0].close()
        await bob.sink.hears("closed", 2)
        await alice.dial(bob)
        await bob.sink.hears("connected", 4)
        assert bob.slots()[0] == 2


@LISTENERS
@aio
async def test_half_open_slots_of_one_prefix_are_bounded_and_given_back(carrier: Carrier) -> None:
    limits = replace(SLOW, half_open_per_prefix=2)
    async with ends(carrier, BOB, limits=limits) as (bob,):
        first = [await carrier.raw_dial(bob.transport) for _ in range(2)]
        for end in first:
            end.send(act_one(carrier, end))
            await end.until(lambda end=end: len(end.received) == carrier.acts[1])  # type: ignore[misc]
        third = await carrier.raw_dial(bob.transport)
        await third.closed()
        assert third.received == b""
        first[0].close()
        await bob.sink.until(lambda: bob.slots()[2] == 1)
        fourth = await carrier.raw_dial(bob.transport)
        fourth.send(act_one(carrier, fourth))
        await fourth.until(lambda: len(fourth.received) == carrier.acts[1])
        for end in (first[1], fourth):
            end.close()
        await bob.sink.until(lambda: bob.slots() == (0, 0, 0, 0))


# --- stopping ---------------------------------------------------------------------------------------------------------


@aio
async def test_stopping_says_goodbye_on_every_link(carrier: Carrier) -> None:
    async with ends(carrier, ALICE, BOB, CAROL) as (alice, bob, carol):
        await alice.dial(bob)
        await carol.dial(alice)
        await alice.sink.hears("connected", 2)
        await bob.sink.hears("connected")
        await alice.transport.stop()
        for end in (bob, carol):
            await end.sink.hears("closed")
            assert end.sink.goodbyes == [CloseReceived(CloseCode.GOING_AWAY, "")]
        assert alice.sink.words.count("closed") == 2, "stop returns when everything is closed"


@aio
async def test_stopping_does_not_wait_for_ever_for_a_peer_that_does_not_read(carrier: Carrier) -> None:
    async with linked(carrier, l0=replace(SHORT, act_one_timeout_s=5, handshake_timeout_s=5)) as (alice, bob):
        far = bob.sink.connections[0]
        far.pause_reading()
        for _ in range(carrier.fill_mib):
            await alice.transport.send(bob.key, bytes(MIB))
        async with asyncio.timeout(5):
            await alice.transport.stop()
        assert alice.slots() == (0, 0, 0, 0)
        assert alice.sink.errors == [None]
        far.resume_reading()
        await bob.sink.hears("closed")


@aio
async def test_stopping_closes_what_is_still_in_its_handshake(carrier: Carrier) -> None:
    async with ends(carrier, BOB, limits=SLOW) as (bob,):
        end = await carrier.raw_dial(bob.transport)
        end.send(act_one(carrier, end))
        await end.until(lambda: len(end.received) == carrier.acts[1])
        await bob.transport.stop()
        await end.closed()


# --- many at once -----------------------------------------------------------------------------------------------------


@AT_ONCE
@aio
async def test_64_racing_simultaneous_dials(carrier: Carrier) -> None:
    limits = Limits(
        outbound_slots=64, inbound_slots=64, half_open_slots=64, half_open_per_prefix=64, links_per_peer=64,
        prefix_burst_handshakes=64,
    )  # fmt: skip
    async with ends(carrier, ALICE, BOB, limits=limits) as (alice, bob):
        dials = [alice.dial(bob) if n % 2 else bob.dial(alice) for n in range(64)]
        results = await all_of(*dials)
        assert [result for result in results if isinstance(result, BaseException)] == []
        await alice.sink.hears("connected", 64)
        await bob.sink.hears("connected", 64)
        transcripts = [{c.transcript for c in end.sink.connections} for end in (alice, bob)]
        assert transcripts[0] == transcripts[1]
        assert len(transcripts[0]) == 64
        assert len({c.number for end in (alice, bob) for c in end.sink.connections}) == 128
        assert alice.slots() == bob.slots() == (32, 32, 0, 0)


def test_every_carrier_is_one_of_channels(carrier: Carrier) -> None:
    assert isinstance(carrier.transport(ALICE, Recorder()), ChannelTransport)
    assert issubclass(SendError, LocalError)
