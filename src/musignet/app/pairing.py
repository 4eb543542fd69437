"""Pairings in a running node: the machine of `node.pairings` on top of the links, the pins and the events."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from functools import partial
from secrets import token_bytes
from typing import Final

from ..errors import ConnectionError, LocalError, NetworkError, PeerNotFound, SerializationError
from ..limits import INVITE_ADDRESSES_MAX, INVITE_TTL_S
from ..net.peer import Peer
from ..node.addresses import address_text, readable_untrusted
from ..node.effects import News, PeerDown, PeerUp
from ..node.pairing import Compare, Paired, Pairing, PairingEnded, Say
from ..node.pairings import Drop, Effect, Pairings
from ..node.peers import PeerInfo
from ..text import short_key, who
from ..wire.codec import Record
from ..wire.envelope import Message
from ..wire.invite import Invite
from ..wire.messages import MessageType
from .desk import Desk, House

__all__ = ["PairingDesk"]

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
        pairing = self.machine.join(invite, time.time(), self._own_addresses())
        self._links.pop(invite.key, None)  # a link that is up already is the machine's from now on
        try:
            await self._reach(invite)
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
        """Both people said yes: keep the key, with the addresses that it can be dialled at."""
        known = self._peer(effect.key).info
        info = replace(known, id=effect.label, name=effect.name)
        if not known.places:  # then it is the guest, and says itself where it listens
            info = replace(info, addresses=tuple(one.text for one in readable_untrusted(effect.addresses)))
        self._daemon.pin(info)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _peer(self, key: bytes) -> Peer:
        return self._network.peer(key.hex())

    def _owner_of(self, label: str) -> bytes | None:
        """Return the confirmed key that has a label here."""
        known = self._known(label)
        return None if known is None else bytes.fromhex(known.pubkey_hex)

    async def _reach(self, invite: Invite) -> None:
        """Dial the addresses of an invite. A peer of the book keeps its name."""
        key = invite.key.hex()
        known = self._known(key)
        label = short_key(key) if known is None else known.id
        addresses = tuple(one.text for one in readable_untrusted(invite.addresses))
        if not addresses:
            raise LocalError("the invite names no address", hint="let them invite with --address HOST:PORT")
        self._network.add_peer(PeerInfo(id=label, addresses=addresses, pubkey_hex=key), provisional=True)
        try:
            await self._network.connect_to_peer(key, timeout_s=_DIAL_TIMEOUT_S)
        except NetworkError as error:
            if known is not None:
                self._network.add_peer(known)  # an invite that leads nowhere does not move a peer that we have
            raise ConnectionError(
                f"{who(invite.label, key)} cannot be reached at {', '.join(addresses)}: {error}",
                hint="is `musignet invite` still waiting there? is a firewall between?",
            ) from error

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
        return (address_text(host, network.port),)


def _own_host() -> str:
    """Return the address by which this machine speaks to others: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
