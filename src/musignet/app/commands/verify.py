"""`musignet blame verify`: proof of who broke a ceremony, checked without a node, a network or anybody's word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ...errors import IoError, NetworkError, SerializationError
from ...limits import BLAME_FILE_MAX_BYTES
from ...text import safe, who
from .common import Command, Exit, Failure, json_option, say, show

if TYPE_CHECKING:
    from ...signing.blame import Verdict
    from ...signing.groupfile import GroupFile

__all__ = ["verify"]

_WORDS: Final = {
    "BAD_PARTIAL": "sent a partial signature that does not verify under the nonces it signed for",
    "EQUIVOCATION": "said two different things where only one may be said",
    "MALFORMED": "sent a message that no honest node makes",
    "WRONG_COMPLETION": "sent signatures as final that do not hold",
    "WRONG_TRANSCRIPT": "signed for other nonces than the ones it says it had",
    "WRONG_AGGREGATE": "collected the nonces and signed a sum or a list that is not theirs",
}


@click.command(cls=Command, example="musignet blame verify bob-broke-it.json")
@json_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option(
    "--group", "group_file", type=click.Path(path_type=Path, dir_okay=False), metavar="GROUPFILE",
    help="The group as you know it: a file about another one is refused.",
)  # fmt: skip
def verify(as_json: bool, file: Path, group_file: Path | None) -> None:
    """Check a blame file: the signed messages in it, by themselves.

    It proves a fault or it proves nothing; then it says nothing about who is at fault instead. Without --group the
    names are those of whoever wrote the file.
    """
    from ...signing.blamefile import BlameFile
    from ...signing.groupfile import GroupFile

    try:
        found = BlameFile.parse_untrusted(_read(file))
        expected = None if group_file is None else GroupFile.parse_untrusted(_read(group_file))
    except SerializationError as error:
        raise Failure(str(error), Exit.USAGE, kind="SerializationError") from None
    try:
        verdict = found.judge(expected)
    except NetworkError as error:
        hint = "nobody is proved to be at fault by this file"
        raise Failure(f"{file} proves nothing: {error}", kind="InvalidMessage", hint=hint) from None
    group = expected or found.group
    show(as_json, _facts(verdict, group), lambda: _tell(verdict, group, known=expected is not None))


def _read(file: Path) -> bytes:
    """Return the file, or of a longer one a byte too many. Raises IoError."""
    try:
        with open(file, "rb") as opened:
            return opened.read(BLAME_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise IoError(f"{error.strerror}: {file}", hint="check the path") from error


def _facts(verdict: Verdict, group: GroupFile) -> dict[str, Any]:
    return {
        "pubkey": verdict.accused.hex(),
        "label": group.labels[verdict.accused],
        "kind": verdict.kind.name.lower().replace("_", "-"),
        "proved": True,
        "slot": verdict.slot,
        "session": verdict.session.hex(),
        "group": group.group.id.hex(),
        "group_name": group.name,
    }


def _tell(verdict: Verdict, group: GroupFile, *, known: bool) -> None:
    say(f"proved: {who(group.labels[verdict.accused], verdict.accused)} {_WORDS[verdict.kind.name]}")
    if verdict.slot is not None:
        say(f"  signature {verdict.slot + 1} of the transaction")
    say(f"  key      {verdict.accused.hex()}")
    say(f"  session  {verdict.session.hex()}")
    say(f"  group    {safe(group.name)}, fingerprint {group.fingerprint}")
    if not known:
        say("The names are those of whoever wrote the file; the keys are what is proved. --group compares the group.")
