"""The flow of one link: how fast it is read from and written to, and what becomes of a peer that does not read.

Reading stops for a reason and goes on when none is left; nothing that has arrived is lost in between.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final, Protocol

from ...errors import NetworkError, Timeout
from ...limits import Limits
from ...node.rates import Gauge
from ...wire.channel import SecureChannel

__all__ = ["Flow"]

_OWNER: Final = 1
_RATE: Final = 2
_ANSWERS: Final = 4
"""Why a link is not read from: its owner asked for it, its peer is too fast, its peer does not take our answers."""


class _Owner(Protocol):
    limits: Limits
    loop: asyncio.AbstractEventLoop


class Flow(ABC):
    """What a link does about speed. `ChannelLink` is the rest of it."""

    _channel: SecureChannel

    __slots__ = (
        "_channel",
        "_chunk",
        "_clogged",
        "_closing",
        "_goes_on",
        "_gone",
        "_has_channel",
        "_held",
        "_limits",
        "_loop",
        "_paced",
        "_rest",
        "_stopped",
        "_too_long",
        "_unopened",
        "gauge",
    )  # fmt: skip

    def __init__(self, owner: _Owner, channel: SecureChannel | None) -> None:
        self.gauge: Gauge | None = None
        if channel is not None:  # otherwise it comes when the stream is open
            self._channel = channel
        self._has_channel = channel is not None
        self._loop = owner.loop
        self._limits = owner.limits
        self._chunk = owner.limits.write_chunk_bytes
        self._clogged = False
        self._closing = False
        self._gone = False
        self._held = 0
        self._stopped = False
        self._rest = False
        """Whether there is more here than the gauge had room for."""
        self._unopened = 0
        """Bytes that came while reading was held back, and are not counted yet."""
        self._goes_on: asyncio.TimerHandle | None = None
        self._paced: asyncio.TimerHandle | None = None
        self._too_long: asyncio.TimerHandle | None = None

    @abstractmethod
    def _write(self, data: bytes) -> None: ...

    @abstractmethod
    def _pause_stream(self) -> None:
        """Take nothing more from the stream. Also when it is gone."""

    @abstractmethod
    def _resume_stream(self) -> None: ...

    @abstractmethod
    def _close_stream(self) -> None: ...

    @abstractmethod
    def _take_in(self, size: int, *, last: bool = False) -> None:
        """Open what is here, as far as the gauge has room; `size` bytes of it are new. `last`: the stream is over."""

    @abstractmethod
    def _resumed(self) -> None:
        """Reading goes on after a pause."""

    @abstractmethod
    def _drop(self, error: NetworkError) -> None:
        """Close the link at once, for this reason."""

    def _stop_flow(self) -> None:
        """The link is gone."""
        for timer in (self._goes_on, self._paced, self._too_long):
            if timer is not None:
                timer.cancel()

    # --- reading ------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes from the stream: open them now, or when the gauge has room again."""
        if self._closing or self._gone:
            return
        self._channel.receive_data(data)
        if self._held & _RATE:
            self._unopened += len(data)
            self._rest = True
        else:
            self._take_in(len(data))

    def pause_reading(self) -> None:
        self._hold(_OWNER)

    def resume_reading(self) -> None:
        self._release(_OWNER)

    def _hold(self, reason: int) -> None:
        """Read nothing more, for one more reason."""
        if not self._stopped:
            self._stopped = True
            self._pause_stream()
        self._held |= reason

    def _release(self, reason: int) -> None:
        """Read on, unless there is another reason not to."""
        if not self._held & reason:
            return
        self._held &= ~reason
        if self._held or self._closing or self._gone:
            return
        if self._rest:
            self._loop.call_soon(self._take_in_the_rest)
        else:
            self._read_on()

    def _take_in_the_rest(self) -> None:
        """First what is here already: behind it the stream may have ended."""
        if self._rest and not (self._held or self._closing or self._gone):
            size, self._unopened = self._unopened, 0
            self._take_in(size)
            if not (self._held or self._closing or self._gone):
                self._read_on()

    def _read_on(self) -> None:
        self._stopped = False
        self._resume_stream()
        self._resumed()

    def _slow_down(self, wait_s: float) -> None:
        """The gauge says to read nothing more for so long."""
        self._hold(_RATE)
        if self._goes_on is None:
            self._goes_on = self._loop.call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        self._goes_on = None
        self._release(_RATE)

    # --- writing ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        if not self._has_channel:
            return
        channel, gauge = self._channel, self.gauge
        if gauge is not None and gauge.paced and not self._closing:
            self._flush_slowly(gauge)
            return
        while not (self._clogged or self._gone):
            data = b"".join(channel.data_to_send(self._chunk))
            if data:
                if gauge is not None:
                    gauge.bytes_out += len(data)
                self._write(data)
            if len(data) < self._chunk:
                break
        if self._closing and not self._gone and not channel.pending:
            self._close_stream()

    def _flush_slowly(self, gauge: Gauge) -> None:
        """A frame at a time, as fast as we may; what belongs to a round does not wait."""
        channel = self._channel
        while not (self._clogged or self._gone) and channel.pending and (self._paced is None or channel.urgent):
            data = b"".join(channel.data_to_send(1))
            self._write(data)
            loop = self._loop
            wait_s = gauge.left(len(data), loop.time())
            if wait_s and self._paced is None:
                self._paced = loop.call_later(wait_s, self._flush_again)

    def _flush_again(self) -> None:
        self._paced = None
        self.flush()

    # --- a peer that does not read ------------------------------------------------------------------------------------

    def clogged(self, clogged: bool) -> None:
        """The stream takes nothing more for now, or takes bytes again."""
        self._clogged = clogged
        if clogged:
            if self._too_long is None:
                limit_s = self._limits.slow_reader_timeout_s
                self._too_long = self._loop.call_later(limit_s, self._reads_too_slowly)
            return
        if self._too_long is not None:
            self._too_long.cancel()
            self._too_long = None
        self.flush()
        if not self._clogged:
            self._release(_ANSWERS)

    def _reads_too_slowly(self) -> None:
        limit_s = self._limits.slow_reader_timeout_s
        self._drop(Timeout(f"the peer took hardly anything of what it was sent for {limit_s:g} s"))

    def _bound_answers(self) -> None:
        """Whoever does not read causes no more answers: pongs, acknowledgements."""
        limits = self._limits
        count, size = self._channel.answers_waiting
        if size > limits.slow_reader_max_bytes:
            self._drop(Timeout(f"{size} bytes of answers wait for a peer that does not read them"))
        elif count >= limits.slow_reader_messages:
            self._hold(_ANSWERS)
