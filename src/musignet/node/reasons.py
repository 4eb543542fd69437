"""What a node says of a link that ended, or is not what it should be."""

from __future__ import annotations

from ..errors import Action, AuthenticationError, ConnectionError, NetworkError, SendError, Timeout
from ..text import safe
from ..wire.channel import CloseReceived
from ..wire.messages import CloseCode
from .peers import PeerRecord

__all__ = ["cloned", "goodbye_error", "not_let_in", "refused_error"]


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
