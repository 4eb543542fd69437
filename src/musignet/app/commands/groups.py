"""`musignet group list`, `show`, `address`, `export`, `import`."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click

from ...bitcoin.bip32 import synthetic
from ...bitcoin.descriptor import checksum
from ...errors import IoError
from ...limits import GROUP_FILE_MAX_BYTES
from ...signing.groupfile import GroupFile
from ...text import safe
from ..client import path
from ..qr import show_qr
from .common import Command, Failure, connect, data_option, fd, json_option, say
from .common import show as show_facts
from .yes import describe_group, prove

__all__ = ["address", "export", "import_", "list_", "show_", "watch_only"]


@click.command("list", cls=Command, example="musignet group list")
@data_option
@json_option
def list_(data: Path, as_json: bool) -> None:
    """List the groups of this node, and those that wait to be founded."""
    client = connect(data)
    groups, foundings = client.get("/v1/groups"), client.get("/v1/foundings")
    waiting = [one for one in foundings if not one["over"]]
    show_facts(as_json, {"groups": groups, "foundings": waiting}, lambda: _lines(groups, waiting))


def _lines(groups: list[dict[str, Any]], waiting: list[dict[str, Any]]) -> None:
    if not groups and not waiting:
        say("no groups yet; found one with your peers: musignet group create NAME PEER...")
    for one in groups:
        members = ", ".join("you" if member["here"] else safe(member["label"]) for member in one["members"])
        say(f"{safe(one['name']):16} {one['fingerprint']}  {one['network']:8}  {members}")
    for one in waiting:
        what = f"musignet group join {one['id'][:8]}" if one["asks_to_join"] or one["asks_to_confirm"] else one["step"]
        say(f"{safe(one['name']):16} proposed by {safe(one['proposer'])}: {what}")


@click.command("show", cls=Command, example="musignet group show savings")
@data_option
@json_option
@click.argument("name")
def show_(data: Path, as_json: bool, name: str) -> None:
    """Show one group: members, fingerprint, descriptor."""
    found = connect(data).get(path("v1", "groups", name))
    show_facts(as_json, found, lambda: describe_group(_file(found), found["members"]))


def _file(found: dict[str, Any]) -> GroupFile:
    return GroupFile.parse_untrusted(base64.b64decode(found["file"]))


@click.command(cls=Command, example="musignet group address savings --next --qr")
@data_option
@json_option
@click.argument("name")
@click.option("--next", "fresh", is_flag=True, help="The next one, which is not given out again.")
@click.option("--index", type=click.IntRange(0), help="The one of this number; 0 unless given.")
@click.option("--qr", is_flag=True, help="As a QR code too.")
def address(data: Path, as_json: bool, name: str, fresh: bool, index: int | None, qr: bool) -> None:
    """Show a receiving address of a group."""
    if fresh and index is not None:
        raise click.UsageError("--next and --index exclude each other")
    client, route = connect(data), path("v1", "groups", name, "address")
    found = client.post(route) if fresh else client.get(route, index=index or 0)
    group = _file(client.get(path("v1", "groups", name)))
    if group.group.wallet.address(0, found["index"]) != found["address"]:
        raise Failure("the node shows another address than the group has", hint="do not use it; import the group again")
    show_facts(as_json, found, lambda: _address(found, qr))


def _address(found: dict[str, Any], qr: bool) -> None:
    click.echo(found["address"])
    if qr and not show_qr(found["address"]):
        say('no QR code here: it needs pip install "musignet[node]" and a terminal with UTF-8')


@click.command(cls=Command, example="musignet group export savings --watch-only")
@data_option
@json_option
@click.argument("name")
@click.option("--descriptor", "what", flag_value="descriptor", default="descriptor", help="For Bitcoin Core 31 and up.")
@click.option("--watch-only", "what", flag_value="watch_only", help="For any wallet that watches addresses (BIP-328).")
@click.option("--file", "what", flag_value="file", help="The group file: with its seed it restores a device.")
def export(data: Path, as_json: bool, name: str, what: str) -> None:
    """Write a group's descriptor, watch-only descriptor or group file.

    The group file has no secret in it, but shows every address. Keep it where the seed's words are.
    """
    group = _file(connect(data).get(path("v1", "groups", name)))
    if what == "file":
        text = group.encode().decode()
    elif what == "watch_only":
        text = watch_only(group)
    else:
        text = str(group.group.wallet.descriptor)
    show_facts(as_json, {what: text}, lambda: click.echo(text.rstrip("\n")))


def watch_only(group: GroupFile) -> str:
    """Return the descriptor of the aggregate key, which derives the same addresses. Raises Failure for other shapes."""
    wallet = group.group.wallet
    if not wallet.descriptor.path:
        raise Failure(
            "this group has no watch-only descriptor: each key is derived before they are aggregated",
            hint="use --descriptor with Bitcoin Core 31 or newer; --shape aggregate has one",
        )
    key = synthetic(wallet.descriptor.aggregated(0, 0).key, wallet.chain)
    body = f"tr({key}/<0;1>/*)"
    return f"{body}#{checksum(body)}"


@click.command("import", cls=Command, example="musignet group import savings.json")
@data_option
@json_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--elsewhere", is_flag=True, help="This node's key in it is in another signer (docs/bridge.md).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--passphrase-fd", type=fd, metavar="N", help="Read the wallet's passphrase from file descriptor N.")
def import_(data: Path, as_json: bool, file: Path, elsewhere: bool, yes: bool, passphrase_fd: int | None) -> None:
    """Be a member again, on a device restored from its seed.

    FILE is a group file of any member. This device must have the seed of one: `musignet init --restore`. Or, with
    --elsewhere, another signer has the key, and PSBTs go there: `musignet export ID --psbt`, `musignet import ID FILE`.
    """
    raw = _read(file)
    group = GroupFile.parse_untrusted(raw)
    if not as_json:
        describe_group(group, None)
    if not yes and not click.confirm("Is this your group?", err=True):
        raise Failure("not imported")
    proof = b"" if elsewhere else prove(data, group.group.id, passphrase_fd)
    body = {"file": base64.b64encode(raw).decode(), "proof": proof.hex(), "elsewhere": elsewhere}
    found = connect(data).post("/v1/groups/import", body)
    what = "is here, with its key in another signer" if elsewhere else "is here again, and the others know this device"
    show_facts(as_json, found, lambda: say(f"{safe(group.name)} {what}"))


def _read(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(GROUP_FILE_MAX_BYTES + 1)
    except OSError as error:
        hint = "a group file: musignet group export NAME --file"
        raise IoError(f"{error.strerror}: {safe(file, 200)}", hint=hint) from error
