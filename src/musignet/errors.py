"""Everything MuSigNet raises, in one tree.

    NetworkError
    |-- LocalError                  our own caller asked for something that cannot be
    |   |-- SendError               this message cannot be sent to that peer now
    |   `-- PeerNotFound            no peer of that name or key is in the book
    |-- PeerError                   a peer did something wrong; `.action` says what to do about it
    |   |-- SerializationError      bytes that are not a canonical message
    |   |-- ReceiveError            a frame that breaks the rules of the link
    |   |-- InvalidMessage          a well-formed message that must not be accepted
    |   `-- AuthenticationError     a key, a signature or a handshake that does not hold
    |-- IoError (OSError)           a file, a socket or the store
    |-- ConnectionError (builtins.ConnectionError)
    |                               a link that could not be made, or was lost
    |-- Timeout (TimeoutError)      silence: nobody is proved to be at fault
    |-- TransportError              a carrier that cannot do what was asked
    `-- Other                       a peer's own error report, and what fits nowhere else

The eleven leaves are the kinds of the specification. A sentence says what was expected, what came, from
whom, and what to do next; `text.safe` has been over everything a peer could have chosen.
"""

from __future__ import annotations

import builtins
from enum import Enum

from .text import safe

__all__ = [
    "Action",
    "AuthenticationError",
    "ConnectionError",
    "InvalidMessage",
    "IoError",
    "LocalError",
    "NetworkError",
    "Other",
    "PeerError",
    "PeerNotFound",
    "ReceiveError",
    "SendError",
    "SerializationError",
    "Timeout",
    "TransportError",
]

_TEXT_MAX_CHARS = 240


class Action(Enum):
    """What the receive path does about a peer's fault. One place decides, not every `except`."""

    IGNORE = "ignore"
    """Drop the message and say nothing: it may be honest, for instance a newer version's."""
    WARN = "warn"
    """Drop the message, tell our own side once, keep the link."""
    CLOSE = "close"
    """Close this link. The peer may dial again."""
    ABORT_SESSION = "abort-session"
    """End the signing session it belongs to; the link stays."""


class NetworkError(Exception):
    """The base of everything MuSigNet raises.

    Args:
        text:     what happened, as a sentence without a full stop.
        expected: what should have come, `got` what came instead; shown as `expected ..., got ...`, or one alone.
        peer:     who it came from, as `text.who` names them; shown as `from ...`.
        hint:     what the reader can do next.
    """

    def __init__(
        self, text: str, *, expected: object = None, got: object = None, peer: str = "", hint: str = ""
    ) -> None:
        self.expected = expected
        self.got = got
        self.peer = peer
        self.hint = hint
        parts = [safe(text, _TEXT_MAX_CHARS)]
        if peer:
            parts.append(f" from {safe(peer, _TEXT_MAX_CHARS)}")
        facts = [
            f"{name} {safe(fact, _TEXT_MAX_CHARS)}"
            for name, fact in (("expected", expected), ("got", got))
            if fact is not None
        ]
        if facts:
            parts.append(f": {', '.join(facts)}")
        if hint:
            parts.append(f"; {safe(hint, _TEXT_MAX_CHARS)}")
        self.text = "".join(parts)
        super().__init__(self.text)

    def __str__(self) -> str:
        return self.text


class LocalError(NetworkError):
    """The caller of this library asked for something that cannot be done."""


class PeerError(NetworkError):
    """A peer did something wrong. `action` says what the receive path does about it."""

    action = Action.CLOSE

    def __init__(
        self,
        text: str,
        *,
        expected: object = None,
        got: object = None,
        peer: str = "",
        hint: str = "",
        action: Action | None = None,
    ) -> None:
        super().__init__(text, expected=expected, got=got, peer=peer, hint=hint)
        if action is not None:
            self.action = action


class IoError(NetworkError, OSError):
    """A file, a socket or the store refused. Also an `OSError`."""


class SerializationError(PeerError):
    """Bytes that are not the one canonical encoding of a message. Nothing of them was used."""


class ConnectionError(NetworkError, builtins.ConnectionError):
    """A link could not be made, or was lost. Also the builtin of that name.

    It does not say that the peer is at fault: networks fail by themselves.
    """


class SendError(LocalError):
    """The message was not accepted for sending. Nothing of it has left."""


class ReceiveError(PeerError):
    """A frame that breaks the rules of the link: its MAC, its length or its order. The link is closed."""


class InvalidMessage(PeerError):
    """A well-formed message that must not be accepted: wrong network, recipient, version or meaning."""


class AuthenticationError(PeerError):
    """A handshake, a key or a signature that does not hold, or a passphrase that opens nothing.

    After a dial it means that the other side closed before both were sure of each other: it may not have
    us in its book, hold another key than the one we dialled, or not be a MuSigNet node. It cannot say which.
    """


class PeerNotFound(LocalError):
    """No peer of that name or key is in the book."""


class TransportError(NetworkError):
    """A carrier cannot do what was asked: not started, stopped, no slot, a malformed address."""


class Timeout(NetworkError, TimeoutError):
    """Nothing came in time. Silence proves nothing about anybody. Also the builtin `TimeoutError`."""


class Other(NetworkError):
    """A peer's own error report, and whatever fits nowhere else."""
