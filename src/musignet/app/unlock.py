"""The key that says yes for a person, from the wallet's passphrase: asked for by the command, never by the node."""

from __future__ import annotations

from pathlib import Path

from ..crypto.keys import ApproverKey
from ..errors import AuthenticationError
from ..net.approver import load_approver
from ..net.keyfile import LEAST_COST
from ..text import safe
from . import passphrase
from .places import APPROVER_FILE

__all__ = ["unlock"]


def unlock(data: Path, fd: int | None) -> ApproverKey:
    """Return the key that says yes. Raises AuthenticationError for a wrong passphrase: nothing was sent then."""
    file = load_approver(data / APPROVER_FILE)
    if file.cost == LEAST_COST:  # perhaps without a passphrase; trying costs little
        try:
            return file.unlock(None)
        except AuthenticationError:
            pass
    return file.unlock(passphrase.from_fd(fd) if fd is not None else passphrase.ask(f"the wallet in {safe(data, 200)}"))
