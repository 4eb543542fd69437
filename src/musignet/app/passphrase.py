"""Where a passphrase comes from: a terminal, a file descriptor or the keyring of the operating system.

Never the arguments or the environment, which other programs can read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from ..errors import LocalError
from .ending import interrupted
from .passphrase_fd import from_fd
from .tries import until_it_opens

__all__ = ["ask", "ask_new", "ask_until", "from_fd", "from_keyring", "to_keyring"]

T = TypeVar("T")

_SERVICE: Final = "musignet"
_NO_EXTRA: Final = 'the keyring needs an extra: pip install "musignet[keyring]"'


def ask(what: str) -> str:
    """Ask at the terminal. Raises LocalError where there is none to ask at."""
    return _asked(f"Passphrase of {what}", what)


def ask_until(what: str, opens: Callable[[str], T]) -> T:
    """Ask until what is typed opens it, three times at most, and return what was opened.

    Raises: AuthenticationError after the third time; LocalError where there is no terminal.
    """

    def opening(passphrase: str) -> T:
        click.echo("opening it: a second or two", err=True)
        return opens(passphrase)

    return until_it_opens(lambda: ask(what), opening, lambda wrong: click.echo(wrong, err=True))


def ask_new(what: str) -> str:
    """Ask for a new one, twice. Raises LocalError where there is no terminal."""
    return _asked(f"New passphrase for {what}", what, confirmation_prompt=True)


def _asked(question: str, what: str, **options: Any) -> str:
    try:
        answer: str = click.prompt(question, hide_input=True, err=True, **options)
    except click.Abort as prompt:
        if interrupted(prompt):
            raise
        raise LocalError(f"no passphrase for {what}", hint="type it, or give it with --passphrase-fd") from None
    return answer


def from_keyring(folder: str) -> str:
    """Return what the keyring of the operating system has for a data folder. Raises LocalError."""
    try:
        import keyring
    except ModuleNotFoundError:
        raise LocalError(_NO_EXTRA) from None
    try:
        found = keyring.get_password(_SERVICE, folder)
    except keyring.errors.KeyringError as error:
        raise LocalError(f"the keyring cannot be used: {error}", hint="unlock it, or type the passphrase") from error
    if found is None:
        raise LocalError("the keyring has no passphrase for this folder", hint="musignet init --keyring puts it there")
    return found


def to_keyring(folder: str, passphrase: str) -> None:
    """Give the keyring a passphrase to keep. Raises LocalError."""
    try:
        import keyring
    except ModuleNotFoundError:
        raise LocalError(_NO_EXTRA) from None
    try:
        keyring.set_password(_SERVICE, folder, passphrase)
    except keyring.errors.KeyringError as error:
        raise LocalError(f"the keyring cannot be used: {error}", hint="unlock it, or keep the passphrase") from error
