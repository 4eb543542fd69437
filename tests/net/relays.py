"""Relays for the tests, and the carrier over them for the conformance suite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import nostr_sdk
from endpoints import NoiseActs, RawEnd, flipped

from musignet.crypto.keys import Identity
from musignet.limits import Limits
from musignet.net.transport.base import Sink
from musignet.net.transport.link import ChannelTransport
from musignet.net.transport.relay import RelayTransport
from musignet.net.transport.relaystream import RelayStream, RelayStreams
from support.keys import BOB

__all__ = ["HOST", "LocalRelay", "RelayCarrier"]

HOST = "ws://127.0.0.1"


class LocalRelay:
    """An honest relay of another make, in this process but on threads of its own, so that no test's loop drives it.

    Args: asks — whose an inbox is, before it shows letters.
    """

    def __init__(self, *, port: int = 0, limits: nostr_sdk.RateLimit | None = None, asks: bool = False) -> None:
        usual = nostr_sdk.RateLimit(max_reqs=500, notes_per_minute=1_000_000)
        builder = nostr_sdk.LocalRelayBuilder().addr("127.0.0.1").rate_limit(limits or usual).auth_dm(asks)
        self._relay = (builder.port(port) if port else builder).build()
        asyncio.run(self._relay.run())
        self.url = str(asyncio.run(self._url()))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _url(self) -> Any:
        return await self._relay.url()

    def kill(self) -> None:
        """Every connection breaks, and nobody listens any more."""
        self._relay.shutdown()


@cache
def shared_relay() -> LocalRelay:
    """One for all tests of this process: starting one takes longer than most tests."""
    return LocalRelay()


class _RawStream(RawEnd):
    """One end of a stream, without a channel on it."""

    def __init__(self, streams: RelayStreams | None = None) -> None:
        super().__init__()
        self.stream: RelayStream
        self._streams = streams

    def stream_data(self, data: bytes) -> None:
        self._arrived(data)

    def stream_room(self, clogged: bool) -> None:
        pass

    def stream_lost(self, reset: bool) -> None:
        self._end()

    def send(self, data: bytes, flip: int | None = None) -> None:
        self.stream.write(data if flip is None else flipped(data, flip))

    def close(self) -> None:
        self.stream.end()


class Reached(Protocol):
    """A relay, of whatever make."""

    @property
    def url(self) -> str: ...

    @property
    def port(self) -> int: ...


class RelayCarrier(NoiseActs):
    """Links over one relay, by default the shared one, for the conformance suite."""

    host = HOST
    fill_mib = 3
    bulk_s = 15.0

    def __init__(self, relay: Reached | None = None) -> None:
        self.loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
        self.relay = relay or shared_relay()
        self._raw: list[RelayStreams] = []

    def transport(
        self, identity: Identity, sink: Sink, host: str | None = None, port: int = 0, *, limits: Limits | None = None
    ) -> ChannelTransport:
        host = self.host if host is None else host
        return RelayTransport(identity, sink, host, self.relay.port if host else 0, limits=limits)

    def _streams(self, identity: Identity, accept: Callable[[RelayStream, str], Any]) -> RelayStreams:
        streams = RelayStreams(identity, [self.relay.url], accept, 5.0)
        self._raw.append(streams)
        streams.start()
        return streams

    async def raw_dial(self, target: ChannelTransport) -> RawEnd:
        end = _RawStream()

        def attach(stream: RelayStream) -> _RawStream:
            end.stream = stream
            return end

        await self._streams(Identity.generate(), lambda *_: None).open(target.identity.public, self.relay.url, attach)
        return end

    async def raw_listen(self, accepted: Callable[[RawEnd], None]) -> int:
        def accept(stream: RelayStream, _: str) -> _RawStream:
            end = _RawStream()
            end.stream = stream
            asyncio.get_running_loop().call_soon(accepted, end)
            return end

        await self._streams(BOB, accept).lines[0].ready()
        return self.relay.port

    async def unlisten(self) -> None:
        for streams in self._raw:
            await streams.stop()
        self._raw.clear()
