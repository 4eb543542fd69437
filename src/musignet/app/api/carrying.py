"""`/v1/outbox`, `/v1/inbox`: sealed bundles, to and from peers that no link reaches."""

from __future__ import annotations

import base64
from typing import Annotated, Final

from msgspec import Meta, Struct

from ... import limits
from ...errors import SerializationError
from ..daemon import Daemon
from .route import Call, Capability, Endpoint, from_base64

__all__ = ["ENDPOINTS", "Bundle", "Bundled", "Carried", "NewBundle"]


class NewBundle(Struct, frozen=True, forbid_unknown_fields=True):
    """What waits for a peer."""

    expires_in_s: Annotated[float, Meta(gt=0, le=limits.OUTBOX_TTL_MAX_S)] = limits.SEALED_TTL_S


class Bundled(Struct, frozen=True):
    """A sealed bundle for a peer."""

    peer: str
    """Its label."""
    sealed: str
    """In base64."""
    messages: int
    acknowledged: int
    """Messages of the peer's that it says are here."""
    left: int
    """Messages that did not fit, and wait for the next one."""


class Bundle(Struct, frozen=True, forbid_unknown_fields=True):
    """What a peer has sealed for this node."""

    sealed: str
    """In base64."""


class Carried(Struct, frozen=True):
    """What a bundle brought."""

    peer: str
    """The label of whoever sealed it."""
    key: str
    messages: dict[str, int]
    """How many of which type, those included that were here already."""
    acknowledged: int
    """Messages of ours that the peer has."""
    fault: str
    """The rule that the peer broke with one of them; nothing behind it was taken. Else empty."""


async def _export(daemon: Daemon, call: Call) -> Bundled:
    peer = daemon.network.peer(call.path["peer"]).info
    made = await daemon.network.export_mail(
        peer.pubkey_hex, expires_in_s=call.body.expires_in_s, settled=daemon.keys.settled
    )
    return Bundled(peer.id, base64.b64encode(made.sealed).decode(), made.messages, made.acknowledged, made.left)


async def _import(daemon: Daemon, call: Call) -> Carried:
    sealed = from_base64(call.body.sealed, SerializationError("the bundle is not in base64"))
    brought = daemon.network.import_mail(sealed)
    label = daemon.label_of(brought.peer)
    return Carried(label, brought.peer.hex(), dict(brought.messages), brought.acknowledged, brought.fault)


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/v1/outbox/{peer}",
        needs=Capability.ADMIN,
        summary="Seal what waits for a peer that no link reaches",
        call=_export,
        body=NewBundle,
        answer=Bundled,
    ),
    Endpoint(
        method="POST",
        path="/v1/inbox",
        needs=Capability.ADMIN,
        summary="Take what a peer has sealed for this node",
        call=_import,
        body=Bundle,
        answer=Carried,
    ),
)
