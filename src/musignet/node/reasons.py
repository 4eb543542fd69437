"""What a node says of a link that ended, or is not what it should be."""

from __future__ import annotations

from typing import Final

from ..errors import (
    Action,
    AuthenticationError,
    ConnectionError,
    InvalidMessage,
    LocalError,
    NetworkError,
    SendError,
    Timeout,
)
from ..text import safe
from ..wire.channel import CloseReceived
from ..wire.envelope import VerifiedMessage
from ..wire.messages import CloseCode, MessageType
from .peers import PeerRecord

__all__ = [
    "UNPAIRED_MAY",
    "cloned",
    "conflict",
    "goodbye_error",
    "not_let_in",
    "old_disk",
    "refused_error",
    "unannounced",
    "unpaired",
]

UNPAIRED_MAY: Final = frozenset(
    (
        MessageType.PING,
        MessageType.PONG,
        MessageType.ACK,
        MessageType.PAIR_HELLO,
        MessageType.PAIR_CONFIRM,
        MessageType.PAIR_END,
        MessageType.ANNOUNCEMENT_SHOWN,  # who paired us before our disk was lost may show it; our signature counts
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


def unannounced(peer: PeerRecord, message: VerifiedMessage) -> InvalidMessage:
    """Return the fault of a peer whose first message on a link is another than its announcement."""
    return InvalidMessage("no announcement", peer=peer.name, expected="PeerAnnouncement first", got=repr(message))


def cloned(peer: PeerRecord) -> AuthenticationError:
    """Return the warning that this node's counters run ahead of it: somebody else signs with its key."""
    return AuthenticationError(
        f"{peer.name} has seen newer messages of this very run than this node has sent",
        hint="a copy of this node is running, or it was resumed from a snapshot: stop one of them",
        action=Action.WARN,
    )


def old_disk(peer: str, age_s: float) -> LocalError:
    """Return why sessions end: this node came back with an old disk. `age_s`: how long ago it signed what was shown."""
    return LocalError(
        f"this node came back with an old disk, or a new one: {peer} showed what this node signed {_ago(age_s)}, "
        "and the disk does not have it",
        hint="sessions from before this start ended: propose them again; see whether another copy of this disk runs; "
        "a partial signature that left since the copy cannot be called back, and its coins are not locked here",
    )


def _ago(age_s: float) -> str:
    minutes = max(0, int(age_s // 60))
    if minutes < 120:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // 1440} days ago"


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
