"""SOCKS5 (RFC 1928, 1929), through python-socks: sockets whose other end is beyond a proxy. An extra: `musignet[tor]`.

Names travel to the proxy as text; what goes wrong is told by `proxyerrors`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from ipaddress import ip_address
from secrets import token_bytes
from typing import Final

from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio import Proxy as SocksProxy

from ...crypto.schnorr import TaggedHash
from ...errors import LocalError, NetworkError, TransportError
from ...limits import SOCKS_TEXT_MAX_BYTES, Limits
from ...text import safe
from .proxyerrors import BeyondProxy, ProxyFault, ProxyRefused, ProxyTimeout, ProxyUnreachable

__all__ = ["Proxy"]

_isolation = TaggedHash("musignet/socks-isolation")

# RFC 1928 section 6, by whose fault it is.
_REFUSALS: Final = frozenset((0x01, 0x02, 0x07, 0x08))
_BEYOND: Final = frozenset((0x03, 0x04, 0x05, 0x06))
_TORS_OWN: Final = re.compile(r"Invalid reply code: 0XF[0-7]", re.ASCII)
"""What Tor answers about onion services where its SocksPort has the flag ExtendedErrors; no code of RFC 1928."""
_LOGIN: Final = re.compile(r"authentication (failure|methods were offered)", re.ASCII)


class Proxy:
    """One SOCKS5 proxy. An `Opener`.

    Args:
        host:      its IP address: a name would have to be looked up.
        username, password: where it wants a login. Without them each peer gets a login of its own, which Tor takes as
                   a wish for a path of its own (`IsolateSOCKSAuth`), and most others pass over.
        timeout_s: for the whole of one connection, until the far end is there.

    Raises: LocalError for what is no IP address, or a login that SOCKS5 cannot say.
    """

    def __init__(
        self, host: str, port: int, username: str = "", password: str = "", *, timeout_s: float | None = None
    ) -> None:
        if not _is_address(host):
            raise LocalError("not the address of a proxy", expected="an IP address, no name", got=host)
        self.host = host
        _check_login(username, password)
        self.port = port
        self.name = f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"
        self._login = (username, password)
        self._timeout_s = Limits().proxy_dial_timeout_s if timeout_s is None else timeout_s
        self._salt = token_bytes(16)

    async def open_socket(self, host: str, port: int, *, isolation: bytes = b"") -> socket.socket:
        """Return a connected, non-blocking socket to a host, looked up by the proxy. Whoever gets it closes it.

        Args:   isolation - whom it is for: a peer's key, or anything else that wants a path of its own.
        Raises: those of `proxyerrors`; TransportError for what is no address.
        """
        try:
            return await self._dial(host, port, isolation)
        except NetworkError:
            raise
        except ProxyTimeoutError:
            raise ProxyTimeout(
                f"{safe(host, 80)}:{port} through the proxy at {self.name}: no answer within {self._timeout_s:g} s",
                hint="Tor may still be starting, or the peer's onion service is away",
            ) from None
        except ProxyConnectionError as error:
            raise ProxyUnreachable(
                f"no proxy at {self.name}", got=_reason(error), hint="is Tor running? its SocksPort is 9050, or 9150"
            ) from None
        except ProxyError as error:
            raise self._told(error, f"{safe(host, 80)}:{port}") from None
        except OSError as error:
            raise self._fault(error.strerror or str(error)) from None

    async def _dial(self, host: str, port: int, isolation: bytes) -> socket.socket:
        if not 0 < port <= 65_535 or not _sayable(host):
            raise TransportError(f"{safe(host, 80)}:{port} is no address that a proxy can be asked for")
        username, password = self._login_for(isolation)
        proxy = SocksProxy(
            ProxyType.SOCKS5, self.host, self.port, username, password, rdns=True, loop=asyncio.get_running_loop()
        )
        try:
            return await proxy.connect(host, port, timeout=self._timeout_s)
        except ValueError as error:  # the name of the far end, which nobody needs, is no text
            raise self._fault(str(error)) from None

    def _login_for(self, isolation: bytes) -> tuple[str | None, str | None]:
        """Return the login for a peer: it tells the proxy that two connections belong together, and not to whom."""
        username, password = self._login
        if username or not isolation:
            return username or None, password or None
        drawn = _isolation(self._salt, isolation).hex()
        return drawn[:32], drawn[32:]

    def _told(self, error: ProxyError, where: str) -> NetworkError:
        reason, code = safe(error, 120), error.error_code
        if code in _BEYOND or _TORS_OWN.fullmatch(reason):
            return BeyondProxy(
                f"{where} cannot be reached through the proxy at {self.name}", got=reason,
                hint="is the node running, and the address right?",
            )  # fmt: skip
        if code in _REFUSALS:
            return ProxyRefused(
                f"the proxy at {self.name} does not connect us to {where}", got=reason,
                hint="Tor may still be starting; it never connects to private addresses",
            )  # fmt: skip
        if _LOGIN.search(reason):
            return ProxyRefused(
                f"the proxy at {self.name} does not let us in", got=reason, hint="name its login in [proxy]: login"
            )
        return self._fault(reason)

    def _fault(self, got: str) -> ProxyFault:
        return ProxyFault(
            f"what listens at {self.name} does not answer as a SOCKS5 proxy does", got=got, hint="is it the right port?"
        )


def _check_login(username: str, password: str) -> None:
    """RFC 1929: one byte of length for each."""
    for one in (username, password):
        if not one.isascii() or len(one) > SOCKS_TEXT_MAX_BYTES or bool(username) != bool(password):
            raise LocalError("not a login for SOCKS5", expected="user and password, 1 to 255 ASCII characters each")


def _sayable(host: str) -> bool:
    """RFC 1928: a name is at most 255 bytes. We say only such as are in ASCII already, and no half of an IP address."""
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdecimal():
        return _is_address(host)
    fits = host.isascii() and host.isprintable() and len(host) <= SOCKS_TEXT_MAX_BYTES
    return fits and all(0 < len(label) < 64 for label in labels)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _reason(error: OSError) -> str:
    found = re.search(r"\[(.*)\]$", error.strerror or "")
    return found[1] if found else str(error)
