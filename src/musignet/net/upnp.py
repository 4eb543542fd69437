"""UPnP port forwarding, asked for by a process of its own (`upnp_helper`), which has a deadline and no secrets."""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from secrets import randbelow
from typing import Any, Final

from ..errors import Timeout, TransportError
from ..limits import PORT_MAPPING_ANSWER_MAX_BYTES, PORT_MAPPING_S
from ..text import safe
from .mapping import Mapping

__all__ = ["Upnp"]

_HELPER: Final = Path(__file__).with_name("upnp_helper.py")
_TAKEN: Final = "ConflictInMappingEntry"
_HIGH_PORTS: Final = (49_152, 16_384)
"""The first of the dynamic ports, and how many there are."""


class Upnp:
    """A way to forward a port. See `Way`."""

    name = "UPnP"

    def __init__(self, helper: Path = _HELPER) -> None:
        self._helper = helper

    async def look(self) -> str:
        """Return the router's address on the internet."""
        return _host(await self._ask("look"))

    async def map(self, local_port: int, port: int, lease_s: int) -> Mapping:
        try:
            answer = await self._ask("map", local_port, port, lease_s)
        except TransportError as error:
            if _TAKEN not in error.text:
                raise
            port = _HIGH_PORTS[0] + randbelow(_HIGH_PORTS[1])
            answer = await self._ask("map", local_port, port, lease_s)
        return Mapping(self.name, _host(answer), port, local_port, lease_s)

    async def unmap(self, mapping: Mapping) -> None:
        await self._ask("unmap", mapping.port)

    async def _ask(self, verb: str, *numbers: int) -> dict[str, Any]:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", str(self._helper), verb, *map(str, numbers), stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe, stderr=pipe, limit=PORT_MAPPING_ANSWER_MAX_BYTES,
            )  # fmt: skip
        except OSError as error:
            raise TransportError(f"UPnP: {error.strerror}") from None
        try:
            async with asyncio.timeout(PORT_MAPPING_S):
                said, complaint = await asyncio.gather(_heard(process, 1), _heard(process, 2))
                await process.communicate()  # as `wait`, and takes what nobody reads
        except TimeoutError:
            raise Timeout(f"no router answered UPnP within {PORT_MAPPING_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        if process.returncode:
            raise TransportError(f"UPnP: {_last_line(complaint)}")
        return _answer(said)


async def _heard(process: asyncio.subprocess.Process, number: int) -> bytes:
    """Return what it says on one of its outputs. One that says too much says no more."""
    stream = process.stdout if number == 1 else process.stderr
    assert stream is not None
    heard = bytearray()
    while more := await stream.read(PORT_MAPPING_ANSWER_MAX_BYTES):
        heard += more
        if len(heard) > PORT_MAPPING_ANSWER_MAX_BYTES and process.returncode is None:
            process.kill()
            break
    return bytes(heard)


def _last_line(complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    return safe(lines[-1], 120) if lines else "it failed without a word"


def _answer(said: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise TransportError("UPnP: an answer that cannot be read", got=said[:60])
    return answer


def _host(answer: dict[str, Any]) -> str:
    try:
        return str(IPv4Address(str(answer.get("host"))))
    except AddressValueError:
        raise TransportError("UPnP: the router does not say its address", got=answer.get("host")) from None
