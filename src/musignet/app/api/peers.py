"""`/v1/peers`: the pinned peers. They come in by pairing alone."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Final

from msgspec import Struct

from ...errors import InvalidMessage, NetworkError
from ...net.peer import Peer
from ...net.transport.carriers import Unreachable
from ...node.peers import Mail
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
    """Where it is dialled over TCP."""
    addresses: list[str]
    """Every place where it is dialled, the best first."""
    path: str
    """How the link goes, such as `lan by tls`; empty while it is not connected."""
    at: str
    """Where its other end is. Said by the network, not proved."""
    better: str
    """Which addresses promise a better path, why not yet, and when they are tried again; empty where none does."""
    left_at: str
    """Where what it is told is left while it is away: `at wss://relay`, or `by hand`; empty where nothing is."""
    round_trip_s: float | None
    seen_s_ago: float | None
    """Since it was last heard, in this run of the node."""
    error: str
    """Why the last dial failed."""
    bytes_in: int
    """In this run, on the wire; `bytes_out`, `messages_in` likewise."""
    bytes_out: int
    messages_in: int
    bytes_per_s: float
    """From it, over the last 5 to 10 seconds; `messages_per_s` likewise."""
    messages_per_s: float
    held_s: float
    """How long reading from it was held back, because it was faster than it may be."""
    share: float
    """Of the usual rates: a bad score makes it less than 1."""
    score: float
    """From -100 to 20; 0 when nothing is known. `why` is what it is made of."""
    why: str
    refused_s: float
    """For how much longer it is not let in when it dials."""


class NewLabel(Struct, frozen=True, forbid_unknown_fields=True):
    """What to call a peer."""

    label: str


def shown(daemon: Daemon, peer: Peer) -> PeerShown:
    """Return a peer as the API shows it."""
    info = peer.info
    seen = None if peer.heard_at is None else max(0.0, time.time() - peer.heard_at)
    error = "" if peer.last_error is None else str(peer.last_error)
    pinned = daemon.pins.get(peer.pubkey_hex) is not None
    traffic = daemon.network.traffic(peer.pubkey_hex)
    places = info.places
    host, port = next(((one.host, one.port) for one in places if one.carrier == "tcp"), ("", 0))
    return PeerShown(
        label=info.id,
        key=peer.pubkey_hex,
        state=peer.state.value,
        pinned=pinned,
        host=host,
        port=port,
        addresses=[one.text for one in places],
        path="" if peer.path is None or peer.mail is not Mail.NO else str(peer.path),
        at=peer.link_address,
        better=_better(peer, time.time()),
        left_at=_left_at(peer),
        round_trip_s=peer.round_trip_s,
        seen_s_ago=seen,
        error=error,
        **asdict(traffic),
    )


def _better(peer: Peer, now: float) -> str:
    if not peer.better or peer.mail is not Mail.NO:
        return ""
    each = "; ".join(f"{one}: {_why(peer.path_error, one)}" for one in peer.better)
    if peer.is_dialled:
        return f"{each}; being tried now"
    if peer.better_at is None:
        return f"{each}; not tried from here: this node does not dial it"
    return f"{each}; tried again in {max(0.0, peer.better_at - now):.0f} s"


def _why(error: NetworkError | None, address: str) -> str:
    """Return what the last dial says about one of its addresses."""
    if isinstance(error, Unreachable):
        error = error.failures.get(address)
    return "not tried since it is connected" if error is None else str(error)


def _left_at(peer: Peer) -> str:
    return {Mail.NO: "", Mail.LETTERS: f"at {peer.link_address}", Mail.ROUNDS: "by hand"}[peer.mail]


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
