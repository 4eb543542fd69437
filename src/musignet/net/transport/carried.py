"""Mail links: what is said on them waits in a pile until it leaves as a sealed bundle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from ... import limits
from ...crypto.schnorr import PublicKey
from ...node.addresses import Path, Rank
from ...node.peers import Mail
from ...wire.envelope import Message
from ...wire.messages import CloseCode, Priority

__all__ = ["CarriedLink", "Pile"]


class Pile:
    """What every mail link has. Each message stays here until the other side acknowledged it, in a bundle of theirs."""

    transcript: Final = b""

    def __init__(self, number: int, peer: PublicKey) -> None:
        self.number = number
        self.peer = peer
        self.open = True
        self.hello = b""
        self.pile: dict[bytes, bytes] = {}
        self.acks: dict[bytes, None] = {}
        """Ids of messages that are here, the newest last."""

    def send(self, envelope: bytes, priority: int = Priority.BULK) -> None:
        """Put an envelope on the pile. The first one says who we are, and heads each bundle."""
        if not self.hello:
            self.hello = envelope
        else:
            self.pile[Message.from_bytes(envelope).id] = envelope

    def acknowledge(self, message_id: bytes) -> None:
        """Have the next bundles say that this message is here. Beyond a bound the oldest are said no more."""
        self.acks.pop(message_id, None)
        self.acks[message_id] = None
        while len(self.acks) > limits.SEALED_IDS_MAX:
            del self.acks[next(iter(self.acks))]

    def acknowledged(self, ids: bytes) -> None:
        """The other side has these: they need not leave again."""
        for at in range(0, len(ids), limits.MESSAGE_ID_BYTES):
            self.pile.pop(ids[at : at + limits.MESSAGE_ID_BYTES], None)

    def pause_reading(self) -> None:
        """A bundle is read whole."""

    def resume_reading(self) -> None:
        """A bundle is read whole."""


class CarriedLink(Pile):
    """A `Connection` that people carry."""

    mail: Final = Mail.ROUNDS
    outbound: Final = False
    address: Final = ""
    path: Final = Path(Rank.RELAYED, "hand")

    fault = ""
    """Why it was closed from here, if it was for a fault of the other side."""

    def envelopes(self) -> tuple[tuple[bytes, ...], int]:
        """Return what fits into one bundle, in the order in which it was said, and how many messages are left over."""
        room = limits.SEALED_MAX_BYTES - 64 * limits.KIB - limits.MESSAGE_ID_BYTES * 2 * len(self.acks)
        chosen = tuple(islice(self._fitting(room - len(self.hello)), limits.SEALED_ENVELOPES_MAX - 1))
        return (self.hello, *chosen), len(self.pile) - len(chosen)

    def _fitting(self, room: int) -> Iterator[bytes]:
        for envelope in self.pile.values():
            if len(envelope) + 5 <= room:
                room -= len(envelope) + 5
                yield envelope

    def flush(self) -> None:
        """Nothing leaves by itself."""

    def close(self, code: CloseCode | None = CloseCode.DONE, text: str = "") -> None:
        """Forget the pile. The node says again on the next link what was not acknowledged."""
        self.open = False
        self.fault = text if code is CloseCode.FAULT else ""
        self.pile.clear()
