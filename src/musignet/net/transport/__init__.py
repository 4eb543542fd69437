"""Carriers: how bytes travel. Each makes authenticated, encrypted links; plaintext does not exist."""

from __future__ import annotations

from .base import Connection, Sink, Transport
from .memory import MemoryNetwork, MemoryTransport
from .tcp import TcpTransport

__all__ = ["Connection", "MemoryNetwork", "MemoryTransport", "Sink", "TcpTransport", "Transport"]
