"""A TURN server that grants nonsense: it is refreshed no more often than an honest one would want."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aioice", reason="needs the extra `nat`")

from aioice import stun
from aioice.ice import StunProtocol
from endpoints import aio

from musignet.limits import TURN_LIFETIME_MIN_S, Limits
from musignet.net.nat import Servers, TurnServer
from musignet.net.transport.ice import Hole
from musignet.net.transport.turn import allocate

PATIENCE_S = 0.2


class _Server(asyncio.DatagramProtocol):
    """Lends an address to everybody, for no time at all."""

    def __init__(self) -> None:
        self.asked: list[stun.Method] = []
        self.refreshed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        self.asked.append(request.message_method)
        if request.message_method is stun.Method.REFRESH:
            self.refreshed.set()
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["LIFETIME"] = 0
        answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        answer.attributes["XOR-RELAYED-ADDRESS"] = ("11.0.113.10", 50_000)
        self._transport.sendto(bytes(answer), addr)


@aio
async def test_an_address_that_is_lent_for_no_time_is_not_asked_for_without_a_pause() -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(_Server, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    nobody = Hole(True, Servers(), (), (), Limits())
    lent = await allocate(TurnServer("127.0.0.1", port), "udp", lambda: StunProtocol(nobody), Limits())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.refreshed.wait(), PATIENCE_S)
    assert TURN_LIFETIME_MIN_S > 10 * PATIENCE_S
    await lent.close()
    assert server.asked == [stun.Method.ALLOCATE, stun.Method.REFRESH], "it is given back"
    transport.close()
