"""`/v1/foundings`, and what is done with a group once it is there: addresses, import."""

from __future__ import annotations

import base64
from typing import Final

from msgspec import Struct

from ...bitcoin.group import RECEIVE
from ...errors import InvalidMessage
from ...limits import ADDRESS_INDEX_MAX, FOUNDING_TTL_S
from ...signing.founding import Founding, Step
from ...signing.founding_records import Shape
from ..addresses import next_index
from ..daemon import Daemon
from ..places import GROUPS_FOLDER
from ..sessions import NotFound
from .groups import GroupShown, MemberShown
from .groups import shown as group_shown
from .route import Call, Capability, Endpoint, from_base64

__all__ = ["ENDPOINTS", "AddressShown", "Confirmation", "FoundingShown", "Import", "NewGroup", "OwnKey"]

_SHAPES: Final = {shape.name.lower(): shape for shape in Shape}


class NewGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """A group to propose. `shape` is `aggregate` or `each`."""

    name: str
    members: list[str]
    """Labels or keys of peers; this node is a member besides."""
    shape: str = "aggregate"
    expires_in_s: float = FOUNDING_TTL_S


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True):
    """A person compared the group. `proof` is the approver's signature over its id, 128 hex digits."""

    proof: str


class Import(Struct, frozen=True, forbid_unknown_fields=True):
    """A group file in base64, and the proof as in `Confirmation`; or `elsewhere`: our key is in another signer, which
    needs none."""

    file: str
    proof: str = ""
    elsewhere: bool = False


class OwnKey(Struct, frozen=True):
    """What a group file says of this node."""

    label: str
    identity: str
    key: str
    """An extended public key with its origin, of an account that no group uses yet."""


class AddressShown(Struct, frozen=True):
    """One address of a group."""

    address: str
    index: int


class FoundingShown(Struct, frozen=True):
    """A group that is being founded."""

    id: str
    name: str
    """The proposer's word: to be shown with care."""
    shape: str
    proposer: str
    members: list[MemberShown]
    step: str
    asks_to_join: bool
    asks_to_confirm: bool
    waiting_for: list[str]
    file: str
    """The group file in base64, once everybody's key is here."""
    founded: bool
    """Whether everybody confirmed, and it is kept here."""
    over: bool
    error: str


def shown(daemon: Daemon, one: Founding) -> FoundingShown:
    """Return a founding as the API shows it."""
    own = daemon.network.identity.pubkey
    error = one.error or daemon.foundings.failed.get(one.id)
    founded = daemon.foundings.pinned(one.id)
    return FoundingShown(
        one.id.hex(),
        one.proposal.content.name,
        one.proposal.shape.name.lower(),
        daemon.label_of(one.proposal.proposer),
        [MemberShown(daemon.label_of(key), key.hex(), key == own) for key in one.proposal.members],
        one.step.value,
        one.step is Step.ASKED,
        one.step is Step.CONFIRMING,
        [daemon.label_of(key) for key in one.waiting_for],
        "" if one.group is None else base64.b64encode(one.group.encode()).decode(),
        founded,
        founded or error is not None,
        "" if error is None else str(error),
    )


def _find(daemon: Daemon, begin: str) -> Founding:
    """Return the founding whose id begins so, or that has this name."""
    found = [one for one in daemon.foundings.machine if begin and one.id.hex().startswith(begin.lower())]
    found = found or [one for one in daemon.foundings.machine if one.proposal.content.name == begin and not one.over]
    if len(found) != 1:
        raise NotFound(f"no such group waits to be founded: {begin!a:.70}", hint="see: musignet group list")
    return found[0]


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidMessage("not a proof", expected="hex digits") from None


async def _list(daemon: Daemon, _: Call) -> list[FoundingShown]:
    return [shown(daemon, one) for one in daemon.foundings.machine]


async def _show(daemon: Daemon, call: Call) -> FoundingShown:
    return shown(daemon, _find(daemon, call.path["founding"]))


async def _propose(daemon: Daemon, call: Call) -> FoundingShown:
    new: NewGroup = call.body
    shape = _SHAPES.get(new.shape)
    if shape is None:
        raise InvalidMessage("not a shape of a wallet", expected=" or ".join(_SHAPES), got=new.shape)
    return shown(daemon, await daemon.foundings.propose(new.name, new.members, shape, new.expires_in_s))


async def _join(daemon: Daemon, call: Call) -> FoundingShown:
    found = _find(daemon, call.path["founding"])
    await daemon.foundings.join(found.id)
    return shown(daemon, found)


async def _confirm(daemon: Daemon, call: Call) -> FoundingShown:
    found = _find(daemon, call.path["founding"])
    await daemon.foundings.confirm(found.id, _bytes(call.body.proof))
    return shown(daemon, found)


async def _refuse(daemon: Daemon, call: Call) -> FoundingShown:
    found = _find(daemon, call.path["founding"])
    daemon.foundings.refuse(found.id)
    return shown(daemon, found)


async def _own_key(daemon: Daemon, _: Call) -> OwnKey:
    return OwnKey(daemon.network.id, daemon.network.pubkey_hex, await daemon.foundings.own_key())


async def _import(daemon: Daemon, call: Call) -> GroupShown:
    data = from_base64(call.body.file, InvalidMessage("not a group file", expected="base64"))
    body: Import = call.body
    found = await daemon.foundings.import_group(data, _bytes(body.proof), elsewhere=body.elsewhere)
    return group_shown(daemon, found)


async def _address(daemon: Daemon, call: Call) -> AddressShown:
    group = daemon.groups.find(call.path["group"]).group
    text = call.query.get("index") or "0"
    if not (text.isascii() and text.isdecimal()) or len(text) > 7 or int(text) > ADDRESS_INDEX_MAX:
        raise InvalidMessage("not an index of an address", expected=f"0 to {ADDRESS_INDEX_MAX}", got=text)
    return AddressShown(group.wallet.address(RECEIVE, int(text)), int(text))


async def _next_address(daemon: Daemon, call: Call) -> AddressShown:
    group = daemon.groups.find(call.path["group"]).group
    index = next_index(daemon.folder.path / GROUPS_FOLDER, group.id)
    return AddressShown(group.wallet.address(RECEIVE, index), index)


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/foundings",
        needs=Capability.READ,
        summary="Groups that are being founded",
        call=_list,
        answer=list[FoundingShown],
    ),
    Endpoint(
        method="POST",
        path="/v1/foundings",
        needs=Capability.ADMIN,
        summary="Propose a group and take part in it",
        call=_propose,
        body=NewGroup,
        answer=FoundingShown,
    ),
    Endpoint(
        method="GET",
        path="/v1/foundings/{founding}",
        needs=Capability.READ,
        summary="One of them, by its name or the first digits of its id",
        call=_show,
        answer=FoundingShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/foundings/{founding}/join",
        needs=Capability.ADMIN,
        summary="Take part: the members learn an extended public key of this node",
        call=_join,
        answer=FoundingShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/foundings/{founding}/confirm",
        needs=Capability.APPROVE,
        summary="Say that the group is the same on every screen; needs the approver's proof",
        call=_confirm,
        body=Confirmation,
        answer=FoundingShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/foundings/{founding}/refuse",
        needs=Capability.ADMIN,
        summary="Take no part, which ends it for everybody",
        call=_refuse,
        answer=FoundingShown,
    ),
    Endpoint(
        method="GET",
        path="/v1/key",
        needs=Capability.ADMIN,
        summary="What this node brings into a group whose file is written by hand",
        call=_own_key,
        answer=OwnKey,
    ),
    Endpoint(
        method="POST",
        path="/v1/groups/import",
        needs=Capability.APPROVE,
        summary="Be a member again on a restored device, or with a key in another signer; needs the approver's proof",
        call=_import,
        body=Import,
        answer=GroupShown,
    ),
    Endpoint(
        method="GET",
        path="/v1/groups/{group}/address",
        needs=Capability.READ,
        summary="A receiving address",
        call=_address,
        answer=AddressShown,
        query={"index": "which one; 0 unless given"},
    ),
    Endpoint(
        method="POST",
        path="/v1/groups/{group}/address",
        needs=Capability.PROPOSE,
        summary="The next receiving address, which is not given out again",
        call=_next_address,
        answer=AddressShown,
    ),
)
