"""`/v1/discovery`: who is seen on the local network."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "Discovery", "Look", "NodeShown"]


class NodeShown(Struct, frozen=True):
    """One node that was seen in the last three minutes."""

    key: str
    label: str
    """What it is called here; of one that is not known, what it calls itself: to be shown with care."""
    known: bool
    """Whether it is in the book: then the key is who it is. Otherwise nothing is proved but that it has the key."""
    state: str
    """Where a known one stands; otherwise empty."""
    host: str
    port: int
    ways: list[str]
    open: bool
    """Whether it announces itself openly: somebody there has made an invite."""
    guest: bool
    """Whether it speaks by an invite of this node."""
    seen_s_ago: float
    here: bool


class Discovery(Struct, frozen=True):
    """What is seen, and what keeps others from being seen."""

    on: bool
    why: str
    """Why it is off."""
    port: int
    """The UDP port."""
    interfaces: list[str]
    """Those that it looks on now."""
    problems: dict[str, str]
    """What the system refuses, by the way."""
    ignored: dict[str, int]
    """How many datagrams came to nothing, by the reason."""
    nodes: list[NodeShown]


class Look(Struct, frozen=True, forbid_unknown_fields=True):
    """How long to take note of open announcements, at most 600 s."""

    for_s: float = 60.0


async def _show(daemon: Daemon, _: Call) -> object:
    return daemon.neighbours.report()


async def _look(daemon: Daemon, call: Call) -> object:
    daemon.neighbours.look(call.body.for_s)
    return daemon.neighbours.report()


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/discovery",
        needs=Capability.READ,
        summary="Who is seen on the local network, and what is in the way",
        call=_show,
        answer=Discovery,
    ),
    Endpoint(
        method="POST",
        path="/v1/discovery/look",
        needs=Capability.ADMIN,
        summary="Take note of nodes that announce themselves openly, for a while",
        call=_look,
        body=Look,
        answer=Discovery,
    ),
)
