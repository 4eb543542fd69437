"""Which address of a group is given out next: a number in a file beside the group, on disk before it is shown."""

from __future__ import annotations

from pathlib import Path

from ..errors import IoError
from ..limits import ADDRESS_INDEX_MAX
from ..net.privatefile import write_whole

__all__ = ["next_index"]


def next_index(groups: Path, group: bytes) -> int:
    """Return the first index that was not given out here yet, and never again.

    Raises: IoError when the file is damaged or cannot be written: then no address is given out.
    """
    path = groups / f"{group.hex()}.next"
    index = _read(path)
    try:
        write_whole(path, "next address", str(index + 1).encode(), overwrite=True)
    except IoError as error:
        raise IoError(error.text, hint="no address was given out") from error
    return index


def _read(path: Path) -> int:
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return 0
    except (OSError, UnicodeDecodeError) as error:
        raise IoError(f"cannot read {path}: {error}", hint="no address was given out") from error
    if not text.isdecimal() or int(text) > ADDRESS_INDEX_MAX:
        raise IoError(f"damaged file {path}", expected="a number", hint="write the next index into it")
    return int(text)
