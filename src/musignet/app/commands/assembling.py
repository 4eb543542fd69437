"""`musignet group key` and `write`: a group file by hand, where a member's key is in another signer."""

from __future__ import annotations

from pathlib import Path

import click

from ...bitcoin.descriptor import KeyExpression
from ...bitcoin.group import Group
from ...errors import InvalidMessage
from ...signing.founding import descriptor_of
from ...signing.founding_records import Shape
from ...signing.group import Member, SigningGroup
from ...signing.groupfile import GroupFile
from ...text import safe
from ..config import load
from .common import Command, connect, data_option, json_option, label, show

__all__ = ["key", "write"]

_SHAPES = {shape.name.lower(): shape for shape in Shape}
_FORM = "LABEL=IDENTITY=KEY"


@click.command(cls=Command, example="musignet group key")
@data_option
@json_option
def key(data: Path, as_json: bool) -> None:
    """Show what this node brings into a group whose file is written by hand.

    One word for `musignet group write`: LABEL=IDENTITY=KEY. Where the key is in another signer, put that signer's
    there: an extended public key with its origin.
    """
    found = connect(data).get("/v1/key")
    show(as_json, found, lambda: click.echo(f"{safe(found['label'])}={found['identity']}={found['key']}"))


@click.command(cls=Command, example="musignet group write savings ALICES_WORD BOBS_WORD > savings.json")
@data_option
@json_option
@click.argument("name", type=label)
@click.argument("members", nargs=-1, required=True, metavar=f"{_FORM}...")
@click.option("--shape", type=click.Choice(list(_SHAPES)), default="aggregate", show_default=True)
def write(data: Path, as_json: bool, name: str, members: tuple[str, ...], shape: str) -> None:
    """Write a group file from everybody's keys.

    Each member is LABEL=IDENTITY=KEY, as `musignet group key` shows it. Every member imports the file and compares
    fingerprint and first address with the others: nothing else shows that a key was exchanged on the way.
    """
    read = [_member(one) for one in members]
    descriptor = descriptor_of([key for _, _, key in read], _SHAPES[shape])
    wallet = Group(descriptor, load(data).network)
    seats = [Member(identity, _bare(key)) for _, identity, key in read]
    file = GroupFile(name, SigningGroup(wallet, seats), {identity: label for label, identity, _ in read})
    text = file.encode().decode()
    show(as_json, {"file": text, "fingerprint": file.fingerprint}, lambda: click.echo(text, nl=False))


def _member(text: str) -> tuple[str, bytes, str]:
    parts = text.split("=", 2)
    try:
        return parts[0], bytes.fromhex(parts[1]), parts[2]
    except (IndexError, ValueError):
        raise click.BadParameter(f"expected {_FORM}; got {text!a:.60}") from None


def _bare(text: str) -> str:
    """Return a key without its origin. Raises InvalidMessage."""
    key = KeyExpression.parse_untrusted(text).key
    if isinstance(key, bytes):
        raise InvalidMessage("not a key for a wallet with addresses", expected="an extended public key")
    return str(key)
