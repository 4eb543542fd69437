"""What only TCP has: an accept loop of its own, and file descriptors that run out."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from endpoints import CARRIERS, Carrier, Recorder, aio, turns

import musignet
from musignet.errors import ConnectionError, IoError, TransportError
from musignet.limits import Limits
from musignet.net.transport import TcpTransport
from musignet.net.transport.listener import _UNLIMITED, _descriptors_max
from musignet.net.transport.slots import prefix
from musignet.net.transport.tcp import TcpLink
from musignet.node.rates import Gauge, Meter
from musignet.wire.channel import SecureChannel
from musignet.wire.noise import ACT_THREE_BYTES, ACT_TWO_BYTES, Cipher, HandshakeError, Initiator
from support.keys import ALICE, BOB

pytestmark = pytest.mark.driver


@pytest.fixture(params=["tcp", "tcp on uvloop"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_NOFILE")
def test_the_share_of_descriptors_is_that_of_the_limit() -> None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert _descriptors_max(0.5) in (int(soft * 0.5), _UNLIMITED)


@pytest.mark.parametrize(
    ("host", "port", "hint"),
    [("127.0.0.1", 70_000, "another program"), ("198.51.100.1", 0, "no such address"), ("bad..name", 0, "")],
)
@aio
async def test_what_cannot_be_listened_on_is_an_io_error(carrier: Carrier, host: str, port: int, hint: str) -> None:
    transport = carrier.transport(ALICE, Recorder(), host, port)
    with pytest.raises(IoError, match=f"cannot listen on {host}:{port}: .*{hint}"):
        await transport.start()
    await transport.stop()


QUIET: Final = Limits(lobby_slots=2, half_open_per_prefix=8, act_one_timeout_s=60, handshake_timeout_s=60)


def test_a_link_at_rest_has_no_dictionary() -> None:
    """A thousand idle peers have 8 KiB each; one dictionary of attributes takes more than one of them."""
    assert not any(
        "__dict__" in vars(one) for kind in (TcpLink, SecureChannel, Cipher, Gauge, Meter) for one in kind.__mro__
    )


@aio
async def test_whoever_says_nothing_makes_room_for_whoever_does(carrier: Carrier) -> None:
    """Connections that never send act one hold every place in the lobby, and cost an honest dialler nothing (T1)."""
    sink = Recorder()
    transport = carrier.transport(BOB, sink, limits=QUIET)
    await transport.start()
    silent = [await carrier.raw_dial(transport) for _ in range(2)]
    while len(lobby(transport)) < 2:
        await turns(1)
    alice = carrier.transport(ALICE, Recorder())
    await alice.start()
    await alice.connect(BOB.pubkey_hex, "127.0.0.1", transport.port)  # type: ignore[attr-defined]
    await sink.hears("connected")
    await silent[0].closed()
    assert [str(error) for error in sink.refusals] == ["a newer connection took its place in the lobby"]
    assert (len(lobby(transport)), len(transport.slots.half_open)) == (1, 0)
    await alice.stop()
    await transport.stop()
    await silent[1].closed()


@aio
async def test_nothing_is_made_for_a_stream_before_its_act_one_is_whole(carrier: Carrier) -> None:
    transport = carrier.transport(BOB, Recorder(), limits=replace(QUIET, handshakes_share=1e-9))
    await transport.start()
    end = await carrier.raw_dial(transport)
    act = Initiator(ALICE, BOB.public, bytes(31) + b"\1").act_one()
    for byte in act[:-1]:
        end.send(bytes((byte,)))
        await turns()
    assert (len(lobby(transport)), transport.slots.inbound) == (1, {})
    end.send(act[-1:])
    await end.until(lambda: len(end.received) == ACT_TWO_BYTES)
    assert (len(lobby(transport)), len(transport.slots.half_open)) == (0, 1)
    await transport.stop()


@aio
async def test_the_dialler_has_its_answer_before_a_stream_is_made_for_it(carrier: Carrier) -> None:
    """It works on the answer meanwhile."""
    transport = carrier.transport(BOB, Recorder(), limits=QUIET)
    await transport.start()
    with socket.create_connection(("127.0.0.1", transport.port)) as end:  # type: ignore[attr-defined]
        end.send(Initiator(ALICE, BOB.public, bytes(31) + b"\1").act_one())
        while not transport.slots.half_open:
            await turns(1)
        (link,) = transport.slots.half_open
        assert link._stream is None  # type: ignore[attr-defined]
        assert len(end.recv(2 * ACT_TWO_BYTES, socket.MSG_DONTWAIT)) == ACT_TWO_BYTES
    await transport.stop()


@aio
async def test_a_dial_that_comes_to_nothing_costs_no_curve_operation(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a handshake was begun")

    monkeypatch.setattr(SecureChannel, "initiator", never)
    transport = carrier.transport(ALICE, Recorder(), host="")
    await transport.start()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ConnectionError, match="cannot reach"):
        await transport.connect(BOB.pubkey_hex, "127.0.0.1", port)
    await transport.stop()


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this kernel cannot be told")
@aio
async def test_both_ends_leave_little_with_the_kernel_and_send_at_once(carrier: Carrier) -> None:
    """What is accepted has it from its listener; TCP_NODELAY is what both event loops set by themselves."""
    sink = Recorder()
    alice, bob = carrier.transport(ALICE, Recorder()), carrier.transport(BOB, sink)
    await alice.start()
    await bob.start()
    near: Any = await alice.connect(BOB.pubkey_hex, "127.0.0.1", bob.port)  # type: ignore[attr-defined]
    await sink.hears("connected")
    (far,) = bob._links[ALICE.pubkey]
    for link in (near, far):
        raw = link._stream.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == alice.limits.write_chunk_bytes
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await alice.stop()
    await bob.stop()


@aio
async def test_without_time_for_handshakes_strangers_wait_and_a_cosigners_address_does_not(carrier: Carrier) -> None:
    transport = carrier.transport(BOB, Recorder(), limits=Limits(handshakes_share=1e-9, handshake_timeout_s=60))
    await transport.start()
    act = Initiator(ALICE, BOB.public, bytes(31) + b"\1").act_one()
    doors, now = transport.slots.doors, asyncio.get_running_loop().time()
    doors.worked(1.0, now)
    stranger = await carrier.raw_dial(transport)
    stranger.send(act)
    while not lobby(transport).anybody_spoke:
        await turns(1)
    await turns()
    assert stranger.received == b""
    doors.remember(prefix("127.0.0.1:1"), now)
    cosigner = await carrier.raw_dial(transport)
    cosigner.send(act)
    await cosigner.until(lambda: len(cosigner.received) == ACT_TWO_BYTES)
    assert stranger.received == b""
    await transport.stop()


@aio
async def test_both_acts_of_a_stranger_count_as_time(carrier: Carrier) -> None:
    limits = Limits(handshakes_share=1e-9, handshakes_burst_s=1e-9, handshake_timeout_s=60)
    transport = carrier.transport(BOB, Recorder(), limits=limits)
    await transport.start()
    act = Initiator(ALICE, BOB.public, bytes(31) + b"\1").act_one()
    first, second = await carrier.raw_dial(transport), await carrier.raw_dial(transport)
    first.send(act)
    await first.until(lambda: len(first.received) == ACT_TWO_BYTES)
    second.send(act)
    while not lobby(transport).anybody_spoke:
        await turns(1)
    await turns()
    assert second.received == b"", "the first used it up"
    doors, now = transport.slots.doors, asyncio.get_running_loop().time()
    rest_s = doors.rest_s(now)
    first.send(bytes(ACT_THREE_BYTES))
    await first.closed()
    assert doors.rest_s(now) > rest_s
    await transport.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="127/8 is the loopback there")
@aio
async def test_an_address_that_has_failed_waits_for_those_that_have_not(carrier: Carrier) -> None:
    transport = carrier.transport(BOB, Recorder(), limits=Limits(handshakes_share=1e-9))
    await transport.start()
    now = asyncio.get_running_loop().time()
    transport.slots.doors.worked(1.0, now)
    transport.slots.failed("127.0.0.3:1", now)
    at = ("127.0.0.1", transport.port)  # type: ignore[attr-defined]
    act = Initiator(ALICE, BOB.public, bytes(31) + b"\1").act_one()
    with (
        socket.create_connection(at, source_address=("127.0.0.3", 0)) as failed,
        socket.create_connection(at, source_address=("127.0.0.2", 0)) as clean,
    ):
        for one in (failed, clean):
            one.send(act)
        while len(lobby(transport)) < 2:
            await turns(1)
        await turns()
        stream = lobby(transport).next(known_only=False)
        stream.socket.close()
        assert stream.address == "{}:{}".format(*clean.getsockname())
    await transport.stop()


@aio
async def test_handshakes_of_one_address_are_metered_before_any_curve_operation(carrier: Carrier) -> None:
    """THREATS.md T1: more than the burst is closed at once, with no byte read."""
    sink = Recorder()
    transport = carrier.transport(BOB, sink, limits=Limits(prefix_burst_handshakes=3, prefix_handshakes_per_s=1e-6))
    await transport.start()
    for _ in range(3):
        (await carrier.raw_dial(transport)).send(bytes(50))
    await sink.hears("refused", 3)
    end = await carrier.raw_dial(transport)
    await end.closed()
    await sink.hears("refused", 4)
    assert [isinstance(error, HandshakeError) for error in sink.refusals] == [True, True, True, False]
    assert str(sink.refusals[3]).startswith("too many handshakes from this address; limits.py names the bound")
    await transport.stop()


@aio
async def test_who_is_let_in_gets_its_handshake_back(carrier: Carrier) -> None:
    sink = Recorder()
    limits = Limits(prefix_burst_handshakes=1, prefix_handshakes_per_s=1e-6)
    transport = carrier.transport(BOB, sink, limits=limits)
    await transport.start()
    alice = carrier.transport(ALICE, Recorder())
    await alice.start()
    for count in range(1, 6):
        link = await alice.connect(BOB.pubkey_hex, "127.0.0.1", transport.port)  # type: ignore[attr-defined]
        await sink.hears("connected", count)
        link.close()
        await sink.hears("closed", count)
    await alice.stop()
    await transport.stop()


@aio
async def test_beyond_the_share_of_descriptors_a_newer_connection_takes_an_older_ones(carrier: Carrier) -> None:
    sink = Recorder()
    limits = Limits(descriptors_share=1e-9, act_one_timeout_s=60, handshake_timeout_s=60)
    transport = carrier.transport(BOB, sink, limits=limits)
    await transport.start()
    first = await carrier.raw_dial(transport)
    await first.closed()
    await sink.hears("refused")
    (error,) = sink.refusals
    assert isinstance(error, TransportError)
    assert str(error).startswith("file descriptors are running out; limits.py names the bound"), "nobody could go"
    act = Initiator(ALICE, BOB.public, bytes(31) + b"\1").act_one()
    transport._listener._descriptors_max = 10**6  # type: ignore[attr-defined]
    silent, half_open = await carrier.raw_dial(transport), await carrier.raw_dial(transport)
    half_open.send(act)
    await half_open.until(lambda: len(half_open.received) == ACT_TWO_BYTES)
    transport._listener._descriptors_max = 0  # type: ignore[attr-defined]
    for end in (silent, half_open):
        newer = await carrier.raw_dial(transport)
        newer.send(act)
        await end.closed()
        await newer.until(lambda end=newer: len(end.received) == ACT_TWO_BYTES)  # type: ignore[misc]
    assert {str(one) for one in sink.refusals[1:]} == {"a newer connection took its file descriptor"}
    await transport.stop()


@aio
async def test_a_stop_at_any_turn_of_an_accept_leaves_no_socket_open(carrier: Carrier) -> None:
    for count in range(8):
        transport = carrier.transport(BOB, Recorder())
        await transport.start()
        with socket.create_connection(("127.0.0.1", transport.port)) as raw:  # type: ignore[attr-defined]
            await turns(count)
            await transport.stop()
            await turns()
            raw.settimeout(5)
            try:
                assert raw.recv(1) == b"", count
            except ConnectionResetError:
                pass
        assert (len(transport.slots.inbound), len(transport.slots.half_open)) == (0, 0)


@aio
async def test_a_dial_that_the_network_swallows_is_a_timeout(carrier: Carrier) -> None:
    """A listener whose backlog is full does not answer a SYN: Linux drops it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        transport = carrier.transport(ALICE, Recorder(), "", limits=Limits(dial_timeout_s=0.05))
        await transport.start()
        with pytest.raises(TimeoutError, match=f"127.0.0.1:{port} did not answer within 0.05 s; is the node running"):
            await transport.connect(BOB.pubkey_hex, "127.0.0.1", port)
        assert transport.slots.outbound == 0
        await transport.stop()
        for filler in fillers:
            filler.close()


@aio
async def test_a_reset_connection_says_so(carrier: Carrier) -> None:
    alice, bob = Recorder(), Recorder()
    dialler, listener = carrier.transport(ALICE, alice), carrier.transport(BOB, bob)
    await dialler.start()
    await listener.start()
    link = await dialler.connect(BOB.pubkey_hex, "127.0.0.1", listener.port)  # type: ignore[attr-defined]
    await bob.hears("connected")
    raw = link._stream.get_extra_info("socket")  # type: ignore[attr-defined]
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    link._abort_stream()
    await bob.hears("closed")
    assert isinstance(bob.errors[0], ConnectionError)
    assert "broke" in str(bob.errors[0])
    await dialler.stop()
    await listener.stop()


def lobby(transport: Any) -> Any:
    """Return the lobby of a TcpTransport that listens."""
    return transport._listener.lobby


EXHAUSTED = Path(__file__).with_name("exhausted.py")


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_NOFILE")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("share", [0.8, 1.0], ids=["the guard", "the kernel"])
def test_running_out_of_descriptors_costs_few_lines_and_no_link_and_passes(loop: str, share: float) -> None:
    """THREATS.md T5, in a process of its own with RLIMIT_NOFILE 64."""
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="it has no build for this Python")
    folders = [Path(musignet.__file__).parents[1], EXHAUSTED.parents[1], EXHAUSTED.parent]
    done = subprocess.run(
        [sys.executable, str(EXHAUSTED), loop, str(share)],
        env=os.environ | {"PYTHONWARNINGS": "", "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["echoes"] == 3, "before, during and after"
    assert told["carol"] == "in", "while strangers hold all that they can"
    assert 1 <= len(told["lines"]) <= 3
    assert "a newer connection took its file descriptor" in told["lines"][0]
    assert told["refusals"] < 300
    assert done.stderr == ""


def test_the_class_says_where_it_listens() -> None:
    transport = TcpTransport(ALICE, Recorder(), "127.0.0.1", 0)
    assert (transport.host, transport.port) == ("127.0.0.1", 0)
