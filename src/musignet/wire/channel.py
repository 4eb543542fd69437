"""The encrypted channel of one link: handshake, frames, fragments, acknowledgements. Sans-IO.

    channel.receive_data(bytes from the socket)       channel.send(envelope, priority)
    while (events := channel.next_events()):  ...     channel.acknowledge(message id)
                                                      for piece in channel.data_to_send(): socket.write(piece)

Each packet, of Noise or inside TLS, carries one frame:

    byte 0     kind, 4 bits | priority, 4 bits
    byte 1     number of acknowledged message ids
    16 B each  those ids
    rest       WHOLE  an envelope            FIRST  4-byte length, then its first bytes
               NEXT   its following bytes    EMPTY  nothing    CLOSE  2-byte code, then a sentence

A message larger than a fragment is sent as FIRST and NEXTs of its priority; before each of them every more
urgent message goes out, so a partial signature waits behind 32 KiB and never behind 4 MiB. Acknowledgements ride on
whatever leaves next. Without a CLOSE, the end of the stream is a truncation (THREATS.md T6).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, TypeAlias

from msgspec import Struct

from .. import limits
from ..crypto.aead import AeadError
from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey
from ..errors import NetworkError, ReceiveError, SendError
from ..text import safe, short_key
from . import tlsauth
from .messages import Priority
from .noise import PROLOGUE, BrokenFrame, Initiator, Keys, PacketCipher, Responder

__all__ = [
    "Acked",
    "CloseReceived",
    "EnvelopeReceived",
    "Established",
    "Event",
    "NoRoom",
    "ReassemblyBudget",
    "SecureChannel",
]

_WHOLE: Final = 0
_FIRST: Final = 1
_NEXT: Final = 2
_EMPTY: Final = 3
_CLOSE: Final = 4

_ID: Final = limits.MESSAGE_ID_BYTES
_ZERO_ACKS: Final = b"\0"
_PRIORITIES: Final = limits.PRIORITIES
_FRAGMENT: Final = limits.FRAGMENT_BYTES
_ALL: Final = 1 << 62
_WHOLE_HEADS: Final = tuple(bytes((_WHOLE << 4 | priority, 0)) for priority in Priority)
"""The header of a whole envelope without acknowledgements, which most frames have."""


class Established(Struct, frozen=True, gc=False):
    """The handshake is done and `peer` proved its key. `transcript` is the same 32 bytes on both sides."""

    peer: PublicKey
    transcript: bytes


class EnvelopeReceived(Struct, frozen=True, gc=False):
    """One whole envelope, not yet looked into."""

    data: bytes


class Acked(Struct, frozen=True, gc=False):
    """The peer has these messages: ids of 16 bytes each, one after the other."""

    ids: bytes


class CloseReceived(Struct, frozen=True, gc=False):
    """The peer says that nothing more will come, and why. `text` is the peer's: show it through `safe`."""

    code: int
    text: str


Event: TypeAlias = Established | EnvelopeReceived | Acked | CloseReceived


Handshake: TypeAlias = Initiator | Responder | tlsauth.Initiator | tlsauth.Responder
_DIALS: Final = (Initiator, tlsauth.Initiator)
_ANSWERS: Final = (Responder, tlsauth.Responder)


class NoRoom(ReceiveError):
    """No room is left for incomplete messages. Whoever else has filled it: it says nothing of the one who came last."""


class ReassemblyBudget:
    """Bytes of incomplete messages, counted over all channels of a node that share it (THREATS.md T3)."""

    __slots__ = ("held_bytes", "max_bytes")

    def __init__(self, max_bytes: int = limits.REASSEMBLY_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0


class _Incoming:
    """A message of one priority that is still being fragmented in."""

    __slots__ = ("data", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.data = bytearray()  # copied out of its frames: a fragment may be one byte in a frame of acknowledgements


class SecureChannel:
    """One side of a link. Make it with `initiator` or `responder`; it lives as long as its connection.

    After an exception from `next_events` the channel is dead: close the connection and send nothing.
    """

    __slots__ = (
        "_acks", "_acts", "_at", "_begun", "_budget", "_closing", "_failed", "_handshake", "_in", "_incoming", "_keys",
        "_number", "_out", "_queue", "frames_received", "frames_sent", "queued_bytes",
    )  # fmt: skip

    def __init__(self, handshake: Handshake, budget: ReassemblyBudget | None = None) -> None:
        self._handshake: Handshake | None = handshake
        self._budget = budget or ReassemblyBudget()
        self._keys: Keys | None = None
        self._failed: Exception | None = None
        self._in: bytes | bytearray = b""
        self._at = 0
        self._acts = 0
        self._incoming: dict[int, _Incoming] = {}
        self._out = b""
        self._queue: list[tuple[int, int, bytes]] = []
        """A heap: priority, number, envelope."""
        self._number = 0
        self._begun: dict[int, int] = {}
        """How much of the first message of a priority has left, where it leaves in fragments."""
        self._acks: list[bytes] = []
        self._closing: bytes | None = None
        self.frames_received = 0
        """Whole frames that arrived and decrypted."""
        self.frames_sent = 0
        """Frames with a message in them that left."""
        self.queued_bytes = 0
        """Bytes of envelopes accepted by `send` and not yet encrypted."""
        if isinstance(handshake, _DIALS):
            self._out = handshake.act_one()

    @classmethod
    def initiator(
        cls,
        identity: Identity,
        responder: PublicKey,
        ephemeral: bytes,
        *,
        prologue: bytes = PROLOGUE,
        budget: ReassemblyBudget | None = None,
    ) -> SecureChannel:
        """The dialling side. `ephemeral` is 32 fresh random bytes. Act one is ready in `data_to_send`."""
        return cls(Initiator(identity, responder, ephemeral, prologue), budget)

    @classmethod
    def responder(
        cls, identity: Identity, ephemeral: bytes, *, prologue: bytes = PROLOGUE, budget: ReassemblyBudget | None = None
    ) -> SecureChannel:
        """The dialled side. `ephemeral` is 32 fresh random bytes."""
        return cls(Responder(identity, ephemeral, prologue), budget)

    @property
    def established(self) -> bool:
        """Whether the handshake is done."""
        return self._keys is not None

    @property
    def acts_received(self) -> int:
        """Acts of the handshake that have arrived and held."""
        return self._acts

    @property
    def mid_frame(self) -> bool:
        """Whether a frame has begun to arrive and is not whole: the clock of THREATS.md T2 runs."""
        return self._at < len(self._in)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the connection. Never raises; `next_events` says what they mean."""
        if self._at == len(self._in):
            self._in = data
        else:
            rest = (
                self._in
                if isinstance(self._in, bytearray) and self._at == 0
                else bytearray(memoryview(self._in)[self._at :])
            )
            rest += data
            self._in = rest
        self._at = 0

    def next_events(self, most: int = _ALL) -> list[Event]:
        """Return what arrived next, in order, with at most `most` envelopes; empty when more bytes are needed.

        `Established` comes alone. What came before a fault is returned first, and the fault raised by the next call.

        Raises:
            HandshakeError: an act that does not hold. Nothing is to be sent back.
            ReceiveError:   a frame that does not decrypt or breaks the rules of this module.
        """
        if self._failed is not None:
            raise self._failed
        events: list[Event] = []
        if self._at == len(self._in):
            return events
        try:
            if self._keys is None:
                self._next_act(events)
            else:
                self._next_frames(self._keys.receiving, events, most)
        except NetworkError as error:
            self._fail(error)
            if not events:
                raise
        except Exception as error:
            self._fail(error)
            raise
        return events

    def _take(self, size: int) -> bytes | bytearray | None:
        at = self._at
        if len(self._in) - at < size:
            return None
        self._at = at + size
        return self._in[at : at + size]

    def _next_act(self, events: list[Event]) -> None:
        handshake = self._handshake
        if isinstance(handshake, _DIALS):
            act = self._take(handshake.act_two_bytes)
            if act is None:
                return
            reply, self._keys = handshake.act_three(bytes(act))
            self._out += reply
        elif isinstance(handshake, _ANSWERS) and self._acts == 0:
            act = self._take(handshake.act_one_bytes)
            if act is None:
                return
            self._out += handshake.act_two(bytes(act))
            self._acts = 1
            self._next_act(events)
            return
        elif isinstance(handshake, _ANSWERS):
            act = self._take(handshake.act_three_bytes)
            if act is None:
                return
            self._keys = handshake.finish(bytes(act))
        if self._keys is not None:
            self._acts += 1
            self._handshake = None
            events.append(Established(self._keys.peer, self._keys.transcript))

    def _next_frames(self, cipher: PacketCipher, events: list[Event], room: int) -> None:
        """Open frames while their bytes are here, and there is room for envelopes."""
        good, end = 0, len(self._in)
        try:
            while room > 0 and self._at < end and (packet := cipher.open_untrusted(self._in, self._at)) is not None:
                frame, self._at = packet
                self.frames_received += 1
                room -= self._frame_untrusted(frame, events)
                good = len(events)
        except AeadError:
            raise BrokenFrame(
                "a frame does not decrypt", hint="bytes were changed, lost or reordered on the way; the link is closed"
            ) from None
        except ReceiveError:
            del events[good:]  # a bad frame acknowledges nothing
            raise

    def _frame_untrusted(self, frame: bytes, events: list[Event]) -> int:
        """Take a frame in. Returns how many envelopes it made whole: one or none."""
        if len(frame) < 2:
            raise ReceiveError("a frame without a header", expected="at least 2 bytes", got=len(frame))
        kind, priority, acks = frame[0] >> 4, frame[0] & 0x0F, frame[1]
        start = 2 + _ID * acks
        if len(frame) < start or priority >= _PRIORITIES:
            raise ReceiveError(
                "a malformed frame header", expected="a priority below 4 and all acknowledged ids", got=frame[:2].hex()
            )
        if acks:
            events.append(Acked(frame[2:start]))
        if kind == _WHOLE:
            events.append(EnvelopeReceived(frame[start:]))
            return 1
        if kind == _FIRST:
            return self._first_untrusted(priority, memoryview(frame)[start:], events)
        if kind == _NEXT:
            return self._next_untrusted(priority, memoryview(frame)[start:], events)
        if kind == _CLOSE:
            events.append(_close_notice_untrusted(frame[start:]))
        elif kind != _EMPTY or len(frame) != start:
            raise ReceiveError(
                "a malformed frame",
                expected="a known kind; nothing behind the ids of an empty one",
                got=frame[:2].hex(),
            )
        return 0

    def _first_untrusted(self, priority: int, data: memoryview, events: list[Event]) -> int:
        total = int.from_bytes(data[:4], "big")
        if priority in self._incoming:
            raise ReceiveError(
                "a second message begins before the first of its priority has ended", got=Priority(priority).name
            )
        if not len(data) - 4 < total <= limits.MESSAGE_MAX_BYTES or len(data) <= 4:
            raise ReceiveError(
                "a fragmented message of impossible length",
                expected=f"at most {limits.MESSAGE_MAX_BYTES} bytes",
                got=total,
            )
        self._incoming[priority] = _Incoming(total)
        return self._next_untrusted(priority, data[4:], events)

    def _next_untrusted(self, priority: int, data: memoryview, events: list[Event]) -> int:
        incoming = self._incoming.get(priority)
        if incoming is None or not data:
            raise ReceiveError("a fragment of no message", got=Priority(priority).name)
        budget = self._budget
        held = len(incoming.data) + len(data)
        if held > incoming.total:
            raise ReceiveError(
                "a message longer than it said", expected=f"{incoming.total} bytes", got=f"{held} or more"
            )
        budget.held_bytes += len(data)
        incoming.data += data
        if budget.held_bytes > budget.max_bytes:
            raise NoRoom(
                "too many incomplete messages in this node",
                expected=f"at most {budget.max_bytes} bytes held",
                got=budget.held_bytes,
            )
        if held < incoming.total:
            return 0
        del self._incoming[priority]
        budget.held_bytes -= incoming.total
        events.append(EnvelopeReceived(bytes(incoming.data)))
        return 1

    def _release(self) -> None:
        """Give back what incomplete messages hold of the shared budget."""
        for incoming in self._incoming.values():
            self._budget.held_bytes -= len(incoming.data)
        self._incoming.clear()

    def _fail(self, error: Exception) -> None:
        """Be dead: what is still queued in either direction stays here, also the answer to an act that held."""
        self._failed = error
        if self._handshake is not None:
            self._handshake.wipe()
        self._release()

    def connection_lost(self) -> None:
        """The connection is gone: give back what incomplete messages held. Call it once, whatever happened before."""
        self._release()
        self._failed = self._failed or ReceiveError("the connection is closed")

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, envelope: bytes, priority: int = Priority.BULK) -> None:
        """Queue an envelope. It leaves with the next `data_to_send`.

        Raises: SendError when it is larger than 4 MiB, or the channel is closing.
        """
        if len(envelope) > limits.MESSAGE_MAX_BYTES:
            raise SendError(
                "message too large", expected=f"at most {limits.MESSAGE_MAX_BYTES} bytes", got=f"{len(envelope)} bytes"
            )
        if not envelope:
            raise SendError("an empty message")
        if self._closing is not None:
            raise SendError("this link is closing", hint="send again when the peer is connected")
        self._number += 1
        heappush(self._queue, (priority, self._number, envelope))
        self.queued_bytes += len(envelope)

    def acknowledge(self, message_id: bytes) -> None:
        """Tell the peer that a message arrived. The id rides on the next frame; `data_to_send` makes one if need be."""
        self._acks.append(message_id)

    def close(self, code: int = 0, text: str = "") -> None:
        """Say goodbye after what is queued. Later calls to `send` raise."""
        if self._closing is None:
            self._closing = code.to_bytes(2, "big") + safe(text, limits.CLOSE_TEXT_MAX_BYTES).encode("ascii")

    @property
    def pending(self) -> bool:
        """Whether `data_to_send` would return anything."""
        if not (self.queued_bytes or self._acks or self._out or self._closing) or self._failed is not None:
            return False
        return bool(self._out) or self._keys is not None

    @property
    def urgent(self) -> bool:
        """Whether a message of a round waits."""
        return bool(self._queue) and self._queue[0][0] <= Priority.ROUND_1

    @property
    def answers_waiting(self) -> tuple[int, int]:
        """Messages and bytes that wait and that the peer causes by what it sends: control and acknowledgements."""
        sizes = [len(data) for priority, _, data in self._queue if priority == Priority.CONTROL]
        frames = -(-len(self._acks) // limits.ACKS_PER_FRAME_MAX)
        return len(sizes) + frames, sum(sizes) - self._begun.get(Priority.CONTROL, 0) + _ID * len(self._acks)

    @property
    def worn_out(self) -> bool:
        """Whether one direction has carried all the frames that a link may (THREATS.md T15)."""
        return self.frames_received >= limits.LINK_FRAMES_MAX or self.frames_sent >= limits.LINK_FRAMES_MAX

    def data_to_send(self, max_bytes: int = limits.MESSAGE_MAX_BYTES) -> list[bytes]:
        """Return pieces for the connection, in order; about `max_bytes` of them. More may be `pending` afterwards.

        Call it again when the connection took them: what is still queued here can be overtaken by urgent messages.
        """
        if self._failed is not None:
            return []
        out = [self._out] if self._out else []
        self._out = b""
        keys = self._keys
        if keys is None:
            return out
        seal = keys.sending.seal
        budget = max_bytes
        while self._queue and budget > 0:
            frame = self._next_outgoing()
            out += seal(frame)
            budget -= len(frame)
        if self._queue:
            return out
        while self._acks:
            out += seal(bytes((_EMPTY << 4,)) + self._take_acks())
        if self._closing:
            out += seal(bytes((_CLOSE << 4,)) + _ZERO_ACKS + self._closing)
            self._closing = b""
        return out

    def _take_acks(self) -> bytes:
        acks = self._acks
        if not acks:
            return _ZERO_ACKS
        self._acks = acks[limits.ACKS_PER_FRAME_MAX :]
        del acks[limits.ACKS_PER_FRAME_MAX :]
        return bytes((len(acks),)) + b"".join(acks)

    def _next_outgoing(self) -> bytes:
        """Return the next frame of the most urgent message."""
        self.frames_sent += 1
        priority, _, data = self._queue[0]
        total = len(data)
        if total <= _FRAGMENT:
            heappop(self._queue)
            self.queued_bytes -= total
            if not self._acks:
                return _WHOLE_HEADS[priority] + data
            return b"".join((_WHOLE_HEADS[priority][:1], self._take_acks(), data))
        sent = self._begun.pop(priority, 0)
        piece = memoryview(data)[sent : sent + _FRAGMENT]
        self.queued_bytes -= len(piece)
        if sent + len(piece) < total:
            self._begun[priority] = sent + len(piece)
        else:
            heappop(self._queue)
        head = bytes((_NEXT << 4 | priority,)) if sent else bytes((_FIRST << 4 | priority,))
        return b"".join((head, self._take_acks(), b"" if sent else total.to_bytes(4, "big"), piece))

    def __repr__(self) -> str:
        state = f"with {short_key(self._keys.peer.compressed)}" if self._keys else "in its handshake"
        return f"<SecureChannel {state}>"


def _close_notice_untrusted(data: bytes) -> CloseReceived:
    if len(data) < 2 or len(data) > 2 + limits.CLOSE_TEXT_MAX_BYTES:
        raise ReceiveError(
            "a malformed close notice", expected=f"2 to {2 + limits.CLOSE_TEXT_MAX_BYTES} bytes", got=len(data)
        )
    return CloseReceived(int.from_bytes(data[:2], "big"), data[2:].decode("ascii", "replace"))
