"""The floor: an unencrypted `asyncio.Protocol` on uvloop, one BIP-340 signature per message, nothing else.

A frame is a 4-byte length, the signature, the payload. The sender signs the tagged hash of the payload, the receiver
checks it under the one key it expects. No identifiers, no acknowledgements, no keep-alive, no bounds.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import cast

from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey

from ..stats import percentile
from .common import DIGEST, SIGNATURE_BYTES, identity, payload, resident_kib

_HEAD = 4
_HELLO_BYTES = 100


class Link(asyncio.Protocol):
    """One connection. `take(link, payload)` is called with each verified payload."""

    def __init__(self, key: Identity, peer: PublicKey, take: Callable[[Link, bytes], None]) -> None:
        self._key = key
        self._peer = peer
        self.take = take
        self._held = b""
        self._stream: asyncio.Transport
        self._room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        at, end = 0, len(data)
        while end - at >= _HEAD:
            stop = at + _HEAD + int.from_bytes(data[at : at + _HEAD], "big")
            if stop > end:
                break
            body = data[at + _HEAD + SIGNATURE_BYTES : stop]
            if not self._peer.verify(DIGEST(body), data[at + _HEAD : at + _HEAD + SIGNATURE_BYTES]):
                raise ValueError("a signature does not verify")
            self.take(self, body)
            at = stop
        self._held = data[at:]

    def send(self, body: bytes) -> None:
        self.send_signed(self.sign(body))

    def sign(self, body: bytes) -> bytes:
        return (SIGNATURE_BYTES + len(body)).to_bytes(_HEAD, "big") + self._key.sign(DIGEST(body)) + body

    def send_signed(self, frame: bytes) -> None:
        self._stream.write(frame)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    async def room(self) -> None:
        if self._room is not None:
            await self._room

    def close(self) -> None:
        self._stream.close()


def _echo(link: Link, body: bytes) -> None:
    if body[0]:
        link.send(body)


class Far:
    """Listens, checks every message, and answers those that ask for it."""

    def __init__(self, folder: Path) -> None:
        self._tls = self._context(folder)
        self._key = identity("far")
        self._peer = identity("near").public
        self._listener: asyncio.Server

    def _context(self, folder: Path) -> ssl.SSLContext | None:
        return None

    async def open(self, links: int) -> int:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Link(self._key, self._peer, _echo), "127.0.0.1", 0, ssl=self._tls, backlog=256
        )
        return int(self._listener.sockets[0].getsockname()[1])

    async def resident_kib(self) -> float:
        return resident_kib()


class Near:
    """Connects and measures."""

    def __init__(self, folder: Path) -> None:
        self._tls = self._context(folder)
        self._key = identity("near")
        self._peer = identity("far").public
        self._port = 0
        self._links: list[Link] = []

    def _context(self, folder: Path) -> ssl.SSLContext | None:
        return None

    async def _connect(self) -> Link:
        """Connect, say a signed hello, and wait for the far side's: then both sides know who is there."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        _, link = await loop.create_connection(
            lambda: Link(self._key, self._peer, lambda *_: answered.set_result(None)),
            "127.0.0.1",
            self._port,
            ssl=self._tls,
            server_hostname="far" if self._tls else None,
        )
        link.send(payload(_HELLO_BYTES, answer=True))
        await answered
        return link

    async def open(self, address: int, links: int) -> None:
        self._port = address
        self._links = [await self._connect() for _ in range(links)]

    async def round_trips(self, count: int, size: int) -> dict[str, float]:
        """A coroutine sends and awaits the answer, as on every contestant."""
        link, body, times = self._links[0], payload(size, answer=True), []
        loop = asyncio.get_running_loop()
        link.take = lambda *_: answered.set_result(None)
        for _ in range(count):
            begun = perf_counter()
            answered = loop.create_future()
            link.send(body)
            await answered
            times.append((perf_counter() - begun) * 1e6)
        return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}

    async def one_way(self, count: int, size: int) -> float:
        """Send `count` messages as fast as the link takes them; return when the last was answered, in seconds."""
        link, done = self._links[0], asyncio.get_running_loop().create_future()
        link.take = lambda *_: done.set_result(None)
        body = payload(size, answer=False)
        begun = perf_counter()
        for _ in range(count - 1):
            if link._room is not None:
                await link.room()
            link.send(body)
        link.send(payload(size, answer=True))
        await done
        return perf_counter() - begun

    async def burst(self, count: int, size: int) -> float:
        """Hand over `count` messages, signed before; return the clock when the last was answered."""
        link, done = self._links[0], asyncio.get_running_loop().create_future()
        link.take = lambda *_: done.set_result(None)
        for _ in range(count - 1):
            link.send(payload(size, answer=False))
        link.send(payload(size, answer=True))
        await done
        return perf_counter()

    async def broadcasts(self, count: int, size: int) -> float:
        """Sign once, send to all, and wait until each has answered with a signed message; median milliseconds."""
        body, times, missing = payload(size, answer=True), [], 0
        done: asyncio.Future[None]

        def answered(*_: object) -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                done.set_result(None)

        for link in self._links:
            link.take = answered
        for _ in range(count):
            done, missing = asyncio.get_running_loop().create_future(), len(self._links)
            begun = perf_counter()
            frame = self._links[0].sign(body)
            for link in self._links:
                link.send_signed(frame)
            await done
            times.append((perf_counter() - begun) * 1e3)
        return percentile(times, 0.5)

    async def dials(self, count: int) -> float:
        """Connect and authenticate, one after the other; median milliseconds."""
        times = []
        for _ in range(count):
            begun = perf_counter()
            link = await self._connect()
            times.append((perf_counter() - begun) * 1e3)
            link.close()
        return percentile(times, 0.5)

    async def connects(self, count: int, in_flight: int) -> float:
        """Connect, authenticate and hang up, `in_flight` at a time; seconds for all."""

        async def worker() -> None:
            for _ in range(count // in_flight):
                (await self._connect()).close()

        begun = perf_counter()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return perf_counter() - begun

    async def hold(self, count: int, in_flight: int) -> None:
        """Open `count` more links and keep them."""

        async def worker() -> None:
            for _ in range(count // in_flight):
                self._links.append(await self._connect())

        await asyncio.gather(*(worker() for _ in range(in_flight)))
