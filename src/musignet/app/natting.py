"""What [nat] in config.toml asks for: hole punching as a carrier, and a port of the router that leads here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from ipaddress import ip_address

from ..errors import LocalError, NetworkError
from ..net.nat import Servers, TurnServer
from ..net.portmap import PortMapper, ways
from ..net.transport.carriers import MakeCarriers
from ..node.addresses import parse_address
from .config import Config

__all__ = ["Forwarding", "announced", "punching", "servers"]

logger = logging.getLogger("musignet")


def servers(config: Config) -> Servers:
    """Return the STUN and TURN servers that are configured."""
    stun = [parse_address(one) for one in config.nat_stun]
    turn = [parse_address(one) for one in config.nat_turn]
    return Servers(
        tuple((one.host, one.port) for one in stun),
        tuple(
            TurnServer(one.host, one.port, config.nat_turn_username, config.nat_turn_password, one.carrier == "tls")
            for one in turn
        ),
    )


def punching(config: Config) -> Sequence[MakeCarriers]:
    """Return what makes the carrier by hole punching, where it is on. Raises LocalError without the extra `nat`."""
    if not config.nat_punch:
        return ()
    try:
        from ..net.transport.punched import punching as carrier
    except ImportError as error:
        raise LocalError(f"[nat] punch needs {error.name}", hint="pip install 'musignet[nat]'") from error
    return (carrier(servers(config)),)


def announced(config: Config) -> tuple[str, ...]:
    """Return the addresses that every peer is told."""
    return ("ice:",) if config.nat_punch else ()


class Forwarding:
    """Asks the router for a port, in the background: a router that is slow or deaf keeps no node from starting."""

    def __init__(self, word: str) -> None:
        self._ways = ways(word)
        self._mapper: PortMapper | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where the internet reaches this node by the router's grace; empty while it does not."""
        mapping = self._mapper.mapping if self._mapper is not None else None
        return mapping.address if mapping is not None else ""

    def start(self, host: str, port: int) -> None:
        """Begin. Raises LocalError where nothing of the internet could arrive anyway."""
        if not self._ways:
            return
        if not port or not host or (_is_ip(host) and ip_address(host).is_loopback):
            raise LocalError("[nat] map_port forwards a port to nobody", hint='host = "0.0.0.0" in [listen]')
        self._mapper = PortMapper(self._ways)
        self._starting = asyncio.get_running_loop().create_task(self._start(self._mapper, port))

    async def _start(self, mapper: PortMapper, port: int) -> None:
        try:
            mapping = await mapper.start(port)
        except NetworkError as error:
            logger.warning("the router forwards no port: %s", error)
        else:
            logger.info("%s forwards %s to this node", mapping.way, mapping.address)

    async def stop(self) -> None:
        """Give the port back."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._mapper is not None:
            await self._mapper.stop()


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
