"""Finds the peers of a service's book on the local network, and dials them where they are: no address is typed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ..chain import Chain
from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey
from ..errors import LocalError, NetworkError, PeerNotFound, Timeout
from ..limits import BEACON_PAUSE_MAX_S, DISCOVERY_PORT
from ..node.effects import News, PeerDown, PeerUp
from ..node.peers import PeerInfo, PeerState
from ..wire.beacon import Audience
from .discovery import PeerDiscovery
from .lan import ALL
from .peer import Peer

__all__ = ["Discover", "Finder"]

FIND_TIMEOUT_S: Final = BEACON_PAUSE_MAX_S * 1.2 + 4
"""How long somebody is looked for: the slowest pace of a node, with its jitter, and a dial."""

_ATTEMPTS: Final = 2
"""A dial to another address may be under way: its end answers the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discover:
    """Where a service looks for its peers: names of network interfaces, and the UDP port that all nodes share."""

    interfaces: tuple[str, ...] = (ALL,)
    port: int = DISCOVERY_PORT


class _Network(Protocol):
    """What it needs of a `NetworkService`."""

    @property
    def identity(self) -> Identity: ...
    @property
    def info(self) -> PeerInfo: ...
    def add_peer(self, info: PeerInfo, /) -> None: ...
    def peer(self, peer: str, /) -> Peer: ...
    def peers(self) -> list[Peer]: ...
    async def connect_to_peer(self, info: str, /, *, timeout_s: float | None = None) -> Peer: ...


class Finder:
    """See the module. Without settings it does nothing.

    Each confirmed peer of the book shares an audience with this node, by the ECDH of both identities. `add` brings a
    group's: its members need no beacon each. Both are heard; where a group's is, it alone is spoken to.

    An address that somebody typed is kept: what was found takes its place for as long as the link lasts.
    """

    def __init__(self, network: _Network, settings: Discover | None, chain: Chain, dial_timeout_s: float) -> None:
        self._network = network
        self._settings = settings
        self._chain = chain
        self._dial_timeout_s = dial_timeout_s
        self._discovery: PeerDiscovery | None = None
        self._pairs: dict[bytes, Audience] = {}
        self._added: dict[bytes, Audience] = {}
        self._left: set[bytes] = set()
        self._typed: dict[str, tuple[str, int]] = {}
        self._found: dict[str, tuple[str, int]] = {}
        self._awaited: dict[bytes, asyncio.Future[PeerInfo]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stale = False

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def discovery(self) -> PeerDiscovery:
        """What says and hears beacons. Raises LocalError where it is switched off."""
        if self._discovery is None:
            hint = 'set interfaces = ["all"] in [discovery] of config.toml; in a program, discover=Discover()'
            raise LocalError("discovery is switched off", hint=hint)
        return self._discovery

    @property
    def is_on(self) -> bool:
        """Whether beacons are said and heard."""
        return self._discovery is not None

    async def start(self) -> None:
        """Begin, once the service listens. Raises IoError when the UDP port cannot be had."""
        settings = self._settings
        if settings is None or not settings.interfaces:
            return
        made = PeerDiscovery(
            self._network.info, settings.port, self._on_peer, identity=self._network.identity,
            interfaces=settings.interfaces, chain=self._chain, wanted=self._wants,
        )  # fmt: skip
        await made.start()
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
        """Hear one more audience, a group's or an invite's, and speak to it where this node is a member."""
        self._added[name] = audience
        self._changed()

    def remove(self, name: bytes) -> None:
        """Hear that one no longer. Nothing happens when it is not there."""
        if self._added.pop(name, None) is not None:
            self._changed()

    def renewed(self, info: PeerInfo) -> None:
        """The book has changed: somebody is new, or has another address."""
        if self._found.get(info.pubkey_hex) != (info.host, info.port):
            self._typed.pop(info.pubkey_hex, None)
        self._left.discard(bytes.fromhex(info.pubkey_hex))
        self._changed()

    def leave(self, key: bytes) -> None:
        """The owner hung up on a peer: it is not dialled until it comes by itself, or is put into the book again."""
        self._left.add(key)

    def told(self, news: News) -> None:
        """Take in what the node publishes."""
        if isinstance(news, PeerUp):
            self._left.discard(news.key)
        elif isinstance(news, PeerDown):
            self._restore(news.key.hex())
            self._changed()

    def typed(self, info: PeerInfo) -> PeerInfo:
        """Return what is known of a peer with the address that somebody typed, not the one that was found."""
        host, port = self._typed.get(info.pubkey_hex, (info.host, info.port))
        return replace(info, host=host, port=port)

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
            del self._awaited[key]
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
        return key not in self._left and not peer.provisional and peer.state is not PeerState.CONNECTED

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
        """Dial a peer of the book where it was seen. Where that comes to nothing, the address it had stays."""
        key, place = found.pubkey_hex, (found.host, found.port)
        for _ in range(_ATTEMPTS):
            try:
                peer = self._network.peer(key)
                if peer.state is PeerState.CONNECTED:
                    return
                self._move(peer.info, place)
                await self._network.connect_to_peer(key, timeout_s=self._dial_timeout_s)
                return
            except NetworkError:
                self._restore(key)

    def _move(self, info: PeerInfo, place: tuple[str, int]) -> None:
        self._typed.setdefault(info.pubkey_hex, (info.host, info.port))
        self._found[info.pubkey_hex] = place
        self._network.add_peer(replace(info, host=place[0], port=place[1]))

    def _restore(self, key: str) -> None:
        """Give a peer the address back that somebody typed. One without keeps what was found."""
        host, port = self._typed.get(key, ("", 0))
        if not port:
            return
        del self._typed[key]
        try:
            info = self._network.peer(key).info
        except PeerNotFound:
            return
        self._network.add_peer(replace(info, host=host, port=port))
