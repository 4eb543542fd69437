"""What a process gives up before it sees a key (THREATS.md "Secret hygiene", K15)."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

if sys.platform != "win32":
    import resource

__all__ = ["NO_NETWORK", "closed", "harden"]

NO_NETWORK: Final = ("socket", "_socket", "ssl", "_ssl", "asyncio", "http", "selectors", "multiprocessing")
_PR_SET_DUMPABLE: Final = 4


def harden() -> None:
    """Be `closed`, and import no module that reaches a network.

    The last is against accidents, such as a dependency that grows a habit. Code that runs here could undo it.
    """
    closed()
    sys.modules.update(dict.fromkeys(NO_NETWORK))  # type: ignore[arg-type]  # None: an import of it raises ImportError


def closed() -> None:
    """No core dumps, no debugger of the same user, files for nobody else. A node is that, too."""
    os.umask(0o077)
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
