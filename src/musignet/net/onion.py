"""An onion service for this node, through Tor's control port: there while we are connected to it, and no longer.

Tor drops the service itself when the connection ends, however it ends; `stop` says so before that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from secrets import token_bytes
from typing import Final

from ..crypto.onionkey import OnionKey
from ..errors import ConnectionError, IoError, LocalError, NetworkError, Timeout
from ..limits import (
    ONION_RETRY_MAX_S,
    ONION_RETRY_MIN_S,
    ONION_STREAMS_MAX,
    ONION_VIRTUAL_PORT,
    TOR_CONTROL_TIMEOUT_S,
    TOR_REPLY_MAX_BYTES,
)
from ..text import safe
from ..wire import torcontrol
from ..wire.onion import onion_host
from ..wire.torcontrol import Challenge, Offered, Replies, Reply, TorFault

__all__ = ["OnionService", "TorControl", "TorRefused", "TorUnreachable", "check_control"]

logger = logging.getLogger("musignet")


class TorUnreachable(ConnectionError):
    """Nobody listens where Tor's control port should be, or the connection to it broke."""


class TorRefused(ConnectionError):
    """Tor does not let us in, or does not do what was asked."""


def check_control(place: str) -> str:
    """Return `place` when it is `IP:PORT` of this machine or the path of a Unix socket. Raises LocalError.

    What is said there is not encrypted, and the service's key is part of it.
    """
    host, _, port = place.rpartition(":")
    with suppress(ValueError):
        if place.startswith("/") or (ip_address(host.strip("[]")).is_loopback and 0 < int(port) <= 65_535):
            return place
    raise LocalError("not Tor's control port", expected="127.0.0.1:9051, or /run/tor/control", got=place)


class TorControl:
    """One connection to Tor's control port. Ask one thing after the other.

    Args:
        place:    see `check_control`.
        password: where Tor wants one (HashedControlPassword): whoever listens there hears it. Otherwise its cookie is
                  used, which both sides prove to have. A port that lets anybody in is refused: it may be anybody's.
        timeout_s: for each answer.
    """

    def __init__(self, place: str, password: str = "", *, timeout_s: float = TOR_CONTROL_TIMEOUT_S) -> None:
        self._place = check_control(place)
        self._password = password
        self._timeout_s = timeout_s
        self._replies = Replies()
        self._waiting: list[Reply] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Open the connection, and be let in. Raises TorUnreachable, TorRefused, TorFault, Timeout, IoError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await self._open()
        except TimeoutError:
            raise self._silent("connect") from None
        except OSError as error:
            raise TorUnreachable(
                f"no Tor at {safe(self._place, 80)}", got=error.strerror or error,
                hint='is Tor running, with "ControlPort 9051" and "CookieAuthentication 1" in its torrc?',
            ) from None  # fmt: skip
        await self._log_in()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._place.startswith("/"):
            return await asyncio.open_unix_connection(self._place)
        host, _, port = self._place.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))

    async def _log_in(self) -> None:
        offered = Offered.of(await self._answer(torcontrol.PROTOCOLINFO))
        proof: bytes | str
        if "HASHEDPASSWORD" in offered.methods and self._password:
            proof = self._password
        elif "SAFECOOKIE" in offered.methods:
            nonce, cookie = token_bytes(32), await asyncio.to_thread(_cookie, Path(offered.cookie_file))
            answer = Challenge.of(await self._answer(torcontrol.challenge(nonce)))
            proof = torcontrol.cookie_proof(cookie, nonce, answer)
        else:
            raise TorRefused(
                "Tor's control port wants another way in", expected="its cookie, or the password in [onion] passfile",
                got=", ".join(sorted(offered.methods)), hint='put "CookieAuthentication 1" into its torrc',
            )  # fmt: skip
        await self.ask("log in", torcontrol.authenticate(proof))

    async def ask(self, doing: str, command: str) -> Reply:
        """Return the good answer to a command. Raises TorRefused, and as `connect`."""
        reply = await self._answer(command)
        if not reply.good:
            raise TorRefused(f"Tor does not {doing}", got=f"{reply.code} {reply.lines[-1]}")
        return reply

    async def _answer(self, command: str) -> Reply:
        assert self._writer is not None
        self._writer.write(command.encode("ascii") + b"\r\n")
        try:
            async with asyncio.timeout(self._timeout_s):
                while not self._waiting:
                    await self._read()
        except TimeoutError:
            raise self._silent(command.partition(" ")[0]) from None
        except OSError as error:
            if isinstance(error, NetworkError):
                raise
            raise self._broken(error.strerror or str(error)) from None
        return self._waiting.pop(0)

    async def _read(self) -> None:
        data = await self._reader.read(TOR_REPLY_MAX_BYTES)
        if not data:
            raise self._broken("it was closed")
        self._waiting += self._replies.receive_untrusted(data)

    async def lost(self) -> None:
        """Return when the connection is gone. Whatever Tor says until then is passed over."""
        with suppress(NetworkError, OSError):
            while True:
                await self._read()
                self._waiting.clear()

    async def close(self) -> None:
        """Hang up: what was published on this connection is gone with it."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    def _silent(self, doing: str) -> Timeout:
        return Timeout(f"{doing}: no answer from Tor at {safe(self._place, 80)} within {self._timeout_s:g} s")

    def _broken(self, why: str) -> TorUnreachable:
        return TorUnreachable(f"the connection to Tor at {safe(self._place, 80)} broke", got=why)


def _cookie(path: Path) -> bytes:
    """Read Tor's cookie. Who listens on the port names the file: it is read only where it can be one."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        with open(fd, "rb") as file:
            about = os.fstat(fd)
            right = stat.S_ISREG(about.st_mode) and about.st_size == torcontrol.COOKIE_BYTES
            cookie = file.read(torcontrol.COOKIE_BYTES) if right else b""
    except (OSError, ValueError) as error:
        raise IoError(
            f"cannot read Tor's cookie {safe(path, 120)}", got=getattr(error, "strerror", None) or error,
            hint="may this user read it? on Debian: be in the group debian-tor",
        ) from None  # fmt: skip
    if len(cookie) != torcontrol.COOKIE_BYTES:
        raise TorFault("no cookie file is named", expected="a file of 32 bytes", got=safe(path, 120))
    return cookie


class OnionService:
    """Publishes one service, and again when Tor has restarted.

    Args:
        control: makes a connection to Tor.
        key:     whose address it is.
        target:  `IP:PORT` where this node listens.
        retry_s: the first pause before it is published again; each further one is twice as long.
    """

    def __init__(
        self, control: Callable[[], TorControl], key: OnionKey, target: str, *, retry_s: float = ONION_RETRY_MIN_S
    ) -> None:
        self._make = control
        self._retry_s = retry_s
        self._key = key
        self._target = target
        self._control: TorControl | None = None
        self._staying: asyncio.Task[None] | None = None
        self.host: Final = onion_host(key.public)
        self.address: Final = f"{self.host}:{ONION_VIRTUAL_PORT}"

    @property
    def published(self) -> bool:
        """Whether Tor has the service now. Until others find it takes half a minute more."""
        return self._control is not None

    async def start(self) -> None:
        """Publish. Raises what `TorControl` raises; then nothing is published, and nothing is tried again."""
        await self._publish()
        self._staying = asyncio.get_running_loop().create_task(self._stay())

    async def stop(self) -> None:
        """Take the service back. Doing it twice is harmless."""
        if self._staying is not None:
            self._staying.cancel()
            await asyncio.gather(self._staying, return_exceptions=True)
            self._staying = None
        control, self._control = self._control, None
        if control is not None:
            with suppress(NetworkError):
                await control.ask("end the onion service", torcontrol.del_onion(self.host))
            await control.close()

    async def _publish(self) -> None:
        control = self._make()
        try:
            await control.connect()
            command = torcontrol.add_onion(self._key.expanded(), ONION_VIRTUAL_PORT, self._target, ONION_STREAMS_MAX)
            reply = await control.ask("publish the onion service", command)
            if f"ServiceID={self.host.removesuffix('.onion')}" not in reply.lines:
                raise TorFault("another service than ours was published", expected=self.host, got=reply.lines[0])
        except BaseException:
            await control.close()
            raise
        self._control = control

    async def _stay(self) -> None:
        while True:
            if self._control is not None:
                await self._control.lost()
                await self._control.close()
                self._control = None
                logger.warning("the connection to Tor is gone, and the onion service with it: it is made again")
            await self._again()

    async def _again(self) -> None:
        pause_s = self._retry_s
        while self._control is None:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ONION_RETRY_MAX_S)
            try:
                await self._publish()
            except NetworkError as error:
                logger.info("no onion service yet: %s", error)
        logger.info("the onion service is there again: %s", self.address)
