"""The published vectors of the Bitcoin BIPs, which are JSON."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from .vectors import text

__all__ = ["table"]


@cache
def table(name: str) -> Any:
    """Return one file of the folder, parsed. Skips or fails the calling test when it is not there."""
    return json.loads(text(name))
