"""`PeerDiscovery`: nodes of one local network find each other, by beacons over UDP broadcast and multicast."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from ..chain import Chain
from ..crypto.keys import Identity
from ..errors import IoError, LocalError, TransportError
from ..limits import (
    BEACON_NONCE_BYTES,
    BEACON_PAUSE_MAX_S,
    BEACON_PAUSE_MIN_S,
    BEACON_PORT_MIN,
    BEACON_REPLY_S,
    BEACONS_PER_ROUND_MAX,
    BOOT_EPOCH_BYTES,
    DISCOVERY_PORT,
    LOOK_MAX_S,
)
from ..node.peers import PeerInfo
from ..node.sightings import Mark, Sighting, Sightings, Unheard
from ..text import short_key
from ..wire.beacon import Audience, Beacon, announce, seal
from .guard import guarded
from .lan import LAN, Heard, Interface, Lan, interfaces

__all__ = ["PeerDiscovery", "SecondWay"]

_JITTER = 0.2


class SecondWay(Protocol):
    """Carries the same beacons in another way, such as `net.mdns.Mdns`. Made with what is called for each one heard."""

    async def start(self, addresses: Sequence[str]) -> None:
        """Begin, on the interfaces with these IPv4 addresses. Raises TransportError."""
        ...

    def say(self, datagrams: Sequence[bytes], addresses: Sequence[str], port: int) -> None:
        """Say these beacons of a node that listens there, in place of the last ones. Returns at once."""
        ...

    async def stop(self) -> None:
        """End it. Doing it twice is harmless."""
        ...


class PeerDiscovery:
    """Says that this node is here, to those who can read it, and hears who else is.

        discovery = PeerDiscovery(network.info, 8738, on_peer, identity=network.identity)
        discovery.listen([Audience.pair(network.identity, bob_key)])
        await discovery.start()
        await discovery.start_periodic_broadcast()

    Args:
        info:     this node, as `NetworkService.info`: its key, and where it listens. A node that listens nowhere hears,
                  and says nothing.
        port:     the UDP port that all share.
        callback: called with the `PeerInfo` of a key of an audience that was seen, at most once in 30 s for each: where
                  to dial it. Its `id` is its label, or the first digits of its key.
        identity: signs the beacons.
        interfaces: names of network interfaces; `all` is every one but the loopback, `lan` their private addresses.
        mdns:     makes a second way for the same beacons: `net.mdns.Mdns`, of the extra `mdns`.
        chain:    the Bitcoin network; others' beacons are not heard.
        wanted:   asked whether a key (33 bytes) is to be dialled at all before the callback is called for it.
        seen:     called with each sighting that a person may want to know of: `changed`, or not there any longer.
        marks:    what an earlier run has heard, by key.
        store:    called with the marks when they have changed, before the callback.
    """

    def __init__(
        self,
        info: PeerInfo,
        port: int = DISCOVERY_PORT,
        callback: Callable[[PeerInfo], object] | None = None,
        *,
        identity: Identity,
        interfaces: Sequence[str] = (LAN,),
        mdns: Callable[[Heard], SecondWay] | None = None,
        chain: Chain = Chain.MAINNET,
        wanted: Callable[[bytes], bool] = lambda key: True,
        seen: Callable[[Sighting, bool], object] | None = None,
        marks: Mapping[bytes, Mark] | None = None,
        store: Callable[[Mapping[bytes, Mark]], object] | None = None,
    ) -> None:
        if info.pubkey_hex != identity.pubkey_hex:
            raise LocalError("this is another node's info", hint="pass your own: NetworkService.info")
        self.info = info
        self._callback = callback
        self._wanted = wanted
        self._seen = seen
        self._store = store
        self._identity = identity
        self._names = tuple(interfaces)
        self._chain = chain
        self._lan = Lan(port, self._heard)
        self._mdns = None if mdns is None else mdns(self._heard)
        self.sightings = Sightings(identity.pubkey, chain, marks)
        self._speaks_to: tuple[Audience, ...] = ()
        self._turn = 0
        self._open_until = float("-inf")
        self._epoch = secrets.token_bytes(BOOT_EPOCH_BYTES)
        self._seq = 0
        self._listens_at: IPv4Address | IPv6Address | None = None
        self._periodic = False
        self._pause = BEACON_PAUSE_MIN_S
        self._last_round_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The UDP port."""
        return self._lan.port

    @property
    def problems(self) -> dict[str, str]:
        """What the system said where something could not be sent or heard, by the way; empty is well."""
        return dict(self._lan.problems)

    def interfaces(self) -> list[Interface]:
        """Return the interfaces that it looks on, as they are now."""
        return interfaces(self._names)

    async def start(self) -> None:
        """Hear beacons from now on. Raises IoError when the port cannot be had, TransportError when it was started."""
        if self._running:
            raise TransportError("discovery runs already", hint="start it once")
        self._listens_at = await _resolved(self.info.host)
        self._lan.open()
        self._running = True
        found = self._look_around()
        if self._mdns is not None:
            await self._start_mdns(self._mdns, found)

    async def _start_mdns(self, mdns: SecondWay, found: list[Interface]) -> None:
        try:
            await mdns.start([str(one.ip) for it in found for one in it.v4])
        except TransportError as error:
            self._lan.problems["mDNS"] = str(error)

    async def stop(self) -> None:
        """Say and hear nothing more. Doing it twice is harmless."""
        self._running = self._periodic = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lan.close()
        if self._mdns is not None:
            await self._mdns.stop()

    # --- who can read it ----------------------------------------------------------------------------------------------

    def listen(self, audiences: Iterable[Audience], speak_to: Iterable[Audience] | None = None) -> None:
        """Hear these audiences' beacons, and no others; say that we are here to those in `speak_to`, or to all.

        An audience that this node may not speak to is heard only.
        """
        audiences = tuple(audiences)
        self.sightings.listen(audiences)
        own = self._identity.pubkey
        self._speaks_to = tuple(one for one in (audiences if speak_to is None else speak_to) if one.admits(own))
        if self._turn >= len(self._speaks_to):
            self._turn = 0

    def look(self, for_s: float) -> None:
        """Take note of open beacons for a while: a person is looking."""
        self.sightings.look(time.time() + min(for_s, LOOK_MAX_S))

    def announce_openly(self, for_s: float) -> None:
        """Show key and label to everybody on the network for a while: a person has asked for it. 0 ends it."""
        self._open_until = time.time() + min(for_s, LOOK_MAX_S)
        self.soon()

    # --- saying it ----------------------------------------------------------------------------------------------------

    async def broadcast_discovery(self) -> int:
        """Say once that we are here. Returns how many datagrams left."""
        return self._round()

    async def start_periodic_broadcast(self) -> None:
        """Say so from now on: at once, soon again, and then more and more seldom. Returns at once."""
        if not self._running:
            raise TransportError("discovery does not run", hint="await start() first")
        self._periodic = True
        self._pause = BEACON_PAUSE_MIN_S
        self._next()

    def soon(self) -> None:
        """Something has changed: say so at once, a second after the last round at the earliest, then more seldom."""
        if self._periodic:
            self._pause = BEACON_PAUSE_MIN_S
            since = asyncio.get_running_loop().time() - self._last_round_at
            self._arm(max(BEACON_REPLY_S, BEACON_PAUSE_MIN_S - since))

    def _next(self) -> None:
        self._round()
        if self._turn:  # audiences are left for the next round
            self._arm(BEACON_PAUSE_MIN_S)
            return
        self._arm(self._pause)
        self._pause = min(BEACON_PAUSE_MAX_S, self._pause * 2)

    def _arm(self, pause_s: float) -> None:
        """Set the next round: not later than planned, and with jitter, so that a power cut does not line nodes up."""
        loop = asyncio.get_running_loop()
        at = loop.time() + pause_s * (1 + _JITTER * (2 * random.random() - 1))
        if self._timer is not None and loop.time() < self._timer.when() <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._next)

    def _round(self) -> int:
        """Send one beacon for each audience whose turn it is, by every way."""
        self._last_round_at = asyncio.get_running_loop().time()
        found = self._look_around()
        for gone in self.sightings.forget(time.time()):
            self._show(gone, False)
        at = self._listens_at
        if at is None or self.info.port < BEACON_PORT_MIN:
            return 0
        families = (4, 6) if at.is_unspecified and at.version == 6 else (at.version,)
        found = [one for one in found if one.has(at)]
        ways = [way for one in found for way in self._lan.ways(one, families)]
        datagrams = list(self._datagrams())
        if self._mdns is not None:
            addresses = [str(one) for it in found for one in it.addresses if _listens(at, one)]
            self._mdns.say(datagrams, addresses, self.info.port)
        return sum(self._lan.send(datagram, way) for datagram in datagrams for way in ways)

    def _datagrams(self) -> Iterable[bytes]:
        turn = self._speaks_to[self._turn : self._turn + BEACONS_PER_ROUND_MAX]
        self._turn = 0 if self._turn + len(turn) >= len(self._speaks_to) else self._turn + len(turn)
        for audience in turn:
            nonce = secrets.token_bytes(BEACON_NONCE_BYTES)
            yield seal(self._beacon(), self._identity, self._chain, audience, nonce)
        if time.time() < self._open_until:
            yield announce(self._beacon(self.info.id), self._identity, self._chain)

    def _beacon(self, label: str = "") -> Beacon:
        self._seq += 1
        now_ms = int(time.time() * 1000)
        return Beacon(self._identity.pubkey, self._epoch, self._seq, now_ms, self.info.port, label)

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _look_around(self) -> list[Interface]:
        """Return the interfaces that are there now: cables are pulled, and laptops carried away."""
        try:
            found = interfaces(self._names)
        except OSError as error:  # no descriptor left, for instance: the next round looks again
            self._lan.problems["interfaces"] = str(error.strerror)
            return []
        self._lan.problems.pop("interfaces", None)
        self.sightings.reach(network for one in found for network in one.networks)
        self._lan.join(found)
        return found

    def _heard(self, data: bytes, source: str, way: str) -> None:
        now = time.time()
        sighting = self.sightings.heard(data, source, way, now)
        if isinstance(sighting, Unheard):
            return
        if sighting.changed:
            self._show(sighting, True)
        if sighting.came and not sighting.open_at == now:
            self.soon()  # it has heard nothing of us yet
        if not sighting.member:
            return
        if not self._stored():
            return
        if self._callback is not None and self._wanted(sighting.beacon.key):
            if self.sightings.may_dial(sighting, now):
                guarded(self._callback, _info(sighting))

    def _stored(self) -> bool:
        """Store what was heard. Nobody is dialled where that fails: it could be a beacon of before."""
        try:
            if self._store is not None:
                self._store(self.sightings.marks)
        except IoError as error:
            self._lan.problems["disk"] = str(error)
            return False
        return True

    def _show(self, sighting: Sighting, here: bool) -> None:
        if self._seen is not None:
            guarded(self._seen, sighting, here)

    def seen(self) -> list[Sighting]:
        """Return who was seen in the last three minutes, members of our audiences first."""
        return self.sightings.seen(time.time())

    def seen_key(self, key: bytes) -> PeerInfo | None:
        """Return where a member's key (33 bytes) was seen in the last three minutes."""
        sighting = self.sightings.get(key, time.time())
        return _info(sighting) if sighting is not None and sighting.member else None


def _info(sighting: Sighting) -> PeerInfo:
    key = sighting.beacon.key
    label = sighting.label or short_key(key)
    return PeerInfo(id=label, host=sighting.host, port=sighting.beacon.port, pubkey_hex=key.hex())


def _listens(at: IPv4Address | IPv6Address, address: IPv4Address | IPv6Address) -> bool:
    """Whether a node that listens at one address is reached at another."""
    return at == address or (at.is_unspecified and at.version == address.version)


async def _resolved(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a node listens on; None where it listens nowhere."""
    if not host:
        return None
    try:
        return ip_address(host)
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
        return ip_address(found[0][4][0])
