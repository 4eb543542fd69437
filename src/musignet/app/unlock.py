"""The key that says yes for a person, from the wallet's passphrase: asked for by the command, never by the node."""

from __future__ import annotations

from pathlib import Path

from ..crypto.keys import ApproverKey
from ..errors import AuthenticationError
from ..net.approver import ApproverFile, load_approver
from ..net.keyfile import LEAST_COST
from ..text import safe
from . import passphrase
from .places import APPROVER_FILE

__all__ = ["unlock"]


def unlock(data: Path, fd: int | None) -> ApproverKey:
    """Return the key that says yes. Raises AuthenticationError for a wrong passphrase: nothing was sent then."""
    file = load_approver(data / APPROVER_FILE)
    key = _unprotected(file)
    if key is None:
        what = f"the wallet in {safe(data, 200)}"
        key = passphrase.ask_until(what, file.unlock) if fd is None else file.unlock(passphrase.from_fd(fd))
    return key


def _unprotected(file: ApproverFile) -> ApproverKey | None:
    """Return the key where no passphrase is needed. Trying costs little."""
    if file.cost != LEAST_COST:
        return None
    try:
        return file.unlock(None)
    except AuthenticationError:
        return None
