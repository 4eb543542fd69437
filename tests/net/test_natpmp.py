"""NAT-PMP: what a router may answer, and what of it is believed."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoints import aio

from musignet.errors import ConnectionError, IoError, NetworkError, TransportError
from musignet.net.mapping import Mapping
from musignet.net.natpmp import NatPmp, default_router, read_address, read_mapping

HOST = bytes((11, 0, 113, 10))
ADDRESS = struct.pack(">BBHI", 0, 128, 0, 7) + HOST
MAPPED = struct.pack(">BBHIHHI", 0, 130, 0, 7, 8737, 9000, 3600)


class Router(asyncio.DatagramProtocol):
    """Answers each request with what `reply` makes of it; None is silence."""

    def __init__(self, reply: Callable[[bytes], bytes | None]) -> None:
        self.reply = reply
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked.append(data)
        answer = self.reply(data)
        if answer is not None:
            self.transport.sendto(answer, addr)


async def router(reply: Callable[[bytes], bytes | None]) -> tuple[Router, NatPmp]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Router(reply), local_addr=("127.0.0.1", 0))
    return protocol, NatPmp("127.0.0.1", transport.get_extra_info("sockname")[1])


@aio
async def test_a_port_is_forwarded_and_given_back() -> None:
    there, way = await router(lambda request: ADDRESS if request[1] == 0 else MAPPED)
    mapping = await way.map(8737, 8737, 3600)
    assert mapping == Mapping("NAT-PMP", "11.0.113.10", 9000, 8737, 3600)
    assert mapping.address == "11.0.113.10:9000"
    await way.unmap(mapping)
    assert there.asked == [
        b"\0\0",
        struct.pack(">BBHHHI", 0, 2, 0, 8737, 8737, 3600),
        struct.pack(">BBHHHI", 0, 2, 0, 8737, 0, 0),
    ]
    there.transport.close()


@aio
async def test_a_lost_request_is_sent_again() -> None:
    there, way = await router(lambda _: ADDRESS if len(there.asked) == 3 else None)
    assert await way.look() == "11.0.113.10"
    assert len(there.asked) == 3
    there.transport.close()


@aio
async def test_nobody_at_the_port_is_a_connection_error() -> None:
    there, way = await router(lambda _: None)
    there.transport.close()
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError, match="does not answer NAT-PMP"):
        await way.look()


@aio
async def test_no_way_to_the_router_is_a_connection_error() -> None:
    """A renewal that ended otherwise would be the last."""
    with pytest.raises(ConnectionError, match="does not answer NAT-PMP"):
        await NatPmp("255.255.255.255").look()  # the system wants to be asked nicely for that one


BAD = {
    "nothing": b"",
    "one byte": b"\0",
    "another version": b"\2" + ADDRESS[1:],
    "a request": b"\0\0",
    "another verb": ADDRESS[:1] + b"\x82" + ADDRESS[2:],
    "cut": ADDRESS[:-1],
    "longer": ADDRESS + b"\0",
    "a refusal": b"\0\x80\0\2" + ADDRESS[4:],
    "a short refusal": b"\0\x80\0\2",
    "a fault that nobody knows": b"\0\x80\xff\xff" + ADDRESS[4:],
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_an_answer_that_is_none_is_a_typed_error(answer: bytes) -> None:
    with pytest.raises(TransportError, match="router"):
        read_address(answer)


@pytest.mark.parametrize(
    "answer", [MAPPED[:-1], MAPPED + b"\0", MAPPED[:1] + b"\x81" + MAPPED[2:], ADDRESS, b"\0\x82\0\4"],
)  # fmt: skip
def test_a_mapping_that_is_none_is_a_typed_error(answer: bytes) -> None:
    with pytest.raises(TransportError, match="router"):
        read_mapping(answer, 8737)


def test_a_mapping_of_another_port_is_refused() -> None:
    with pytest.raises(TransportError, match="another port"):
        read_mapping(MAPPED, 8738)
    assert read_mapping(MAPPED, 8737) == (9000, 3600)


def test_the_default_router_is_the_systems(tmp_path: Path) -> None:
    table = tmp_path / "route"
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    table.write_text(f"{head}eth0 0001000A 00000000 0001\neth0 00000000 0100A8C0 0003\n")
    assert default_router(table) == "192.168.0.1"
    table.write_text(head)
    with pytest.raises(IoError, match="no default router"):
        default_router(table)
    with pytest.raises(IoError, match="UPnP looks"):
        default_router(tmp_path / "none")


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(TransportError, NetworkError)
