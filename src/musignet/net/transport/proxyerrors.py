"""How a connection through a proxy fails, by whose fault it is.

ProxyUnreachable    nobody listens where the proxy should be
ProxyFault          somebody does, and it is no SOCKS5 proxy
ProxyRefused        the proxy works, and does not do this for us
BeyondProxy         the proxy tried; the host, or the way to it, is not there
ProxyTimeout        neither an answer nor a refusal in time
"""

from __future__ import annotations

from ...errors import ConnectionError, Timeout

__all__ = ["BeyondProxy", "ProxyFault", "ProxyRefused", "ProxyTimeout", "ProxyUnreachable"]


class ProxyUnreachable(ConnectionError):
    """Nobody listens at the proxy's address. Nothing was tried without it."""


class ProxyFault(ConnectionError):
    """What listens at the proxy's address does not speak SOCKS5, or stopped in the middle of it."""


class ProxyRefused(ConnectionError):
    """The proxy does not open this connection for us."""


class BeyondProxy(ConnectionError):
    """The proxy works, and the host behind it does not answer, refuses, or does not exist."""


class ProxyTimeout(Timeout):
    """No answer through the proxy in time."""
