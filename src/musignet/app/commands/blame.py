"""`musignet blame`: the table of its commands, each imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from ..lazy import LazyGroup, Place

__all__ = ["COMMANDS", "blame"]

COMMANDS: Final = {"verify": Place("verify", "Check a blame file: the signed messages in it, by themselves.")}


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog="\b\nExample: musignet blame verify bob-broke-it.json",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def blame() -> None:
    """Check who is proved to have broken a ceremony."""
