"""`musignet outbox export` and `musignet inbox import`: what people carry on a stick, or show as QR codes."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import click

from ...errors import IoError, SerializationError
from ...limits import QR_FRAMES_PER_S, SEALED_MAX_BYTES, UR_LINE_MAX_CHARS, UR_PART_BYTES
from ...text import safe
from ...wire.ur import UrDecoder, parts
from ..client import path
from ..qr import show_qr
from .common import Command, Failure, connect, data_option, json_option, say, show
from .pairing import duration

__all__ = ["export", "import_"]

_UR = b"ur:"
_HOME = "\x1b[H\x1b[J"
"""Cursor home, and clear what is below: the next frame takes the place of the last."""


@click.command(cls=Command, example="musignet outbox export --to bob for-bob.sealed")
@data_option
@json_option
@click.option("--to", "peer", required=True, metavar="PEER", help="For whom: only they can open it.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), required=False)
@click.option("--qr", is_flag=True, help="As animated QR codes, until Ctrl-C.")
@click.option("--ur", type=click.IntRange(1), metavar="N", help="As N lines of text, one for each QR code.")
@click.option(
    "--expires-in", type=duration, default="168h", metavar="TIME", help="Such as 10m, 24h; 168h (the default)."
)
def export(
    data: Path, as_json: bool, peer: str, file: Path | None, qr: bool, ur: int | None, expires_in: float
) -> None:
    """Seal what waits for a peer, into a file or QR codes.

    Messages, and what open sessions have to say to the peer: all that they have not acknowledged yet. FILE is written
    anew; - is standard output. Their answer comes back the same way: `musignet inbox import`.
    """
    if (file is not None) + qr + (ur is not None) != 1:
        raise click.UsageError("give FILE, or --qr, or --ur N")
    found = connect(data).post(path("v1", "outbox", peer), {"expires_in_s": expires_in})
    sealed = base64.b64decode(found["sealed"])
    told = f"{_messages(found['messages'])} for {safe(found['peer'])}, {found['acknowledged']} acknowledged"
    if found["left"]:
        told += f"; {found['left']} did not fit: export again once these are acknowledged"
    if file is not None:
        _write(file, sealed)
        show(as_json and str(file) != "-", {**found, "sealed": ""}, lambda: click.echo(told, err=True))
    elif ur is not None:
        for line in islice(parts(sealed, UR_PART_BYTES), ur):
            click.echo(line)
    else:
        _animate(sealed, told)


def _messages(number: int) -> str:
    return f"{number} message{'' if number == 1 else 's'}"


def _write(file: Path, sealed: bytes) -> None:
    try:
        if str(file) == "-":
            sys.stdout.buffer.write(sealed)
            sys.stdout.buffer.flush()
            return
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
            opened.write(sealed)
    except OSError as error:
        raise IoError(f"{error.strerror}: {safe(file, 200)}", hint="is there room, and may you write there?") from error


def _animate(sealed: bytes, told: str) -> None:
    """Show part after part until somebody presses Ctrl-C."""
    if not sys.stdout.isatty():
        raise Failure("no terminal to show QR codes at", hint="--ur N writes them as lines of text")
    try:
        for number, line in zip(count(1), parts(sealed, UR_PART_BYTES), strict=False):
            click.echo(_HOME, nl=False)
            if not show_qr(line):
                raise Failure(
                    'no QR code here: it needs pip install "musignet[node]" and a terminal with UTF-8', hint="or --ur N"
                )
            say(f"{told}. Frame {number}; Ctrl-C once it is scanned")
            time.sleep(1 / QR_FRAMES_PER_S)
    except KeyboardInterrupt:
        say()


@click.command("import", cls=Command, example="musignet inbox import for-me.sealed")
@data_option
@json_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE|-")
def import_(data: Path, as_json: bool, file: Path) -> None:
    """Take in what a peer has sealed.

    FILE is what `musignet outbox export` wrote, or has the text of QR codes, one a line, in any order; - reads standard
    input, and ends as soon as the codes are complete. Each message goes through the checks of a link, and counts once.
    """
    sealed = base64.b64encode(_sealed(file)).decode()
    found = connect(data).post("/v1/inbox", {"sealed": sealed})
    show(as_json, found, lambda: _brought(found))
    if found["fault"]:
        raise SystemExit(1)


def _sealed(file: Path) -> bytes:
    try:
        if str(file) == "-":
            return _read(sys.stdin.buffer)
        with open(file, "rb") as opened:
            return _read(opened)
    except OSError as error:
        raise IoError(f"{error.strerror}: {safe(file, 200)}", hint="check the path") from error


def _read(source: Any) -> bytes:
    """Return what a file or the texts in it hold. Raises SerializationError, Failure."""
    first = source.readline(SEALED_MAX_BYTES + 1)
    if not first.strip().lower().startswith(_UR) and b"QR-Code:" not in first[:16]:
        return bytes(first + source.read(SEALED_MAX_BYTES + 1))
    decoder, unread = UrDecoder(), 0
    for line in _lines(first, source):
        try:
            whole = decoder.add_untrusted(line)
        except SerializationError:
            unread += 1
            continue
        if whole is not None:
            return whole
    here, of = decoder.progress
    raise Failure(
        f"the QR codes are not complete: {here} of {of} pieces, {unread} lines that are no part of them",
        hint="go on scanning; parts may be missing, repeated and in any order",
    )


def _lines(first: bytes, source: Any) -> Iterator[str]:
    """Yield each line that may be a part; scanners put the name of the code's kind before it."""
    line = first
    while line:
        yield line.decode("ascii", "replace").strip().removeprefix("QR-Code:")
        line = source.readline(UR_LINE_MAX_CHARS)


def _brought(found: dict[str, Any]) -> None:
    kinds = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(found["messages"].items()))
    say(f"from {safe(found['peer'])}: {kinds or 'no messages'}; they have {_messages(found['acknowledged'])} of ours")
    if found["fault"]:
        say(f"one of them broke a rule, and nothing behind it was taken: {safe(found['fault'], 200)}")
