"""What the tests of the carriers share: a loop per test, a sink that remembers, and ends that may say anything.

Nothing here sleeps: `Signal.until` waits for a callback, with a deadline.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from hashlib import sha256
from typing import Any, Protocol, TypeAlias, cast

import pytest

from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey
from musignet.errors import NetworkError
from musignet.limits import Limits
from musignet.net.transport import MemoryNetwork, MemoryTransport, TcpTransport, TlsTransport
from musignet.net.transport.base import Connection, Sink
from musignet.net.transport.certificate import client_context, listener_context
from musignet.net.transport.link import ChannelTransport
from musignet.net.transport.memory import _MemoryLink
from musignet.node.rates import Standing
from musignet.wire import noise, tlsauth
from musignet.wire.channel import CloseReceived, Event, SecureChannel
from support.channels import wire
from support.gauges import Gauged
from support.keys import secret
from support.unbound import FREELY

__all__ = [
    "CARRIERS",
    "FREELY",
    "NOISE",
    "Carrier",
    "NoiseActs",
    "RawEnd",
    "Recorder",
    "Rogue",
    "Signal",
    "aio",
    "all_of",
    "flipped",
    "passed",
    "soon",
    "turns",
]

Initiator: TypeAlias = noise.Initiator | tlsauth.Initiator

TEST_TIMEOUT_S = 20.0
WAIT_S = 5.0


def aio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop of its own, of its `carrier`'s kind. Nothing may be left over or go unheard."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        carrier = kwargs.get("carrier")
        unheard: list[dict[str, Any]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: unheard.append(context))
            try:
                async with asyncio.timeout(TEST_TIMEOUT_S):
                    await test(*args, **kwargs)
            finally:
                if carrier is not None:
                    await carrier.unlisten()
            await turns()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left over: {left}"
            gc.collect(1)  # exceptions that nobody fetched speak up when they are collected

        with asyncio.Runner(loop_factory=carrier.loop_factory if carrier is not None else None) as runner:
            runner.run(main())
        assert not unheard, unheard

    return run


async def turns(count: int = 10) -> None:
    """Let the loop turn, so that what was scheduled has run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def passed(seconds: float) -> None:
    """Let real time pass: for a test about a clock that must *not* run out."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, future.set_result, None)
    await future


class Signal:
    """Something that changes by callbacks. Whoever changes it pokes; whoever waits looks again."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def poke(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, predicate: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        """Return once `predicate()` is true; it is asked after each poke."""
        async with asyncio.timeout(timeout_s):
            while not predicate():
                future = asyncio.get_running_loop().create_future()
                self._waiting.add(future)
                try:
                    await future
                finally:
                    self._waiting.discard(future)


async def soon(predicate: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    """Return once `predicate()` is true, where nothing tells of the change: look again and again."""
    async with asyncio.timeout(timeout_s):
        while not predicate():
            await passed(0.01)


class Recorder(Signal, Gauged):
    """A `Sink` that writes down what it hears, in order. Everybody is a stranger to it, unless `standing` says more."""

    def __init__(self, limits: Limits = FREELY, standing: Standing = Standing.STRANGER) -> None:
        Signal.__init__(self)
        Gauged.__init__(self, limits, standing)
        self.heard: list[tuple[str, Any]] = []
        self.connections: list[Connection] = []
        self.envelopes: list[bytes] = []
        self.ids = b""
        self.errors: list[NetworkError | None] = []
        self.goodbyes: list[CloseReceived | None] = []
        self.refusals: list[NetworkError] = []
        self.on_connected: Callable[[Connection], None] | None = None
        self.on_received: Callable[[Connection], None] | None = None

    def _note(self, what: str, about: Any = None) -> None:
        self.heard.append((what, about))
        self.poke()

    def connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        if self.on_connected is not None:
            self.on_connected(connection)
        self._note("connected", connection.peer.compressed)

    def received(self, connection: Connection, envelopes: list[bytes], ids: bytes) -> None:
        assert envelopes or ids
        if ids:
            self.ids += ids
            self._note("acknowledged", ids)
        self.envelopes += envelopes
        if envelopes and self.on_received is not None:
            self.on_received(connection)
        for envelope in envelopes:
            self._note("received", envelope)

    def closed(self, connection: Connection, error: NetworkError | None, goodbye: CloseReceived | None) -> None:
        self.errors.append(error)
        self.goodbyes.append(goodbye)
        self._note("closed", connection)

    def refused(self, address: str, error: NetworkError) -> None:
        self.refusals.append(error)
        self._note("refused", address)

    @property
    def words(self) -> list[str]:
        return [what for what, _ in self.heard]

    async def hears(self, what: str, count: int = 1, timeout_s: float = WAIT_S) -> None:
        await self.until(lambda: self.words.count(what) >= count, timeout_s)


class RawEnd(Signal):
    """One end of a byte stream in the hands of a test."""

    def __init__(self) -> None:
        super().__init__()
        self.received = bytearray()
        self.ended = False

    def send(self, data: bytes, *, flip: int | None = None) -> None:
        """Send; with `flip`, change a bit of that byte of what leaves."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _arrived(self, data: bytes) -> None:
        self.received += data
        self.poke()

    def _end(self) -> None:
        self.ended = True
        self.poke()

    def take(self) -> bytes:
        data = bytes(self.received)
        self.received.clear()
        return data

    async def closed(self) -> None:
        await self.until(lambda: self.ended)


class _RawTcp(RawEnd, asyncio.Protocol):
    def __init__(self, accepted: Callable[[RawEnd], None] | None = None) -> None:
        super().__init__()
        self._accepted = accepted
        self.pump: Callable[[], None] = lambda: None
        """Called when something happened, for whoever sits on top."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = cast(asyncio.Transport, transport)
        if self._accepted is not None:
            self._accepted(self)

    def data_received(self, data: bytes) -> None:
        self._arrived(data)
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self.pump()

    def send(self, data: bytes, *, flip: int | None = None) -> None:
        if not self.ended:
            self.stream.write(flipped(data, flip))

    def close(self) -> None:
        self.stream.close()


class _RawTls(RawEnd):
    """One end of a TLS stream: what a test sends is encrypted, and can be changed after that."""

    def __init__(self, below: _RawTcp, context: ssl.SSLContext, *, listens: bool) -> None:
        super().__init__()
        self.below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=listens)
        self.ready = False
        self.certificate_hash = b""
        below.pump = self._pump
        self._pump()

    def _pump(self) -> None:
        self._in.write(self.below.take())
        with suppress(ssl.SSLError):
            if not self.ready:
                self._tls.do_handshake()
                self.certificate_hash = sha256(self._tls.getpeercert(binary_form=True) or b"").digest()
                self.ready = True
            while data := self._tls.read(65_536):
                self._arrived(data)
        self._leave()
        if self.below.ended and not self.ended:
            self._end()
        self.poke()

    def _leave(self, flip: int | None = None) -> None:
        if data := self._out.read():
            self.below.send(data, flip=flip)

    def send(self, data: bytes, *, flip: int | None = None) -> None:
        if self.ready:
            self._tls.write(data)
            self._leave(flip)

    def close(self) -> None:
        self.below.close()


class _RawMemory(RawEnd):
    """What a `_MemoryLink` needs of the other one."""

    _clogged = False
    other: Any

    def __init__(self) -> None:
        super().__init__()
        self._arriving: list[bytes] = []
        self._ended = False
        self._closed = False

    def opened(self) -> None:
        pass

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        data, self._arriving = b"".join(self._arriving), []
        if data:
            self._arrived(data)
            if self.other._clogged:
                self.other.clogged(False)
        if self._ended and not self.ended:
            self._end()

    def send(self, data: bytes, *, flip: int | None = None) -> None:
        self.other._arriving.append(flipped(data, flip))
        self.other._schedule()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.other._ended = True
            self.other._schedule()
            self._end()


class Carrier(Protocol):
    """One kind of transport, as the conformance suite sees it."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
    host: str
    fill_mib: int
    """More than this carrier holds for a reader that pauses."""
    bulk_s: float
    """What that much, or 4 MiB both ways, may take on a busy machine."""
    acts: tuple[int, int, int]
    """The bytes of each."""

    def place(self, port: int) -> str:
        """Return a pattern for where a transport is that said this port."""
        ...

    def initiator(self, identity: Identity, to: PublicKey, random: bytes, end: RawEnd) -> Initiator:
        """Return the dialler's side of a handshake on a raw end."""
        ...

    def transport(
        self, identity: Identity, sink: Sink, host: str | None = None, port: int = 0, *, limits: Limits | None = None
    ) -> ChannelTransport: ...

    async def raw_dial(self, target: ChannelTransport) -> RawEnd: ...

    async def raw_listen(self, accepted: Callable[[RawEnd], None]) -> int:
        """Listen in a transport's place; return the port. `unlisten` ends it."""
        ...

    async def unlisten(self) -> None: ...


class NoiseActs:
    """What carriers that speak Noise share."""

    acts = (noise.ACT_ONE_BYTES, noise.ACT_TWO_BYTES, noise.ACT_THREE_BYTES)
    host: str

    def place(self, port: int) -> str:
        return re.escape(f"{self.host}:{port}")

    def initiator(self, identity: Identity, to: PublicKey, random: bytes, end: RawEnd) -> Initiator:
        return noise.Initiator(identity, to, random)


class _Tcp(NoiseActs):
    host = "127.0.0.1"
    fill_mib = 16
    bulk_s = WAIT_S

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        self.loop_factory = loop_factory
        self._server: asyncio.Server | None = None
        self._accepted: list[_RawTcp] = []

    def transport(
        self, identity: Identity, sink: Sink, host: str | None = None, port: int = 0, *, limits: Limits | None = None
    ) -> ChannelTransport:
        return TcpTransport(identity, sink, self.host if host is None else host, port, limits=limits)

    async def raw_dial(self, target: ChannelTransport) -> RawEnd:
        port = cast(TcpTransport, target).port
        _, end = await asyncio.get_running_loop().create_connection(_RawTcp, self.host, port)
        return end

    async def raw_listen(self, accepted: Callable[[RawEnd], None]) -> int:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: self._accept(accepted), self.host, 0)
        return cast(int, self._server.sockets[0].getsockname()[1])

    def _accept(self, accepted: Callable[[RawEnd], None]) -> _RawTcp:
        end = _RawTcp(accepted)
        self._accepted.append(end)
        return end

    async def unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            for end in self._accepted:
                end.stream.abort()
            await self._server.wait_closed()


class _RawListener:
    """Takes a `MemoryTransport`'s place in its network."""

    def __init__(self, accepted: Callable[[RawEnd], None]) -> None:
        self._accepted = accepted

    def _slot_for(self, address: str) -> str:
        return ""

    def _answerer(self, address: str) -> _RawMemory:
        end = _RawMemory()
        asyncio.get_running_loop().call_soon(self._accepted, end)
        return end


class _Tls(_Tcp):
    acts = (tlsauth.ACT_ONE_BYTES, tlsauth.ACT_TWO_BYTES, tlsauth.ACT_THREE_BYTES)

    def initiator(self, identity: Identity, to: PublicKey, random: bytes, end: RawEnd) -> Initiator:
        return tlsauth.Initiator(identity, to, random, cast(_RawTls, end).certificate_hash)

    def transport(
        self, identity: Identity, sink: Sink, host: str | None = None, port: int = 0, *, limits: Limits | None = None
    ) -> ChannelTransport:
        return TlsTransport(identity, sink, self.host if host is None else host, port, limits=limits)

    async def raw_dial(self, target: ChannelTransport) -> RawEnd:
        end = _RawTls(cast(_RawTcp, await super().raw_dial(target)), client_context(), listens=False)
        await end.until(lambda: end.ready or end.ended)
        return end

    async def raw_listen(self, accepted: Callable[[RawEnd], None]) -> int:
        context, certificate = listener_context()
        self.certificate_hash = sha256(certificate).digest()
        return await super().raw_listen(lambda end: accepted(_RawTls(cast(_RawTcp, end), context, listens=True)))


class _Memory(NoiseActs):
    host = "here"
    fill_mib = 16
    bulk_s = WAIT_S
    loop_factory = None

    def __init__(self) -> None:
        self.network = MemoryNetwork()

    def transport(
        self, identity: Identity, sink: Sink, host: str | None = None, port: int = 0, *, limits: Limits | None = None
    ) -> ChannelTransport:
        host = self.host if host is None else host
        return MemoryTransport(identity, sink, host, port, network=self.network, limits=limits)

    async def raw_dial(self, target: ChannelTransport) -> RawEnd:
        end = _RawMemory()
        if target._slot_for("raw:1"):
            end._end()
            return end
        far = cast(_MemoryLink, target._answerer("raw:1"))
        far.other, end.other = cast(Any, end), far
        far.opened()
        return end

    async def raw_listen(self, accepted: Callable[[RawEnd], None]) -> int:
        return self.network.listen(self.host, 0, cast(Any, _RawListener(accepted)))

    async def unlisten(self) -> None:
        pass


def flipped(data: bytes, at: int | None) -> bytes:
    """Return `data` with a bit of one byte changed, or as it is."""
    if at is None:
        return data
    changed = bytearray(data)
    changed[at] ^= 0x10
    return bytes(changed)


def _uvloops() -> Any:
    return pytest.importorskip("uvloop", reason="it has no build for this Python").new_event_loop


def _uvloop() -> Carrier:
    return _Tcp(_uvloops())


CARRIERS: dict[str, Callable[[], Carrier]] = {
    "tcp": lambda: _Tcp(asyncio.SelectorEventLoop),
    "tcp on uvloop": _uvloop,
    "tls": lambda: _Tls(asyncio.SelectorEventLoop),
    "tls on uvloop": lambda: _Tls(_uvloops()),
    "memory": _Memory,
}


NOISE = {name: make for name, make in CARRIERS.items() if not name.startswith("tls")}
"""For tests of what lies above: TLS adds nothing to them but time."""


class Rogue:
    """A node that has done an honest handshake, and may say anything from there on."""

    def __init__(self, end: RawEnd, channel: SecureChannel) -> None:
        self.end = end
        self.channel = channel
        self.events: list[Event] = []

    @classmethod
    async def dial(cls, carrier: Carrier, target: ChannelTransport, identity: Identity, to: PublicKey) -> Rogue:
        """Connect to a transport and finish the handshake."""
        end = await carrier.raw_dial(target)
        channel = SecureChannel(carrier.initiator(identity, to, secret(f"{identity!r} as a rogue"), end))
        rogue = cls(end, channel)
        rogue.flush()
        await rogue.until(lambda: channel.established)
        return rogue

    def flush(self) -> None:
        self.end.send(wire(self.channel))

    def say(self, *envelopes: bytes) -> None:
        for envelope in envelopes:
            self.channel.send(envelope)
        self.flush()

    async def until(self, predicate: Callable[[], object]) -> None:
        """Read until `predicate()` is true."""

        def read() -> object:
            self.channel.receive_data(self.end.take())
            while events := self.channel.next_events():
                self.events += events
            if self.channel.pending:
                self.flush()
            return predicate()

        await self.end.until(read)

    def heard(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    """Await all at once; return results and exceptions."""
    return await asyncio.gather(*work, return_exceptions=True)
