"""Byte streams between nodes over relays: `RelayStreams` has the relays and the streams; a carrier puts links on them.

A stream goes over every relay that both sides use, each piece in one event for all of them; what comes several times is
taken once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from secrets import token_bytes
from typing import Protocol

from ... import limits
from ...crypto.keys import Identity
from ...crypto.relaykey import RelayKey, inbox_of
from ...crypto.schnorr import PublicKey
from ...errors import AuthenticationError, ConnectionError, NetworkError, SerializationError, TransportError
from ...wire.flow import Flow
from ...wire.giftwrap import LIVE, MAIL, Event, open_untrusted, wrap
from ...wire.relaytalk import publish
from ...wire.segment import DATA, DIALLER, RESET, Segment
from ..lograte import LinesPerSecond
from .relayline import RelayLine
from .route import DIRECT, Route

__all__ = ["RelayStream", "RelayStreams", "StreamUser"]

_LOG_LINES_PER_S = 1.0


class StreamUser(Protocol):
    """Who has a stream. Called from the event loop."""

    def stream_data(self, data: bytes) -> None:
        """Bytes, in order."""
        ...

    def stream_room(self, clogged: bool) -> None:
        """More was written than can leave soon; or there is room again."""
        ...

    def stream_lost(self, reset: bool) -> None:
        """It is over: ended by the other side, or by us and everything arrived; or given up (`reset`)."""
        ...


class RelayStream:
    """One stream. `write`, `end`, `abort`, `pause` and `resume` are for its user."""

    def __init__(
        self, owner: RelayStreams, link: bytes, peer: PublicKey, dialler: bool, lines: Iterable[RelayLine]
    ) -> None:
        self.link = link
        self.peer = peer
        self.dialler = dialler
        self.reading = True
        self.user: StreamUser
        self._owner = owner
        self._flow = Flow()
        self._lines: set[RelayLine] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._clogged = False
        self._over = False
        for line in lines:
            self._use(line)

    def write(self, data: bytes) -> None:
        """Append to the stream. It leaves at the end of this turn of the loop, with what is written until then."""
        self._flow.write(data)
        self._later()
        if not self._clogged and self._flow.unsent_bytes > limits.RELAY_SEGMENT_BYTES:
            self._clogged = True
            self.user.stream_room(True)

    def end(self) -> None:
        """Nothing follows. `stream_lost` comes when the other side has everything."""
        self._flow.end()
        self._later()

    def abort(self) -> None:
        """Give it up, and say so. `stream_lost` does not come."""
        if not self._over:
            self._owner.reset(self.link, self.peer, self.dialler, self._lines)
            self.drop()

    def pause(self) -> None:
        """Take nothing more in: what is on its way fills the window, and the other side waits."""
        self.reading = False

    def resume(self) -> None:
        """Undo `pause`."""
        if not self.reading:
            self.reading = True
            self._owner.loop.call_soon(self._resumed)

    # --- for `RelayStreams` -------------------------------------------------------------------------------------------

    def receive(self, segment: Segment, line: RelayLine) -> None:
        """A segment of this link."""
        self._use(line)
        if segment.flags & RESET:
            self._finish(reset=True)
            return
        self._flow.receive(segment, self._owner.loop.time())
        if self.reading:
            self._read()
        if not self._over:
            self._after()

    def hurry(self) -> None:
        """A relay is there again: what is on its way may have been lost."""
        self._flow.hurry(self._owner.loop.time())
        self._later()

    def _after(self) -> None:
        if self._flow.settled:
            self._finish(reset=False)
            return
        self._pump()

    def _read(self) -> None:
        data = self._flow.read()
        if data:
            self.user.stream_data(data)
        if self._flow.ended and not self._over:
            self._flow.acknowledge_now()
            self._pump()
            self._finish(reset=False)

    def _resumed(self) -> None:
        if self.reading and not self._over:
            self._read()
            self._flow.acknowledge_now()
            self._later()

    def _use(self, line: RelayLine) -> None:
        if line not in self._lines:
            self._lines.add(line)
            line.streams += 1

    def _later(self) -> None:
        if not self._soon and not self._over:
            self._soon = True
            self._owner.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what is new or due, and set the clock."""
        self._soon = False
        if self._over:
            return
        flow, loop = self._flow, self._owner.loop
        side = DIALLER if self.dialler else 0
        sender = self._owner.identity.pubkey
        for piece in flow.take(loop.time()):
            flags = piece.flags | side
            segment = Segment(flags, self.link, sender, piece.seq, piece.ack, piece.sack, piece.data)
            self._owner.send(segment, self.peer, self._lines)
        if self._timer is not None:
            self._timer.cancel()
        deadline = flow.deadline
        self._timer = None if deadline is None else loop.call_at(deadline, self._pump)
        if self._clogged and self._flow.unsent_bytes <= limits.RELAY_SEGMENT_BYTES:
            self._clogged = False
            self.user.stream_room(False)

    def _finish(self, reset: bool) -> None:
        if not self._over:
            self.drop()
            self.user.stream_lost(reset)

    def drop(self) -> None:
        """End it here, without a word to anybody."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        for line in self._lines:
            line.streams -= 1
        self._owner.forget(self)


class RelayStreams:
    """The relays of one node, and the streams over them.

    Args:
        identity: whose inboxes are read.
        relays:   our own relays: always connected, where others reach us.
        accept:   called with a stream that somebody opened to us; returns who has it, or None: then it is refused.
    """

    def __init__(
        self,
        identity: Identity,
        relays: Iterable[str],
        accept: Callable[[RelayStream, str], StreamUser | None],
        dial_timeout_s: float,
        route: Route = DIRECT,
        letters: Callable[[bytes, RelayLine], None] | None = None,
        line_up: Callable[[RelayLine], None] | None = None,
    ) -> None:
        self.identity = identity
        self.lines_per_s = LinesPerSecond(_LOG_LINES_PER_S)
        self.loop: asyncio.AbstractEventLoop
        self._first = self._own = tuple(dict.fromkeys(relays))
        self._accept = accept
        self._dial_timeout_s = dial_timeout_s
        self._route = route
        self._letters = letters
        self._told_up = line_up
        self._lines: dict[str, RelayLine] = {}
        self._streams: dict[bytes, RelayStream] = {}
        self._past: OrderedDict[bytes, None] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._inboxes: dict[str, RelayKey] = {}
        self._peer_inboxes: dict[tuple[bytes, int], bytes] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._resets_at = 0.0
        self._running = False

    def start(self) -> None:
        """Begin to connect to our own relays. None of them has to be there yet."""
        self.loop = asyncio.get_running_loop()
        self._running = True
        self._turn_page()
        for url in self._own:
            self._line(url)

    def read_at(self, relays: Iterable[str]) -> None:
        """Read our inboxes at these relays beside our first ones, in the place of what was said before."""
        self._own = tuple(dict.fromkeys((*self._first, *relays)))[: limits.RELAYS_READ_MAX]
        if self._running:
            for url in self._own:
                self._line(url)
            self.tidy()

    async def stop(self) -> None:
        """Close every relay's connection. Streams end without a word."""
        self._running = False
        for stream in list(self._streams.values()):
            stream.drop()
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*(line.written() for line in self._lines.values()))
        await asyncio.gather(*(line.stop() for line in self._lines.values()), *self._closing)
        self._lines.clear()
        for key in self._inboxes.values():
            key.wipe()

    async def open(self, peer: PublicKey, url: str, make: Callable[[RelayStream], StreamUser]) -> None:
        """Open a stream to a peer whose inbox is at `url`, and give it to who `make` returns.

        Raises: ConnectionError when neither that relay nor one of ours is reached, TransportError when there are too
                many relays already.
        """
        lines = [self._line(one) for one in dict.fromkeys((url, *self._own))]
        try:
            await _any_ready(lines)
        except BaseException:
            self.tidy()  # who was dialled in vain is not called on for ever
            raise
        stream = RelayStream(self, token_bytes(limits.RELAY_LINK_ID_BYTES), peer, True, lines)
        self._streams[stream.link] = stream
        stream.user = make(stream)

    @property
    def own_lines(self) -> list[RelayLine]:
        """Our own relays."""
        return [self._lines[url] for url in self._own]

    def line(self, url: str) -> RelayLine | None:
        """Return a relay that is connected to, or tried."""
        return self._lines.get(url)

    @property
    def lines(self) -> list[RelayLine]:
        """Every relay that is connected to, or tried."""
        return list(self._lines.values())

    # --- for streams --------------------------------------------------------------------------------------------------

    def send(self, segment: Segment, peer: PublicKey, lines: Iterable[RelayLine]) -> None:
        """Wrap a segment and publish it on these relays."""
        self._publish(LIVE, segment.encode(), peer, lines, limits.RELAY_TTL_S)

    def leave(self, part: bytes, peer: PublicKey, lines: Iterable[RelayLine]) -> None:
        """Wrap a part of a letter, and have these relays store it."""
        self._publish(MAIL, part, peer, lines, limits.LETTER_TTL_S)

    def _publish(self, kind: int, payload: bytes, peer: PublicKey, lines: Iterable[RelayLine], ttl_s: int) -> None:
        now = self.now_s()
        inbox = self._inbox_of(peer, now // limits.RELAY_PERIOD_S)
        event = wrap(
            kind, payload, inbox, now_s=now, expires_s=now + ttl_s, secret=token_bytes(32), nonce=token_bytes(32)
        )
        frame = publish(event)
        for line in lines:
            line.publish(frame, event.id if kind == MAIL else "")

    def reset(self, link: bytes, peer: PublicKey, dialler: bool, lines: Iterable[RelayLine]) -> None:
        """Say that a link is not known here any more. Not more often than a few times a second."""
        now = self.loop.time()
        if now >= self._resets_at:
            self._resets_at = max(self._resets_at, now - 1) + 1 / limits.RELAY_RESETS_PER_S
            self.send(Segment(RESET | (DIALLER if dialler else 0), link, self.identity.pubkey), peer, lines)

    def forget(self, stream: RelayStream) -> None:
        """A stream is over. It cannot be opened again by who recorded its beginning."""
        self._streams.pop(stream.link, None)
        self._past[stream.link] = None
        if len(self._past) > limits.RELAY_STRAYS_MAX:
            self._past.popitem(last=False)
        self.tidy()

    def tidy(self) -> None:
        """Leave relays that are not ours once nothing has used them for a while."""
        for line in list(self._lines.values()):
            if not line.streams and line.url not in self._own and line.url not in self._timers:
                self._timers[line.url] = self.loop.call_later(limits.RELAY_IDLE_S, self._idle, line)

    # --- for lines ----------------------------------------------------------------------------------------------------

    def inboxes(self) -> Mapping[str, RelayKey]:
        return self._inboxes

    def now_s(self) -> int:
        return int(time.time())

    def seen(self, event_id: str) -> bool:
        return event_id in self._seen

    def line_up(self, line: RelayLine) -> None:
        for stream in self._streams.values():
            stream.hurry()
        if self._told_up is not None:
            self._told_up(line)

    def delivered(self, line: RelayLine, event: Event, inbox: RelayKey) -> None:
        self._seen[event.id] = None
        if len(self._seen) > limits.RELAY_SEEN_MAX:
            self._seen.popitem(last=False)
        try:
            payload = open_untrusted(event, inbox)
            if event.kind == MAIL:
                if self._letters is not None:
                    self._letters(payload, line)
                return
            segment = Segment.decode_untrusted(payload)
        except SerializationError:
            return  # anybody may write to an inbox whose name they saw
        stream = self._streams.get(segment.link)
        if stream is None:
            self._unknown(segment, line)
        elif stream.dialler != bool(segment.flags & DIALLER):
            stream.receive(segment, line)

    def _unknown(self, segment: Segment, line: RelayLine) -> None:
        """A segment of no link of ours: somebody dials, or one of us has restarted."""
        if segment.flags & RESET:
            return
        dialler = bool(segment.flags & DIALLER)
        try:
            peer = PublicKey(segment.sender)
        except AuthenticationError:
            return
        if not (dialler and segment.flags & DATA and segment.seq == 0) or segment.link in self._past:
            self.reset(segment.link, peer, not dialler, (line,))
            return
        lines = {line, *(self._lines[url] for url in self._own)}
        stream = RelayStream(self, segment.link, peer, False, lines)
        user = self._accept(stream, line.url)
        if user is None:
            stream.drop()
            self.reset(segment.link, peer, False, (line,))
            return
        stream.user = user
        self._streams[stream.link] = stream
        stream.receive(segment, line)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _line(self, url: str) -> RelayLine:
        line = self._lines.get(url)
        if line is None:
            if len(self._lines) >= limits.RELAY_LINES_MAX and url not in self._own:
                raise TransportError("too many relays", expected=f"at most {limits.RELAY_LINES_MAX}")
            line = self._lines[url] = RelayLine(url, self, self._dial_timeout_s, self._route)
        if (timer := self._timers.pop(url, None)) is not None:
            timer.cancel()
        return line

    def _idle(self, line: RelayLine) -> None:
        self._timers.pop(line.url, None)
        if not line.streams and self._lines.pop(line.url, None) is not None:
            closing = self.loop.create_task(line.stop())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _turn_page(self) -> None:
        """A period has begun: take its inbox in, and those beside it, for clocks differ and letters wait."""
        period, into = divmod(self.now_s(), limits.RELAY_PERIOD_S)
        keys = (RelayKey.inbox(self.identity, one) for one in _periods(period))
        self._inboxes = {key.xonly.hex(): key for key in keys}
        self._peer_inboxes.clear()
        for line in self._lines.values():
            line.subscribe()
        self._timers[""] = self.loop.call_later(limits.RELAY_PERIOD_S - into + 1, self._turn_page)

    def _inbox_of(self, peer: PublicKey, period: int) -> bytes:
        known = self._peer_inboxes.get((peer.compressed, period))
        if known is None:
            if len(self._peer_inboxes) >= limits.RELAY_STRAYS_MAX:
                self._peer_inboxes.clear()
            known = self._peer_inboxes[peer.compressed, period] = inbox_of(peer, period)
        return known


def _periods(now: int) -> tuple[int, ...]:
    """Return whose inboxes are read: that of now first."""
    return (now, now + 1, *range(now - 1, now - 1 - limits.LETTER_DAYS, -1))


async def _any_ready(lines: list[RelayLine]) -> None:
    """Return when one of these relays is there. Raises the first one's error when none is."""
    trying = [asyncio.ensure_future(line.ready()) for line in lines]
    try:
        pending = set(trying)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(one.exception() is None for one in done):
                return
        error = trying[0].exception()
        raise error if isinstance(error, NetworkError) else ConnectionError("no relay is reached")
    finally:
        for one in trying:
            one.cancel()
        await asyncio.gather(*trying, return_exceptions=True)
