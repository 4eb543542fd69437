"""`/v1/peers`: the pinned peers. They come in by pairing alone."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from msgspec import Struct

from ...errors import InvalidMessage
from ...net.peer import Peer
from ...text import name_fault
from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "NewLabel", "PeerShown"]


class PeerShown(Struct, frozen=True):
    """One peer of the book."""

    label: str
    """As its owner or a person here chose it: to be shown with care."""
    key: str
    state: str
    pinned: bool
    """Whether it was paired here; otherwise a group has brought it."""
    host: str
    port: int
    round_trip_s: float | None
    seen_s_ago: float | None
    """Since it was last heard, in this run of the node."""
    error: str
    """Why the last dial failed."""


class NewLabel(Struct, frozen=True, forbid_unknown_fields=True):
    """What to call a peer."""

    label: str


def shown(daemon: Daemon, peer: Peer) -> PeerShown:
    """Return a peer as the API shows it."""
    info = peer.info
    seen = None if peer.heard_at is None else max(0.0, time.time() - peer.heard_at)
    error = "" if peer.last_error is None else str(peer.last_error)
    pinned = daemon.pins.get(peer.pubkey_hex) is not None
    return PeerShown(
        info.id, peer.pubkey_hex, peer.state.value, pinned, info.host, info.port, peer.round_trip_s, seen, error
    )


async def _list(daemon: Daemon, _: Call) -> list[PeerShown]:
    return [shown(daemon, peer) for peer in daemon.network.peers()]


async def _rename(daemon: Daemon, call: Call) -> PeerShown:
    label = call.body.label
    if fault := name_fault(label):
        raise InvalidMessage(f"not a label: {fault}", got=label)
    peer = daemon.network.peer(call.path["peer"])
    daemon.pin(replace(peer.info, id=label))
    return shown(daemon, peer)


async def _forget(daemon: Daemon, call: Call) -> None:
    await daemon.forget(call.path["peer"])


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/peers",
        needs=Capability.READ,
        summary="Every peer of the book",
        call=_list,
        answer=list[PeerShown],
    ),
    Endpoint(
        method="POST",
        path="/v1/peers/{peer}/rename",
        needs=Capability.ADMIN,
        summary="Give a peer, named by its label or its key, another label",
        call=_rename,
        body=NewLabel,
        answer=PeerShown,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/peers/{peer}",
        needs=Capability.ADMIN,
        summary="Hang up on a peer and take it out of the book",
        call=_forget,
    ),
)
