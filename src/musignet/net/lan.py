"""The local network: this machine's interfaces, and the UDP sockets that all nodes on it share.

255.255.255.255 leaves by one interface only, so each interface gets the broadcast of its own network, and a multicast.
Every socket sets SO_REUSEADDR: then each of several nodes on one machine gets every broadcast and multicast. A unicast
would reach one of them, nobody knows which: none is ever sent.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final, TypeAlias

import ifaddr

from ..errors import IoError
from ..limits import BEACON_MAX_BYTES, BEACONS_PER_WAKE, INTERFACES_MAX
from ..node.sightings import Network

__all__ = ["ALL", "GROUP_4", "GROUP_6", "LAN", "Heard", "Interface", "Lan", "Way", "interfaces"]

ALL: Final = "all"
"""Stands for every interface but the loopback."""
LAN: Final = "lan"
"""Stands for the private addresses of those: homes and offices, and not the network that a rented server is on."""

GROUP_4: Final = "239.255.87.37"
"""Administratively scoped (RFC 2365): routers at the edge of a site do not pass it on; TTL 1 keeps it on the link."""
GROUP_6: Final = "ff02::4d75:5369"
"""Link-local scope: no router passes it on."""

_ONE_HOP: Final = 1
_POINT_TO_POINT: Final = 31


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface with its addresses."""

    name: str
    index: int
    v4: tuple[IPv4Interface, ...]
    v6: tuple[IPv6Interface, ...]

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Its addresses, without their networks."""
        return (*(one.ip for one in self.v4), *(one.ip for one in self.v6))

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that it is on."""
        return (*(one.network for one in self.v4), *(one.network for one in self.v6))

    @property
    def is_loopback(self) -> bool:
        """Whether it reaches this machine alone."""
        return bool(self.addresses) and all(one.is_loopback for one in self.addresses)

    def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether an address is one of this interface; the unspecified one is everybody's."""
        return address.is_unspecified or address in self.addresses


@dataclass(frozen=True, slots=True)
class Way:
    """One way out of this machine: an interface, and where to send on it."""

    interface: Interface
    name: str
    """`broadcast`, `multicast` or `multicast6`."""
    target: str
    via: str
    """The address to send from; of a `multicast6`, the interface's number says it."""

    def __str__(self) -> str:
        return f"{self.name} on {self.interface.name}"


Heard: TypeAlias = Callable[[bytes, str, str], None]
"""Called with a datagram, the address it came from, and `IPv4` or `IPv6`."""


def interfaces(names: Iterable[str]) -> list[Interface]:
    """Return the interfaces with these names that have addresses now; for `all` and `lan`, see there."""
    wanted = frozenset(names)
    found = (_interface(adapter) for adapter in ifaddr.get_adapters())
    chosen = (_chosen(one, wanted) for one in found)
    return sorted((one for one in chosen if one.networks), key=lambda one: one.index)[:INTERFACES_MAX]


def _chosen(one: Interface, wanted: frozenset[str]) -> Interface:
    """Return as much of an interface as is wanted."""
    if one.name in wanted or (ALL in wanted and not one.is_loopback):
        return one
    if LAN not in wanted or one.is_loopback:
        return replace(one, v4=(), v6=())
    return replace(one, v4=tuple(filter(_is_private, one.v4)), v6=tuple(filter(_is_private, one.v6)))


def _is_private(one: IPv4Interface | IPv6Interface) -> bool:
    return one.is_private or one.is_link_local


def _interface(adapter: ifaddr.Adapter) -> Interface:
    v4 = [IPv4Interface(f"{one.ip}/{one.network_prefix}") for one in adapter.ips if one.is_IPv4]
    v6 = [IPv6Interface(f"{one.ip[0]}/{one.network_prefix}") for one in adapter.ips if one.is_IPv6]
    return Interface(adapter.nice_name, adapter.index or 0, tuple(v4), tuple(v6))


class Lan:
    """The shared sockets of one port. Used from the event loop.

    `problems` has what the system said where something could not be sent or joined, by the way; a success clears it.

    Raises: IoError from `open` when the port cannot be had.
    """

    def __init__(self, port: int, heard: Heard) -> None:
        self.port = port
        self._heard = heard
        self._sockets: dict[int, socket.socket] = {}
        self._joined: set[tuple[int, int]] = set()
        self.problems: dict[str, str] = {}

    def open(self) -> None:
        """Bind, and begin to hear."""
        loop = asyncio.get_running_loop()
        try:
            self._sockets[4] = _bound(socket.AF_INET, ("", self.port))
            self.port = self._sockets[4].getsockname()[1]
            self._sockets[6] = _bound(socket.AF_INET6, ("::", self.port))
        except OSError as error:
            if 4 not in self._sockets:
                hint = "another program may have this port for itself; see [discovery] port in config.toml"
                raise IoError(f"cannot listen on UDP port {self.port}: {error.strerror}", hint=hint) from error
            self.problems["IPv6"] = str(error.strerror)
        for family, one in self._sockets.items():
            loop.add_reader(one.fileno(), self._readable, one, f"IPv{family}")

    def close(self) -> None:
        """Hear nothing more. Doing it twice is harmless."""
        for one in self._sockets.values():
            asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()
        self._sockets.clear()
        self._joined.clear()

    def join(self, found: Sequence[Interface]) -> None:
        """Hear the multicasts on these interfaces, too. One that has been joined stays so while it is there; one that
        could not be is tried again the next time."""
        here = {(family, one.index) for one in found for family in (4, 6)}
        self._joined &= here  # an interface that comes back is joined again
        for one in found:
            if one.v4:
                self._join(4, one, socket.inet_aton(GROUP_4) + one.v4[0].ip.packed)
            if one.v6:
                self._join(6, one, socket.inet_pton(socket.AF_INET6, GROUP_6) + struct.pack("@I", one.index))

    def _join(self, family: int, one: Interface, group: bytes) -> None:
        here = self._sockets.get(family)
        if here is None or (family, one.index) in self._joined:
            return
        what, (level, option) = f"hearing IPv{family} multicast on {one.name}", _JOIN[family]
        try:
            here.setsockopt(level, option, group)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # it came back, and the kernel had not forgotten it
                self.problems[what] = str(error.strerror)
                return
        self.problems.pop(what, None)
        self._joined.add((family, one.index))

    def ways(self, one: Interface, families: Iterable[int] = (4, 6)) -> list[Way]:
        """Return the ways out by an interface."""
        found = []
        if 4 in families:
            for address in one.v4:
                if address.network.prefixlen < _POINT_TO_POINT:
                    target = str(address.network.broadcast_address)
                    found.append(Way(one, "broadcast", target, str(address.ip)))
            found += [Way(one, "multicast", GROUP_4, str(address.ip)) for address in one.v4[:1]]
        if 6 in families and one.v6 and 6 in self._sockets:
            found.append(Way(one, "multicast6", GROUP_6, ""))
        return found

    def send(self, datagram: bytes, way: Way) -> bool:
        """Send one datagram. Returns whether the system took it; if not, `problems` says why."""
        try:
            self._send(datagram, way)
        except OSError as error:
            self.problems[str(way)] = error.strerror or str(error)
            return False
        self.problems.pop(str(way), None)
        return True

    def _send(self, datagram: bytes, way: Way) -> None:
        if way.name == "multicast6":
            self._sockets[6].sendto(datagram, (way.target, self.port, 0, way.interface.index))
            return
        if way.name == "multicast":
            self._sockets[4].setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(way.via))
        self._sockets[4].sendto(datagram, (way.target, self.port))

    def _readable(self, here: socket.socket, name: str) -> None:
        """Take what the kernel has, so many at once; the rest waits there, and is dropped there in a flood."""
        for _ in range(BEACONS_PER_WAKE):
            try:
                data, address = here.recvfrom(BEACON_MAX_BYTES + 1)
            except OSError:  # nothing more, or an ICMP error of what was sent before
                return
            self._heard(data, address[0], name)


_JOIN: Final = {
    4: (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP),
    6: (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP),
}


def _bound(family: int, address: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "darwin":  # BSD's SO_REUSEADDR does not share a port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _ONE_HOP)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _ONE_HOP)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _ONE_HOP)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
