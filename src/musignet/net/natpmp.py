"""NAT-PMP (RFC 6886): two datagrams with the router that forward a port. Nothing is asked of any other machine."""

from __future__ import annotations

import asyncio
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from ..errors import ConnectionError, IoError, Timeout, TransportError
from ..limits import PORT_MAPPING_S
from .mapping import Mapping

__all__ = ["NatPmp", "default_router", "read_address", "read_mapping"]

PORT: Final = 5351
_VERSION: Final = 0
_ANSWER: Final = 128
_ASK_ADDRESS: Final = 0
_MAP_TCP: Final = 2
_FIRST_PAUSE_S: Final = 0.25
_FAULTS: Final = {
    1: "it speaks another version",
    2: "it is switched off, or does not allow it",
    3: "it has no address of the internet itself",
    4: "it has no port left",
    5: "it does not know this request",
}


def read_address(answer: bytes) -> str:
    """Return the router's address on the internet. Raises TransportError with what it answered, and for junk."""
    _require(answer, _ASK_ADDRESS, 12)
    return str(IPv4Address(answer[8:12]))


def read_mapping(answer: bytes, local_port: int) -> tuple[int, int]:
    """Return the port that is forwarded and for how many seconds. Raises TransportError."""
    _require(answer, _MAP_TCP, 16)
    inside, outside, lease_s = struct.unpack(">HHI", answer[8:16])
    if inside != local_port:
        raise TransportError("the router forwards another port", expected=local_port, got=inside)
    return outside, lease_s


def _require(answer: bytes, verb: int, length: int) -> None:
    if len(answer) < 4 or answer[0] != _VERSION or answer[1] != _ANSWER + verb:
        raise TransportError("the router does not speak NAT-PMP", got=answer[:16].hex())
    (result,) = struct.unpack(">H", answer[2:4])
    if result or len(answer) != length:
        raise TransportError(f"the router refuses: {_FAULTS.get(result, f'fault {result}')}")


def default_router(table: Path = Path("/proc/net/route")) -> str:
    """Return the router that packets to the internet go to. Raises IoError where the system does not say."""
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except OSError as error:
        raise IoError(f"{error.strerror}: {table}", hint="NAT-PMP finds its router on Linux only; UPnP looks") from None
    for line in lines:
        fields = line.split()
        if fields[1] == "00000000" and fields[2] != "00000000":
            return str(IPv4Address(int.from_bytes(bytes.fromhex(fields[2]), "little")))
    raise IoError("this machine has no default router", hint="is it connected to a network?")


class NatPmp:
    """A way to forward a port. See `Way`."""

    name = "NAT-PMP"

    def __init__(self, router: str = "", port: int = PORT) -> None:
        self._router = router
        self._port = port

    async def look(self) -> str:
        """Return the router's address on the internet."""
        return read_address(await self._ask(bytes((_VERSION, _ASK_ADDRESS))))

    async def map(self, local_port: int, port: int, lease_s: int) -> Mapping:
        host = await self.look()
        request = struct.pack(">BBHHHI", _VERSION, _MAP_TCP, 0, local_port, port, lease_s)
        outside, granted_s = read_mapping(await self._ask(request), local_port)
        return Mapping(self.name, host, outside, local_port, granted_s)

    async def unmap(self, mapping: Mapping) -> None:
        await self._ask(struct.pack(">BBHHHI", _VERSION, _MAP_TCP, 0, mapping.local_port, 0, 0))

    async def _ask(self, request: bytes) -> bytes:
        """Send a request, again after growing pauses, and return the first answer of that router."""
        loop = asyncio.get_running_loop()
        router = self._router or default_router()
        answer: asyncio.Future[bytes] = loop.create_future()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Conversation(answer), remote_addr=(router, self._port)
            )
            try:
                async with asyncio.timeout(PORT_MAPPING_S):
                    return await _repeated(transport, request, answer)
            finally:
                transport.close()
        except TimeoutError:
            raise Timeout(f"the router at {router} does not answer NAT-PMP") from None
        except OSError as error:
            raise ConnectionError(f"the router at {router} does not answer NAT-PMP: {error.strerror}") from None


async def _repeated(transport: asyncio.DatagramTransport, request: bytes, answer: asyncio.Future[bytes]) -> bytes:
    pause_s = _FIRST_PAUSE_S
    while not answer.done():
        transport.sendto(request)
        await asyncio.wait((answer,), timeout=pause_s)
        pause_s *= 2
    return answer.result()


class _Conversation(asyncio.DatagramProtocol):
    """Its socket is connected: only the router's own datagrams arrive."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)
