"""One piece of a link that goes over relays: what is inside a gift wrap.

byte 0   version, 4 bits | flags, 4 bits
16 B     the link: random, drawn by who dialled; whoever does not know it cannot speak on it
33 B     the sender's identity: where answers go. Claimed, not proved: the handshake inside proves it
4 B      sequence number of this piece    4 B  the next one expected from the other side
2 B      which of the 16 after that are here already, the first in the lowest bit
rest     bytes of the link's stream
"""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

from .. import limits
from ..errors import SerializationError

__all__ = ["DATA", "DIALLER", "FIN", "RESET", "SEGMENT_HEAD_BYTES", "Segment"]

DATA: Final = 1
"""It has a place in the sequence: it is acknowledged, and sent again until then."""
FIN: Final = 2
"""The last piece with a place in the sequence."""
RESET: Final = 4
"""This link is not known here, or was given up."""
DIALLER: Final = 8
"""From the side that dialled: a piece sent back to its sender is for nobody."""

_VERSION: Final = 0
_head: Final = struct.Struct(f">B{limits.RELAY_LINK_ID_BYTES}s33sIIH")
SEGMENT_HEAD_BYTES: Final = _head.size


class Segment(Struct, frozen=True, gc=False):
    """See the module."""

    flags: int
    link: bytes
    sender: bytes
    seq: int = 0
    ack: int = 0
    sack: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """Return its bytes."""
        head = _head.pack(_VERSION << 4 | self.flags, self.link, self.sender, self.seq, self.ack, self.sack)
        return head + self.data

    @classmethod
    def decode_untrusted(cls, data: bytes) -> Segment:
        """Return the segment in these bytes. Raises SerializationError for anything that `encode` does not make."""
        if not SEGMENT_HEAD_BYTES <= len(data) <= SEGMENT_HEAD_BYTES + limits.RELAY_SEGMENT_BYTES:
            raise SerializationError("not a segment", expected="a head and its data", got=f"{len(data)} bytes")
        first, link, sender, seq, ack, sack = _head.unpack_from(data)
        body = data[SEGMENT_HEAD_BYTES:]
        flags = first & 15
        if first >> 4 != _VERSION:
            raise SerializationError("a segment of another version", expected=_VERSION, got=first >> 4)
        if not flags & DATA and (body or seq or flags & FIN):
            raise SerializationError("a segment without a place in the sequence", expected="no data")
        return cls(flags, link, sender, seq, ack, sack, body)
