"""`musignet outbox`: the table of its commands, each imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from ..lazy import LazyGroup, Place

__all__ = ["COMMANDS", "outbox"]

COMMANDS: Final = {"export": Place("carrying", "Seal what waits for a peer, into a file or QR codes.")}


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog="\b\nExample: musignet outbox export --to bob for-bob.sealed",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def outbox() -> None:
    """Write what waits for a peer that no link reaches, sealed."""
