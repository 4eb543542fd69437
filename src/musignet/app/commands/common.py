"""What commands share: options, exit codes, and errors that are one sentence and say what to do next."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click

from ...errors import LocalError, NetworkError
from ...limits import API_CLIENT_TIMEOUT_S
from ...node.addresses import parse_address, parse_listen
from ...text import name_fault, safe
from ..client import ApiError, Client, NotRunning
from ..ending import interrupted, unwinding
from ..places import API_SOCKET

__all__ = [
    "Command",
    "Exit",
    "Failure",
    "address",
    "connect",
    "data_folder",
    "data_option",
    "fd",
    "json_option",
    "label",
    "meanwhile",
    "place",
    "run_async",
    "say",
    "show",
    "size",
    "sure",
]

_ADDRESS = "HOST:PORT"
_F = TypeVar("_F", bound=Callable[..., Any])


class Exit(IntEnum):
    """What a command's end tells a script."""

    OK = 0
    REFUSED = 1
    """Refused or failed; the sentence says why."""
    USAGE = 2
    """Wrong arguments."""
    NOT_RUNNING = 3
    """No node runs on that data folder."""
    TIMEOUT = 4
    """Nothing came in time; it proves nothing about anybody."""
    INTERRUPTED = 130


class Failure(click.ClickException):
    """The end of a command that did not do what it was asked."""

    def __init__(self, text: str, code: Exit = Exit.REFUSED, *, kind: str = "Refused", hint: str = "") -> None:
        shown = text if hint in text else f"{text}; {hint}"
        super().__init__(safe(shown, len(shown)))
        self.exit_code = code  # type: ignore[misc]
        self.facts = {"error": text, "kind": kind, "hint": hint}


class Command(click.Command):
    """A command of ours: what the library raises becomes one sentence and an exit code; with `--json`, one object."""

    def __init__(self, name: str | None, *, example: str, **options: Any) -> None:
        super().__init__(name, epilog=f"\b\nExample: {example}", **options)
        self.example = example

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with unwinding():
                return super().invoke(ctx)
        except Failure as error:
            failure = error
        except NetworkError as error:
            failure = _failure(error)
        except KeyboardInterrupt:
            raise _interrupted() from None
        except click.Abort as prompt:
            if interrupted(prompt):
                raise _interrupted(*prompt.args) from None
            failure = Failure("nobody is there to answer", hint="--help has the options that answer in advance")
        if ctx.params.get("as_json"):
            click.echo(json.dumps(failure.facts), err=True)
            raise SystemExit(failure.exit_code)
        raise failure


def _interrupted(said: str = "") -> SystemExit:
    """Return the end by Ctrl-C. At a terminal the line that it was typed in ends, too."""
    if sys.stderr.isatty():
        click.echo("\n" + said if said else "", err=True)
    return SystemExit(Exit.INTERRUPTED)


def _failure(error: NetworkError) -> Failure:
    code = Exit.REFUSED
    if isinstance(error, NotRunning):
        code = Exit.NOT_RUNNING
    elif isinstance(error, TimeoutError) or (isinstance(error, ApiError) and error.kind == "Timeout"):
        code = Exit.TIMEOUT
    kind = error.kind if isinstance(error, ApiError) else type(error).__name__
    return Failure(str(error), code, kind=kind, hint=error.hint)


# --- options ------------------------------------------------------------------------------------------------------


def data_folder() -> Path:
    """Return the data folder that is used unless an option says otherwise."""
    return Path(os.environ.get("MUSIGNET_DATA") or Path.home() / ".musignet")


def data_option(command: _F) -> _F:
    """`--data DIR`: whose node."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="MUSIGNET_DATA",
        default=data_folder,
        help="The data folder; ~/.musignet unless MUSIGNET_DATA names another.",
    )(command)


def json_option(command: _F) -> _F:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on standard output, and nothing else.")(command)


def label(value: str) -> str:
    """A name of at most 64 characters, with something to see in it."""
    if fault := name_fault(value):
        raise click.BadParameter(f"{fault}; such as alice, of printable characters")
    return value


def address(value: str) -> tuple[str, int]:
    """`HOST:PORT`, with IPv6 in brackets: where something listens."""
    try:
        return parse_listen(value)
    except LocalError:
        raise click.BadParameter(f"expected {_ADDRESS}, such as 192.0.2.7:8001; got {value!a}") from None


def fd(value: str) -> int:
    """A file descriptor that whoever started this command has opened."""
    try:
        os.fstat(number := int(value))
    except (OSError, OverflowError, ValueError):
        raise click.BadParameter(f"file descriptor {value:.20} is not open") from None
    return number


def place(value: str) -> str:
    """Where a peer is dialled, as `node.addresses` reads it."""
    try:
        return parse_address(value).text
    except LocalError as error:
        raise click.BadParameter(f"expected {error.expected}; got {value!a}") from None


# --- doing --------------------------------------------------------------------------------------------------------


def connect(data: Path, timeout_s: float = API_CLIENT_TIMEOUT_S) -> Client:
    """Return a client of the node that runs on a data folder. It waits for one answer as long as is said."""
    return Client(data / API_SOCKET, timeout_s)


def say(text: str = "") -> None:
    """Print one line for a person, in printable ASCII whatever a peer chose (THREATS.md Z1)."""
    click.echo(safe(text, max(len(text), 1)))


def sure(question: str, *, err: bool = True) -> bool:
    """Ask yes or no; nobody there is a no. Raises click.Abort for Ctrl-C, which is no answer."""
    try:
        return click.confirm(question, default=None, err=err)
    except click.Abort as prompt:
        if interrupted(prompt):
            raise
        return False


def meanwhile(as_json: bool, text: str) -> None:
    """Say what takes longer than a second, to the person who waits: on standard error, beside the answer."""
    if not as_json:
        click.echo(safe(text, len(text)), err=True)


def size(count: float) -> str:
    """Return a number of bytes as people say it: `1.5 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def show(as_json: bool, facts: object, lines: Callable[[], Any]) -> None:
    """Print facts as JSON, or let `lines` print them for a person."""
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=True))
    else:
        lines()


def run_async(work: Coroutine[Any, Any, int | None], *, verbose: bool = False, logged: bool = False) -> None:
    """Run a command to its end. Ctrl-C is a normal end. `logged`: the log is set up already."""
    if not logged:
        level = logging.INFO if verbose else logging.CRITICAL
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        code = _runner()(work)
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    raise SystemExit(code or Exit.OK)


def _runner() -> Callable[[Coroutine[Any, Any, int | None]], int | None]:
    import asyncio

    try:
        import uvloop
    except ImportError:  # where it does not exist, asyncio's own loop does the same
        return asyncio.run
    return uvloop.run
