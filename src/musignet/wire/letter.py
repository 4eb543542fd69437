"""A sealed bundle in parts that fit into gift wraps: what is left at a relay for a node that is away. Pure.

16 B  the letter: random      2 B  which part      2 B  of how many      rest  its bytes
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Final

from .. import limits
from ..errors import SerializationError
from .giftwrap import PAYLOAD_MAX_BYTES

__all__ = ["Reassembly", "split"]

_head: Final = struct.Struct(">16sHH")
_PART: Final = PAYLOAD_MAX_BYTES - _head.size
_PARTS_MAX: Final = -(-limits.LETTER_MAX_BYTES // _PART)


def split(sealed: bytes, letter: bytes) -> list[bytes]:
    """Return the parts of a sealed bundle. `letter` is 16 fresh random bytes. Raises SerializationError."""
    if len(sealed) > limits.LETTER_MAX_BYTES:
        raise SerializationError(
            "too much for one letter", expected=f"at most {limits.LETTER_MAX_BYTES} bytes", got=len(sealed)
        )
    pieces = [sealed[at : at + _PART] for at in range(0, len(sealed), _PART)]
    return [_head.pack(letter, number, len(pieces)) + piece for number, piece in enumerate(pieces)]


class Reassembly:
    """Letters of which parts are missing. Anybody can send parts: the oldest letters make room."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, dict[int, bytes]] = OrderedDict()
        self.held_bytes = 0

    def take_untrusted(self, part: bytes) -> bytes | None:
        """Return the letter that this part completes, or None. Raises SerializationError for what is no part."""
        if len(part) <= _head.size:
            raise SerializationError("not a part of a letter", got=f"{len(part)} bytes")
        letter, number, count = _head.unpack_from(part)
        piece = part[_head.size :]
        if not number < count <= _PARTS_MAX or (number < count - 1 and len(piece) != _PART):
            raise SerializationError("not a part of a letter", expected=f"one of at most {_PARTS_MAX}", got=count)
        if count == 1:
            return piece
        parts = self._open.setdefault(letter + count.to_bytes(2), {})
        if number not in parts:
            parts[number] = piece
            self.held_bytes += len(piece)
        if len(parts) == count:
            return self._close(letter + count.to_bytes(2))
        while self.held_bytes > limits.LETTERS_HELD_MAX_BYTES:
            self._close(next(iter(self._open)))
        return None

    def _close(self, key: bytes) -> bytes:
        parts = self._open.pop(key)
        self.held_bytes -= sum(map(len, parts.values()))
        return b"".join(parts[number] for number in sorted(parts))
