"""A passphrase from a file descriptor: in a module of its own, for the keyholder, which imports as little as it can."""

from __future__ import annotations

import os

from ..errors import IoError, LocalError
from ..limits import PASSPHRASE_MAX_BYTES

__all__ = ["from_fd"]


def from_fd(fd: int) -> str:
    """Return the next line of a file descriptor, which is then closed. Raises IoError, LocalError."""
    try:
        with open(fd, "rb", buffering=0) as file:
            data = b""
            while b"\n" not in data and len(data) <= PASSPHRASE_MAX_BYTES and (more := file.read(1)):
                data += more
    except OSError as error:
        raise IoError(f"{os.strerror(error.errno or 0)}: file descriptor {fd}", hint="open it for reading") from error
    if len(data) > PASSPHRASE_MAX_BYTES:
        raise LocalError("the passphrase is too long", expected=f"at most {PASSPHRASE_MAX_BYTES} bytes")
    try:
        return data.decode("utf-8").partition("\n")[0]
    except UnicodeDecodeError:
        raise LocalError("the passphrase is not UTF-8") from None
