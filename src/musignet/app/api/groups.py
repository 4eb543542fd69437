"""`/v1/groups`: the wallets this node cosigns."""

from __future__ import annotations

import base64
from typing import Final

from msgspec import Struct

from ...signing.groupfile import GroupFile
from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "GroupShown", "MemberShown"]


class MemberShown(Struct, frozen=True):
    """One cosigner."""

    label: str
    identity: str
    here: bool
    """Whether it is this node."""


class GroupShown(Struct, frozen=True):
    """One group."""

    id: str
    name: str
    network: str
    fingerprint: str
    """What people compare."""
    descriptor: str
    members: list[MemberShown]
    file: str
    """The group file, in base64."""


def shown(daemon: Daemon, one: GroupFile) -> GroupShown:
    """Return a group as the API shows it."""
    own = daemon.network.identity.pubkey
    group = one.group
    return GroupShown(
        group.id.hex(),
        one.name,
        group.wallet.chain.name.lower(),
        one.fingerprint,
        group.wallet.descriptor.canonical(),
        [MemberShown(daemon.label_of(key), key.hex(), key == own) for key in group.identities],
        base64.b64encode(one.encode()).decode(),
    )


async def _list(daemon: Daemon, _: Call) -> list[GroupShown]:
    return [shown(daemon, one) for one in daemon.groups]


async def _show(daemon: Daemon, call: Call) -> GroupShown:
    return shown(daemon, daemon.groups.find(call.path["group"]))


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/groups",
        needs=Capability.READ,
        summary="Every group of this node",
        call=_list,
        answer=list[GroupShown],
    ),
    Endpoint(
        method="GET",
        path="/v1/groups/{group}",
        needs=Capability.READ,
        summary="One group, named by its name or the first digits of its id",
        call=_show,
        answer=GroupShown,
    ),
)
