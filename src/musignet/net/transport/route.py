"""Which way out a dial takes: straight, or through a proxy. Every carrier that dials asks here.

A name that goes through the proxy is looked up at its far end, and never here: who asks for it is told to nobody else.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Protocol

from ...errors import LocalError, TransportError
from ...wire.onion import check_onion, is_onion

__all__ = ["DIRECT", "Opener", "ProxyNeeded", "Route", "is_loopback"]


class ProxyNeeded(TransportError):
    """The address can be reached through Tor only, and no proxy is configured. Nobody was asked for its name."""


class Opener(Protocol):
    """A proxy, as a route uses it: `net.transport.proxy.Proxy`."""

    async def open_socket(self, host: str, port: int, *, isolation: bytes = b"") -> socket.socket:
        """Return a connected, non-blocking socket. Whoever gets it closes it."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Args:
    proxy:      through which onion services are reached; None for none.
    everything: whether everybody else is, too. Then nobody is dialled straight.
    fronted:    whether an onion service leads to our listener: who comes from this machine comes through it.
    """

    proxy: Opener | None = None
    everything: bool = False
    fronted: bool = False

    def __post_init__(self) -> None:
        if self.everything and self.proxy is None:
            raise LocalError("everything through a proxy, and no proxy", hint="set socks5 in [proxy] of config.toml")

    def through(self, host: str) -> Opener | None:
        """Return the proxy that a host is reached through, or None for straight.

        Raises: ProxyNeeded for an onion service without a proxy, TransportError for one that cannot exist.
        """
        if not is_onion(host):
            return self.proxy if self.everything else None
        check_onion(host)
        if self.proxy is None:
            raise ProxyNeeded(
                f"{host} is an onion service", hint='run Tor, and set socks5 = "127.0.0.1:9050" in [proxy]'
            )
        return self.proxy

    async def way(self, host: str, port: int, peer: bytes = b"") -> dict[str, Any]:
        """Return the arguments that get `loop.create_connection` to a host: where to dial, or a socket opened already.

        Args:   peer - whom we hope to find there: each has a path of its own through Tor.
        Raises: as `through`; ConnectionError and Timeout of the proxy.
        """
        proxy = self.through(host)
        if proxy is None:
            return {"host": host, "port": port}
        return {"sock": await proxy.open_socket(host, port, isolation=peer)}


def is_loopback(host: str) -> bool:
    """Return whether a host is an address of this machine; no name is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


DIRECT: Final = Route()
