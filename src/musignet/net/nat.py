"""The STUN and TURN servers that somebody configured. None is built in."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Servers", "TurnServer"]


@dataclass(frozen=True, slots=True)
class TurnServer:
    """A server that lends an address. It sees who speaks to whom and when, and ciphertext."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    """Reached over TLS alone, by the name in its certificate: what a network that lets nothing else out may let out."""

    @property
    def ways(self) -> tuple[str, ...]:
        """Over what it is reached, in the order in which that is tried."""
        return ("tls",) if self.tls else ("udp", "tcp")


@dataclass(frozen=True, slots=True)
class Servers:
    """What hole punching may ask. Without any, only peers in one network or with public addresses are reached."""

    stun: tuple[tuple[str, int], ...] = ()
    """`(host, port)`: tells a node under which address the internet sees it."""
    turn: tuple[TurnServer, ...] = ()
    """Used when no direct path opens: each over UDP, and over TCP where UDP does not get through; or over TLS."""
