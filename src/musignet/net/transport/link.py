"""What every carrier over a byte stream shares: the link with its `SecureChannel`, its deadlines, and the slots."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from secrets import token_bytes
from typing import Final, cast

from ...crypto.keys import Identity
from ...crypto.schnorr import PublicKey
from ...errors import (
    AuthenticationError,
    ConnectionError,
    NetworkError,
    PeerNotFound,
    SendError,
    Timeout,
    TransportError,
)
from ...limits import MESSAGE_MAX_BYTES, Limits
from ...node.addresses import Path, path_by
from ...node.peers import Mail
from ...text import safe, short_key
from ...wire.channel import Acked, CloseReceived, EnvelopeReceived, Established, ReassemblyBudget, SecureChannel
from ...wire.messages import CloseCode, Priority
from ..oserror import spoken
from .base import Sink
from .flow import Flow
from .slots import Slots

__all__ = ["ChannelLink", "ChannelTransport", "numbers"]

numbers = itertools.count(1)
"""Of the links of every carrier in this process."""

_NO_LIMIT: Final = 1 << 62


class ChannelLink(Flow):
    """A `Connection` over a byte stream. A carrier gives it bytes with `feed`, and writes for it with `_write`."""

    __slots__ = (
        "_acts", "_began", "_deadline", "_dialled", "_error", "_evicted", "_goodbye", "_made", "_opened", "_owner",
        "_peer", "address", "number", "outbound", "transcript",
    )  # fmt: skip

    mail: Final = Mail.NO

    def __init__(self, owner: ChannelTransport, channel: SecureChannel | None, outbound: bool, address: str) -> None:
        super().__init__(owner, channel)
        self._owner = owner
        self.number = next(numbers)
        self.outbound = outbound
        self.address = address
        self.transcript = b""
        self._dialled: PublicKey | None = None
        self._peer: PublicKey | None = None
        self._opened: asyncio.Future[None] | None = None
        self._made = owner.loop.time()
        self._began = 0.0
        self._acts = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._evicted = False
        self._goodbye: CloseReceived | None = None
        self._error: NetworkError | None = None

    # What a carrier provides:

    @abstractmethod
    def _close_stream(self) -> None:
        """Close after what was written has left."""

    @abstractmethod
    def _abort_stream(self) -> None:
        """Close now."""

    @abstractmethod
    def _is_reading(self) -> bool:
        """Whether reading is not paused: while it is, a slow frame is not the peer's fault."""

    # --- Connection ---------------------------------------------------------------------------------------------------

    @property
    def peer(self) -> PublicKey:
        if self._peer is None:
            raise TransportError("this link is still in its handshake")
        return self._peer

    @property
    def path(self) -> Path:
        return path_by(self._owner.carrier, self.host)

    @property
    def host(self) -> str:
        """The host in `address`."""
        return self.address.rpartition(":")[0]

    def send(self, envelope: bytes, priority: int = Priority.BULK) -> None:
        if not (self._closing or self._gone):
            self._channel.send(envelope, priority)

    def acknowledge(self, message_id: bytes) -> None:
        self._channel.acknowledge(message_id)

    def close(self, code: CloseCode | None = CloseCode.DONE, text: str = "") -> None:
        if self._closing or self._gone:
            return
        if not self._has_channel:
            self._abort_stream()
            self.lost(None)
            return
        if code is not None and self._channel.established:
            self._channel.close(code, text)
        self._closing = True
        self._arm(self._owner.limits.stop_timeout_s, self._abort_stream)
        self.flush()

    # --- a slot -------------------------------------------------------------------------------------------------------

    @property
    def since(self) -> float:
        return self._began or self._made

    @property
    def key(self) -> bytes:
        return b"" if self._peer is None else self._peer.compressed

    def evict(self, error: TransportError) -> None:
        self._evicted = self._peer is None
        if self._peer is not None:
            self.close(CloseCode.GOING_AWAY, "others need this slot")
            return
        self._drop(error)

    # --- called by the carrier ----------------------------------------------------------------------------------------

    def began(self) -> None:
        """The clocks start. Called where a stream takes time of its own before it is open; else `opened` does it."""
        limits = self._owner.limits
        self._began = self._owner.loop.time()
        self._arm(limits.handshake_timeout_s if self.outbound else limits.act_one_timeout_s, self._too_slow)

    def opened(self, channel: SecureChannel | None = None) -> None:
        """The stream is open: a dialler sends act one. Takes the channel of a link that was made without."""
        if self._gone:  # abandoned while the stream was being opened
            self._abort_stream()
            return
        if channel is not None:
            self._channel, self._has_channel = channel, True
        if self._deadline is None:
            self.began()
        if self._has_channel and self._channel.pending:
            self.flush()

    def _take_in(self, size: int, *, last: bool = False) -> None:
        """Open frames, as many messages of them as the gauge has room for, and count them. The rest waits here."""
        channel, gauge = self._channel, self.gauge
        now = self._loop.time()
        room = _NO_LIMIT if gauge is None else gauge.room(now, last=last)
        frames = channel.frames_received
        self._rest = False
        envelopes: list[bytes] = []
        acked: list[bytes] = []
        try:
            while len(envelopes) < room:
                events = channel.next_events(room - len(envelopes))
                for event in events:
                    if isinstance(event, EnvelopeReceived):
                        envelopes.append(event.data)
                    elif isinstance(event, Acked):
                        acked.append(event.ids)
                    elif isinstance(event, Established):
                        self._established(event)
                        gauge = self.gauge
                        room = _NO_LIMIT if gauge is None else gauge.room(now)  # act three may bring messages along
                    else:
                        self._goodbye = event
                        break
                if not events or self._goodbye is not None:
                    break
            else:
                self._rest = True
        except NetworkError as error:
            self._error = error
        if gauge is not None and self._error is None and self._goodbye is None:
            wait_s = gauge.arrived(size, channel.frames_received - frames, len(envelopes), now, more=self._rest)
            if wait_s:
                self._slow_down(wait_s)
        if (envelopes or acked) and not self._closing:
            self._owner.sink.received(self, envelopes, b"".join(acked))
        self._after_feed()

    def _after_feed(self) -> None:
        if self._error is not None or self._goodbye is not None:
            (self._abort_stream if self._error else self._close_stream)()
            self.lost(None)
            return
        channel = self._channel
        if self._peer is not None:
            if self._deadline is None and channel.mid_frame:
                self._watch_frame()
            if self._clogged:
                self._bound_answers()
            if channel.worn_out:
                self.close(CloseCode.GOING_AWAY, "this link has carried all it may; dial again")
        elif channel.acts_received != self._acts:
            self.flush()
            self._acts = channel.acts_received
            whole = self._began + self._limits.handshake_timeout_s
            self._arm(whole - self._loop.time(), self._too_slow)

    def _drop(self, error: NetworkError) -> None:
        self._error = error
        self._abort_stream()
        self.lost(None)

    def abandon(self) -> None:
        """Whoever dialled does not wait any more: give everything back, unless the handshake is done already."""
        if self._peer is None:
            if self._opened is not None:
                self._opened.cancel()
            self._abort_stream()
            self.lost(None)

    def lost(self, error: OSError | None) -> None:
        """The stream is gone. Called once or more often; only the first time counts."""
        if self._rest and not (self._gone or self._closing or self._error):
            self._take_in(0, last=True)  # it was here before the end of the stream, which may be a goodbye
        if self._gone:
            return
        self._gone = True
        self._disarm()
        self._stop_flow()
        if self._has_channel:
            self._channel.connection_lost()
        self._owner.forget(self)
        reason = self._error or self._reason(error)
        if self._peer is not None:
            self._owner.sink.closed(self, reason, self._goodbye)
            return
        refused = reason or AuthenticationError(
            f"{safe(self.address)} closed during the handshake", hint=_UNWELCOME_HINT
        )
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(refused)
        elif not self.outbound:
            self._owner.sink.refused(self.address, refused)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _reason(self, error: OSError | None) -> NetworkError | None:
        """Why the stream ended, when nothing that arrived says so."""
        if self._goodbye is not None or self._closing:
            return None
        if self._peer is None:
            return None
        why = f": {error}" if error else ""
        return ConnectionError(f"the connection to {short_key(self._peer.compressed)} at {self.address} broke{why}")

    def _established(self, event: Established) -> None:
        self._disarm()
        self._peer = event.peer
        self.transcript = event.transcript
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        self._owner.promote(self)
        self.gauge = self._owner.sink.gauge(event.peer.compressed)  # what `connected` sends is counted, too
        self._owner.sink.connected(self)
        if not (self._closing or self._gone):
            self.gauge = self._owner.sink.gauge(event.peer.compressed)  # whoever was let in just now has another one
            self._owner.slots.admit(self, self._owner.loop.time())
        if self._channel.pending:
            self.flush()

    def _too_slow(self) -> None:
        limits = self._owner.limits
        allowed_s = limits.handshake_timeout_s if self.outbound or self._acts else limits.act_one_timeout_s
        self._drop(Timeout(f"no handshake with {safe(self.address)} within {allowed_s:g} s"))

    def _watch_frame(self) -> None:
        """A frame has begun: it has `frame_timeout_s` in total, however its bytes dribble in (THREATS.md T2)."""
        begun = self._channel.frames_received

        def check() -> None:
            self._deadline = None
            if not self._is_reading():
                return  # `_resumed` starts the clock again
            if self._channel.mid_frame and self._channel.frames_received == begun:
                self._drop(Timeout(f"a frame took longer than {self._owner.limits.frame_timeout_s:g} s"))
            elif self._channel.mid_frame:
                self._watch_frame()

        self._arm(self._owner.limits.frame_timeout_s, check)

    def _resumed(self) -> None:
        """Reading goes on after a pause: the frame that it cut in two has its whole time again."""
        if self._channel.established and self._channel.mid_frame and not (self._closing or self._gone):
            self._watch_frame()

    def _arm(self, delay_s: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self._owner.loop.call_later(delay_s, then)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


_UNWELCOME_HINT = "it may not know our key, hold another key than the one dialled, or not be a MuSigNet node"


class ChannelTransport(ABC):
    """A carrier over byte streams: it has the links, the slots and the seven calls; a subclass opens streams."""

    carrier = "tcp"
    """The scheme of its addresses."""

    def __init__(self, identity: Identity, sink: Sink, *, limits: Limits | None = None) -> None:
        self.identity = identity
        self.sink = sink
        self.limits = limits or Limits()
        self.slots = Slots(self.limits)
        self._budget = ReassemblyBudget(self.limits.reassembly_max_bytes)
        self._links: dict[bytes, list[ChannelLink]] = {}
        self._dials: set[asyncio.Timeout] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._running = False
        self.loop: asyncio.AbstractEventLoop

    @abstractmethod
    async def _listen(self) -> None: ...

    @abstractmethod
    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        """Open a stream for `link`. Raises OSError, or ValueError or OverflowError for what is no address."""

    @abstractmethod
    async def _unlisten(self) -> None: ...

    def _dial_timeout_s(self, host: str) -> float:
        """Return how long opening a stream to a host may take."""
        return self.limits.dial_timeout_s

    def _place(self, host: str, port: int) -> str:
        """How a place is called, in `Connection.address` and in errors."""
        return f"{host}:{port}"

    # --- Transport ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._running:
            raise TransportError("this transport runs already", hint="make another one")
        self.loop = asyncio.get_running_loop()
        await self._listen()
        self._running = True

    async def connect(self, peer: str, host: str, port: int) -> ChannelLink:
        key = PublicKey.from_hex(peer)
        if not self._running:
            raise TransportError("this transport is not running", hint="call start first")
        dial_timeout_s = self._dial_timeout_s(host)
        self.slots.dial(self.sink.gauge(key.compressed).standing)
        opened: asyncio.Future[None] = self.loop.create_future()
        place = self._place(host, port)
        link = self._dialler(key, opened, place)
        clock = asyncio.timeout(dial_timeout_s)
        self._dials.add(clock)
        try:
            async with clock:
                await self._open(link, host, port)
                if self._running:
                    clock.reschedule(None)  # from here on the link has its own
                await opened
        except TimeoutError as error:
            if isinstance(error, NetworkError):
                raise
            if not self._running:
                raise TransportError("this transport was stopped while it dialled") from None
            raise Timeout(f"{place} did not answer within {dial_timeout_s:g} s", hint=_UNREACHABLE_HINT) from None
        except OSError as error:
            if isinstance(error, NetworkError):
                raise
            raise ConnectionError(f"cannot reach {place}: {spoken(error)}", hint=_UNREACHABLE_HINT) from None
        except (ValueError, OverflowError) as error:
            raise TransportError(f"{place} is no address: {error}") from None
        finally:
            self._dials.discard(clock)
            link.abandon()
        return link

    async def disconnect(self, peer: str) -> None:
        for link in list(self._links.get(_key(peer), ())):
            link.close(CloseCode.DONE)

    async def send(self, peer: str, envelope: bytes) -> None:
        links = self._links.get(_key(peer))
        if not links:
            raise PeerNotFound(f"no link to key {short_key(peer)}", hint="connect first")
        links[-1].send(envelope)
        links[-1].flush()

    async def broadcast(self, envelope: bytes) -> int:
        if len(envelope) > MESSAGE_MAX_BYTES:
            raise SendError("message too large", expected=f"at most {MESSAGE_MAX_BYTES} bytes", got=len(envelope))
        links = [links[-1] for links in self._links.values()]
        for link in links:
            link.send(envelope)
            link.flush()
        return len(links)

    def is_connected(self, peer: str) -> bool:
        return bool(self._links.get(_key(peer)))

    def connected_peers(self) -> list[str]:
        return [key.hex() for key in self._links]

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        await self._unlisten()
        for clock in self._dials:
            if not clock.expired():
                clock.reschedule(self.loop.time())
        for link in list(self.slots.half_open):
            cast(ChannelLink, link)._abort_stream()
        links = [link for links in self._links.values() for link in links]
        for link in links:
            link.close(CloseCode.GOING_AWAY)
        if self._links:
            self._emptied = self.loop.create_future()
            await self._emptied  # each link gives itself `stop_timeout_s`, then aborts

    # --- slots --------------------------------------------------------------------------------------------------------

    def _dialler(self, key: PublicKey, opened: asyncio.Future[None], address: str) -> ChannelLink:
        link = self._make_link(self._channel_to(key), True, address)
        link._dialled = key
        link._opened = opened
        return link

    def _answerer(self, address: str) -> ChannelLink:
        """Make the link of a stream that was accepted. It holds a half-open slot until its handshake is done."""
        link = self._make_link(self._channel_to(None), False, address)
        self.slots.opened(link, self.loop.time())
        return link

    def _channel_to(self, key: PublicKey | None) -> SecureChannel | None:
        """Return the channel of a new link, to a key or to whoever dialled; None where `opened` is given it."""
        if key is None:
            return SecureChannel.responder(self.identity, token_bytes(32), budget=self._budget)
        return SecureChannel.initiator(self.identity, key, token_bytes(32), budget=self._budget)

    @abstractmethod
    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink: ...

    def _slot_for(self, address: str) -> str:
        """Return why a stream from this address is not taken, or an empty string."""
        return self.slots.why_not(address, self.loop.time())

    def promote(self, link: ChannelLink) -> None:
        """The handshake of a link is done."""
        self.slots.promote(link)
        self._links.setdefault(link.peer.compressed, []).append(link)

    def forget(self, link: ChannelLink) -> None:
        """A link is gone: give its slot back."""
        self.slots.closed(link, shook_hands=link._peer is not None or link._evicted, now=self.loop.time())
        if link._peer is not None:
            links = self._links[link._peer.compressed]
            links.remove(link)
            if not links:
                del self._links[link._peer.compressed]
        if not self._links and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)


_UNREACHABLE_HINT = "is the node running, and the address right?"


def _key(peer: str) -> bytes:
    return PublicKey.from_hex(peer).compressed
