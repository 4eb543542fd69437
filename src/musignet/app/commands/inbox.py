"""`musignet inbox`: the table of its commands, each imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from ..lazy import LazyGroup, Place

__all__ = ["COMMANDS", "inbox"]

COMMANDS: Final = {"import": Place("carrying", "Take in what a peer has sealed.")}


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog="\b\nExample: musignet inbox import for-me.sealed",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def inbox() -> None:
    """Read what a peer has sealed for this node."""
