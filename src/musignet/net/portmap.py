"""A port of the router that leads to this node: asked for at the start, renewed, and given back at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from ipaddress import ip_address

from ..errors import NetworkError, TransportError
from ..limits import PORT_MAPPING_LEASE_S, PORT_MAPPING_PAUSE_MIN_S
from .mapping import Mapping, Way
from .natpmp import NatPmp
from .upnp import Upnp

__all__ = ["PortMapper", "ways"]

logger = logging.getLogger("musignet")


def ways(word: str) -> tuple[Way, ...]:
    """Return what "natpmp", "upnp" or "auto" (both, the quick one first) stands for; nothing for "off"."""
    known: dict[str, tuple[Way, ...]] = {"natpmp": (NatPmp(),), "upnp": (Upnp(),), "auto": (NatPmp(), Upnp())}
    return known.get(word, ())


class PortMapper:
    """Keeps one port forwarded, by the first of `ways` that works.

    A router that dies without a goodbye forgets it after `PORT_MAPPING_LEASE_S`; so does one that this node leaves
    without one.
    """

    def __init__(self, ways: Sequence[Way], lease_s: int = PORT_MAPPING_LEASE_S) -> None:
        self.mapping: Mapping | None = None
        """What is forwarded now."""
        self._ways = ways
        self._lease_s = lease_s
        self._way: Way | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self, local_port: int) -> Mapping:
        """Forward a port to `local_port`, and keep it so.

        Raises: the NetworkError of the last way when none works, TransportError when the router is not on the internet
        itself; then nothing is forwarded.
        """
        mapping = await self._first(local_port)
        self._keeping = asyncio.get_running_loop().create_task(self._keep())
        return mapping

    async def stop(self) -> None:
        """Give the port back. A router that does not answer is left to its lease."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._give_back()

    async def _first(self, local_port: int) -> Mapping:
        fault: NetworkError = TransportError("no way to forward a port is configured", hint="map_port in [nat]")
        for way in self._ways:
            try:
                return await self._map(way, local_port, local_port)
            except NetworkError as error:
                fault = error
        raise fault

    async def _map(self, way: Way, local_port: int, port: int) -> Mapping:
        mapping = await way.map(local_port, port, self._lease_s)
        self._way, self.mapping = way, mapping
        if mapping.port and ip_address(mapping.host).is_global:
            return mapping
        await self._give_back()
        raise TransportError(
            f"the router's own address, {mapping.host}, is not one of the internet",
            hint="another NAT stands in front of it, where no port is forwarded: hole punching or a relay may do",
        )

    async def _give_back(self) -> None:
        way, mapping, self.mapping = self._way, self.mapping, None
        if way is not None and mapping is not None:
            try:
                await way.unmap(mapping)
            except NetworkError as error:
                logger.warning("port %d of the router stays open until its lease ends: %s", mapping.port, error)

    async def _keep(self) -> None:
        """Renew at half of each lease. A router that was away is asked again, at its port of before."""
        way, last = self._way, self.mapping
        assert way is not None
        assert last is not None
        while True:
            lease_s = min(last.lease_s, self._lease_s) if self.mapping is not None else 0
            await asyncio.sleep(max(PORT_MAPPING_PAUSE_MIN_S, lease_s / 2))
            try:
                last = await self._map(way, last.local_port, last.port)
            except NetworkError as error:
                self.mapping = None
                logger.warning("the router forwards no port at present: %s", error)
