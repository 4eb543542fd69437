"""`/v1/invites` and `/v1/pairings`: how peers come into the book."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ...errors import InvalidMessage, LocalError
from ...limits import INVITE_TTL_S
from ...node.addresses import parse_address
from ...node.pairing import Pairing, Role
from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS", "Confirm", "InviteShown", "Join", "NewInvite", "PairingShown"]


class NewInvite(Struct, frozen=True, forbid_unknown_fields=True):
    """How long an invite is open, and where this node is dialled; its own addresses unless given."""

    expires_in_s: float = INVITE_TTL_S
    addresses: list[str] = []
    lan: bool = False
    """Whether it names no address: this node is found on the local network, or not at all."""
    openly: bool = False
    """Whether everybody on the local network sees this node's key and name meanwhile, 10 minutes at most."""


class InviteShown(Struct, frozen=True):
    """An open invite. It goes to one person, and nobody else."""

    id: str
    invite: str
    expires_at: float


class Join(Struct, frozen=True, forbid_unknown_fields=True):
    """An invite to answer."""

    invite: str


class Confirm(Struct, frozen=True, forbid_unknown_fields=True):
    """A person compared these words with the other screen. `label`: another name than the one it gives itself."""

    words: str
    label: str = ""


class PairingShown(Struct, frozen=True):
    """One pairing."""

    key: str
    invite: str
    """The id of the invite."""
    role: str
    step: str
    words: str
    """What both screens show; empty while there is nothing to compare."""
    name: str
    """What the other side calls itself: to be shown with care."""
    taken: bool
    """Whether that name belongs to another key here: then a `label` is needed."""
    over: bool
    paired: bool
    error: str


def shown(daemon: Daemon, one: Pairing) -> PairingShown:
    """Return a pairing as the API shows it."""
    return PairingShown(
        one.peer.hex(),
        one.secret.hex(),
        "host" if one.role is Role.HOST else "guest",
        one.step.value,
        one.words,
        one.name,
        daemon.pairings.machine.taken(one.peer, one.name),
        one.over,
        one.over and one.error is None,
        "" if one.error is None else str(one.error),
    )


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidMessage("not a key or an id", expected="hex digits") from None


async def _invite(daemon: Daemon, call: Call) -> InviteShown:
    body, addresses = call.body, tuple(parse_address(one).text for one in call.body.addresses)
    made = daemon.pairings.invite(addresses, body.expires_in_s, lan=body.lan, openly=body.openly)
    return InviteShown(made.secret.hex(), made.text(), made.expires_at_ms / 1000)


async def _withdraw(daemon: Daemon, call: Call) -> None:
    daemon.pairings.withdraw(_hex(call.path["invite"]))


async def _list(daemon: Daemon, _: Call) -> list[PairingShown]:
    return [shown(daemon, one) for one in daemon.pairings.machine]


async def _show(daemon: Daemon, call: Call) -> PairingShown:
    return shown(daemon, daemon.pairings.machine.get(_hex(call.path["key"])))


async def _join(daemon: Daemon, call: Call) -> PairingShown:
    return shown(daemon, await daemon.pairings.join(call.body.invite))


async def _confirm(daemon: Daemon, call: Call) -> PairingShown:
    daemon.pairings.agree(_hex(call.path["key"]), " ".join(call.body.words.lower().split()), call.body.label)
    return await _show(daemon, call)


async def _refuse(daemon: Daemon, call: Call) -> PairingShown:
    daemon.pairings.refuse(_hex(call.path["key"]))
    return await _show(daemon, call)


async def _cancel(daemon: Daemon, call: Call) -> None:
    try:
        daemon.pairings.cancel(_hex(call.path["key"]))
    except LocalError:
        pass  # it is over already


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/v1/invites",
        needs=Capability.ADMIN,
        summary="Open an invite",
        call=_invite,
        body=NewInvite,
        answer=InviteShown,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/invites/{invite}",
        needs=Capability.ADMIN,
        summary="Close an invite, and what is not confirmed under it",
        call=_withdraw,
    ),
    Endpoint(
        method="GET",
        path="/v1/pairings",
        needs=Capability.ADMIN,
        summary="Pairings under way, and those done a moment ago",
        call=_list,
        answer=list[PairingShown],
    ),
    Endpoint(
        method="POST",
        path="/v1/pairings",
        needs=Capability.ADMIN,
        summary="Answer an invite: dial whoever made it",
        call=_join,
        body=Join,
        answer=PairingShown,
    ),
    Endpoint(
        method="GET",
        path="/v1/pairings/{key}",
        needs=Capability.ADMIN,
        summary="One pairing, by the other side's key",
        call=_show,
        answer=PairingShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/pairings/{key}/confirm",
        needs=Capability.ADMIN,
        summary="Say that both screens show these words",
        call=_confirm,
        body=Confirm,
        answer=PairingShown,
    ),
    Endpoint(
        method="POST",
        path="/v1/pairings/{key}/refuse",
        needs=Capability.ADMIN,
        summary="Say that the words differ",
        call=_refuse,
        answer=PairingShown,
    ),
    Endpoint(
        method="DELETE",
        path="/v1/pairings/{key}",
        needs=Capability.ADMIN,
        summary="Give a pairing up",
        call=_cancel,
    ),
)
