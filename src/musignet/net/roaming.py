"""Notices that this machine slept, or has other addresses than before: what its links may not have survived.

Nobody tells a program so on every system, so it looks now and then. Looking takes a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import ifaddr

from ..limits import NETWORK_POLL_S
from ..signing.clockjump import JumpDetector, Readings
from .clock import readings

__all__ = ["Roaming", "own_addresses"]


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine's interfaces but the loopback, each with its interface."""
    return frozenset(
        f"{ip.ip if isinstance(ip.ip, str) else ip.ip[0]} on {adapter.name}"
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if ip.ip != "127.0.0.1" and ip.ip[0] != "::1"
    )


class Roaming:
    """Looks every `NETWORK_POLL_S`.

    Args:
        changed:   called with what happened, in words. It is about links: secret nonces have a watch of their own.
        clocks:    reads the clocks.
        addresses: returns this machine's addresses.
    """

    def __init__(
        self,
        changed: Callable[[str], None],
        clocks: Callable[[], Readings] = readings,
        addresses: Callable[[], frozenset[str]] = own_addresses,
    ) -> None:
        self._changed = changed
        self._clocks = clocks
        self._addresses = addresses
        self._jumps = JumpDetector(clocks())
        self._last = addresses()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look, on the running event loop."""
        self._timer = asyncio.get_running_loop().call_later(NETWORK_POLL_S, self._tick)

    def stop(self) -> None:
        """Look no more. Twice is harmless."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.start()
        self.look()

    def look(self) -> None:
        """Compare clocks and addresses with those of the last time.

        A machine that has lost every address is left alone until it has one: asking would only tell that it is offline.
        """
        happened = self._jumps.check(self._clocks(), ticking=True)
        now = self._addresses()
        if happened is None and now and now != self._last:
            news, gone = now - self._last, self._last - now
            happened = f"new address {min(news)}" if news else f"lost address {min(gone)}"
        self._last = now or self._last
        if happened is not None:
            self._changed(happened)
