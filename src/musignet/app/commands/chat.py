"""`musignet chat`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from ...crypto.keys import Identity
from ...net.keystore import load_identity, save_identity
from ..chat import Chat
from ..tries import until_it_opens
from .common import Command, address, label, place, run_async

__all__ = ["chat"]

_ADDRESS = "HOST:PORT"


def _key_at_address(value: str) -> tuple[str, str]:
    """`KEY@HOST:PORT`: who, and where."""
    key, at, where = value.partition("@")
    if not at or len(key) != 66 or set(key) - set("0123456789abcdef"):
        raise click.BadParameter(f"expected KEY@{_ADDRESS} with a key of 66 hex digits; got {value!a}")
    return key, place(where)


@click.command(cls=Command, example="musignet chat alice")
@click.argument("name", type=label, metavar="NAME")
@click.option(
    "--listen",
    type=address,
    metavar=_ADDRESS,
    default="127.0.0.1:0",
    show_default=True,
    help="Where others reach this node; port 0 picks a free one. For another machine: 0.0.0.0:8001.",
)
@click.option("--connect", type=_key_at_address, metavar=f"KEY@{_ADDRESS}", help="Whom to talk to, and where.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep this node's key in FILE, encrypted, and be the same node next time. Without it: a fresh key each time.",
)
@click.pass_obj
def chat(
    verbose: bool, name: str, listen: tuple[str, int], connect: tuple[str, str] | None, key_file: Path | None
) -> None:
    """Talk to other nodes over encrypted links, every line signed.

    Run it on one machine, and it prints what to type on the other.
    """
    run_async(Chat(name, _identity(key_file), listen, connect).run(), verbose=verbose)


def _identity(key_file: Path | None) -> Identity:
    """Load the key, or make it at the first use."""
    if key_file is None:
        return Identity.generate()
    if key_file.exists():
        ask, opens = partial(_ask, f"Passphrase of {key_file}"), partial(load_identity, key_file)
        return until_it_opens(ask, opens, partial(click.echo, err=True))
    click.echo(f"{key_file} does not exist: making a new key.", err=True)
    identity = Identity.generate()
    save_identity(identity, key_file, _ask("New passphrase", confirmation_prompt=True))
    return identity


def _ask(text: str, **options: Any) -> str:
    answer: str = click.prompt(text, hide_input=True, err=True, **options)
    return answer
