"""A group of commands that imports a command when it is used: `--help` shows a table and imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click

__all__ = ["LazyGroup", "Place"]

_COMMANDS = "musignet.app.commands"


class Place(NamedTuple):
    """Where a command is, and its line in `--help`; a test compares that with the command's own first sentence."""

    module: str
    """Below `app/commands`. The command is the attribute of its own name there, with `_` for `-`, and an `_` behind a
    name that Python has already."""
    help: str


class LazyGroup(click.Group):
    """A click group over a table of places."""

    def __init__(self, *args: object, places: Mapping[str, Place], **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module = import_module(f"{_COMMANDS}.{place.module}")
        name = cmd_name.replace("-", "_")
        command = getattr(module, f"{name}_", None) or getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in self.places.items()])
