"""`/v1/status`: what the node is doing."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Final

from msgspec import Struct

from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "Status"]


class Status(Struct, frozen=True):
    """One node at one moment."""

    version: str
    pid: int
    """Its process: SIGTERM stops it."""
    label: str
    key: str
    """66 hex digits: who this node is."""
    network: str
    data: str
    """The data folder."""
    host: str
    port: int
    onions: list[str]
    """Where it is reached through Tor; empty while it is not."""
    only_tor: bool
    """Whether nothing leaves but to the proxy."""
    peers: int
    connected: int
    groups: list[str]
    open_sessions: int
    asked: list[str]
    """Ids of sessions that wait for the person here."""
    insecure: bool
    """Whether the wallet key is not encrypted."""


async def _status(daemon: Daemon, _: Call) -> Status:
    network = daemon.network
    sessions = [one for one in daemon.sessions if one.end is None]
    return Status(
        version("musignet"),
        os.getpid(),
        network.id,
        network.pubkey_hex,
        daemon.config.network.name.lower(),
        str(daemon.folder.path),
        network.host,
        network.port,
        list(daemon.onions) if daemon.onion is not None and daemon.onion.published else [],
        daemon.config.only_tor,
        len(network.peers()),
        len(await network.connected_peers()),
        [one.name for one in daemon.groups],
        len(sessions),
        [one.id.hex() for one in sessions if one.asked],
        daemon.keys.insecure,
    )


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/status",
        needs=Capability.READ,
        summary="What the node is doing",
        call=_status,
        answer=Status,
    ),
)
