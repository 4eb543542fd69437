"""The published test vectors: where they lie, and what happens where they do not.

They are read from `MUSIGNET_VECTORS_DIR`, or from `../shared/vectors` beside the repository. Without the folder a test
skips with the reason; with `MUSIGNET_VECTORS=required`, as in CI, it fails.
"""

from __future__ import annotations

import csv
import io
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Return where the vectors should be."""
    given = os.environ.get("MUSIGNET_VECTORS_DIR")
    return Path(given) if given else _REPOSITORY.parent / "shared" / "vectors"


def text(name: str) -> str:
    """Return one file of the folder. Skips or fails the calling test when it is not there."""
    path = folder() / name
    if path.is_file():
        return path.read_text("utf-8")
    reason = f"no published vectors: {name} is not in {folder()}; set MUSIGNET_VECTORS_DIR"
    if os.environ.get("MUSIGNET_VECTORS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def bip340() -> tuple[dict[str, str], ...]:
    """Return the rows of bip340.csv."""
    return tuple(csv.DictReader(io.StringIO(text("bip340.csv"))))


@cache
def bolt8() -> tuple[dict[str, Any], ...]:
    """Return the cases of bolt8.json: each a `name` and `fields`, a list of pairs in the order of the appendix."""
    return tuple(json.loads(text("bolt8.json"))["cases"])
