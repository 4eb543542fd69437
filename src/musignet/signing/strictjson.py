"""JSON that two readers cannot read differently: one value per key, known keys only, and bounded."""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec

from ..errors import SerializationError
from ..text import safe

__all__ = ["read_untrusted", "write"]

StructT = TypeVar("StructT", bound=msgspec.Struct)

_REASON_MAX_CHARS: Final = 120


def read_untrusted(data: bytes, kind: type[StructT], what: str, most: int, expected: str) -> StructT:
    """Return what a JSON text of at most `most` bytes holds. `kind` forbids unknown fields and bounds the others.

    Args:   what     - what it should be, for the sentence: "group file".
            expected - how one is made.
    Raises: SerializationError for anything else.
    """
    if len(data) > most:
        raise SerializationError(f"not a {what}", expected=f"at most {most} bytes", got=len(data))
    try:
        # msgspec would take the last of two equal keys; two readers could then see two things in one file.
        read = json.loads(data.decode("utf-8"), object_pairs_hook=_no_key_twice)
        return msgspec.convert(read, kind, strict=True)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"not a {what}", expected=expected, got=safe(error, _REASON_MAX_CHARS)) from None


def write(value: msgspec.Struct) -> bytes:
    """Return the JSON text of a struct, for people to read: its fields in their order, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found
