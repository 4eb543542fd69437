"""`musignet group create`, `join`, `refuse`: a wallet that everybody computes, compares and confirms."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from ...signing.groupfile import GroupFile
from ...text import safe, short_key
from ..client import ApiError, Client, path
from .common import Command, Exit, Failure, connect, data_option, fd, json_option, label, say, show, sure
from .pairing import duration
from .yes import describe_group, prove

__all__ = ["create", "join", "refuse"]

_Found = dict[str, Any]


def _yes_option(command: Any) -> Any:
    command = click.option(
        "--passphrase-fd", type=fd, metavar="N", help="Read the wallet's passphrase from file descriptor N."
    )(command)
    return click.option(
        "--yes-fingerprint",
        metavar='"1F3A 09CC"',
        help="For scripts: confirm if this is the fingerprint, refuse otherwise; - reads it from standard input.",
    )(command)


@click.command(cls=Command, example="musignet group create savings bob carol")
@data_option
@json_option
@click.argument("name", type=label)
@click.argument("members", nargs=-1, required=True)
@click.option(
    "--shape",
    type=click.Choice(["aggregate", "each"]),
    default="aggregate",
    show_default=True,
    help="musig(A,B)/<0;1>/*, which any watch-only wallet can follow; or musig(A/<0;1>/*,B/<0;1>/*).",
)
@click.option("--expires-in", type=duration, default="1h", metavar="TIME", help="Such as 10m, 1h (the default), 24h.")
@_yes_option
def create(
    data: Path,
    as_json: bool,
    name: str,
    members: tuple[str, ...],
    shape: str,
    expires_in: float,
    yes_fingerprint: str | None,
    passphrase_fd: int | None,
) -> None:
    """Found a wallet with peers: everybody compares and confirms it.

    MEMBERS are peers; everybody must be paired with everybody. Each of them is asked: `musignet group join`. The
    members learn an extended public key of this node. The command waits until all have confirmed; it can be ended, and
    `musignet group join` goes on.
    """
    client = connect(data)
    events = client.events(expires_in)
    body = {"name": name, "members": list(members), "shape": shape, "expires_in_s": expires_in}
    found = client.post("/v1/foundings", body)
    if not as_json:
        say(f"proposed; at each other member: musignet group join {found['id'][:8]}")
    _Talk(client, data, as_json, yes_fingerprint, passphrase_fd).follow(events, found["id"])


@click.command(cls=Command, example="musignet group join 1f3a09cc")
@data_option
@json_option
@click.argument("group", metavar="ID")
@click.option("--yes", is_flag=True, help="Take part without being asked.")
@_yes_option
def join(
    data: Path, as_json: bool, group: str, yes: bool, yes_fingerprint: str | None, passphrase_fd: int | None
) -> None:
    """Take part in a group that somebody proposed.

    ID is its name or the first digits of its id: `musignet group list`. The members learn an extended public key of
    this node. Then all screens show a fingerprint and an address, to be compared and confirmed.
    """
    client = connect(data)
    found = client.get(path("v1", "foundings", group))
    events = client.events()
    if found["asks_to_join"]:
        if not as_json:
            _asked(found)
        if not yes and not sure("Take part in this group?"):
            client.post(path("v1", "foundings", found["id"], "refuse"))
            raise Failure("refused: the group is not founded")
        client.post(path("v1", "foundings", found["id"], "join"))
    _Talk(client, data, as_json, yes_fingerprint, passphrase_fd).follow(events, found["id"])


def _asked(found: _Found) -> None:
    say(f"{safe(found['proposer'])} proposes the group {safe(found['name'])}, of {len(found['members'])} who all sign:")
    for one in found["members"]:
        say(f"    {safe(one['label'])} (key {short_key(one['identity'])}){', this node' if one['here'] else ''}")


@click.command(cls=Command, example="musignet group refuse 1f3a09cc")
@data_option
@json_option
@click.argument("group", metavar="ID")
def refuse(data: Path, as_json: bool, group: str) -> None:
    """Take no part in a proposed group.

    It ends for everybody.
    """
    found = connect(data).post(path("v1", "foundings", group, "refuse"))
    show(as_json, found, lambda: say("refused: the group is not founded"))


class _Talk:
    """Follows one founding and asks the person."""

    def __init__(
        self, client: Client, data: Path, as_json: bool, yes_fingerprint: str | None, passphrase_fd: int | None
    ) -> None:
        self._client, self._data, self._as_json = client, data, as_json
        self._yes_fingerprint, self._passphrase_fd = yes_fingerprint, passphrase_fd
        self._said = ""

    def follow(self, events: Iterator[_Found], founding: str) -> None:
        """Go on until it is founded. Raises Failure when it comes to nothing."""
        while True:
            found = self._client.get(path("v1", "foundings", founding))
            if found["error"]:
                raise Failure(found["error"], kind="AuthenticationError", hint="nothing was pinned")
            if found["founded"]:
                show(self._as_json, found, partial(_founded, found))
                return
            if found["asks_to_confirm"]:
                self._confirm(found)
                continue
            self._progress(found)
            _wait(events, founding)

    def _progress(self, found: _Found) -> None:
        names = ", ".join(safe(one) for one in found["waiting_for"])
        line = f"{found['step']}{': ' + names if names else ''}"
        if line != self._said and not self._as_json:
            self._said = line
            say(line)

    def _confirm(self, found: _Found) -> None:
        group = GroupFile.parse_untrusted(base64.b64decode(found["file"]))
        show(
            self._as_json,
            {"fingerprint": group.fingerprint, "address": group.group.wallet.address(0, 0), **found},
            partial(describe_group, group, found["members"]),
        )
        if not self._same(group):
            self._client.post(path("v1", "foundings", found["id"], "refuse"))
            raise Failure("not confirmed: the group is not founded", kind="AuthenticationError")
        proof = prove(self._data, group.group.id, self._passphrase_fd)
        try:
            self._client.post(path("v1", "foundings", found["id"], "confirm"), {"proof": proof.hex()})
        except ApiError:
            if not self._client.get(path("v1", "foundings", found["id"]))["error"]:
                raise  # otherwise it has ended meanwhile, and that error says why

    def _same(self, group: GroupFile) -> bool:
        if self._yes_fingerprint is None:
            return sure("Do all screens show this fingerprint and this address?")
        given = sys.stdin.readline() if self._yes_fingerprint == "-" else self._yes_fingerprint
        return "".join(given.lower().split()) == "".join(group.fingerprint.split())


def _founded(found: _Found) -> None:
    name = safe(found["name"])
    say(f"{name} is founded. Keep its group file with your words: musignet group export {name} --file > {name}.json")


def _wait(events: Iterator[_Found], founding: str) -> None:
    """Return when something happened to a founding."""
    for event in events:
        if event["event"] == "missed" or event.get("founding") == founding:
            return
    raise Failure("the node stopped", Exit.NOT_RUNNING, kind="NotRunning", hint="start it again: musignet run")
