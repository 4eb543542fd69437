"""One stream over datagrams: whole and in order over a bad line, never more unread than its window, and one only."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

pytest.importorskip("aioquic", reason="needs the extra `nat`")

from aioquic.quic.packet import QuicStreamFrame
from endpoints import Signal, aio, turns

from musignet.errors import Timeout
from musignet.limits import KIB, QUIC_HOLES_MAX, QUIC_WINDOW_BYTES
from musignet.net.transport.quic import Stream

Line = Callable[[bytes], bytes | None]
"""What becomes of a datagram."""


class End(Signal):
    """A stream and what it reported."""

    def __init__(self, *, client: bool, line: Line = lambda datagram: datagram) -> None:
        super().__init__()
        self.data = bytearray()
        self.told: list[str] = []
        self.first = b""
        """Said as soon as it is open."""
        self.ends: list[OSError | None] = []
        self.most_unsent = 0
        self.other: End
        self._line = line
        self.loop = asyncio.get_running_loop()
        self.stream = Stream(self.loop, self._send, self, client=client)

    def _send(self, datagram: bytes) -> None:
        arriving = self._line(datagram)
        if arriving is not None:
            self.loop.call_soon(lambda: self.other.stream.receive(arriving))

    def stream_opened(self) -> None:
        self.told.append("opened")
        if self.first:
            self.stream.write(self.first)

    def stream_data(self, data: bytes) -> None:
        self.told.append("data")
        self.data += data
        self.poke()

    def stream_room(self, unsent: int) -> None:
        self.most_unsent = max(self.most_unsent, unsent)
        self.poke()

    def stream_ended(self, error: OSError | None) -> None:
        self.ends.append(error)
        self.poke()


async def opened(line: Line = lambda datagram: datagram) -> tuple[End, End]:
    """Return both ends of an open stream: the one that opened it first."""
    near, far = End(client=True, line=line), End(client=False, line=line)
    near.other, far.other = far, near
    await asyncio.gather(near.stream.open(10), far.stream.open(10))
    return near, far


async def close(*ends: End) -> None:
    for end in ends:
        end.stream.abort()
    await turns()
    assert all(end.ends for end in ends)
    assert all(len(end.ends) == 1 for end in ends)


@aio
async def test_bytes_arrive_whole_and_in_order_over_a_line_that_loses_doubles_and_alters() -> None:
    rng = random.Random(7)

    def bad(datagram: bytes) -> bytes | None:
        fate = rng.random()
        if fate < 0.05:
            return None
        if fate < 0.1:
            return datagram[:-1] + bytes([datagram[-1] ^ 1])
        return datagram

    near, far = await opened(bad)
    sent = rng.randbytes(300 * KIB)
    near.stream.write(sent)
    await far.until(lambda: far.data)
    far.stream.write(sent[::-1])
    await far.until(lambda: len(far.data) == len(sent), 15)
    await near.until(lambda: len(near.data) == len(sent), 15)
    assert (far.data, near.data) == (sent, sent[::-1])
    await close(near, far)


@aio
async def test_what_waits_unread_is_no_heap_of_crumbs() -> None:
    """A peer may send a byte in each frame while we do not read: the window has room for a million of them."""
    near, far = await opened()
    near.stream.write(b"0")
    await far.until(lambda: far.data)
    far.stream.pause()
    far.told.clear()
    for _ in range(500):
        near.stream.write(b"x")
        await turns()
    far.stream.resume()
    await far.until(lambda: len(far.data) == 501)
    assert far.told.count("data") <= 5
    await close(near, far)


@aio
async def test_a_peer_that_sends_crumbs_with_holes_between_them_is_cut_off() -> None:
    """aioquic looks at every hole with every frame: half a million of them fit into the window."""
    near, far = await opened()
    near.stream.write(b"0")
    await far.until(lambda: far.data)
    receiver = far.stream._stream.receiver  # type: ignore[union-attr]
    for number in range(QUIC_HOLES_MAX + 1):
        receiver.handle_frame(QuicStreamFrame(data=b"x", offset=2 * number + 100))
    near.stream.write(b"1")
    await far.until(lambda: far.ends)
    assert "holes" in str(far.ends[0])
    await near.until(lambda: near.ends)


@aio
async def test_packets_that_never_come_are_remembered_within_a_bound() -> None:
    near, far = await opened()
    for space in far.stream._quic._spaces.values():  # type: ignore[union-attr]
        for number in range(2 * QUIC_HOLES_MAX):
            space.ack_queue.add(3 * number)
    near.stream.write(b"there")
    await far.until(lambda: far.data)
    assert all(len(space.ack_queue) <= QUIC_HOLES_MAX for space in far.stream._quic._spaces.values())  # type: ignore[union-attr]
    await close(near, far)


@aio
async def test_the_first_bytes_may_come_with_the_end_of_the_handshake_and_are_told_after_it() -> None:
    kept: list[bytes] = []

    def hold(datagram: bytes) -> bytes | None:
        """Keep what the client sends once it is open, until all of it is there."""
        if not near.told:
            return datagram
        kept.append(datagram)
        return None

    near, far = End(client=True, line=hold), End(client=False)
    near.other, far.other = far, near
    near.first = b"act one"
    opening = asyncio.gather(near.stream.open(5), far.stream.open(5))
    await near.until(lambda: near.told)
    await turns()
    for datagram in kept:
        far.stream.receive(datagram)
    assert far.told == ["opened", "data"]
    near._line = lambda datagram: datagram
    await opening
    await close(near, far)


@aio
async def test_a_paused_reader_is_sent_a_window_and_no_more_however_much_it_has_taken_before() -> None:
    near, far = await opened()
    for _ in range(3):  # aioquic's own windows double with what arrives
        before = len(far.data)
        near.stream.write(bytes(2 * QUIC_WINDOW_BYTES))
        await far.until(lambda seen=before: len(far.data) == seen + 2 * QUIC_WINDOW_BYTES)
    taken = len(far.data)
    far.stream.pause()
    near.stream.write(bytes(4 * QUIC_WINDOW_BYTES))
    await near.until(lambda: near.stream._unsent() <= 3.3 * QUIC_WINDOW_BYTES)
    await turns(200)
    assert len(far.data) == taken
    assert len(far.stream._unread) <= QUIC_WINDOW_BYTES
    far.stream.resume()
    await far.until(lambda: len(far.data) == taken + 4 * QUIC_WINDOW_BYTES)
    await close(near, far)


@aio
async def test_a_peer_that_sends_beyond_the_window_is_cut_off() -> None:
    near, far = await opened()
    near.stream.write(b"x")
    await far.until(lambda: far.data)
    far.stream.pause()
    quic, stream = near.stream._quic, near.stream._stream
    assert quic is not None
    assert stream is not None
    quic._remote_max_data = stream.max_stream_data_remote = 2**40
    near.stream.write(bytes(2 * QUIC_WINDOW_BYTES))
    await far.until(lambda: far.ends)
    assert far.ends[0] is not None
    assert len(far.stream._unread) <= QUIC_WINDOW_BYTES
    await close(near, far)


@aio
async def test_a_gap_far_ahead_takes_no_memory() -> None:
    near, far = await opened()
    near.stream.write(b"x")
    await far.until(lambda: far.data)
    quic, stream = near.stream._quic, near.stream._stream
    assert quic is not None
    assert stream is not None
    quic._remote_max_data = stream.max_stream_data_remote = 2**40
    stream.sender._buffer_start = stream.sender._buffer_stop = stream.sender.highest_offset = 2**39
    near.stream.write(b"from afar")
    await far.until(lambda: far.ends)
    assert far.ends[0] is not None
    held = far.stream._stream
    assert held is not None
    assert len(held.receiver._buffer) <= QUIC_WINDOW_BYTES
    await close(near, far)


@aio
@pytest.mark.parametrize("number", [4, 2], ids=["a second stream", "a one-way stream"])
async def test_a_peer_that_opens_another_stream_is_cut_off(number: int) -> None:
    near, far = await opened()
    quic = near.stream._quic
    assert quic is not None
    quic._remote_max_streams_bidi = quic._remote_max_streams_uni = 100
    quic.send_stream_data(number, b"more")
    near.stream.write(b"x")
    await far.until(lambda: far.ends)
    assert far.ends[0] is not None
    await close(near, far)


@aio
async def test_what_was_written_before_the_end_arrives_and_then_the_end() -> None:
    near, far = await opened()
    near.stream.write(bytes(200 * KIB))
    near.stream.finish()
    assert near.stream.write(b"too late") == 0
    await far.until(lambda: far.ends)
    assert len(far.data) == 200 * KIB
    await near.until(lambda: near.ends)
    assert (near.ends, far.ends) == ([None], [None])


@aio
async def test_the_end_of_the_path_is_an_error_of_the_line() -> None:
    near, far = await opened()
    near.stream.lost()
    assert isinstance(near.ends[0], OSError)
    near.stream.receive(b"whatever")
    far.stream.abort()
    await turns()


@aio
async def test_nobody_there_is_a_timeout() -> None:
    near, far = End(client=True), End(client=False, line=lambda datagram: None)
    near.other, far.other = far, near
    with pytest.raises(Timeout):
        await near.stream.open(0.05)
    await close(near, far)


@aio
async def test_junk_before_the_first_datagram_is_dropped() -> None:
    near, far = End(client=True), End(client=False)
    near.other, far.other = far, near
    for junk in (b"", b"\0", b"\xff" * 20, b"\x40" + bytes(40), random.Random(1).randbytes(1200)):
        far.stream.receive(junk)
    await asyncio.gather(near.stream.open(5), far.stream.open(5))
    await close(near, far)
