"""What the system says is wrong with a connection, in words."""

from __future__ import annotations

import os

__all__ = ["spoken"]

_ASYNCIO = "Connect call failed"


def spoken(error: Exception) -> str:
    """Return why something failed. asyncio says where a dial went in place of that: whoever dialled knows."""
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, OSError) and error.errno is not None and str(text).startswith(_ASYNCIO):
        return os.strerror(error.errno)
    return str(text) or type(error).__name__
