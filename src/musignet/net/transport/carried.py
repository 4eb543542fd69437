"""A link that people carry: what is said on it waits in a pile until it leaves as a sealed bundle."""

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

__all__ = ["CarriedLink"]


class CarriedLink:
    """A `Connection`. Each message stays in the pile until the other side acknowledged it, in a bundle of theirs."""

    mail: Final = Mail.ROUNDS
    outbound: Final = False
    transcript: Final = b""
    address: Final = ""
    path: Final = Path(Rank.RELAYED, "hand")

    def __init__(self, number: int, peer: PublicKey) -> None:
        self.number = number
        self.peer = peer
        self.fault = ""
        """Why it was closed from here, if it was for a fault of the other side."""
        self.open = True
        self._hello = b""
        self._pile: dict[bytes, bytes] = {}
        self._acks: dict[bytes, None] = {}

    def send(self, envelope: bytes, priority: int = Priority.BULK) -> None:
        """Put an envelope on the pile. The first one says who we are, and heads each bundle."""
        if not self._hello:
            self._hello = envelope
        else:
            self._pile[Message.from_bytes(envelope).id] = envelope

    def acknowledge(self, message_id: bytes) -> None:
        """Have the next bundles say that this message is here. Beyond a bound the oldest are said no more."""
        self._acks.pop(message_id, None)
        self._acks[message_id] = None
        while len(self._acks) > limits.SEALED_IDS_MAX:
            del self._acks[next(iter(self._acks))]

    def acknowledged(self, ids: bytes) -> None:
        """The other side has these: they need not be carried again."""
        for at in range(0, len(ids), limits.MESSAGE_ID_BYTES):
            self._pile.pop(ids[at : at + limits.MESSAGE_ID_BYTES], None)

    @property
    def acks(self) -> tuple[bytes, ...]:
        """Ids of messages that are here."""
        return tuple(self._acks)

    def envelopes(self) -> tuple[tuple[bytes, ...], int]:
        """Return what fits into one bundle, in the order in which it was said, and how many messages are left over."""
        room = limits.SEALED_MAX_BYTES - 64 * limits.KIB - limits.MESSAGE_ID_BYTES * 2 * len(self._acks)
        chosen = tuple(islice(self._fitting(room - len(self._hello)), limits.SEALED_ENVELOPES_MAX - 1))
        return (self._hello, *chosen), len(self._pile) - len(chosen)

    def _fitting(self, room: int) -> Iterator[bytes]:
        for envelope in self._pile.values():
            if len(envelope) + 5 <= room:
                room -= len(envelope) + 5
                yield envelope

    def flush(self) -> None:
        """Nothing leaves by itself."""

    def close(self, code: CloseCode | None = CloseCode.DONE, text: str = "") -> None:
        """Forget the pile. The node says again on the next link what was not acknowledged."""
        self.open = False
        self.fault = text if code is CloseCode.FAULT else ""
        self._pile.clear()

    def pause_reading(self) -> None:
        """A bundle is read whole."""

    def resume_reading(self) -> None:
        """A bundle is read whole."""
