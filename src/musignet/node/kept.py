"""What a node keeps on disk of the messages to and from its peers, and of what it said of its own disk."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

__all__ = ["Box", "Kept"]


class Box(IntEnum):
    """What a record says. The numbers are on disk."""

    OUT = 0
    """A message for a peer, which has not acknowledged it."""
    IN = 1
    """A message of a peer, acknowledged, which the application has not handled."""
    HANDLED = 2
    """The id of one that it has handled: it may come again."""
    ANNOUNCED = 3
    """The newest announcement of a peer: it proves that the peer came back with an old disk."""
    CHANGES = 4
    """Under no peer: the id is how many changes of our sessions were counted, and the envelope, where there is one, the
    announcement of ours that proved our disk old."""


class Kept(Struct, frozen=True, gc=False):
    """One record: in which box, about which message (its 16-byte id), and until when (0: until it is dropped)."""

    box: Box
    message_id: bytes
    envelope: bytes = b""
    expires_ms: int = 0
