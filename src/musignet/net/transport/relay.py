"""Relays: links between nodes that cannot reach each other, through Nostr relays that neither has to trust.

The channel of a link is that of TCP, Noise_XK and all; below it is a stream over gift wraps (`relaystream`). So a relay
learns neither who speaks nor what, and can do no more than be slow. Needs the extra `relay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ...crypto.keys import Identity
from ...crypto.schnorr import PublicKey
from ...errors import LocalError, Timeout
from ...limits import RELAYS_MAX, Limits
from ...node.addresses import Address, parse_address
from ...text import safe
from ...wire.channel import SecureChannel
from .base import Connection, Sink, Transport
from .carriers import MakeCarriers
from .link import ChannelLink, ChannelTransport
from .relayline import RelayLine
from .relaymail import LetterBox
from .relaystream import RelayStream, RelayStreams
from .route import DIRECT, Route

__all__ = ["RelayTransport", "over_relays"]

_SCHEMES: Final = ("ws", "wss")


class _RelayLink(ChannelLink):
    """One link over relays."""

    _relayed: RelayStream | None = None

    def stream_data(self, data: bytes) -> None:
        self.feed(data)

    def stream_room(self, clogged: bool) -> None:
        self.clogged(clogged)

    def stream_lost(self, reset: bool) -> None:
        self.lost(None)

    def _pause_stream(self) -> None:
        if self._relayed is not None:
            self._relayed.pause()

    def _resume_stream(self) -> None:
        if self._relayed is not None:
            self._relayed.resume()

    def _is_reading(self) -> bool:
        return self._relayed is None or self._relayed.reading

    def _write(self, data: bytes) -> None:
        if self._relayed is not None:
            self._relayed.write(data)

    def _close_stream(self) -> None:
        if self._relayed is not None:
            self._relayed.end()

    def _abort_stream(self) -> None:
        if self._relayed is not None:
            self._relayed.abort()
            self._owner.loop.call_soon(self.lost, None)


class RelayTransport(ChannelTransport):
    """Links over Nostr relays. A `Transport`.

    Args:
        identity: who we are on every link.
        sink:     who is told (see `Sink`).
        host, port: one relay, as `ws://HOST` and its port; port 0 where the text says all. Empty: none.
        relays:   more of our own, as `ws://` or `wss://` texts. Others reach us at each of them.
        letters:  leave what is said to a peer that does not answer at its relays, and read what was left for us: the
                  sink hears of links with `Mail.LETTERS`.
        route:    which way out a relay is reached.

    Raises: LocalError for what is no relay, and for more than `RELAYS_MAX`.
    """

    carrier = "ws"

    def __init__(
        self,
        identity: Identity,
        sink: Sink,
        host: str = "",
        port: int = 0,
        *,
        relays: Iterable[str] = (),
        route: Route = DIRECT,
        letters: bool = False,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(identity, sink, limits=limits)
        self.host = host
        self.port = port
        own = [_relay(one) for one in (*([self._place(host, port)] if host else []), *relays)]
        if len(own) > RELAYS_MAX:
            raise LocalError("too many relays", expected=f"at most {RELAYS_MAX}", got=len(own))
        self.route = route
        self.streams = RelayStreams(
            identity, own, self._incoming, self.limits.dial_timeout_s, route, self._letter, self._line_up
        )
        self._box = LetterBox(identity, sink, self.streams) if letters else None

    def read_at(self, relays: Iterable[str]) -> None:
        """Read our inbox at these relays, too. Beyond `RELAYS_READ_MAX` of all the last ones are left out."""
        self.streams.read_at([_relay(one) for one in relays])

    async def dial(self, peer: str, address: Address) -> Connection:
        return await self.connect(peer, address.text, 0)

    def _dial_timeout_s(self, host: str) -> float:
        beyond_s = 0.0 if self.route.proxy is None else self.limits.proxy_dial_timeout_s
        return beyond_s + self.limits.dial_timeout_s

    async def connect(self, peer: str, host: str, port: int) -> ChannelLink:
        try:
            return await super().connect(peer, host, port)
        except Timeout:
            line = self.streams.line(self._place(host, port))
            if self._running and self._box is not None and line is not None:
                self._box.open(PublicKey.from_hex(peer), line)
            raise

    def _letter(self, part: bytes, line: RelayLine) -> None:
        if self._running and self._box is not None:
            self._box.arrived(part, line)

    def _line_up(self, line: RelayLine) -> None:
        if self._box is not None:
            self._box.line_up(line)

    async def stop(self) -> None:
        running = self._running
        await super().stop()
        if running and self._box is not None:
            self._box.stop()
        if running:
            await self.streams.stop()

    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink:
        return _RelayLink(self, channel, outbound, address)

    async def _listen(self) -> None:
        self.streams.start()

    async def _unlisten(self) -> None:
        """Links say goodbye over the relays: they are left last."""

    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        assert isinstance(link, _RelayLink)
        assert link._dialled is not None
        try:
            url = _relay(self._place(host, port))
        except LocalError as error:
            raise ValueError(error.text) from None
        await self.streams.open(link._dialled, url, lambda stream: _attach(link, stream))
        link.opened()

    def _place(self, host: str, port: int) -> str:
        return f"{host}:{port}" if port else host

    def _incoming(self, stream: RelayStream, url: str) -> _RelayLink | None:
        """Somebody writes to our inbox. Who it is shows in the handshake; until then it has one of the half-open slots.

        Nothing tells strangers apart here: when the slots are full, the oldest handshake makes room.
        """
        if not self._running:
            return None
        link = self._answerer(url)
        assert isinstance(link, _RelayLink)
        _attach(link, stream)
        link.opened()
        return link


def _attach(link: _RelayLink, stream: RelayStream) -> _RelayLink:
    link._relayed = stream
    return link


def over_relays(*relays: str, route: Route = DIRECT) -> MakeCarriers:
    """Return what gives a `NetworkService` links over relays: `carriers=[over_relays("wss://...", "wss://...")]`.

    Without any of our own it still dials peers at theirs.
    """

    def make(identity: Identity, sink: Sink, *, limits: Limits) -> Mapping[str, Transport]:
        transport = RelayTransport(identity, sink, relays=relays, route=route, letters=True, limits=limits)
        return dict.fromkeys(_SCHEMES, transport)

    return make


def _relay(text: str) -> str:
    """Return a relay's address in its shortest form. Raises LocalError where it is none."""
    address = parse_address(text)
    if address.carrier not in _SCHEMES:
        raise LocalError("not a relay", expected="ws://HOST[:PORT] or wss://HOST[:PORT]", got=safe(text, 80))
    return address.text
