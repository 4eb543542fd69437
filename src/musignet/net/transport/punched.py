"""Links through NATs: ICE finds a path, QUIC makes a stream of it, and the handshake of TCP runs inside.

Offers and answers travel over any link that the two have already: `signal` sends one, `signalled` takes one in.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_interface
from secrets import token_bytes
from typing import TypeAlias, cast

import ifaddr

from ...crypto.keys import Identity
from ...crypto.schnorr import PublicKey
from ...errors import AuthenticationError, ConnectionError, NetworkError, Timeout, TransportError
from ...limits import ICE_ATTEMPTS_MAX, Limits
from ...node.addresses import TURN, Address, Path
from ...text import short_key
from ...wire.candidates import Candidate, Network, Role, Signal
from ...wire.channel import Established, SecureChannel
from ..nat import Servers
from .base import SignalSink, Sink
from .carriers import MakeCarriers
from .ice import Hole
from .link import ChannelLink, ChannelTransport
from .quic import Stream

__all__ = ["PunchedTransport", "SendSignal", "punching"]

SendSignal: TypeAlias = Callable[[str, bytes], None]
"""Sends an offer or answer to a peer, named by its key in hex. Raises NetworkError when there is no link to it."""

for _library in ("aioice", "quic"):  # each logs every step of every check
    logging.getLogger(_library).setLevel(logging.WARNING)


class _QuicLink(ChannelLink):
    """One punched connection."""

    _stream: Stream | None = None
    _hole: Hole | None = None
    _wanted = b""

    def __init__(self, owner: ChannelTransport, channel: SecureChannel | None, outbound: bool, address: str) -> None:
        super().__init__(owner, channel, outbound, address)
        self.relayed = False

    @property
    def path(self) -> Path:
        return TURN if self.relayed else super().path

    async def raise_over(self, hole: Hole) -> None:
        """Open the stream on a path. Raises OSError and Timeout."""
        self._hole = hole
        self.address = hole.address
        self.relayed = hole.relayed
        stream = self._stream = Stream(self._owner.loop, hole.push, self, client=self.outbound)
        hole.deliver_to(stream.receive, stream.lost)
        await stream.open(self._owner.limits.quic_handshake_s)

    def stream_opened(self) -> None:
        self.opened()

    def stream_data(self, data: bytes) -> None:
        self.feed(data)

    def stream_room(self, unsent: int) -> None:
        if self._clogged and unsent < self._chunk // 2:
            self.clogged(False)

    def stream_ended(self, error: OSError | None) -> None:
        hole, self._hole = self._hole, None
        if hole is not None:
            cast(PunchedTransport, self._owner).bury(hole)
        self.lost(error)

    def _established(self, event: Established) -> None:
        if self._wanted not in (b"", event.peer.compressed):
            raise AuthenticationError(
                "another key answers on a punched path", expected=short_key(self._wanted),
                got=short_key(event.peer.compressed),
            )  # fmt: skip
        super()._established(event)

    def _pause_stream(self) -> None:
        if self._stream is not None:
            self._stream.pause()

    def _resume_stream(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def _is_reading(self) -> bool:
        return self._stream is None or self._stream.reading

    def _write(self, data: bytes) -> None:
        if self._stream is not None and self._stream.write(data) > self._chunk:
            self.clogged(True)

    def _close_stream(self) -> None:
        stream = self._stream
        if stream is not None:  # who said goodbye reads no more
            self._owner.loop.call_soon(stream.finish if self._goodbye is None else stream.abort)

    def _abort_stream(self) -> None:
        if self._stream is not None:
            self._stream.abort()


class PunchedTransport(ChannelTransport):
    """Links through NATs. A `Transport` that dials a key: host and port of `connect` mean nothing to it.

    Args:
        identity: who we are on every link.
        sink:     who is told (see `Sink`).
        signal:   sends an offer or answer.
        servers:  the STUN and TURN servers to ask.
        interfaces: our own addresses with their networks, instead of what the machine has.
    """

    def __init__(
        self,
        identity: Identity,
        sink: Sink,
        *,
        signal: SendSignal,
        servers: Servers | None = None,
        interfaces: Sequence[str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        limits = limits or Limits()
        whole_s = 2 * limits.ice_gather_s + limits.ice_answer_s + limits.ice_checks_s + limits.quic_handshake_s
        super().__init__(identity, sink, limits=replace(limits, dial_timeout_s=whole_s))
        self._signal = signal
        self._servers = servers or Servers()
        self._interfaces = interfaces
        self._asked: dict[tuple[str, bytes], asyncio.Future[Signal]] = {}
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._answered_at: dict[str, float] = {}
        self._burials: set[asyncio.Task[None]] = set()

    # --- Transport ----------------------------------------------------------------------------------------------------

    carrier = "ice"

    async def connect(self, peer: str, host: str = "ice", port: int = 0) -> ChannelLink:
        """Dial a key. Raises as any `Transport`, and within the bounds of every phase.

        Where a link by way of TURN is up already, only a direct path is looked for.
        """
        return await super().connect(peer, host, port)

    async def dial(self, peer: str, address: Address) -> ChannelLink:
        """As `connect`: the address says no more than that there are holes to be punched."""
        return await self.connect(peer)

    async def stop(self) -> None:
        await super().stop()
        while self._burials:
            await asyncio.wait(self._burials)

    def _make_link(self, channel: SecureChannel | None, outbound: bool, address: str) -> ChannelLink:
        return _QuicLink(self, channel, outbound, address)

    def _dialler(self, key: PublicKey, opened: asyncio.Future[None], address: str) -> ChannelLink:
        link = super()._dialler(key, opened, address)
        cast(_QuicLink, link)._wanted = key.compressed
        return link

    async def _listen(self) -> None:
        pass

    async def _unlisten(self) -> None:
        tasks = list(self._answering.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- our offers ---------------------------------------------------------------------------------------------------

    async def _open(self, link: ChannelLink, host: str, port: int) -> None:
        link = cast(_QuicLink, link)
        hole = self._hole(link._wanted, controlling=True)
        try:
            signal = await self._ask(link._wanted.hex(), hole)
            await hole.punch(signal)
            await link.raise_over(hole)
        finally:
            if link._stream is None:
                self.bury(hole)

    async def _ask(self, peer: str, hole: Hole) -> Signal:
        """Send our offer, and return the answer."""
        candidates = await self._candidates(hole)
        attempt = token_bytes(16)
        answer: asyncio.Future[Signal] = self.loop.create_future()
        self._asked[peer, attempt] = answer
        try:
            self._say(peer, Role.OFFER, attempt, hole, candidates)
            async with asyncio.timeout(self.limits.ice_answer_s):
                signal = await answer
        except TimeoutError:
            raise Timeout(
                f"no answer to our offer within {self.limits.ice_answer_s:g} s",
                hint="offers travel over another link: is the peer there, and does it have [nat] on?",
            ) from None
        finally:
            del self._asked[peer, attempt]
        if not signal.candidates:
            raise ConnectionError("the peer does not want to be reached through a hole now", hint="later it may")
        return signal

    # --- theirs -------------------------------------------------------------------------------------------------------

    def signalled(self, peer: str, data: bytes) -> None:
        """Take in an offer or answer of `peer`, whose signature was checked. An answer to nothing is dropped.

        Raises: SerializationError for a payload that is no offer or answer.
        """
        signal = Signal.parse_untrusted(data)
        if not self._running:
            return
        if signal.role == Role.ANSWER:
            waiting = self._asked.get((peer, signal.attempt))
            if waiting is not None and not waiting.done():
                waiting.set_result(signal)
        elif why := self._why_not_answer(peer, signal):
            self._refuse(peer, signal, why)
        else:
            self._answered_at[peer] = self.loop.time()
            task = self._answering[peer] = self.loop.create_task(self._answer(peer, signal))
            task.add_done_callback(lambda _: self._answering.pop(peer, None))

    def _why_not_answer(self, peer: str, signal: Signal) -> str:
        now = self.loop.time()
        pause_s = self.limits.ice_offers_pause_s
        self._answered_at = {who: at for who, at in self._answered_at.items() if now - at < pause_s}
        if peer in self._answering:
            return "an offer of this peer is being answered"
        if peer in self._answered_at:
            return f"offers of one peer are answered every {pause_s:g} s"
        if len(self._answering) >= ICE_ATTEMPTS_MAX:
            return "too many offers are being answered"
        return self._slot_for("ice:0") or ("" if signal.candidates else "an offer without an address")

    def _refuse(self, peer: str, offer: Signal, why: str) -> None:
        try:
            self._signal(peer, Signal(Role.ANSWER, offer.attempt, offer.name, offer.password, ()).encode())
        except NetworkError:
            pass  # it hears nothing, which its own deadline bears
        self.sink.refused(f"ice:{short_key(peer)}", TransportError(f"an offer is not answered: {why}"))

    async def _answer(self, peer: str, offer: Signal) -> None:
        hole = self._hole(bytes.fromhex(peer), controlling=False)
        link: _QuicLink | None = None
        fault: NetworkError | None = None
        try:
            candidates = await self._candidates(hole)
            self._say(peer, Role.ANSWER, offer.attempt, hole, candidates)
            await hole.punch(offer)
            link = cast(_QuicLink, self._answerer(hole.address))
            link._wanted = bytes.fromhex(peer)
            await link.raise_over(hole)
        except NetworkError as error:
            fault = error
        except OSError as error:
            fault = ConnectionError(f"no punched link: {error}")
        finally:
            if link is None:
                self.bury(hole)
            elif not link._began:
                link._error = link._error or fault
                link._abort_stream()
                link.lost(None)
        if link is None and fault is not None:
            self.sink.refused(f"ice:{short_key(peer)}", fault)

    # --- both ---------------------------------------------------------------------------------------------------------

    def _hole(self, peer: bytes, *, controlling: bool) -> Hole:
        by_turn = any(cast(_QuicLink, link).relayed for link in self._links.get(peer, ()))
        servers = replace(self._servers, turn=()) if by_turn else self._servers
        sockets, networks = _own(self._interfaces if self._interfaces is not None else _machine())
        return Hole(controlling, servers, sockets, networks, self.limits, direct_only=by_turn)

    async def _candidates(self, hole: Hole) -> tuple[Candidate, ...]:
        candidates = await hole.gather()
        if not candidates:
            raise ConnectionError("this machine has no address to punch from", hint="is it connected to a network?")
        return candidates

    def _say(self, peer: str, role: Role, attempt: bytes, hole: Hole, candidates: tuple[Candidate, ...]) -> None:
        signal = Signal(role, attempt, hole.local_username, hole.local_password, candidates)
        self._signal(peer, signal.encode())

    def bury(self, hole: Hole) -> None:
        """Close a path in the background. `stop` waits for it."""
        task = self.loop.create_task(hole.close())
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)


def punching(servers: Servers, interfaces: Sequence[str] | None = None) -> MakeCarriers:
    """Return what makes this carrier for a node: offers and answers travel over the node's other links."""

    def make(identity: Identity, sink: SignalSink, *, limits: Limits) -> dict[str, PunchedTransport]:
        transport = PunchedTransport(
            identity, sink, signal=sink.say_signal, servers=servers, interfaces=interfaces, limits=limits
        )
        sink.hear_signals(transport.signalled)
        return {PunchedTransport.carrier: transport}

    return cast(MakeCarriers, make)


def _own(interfaces: Sequence[str]) -> tuple[list[str], list[Network]]:
    """Return the addresses, and the networks they are in."""
    found = [ip_interface(one) for one in interfaces]
    return [str(one.ip) for one in found], [one.network for one in found]


def _machine() -> list[str]:
    """Return this machine's addresses as `address/prefix`, those that lead to the internet first."""
    found = [
        ip_interface(f"{ip.ip if isinstance(ip.ip, str) else ip.ip[0]}/{ip.network_prefix}")
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]
    usable = [one for one in found if not (one.ip.is_loopback or one.ip.is_link_local)]
    outward = {_outward(socket.AF_INET, "192.0.2.1"), _outward(socket.AF_INET6, "2001:db8::1")}
    usable.sort(key=lambda one: (str(one.ip) not in outward, one.version))
    return [str(one) for one in usable]


def _outward(family: socket.AddressFamily, somewhere: str) -> str:
    """Return the address that packets to the internet leave from. Sends none."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((somewhere, 9))
            return cast(str, probe.getsockname()[0])
    except OSError:
        return ""
