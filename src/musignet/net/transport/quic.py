"""One reliable stream over datagrams: aioquic's protocol, with a window that moves only by what was taken.

QUIC's own TLS proves nothing here: its certificate is thrown away. The Noise handshake inside proves who is there.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import Limit, QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicPacketType, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ...errors import Timeout
from ...limits import KIB, QUIC_DATAGRAM_MAX_BYTES, QUIC_HOLES_MAX, QUIC_WINDOW_BYTES

__all__ = ["Reader", "Stream"]

_ALPN: Final = "musignet/1"
_PLACE: Final = ("ice", 0)
"""ICE knows where the peer is; to QUIC it is always in one place."""
_STREAM: Final = 0
_IDLE_S: Final = 90.0
"""The node's own pings, and ICE's, are more frequent: this one only cleans up."""
_PIECE_BYTES: Final = 64 * KIB
"""What is handed over at once, at most."""
_FRAME_MAX_BYTES: Final = 17
"""A frame's type, a stream id and a limit, each at its longest."""


class Reader(Protocol):
    """Who a stream reports to."""

    def stream_opened(self) -> None:
        """QUIC's own handshake is done. Bytes may follow in the same datagram."""
        ...

    def stream_data(self, data: bytes) -> None:
        """Bytes, in order."""
        ...

    def stream_room(self, unsent: int) -> None:
        """Something was sent or acknowledged: so many bytes still wait."""
        ...

    def stream_ended(self, error: OSError | None) -> None:
        """Nothing comes any more. Called once."""
        ...


class _Quic(QuicConnection):
    """aioquic raises its windows by what *arrived*, twofold each time. Ours follow what was taken, and do not grow."""

    taken = 0

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        limit = self.taken + QUIC_WINDOW_BYTES
        if limit - stream.max_stream_data_local_sent < QUIC_WINDOW_BYTES // 4:
            return
        buffer = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=_FRAME_MAX_BYTES,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        buffer.push_uint_var(stream.stream_id or _STREAM)
        buffer.push_uint_var(limit)
        stream.max_stream_data_local = stream.max_stream_data_local_sent = limit

    def forget_lost_packets(self) -> None:
        """Acknowledge no more of what came before many others that never did (RFC 9000 13.2.3)."""
        for space in self._spaces.values():
            while len(space.ack_queue) > QUIC_HOLES_MAX:
                space.ack_queue.shift()

    @property
    def crumbled(self) -> bool:
        """Whether a stream came in more pieces than a bad line makes."""
        streams = (*self._streams.values(), *self._crypto_streams.values())
        return any(len(one.receiver._ranges) > QUIC_HOLES_MAX for one in streams)


class Stream:
    """One QUIC connection with one stream.

    Args:
        send:   sends a datagram.
        client: whether this side opens the stream; the other side is opened by the first datagram.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[bytes], None], reader: Reader, *, client: bool
    ) -> None:
        self._loop = loop
        self._send = send
        self._reader = reader
        self._client = client
        self._quic: _Quic | None = None
        self._stream: QuicStream | None = None
        self._ready: asyncio.Future[None] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._soon: asyncio.Handle | None = None
        self._reading = True
        self._unread = bytearray()
        self._finishing = False
        self._eof = False
        self._ended = False

    async def open(self, within_s: float) -> None:
        """Wait for QUIC's own handshake. Raises OSError, and Timeout after `within_s`."""
        if self._client:
            quic = self._quic = _Quic(configuration=_configuration(client=True))
            _one_stream_only(quic)
            quic.connect(_PLACE, now=self._loop.time())
            self._flush()
        try:
            async with asyncio.timeout(within_s):
                await self._ready
        except TimeoutError:
            raise Timeout(f"no stream over the opened path within {within_s:g} s") from None

    # --- from the network ---------------------------------------------------------------------------------------------

    def receive(self, datagram: bytes) -> None:
        """Take a datagram."""
        if self._ended or len(datagram) > QUIC_DATAGRAM_MAX_BYTES:
            return
        quic = self._quic or self._accept(datagram)
        if quic is not None:
            quic.receive_datagram(datagram, _PLACE, now=self._loop.time())
            self._progress(quic)
            quic.forget_lost_packets()
            if quic.crumbled:
                quic.close()
                self._send_all()
                self._end(OSError("a stream of holes"))

    def lost(self) -> None:
        """The path under the stream is gone."""
        self._end(OSError("the path is gone"))

    def _accept(self, datagram: bytes) -> _Quic | None:
        """Begin with a client's first datagram. Anything else is dropped."""
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=8)
        except ValueError:
            return None
        if self._client or header.packet_type != QuicPacketType.INITIAL:
            return None
        quic = self._quic = _Quic(
            configuration=_configuration(client=False), original_destination_connection_id=header.destination_cid
        )
        _one_stream_only(quic)
        return quic

    def _progress(self, quic: _Quic) -> None:
        while (event := quic.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted):
                self._opened(quic)
            elif isinstance(event, events.StreamDataReceived) and event.stream_id == _STREAM:
                self._data(quic, event)
            elif isinstance(event, events.StreamReset):
                self._end(OSError("the peer gave the stream up"))
            elif isinstance(event, events.ConnectionTerminated):
                self._end(
                    OSError(event.reason_phrase or f"QUIC error {event.error_code}") if event.error_code else None
                )
        if not self._ended:
            self._flush()

    def _opened(self, quic: _Quic) -> None:
        self._stream = quic._get_or_create_stream_for_send(_STREAM) if self._client else None
        if not self._ready.done():
            self._ready.set_result(None)
            self._reader.stream_opened()

    def _data(self, quic: _Quic, event: events.StreamDataReceived) -> None:
        self._eof = self._eof or event.end_stream
        if self._stream is None:
            self._stream = quic._streams[_STREAM]
        self._unread += event.data
        self._drain()

    def _drain(self) -> None:
        quic = self._quic
        while self._reading and self._unread and quic is not None and not self._ended:
            data = bytes(self._unread[:_PIECE_BYTES])
            del self._unread[:_PIECE_BYTES]
            quic.taken += len(data)
            self._reader.stream_data(data)
        if self._eof and not self._unread and not self._ended:
            self.abort()

    # --- from the link ------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> int:
        """Queue bytes, once the client has said something. Returns how many have not been sent."""
        quic = self._quic
        if quic is None or self._stream is None or self._ended or self._finishing:
            return 0
        quic.send_stream_data(_STREAM, data)
        if self._soon is None:
            self._soon = self._loop.call_soon(self._flush)
        return self._unsent()

    def pause(self) -> None:
        """Hand over nothing more: the peer's window closes by itself."""
        self._reading = False

    def resume(self) -> None:
        """Undo `pause`."""
        self._reading = True
        self._drain()
        if not self._ended:
            self._flush()

    @property
    def reading(self) -> bool:
        """Whether nobody paused it."""
        return self._reading

    def finish(self) -> None:
        """End the stream, and close once the peer has everything."""
        if self._quic is None or self._stream is None:
            self.abort()
        elif not (self._finishing or self._ended):
            self._finishing = True
            self._quic.send_stream_data(_STREAM, b"", end_stream=True)
            self._flush()

    def abort(self) -> None:
        """Close now."""
        if self._quic is not None and not self._ended:
            self._quic.close()
            self._send_all()
        self._end(None)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _unsent(self) -> int:
        sender = self._stream.sender if self._stream is not None else None
        return sender._buffer_stop - sender.highest_offset if sender is not None else 0

    def _flush(self) -> None:
        """Send what is due, and set the clock for what comes next."""
        self._soon = None
        if self._ended or self._quic is None:
            return
        self._send_all()
        if self._finishing and self._stream is not None and self._stream.sender.is_finished:
            self.abort()
            return
        self._arm(self._quic.get_timer())
        self._reader.stream_room(self._unsent())

    def _send_all(self) -> None:
        if self._quic is not None:
            for datagram, _ in self._quic.datagrams_to_send(now=self._loop.time()):
                self._send(datagram)

    def _arm(self, at: float | None) -> None:
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        quic, at = self._quic, self._timer_at
        self._timer = self._timer_at = None
        if quic is not None and at is not None and not self._ended:
            quic.handle_timer(now=max(at, self._loop.time()))
            self._progress(quic)

    def _end(self, error: OSError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._arm(None)
        if self._soon is not None:
            self._soon.cancel()
        if not self._ready.done():
            self._ready.set_exception(error or OSError("closed before it was open"))
            self._ready.exception()  # heard: whoever waits hears it too
        self._reader.stream_ended(error)


def _one_stream_only(quic: _Quic) -> None:
    """Let the peer open the one stream that a link is, and no other."""
    for limit, value in ((quic._local_max_streams_bidi, 1), (quic._local_max_streams_uni, 0)):
        assert isinstance(limit, Limit)
        limit.value = limit.sent = value


def _configuration(*, client: bool) -> QuicConfiguration:
    configuration = QuicConfiguration(
        is_client=client,
        alpn_protocols=[_ALPN],
        idle_timeout=_IDLE_S,
        max_data=2**60,  # one stream: its window is the window
        max_stream_data=QUIC_WINDOW_BYTES,
        verify_mode=ssl.CERT_NONE,
    )
    if not client:
        configuration.certificate, configuration.private_key = _throw_away_certificate()
    return configuration


def _throw_away_certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "musignet")])
    begins = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    unsigned = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = unsigned.serial_number(1).not_valid_before(begins).not_valid_after(begins.replace(year=2120))
    return dated.sign(key, hashes.SHA256()), key
