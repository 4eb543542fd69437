"""What a node says of a link that ended, or is not what it should be."""

from __future__ import annotations

from typing import Final

from ..errors import Action, AuthenticationError, ConnectionError, InvalidMessage, NetworkError, SendError, Timeout
from ..text import safe
from ..wire.channel import CloseReceived
from ..wire.envelope import VerifiedMessage
from ..wire.messages import CloseCode, MessageType
from .peers import PeerRecord

__all__ = ["UNPAIRED_MAY", "cloned", "conflict", "goodbye_error", "not_let_in", "refused_error", "unpaired"]

UNPAIRED_MAY: Final = frozenset(
    (
        MessageType.PING,
        MessageType.PONG,
        MessageType.ACK,
        MessageType.PAIR_HELLO,
        MessageType.PAIR_CONFIRM,
        MessageType.PAIR_END,
    )
)
"""All that a key may say, and be told, before people have confirmed it."""


def not_let_in(peer: PeerRecord, error: NetworkError | None) -> NetworkError:
    """Return why a dial that got as far as a channel came to nothing. It cannot know more than that it was closed."""
    if isinstance(error, (AuthenticationError, Timeout)):
        return error
    return AuthenticationError(
        f"{peer.name} closed the connection before letting us in",
        hint="it may not have our key in its book, or the address belongs to somebody else",
    )


def goodbye_error(peer: PeerRecord, goodbye: CloseReceived) -> NetworkError | None:
    """Return why a peer said goodbye; None where that is in order."""
    if goodbye.code in (CloseCode.DONE, CloseCode.DUPLICATE):
        return None
    if goodbye.code == CloseCode.GOING_AWAY:
        return ConnectionError(f"{peer.name} went away")
    return ConnectionError(
        f"{peer.name} closed the link", got=None, hint=f"it says: {safe(goodbye.text, 200)}" if goodbye.text else ""
    )


def refused_error(peer: PeerRecord, goodbye: CloseReceived) -> SendError:
    """Return why a message is given up: the peer closed the link over it, again and again."""
    said = safe(goodbye.text, 200) or "nothing"
    return SendError(f"{peer.name} closed every link that this message was sent on", hint=f"it says: {said}")


def cloned(peer: PeerRecord) -> AuthenticationError:
    """Return the warning that this node's counters run ahead of it: somebody else signs with its key."""
    return AuthenticationError(
        f"{peer.name} has seen newer messages of this very run than this node has sent",
        hint="a copy of this node is running, or it was resumed from a snapshot: stop one of them",
        action=Action.WARN,
    )


def unpaired(peer: PeerRecord, message: VerifiedMessage) -> InvalidMessage | None:
    """Return the fault of a key that nobody has confirmed, where it speaks of more than its pairing; else None."""
    if message.type in UNPAIRED_MAY:
        return None
    return InvalidMessage(
        "a message before the pairing is confirmed", peer=peer.name, got=f"type {int(message.type)}",
        hint="the link is closed; nothing of it was used",
    )  # fmt: skip


def conflict(peer: PeerRecord, message: VerifiedMessage) -> InvalidMessage:
    """Return the fault of a peer that signed two bodies under one number."""
    return InvalidMessage(
        "two different messages under one number",
        peer=peer.name,
        expected="a message once per boot epoch and sequence number",
        got=f"another body under number {message.body.seq}",
    )
