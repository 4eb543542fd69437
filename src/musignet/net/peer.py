"""A peer, as a program holds it."""

from __future__ import annotations

from typing import Protocol

from ..errors import NetworkError
from ..node.addresses import Path
from ..node.peers import Mail, PeerInfo, PeerRecord, PeerState
from ..wire.envelope import Message

__all__ = ["Peer"]


class _Network(Protocol):
    """What a `Peer` needs of its `NetworkService`."""

    async def send_message_to(
        self,
        peer: str,
        message: Message,
        *,
        wait_ack: bool = False,
        durable: bool | None = None,
        expires_in_s: float | None = None,
    ) -> None: ...

    async def disconnect_from_peer(self, peer: str) -> None: ...


class Peer:
    """One peer of the book, as `network.peer("bob")` gives it. It stays valid until the peer is forgotten."""

    __slots__ = ("_network", "_record", "pubkey_hex")

    pubkey_hex: str
    """Its key: 66 hex digits. This is who it is."""

    def __init__(self, network: _Network, record: PeerRecord) -> None:
        self._network = network
        self._record = record
        self.pubkey_hex = record.key.hex()

    @property
    def info(self) -> PeerInfo:
        """Its labels, address and key."""
        return self._record.info

    @property
    def state(self) -> PeerState:
        """Where it stands now."""
        return self._record.state

    @property
    def round_trip_s(self) -> float | None:
        """The last measured round trip, signatures included. None until the first pong, a second after connecting."""
        return self._record.round_trip_s

    @property
    def mail(self) -> Mail:
        """Whether what it is told is only left for it, or carried by hand: then it is not connected."""
        links = self._record.links
        return links[-1].mail if links else Mail.NO

    @property
    def path(self) -> Path | None:
        """How the link that carries messages goes. None without one."""
        links = self._record.links
        return links[-1].path if links else None

    @property
    def link_address(self) -> str:
        """Where the other end of that link is. Empty without one."""
        links = self._record.links
        return links[-1].address if links else ""

    @property
    def better(self) -> tuple[str, ...]:
        """Addresses that promise a better path than the one there is; they are tried again by themselves."""
        return tuple(one.text for one in self._record.better)

    @property
    def path_error(self) -> NetworkError | None:
        """Why the last try of a better path came to nothing."""
        return self._record.path_error

    @property
    def better_at(self) -> float | None:
        """When the next try of a better path is due: seconds since 1970. None when one is under way, or none is due."""
        return self._record.better_at

    @property
    def is_dialled(self) -> bool:
        """Whether a dial is under way, beside a link or without one."""
        return self._record.dialling

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that this node and the peer at the other end of the current link know; empty without a link."""
        links = self._record.links
        return links[-1].transcript if links else b""

    @property
    def provisional(self) -> bool:
        """Whether no person has confirmed its key yet."""
        return self._record.provisional

    @property
    def heard_at(self) -> float | None:
        """When it was last heard: seconds since 1970. None before the first time."""
        return self._record.heard_at

    @property
    def last_error(self) -> NetworkError | None:
        """Why the last dial failed, or the last link ended."""
        return self._record.last_error

    async def send(
        self,
        message: Message,
        *,
        wait_ack: bool = False,
        durable: bool | None = None,
        expires_in_s: float | None = None,
    ) -> None:
        """Send it a message. As `NetworkService.send_message_to`."""
        key = self.pubkey_hex
        await self._network.send_message_to(key, message, wait_ack=wait_ack, durable=durable, expires_in_s=expires_in_s)

    async def disconnect(self) -> None:
        """Say goodbye, and stop reconnecting. As `NetworkService.disconnect_from_peer`."""
        await self._network.disconnect_from_peer(self.pubkey_hex)

    def __repr__(self) -> str:
        return f"<Peer {self._record.name} {self.state.value}>"
