"""`musignet group relays`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...text import safe
from ..client import path
from ..grouprelays import relay_list
from .common import Command, Failure, connect, data_option, json_option, say, show

__all__ = ["relays"]


@click.command(cls=Command, example="musignet group relays savings wss://relay.one.example wss://relay.two.example")
@data_option
@json_option
@click.argument("name")
@click.argument("relay", nargs=-1)
@click.option("--as", "as_", metavar="MEMBER", help="Take what this member told.")
@click.option("--none", is_flag=True, help="Have none.")
def relays(data: Path, as_json: bool, name: str, relay: tuple[str, ...], as_: str | None, none: bool) -> None:
    """Show or set the relays where a group's members look for each other.

    Each node has its own list, reads its inbox there and dials the others there. The others are told; it is theirs only
    when they take it. Name two or more.
    """
    if bool(relay) + bool(as_) + none > 1:
        raise click.UsageError("relays, --as and --none exclude each other")
    client, route = connect(data), path("v1", "groups", name)
    found = client.get(route)
    if relay or as_ or none:
        wanted = relay_list(relay) if as_ is None else _told(found, as_)
        found = client.post(path("v1", "groups", name, "relays"), {"relays": list(wanted)})
    facts = {one: found[one] for one in ("id", "name", "relays", "relays_told")}
    show(as_json, facts, lambda: _lines(found))


def _told(found: dict[str, Any], member: str) -> tuple[str, ...]:
    if member not in found["relays_told"]:
        told = ", ".join(safe(one) for one in found["relays_told"]) or "nobody"
        raise Failure(f"{safe(member)} has told no other relays", hint=f"others: {told}")
    return relay_list(found["relays_told"][member])


def _lines(found: dict[str, Any]) -> None:
    name = safe(found["name"])
    for one in found["relays"]:
        say(one)
    if not found["relays"]:
        say(f"no relays of {name}; the members have their own: musignet peers --verbose")
    for member, told in found["relays_told"].items():
        say(f"{safe(member)} has: {safe(', '.join(told) or 'none', 400)}")
        say(f"    take it: musignet group relays {name} --as {safe(member)}")
