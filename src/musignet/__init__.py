"""MuSigNet: the network module of a MuSig2 (BIP-327) Bitcoin wallet."""

from __future__ import annotations

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
from .net.handlers import MessageHandler
from .net.keystore import KdfCost, load_identity, save_identity
from .net.peer import Peer
from .net.service import NetworkService
from .net.transport import MemoryNetwork, MemoryTransport, TcpTransport, Transport
from .node.effects import Fault, PeerDown, PeerUp, SessionNews, Undelivered
from .node.peers import PeerInfo, PeerState
from .wire.envelope import Message, SignedMessage, VerifiedMessage
from .wire.messages import Chain, MessageType

__all__ = [
    "Action",
    "AuthenticationError",
    "Chain",
    "ConnectionError",
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
    "Other",
    "Peer",
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
    "Transport",
    "TransportError",
    "Undelivered",
    "VerifiedMessage",
    "load_identity",
    "save_identity",
]
