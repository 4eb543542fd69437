"""`musignet propose`, `reject`, `cancel`, `export`."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import IoError, SerializationError
from ...limits import PSBT_MAX_BYTES
from ..client import path
from .common import Command, Failure, connect, data_option, json_option, say, show
from .sessions import describe, matched

__all__ = ["cancel", "export", "import_", "propose", "reject"]

_MAGIC = b"psbt\xff"
_MISSING = {
    "tx": "there is no finished transaction (yet); musignet show says why, and --psbt writes the PSBT",
    "blame": "nobody is proved to have broken this session; musignet show says how it ended",
}


@click.command(cls=Command, example="musignet propose savings rent.psbt --memo rent")
@data_option
@json_option
@click.argument("group")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE.psbt|-")
@click.option("--memo", default="", help="Words for the other cosigners.")
@click.option(
    "--expires-in", type=click.FloatRange(1, 86_400), default=3600, show_default=True, metavar="SECONDS",
    help="How long people have to approve.",
)  # fmt: skip
def propose(data: Path, as_json: bool, group: str, file: Path, memo: str, expires_in: float) -> None:
    """Ask a group to sign a PSBT.

    FILE holds it in binary or base64; - reads standard input. GROUP is its name or the first digits of its id.
    """
    psbt = base64.b64encode(_psbt(file)).decode()
    body = {"group": group, "psbt": psbt, "memo": memo, "expires_in_s": expires_in}
    found = connect(data).post("/v1/sessions", body)
    show(as_json, found, lambda: _proposed(found))


def _psbt(file: Path) -> bytes:
    """Return a PSBT in binary. Raises IoError, SerializationError."""
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(2 * PSBT_MAX_BYTES)
        else:
            with open(file, "rb") as opened:
                data = opened.read(2 * PSBT_MAX_BYTES)
    except OSError as error:
        raise IoError(f"{error.strerror}: {file}", hint="check the path") from error
    if data.startswith(_MAGIC):
        return data
    try:
        found = base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        found = b""
    if not found.startswith(_MAGIC):
        raise SerializationError(f"{file} is no PSBT", expected="one in binary or base64")
    return found


def _proposed(found: dict[str, Any]) -> None:
    say(f"session {found['id']}")
    say(describe(found))
    say(f"look at it: musignet show {found['id'][:8]}; follow it: musignet watch {found['id'][:8]}")


@click.command(cls=Command, example='musignet reject 1f3a --reason "I do not know this address"')
@data_option
@json_option
@click.argument("session", metavar="ID")
@click.option("--reason", default="", help="The other cosigners are told.")
def reject(data: Path, as_json: bool, session: str, reason: str) -> None:
    """Say no to a session.

    It ends for everybody; the same transaction can be proposed again.
    """
    found = connect(data).post(path("v1", "sessions", session, "reject"), {"reason": reason})
    show(as_json, found, lambda: _left("rejected", found))


@click.command(cls=Command, example="musignet cancel 1f3a")
@data_option
@json_option
@click.argument("session", metavar="ID")
def cancel(data: Path, as_json: bool, session: str) -> None:
    """Leave a session.

    It says so when that comes too late: a signature that has left cannot be called back.
    """
    found = connect(data).post(path("v1", "sessions", session, "cancel"))
    show(as_json, found, lambda: _left("cancelled", found))
    if found["too_late"] and as_json:
        raise SystemExit(1)


def _left(what: str, found: dict[str, Any]) -> None:
    if found["too_late"]:
        raise Failure(
            f"{what}, but too late: your signature had left, and the others may still finish the transaction",
            hint="its coins are kept for it: whatever else spends them, you are asked to approve in its place",
        )
    say(f"{what}: nothing of yours was signed")


@click.command("import", cls=Command, example="musignet import 1f3a signed.psbt")
@data_option
@json_option
@click.argument("session", metavar="ID")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE.psbt|-")
@click.option("--replace", "named", metavar="ID", multiple=True, help="A session that `show` says is given up for it.")
def import_(data: Path, as_json: bool, session: str, file: Path, named: tuple[str, ...]) -> None:
    """Bring a PSBT back from the signer that has this node's key.

    For groups imported with --elsewhere. `musignet export ID --psbt` wrote it; the first time it comes back with the
    signer's nonces, and that is your yes; the second time with its signatures. Nothing else may have been changed.
    """
    client = connect(data)
    replaces = matched(client.get(path("v1", "sessions", session))["session"]["replaces"], named)
    body = {"psbt": base64.b64encode(_psbt(file)).decode(), "replaces": replaces}
    found = client.post(path("v1", "sessions", session, "import"), body)
    show(as_json, found, lambda: say(f"{found['brought']} taken; {describe(found['session'])}"))


@click.command(cls=Command, example="musignet export 1f3a --tx")
@data_option
@json_option
@click.argument("session", metavar="ID")
@click.option("--psbt", "what", flag_value="psbt", help="The PSBT in base64, with what is signed; or for your signer.")
@click.option("--tx", "what", flag_value="tx", default="tx", help="The finished transaction in hex (the default).")
@click.option("--blame", "what", flag_value="blame", help="Who broke it, with the proof: for musignet blame verify.")
def export(data: Path, as_json: bool, session: str, what: str) -> None:
    """Write a session's transaction, PSBT or proof of a fault to standard output."""
    found = connect(data).get(path("v1", "sessions", session, "export"))
    if not found[what]:
        raise Failure(_MISSING[what])
    show(as_json, found, lambda: click.echo(found[what]))
