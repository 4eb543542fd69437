"""Several carriers as one: a peer's addresses are dialled by who can, and the first link that opens wins.

Happy eyeballs (RFC 8305): the best address first; the next one when it has failed or `DIAL_STAGGER_S` later. So a dead
address costs a quarter of a second and not a time-out, and a good one is never raced by a worse one that is as quick.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, cast

from ...crypto.keys import Identity
from ...errors import ConnectionError, LocalError, NetworkError, PeerNotFound, TransportError
from ...limits import DIAL_STAGGER_S, DIALS_PER_PEER_MAX, Limits
from ...node.addresses import Address
from ...text import safe, short_key
from .base import Connection, Dials, ReadsInboxes, Sink, Transport

__all__ = ["Carriers", "MakeCarriers", "Reached", "Unreachable"]


class MakeCarriers(Protocol):
    """Makes carriers for a node, by the scheme of the addresses that they dial."""

    def __call__(self, identity: Identity, sink: Sink, *, limits: Limits) -> Mapping[str, Transport]: ...


class Unreachable(ConnectionError):
    """No address of a peer led to it. `failures` says why, by address."""

    def __init__(self, peer: str, failures: Mapping[str, NetworkError]) -> None:
        self.failures = dict(failures)
        super().__init__(f"cannot reach key {short_key(peer)} at any of {len(failures)} addresses")
        reasons = "; ".join(f"{safe(where, 80)}: {safe(error.text, 160)}" for where, error in failures.items())
        self.text = f"{self.text}: {reasons}"  # whole: each part is bounded, and so is their number


class Reached(NamedTuple):
    """What a dial came to."""

    link: Connection
    missed: Unreachable | None
    """Why other addresses failed before this link was open; None where none did."""


class Carriers:
    """A `Transport` made of several.

    Args:
        identity: who we are, on every one of them.
        sink:     who is told: the same one that each was made with.
        carriers: by scheme, as in `tls://`. One transport may stand under several.
    """

    def __init__(self, identity: Identity, sink: Sink, carriers: Mapping[str, Transport]) -> None:
        self.identity = identity
        self.sink = sink
        self.carriers = dict(carriers)
        self._each = tuple(dict.fromkeys(self.carriers.values()))
        self._dialling = {one for one in self._each if isinstance(one, Dials)}

    async def start(self) -> None:
        """Start all. Where one fails, those that were started are stopped again, and its error is raised."""
        started: list[Transport] = []
        try:
            for one in self._each:
                await one.start()
                started.append(one)
        except BaseException:
            await asyncio.gather(*(one.stop() for one in started))
            raise

    async def stop(self) -> None:
        await asyncio.gather(*(one.stop() for one in self._each))

    async def connect(self, peer: str, host: str, port: int) -> Connection:
        return (await self.reach(peer, (Address("tcp", host, port, f"{host}:{port}"),))).link

    async def reach(self, peer: str, addresses: Iterable[Address]) -> Reached:
        """Dial a peer wherever it may be.

        Returns: the first link that opened. Should a second one open in the same moment, the sink hears of both.
        Raises:  the error of the one address there is, as `Transport.connect`; `Unreachable` for several.
        """
        places = sorted(addresses, key=lambda one: one.rank)
        if len(places) == 1:
            return Reached(await self._dial(peer, places[0]), None)
        race = _Race(self, peer, places)
        try:
            link = await race.run()
            return Reached(link, race.missed)
        finally:
            await race.end()

    async def _dial(self, peer: str, address: Address) -> Connection:
        carrier = self.carriers.get(address.carrier)
        if carrier is None:
            raise TransportError(f"this node has no carrier for {address.carrier}:", got=address.text)
        if carrier in self._dialling:
            return await cast(Dials, carrier).dial(peer, address)
        return await carrier.connect(peer, address.host, address.port)

    def read_at(self, relays: Iterable[str]) -> None:
        """Have the carrier that goes by relays read our inbox there, too.

        Raises: LocalError for what is no relay, and where none of the carriers knows relays.
        """
        wanted = tuple(relays)
        reading = [one for one in self._each if isinstance(one, ReadsInboxes)]
        if wanted and not reading:
            raise LocalError("this node knows no relays", got=wanted[0], hint='pip install "musignet[relay]"')
        for one in reading:
            one.read_at(wanted)

    async def disconnect(self, peer: str) -> None:
        for one in self._each:
            await one.disconnect(peer)

    async def send(self, peer: str, envelope: bytes) -> None:
        for one in self._each:
            if one.is_connected(peer):
                return await one.send(peer, envelope)
        raise PeerNotFound(f"no link to key {short_key(peer)}", hint="connect first")

    async def broadcast(self, envelope: bytes) -> int:
        peers = self.connected_peers()
        for peer in peers:
            await self.send(peer, envelope)
        return len(peers)

    def is_connected(self, peer: str) -> bool:
        return any(one.is_connected(peer) for one in self._each)

    def connected_peers(self) -> list[str]:
        return list(dict.fromkeys(peer for one in self._each for peer in one.connected_peers()))


class _Race:
    """The dials to one peer. At most `DIALS_PER_PEER_MAX` at once."""

    def __init__(self, carriers: Carriers, peer: str, places: list[Address]) -> None:
        self._carriers = carriers
        self._peer = peer
        self._waiting = deque(places)
        self._running: dict[asyncio.Task[Connection], Address] = {}
        self._failures: dict[str, NetworkError] = {}

    async def run(self) -> Connection:
        while self._waiting or self._running:
            if self._waiting and len(self._running) < DIALS_PER_PEER_MAX:
                address = self._waiting.popleft()
                self._running[asyncio.ensure_future(self._carriers._dial(self._peer, address))] = address
            more = self._waiting and len(self._running) < DIALS_PER_PEER_MAX
            done, _ = await asyncio.wait(
                self._running, timeout=DIAL_STAGGER_S if more else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in [one for one in self._running if one in done]:  # the better address first
                if (link := self._ended(task)) is not None:
                    return link
        raise Unreachable(self._peer, self._failures)

    def _ended(self, task: asyncio.Task[Connection]) -> Connection | None:
        address = self._running.pop(task)
        try:
            return task.result()
        except NetworkError as error:
            self._failures[address.text] = error
            return None

    @property
    def missed(self) -> Unreachable | None:
        return Unreachable(self._peer, self._failures) if self._failures else None

    async def end(self) -> None:
        """Drop the dials that did not win. Their links give everything back before they end."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
