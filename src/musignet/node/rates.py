"""How fast a peer may speak: token buckets of messages and bytes, for each peer and for all of them together.

Nothing is ever dropped here. What has arrived is counted; when a bucket is in debt, the gauge says for how long to read
nothing more from that peer. What it sends meanwhile waits in the network and on its side.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ..limits import FRAME_MIN_COST_BYTES, Limits

__all__ = ["Gauge", "Rates", "Standing", "TokenBucket"]

_MORE_S: Final = 0.05
"""The shortest wait for the rest of a read: one message at a time would cost a timer each."""

_MARK_S: Final = 5.0
"""How often a gauge notes where its counters stand, so that a rate is that of the last 5 to 10 seconds."""


class Standing(IntEnum):
    """What a peer is to this node: who is evicted first where slots are short, the lowest first."""

    UNKNOWN = 0
    """Not in the book."""
    STRANGER = 1
    """Let in by `accept`, or on its way through a pairing. Nobody has confirmed it."""
    COSIGNER = 2
    """In the book by a person's or a group's word. It has a slot of its own and is never evicted."""


class TokenBucket:
    """`per_s` tokens flow in each second, at most `burst` are kept. What is taken beyond that is a debt.

    Args: `now` is any clock in seconds that does not go back; where it does, no tokens flow.
    """

    __slots__ = ("_at", "_level", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Return how many tokens there are; a debt is negative."""
        passed = now - self._at
        if passed > 0:
            self._at = now
            level = self._level + passed * self.per_s
            self._level = level if level < self.burst else self.burst
        return self._level

    def take(self, count: float, now: float) -> float:
        """Take tokens, whether they are there or not. Returns how many seconds until the debt is paid; 0: none."""
        self._level = level = (self.level(now) if now > self._at else self._level) - count
        return 0.0 if level >= 0 else -level / self.per_s

    def allow(self, now: float, count: float = 1.0) -> bool:
        """Take tokens if they are there. Returns whether they were."""
        if self.level(now) < count:
            return False
        self._level -= count
        return True

    def give_back(self, count: float = 1.0) -> None:
        """Put back what was taken for something that turned out to be welcome."""
        self._level = min(self.burst, self._level + count)


class Meter:
    """Two buckets on one clock, of messages and of bytes, which what arrives is taken from together."""

    __slots__ = (
        "_at",
        "burst_bytes",
        "burst_messages",
        "bytes_per_s",
        "level_bytes",
        "level_messages",
        "messages_per_s",
    )

    def __init__(
        self, messages_per_s: float, burst_messages: float, bytes_per_s: float, burst_bytes: float, now: float
    ) -> None:
        self._at = now
        self.messages_per_s = messages_per_s
        self.bytes_per_s = bytes_per_s
        self.level_messages = self.burst_messages = burst_messages
        self.level_bytes = self.burst_bytes = burst_bytes
        """What is there, as of the last `flow` or `take`; a debt is negative."""

    def flow(self, now: float) -> None:
        """Let the tokens flow in that are due."""
        passed = now - self._at
        if passed > 0:
            self._at = now
            messages = self.level_messages + passed * self.messages_per_s
            self.level_messages = messages if messages < self.burst_messages else self.burst_messages
            octets = self.level_bytes + passed * self.bytes_per_s
            self.level_bytes = octets if octets < self.burst_bytes else self.burst_bytes

    def take(self, messages: int, octets: int, now: float) -> float:
        """Take tokens, whether they are there or not. Returns how many seconds until all debt is paid; 0: none."""
        if now > self._at:
            self.flow(now)
        self.level_messages -= messages
        self.level_bytes -= octets
        if self.level_messages >= 0 and self.level_bytes >= 0:
            return 0.0
        return max(self.late_s, -self.level_bytes / self.bytes_per_s)

    @property
    def late_s(self) -> float:
        """How many seconds until the debt of messages is paid."""
        return 0.0 if self.level_messages >= 0 else -self.level_messages / self.messages_per_s


class Gauge:
    """What passes on all links to one peer, and how fast it may.

    `score` is the peer's reputation, 0 unless something is known; a bad one makes its buckets smaller.
    """

    __slots__ = (
        "_fast_since", "_mark", "_meter", "_older", "_rates", "_scale", "_sending", "bytes_in", "bytes_out", "floods",
        "held_s", "messages_in", "paced", "score", "standing",
    )  # fmt: skip

    def __init__(self, rates: Rates, standing: Standing, now: float) -> None:
        limits = rates.limits
        self._rates = rates
        self._meter = Meter(
            limits.peer_messages_per_s,
            limits.peer_burst_messages,
            limits.peer_bytes_per_s,
            limits.peer_burst_bytes,
            now,
        )
        self._scale = 1.0
        self._sending = _sending(limits.peer_send_bytes_per_s, now)
        self.paced = self._sending is not None or rates.sending is not None
        """Whether what is sent to it is bounded."""
        self.standing = standing
        self.score = 0.0
        self.bytes_in = self.bytes_out = 0
        self.messages_in = 0
        self.held_s = 0.0
        """How long reading from it has been held back in all, by this gauge."""
        self.floods = 0
        """How often it sent messages as fast as they are read for a whole `flood_s`."""
        self._fast_since: float | None = None
        self._mark = self._older = (now, 0, 0)

    def scale(self, share: float) -> None:
        """Give it this share of the usual rates and of the burst of messages, above 0 and at most 1. Debt stays."""
        if share != self._scale:
            limits, meter, self._scale = self._rates.limits, self._meter, share
            meter.messages_per_s = limits.peer_messages_per_s * share
            meter.bytes_per_s = limits.peer_bytes_per_s * share
            meter.burst_messages = limits.peer_burst_messages * share
            meter.level_messages = min(meter.level_messages, meter.burst_messages)

    @property
    def share(self) -> float:
        """The share of the usual rates that it has."""
        return self._scale

    def room(self, now: float, *, last: bool = False) -> int:
        """Return how many messages may be taken from it now, at least one.

        Args: `last` - its stream is over: what is here may put it into debt, but all together still keep their pace.
        """
        self._meter.flow(now)
        pace = self._rates.pace.level(now)
        own = self._meter.level_messages
        return max(1, int(pace if last or pace < own else own))

    def arrived(self, size: int, frames: int, messages: int, now: float, *, more: bool = False) -> float:
        """Count what one read brought.

        Args:    size     - bytes of the stream.
                 frames   - frames in them: each costs at least `FRAME_MIN_COST_BYTES`, however small.
                 messages - messages that became whole.
                 more     - there was no room for all of them.
        Returns: for how many seconds nothing more is to be read from this peer; 0: go on.
        """
        self.bytes_in += size
        self.messages_in += messages
        if now - self._mark[0] >= _MARK_S:
            self._older, self._mark = self._mark, (now, self.bytes_in, self.messages_in)
        least = frames * FRAME_MIN_COST_BYTES
        cost = size if size > least else least
        own_s = self._meter.take(messages, cost, now)
        total_s = self._rates.meter.take(messages, cost, now)
        self._rates.pace.take(messages, now)
        if own_s or total_s or more or self._fast_since is not None:
            return self._hold_back(own_s, total_s, messages, more, now)
        return 0.0

    def _hold_back(self, own_s: float, total_s: float, messages: int, more: bool, now: float) -> float:
        """Return how long to wait: for its own debt, and for that of all where it is loud."""
        meter, wait_s = self._meter, own_s
        if messages:
            late_s = meter.late_s
            spent = more and meter.level_messages < 1  # else it waits for others, which is not its fault
            self._judge(late_s > 0 or spent, now)
            wait_s = max(own_s, late_s, _MORE_S if more else 0.0)
        if total_s > wait_s and self._is_loud():
            wait_s = total_s
        self.held_s += wait_s
        return wait_s

    def _is_loud(self) -> bool:
        """Whether it used more than half of what it may: when all together are too fast, the quiet ones do not wait."""
        meter = self._meter
        return meter.level_messages < meter.burst_messages / 2 or meter.level_bytes < meter.burst_bytes / 2

    def _judge(self, too_fast: bool, now: float) -> None:
        """Whether it floods: it has been too fast for `flood_s`, and was never quiet for half a burst in between."""
        if too_fast:
            if self._fast_since is None:
                self._fast_since = now
            elif now - self._fast_since >= self._rates.limits.flood_s:
                self._fast_since = now
                self.floods += 1
        elif self._fast_since is not None and self._meter.level_messages >= self._meter.burst_messages / 2:
            self._fast_since = None

    def left(self, size: int, now: float) -> float:
        """Count what was written to it. Returns for how many seconds nothing more should be; 0: go on."""
        self.bytes_out += size
        wait_s = 0.0
        for bucket in (self._sending, self._rates.sending):
            if bucket is not None:
                wait_s = max(wait_s, bucket.take(size, now))
        return wait_s

    def rate(self, now: float) -> tuple[float, float]:
        """Return messages and bytes a second from it, over the last 5 to 10 seconds."""
        at, octets, messages = self._older if now - self._mark[0] < _MARK_S else self._mark
        passed = max(1.0, now - at)
        return (self.messages_in - messages) / passed, (self.bytes_in - octets) / passed


class Rates:
    """The buckets that all peers of a node share. Makes the gauges, and is known to each."""

    def __init__(self, limits: Limits, now: float = 0.0) -> None:
        self.limits = limits
        self.meter = Meter(
            limits.total_messages_per_s,
            limits.total_burst_messages,
            limits.total_bytes_per_s,
            limits.total_burst_bytes,
            now,
        )
        self.pace = TokenBucket(limits.pace_messages_per_s, limits.pace_burst_messages, now)
        """What may be taken in at once, from all together: links, timers and handshakes get their turn in between."""
        self.sending = _sending(limits.total_send_bytes_per_s, now)
        """For what is sent to all, in bytes; None: as fast as the links take it."""

    def gauge(self, standing: Standing, now: float = 0.0) -> Gauge:
        """Return a gauge for one peer."""
        return Gauge(self, standing, now)


def _sending(bytes_per_s: int, now: float) -> TokenBucket | None:
    """Return the bucket of what we send, with a quarter of a second at once; None where it is not bounded."""
    return TokenBucket(bytes_per_s, bytes_per_s / 4, now) if bytes_per_s else None
