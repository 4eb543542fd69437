"""`musignet group`: the table of its commands, each imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from ..lazy import LazyGroup, Place

__all__ = ["COMMANDS", "group"]

COMMANDS: Final = {
    "create": Place("founding", "Found a wallet with peers: everybody compares and confirms it."),
    "join": Place("founding", "Take part in a group that somebody proposed."),
    "refuse": Place("founding", "Take no part in a proposed group."),
    "list": Place("groups", "List the groups of this node, and those that wait to be founded."),
    "show": Place("groups", "Show one group: members, fingerprint, descriptor."),
    "relays": Place("grouprelays", "Show or set the relays where a group's members look for each other."),
    "address": Place("groups", "Show a receiving address of a group."),
    "sync": Place("chain", "Ask the chain backend for a group's coins."),
    "balance": Place("chain", "Show what the last sync found."),
    "send": Place("chain", "Sync, and ask a group to pay somebody."),
    "export": Place("groups", "Write a group's descriptor, watch-only descriptor or group file."),
    "key": Place("assembling", "Show what this node brings into a group whose file is written by hand."),
    "write": Place("assembling", "Write a group file from everybody's keys."),
    "import": Place("groups", "Be a member again, on a device restored from its seed."),
}


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog="\b\nExample: musignet group create savings bob carol",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def group() -> None:
    """Make, list and show the wallets that this node shares."""
