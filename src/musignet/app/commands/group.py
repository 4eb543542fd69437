"""`musignet group`: its commands."""

from __future__ import annotations

from typing import Final

import click

from ..lazy import LazyGroup, Place

__all__ = ["GROUP_COMMANDS", "group"]

GROUP_COMMANDS: Final = {
    "sync": Place("chain", "Ask the chain backend for a group's coins."),
    "balance": Place("chain", "Show what the last sync found."),
    "send": Place("chain", "Sync, and ask a group to pay somebody."),
}


@click.group(cls=LazyGroup, places=GROUP_COMMANDS, epilog="\b\nExample: musignet group sync savings")
def group() -> None:
    """Wallets that are shared."""
