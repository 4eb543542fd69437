"""Offers and answers of hole punching: where each side may be reached, and what of that is worth a datagram.

The bytes travel as a signed message over any link the two have already. A candidate is still only a claim: it makes us
send datagrams to an address, so what it may name is bounded here, before a socket knows of it (RFC 8445 "Attacks on
Connectivity Checks"; the attack page has the table).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from .. import limits
from ..errors import SerializationError
from .codec import Codec, Record

__all__ = ["Candidate", "Kind", "Network", "Role", "Signal", "reason_against", "screen"]

Network: TypeAlias = IPv4Network | IPv6Network


class Role(IntEnum):
    """Who speaks: the side that dials, or the side that is asked."""

    OFFER = 0
    ANSWER = 1


class Kind(IntEnum):
    """How a side came by an address (RFC 8445 5.1.1)."""

    HOST = 0
    """Of its own interface."""
    SRFLX = 1
    """What a STUN server saw of it."""
    RELAY = 2
    """Lent by a TURN server."""


class Candidate(Record, frozen=True):
    """One UDP address: `host` is 4 or 16 bytes. No privileged port is ever a peer's."""

    kind: Kind
    host: Annotated[bytes, Meta(min_length=4, max_length=16)]
    port: Annotated[int, Meta(ge=1024, le=65_535)]

    @classmethod
    def of(cls, kind: Kind, host: str, port: int) -> Candidate:
        """Return the candidate at a numeric address. Raises ValueError for anything else."""
        return cls(kind, ip_address(host).packed, port)

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """The IP address."""
        return ip_address(self.host)


class Signal(Record, frozen=True):
    """An offer, or the answer to it. An answer without candidates says no."""

    role: Role
    attempt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    """Drawn by the side that offers; the answer repeats it."""
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9+/]{4,32}\Z")]
    password: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9+/]{22,64}\Z")]
    """With the name: what a connectivity check has to show (RFC 8445 5.3)."""
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=limits.ICE_CANDIDATES_MAX)]

    def encode(self) -> bytes:
        """Return the payload. Raises SerializationError when a part is out of bounds."""
        return _codec.check(self)

    @classmethod
    def parse_untrusted(cls, data: bytes) -> Signal:
        """Return the offer or answer in a payload.

        Raises: SerializationError for anything but one canonical encoding within bounds.
        """
        signal = _codec.decode_untrusted(data)
        for candidate in signal.candidates:
            if len(candidate.host) not in (4, 16):
                raise SerializationError("not a Candidate", expected="an address of 4 or 16 bytes",
                                         got=len(candidate.host))  # fmt: skip
        return signal


_codec = Codec(Signal)

_EMBEDS_IPV4: Final = tuple(
    map(ip_network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)
"""IPv6 that stands for an IPv4 address, which may be anybody's private one: mapped, NAT64, 6to4, Teredo."""


def reason_against(candidate: Candidate, ours: Sequence[Network]) -> str:
    """Return why nothing is sent to a candidate, or an empty string.

    `ours` are the networks of our own interfaces. Whatever is not routed on the internet is somebody's private place:
    we go there only when we are in it too.
    """
    where = candidate.address
    if where.is_multicast or where.is_unspecified or where == IPv4Address("255.255.255.255"):
        return "it is many machines or none"
    network = next((network for network in ours if where in network), None)
    if network is not None:
        ends = isinstance(network, IPv4Network) and network.prefixlen < 31
        if ends and where in (network.network_address, network.broadcast_address):
            return "it is many machines or none"
        return ""
    if any(where in embeds for embeds in _EMBEDS_IPV4):
        return "it stands for an IPv4 address"
    if where.is_loopback:
        return "it is this machine"
    return "" if where.is_global else "it is in a private network that is not ours"


def screen(candidates: Sequence[Candidate], ours: Sequence[Network]) -> tuple[Candidate, ...]:
    """Return what of a peer's candidates is checked: each address once, and few of one machine."""
    kept: dict[tuple[bytes, int], Candidate] = {}
    of_host: Counter[bytes] = Counter()
    for candidate in candidates:
        place = candidate.host, candidate.port
        if place in kept or of_host[candidate.host] >= limits.ICE_PER_HOST_MAX or reason_against(candidate, ours):
            continue
        of_host[candidate.host] += 1
        kept[place] = candidate
    return tuple(kept.values())
