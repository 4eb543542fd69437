"""The way to a chain backend: straight, or through a proxy. What each client library can do differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult

from ...net.transport.route import is_loopback
from ...wire.onion import check_onion, is_onion
from ..leak import Leak

__all__ = ["STRAIGHT", "ChainWay"]

_SETTING: Final = "[chain] backend"


@dataclass(frozen=True, slots=True)
class ChainWay:
    """Args:
    socks5, http: proxies, as `IP:PORT`; empty for none.
    everything:   whether every backend beyond this machine is reached through one.
    only:         the same; and no name is looked up here, not even that of this machine.
    """

    socks5: str = ""
    http: str = ""
    everything: bool = False
    only: bool = False

    def proxy_for(self, url: SplitResult) -> str | None:
        """Return the proxy that a backend is reached through, or None for straight.

        Raises: Leak where it must be one, and there is none of the kind; TransportError for an impossible .onion.
        """
        host = url.hostname or ""
        if is_onion(host):
            check_onion(host)
        elif self._is_here(host) or not (self.everything or self.only):
            return None
        family = url.scheme.partition("+")[0]
        if family == "core":
            raise Leak(
                _SETTING, "Bitcoin Core on another machine is not reached through a proxy",
                hint="use core+http://127.0.0.1:8332, or an Electrum server",
            )  # fmt: skip
        proxy, key, such_as = _KINDS[family]
        found = getattr(self, proxy)
        if not found:
            raise Leak(
                _SETTING, f"{family.capitalize()} at {host} would be asked without a proxy",
                hint=f'set {key} = "{such_as}" in [proxy]; for this machine write 127.0.0.1',
            )  # fmt: skip
        return str(found)

    def _is_here(self, host: str) -> bool:
        return is_loopback(host) or (host == "localhost" and not self.only)


_KINDS: Final = {
    "electrum": ("socks5", "socks5", "127.0.0.1:9050"),
    "esplora": ("http", "http", "127.0.0.1:9080"),
}
STRAIGHT: Final = ChainWay()
