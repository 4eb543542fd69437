"""Pairings in a running node: the machine of `node.pairings` on top of the links, the pins and the events."""

from __future__ import annotations

import socket
import time
from functools import partial
from secrets import token_bytes
from typing import Final

from ..errors import ConnectionError, LocalError, NetworkError, PeerNotFound, SerializationError
from ..limits import INVITE_ADDRESSES_MAX, INVITE_TTL_S
from ..net.peer import Peer
from ..node.effects import News, PeerDown, PeerUp
from ..node.pairing import Compare, Paired, Pairing, PairingEnded, Say
from ..node.pairings import Drop, Effect, Pairings
from ..node.peers import PeerInfo
from ..text import safe, short_key, who
from ..wire.codec import Record
from ..wire.envelope import Message
from ..wire.invite import Invite
from ..wire.messages import MessageType
from .desk import Desk, House

__all__ = ["PairingDesk", "address_of"]

_KINDS: Final = (MessageType.PAIR_HELLO, MessageType.PAIR_CONFIRM, MessageType.PAIR_END)
_DIAL_TIMEOUT_S: Final = 10.0


class PairingDesk:
    """See the module. It registers itself for the messages, the strangers and the news of the daemon."""

    def __init__(self, daemon: House) -> None:
        self._daemon = daemon
        self._network = network = daemon.network
        self.machine: Final = Pairings(
            network.identity.pubkey, network.id, daemon.config.network, draw=token_bytes, owner_of=self._owner_of
        )
        self._links: dict[bytes, bytes] = {}
        self._desk = Desk(self.machine.next_deadline, lambda: self._perform(self.machine.woken(time.time())))
        for kind in _KINDS:
            daemon.handler.register(kind, self._heard)
        daemon.strangers.append(self._admit)
        daemon.listeners.append(self._on_news)

    async def stop(self) -> None:
        """Do nothing more."""
        await self._desk.stop()

    # --- what a person does -------------------------------------------------------------------------------------------

    def invite(self, addresses: tuple[str, ...] = (), ttl_s: float = INVITE_TTL_S) -> Invite:
        """Open an invite; without addresses, with those where this node listens.

        Raises: LocalError, SerializationError.
        """
        made = self.machine.invite(addresses or self._own_addresses(), time.time(), ttl_s)
        self._desk.arm()
        return made

    def withdraw(self, secret: bytes) -> None:
        """Close an invite."""
        self._perform(self.machine.withdraw(secret))

    async def join(self, text: str) -> Pairing:
        """Read an invite, and dial whoever made it; the rest is told by events.

        Raises: InviteError, LocalError; ConnectionError when none of its addresses answers.
        """
        invite = Invite.parse_untrusted(text)
        places = [address_of(one) for one in invite.addresses]
        pairing = self.machine.join(invite, time.time(), self._own_addresses())
        self._links.pop(invite.key, None)  # a link that is up already is the machine's from now on
        try:
            await self._reach(invite, places)
        except NetworkError:
            self._perform(self.machine.cancel(invite.key))
            raise
        self._meet(invite.key)
        return pairing

    def agree(self, key: bytes, words: str, label: str = "") -> None:
        """A person confirms. Raises LocalError, as `Pairings.agree`."""
        self._perform(self.machine.agree(key, words, label))

    def refuse(self, key: bytes) -> None:
        """A person says that the words differ. Raises LocalError."""
        self._perform(self.machine.refuse(key))

    def cancel(self, key: bytes) -> None:
        """A person gives up. Raises LocalError."""
        self._perform(self.machine.cancel(key))

    # --- what happens -------------------------------------------------------------------------------------------------

    def _admit(self, info: PeerInfo) -> bool:
        key = bytes.fromhex(info.pubkey_hex)
        if not self.machine.admit(key, time.time()):
            return False
        self._network.add_peer(PeerInfo(id=short_key(key), pubkey_hex=info.pubkey_hex), provisional=True)
        self._desk.arm()
        return True

    def _on_news(self, news: News) -> None:
        if isinstance(news, PeerUp):
            self._meet(news.key)
        elif isinstance(news, PeerDown):
            self._links.pop(news.key, None)
            self._perform(self.machine.lost(news.key))

    def _meet(self, key: bytes) -> None:
        """Tell the machine of a link that it has not heard of: the first, or one that took the place of another."""
        transcript = self._peer(key).handshake_hash
        if transcript and self._links.get(key) != transcript:
            self._links[key] = transcript
            self._perform(self.machine.linked(key, transcript))

    def _heard(self, message: Message, peer: Peer) -> None:
        key = bytes.fromhex(peer.pubkey_hex)
        self._meet(key)
        try:
            record = message.content
        except SerializationError:
            self._desk.do(partial(self._drop, key))
            return
        if isinstance(record, Record):
            self._perform(self.machine.heard(key, record, self._links.get(key, b""), time.time()))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self._desk.do(partial(self._say, effect))
            elif isinstance(effect, Drop):
                self._desk.do(partial(self._drop, effect.key))
            elif isinstance(effect, Paired):
                self._pin(effect)
            self._tell(effect)
        self._desk.arm()

    def _tell(self, effect: Effect) -> None:
        if isinstance(effect, Compare | Paired | PairingEnded):
            pairing = self.machine.get(effect.key)
            error = "" if pairing.error is None else str(pairing.error)
            self._daemon.events.publish(
                "pairing", key=effect.key.hex(), step=pairing.step.value, words=pairing.words, error=error
            )

    async def _say(self, effect: Say) -> None:
        message = Message(effect.kind, self._network.id, effect.record)
        await self._network.send_message_to(effect.key.hex(), message, durable=False)

    async def _drop(self, key: bytes) -> None:
        try:
            if self._peer(key).provisional:
                await self._network.remove_peer(key.hex())
        except PeerNotFound:
            pass  # it is forgotten already

    def _pin(self, effect: Paired) -> None:
        """Both people said yes: keep the key, with the first address that it can be dialled at."""
        key = effect.key.hex()
        host, port = self._peer(effect.key).info.host, self._peer(effect.key).info.port
        if not port and effect.addresses:
            host, port = self._place(effect)
        self._daemon.pin(PeerInfo(id=effect.label, name=effect.name, host=host, port=port, pubkey_hex=key))

    def _place(self, effect: Paired) -> tuple[str, int]:
        """Return where the guest says it listens; nowhere, where it says nothing that can be read."""
        for text in effect.addresses:
            try:
                return address_of(text)
            except LocalError:
                continue
        return "", 0

    # --- inside -------------------------------------------------------------------------------------------------------

    def _peer(self, key: bytes) -> Peer:
        return self._network.peer(key.hex())

    def _owner_of(self, label: str) -> bytes | None:
        """Return the confirmed key that has a label here."""
        known = self._known(label)
        return None if known is None else bytes.fromhex(known.pubkey_hex)

    async def _reach(self, invite: Invite, places: list[tuple[str, int]]) -> None:
        """Dial one address after the other. A peer of the book keeps its name."""
        key = invite.key.hex()
        known = self._known(key)
        label = short_key(key) if known is None else known.id
        if not places:
            raise LocalError("the invite names no address", hint="let them invite with --address HOST:PORT")
        last: NetworkError | None = None
        for host, port in places:
            info = PeerInfo(id=label, host=host, port=port, pubkey_hex=key)
            self._network.add_peer(info, provisional=True)
            try:
                await self._network.connect_to_peer(key, timeout_s=_DIAL_TIMEOUT_S)
                return
            except NetworkError as error:
                last = error
        if known is not None:
            self._network.add_peer(known)  # an invite that leads nowhere does not move a peer that we have
        tried = ", ".join(safe(one, 80) for one in invite.addresses)
        raise ConnectionError(
            f"{who(invite.label, key)} cannot be reached at {tried}: {last}",
            hint="is `musignet invite` still waiting there? is a firewall between?",
        ) from last

    def _known(self, name: str) -> PeerInfo | None:
        """Return what the book has of a confirmed peer, by its label or its key in hex."""
        try:
            peer = self._network.peer(name)
        except PeerNotFound:
            return None
        return None if peer.provisional else peer.info

    def _own_addresses(self) -> tuple[str, ...]:
        """Return where others may dial this node: as configured, or where it listens."""
        named = self._daemon.config.advertise
        network = self._network
        if named or not network.host or not network.port:
            return tuple(named)[:INVITE_ADDRESSES_MAX]
        host = _own_host() if network.host in ("0.0.0.0", "::") else network.host
        return (f"[{host}]:{network.port}" if ":" in host else f"{host}:{network.port}",)


def address_of(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, with IPv6 in brackets. Raises LocalError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= 65_535:
        raise LocalError("not an address", expected="HOST:PORT", got=safe(text, 80))
    return host.removeprefix("[").removesuffix("]"), int(port)


def _own_host() -> str:
    """Return the address by which this machine speaks to others: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
