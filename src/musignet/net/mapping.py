"""A port that a router forwards to this node, and the ways to ask for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Mapping", "Way"]


@dataclass(frozen=True, slots=True)
class Mapping:
    """`host:port` on the internet leads to `local_port` here, for `lease_s` seconds."""

    way: str
    host: str
    port: int
    local_port: int
    lease_s: int

    @property
    def address(self) -> str:
        """As peers dial it."""
        return f"{self.host}:{self.port}"


class Way(Protocol):
    """A protocol that routers understand. Every call ends within `PORT_MAPPING_S`, and raises NetworkError."""

    name: str

    async def look(self) -> str:
        """Return the router's address on the internet."""
        ...

    async def map(self, local_port: int, port: int, lease_s: int) -> Mapping:
        """Forward a TCP port, `port` if it is free. Doing it again renews it."""
        ...

    async def unmap(self, mapping: Mapping) -> None:
        """End it."""
        ...
