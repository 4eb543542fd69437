"""Finds the peers of a service's book on the local network, and dials them where they are: no address is typed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ..chain import Chain
from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey
from ..errors import IoError, LocalError, NetworkError, PeerNotFound, Timeout
from ..limits import BEACON_PAUSE_MAX_S, DISCOVERY_PORT
from ..node.addresses import Rank
from ..node.effects import News, PeerDown, PeerUp
from ..node.peers import PeerInfo
from ..node.sightings import Sighting
from ..wire.beacon import Audience
from .discovery import PeerDiscovery, SecondWay
from .folder import DataFolder
from .heard import Heard
from .lan import LAN
from .lan import Heard as Hear
from .peer import Peer

__all__ = ["Discover", "Finder"]

logger = logging.getLogger("musignet")

FIND_TIMEOUT_S: Final = BEACON_PAUSE_MAX_S * 1.2 + 4
"""How long somebody is looked for: the slowest pace of a node, with its jitter, and a dial."""

_ATTEMPTS: Final = 2
"""A dial to the addresses known before may be under way: its end answers the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discover:
    """Where a service looks for its peers.

    Args:
        interfaces: names of network interfaces; `lan` is every private address, `all` all but the loopback.
        port:       the UDP port that all nodes share.
        mdns:       makes a second way for the same beacons: `net.mdns.Mdns`, of the extra `mdns`.
        seen:       called with each sighting that a person may want to know of, and whether it is still there.
        required:   whether the service does not start where the port cannot be had; else `Finder.error` says so.
    """

    interfaces: tuple[str, ...] = (LAN,)
    port: int = DISCOVERY_PORT
    mdns: Callable[[Hear], SecondWay] | None = None
    seen: Callable[[Sighting, bool], object] | None = None
    required: bool = True


class _Network(Protocol):
    """What it needs of a `NetworkService`."""

    @property
    def identity(self) -> Identity: ...
    @property
    def info(self) -> PeerInfo: ...
    def peer_seen(self, peer: str, host: str, port: int, /) -> None: ...
    def peer(self, peer: str, /) -> Peer: ...
    def peers(self) -> list[Peer]: ...
    async def connect_to_peer(self, info: str, /, *, timeout_s: float | None = None) -> Peer: ...


class Finder:
    """See the module. Without settings it does nothing.

    Each confirmed peer of the book shares an audience with this node, by the ECDH of both identities. `add` brings a
    group's: its members need no beacon each. Both are heard; where a group's is, it alone is spoken to.
    """

    def __init__(self, network: _Network, settings: Discover | None, chain: Chain, dial_timeout_s: float) -> None:
        self._network = network
        self._settings = settings
        self._chain = chain
        self._dial_timeout_s = dial_timeout_s
        self._discovery: PeerDiscovery | None = None
        self.error: IoError | None = None
        self._pairs: dict[bytes, Audience] = {}
        self._added: dict[bytes, Audience] = {}
        self._left: set[bytes] = set()
        self._awaited: dict[bytes, asyncio.Future[PeerInfo]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stale = False

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def discovery(self) -> PeerDiscovery:
        """What says and hears beacons. Raises LocalError where it is switched off."""
        if self._discovery is None and self.error is not None:
            raise LocalError(f"discovery does not run: {self.error}", hint="`musignet doctor` says what blocks")
        if self._discovery is None:
            hint = 'set interfaces = ["lan"] in [discovery] of config.toml; in a program, discover=Discover()'
            raise LocalError("discovery is switched off", hint=hint)
        return self._discovery

    @property
    def is_on(self) -> bool:
        """Whether beacons are said and heard."""
        return self._discovery is not None

    async def start(self, folder: DataFolder | None = None) -> None:
        """Begin, once the service listens. Raises IoError without the UDP port, or for a folder that is not ours."""
        settings = self._settings
        if settings is None or not settings.interfaces:
            return
        heard = Heard(folder)
        made = PeerDiscovery(
            self._network.info, settings.port, self._on_peer, identity=self._network.identity, chain=self._chain,
            interfaces=settings.interfaces, mdns=settings.mdns, wanted=self._wants, seen=settings.seen,
            marks=heard.load(), store=heard.store,
        )  # fmt: skip
        try:
            await made.start()
        except IoError as error:
            if settings.required:
                raise
            self.error = error
            return
        self._discovery = made
        self._refresh()
        await made.start_periodic_broadcast()

    async def stop(self) -> None:
        """End it. Doing it twice is harmless."""
        discovery, self._discovery = self._discovery, None
        if discovery is not None:
            await discovery.stop()
        for answer in self._awaited.values():
            if not answer.done():
                answer.set_exception(LocalError("the service was stopped"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- who is looked for --------------------------------------------------------------------------------------------

    def add(self, name: bytes, audience: Audience) -> None:
        """Hear one more audience, a group's or an invite's, and speak to it where this node may."""
        self._added[name] = audience
        self._changed()

    def remove(self, name: bytes) -> None:
        """Hear that one no longer. Nothing happens when it is not there."""
        if self._added.pop(name, None) is not None:
            self._changed()

    def renewed(self, info: PeerInfo) -> None:
        """The book has changed: somebody is new, or has another address."""
        self._left.discard(bytes.fromhex(info.pubkey_hex))
        self._changed()

    def leave(self, key: bytes) -> None:
        """The owner hung up on a peer: it is not dialled until it comes by itself, or is put into the book again."""
        self._left.add(key)

    def forgotten(self, key: bytes) -> None:
        """A peer is not in the book any more: it is spoken to no longer, and cannot follow this node about."""
        self._left.discard(key)
        self._changed()

    def told(self, news: News) -> None:
        """Take in what the node publishes."""
        if isinstance(news, PeerUp):
            self._left.discard(news.key)
        elif isinstance(news, PeerDown):
            self._changed()

    async def find(self, name: bytes, audience: Audience, key: bytes, timeout_s: float = FIND_TIMEOUT_S) -> PeerInfo:
        """Return where a key is that need not be in the book. Raises Timeout; LocalError where it is switched off."""
        discovery = self.discovery
        answer: asyncio.Future[PeerInfo] = asyncio.get_running_loop().create_future()
        self._awaited[key] = answer
        self.add(name, audience)
        seen = discovery.seen_key(key)
        if seen is not None:
            answer.set_result(seen)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise Timeout(
                "nobody with this key was found on the local network", hint="`musignet doctor` says what blocks"
            ) from None
        finally:
            self._awaited.pop(key, None)
            self.remove(name)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Look at the book again, once, after whoever is changing it has done."""
        if self._discovery is not None and not self._stale:
            self._stale = True
            asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        self._stale = False
        if self._discovery is None:
            return
        peers = {bytes.fromhex(one.pubkey_hex): one for one in self._network.peers() if not one.provisional}
        self._pairs = {key: self._pairs.get(key) or self._pair(key) for key in peers}
        own = self._network.identity.pubkey
        covered = {key for one in self._added.values() if own in one.members for key in one.members}
        apart = [audience for key, audience in self._pairs.items() if key not in covered]
        self._discovery.listen([*self._added.values(), *self._pairs.values()], [*self._added.values(), *apart])
        self._discovery.soon()

    def _pair(self, key: bytes) -> Audience:
        return Audience.pair(self._network.identity, PublicKey(key))

    def _wants(self, key: bytes) -> bool:
        """Whether a key is to be dialled where it was seen."""
        if key in self._awaited:
            return True
        try:
            peer = self._network.peer(key.hex())
        except PeerNotFound:
            return False
        if key in self._left or peer.provisional:
            return False
        return peer.path is None or peer.path.rank > Rank.LAN

    def _on_peer(self, found: PeerInfo) -> None:
        answer = self._awaited.get(bytes.fromhex(found.pubkey_hex))
        if answer is not None:
            if not answer.done():
                answer.set_result(found)
            return
        task = asyncio.get_running_loop().create_task(self._reach(found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(self, found: PeerInfo) -> None:
        """Dial a peer of the book where it was seen, too."""
        key = found.pubkey_hex
        for _ in range(_ATTEMPTS):
            try:
                self._network.peer_seen(key, found.host, found.port)
                await self._network.connect_to_peer(key, timeout_s=self._dial_timeout_s)
                return
            except NetworkError as error:
                logger.debug("seen at %s, and not connected: %s", found.host, error)
