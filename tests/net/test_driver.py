"""The driver between a node and a transport: what bad input costs, its log, its timer, its second thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from endpoints import CARRIERS, NOISE, Carrier, Rogue, aio, turns
from services import LogLines, Party, chat, friends

from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, InvalidMessage, PeerError, ReceiveError, SerializationError
from musignet.limits import CHAT_MAX_BYTES, LOG_DEBT_MAX_S, LOG_LINK_LINES_S, MESSAGE_MAX_BYTES, Limits
from musignet.net.driver import _WAKE_PAUSE_S, Driver
from musignet.net.lograte import LinesPerSecond
from musignet.net.newslog import NewsLog
from musignet.node.book import Book
from musignet.node.config import NodeConfig
from musignet.node.effects import Fault, PeerDown, PeerUp
from musignet.node.inputs import Woken
from musignet.node.peers import PeerInfo, PeerState
from musignet.wire.channel import Acked, CloseReceived, EnvelopeReceived
from musignet.wire.envelope import Body, Message, SignedMessage, _codec, _digest
from musignet.wire.messages import Chain, CloseCode, MessageType, PeerAnnouncement, Ping, Pong
from support.channels import frame
from support.keys import ALICE, BOB, CAROL, secret

EPOCH = b"rogue---"


@pytest.fixture(params=NOISE.values(), ids=NOISE.keys())
def carrier(request: pytest.FixtureRequest) -> Carrier:
    made: Carrier = request.param()
    return made


def forged(*, signer: Identity = CAROL, seq: int = 1, payload: bytes = b"bad", **fields: Any) -> bytes:
    """Return an envelope of Carol's with some fields changed, signed all the same."""
    values: dict[str, Any] = {
        "version": 0, "chain": Chain.MAINNET, "type": MessageType.CHAT, "sender_key": signer.pubkey, "recipient": b"",
        "session": b"", "epoch": EPOCH, "seq": seq, "sent_at_ms": 0, "label": "carol", "payload": payload,
    } | fields  # fmt: skip
    encoded = _codec.encode(Body(**values))
    return signer.sign(_digest(encoded)) + encoded


ANNOUNCEMENT = Message(MessageType.PEER_ANNOUNCEMENT, "carol", PeerAnnouncement("carol", (), (), EPOCH, b"", 0)).payload


def flipped(envelope: bytes, at: int) -> bytes:
    return envelope[:at] + bytes((envelope[at] ^ 1,)) + envelope[at + 1 :]


GOOD = forged(payload=b"good", seq=7)
BAD: dict[str, tuple[bytes, type[PeerError], str]] = {
    "another envelope version": (forged(version=1), InvalidMessage, "wrong envelope version"),
    "a body that does not decode": (bytes(64) + b"\xc1junk", SerializationError, "undecodable message"),
    "no body": (bytes(64), SerializationError, "undecodable message"),
    "a longer encoding": (GOOD[:64] + b"\xdc\0\x0b" + GOOD[65:], SerializationError, "undecodable message"),
    "trailing junk": (GOOD + b"\0", SerializationError, "undecodable message"),
    "a flipped bit in the signature": (flipped(GOOD, 5), AuthenticationError, "signature does not verify"),
    "a flipped bit in the payload": (flipped(GOOD, len(GOOD) - 1), AuthenticationError, "signature does not verify"),
    "another sender than the channel's key": (forged(signer=ALICE), AuthenticationError, "not the channel's key"),
    "another Bitcoin network": (forged(chain=Chain.REGTEST), InvalidMessage, "wrong Bitcoin network"),
    "another recipient": (forged(recipient=ALICE.pubkey), InvalidMessage, "wrong recipient"),
    "a group we are not in": (forged(recipient=bytes(32)), InvalidMessage, "wrong recipient"),
    "too large for its type": (forged(payload=bytes(CHAT_MAX_BYTES + 1)), InvalidMessage, "payload too large"),
    "an unknown even type": (forged(type=65_534), InvalidMessage, "unknown message type"),
    "a second body under one number": (forged(payload=b"other", seq=7), InvalidMessage, "two different messages"),
    "a second announcement": (
        forged(type=MessageType.PEER_ANNOUNCEMENT, seq=9, payload=ANNOUNCEMENT), InvalidMessage, "out of place",
    ),
    "an undecodable ping": (forged(type=MessageType.PING, seq=9, payload=b"?"), SerializationError, "undecodable"),
}  # fmt: skip


@asynccontextmanager
async def scene(carrier: Carrier, limits: Limits | None = None) -> AsyncIterator[tuple[Party, Party, Rogue, LogLines]]:
    """Return Alice connected to Bob, and Carol, who is in Bob's book and connected to him, in the hands of the test."""
    with LogLines() as log:
        async with friends(carrier, "alice", limits=limits) as (alice,):
            bob = Party(carrier, BOB, "bob", limits=limits)
            await bob.start()
            bob.service.add_peer(alice.info)
            bob.service.add_peer(Party(carrier, CAROL, "carol").info)
            await alice.service.connect_to_peer(bob.info)
            rogue = await Rogue.dial(carrier, bob.service._transport, CAROL, BOB.public)  # type: ignore[arg-type]
            rogue.say(forged(type=MessageType.PEER_ANNOUNCEMENT, seq=0, payload=ANNOUNCEMENT))
            await bob.learns(PeerUp, 2)
            yield alice, bob, rogue, log
            rogue.end.close()
            await bob.service.stop()


async def assert_refused(alice: Party, bob: Party, rogue: Rogue, log: LogLines) -> PeerError:
    """Bob has closed the rogue's link over one fault and one line, and his link to Alice is as it was."""
    await bob.learns(PeerDown)
    (fault,) = bob.told(Fault)
    (down,) = bob.told(PeerDown)
    assert fault.key == down.key == CAROL.pubkey
    assert down.error is fault.error
    assert isinstance(fault.error, PeerError)
    assert f"from carol ({CAROL.pubkey_hex[2:10]})" in str(fault.error)
    assert log.lines == [f"fault of carol ({CAROL.pubkey_hex[2:10]}): {fault.error}"]
    assert bob.service.peer_state("carol") is PeerState.DISCONNECTED
    await alice.service.send_message_to("bob", chat("untouched"), wait_ack=True)
    assert alice.told(PeerDown) == []
    assert bob.texts("alice") == ["untouched"]
    assert rogue.end is not None
    return fault.error


@pytest.mark.parametrize(("envelope", "kind", "text"), BAD.values(), ids=BAD.keys())
@aio
async def test_a_bad_message_closes_its_link_with_one_fault_and_one_line(
    carrier: Carrier, envelope: bytes, kind: type[PeerError], text: str
) -> None:
    async with scene(carrier) as (alice, bob, rogue, log):
        rogue.say(GOOD, envelope, forged(payload=b"after", seq=8))
        error = await assert_refused(alice, bob, rogue, log)
        assert type(error) is kind
        assert text in str(error)
        await rogue.until(lambda: rogue.heard(CloseReceived))
        (goodbye,) = rogue.heard(CloseReceived)
        assert goodbye.code == CloseCode.FAULT
        assert bob.texts("carol") == ["good"]


@aio
async def test_our_own_message_sent_back_is_a_reflection(carrier: Carrier) -> None:
    async with scene(carrier) as (alice, bob, rogue, log):
        await bob.service.send_message_to("carol", chat("to carol"))
        await rogue.until(lambda: len(rogue.heard(EnvelopeReceived)) >= 2)
        rogue.say(rogue.heard(EnvelopeReceived)[-1].data)
        error = await assert_refused(alice, bob, rogue, log)
        assert isinstance(error, AuthenticationError)
        assert "our own message came back" in str(error)


@pytest.mark.parametrize(
    "data",
    [frame(5, 0, b"x"), frame(0, 9, b"x"), frame(1, 0, (MESSAGE_MAX_BYTES + 1).to_bytes(4, "big") + b"x"), b""],
    ids=["an unknown kind", "an unknown priority", "a message of 4 MiB and a byte", "no header"],
)
@aio
async def test_a_frame_that_breaks_the_rules_loses_its_link_and_no_other(carrier: Carrier, data: bytes) -> None:
    async with scene(carrier) as (alice, bob, rogue, log):
        keys = rogue.channel._keys
        assert keys is not None
        rogue.end.send(b"".join(keys.sending.seal(data)))
        await rogue.end.closed()
        await bob.learns(PeerDown)
        (down,) = bob.told(PeerDown)
        assert isinstance(down.error, ReceiveError)
        await alice.service.send_message_to("bob", chat("untouched"), wait_ack=True)
        assert alice.told(PeerDown) == []
        assert len(log.lines) <= 1


@aio
async def test_a_duplicate_is_acknowledged_and_an_unknown_odd_type_ignored(carrier: Carrier) -> None:
    async with scene(carrier) as (_, bob, rogue, log):
        odd = forged(type=65_535, seq=8)
        rogue.say(GOOD, GOOD, odd)
        expected = [Message.from_bytes(envelope).id for envelope in (GOOD, GOOD, odd)]
        await rogue.until(lambda: b"".join(acked.ids for acked in rogue.heard(Acked)) == b"".join(expected))
        assert bob.texts("carol") == ["good"]
        assert log.lines == []
        assert bob.service.peer_state("carol") is PeerState.CONNECTED


@aio
async def test_acknowledgements_of_nothing_do_nothing(carrier: Carrier) -> None:
    async with scene(carrier) as (_, bob, rogue, log):
        for n in range(5):
            rogue.channel.acknowledge(bytes((n,)) * 16)
        rogue.flush()
        rogue.say(GOOD)
        await bob.until(lambda: bob.texts("carol"))
        assert log.lines == []


@aio
async def test_a_ping_is_answered_by_the_node_alone(carrier: Carrier) -> None:
    async with scene(carrier) as (_, bob, rogue, _log):
        rogue.say(Message(MessageType.PING, "carol", Ping(42)).sign(CAROL, seq=1, epoch=EPOCH).raw)

        def pongs() -> list[Any]:
            messages = [Message.from_bytes(event.data) for event in rogue.heard(EnvelopeReceived)]
            return [message.content for message in messages if message.type == MessageType.PONG]

        await rogue.until(pongs)
        assert pongs() == [Pong(42)]
        assert bob.got == []


@pytest.mark.parametrize("batch", [1, 10_000], ids=["two threads", "one thread"])
@pytest.mark.parametrize("where", [3, 20, 39])
@aio
async def test_a_bad_signature_in_the_middle_of_a_read_ends_it_there(carrier: Carrier, batch: int, where: int) -> None:
    async with scene(carrier, Limits(verify_batch=batch)) as (alice, bob, rogue, log):
        envelopes = [forged(payload=b"%d" % n, seq=n + 1) for n in range(40)]
        envelopes[where] = flipped(envelopes[where], 0)
        rogue.say(*envelopes)
        error = await assert_refused(alice, bob, rogue, log)
        assert "signature does not verify" in str(error)
        assert bob.texts("carol") == [str(n) for n in range(where)]


@aio
async def test_with_one_processor_there_is_no_second_thread(memory: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musignet.net.opener._cores", lambda: 1)
    async with scene(memory, Limits(verify_batch=1)) as (_, bob, rogue, _log):
        rogue.say(GOOD)
        await bob.until(lambda: bob.texts("carol"))
        assert bob.service._driver is not None
        assert bob.service._driver._opener._pool is None


@pytest.fixture
def memory() -> Carrier:
    return CARRIERS["memory"]()


@aio
async def test_names_and_texts_from_peers_are_never_printed_raw(carrier: Carrier) -> None:
    async with scene(carrier) as (_, bob, rogue, log):
        rogue.channel.close(CloseCode.FAULT, "x")
        nasty = "\x1b[2J\u202e\n"
        keys = rogue.channel._keys
        assert keys is not None
        rogue.end.send(b"".join(keys.sending.seal(frame(4, 0, b"\0\3" + nasty.encode("utf-8")))))
        await bob.learns(PeerDown)
        text = str(bob.told(PeerDown)[0].error)
        assert text.isascii()
        assert text.isprintable()
        assert "\\x1b[2J" in text
        assert all(line.isprintable() for line in log.lines)


@pytest.mark.parametrize("say", ["a message", "a frame"])
@aio
async def test_an_error_that_is_kept_keeps_nothing_of_what_was_sent(carrier: Carrier, say: str) -> None:
    async with scene(carrier) as (_, bob, rogue, _):
        if say == "a message":
            rogue.say(forged(chain=9, payload=bytes(60_000)))
        else:
            rogue.end.send(bytes(60_000))
        await bob.learns(PeerDown)
        errors: list[BaseException | None] = [bob.service.peer("carol").last_error]
        assert isinstance(errors[0], PeerError)
        while errors[-1] is not None:
            assert errors[-1].__traceback__ is None
            errors.append(errors[-1].__cause__ or errors[-1].__context__)


# --- the log ----------------------------------------------------------------------------------------------------------


def test_lines_are_bounded_and_what_was_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("musignet.net.lograte.time.monotonic", lambda: now)
    lines = LinesPerSecond(2.0)
    assert [lines.allow() for _ in range(4)] == [True, False, False, False]
    assert lines.left_out() == " (3 more since the last line)"
    assert lines.left_out() == ""
    now += 0.49
    assert not lines.allow()
    now += 0.02
    assert lines.allow()
    assert lines.left_out() == " (1 more since the last line)"


def test_lines_that_must_be_written_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("musignet.net.lograte.time.monotonic", lambda: now)
    lines = LinesPerSecond(1.0)
    for _ in range(9):
        lines.charge()
    allowed = []
    for _ in range(100):
        if lines.allow():
            allowed.append(now - 100)
        now += 0.25
    assert allowed == [float(second) for second in range(7, 25)], "two lines ahead of one a second"
    for _ in range(1000):
        lines.charge()
    now += LOG_DEBT_MAX_S
    assert lines.allow()


def test_a_peer_that_comes_and_goes_fills_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """16 of them, ten times a second, beside faults and strangers: one line a second, and each is told of once."""
    caplog.set_level(logging.INFO, "musignet")
    now = 100.0
    for clock in ("lograte", "newslog"):
        monkeypatch.setattr(f"musignet.net.{clock}.time.monotonic", lambda: now)
    book = Book(BOB.pubkey, 100)
    peers = [Identity.from_secret(secret(f"peer {number}")).pubkey for number in range(16)]
    for number, key in enumerate(peers):
        book.put(PeerInfo(id=f"peer {number}", pubkey_hex=key.hex()))
    with LogLines(logging.INFO) as log:
        news = NewsLog(book, 1.0)
        for _ in range(600):
            for key in peers:
                news.tell(PeerUp(key))
                news.tell(Fault(key, InvalidMessage("nonsense")))
                news.tell(PeerDown(key, None, None))
                news.refused("192.0.2.1:7", InvalidMessage("nonsense"))
            now += 0.1
        assert 55 < len(log.lines) <= 62
        assert all(any(f"connected to peer {number} " in line for line in log.lines) for number in range(16))
        assert any(line.endswith("more since the last line)") for line in log.lines)
        now += LOG_LINK_LINES_S
        before = len(log.lines)
        news.tell(PeerUp(peers[0]))
        assert len(log.lines) == before + 1


@aio
async def test_a_flood_of_strangers_is_one_line(carrier: Carrier) -> None:
    with LogLines() as log:
        async with friends(carrier, "alice", limits=Limits(log_lines_per_s=0.001)) as (alice,):
            transport: Any = alice.service._transport
            for _ in range(30):
                end = await carrier.raw_dial(transport)
                end.send(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\nxxxxxxxxxxxxxxx")
                await end.closed()
            assert len(log.lines) == 1
            assert log.lines[0].startswith("refused a connection from ")
            assert "ACT1_BAD_VERSION 71" in log.lines[0]


# --- time -------------------------------------------------------------------------------------------------------------


@aio
async def test_the_timer_pings_and_finds_the_dead_peer(carrier: Carrier) -> None:
    limits = Limits(ping_interval_s=0.05, dead_after_s=0.2, backoff_min_s=60)
    async with scene(carrier, limits) as (alice, bob, rogue, _):
        record = bob.service._find("carol")
        record.links[0].ping_at = 0.0
        driver = bob.service._driver
        assert driver is not None
        driver.node._timers.set(driver.now(), record.links[0].number)
        driver._arm(driver.now())
        await bob.learns(PeerDown)
        (down,) = bob.told(PeerDown)
        assert down.key == CAROL.pubkey
        assert "nothing heard from carol" in str(down.error)
        await rogue.until(lambda: rogue.heard(CloseReceived))
        assert rogue.heard(CloseReceived)[0].code == CloseCode.SILENT
        pings = [Message.from_bytes(event.data).type for event in rogue.heard(EnvelopeReceived)]
        assert MessageType.PING in pings
        assert alice.told(PeerDown) == []


def _driver(**callbacks: Callable[..., Any]) -> Driver:
    nothing: dict[str, Any] = {name: lambda *_: None for name in ("deliver", "tell", "admit")}
    return Driver(BOB, NodeConfig(label="bob"), **(nothing | callbacks))


def test_the_clock_is_that_of_the_wall_at_the_start_and_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musignet.net.clock.time.time", lambda: 5_000.0)
    monkeypatch.setattr("musignet.net.clock._BOOT", None)
    monkeypatch.setattr("musignet.net.clock.time.monotonic", lambda: 10.0)
    driver = _driver()
    assert driver.now() == 5_000.0
    monkeypatch.setattr("musignet.net.clock.time.time", lambda: 1.0)
    monkeypatch.setattr("musignet.net.clock.time.monotonic", lambda: 12.5)
    assert driver.now() == 5_002.5


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise what is proposed after a night has expired for everybody else, and approvals outlive their time."""
    boot = {"clock": 100.0}
    monkeypatch.setattr("musignet.net.clock._BOOT", "clock")
    monkeypatch.setattr("musignet.net.clock.time.clock_gettime", boot.__getitem__)
    monkeypatch.setattr("musignet.net.clock.time.monotonic", lambda: 10.0)
    driver = _driver()
    before = driver.now()
    boot["clock"] += 8 * 3600
    assert driver.now() == before + 8 * 3600


@aio
async def test_after_sleep_what_was_due_is_due_at_once(memory: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timers of the event loop do not count sleep: what was due in an hour would hold up all that is due sooner."""
    bob = Party(memory, BOB, "bob")
    await bob.start()
    driver = bob.service._driver
    due = driver.now() + 3600
    driver.node._timers.set(due, b"group")
    driver.feed(Woken())
    assert driver._armed == due
    monkeypatch.setattr(driver, "now", lambda: due + 8 * 3600)
    driver._network_changed("the machine slept for 28800 s")
    assert driver._timer is not None
    assert driver._timer.when() <= asyncio.get_running_loop().time()
    await bob.service.stop()


@aio
async def test_deadlines_that_come_together_are_one_waking(memory: Carrier) -> None:
    bob = Party(memory, BOB, "bob")
    await bob.start()
    driver, loop = bob.service._driver, asyncio.get_running_loop()
    for milliseconds in range(9):
        driver.node._timers.set(driver.now() + milliseconds / 1000, b"group")
    woken = loop.time()
    driver._wake()
    assert driver._timer is not None
    assert driver._timer.when() >= woken + _WAKE_PAUSE_S
    await bob.service.stop()


@aio
async def test_what_a_transport_says_about_a_link_that_was_closed_means_nothing(memory: Carrier) -> None:
    async with scene(memory) as (alice, bob, _, log):
        driver = bob.service._driver
        assert driver is not None
        connection, _gate = next(iter(driver._connections.values()))
        await bob.service.disconnect_from_peer("alice")
        await alice.learns(PeerDown)
        before = list(bob.news)
        driver.received(connection, [GOOD], bytes(16))
        driver.closed(connection, None, None)
        await turns()
        assert bob.news == before
        assert log.lines == []


def test_a_message_is_signed_by_hand_as_the_library_does() -> None:
    assert isinstance(Message.from_bytes(GOOD), SignedMessage)
    Message.from_bytes(GOOD).verify()
