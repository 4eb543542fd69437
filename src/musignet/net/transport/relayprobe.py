"""One look at a relay, for `musignet doctor`: does it let us in, pass on what is said, and keep what is left?

It goes by the line that links go by, to an inbox of a key that nobody has: the relay hears no name of ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from secrets import token_bytes
from typing import Final

from ...crypto.relaykey import RelayKey
from ...errors import ConnectionError, Timeout
from ...limits import RELAY_PROBE_AGAIN_S, RELAY_PROBE_S
from ...wire.giftwrap import LIVE, MAIL, Event, wrap
from ...wire.relaytalk import publish
from ..lograte import LinesPerSecond
from .relayline import RelayLine
from .route import DIRECT, Route

__all__ = ["Look", "ask_relay"]

_WORDS: Final = b"is anybody there?"
_NOT_REACHED: Final = "is the address right, the relay up, and does this network let it through?"
_FORGET_S: Final = 600
"""When the relay may forget what was left there."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a relay does."""

    passes_s: float
    """From an event's leaving until it was back."""
    keeps: bool
    """Whether what is left there is still there for who reads later."""
    complaint: str
    """What it said against something, or an empty string."""


async def ask_relay(url: str, dial_timeout_s: float, route: Route = DIRECT, within_s: float = RELAY_PROBE_S) -> Look:
    """Connect to a relay, say something there and listen for it; leave something, and ask for it.

    Raises: ConnectionError when it is not reached, breaks the rules, or refuses what links need; Timeout when nothing
            comes back within `within_s`.
    """
    probe = _Probe(url, dial_timeout_s, route, within_s)
    try:
        await probe.reached()
        passes_s = await probe.passes_s()
        return Look(passes_s, await probe.keeps(), probe.line.trouble)
    finally:
        await probe.line.stop()


class _Silent(LinesPerSecond):
    """The log is not the place: whoever asked is told."""

    def allow(self) -> bool:
        return False


class _Probe:
    """The owner of one line, with an inbox of its own."""

    def __init__(self, url: str, dial_timeout_s: float, route: Route, within_s: float) -> None:
        self._connect: Callable[[], RelayLine] = partial(RelayLine, url, self, dial_timeout_s, route)
        self._within_s = within_s
        self.lines_per_s: LinesPerSecond = _Silent(1)
        self._inbox = RelayKey.one_time(token_bytes(32))
        self._sent: dict[str, float] = {}
        self._back: dict[str, float] = {}
        self._more = asyncio.Event()
        self.line = self._connect()

    # --- for the line -------------------------------------------------------------------------------------------------

    def inboxes(self) -> Mapping[str, RelayKey]:
        return {self._inbox.xonly.hex(): self._inbox}

    def now_s(self) -> int:
        return int(time.time())

    def seen(self, event_id: str) -> bool:
        return False

    def delivered(self, line: RelayLine, event: Event, inbox: RelayKey) -> None:
        if event.id in self._sent:
            self._back[event.id] = asyncio.get_running_loop().time()
            self._more.set()

    def line_up(self, line: RelayLine) -> None:
        pass

    # --- what is asked ------------------------------------------------------------------------------------------------

    async def reached(self) -> None:
        try:
            await self.line.ready()
        except ConnectionError:
            raise ConnectionError(self.line.trouble, hint=_NOT_REACHED) from None

    async def passes_s(self) -> float:
        """Say something again and again, as links do: a relay may first want to know whose inbox is read."""
        try:
            async with asyncio.timeout(self._within_s):
                while not self._back:
                    self._require_up()
                    self._say(LIVE)
                    await self._wait(RELAY_PROBE_AGAIN_S)
        except TimeoutError:
            pass
        if not self._back:
            self._require_up()
            raise self._refused() or Timeout(f"what is said there is not passed on within {self._within_s:g} s")
        return min(at - self._sent[one] for one, at in self._back.items())

    async def keeps(self) -> bool:
        """Leave something, and when it was passed on or refused, connect again and see whether it is there."""
        left = self._say(MAIL)
        if not await self._is_back(left):
            return False
        await self.line.stop()
        del self._back[left]
        self.line = self._connect()
        try:
            await self.reached()
        except ConnectionError:
            return False
        return await self._is_back(left)

    async def _is_back(self, event_id: str) -> bool:
        try:
            async with asyncio.timeout(self._within_s):
                while event_id not in self._back and self.line.up and not self.line.trouble:
                    await self._wait(RELAY_PROBE_AGAIN_S)
        except TimeoutError:
            pass
        return event_id in self._back

    def _say(self, kind: int) -> str:
        event = wrap(
            kind, _WORDS, self._inbox.xonly, now_s=self.now_s(), expires_s=self.now_s() + _FORGET_S,
            secret=token_bytes(32), nonce=token_bytes(32),
        )  # fmt: skip
        self._sent[event.id] = asyncio.get_running_loop().time()
        self.line.publish(publish(event))
        return event.id

    async def _wait(self, most_s: float) -> None:
        self._more.clear()
        try:
            async with asyncio.timeout(most_s):
                await self._more.wait()
        except TimeoutError:
            pass

    def _require_up(self) -> None:
        if not self.line.up:
            raise ConnectionError(self.line.trouble or "it closed the connection")

    def _refused(self) -> ConnectionError | None:
        return ConnectionError(self.line.trouble) if self.line.trouble else None
