"""MuSigNet: the network module of a MuSig2 (BIP-327) Bitcoin wallet.

A name is imported when it is first used: the command line, and a program that uses little, start quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crypto.keys import Identity
    from .errors import (
        Action,
        AuthenticationError,
        ConnectionError,
        InvalidMessage,
        IoError,
        LocalError,
        NetworkError,
        Other,
        PeerError,
        PeerNotFound,
        ReceiveError,
        SendError,
        SerializationError,
        Timeout,
        TransportError,
    )
    from .limits import Limits
    from .net.discovery import PeerDiscovery
    from .net.finder import Discover
    from .net.handlers import MessageHandler
    from .net.keystore import KdfCost, load_identity, save_identity
    from .net.peer import Peer
    from .net.service import NetworkService
    from .net.transport import MemoryNetwork, MemoryTransport, TcpTransport, TlsTransport, Transport
    from .node.effects import Expired, Fault, OldDisk, PeerDown, PeerUp, SessionNews, Undelivered
    from .node.peers import PeerInfo, PeerState
    from .wire.beacon import Audience
    from .wire.envelope import Message, SignedMessage, VerifiedMessage
    from .wire.messages import Chain, MessageType

__all__ = [
    "Action",
    "Audience",
    "AuthenticationError",
    "Chain",
    "ConnectionError",
    "Discover",
    "Expired",
    "Fault",
    "Identity",
    "InvalidMessage",
    "IoError",
    "KdfCost",
    "Limits",
    "LocalError",
    "MemoryNetwork",
    "MemoryTransport",
    "Message",
    "MessageHandler",
    "MessageType",
    "NetworkError",
    "NetworkService",
    "OldDisk",
    "Other",
    "Peer",
    "PeerDiscovery",
    "PeerDown",
    "PeerError",
    "PeerInfo",
    "PeerNotFound",
    "PeerState",
    "PeerUp",
    "ReceiveError",
    "SendError",
    "SerializationError",
    "SessionNews",
    "SignedMessage",
    "TcpTransport",
    "Timeout",
    "TlsTransport",
    "Transport",
    "TransportError",
    "Undelivered",
    "VerifiedMessage",
    "load_identity",
    "save_identity",
]

_HOMES = {
    "Action": ".errors",
    "Audience": ".wire.beacon",
    "AuthenticationError": ".errors",
    "Chain": ".wire.messages",
    "ConnectionError": ".errors",
    "Discover": ".net.finder",
    "Expired": ".node.effects",
    "Fault": ".node.effects",
    "Identity": ".crypto.keys",
    "InvalidMessage": ".errors",
    "IoError": ".errors",
    "KdfCost": ".net.keystore",
    "Limits": ".limits",
    "LocalError": ".errors",
    "MemoryNetwork": ".net.transport",
    "MemoryTransport": ".net.transport",
    "Message": ".wire.envelope",
    "MessageHandler": ".net.handlers",
    "MessageType": ".wire.messages",
    "NetworkError": ".errors",
    "NetworkService": ".net.service",
    "OldDisk": ".node.effects",
    "Other": ".errors",
    "Peer": ".net.peer",
    "PeerDiscovery": ".net.discovery",
    "PeerDown": ".node.effects",
    "PeerError": ".errors",
    "PeerInfo": ".node.peers",
    "PeerNotFound": ".errors",
    "PeerState": ".node.peers",
    "PeerUp": ".node.effects",
    "ReceiveError": ".errors",
    "SendError": ".errors",
    "SerializationError": ".errors",
    "SessionNews": ".node.effects",
    "SignedMessage": ".wire.envelope",
    "TcpTransport": ".net.transport",
    "Timeout": ".errors",
    "TlsTransport": ".net.transport",
    "Transport": ".net.transport",
    "TransportError": ".errors",
    "Undelivered": ".node.effects",
    "VerifiedMessage": ".wire.envelope",
    "load_identity": ".net.keystore",
    "save_identity": ".net.keystore",
}
"""Each name and the module that it comes from; a test holds it against the imports above."""

if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """Import a public name at its first use (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
