"""Where a peer is reached, as text, and how good a path it promises.

    HOST:PORT  tcp://HOST:PORT     Noise over TCP                  ws://HOST[:PORT][/PATH]  wss://...   a relay
    tls://HOST:PORT                TLS 1.3                         ice:                    hole punching

An IPv6 host stands in brackets. The one place that reads such texts: configuration, invites, books and peers use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from ..errors import LocalError
from ..limits import ADDRESS_MAX_CHARS
from ..text import safe

__all__ = [
    "HOLE",
    "PORT_MAX",
    "TURN",
    "UNKNOWN_PATH",
    "Address",
    "Path",
    "Rank",
    "address_text",
    "parse_address",
    "parse_listen",
    "path_by",
    "promised",
    "readable_untrusted",
]


class Rank(IntEnum):
    """How good a path is: the lower, the fewer strangers carry it."""

    LAN = 0
    """This machine or its network: a private, link-local or loopback address."""
    DIRECT = 1
    """An address of the internet."""
    PUNCHED = 2
    """Through two NATs, by hole punching."""
    PROXIED = 3
    """Through a proxy or Tor."""
    RELAYED = 4
    """Through a relay, which sees when and how much is sent."""

    @property
    def word(self) -> str:
        """What people call it."""
        return self.name.lower()


class Path(NamedTuple):
    """How a link goes: its rank, and the carrier that made it."""

    rank: Rank
    carrier: str

    def __str__(self) -> str:
        return f"{self.rank.word} by {self.carrier}"


class Address(NamedTuple):
    """One place where a peer is reached. Made by `parse_address`."""

    carrier: str
    """The scheme: who can dial it."""
    host: str
    """Empty where the carrier needs none; an IPv6 address without its brackets."""
    port: int
    text: str
    """The whole address in its shortest form: equal addresses have equal texts."""

    @property
    def rank(self) -> Rank:
        """What a link to it will be worth, as far as the text tells."""
        return path_by(self.carrier, self.host).rank


UNKNOWN_PATH: Final = Path(Rank.DIRECT, "tcp")
"""Of a link that nobody says more of."""

PORT_MAX: Final = 65_535
_HOST_AND_PORT: Final = ("tcp", "tls")
_RELAY_PORTS: Final = {"ws": 80, "wss": 443}
_HOLE_PUNCHING: Final = "ice"
_EXPECTED: Final = "HOST:PORT, tls://HOST:PORT, wss://RELAY or ice:"
_NOT_IN_PATHS: Final = frozenset("\"'\\<> ")
_NOT_IN_HOSTS: Final = _NOT_IN_PATHS | frozenset("/@#?[]%:")

_LAN: Final = tuple(
    ip_network(one)
    for one in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)


def parse_address(text: str) -> Address:
    """Return the address that a text names. Raises LocalError."""
    scheme, mark, rest = text.partition("://")
    carrier, rest = (scheme.lower(), rest) if mark else ("tcp", text)
    if len(text) > ADDRESS_MAX_CHARS:
        raise LocalError("not an address", expected=f"at most {ADDRESS_MAX_CHARS} characters", got=len(text))
    if text.lower() == f"{_HOLE_PUNCHING}:":
        return Address(_HOLE_PUNCHING, "", 0, f"{_HOLE_PUNCHING}:")
    if carrier in _HOST_AND_PORT:
        host, port = _host_and_port(rest, None, text)
        return Address(carrier, host, port, address_text(host, port, carrier))
    if carrier in _RELAY_PORTS:
        place, slash, path = rest.partition("/")
        usual = _RELAY_PORTS[carrier]
        host, port = _host_and_port(place, usual, text)
        if not _clean(path, _NOT_IN_PATHS):
            raise _none(text)
        shown = f"{_bracketed(host)}:{port}" if port != usual else _bracketed(host)
        return Address(carrier, host, port, f"{carrier}://{shown}{slash if path else ''}{path}")
    raise _none(text)


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, where something listens; port 0 picks a free one. Raises LocalError."""
    return _host_and_port(text, None, text, least_port=0)


def address_text(host: str, port: int, carrier: str = "tcp") -> str:
    """Return the text of an address with host and port. TCP has no scheme in front of it: the form people know."""
    place = f"{_bracketed(host)}:{port}"
    return place if carrier == "tcp" else f"{carrier}://{place}"


HOLE: Final = parse_address(f"{_HOLE_PUNCHING}:")
"""Where two nodes are that both punch holes."""

TURN: Final = Path(Rank.PROXIED, "turn")
"""How a link goes for which no hole opened: a TURN server passes it on."""


def readable_untrusted(texts: Iterable[str]) -> tuple[Address, ...]:
    """Return the addresses that can be read, each once, in order. A newer peer may name carriers unknown here."""
    found: dict[str, Address] = {}
    for text in texts:
        try:
            address = parse_address(text)
        except LocalError:
            continue
        found.setdefault(address.text, address)
    return tuple(found.values())


def promised(addresses: Iterable[Address]) -> Rank | None:
    """Return the best rank that these addresses promise; None for none."""
    return min((one.rank for one in addresses), default=None)


@lru_cache(maxsize=256)
def path_by(carrier: str, host: str) -> Path:
    """Return how a link by this carrier to this host goes. A name that says nothing counts as one of the internet."""
    if carrier in _RELAY_PORTS:
        return Path(Rank.RELAYED, carrier)
    if carrier == _HOLE_PUNCHING:
        return Path(Rank.PUNCHED, carrier)
    name = host.lower().rstrip(".")
    if name.endswith(".onion"):
        return Path(Rank.PROXIED, carrier)
    return Path(Rank.LAN if name == "localhost" or name.endswith(".local") or _is_lan(name) else Rank.DIRECT, carrier)


def _is_lan(host: str) -> bool:
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip.version == net.version and ip in net for net in _LAN)


def _host_and_port(place: str, usual_port: int | None, text: str, least_port: int = 1) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if usual_port is not None and (not colon or place.endswith("]")):
        host, port = place, str(usual_port)
    if not (port.isascii() and port.isdecimal()) or not least_port <= int(port) <= PORT_MAX:
        raise _none(text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        right = _is_ipv6(host) and _clean(host, _NOT_IN_PATHS)
    else:
        right = bool(host) and _clean(host, _NOT_IN_HOSTS)
    if not right:
        raise _none(text)
    return host, int(port)


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _clean(text: str, banned: frozenset[str]) -> bool:
    return text.isprintable() and banned.isdisjoint(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _none(text: str) -> LocalError:
    return LocalError("not an address", expected=_EXPECTED, got=safe(text, 80))
