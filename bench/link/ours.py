"""MuSigNet as a program uses it: `NetworkService`, an async handler, `await peer.send(...)`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from musignet import Limits, Message, MessageType, NetworkService, Peer, PeerInfo

from ..stats import percentile
from .common import identity, payload, resident_kib
from .plan import LIMITS


def _limits() -> Limits:
    return Limits(**LIMITS)


class Far:
    """Listens, and answers the messages that ask for it."""

    def __init__(self, folder: Path) -> None:
        self._services: list[NetworkService] = []

    async def handle(self, message: Message, peer: Peer) -> None:
        if message.payload[0]:
            await peer.send(Message(MessageType.CHAT, "far", message.payload))

    async def open(self, links: int) -> list[dict[str, Any]]:
        """Start as many nodes as there will be links: two nodes never share more than one."""
        for number in range(max(1, links)):
            service = self._node(f"far{number}")
            await service.start(self.handle)
            self._services.append(service)
        return [self._address(service) for service in self._services]

    def _node(self, name: str, **options: Any) -> NetworkService:
        return NetworkService(name, identity=identity(name), accept=lambda _: True, limits=_limits(), **options)

    def _address(self, service: NetworkService) -> dict[str, Any]:
        return asdict(service.info)

    async def resident_kib(self) -> float:
        return resident_kib()


class Near:
    """Connects and measures."""

    def __init__(self, folder: Path) -> None:
        self._infos: list[PeerInfo] = []
        self._network: NetworkService
        self._others: list[NetworkService] = []
        self._peer: Peer
        self._answered: asyncio.Future[None]

    async def handle(self, message: Message, peer: Peer) -> None:
        self._answered.set_result(None)

    async def open(self, address: list[dict[str, Any]], links: int) -> None:
        self._infos = [PeerInfo(**info | {"addresses": tuple(info["addresses"])}) for info in address]
        self._network = await self._node("near")
        peers = [await self._network.connect_to_peer(info) for info in self._infos[:links]]
        if peers:
            self._peer = peers[0]

    async def _node(self, name: str) -> NetworkService:
        service = NetworkService(name, host="", identity=identity(name), limits=_limits())
        await service.start(self.handle)
        return service

    def _expect(self) -> asyncio.Future[None]:
        self._answered = asyncio.get_running_loop().create_future()
        return self._answered

    async def round_trips(self, count: int, size: int) -> dict[str, float]:
        body, times = payload(size, answer=True), []
        for _ in range(count):
            begun = perf_counter()
            answered = self._expect()
            await self._peer.send(Message(MessageType.CHAT, "near", body))
            await answered
            times.append((perf_counter() - begun) * 1e6)
        return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}

    async def one_way(self, count: int, size: int) -> float:
        answered, body = self._expect(), payload(size, answer=False)
        begun = perf_counter()
        for _ in range(count - 1):
            await self._peer.send(Message(MessageType.CHAT, "near", body))
        await self._peer.send(Message(MessageType.CHAT, "near", payload(size, answer=True)))
        await answered
        return perf_counter() - begun

    async def burst(self, count: int, size: int) -> float:
        answered = self._expect()
        for _ in range(count - 1):
            await self._peer.send(Message(MessageType.CHAT, "near", payload(size, answer=False)))
        await self._peer.send(Message(MessageType.CHAT, "near", payload(size, answer=True)))
        await answered
        return perf_counter()

    async def broadcasts(self, count: int, size: int) -> float:
        message, times = Message(MessageType.CHAT, "near", payload(size, answer=False)), []
        for _ in range(count):
            begun = perf_counter()
            await self._network.broadcast_message(message, wait_ack=True)
            times.append((perf_counter() - begun) * 1e3)
        return percentile(times, 0.5)

    async def dials(self, count: int) -> float:
        times = []
        for _ in range(count):
            begun = perf_counter()
            peer = await self._network.connect_to_peer(self._infos[0])
            times.append((perf_counter() - begun) * 1e3)
            await peer.disconnect()
        return percentile(times, 0.5)

    async def connects(self, count: int, in_flight: int) -> float:
        """As many nodes as are in flight, because two nodes never share more than one link."""
        if not self._others:
            self._others = [await self._node(f"near{number}") for number in range(in_flight)]

        async def worker(network: NetworkService) -> None:
            for _ in range(count // in_flight):
                await (await network.connect_to_peer(self._infos[0])).disconnect()

        begun = perf_counter()
        await asyncio.gather(*(worker(network) for network in self._others))
        return perf_counter() - begun

    async def hold(self, count: int, in_flight: int) -> None:
        begun = len(self._others)
        self._others += [await self._node(f"near{begun + number}") for number in range(count)]

        async def worker(first: int) -> None:
            for network in self._others[begun + first :: in_flight]:
                await network.connect_to_peer(self._infos[0])

        await asyncio.gather(*(worker(first) for first in range(in_flight)))
