"""The identity of a data folder, opened. It needs little of the node, so that whoever starts it is asked at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..crypto.keys import Identity
from ..errors import IoError, LocalError
from ..net.keyfile import is_encrypted
from ..net.keystore import load_identity
from .places import IDENTITY_FILE

__all__ = ["encrypted", "open_identity"]

_HEAD_BYTES = 16


def encrypted(path: Path) -> bool:
    """Return whether a key file wants a passphrase. Raises IoError."""
    try:
        with open(path, "rb") as file:
            return is_encrypted(file.read(_HEAD_BYTES))
    except OSError as error:
        raise IoError(f"{error.strerror}: key file {path}", hint="check the file and who owns it") from error


def open_identity(folder: Path, ask: Callable[[Callable[[str], Identity]], Identity]) -> tuple[Identity, bool]:
    """Return the identity of a data folder, and whether its file is not encrypted. It takes a second.

    Args:   ask - gets a passphrase, and returns what the function that it is given makes of it.
    Raises: AuthenticationError for a wrong passphrase, IoError, SerializationError.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        raise LocalError(f"no {path}", hint=f"make it: musignet init --data {folder}")
    if not encrypted(path):
        return load_identity(path, None), True
    return ask(lambda phrase: load_identity(path, phrase)), False
