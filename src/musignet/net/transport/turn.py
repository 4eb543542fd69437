"""An address lent by a TURN server: aioice's client, with an end to every wait and no task per datagram."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, cast

from aioice import stun, turn
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import StunProtocol

from ...limits import TURN_LIFETIME_MIN_S, Limits
from ..nat import TurnServer

__all__ = ["MALFORMED", "allocate", "resolve"]

MALFORMED = (ValueError, KeyError, IndexError, AssertionError, struct.error)
"""What aioice raises where it reads a message that is none."""


async def resolve(host: str, port: int) -> tuple[str, int]:
    """Return the numeric address of a server. Raises OSError."""
    try:
        return str(ip_address(host)), port
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        return cast(tuple[str, int], found[0][4][:2])


async def allocate(
    server: TurnServer, by: str, factory: Callable[[], StunProtocol], limits: Limits, component: int = 1
) -> StunProtocol:
    """Return a protocol on an address that `server` lends, reached over `by`: one of its `ways`.

    Raises: OSError, or aioice's TransactionError with what the server answered.
    """
    inner = await _client(server, by)
    try:
        allocation = _Allocation(inner, limits.ice_close_s)
        protocol = factory()
        await allocation._connect(protocol)
    except BaseException:
        inner.transport.close()
        raise
    host, port = allocation.get_extra_info("sockname")
    mapped = allocation.get_extra_info("related_address")
    protocol.local_candidate = Candidate(
        foundation=candidate_foundation("relay", "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "relay"),
        host=host,
        port=port,
        type="relay",
        related_address=mapped[0],
        related_port=mapped[1],
    )
    return protocol


async def _client(server: TurnServer, by: str) -> turn.TurnClientProtocol:
    loop = asyncio.get_running_loop()
    place = await resolve(server.host, server.port)
    kind = _UdpClient if by == "udp" else _TcpClient

    def make() -> Any:
        return kind(
            place,
            username=server.username or None,
            password=server.password or None,
            lifetime=turn.DEFAULT_ALLOCATION_LIFETIME,
            channel_refresh_time=turn.DEFAULT_CHANNEL_REFRESH_TIME,
        )

    if by != "udp":
        secured, name = (ssl.create_default_context(), server.host) if by == "tls" else (None, None)
        _, stream = await loop.create_connection(make, *place, ssl=secured, server_hostname=name)
        return cast(turn.TurnClientProtocol, stream)
    transport, protocol = await loop.create_datagram_endpoint(make, remote_addr=place)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
    return cast(turn.TurnClientProtocol, protocol)


class _Client(turn.TurnClientMixin):
    """Not put out by a message that is none, nor kept busy by an address that is lent for no time at all."""

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        with suppress(*MALFORMED):
            super().datagram_received(data, addr)

    async def request_with_retry(self, request: stun.Message) -> tuple[stun.Message, tuple[str, int]]:
        answer, source = await super().request_with_retry(request)
        if "LIFETIME" in answer.attributes:
            answer.attributes["LIFETIME"] = max(TURN_LIFETIME_MIN_S, answer.attributes["LIFETIME"])
        return answer, source


class _UdpClient(_Client, turn.TurnClientUdpProtocol):
    """Over UDP."""


class _TcpClient(_Client, turn.TurnClientTcpProtocol):
    """Over TCP."""


class _Allocation(turn.TurnTransport):
    """aioice makes a task for each datagram, and waits a minute for a server that does not take its address back."""

    def __init__(self, inner: turn.TurnClientProtocol, close_s: float) -> None:
        super().__init__(inner)
        self._inner = inner
        self._close_s = close_s
        self._returning: asyncio.Task[None] | None = None

    def close(self) -> None:
        if self._returning is None:
            self._returning = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(self._close_s):
                await self._close()
        except TimeoutError:
            pass  # the server finds out when nobody refreshes: its socket is closed

    def sendto(self, data: bytes, addr: tuple[str, int]) -> None:
        inner = self._inner
        if self._returning is not None or inner.transport.is_closing():
            return
        channel = inner.peer_to_channel.get(addr)
        if channel is not None and time.time() <= inner.channel_refresh_at[channel]:
            inner._send(struct.pack("!HH", channel, len(data)) + data)
        else:
            super().sendto(data, addr)  # binds a channel first
