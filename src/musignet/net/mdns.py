"""A second way for beacons: mDNS and DNS-SD (RFC 6762, 6763), for networks that pass it on and nothing else. An extra.

The beacons stand in the TXT record of a service under a random name, sealed as in a datagram. Where a service is, its
address record says, and nobody proves that: whoever dials it only does so on a network of this machine, once in 30 s,
and hangs up on whoever has not the key. That is what somebody who can send from any address could cause, too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, Final

from zeroconf import Error, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from ..errors import TransportError
from ..limits import BEACON_HOUR_S, BEACONS_PER_ROUND_MAX, MDNS_ADDRESSES_MAX, MDNS_LOOKS_MAX, MDNS_TIMEOUT_S
from .lan import Heard

__all__ = ["SERVICE", "Mdns"]

SERVICE: Final = "_musignet._tcp.local."
_WAY: Final = "mDNS"
_NAME_BYTES: Final = 8


class Mdns:
    """See the module. A `SecondWay` of `PeerDiscovery`; used from the event loop."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._said: AsyncServiceInfo | None = None
        self._said_at = float("-inf")
        self._saying = False
        self._looking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, addresses: Sequence[str]) -> None:
        """Hear what is said on the interfaces with these addresses. Raises TransportError."""
        if not addresses:
            raise TransportError("mDNS does not start: no interface with an IPv4 address", hint="see `musignet doctor`")
        try:
            self._zeroconf = AsyncZeroconf(interfaces=list(addresses))
        except (OSError, RuntimeError, Error) as error:
            raise TransportError(f"mDNS does not start: {error}", hint="see `musignet doctor`") from error
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._changed])

    async def stop(self) -> None:
        """Say goodbye and hear nothing more. Doing it twice is harmless."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        used, self._zeroconf = self._zeroconf, None
        if used is not None:
            if self._browser is not None:
                await self._browser.async_cancel()
            await used.async_unregister_all_services()
            await used.async_close()

    def say(self, datagrams: Sequence[bytes], addresses: Sequence[str], port: int) -> None:
        """Say these beacons in place of the last ones. Returns at once; while it is busy, they are left out."""
        if self._zeroconf is not None and not self._saying and datagrams:
            self._saying = True
            self._do(self._say(self._zeroconf, list(datagrams)[:BEACONS_PER_ROUND_MAX], addresses, port))

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _say(self, used: AsyncZeroconf, datagrams: list[bytes], addresses: Sequence[str], port: int) -> None:
        now = asyncio.get_running_loop().time()
        try:
            if self._said is None or now - self._said_at > BEACON_HOUR_S:
                if self._said is not None:  # a name no longer than a tag
                    await (await used.async_unregister_service(self._said))
                self._said_at = now
                self._said = self._service(secrets.token_hex(_NAME_BYTES), datagrams, addresses, port)
                await (await used.async_register_service(self._said))
            else:
                self._said = self._service(self._said.name.partition(".")[0], datagrams, addresses, port)
                await (await used.async_update_service(self._said))
        finally:
            self._saying = False

    def _service(self, name: str, datagrams: list[bytes], addresses: Sequence[str], port: int) -> AsyncServiceInfo:
        packed = [ip_address(one.partition("%")[0]).packed for one in addresses]
        texts: dict[str | bytes, str | bytes | None] = {f"b{number}": one for number, one in enumerate(datagrams)}
        return AsyncServiceInfo(
            SERVICE, f"{name}.{SERVICE}", addresses=packed, port=port, properties=texts, server=f"{name}.local."
        )

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange, **_: Any
    ) -> None:
        gone = state_change is ServiceStateChange.Removed
        own = self._said is not None and name == self._said.name
        if not gone and not own and name not in self._looking and len(self._looking) < MDNS_LOOKS_MAX:
            self._looking.add(name)
            self._do(self._look(zeroconf, name))

    async def _look(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            found = AsyncServiceInfo(SERVICE, name)
            if await found.async_request(zeroconf, 1000 * MDNS_TIMEOUT_S):
                self._take(found)
        finally:
            self._looking.discard(name)

    def _take(self, found: AsyncServiceInfo) -> None:
        """Hear the beacons of a service, from each of its addresses: the first on a network of ours counts."""
        addresses = found.parsed_scoped_addresses()[:MDNS_ADDRESSES_MAX]
        for number in range(BEACONS_PER_ROUND_MAX):
            datagram = found.properties.get(f"b{number}".encode())
            if datagram is None:
                return
            for address in addresses:
                self._heard(datagram, address, _WAY)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # what the library could not send is lost, as a datagram would be
