"""The encrypted channel of one link: handshake, frames, fragments, acknowledgements. Sans-IO.

    channel.receive_data(bytes from the socket)       channel.send(envelope, priority)
    while (event := channel.next_event()):  ...       channel.acknowledge(message id)
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

from collections import deque
from typing import Final, TypeAlias

from msgspec import Struct

from .. import limits
from ..crypto.aead import AeadError
from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey
from ..errors import ReceiveError, SendError
from ..text import safe, short_key
from . import tlsauth
from .messages import Priority
from .noise import PROLOGUE, BrokenFrame, Initiator, Keys, Responder

__all__ = ["Acked", "CloseReceived", "EnvelopeReceived", "Established", "Event", "ReassemblyBudget", "SecureChannel"]

_WHOLE: Final = 0
_FIRST: Final = 1
_NEXT: Final = 2
_EMPTY: Final = 3
_CLOSE: Final = 4

_ID: Final = limits.MESSAGE_ID_BYTES
_ZERO_ACKS: Final = b"\0"
_PRIORITIES: Final = limits.PRIORITIES
_FRAGMENT: Final = limits.FRAGMENT_BYTES
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


class _Outgoing:
    """A message waiting to leave, and how much of it has."""

    __slots__ = ("data", "sent")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = 0


class SecureChannel:
    """One side of a link. Make it with `initiator` or `responder`; it lives as long as its connection.

    After an exception from `next_event` the channel is dead: close the connection and send nothing.
    """

    def __init__(self, handshake: Handshake, budget: ReassemblyBudget | None = None) -> None:
        self._handshake: Handshake | None = handshake
        self._head_bytes = 0
        self._tag_bytes = 0
        self._budget = budget or ReassemblyBudget()
        self._keys: Keys | None = None
        self._failed: Exception | None = None
        self._in: bytes | bytearray = b""
        self._at = 0
        self._body: tuple[int, bytes] | None = None
        self._acts = 0
        self._incoming: dict[int, _Incoming] = {}
        self._events: list[Event] = []
        self._out: list[bytes] = []
        self._queues: dict[
            int, deque[_Outgoing]
        ] = {}  # only of priorities that something waits in: most links are idle
        self._acks: list[bytes] = []
        self._closing: bytes | None = None
        self.frames_received = 0
        """Whole frames that arrived and decrypted."""
        self.frames_sent = 0
        """Frames with a message in them that left."""
        self.queued_bytes = 0
        """Bytes of envelopes accepted by `send` and not yet encrypted."""
        if isinstance(handshake, _DIALS):
            self._out.append(handshake.act_one())

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
        return self._body is not None or self._at < len(self._in)

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the connection. Never raises; `next_event` says what they mean."""
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

    def next_event(self) -> Event | None:
        """Return what arrived next, or None when more bytes are needed.

        Raises:
            HandshakeError: an act that does not hold. Nothing is to be sent back.
            ReceiveError:   a frame that does not decrypt or breaks the rules of this module.
        """
        if self._events:
            return self._events.pop(0)
        if self._failed is not None:
            raise self._failed
        try:
            if self._keys is None:
                self._next_act()
            else:
                self._next_frame(self._keys)
        except Exception as error:
            self._fail(error)
            raise
        return self._events.pop(0) if self._events else None

    def _take(self, size: int) -> bytes | bytearray | None:
        at = self._at
        if len(self._in) - at < size:
            return None
        self._at = at + size
        return self._in[at : at + size]

    def _next_act(self) -> None:
        handshake = self._handshake
        if isinstance(handshake, _DIALS):
            act = self._take(handshake.act_two_bytes)
            if act is None:
                return
            reply, self._keys = handshake.act_three(bytes(act))
            self._out.append(reply)
        elif isinstance(handshake, _ANSWERS) and self._acts == 0:
            act = self._take(handshake.act_one_bytes)
            if act is None:
                return
            self._out.append(handshake.act_two(bytes(act)))
            self._acts = 1
            self._next_act()
            return
        elif isinstance(handshake, _ANSWERS):
            act = self._take(handshake.act_three_bytes)
            if act is None:
                return
            self._keys = handshake.finish(bytes(act))
        if self._keys is not None:
            self._acts += 1
            self._handshake = None
            self._head_bytes = self._keys.receiving.head_bytes
            self._tag_bytes = self._keys.receiving.tag_bytes
            self._events.append(Established(self._keys.peer, self._keys.transcript))

    def _next_frame(self, keys: Keys) -> None:
        """Decrypt frames until one yields an event or the bytes run out."""
        cipher, head, tag = keys.receiving, self._head_bytes, self._tag_bytes
        try:
            while not self._events:
                data, at = self._in, self._at
                left = len(data) - at
                if self._body is None:
                    if left < head:
                        return
                    length, nonce = cipher.open_length_untrusted(data[at : at + head])
                    size = length + tag
                    at += head
                    left -= head
                else:
                    size, nonce = self._body
                if left < size:
                    self._at, self._body = at, (size, nonce)
                    return
                self._at, self._body = at + size, None
                self.frames_received += 1
                self._frame_untrusted(cipher.open_body_untrusted(nonce, data[at : at + size]))
        except AeadError:
            raise BrokenFrame(
                "a frame does not decrypt", hint="bytes were changed, lost or reordered on the way; the link is closed"
            ) from None

    def _frame_untrusted(self, frame: bytes) -> None:
        if len(frame) < 2:
            raise ReceiveError("a frame without a header", expected="at least 2 bytes", got=len(frame))
        kind, priority = frame[0] >> 4, frame[0] & 0x0F
        start = 2 + _ID * frame[1]
        if len(frame) < start or priority >= _PRIORITIES:
            raise ReceiveError(
                "a malformed frame header", expected="a priority below 4 and all acknowledged ids", got=frame[:2].hex()
            )
        if start > 2:
            self._events.append(Acked(frame[2:start]))
        if kind == _WHOLE:
            self._events.append(EnvelopeReceived(frame[start:]))
        elif kind == _FIRST:
            self._first_untrusted(priority, memoryview(frame)[start:])
        elif kind == _NEXT:
            self._next_untrusted(priority, memoryview(frame)[start:])
        elif kind == _CLOSE:
            self._events.append(_close_notice_untrusted(frame[start:]))
        elif kind != _EMPTY or len(frame) != start:
            raise ReceiveError(
                "a malformed frame",
                expected="a known kind; nothing behind the ids of an empty one",
                got=frame[:2].hex(),
            )

    def _first_untrusted(self, priority: int, data: memoryview) -> None:
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
        self._next_untrusted(priority, data[4:])

    def _next_untrusted(self, priority: int, data: memoryview) -> None:
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
            raise ReceiveError(
                "too many incomplete messages in this node",
                expected=f"at most {budget.max_bytes} bytes held",
                got=budget.held_bytes,
            )
        if held == incoming.total:
            del self._incoming[priority]
            budget.held_bytes -= incoming.total
            self._events.append(EnvelopeReceived(bytes(incoming.data)))

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
        self._events.clear()
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
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
        queue.append(_Outgoing(envelope))
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
        return bool(self._queues) and min(self._queues) <= Priority.ROUND_1

    @property
    def answers_waiting(self) -> tuple[int, int]:
        """Messages and bytes that wait and that the peer causes by what it sends: control and acknowledgements."""
        queue, acks = self._queues.get(Priority.CONTROL, ()), len(self._acks)
        frames = -(-acks // limits.ACKS_PER_FRAME_MAX)
        return len(queue) + frames, sum(len(one.data) - one.sent for one in queue) + _ID * acks

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
        out, self._out = self._out, []
        keys = self._keys
        if keys is None:
            return out
        seal = keys.sending.seal
        budget = max_bytes
        while self.queued_bytes and budget > 0:
            frame = self._next_outgoing()
            out += seal(frame)
            budget -= len(frame)
        while self._acks and not self.queued_bytes:
            out += seal(bytes((_EMPTY << 4,)) + self._take_acks())
        if self._closing and not self.queued_bytes:
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
        priority = min(self._queues)
        message = self._queues[priority][0]
        data, sent = message.data, message.sent
        total = len(data)
        if total <= _FRAGMENT:
            self._next_message(priority)
            self.queued_bytes -= total
            if not self._acks:
                return _WHOLE_HEADS[priority] + data
            return b"".join((_WHOLE_HEADS[priority][:1], self._take_acks(), data))
        piece = memoryview(data)[sent : sent + _FRAGMENT]
        message.sent = sent + len(piece)
        self.queued_bytes -= len(piece)
        if message.sent == total:
            self._next_message(priority)
        head = bytes((_NEXT << 4 | priority,)) if sent else bytes((_FIRST << 4 | priority,))
        return b"".join((head, self._take_acks(), b"" if sent else total.to_bytes(4, "big"), piece))

    def _next_message(self, priority: int) -> None:
        """The first message of this priority has left."""
        queue = self._queues[priority]
        queue.popleft()
        if not queue:
            del self._queues[priority]

    def __repr__(self) -> str:
        state = f"with {short_key(self._keys.peer.compressed)}" if self._keys else "in its handshake"
        return f"<SecureChannel {state}>"


def _close_notice_untrusted(data: bytes) -> CloseReceived:
    if len(data) < 2 or len(data) > 2 + limits.CLOSE_TEXT_MAX_BYTES:
        raise ReceiveError(
            "a malformed close notice", expected=f"2 to {2 + limits.CLOSE_TEXT_MAX_BYTES} bytes", got=len(data)
        )
    return CloseReceived(int.from_bytes(data[:2], "big"), data[2:].decode("ascii", "replace"))
