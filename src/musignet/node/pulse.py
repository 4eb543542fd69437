"""Signs of life: pings, pongs, and links that fell silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import NetworkError, Timeout
from ..limits import Limits
from ..wire.messages import MessageType, Ping, Pong
from .effects import Effect
from .outbox import Outbox
from .peers import Link, Mail
from .timers import Timers, jitter

__all__ = ["Pulse"]

_FIRST_PING_S: Final = 1.0
"""A first round trip soon after connecting, so that a person sees one; not at once, where it would slow the dial."""


class Pulse:
    """One per node. What is heard moves a link's deadline only when that comes, so that hearing costs nothing."""

    def __init__(self, limits: Limits, timers: Timers, outbox: Outbox, draw: Callable[[int], bytes]) -> None:
        self._limits = limits
        self._timers = timers
        self._outbox = outbox
        self._draw = draw

    def begin(self, link: Link, now: float) -> None:
        """A link is announced: watch it from now on."""
        link.ping_at = now + _FIRST_PING_S
        self.look(link, link.ping_at, now)

    def look(self, link: Link, at: float, now: float) -> None:
        """Look at a link then, at the latest. Whoever is looked at before that is looked at again, so one time is
        enough, however often somebody asks."""
        if not now < link.look_at <= at:
            link.look_at = at
            self._timers.set(at, link.number)

    def check(self, link: Link, now: float, out: list[Effect]) -> NetworkError | None:
        """Ping where it is time. Returns why the link has to be closed, or None."""
        limits = self._limits
        if not link.epoch:
            within_s = limits.handshake_timeout_s
            return Timeout(f"{link.peer.name} did not announce itself within {within_s:g} s")
        dead_at = self._dead_at(link)
        if now >= dead_at:
            return Timeout(
                f"nothing heard from {link.peer.name} for {now - link.heard_at:.0f} s",
                hint="the node dials again by itself",
            )
        if now >= link.ping_at:
            self._ping(link, now, out)
        self.look(link, min(link.ping_at, dead_at), now)
        return None

    def probe(self, link: Link, now: float, out: list[Effect]) -> None:
        """A link may be dead: ask it now, and give it `probe_timeout_s` to say anything at all."""
        if not link.epoch or link.mail is not Mail.NO or self._in_doubt(link):
            return
        link.probed_at, link.proved = now, False
        self._ping(link, now, out)
        self.look(link, self._dead_at(link), now)

    @staticmethod
    def _in_doubt(link: Link) -> bool:
        """Whether it was asked, and nothing was heard since."""
        return not link.proved and link.heard_at <= link.probed_at

    def _dead_at(self, link: Link) -> float:
        silent_at = link.heard_at + self._limits.dead_after_s
        return min(silent_at, link.probed_at + self._limits.probe_timeout_s) if self._in_doubt(link) else silent_at

    def _ping(self, link: Link, now: float, out: list[Effect]) -> None:
        link.ping = self._outbox.seq
        link.pinged_at = now
        link.ping_at = now + self._limits.ping_interval_s * jitter(0.2, self._draw)
        out.append(self._outbox.own(link, MessageType.PING, Ping(link.ping), now))

    def heard(self, link: Link, content: Ping | Pong, now: float, out: list[Effect]) -> None:
        """Answer a ping; measure the round trip by the pong that answers ours."""
        if isinstance(content, Ping):
            out.append(self._outbox.own(link, MessageType.PONG, Pong(content.token), now))
        elif content.token == link.ping:
            link.ping = -1
            link.proved = True
            link.peer.round_trip_s = now - link.pinged_at
