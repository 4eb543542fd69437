"""Carriers: how bytes travel. Each makes authenticated, encrypted links; plaintext does not exist."""

from __future__ import annotations

from .base import Connection, Sink, Transport
from .carriers import Carriers
from .memory import MemoryNetwork, MemoryTransport
from .tcp import TcpTransport
from .tls import TlsTransport

__all__ = [
    "Carriers",
    "Connection",
    "MemoryNetwork",
    "MemoryTransport",
    "Sink",
    "TcpTransport",
    "TlsTransport",
    "Transport",
]
