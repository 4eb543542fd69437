"""A stand-in for Tor's control port, written from control-spec: what an onion service needs, and ways to fail."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha3_256
from pathlib import Path

__all__ = ["FakeControl", "service_id"]

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    4 * pow(5, -1, _P) % _P,
)
"""RFC 8032, section 5.1."""
_SERVER = b"Tor safe cookie authentication server-to-controller hash"
_CONTROLLER = b"Tor safe cookie authentication controller-to-server hash"


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    product = _D * a[0] * b[0] * a[1] * b[1] % _P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, _P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, _P)
    return x % _P, y % _P


def service_id(expanded: bytes) -> str:
    """Return the name of the service with this key, as Tor makes it: the scalar times the base point."""
    scalar, point, power = int.from_bytes(expanded[:32], "little"), (0, 1), _BASE
    while scalar:
        if scalar & 1:
            point = _add(point, power)
        power, scalar = _add(power, power), scalar >> 1
    public = (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")
    check = sha3_256(b".onion checksum" + public + b"\3").digest()[:2]
    return base64.b32encode(public + check + b"\3").decode().lower()


@dataclass
class FakeControl:
    """Tor's port. `answers`: what it says to a command instead, by its first word. None stalls, b"" hangs up."""

    cookie_file: Path
    password: str = ""
    methods: str = "COOKIE,SAFECOOKIE"
    answers: dict[str, bytes | None] = field(default_factory=dict)
    port: int = 0
    heard: list[str] = field(default_factory=list)
    services: dict[str, str] = field(default_factory=dict)
    """What is published, with its target."""

    def __post_init__(self) -> None:
        self.cookie = os.urandom(32)
        self.cookie_file.write_bytes(self.cookie)
        self.changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeControl]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await self.hang_up()
            await server.wait_closed()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def hang_up(self) -> None:
        """As when Tor is restarted."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, count: int) -> None:
        """Wait until so many services are published."""
        while len(self.services) != count:
            self.changed.clear()
            await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        talk = _Talk(self)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                while line := await reader.readline():
                    answer = talk.answer(line.decode().rstrip("\r\n"))
                    if answer is None:
                        await reader.read()
                    if not answer:
                        break
                    writer.write(answer)
        finally:
            self._tasks.discard(task)
            talk.ended()
            writer.close()


class _Talk:
    """One connection: what it may, and what it has published."""

    def __init__(self, tor: FakeControl) -> None:
        self._tor = tor
        self._let_in = False
        self._proof = b""
        self._own: set[str] = set()

    def answer(self, line: str) -> bytes | None:
        self._tor.heard.append(line)
        word, _, rest = line.partition(" ")
        if word in self._tor.answers:
            return self._tor.answers[word]
        if word not in ("PROTOCOLINFO", "AUTHCHALLENGE", "AUTHENTICATE") and not self._let_in:
            return b"514 Authentication required.\r\n"
        return getattr(self, f"_{word.lower()}")(rest).encode().replace(b"\n", b"\r\n")  # type: ignore[no-any-return]

    def _protocolinfo(self, _: str) -> str:
        path = str(self._tor.cookie_file).replace("\\", "\\\\").replace('"', '\\"')
        auth = f'250-AUTH METHODS={self._tor.methods} COOKIEFILE="{path}"\n'
        return f'250-PROTOCOLINFO 1\n{auth}250-VERSION Tor="0.4.9.11"\n250 OK\n'

    def _authchallenge(self, rest: str) -> str:
        nonce, own = bytes.fromhex(rest.removeprefix("SAFECOOKIE ")), os.urandom(32)
        said = self._tor.cookie + nonce + own
        self._proof = hmac.digest(_CONTROLLER, said, "sha256")
        server = hmac.digest(_SERVER, said, "sha256").hex().upper()
        return f"250 AUTHCHALLENGE SERVERHASH={server} SERVERNONCE={own.hex().upper()}\n"

    def _authenticate(self, rest: str) -> str:
        if rest.startswith('"'):
            self._let_in = re.sub(r"\\(.)", r"\1", rest[1:-1]) == self._tor.password
        else:
            self._let_in = bool(self._proof) and bytes.fromhex(rest) == self._proof
        return "250 OK\n" if self._let_in else "515 Authentication failed\n"

    def _add_onion(self, rest: str) -> str:
        key, *options = rest.split(" ")
        named: Mapping[str, str] = dict(option.split("=", 1) for option in options)
        kind, _, blob = key.partition(":")
        assert kind == "ED25519-V3"
        name = service_id(base64.b64decode(blob, validate=True))
        if name in self._tor.services:
            return "550 Onion address collision\n"
        self._tor.services[name] = named["Port"]
        self._own.add(name)
        self._tor.changed.set()
        return f"250-ServiceID={name}\n250 OK\n"

    def _del_onion(self, rest: str) -> str:
        if rest not in self._own:
            return "552 Unknown Onion Service id\n"
        self._drop(rest)
        return "250 OK\n"

    def _getinfo(self, rest: str) -> str:
        return f'250-{rest}=NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"\n250 OK\n'

    def ended(self) -> None:
        for name in list(self._own):
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._own.discard(name)
        self._tor.services.pop(name, None)
        self._tor.changed.set()
