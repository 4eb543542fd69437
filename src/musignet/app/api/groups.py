"""`/v1/groups`: the wallets this node cosigns."""

from __future__ import annotations

import base64
from typing import Final

from msgspec import Struct

from ...signing.groupfile import GroupFile
from ..daemon import Daemon
from ..grouprelays import relay_list
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "GroupShown", "MemberShown", "RelayList"]


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
    relays: list[str]
    """Where this node looks for the other members, beside their own addresses."""
    relays_told: dict[str, list[str]]
    """What other members say they are, by label, where it is something else."""


class RelayList(Struct, frozen=True, forbid_unknown_fields=True):
    """The relays of a group, from now on."""

    relays: list[str]


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
        list(daemon.group_relays.of(group.id)),
        {daemon.label_of(key): list(told) for key, told in daemon.group_relays.told(group.id).items()},
    )


async def _list(daemon: Daemon, _: Call) -> list[GroupShown]:
    return [shown(daemon, one) for one in daemon.groups]


async def _show(daemon: Daemon, call: Call) -> GroupShown:
    return shown(daemon, daemon.groups.find(call.path["group"]))


async def _relays(daemon: Daemon, call: Call) -> GroupShown:
    group = daemon.groups.find(call.path["group"])
    daemon.group_relays.set(group, relay_list(call.body.relays))
    return shown(daemon, group)


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
    Endpoint(
        method="POST",
        path="/v1/groups/{group}/relays",
        needs=Capability.ADMIN,
        summary="Say where the members look for each other; the others are told",
        call=_relays,
        body=RelayList,
        answer=GroupShown,
    ),
)
