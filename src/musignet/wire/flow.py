"""A byte stream, in order and without gaps, from pieces that may be lost, repeated, reordered and late. Sans-IO.

    flow.write(bytes)                              flow.receive(segment, now)
    for piece in flow.take(now): send(piece)       data = flow.read();  flow.ended
    at flow.deadline: take again                   flow.acknowledged, flow.settled

Pieces are sent again after 1 s, 2 s ... 30 s until they are acknowledged. Acknowledgements ride on what leaves; alone
they go after a short wait, or at once for what came a second time. At most `RELAY_WINDOW` pieces are on their way in
each direction, and that many are held while the reader pauses.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

from .. import limits
from .segment import DATA, FIN, Segment

__all__ = ["Flow", "Piece"]

_WINDOW: Final = limits.RELAY_WINDOW
_SIZE: Final = limits.RELAY_SEGMENT_BYTES


class Piece(Struct, frozen=True, gc=False):
    """What goes into one segment, with what is acknowledged in it."""

    flags: int
    seq: int
    ack: int
    sack: int
    data: bytes


class _Sent:
    """A piece on its way."""

    __slots__ = ("data", "due", "flags", "sent_at", "tries")

    def __init__(self, flags: int, data: bytes, now: float, due: float) -> None:
        self.flags = flags
        self.data = data
        self.sent_at = now
        self.due = due
        self.tries = 0


class Flow:
    """One side of one stream."""

    def __init__(self) -> None:
        self._unsent: deque[bytes] = deque()
        self.unsent_bytes = 0
        """Bytes that were written and wait for room on their way."""
        self._ending = False
        self._fin_taken = False
        self._next = 0
        self._base = 0
        self._sent: dict[int, _Sent] = {}
        self._again_s = limits.RELAY_AGAIN_MIN_S
        self._expected = 0
        self._early: dict[int, Segment] = {}
        self._ack_at: float | None = None
        self._unacked = 0
        self.ended = False
        """The other side has ended its stream, and everything before that was read."""

    # --- sending ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Append to the stream. After `end` it is dropped."""
        if not self._ending and data:
            self._unsent.append(data)
            self.unsent_bytes += len(data)

    def end(self) -> None:
        """Nothing follows what was written."""
        self._ending = True

    @property
    def settled(self) -> bool:
        """Whether `end` was called, and the other side has everything."""
        return self._fin_taken and not self._sent

    def take(self, now: float) -> list[Piece]:
        """Return what is to be sent now: what is new, what is due again, or an acknowledgement."""
        sending = [seq for seq, one in self._sent.items() if one.due <= now]
        for seq in sending:
            one = self._sent[seq]
            one.tries += 1
            one.due = now + min(self._again_s * 2**one.tries, limits.RELAY_AGAIN_MAX_S)
        while (self._unsent or (self._ending and not self._fin_taken)) and self._room:
            sending.append(self._cut(now))
        if sending or (self._ack_at is not None and self._ack_at <= now):
            self._ack_at, self._unacked = None, 0
            ack, sack = self._expected, self._bitmap()
            if not sending:
                return [Piece(0, 0, ack, sack, b"")]
            return [Piece(self._sent[seq].flags, seq, ack, sack, self._sent[seq].data) for seq in sending]
        return []

    def hurry(self, now: float) -> None:
        """Send everything that is not acknowledged again with the next `take`: the way is open again."""
        for one in self._sent.values():
            one.due = now

    @property
    def _room(self) -> bool:
        return self._next < self._base + _WINDOW

    def _cut(self, now: float) -> int:
        """Put the next piece on its way."""
        parts, size = [], 0
        while self._unsent and size < _SIZE:
            part = self._unsent.popleft()
            if size + len(part) > _SIZE:
                self._unsent.appendleft(part[_SIZE - size :])
                part = part[: _SIZE - size]
            parts.append(part)
            size += len(part)
        self.unsent_bytes -= size
        flags = DATA
        if self._ending and not self._unsent:
            self._fin_taken = True
            flags |= FIN
        seq = self._next
        self._next += 1
        self._sent[seq] = _Sent(flags, b"".join(parts), now, now + self._again_s)
        return seq

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, segment: Segment, now: float) -> None:
        """Take a segment of the other side, whatever it is. What does not fit is dropped: it comes again."""
        self._acknowledged(segment, now)
        if not segment.flags & DATA:
            return
        ahead = segment.seq - self._expected
        if ahead < 0 or segment.seq in self._early:
            self._ack_at = now  # it did not hear of our acknowledgement
        elif ahead < _WINDOW:
            self._early[segment.seq] = segment
            self._unacked += 1
            soon = now + (0 if self._unacked >= limits.RELAY_ACK_EVERY else limits.RELAY_ACK_WAIT_S)
            self._ack_at = soon if self._ack_at is None else min(self._ack_at, soon)

    def read(self) -> bytes:
        """Return what has arrived in order since the last call; empty where there is a gap. Sets `ended`."""
        parts = []
        while not self.ended and (segment := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            parts.append(segment.data)
            self.ended = bool(segment.flags & FIN)
        return b"".join(parts)

    def acknowledge_now(self) -> None:
        """Say with the next `take` how far we have read: the reader goes on after a pause, or the stream ends."""
        self._ack_at = 0.0

    def _acknowledged(self, segment: Segment, now: float) -> None:
        if segment.ack > self._next:
            return  # of nothing that we sent
        self._base = max(self._base, segment.ack)
        sack = segment.sack
        for seq in list(self._sent):
            ahead = seq - segment.ack
            # The one expected next is kept even where it arrived: sent again, it asks whether the reader goes on.
            if ahead < 0 or (0 < ahead < _WINDOW and sack >> ahead & 1):
                self._measure(self._sent.pop(seq), now)

    def _measure(self, one: _Sent, now: float) -> None:
        """Wait longer before sending again where answers take long.

        After a loss this overestimates until the next answer, which does no harm; leaving out what was sent twice, as
        TCP does, would never learn of a network that is slower than the first pause.
        """
        slow = 2 * (now - one.sent_at)
        self._again_s = min(max(limits.RELAY_AGAIN_MIN_S, slow), limits.RELAY_AGAIN_MAX_S)

    def _bitmap(self) -> int:
        expected = self._expected
        return sum(1 << seq - expected for seq in self._early)

    @property
    def deadline(self) -> float | None:
        """When `take` has something to do at the latest, or None."""
        times = [one.due for one in self._sent.values()]
        if self._ack_at is not None:
            times.append(self._ack_at)
        return min(times, default=None)
