"""Stand-ins for SOCKS5 proxies, written from RFC 1928 and 1929: one that works, and one that says what it is told.

As a program, `python socks.py PORT [NAME=PORT ...]`, it prints each request as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["Asked", "FakeTor", "microsocks", "scripted"]

_IPV4, _NAME, _IPV6 = 1, 3, 4
_UNKNOWN_HOST, _REFUSED = 4, 5
_SUCCEEDED = bytes((5, 0, 0, 1, 0, 0, 0, 0, 0, 0))


@dataclass(frozen=True)
class Asked:
    """One connection that somebody wanted."""

    host: str
    port: int
    login: tuple[str, str]


@dataclass
class FakeTor:
    """A SOCKS5 proxy that knows some names: each leads to a port of this machine. Takes any login, as Tor does."""

    names: Mapping[str, int]
    port: int = 0
    asked: list[Asked] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, host: str = "127.0.0.1") -> AsyncIterator[FakeTor]:
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._serve, host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._speak(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        login = ("", "")
        writer.write(bytes((5, 2 if 2 in methods else 0)))
        if 2 in methods:  # Tor prefers it: it tells paths apart
            await reader.readexactly(1)
            login = (await self._text(reader), await self._text(reader))
            writer.write(b"\1\0")
        await reader.readexactly(3)
        asked = Asked(await self._host(reader), int.from_bytes(await reader.readexactly(2), "big"), login)
        self.asked.append(asked)
        self.note(asked)
        port = self.names.get(asked.host)
        if port is None:
            writer.write(bytes((5, _UNKNOWN_HOST)) + _SUCCEEDED[2:])
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.write(bytes((5, _REFUSED)) + _SUCCEEDED[2:])
            return
        writer.write(_SUCCEEDED)
        await _both_ways(reader, writer, *there)

    def note(self, asked: Asked) -> None:
        """Somebody asked."""

    async def _text(self, reader: asyncio.StreamReader) -> str:
        return (await reader.readexactly((await reader.readexactly(1))[0])).decode()

    async def _host(self, reader: asyncio.StreamReader) -> str:
        kind = (await reader.readexactly(1))[0]
        if kind == _NAME:
            return await self._text(reader)
        family, size = (socket.AF_INET, 4) if kind == _IPV4 else (socket.AF_INET6, 16)
        return socket.inet_ntop(family, await reader.readexactly(size))


async def _both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    pumps = [
        asyncio.ensure_future(_pump(source, target)) for source, target in ((reader, far_writer), (far_reader, writer))
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        far_writer.close()  # first: the rest may be cancelled, too
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()


@asynccontextmanager
async def scripted(*steps: bytes | int | None) -> AsyncIterator[int]:
    """Listen, and follow a script with whoever comes: bytes are said, a number is how many bytes to read first, None
    is to stall until they hang up. At its end it hangs up. Yields the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                for step in steps:
                    if step is None:
                        await reader.read()
                    elif isinstance(step, int):
                        await reader.readexactly(step)
                    else:
                        writer.write(step)
                await writer.drain()
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextmanager
def microsocks(*arguments: str) -> Iterator[int]:
    """Run Debian's microsocks on a free port; yield it. `arguments` such as `-u USER -P PASSWORD`."""
    program = shutil.which("microsocks")
    assert program is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([program, "-i", "127.0.0.1", "-p", str(port), *arguments], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "microsocks does not listen"


class _Program(FakeTor):
    def note(self, asked: Asked) -> None:
        print(json.dumps([asked.host, asked.port, *asked.login]), flush=True)


async def _main(port: int, names: Mapping[str, int]) -> None:
    async with _Program(names, port).running() as proxy:
        print(json.dumps({"port": proxy.port}), flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), {name: int(to) for name, to in (one.split("=") for one in sys.argv[2:])}))
