"""Pairings in a running node: the machine of `node.pairings` on top of the links, the pins and the events."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from ..wire.beacon import Audience
from ..wire.codec import Record
from ..wire.envelope import Message
from ..wire.invite import Invite
from ..wire.messages import MessageType
from ..wire.onion import is_onion
from .desk import Desk, House
from .proxies import check_advertised

__all__ = ["PairingDesk"]

_KINDS: Final = (MessageType.PAIR_HELLO, MessageType.PAIR_CONFIRM, MessageType.PAIR_END)
_DIAL_TIMEOUT_S: Final = 10.0
_LAN_FIRST_S: Final = 0.5
"""Whoever is on the local network has answered by then: a beacon there and one back."""


class PairingDesk:
    """See the module. It registers itself for the messages, the strangers and the news of the daemon."""

    def __init__(self, daemon: House) -> None:
        self._daemon = daemon
        self._network = network = daemon.network
        self.machine: Final = Pairings(
            network.identity.pubkey, network.id, daemon.config.network, draw=token_bytes, owner_of=self._owner_of
        )
        self._links: dict[bytes, bytes] = {}
        self._announced: set[bytes] = set()
        self._desk = Desk(self.machine.next_deadline, lambda: self._perform(self.machine.woken(time.time())))
        for kind in _KINDS:
            daemon.handler.register(kind, self._heard)
        daemon.strangers.append(self._admit)
        daemon.listeners.append(self._on_news)

    async def stop(self) -> None:
        """Do nothing more."""
        await self._desk.stop()

    # --- what a person does -------------------------------------------------------------------------------------------

    def invite(
        self, addresses: tuple[str, ...] = (), ttl_s: float = INVITE_TTL_S, *, lan: bool = False, openly: bool = False
    ) -> Invite:
        """Open an invite; without addresses, with those where this node listens, or with none on the `lan`.

        Whoever has the invite finds this node on the local network. With `openly` everybody there sees its key and its
        name, for ten minutes at most.

        Raises: LocalError, SerializationError; Leak for an address that only-tor keeps to itself.
        """
        check_advertised(self._daemon.config, addresses, "--address")
        named = addresses or (() if lan else self._own_addresses())
        made = self.machine.invite(named, time.time(), ttl_s)
        if openly and self._network.finder.is_on:
            self._network.finder.discovery.announce_openly(ttl_s)
        self._announce()
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
        if pairing.over:
            return pairing
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
            self._desk.do(partial(self._drop, key), key)
            return
        if isinstance(record, Record):
            self._perform(self.machine.heard(key, record, self._links.get(key, b""), time.time()))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self._desk.do(partial(self._say, effect), effect.key)
            elif isinstance(effect, Drop):
                self._desk.do(partial(self._drop, effect.key), effect.key)
            elif isinstance(effect, Paired):
                self._pin(effect)
            self._tell(effect)
        self._announce()
        self._desk.arm()

    def _announce(self) -> None:
        """Be found on the local network by those who hold an open invite, and by nobody for one that is closed."""
        finder, own = self._network.finder, self._network.identity.pubkey
        opened = {one.secret for one in self.machine.open_invites(time.time())}
        for secret in opened - self._announced:
            finder.add(secret, Audience.invite(secret, own))
        for secret in self._announced - opened:
            finder.remove(secret)
        if self._announced and not opened and finder.is_on:
            finder.discovery.announce_openly(0)
        self._announced = opened

    def _tell(self, effect: Effect) -> None:
        if isinstance(effect, Compare | Paired | PairingEnded):
            pairing = self.machine.get(effect.key)
            self._daemon.events.publish("pairing", key=effect.key.hex(), step=pairing.step.value)

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
        places = tuple(one.text for one in readable_untrusted(invite.addresses))
        info = PeerInfo(id=label, addresses=places, pubkey_hex=key)
        async with self._search(invite) as search:
            try:
                if not await self._dialled(info, await _within(search, _LAN_FIRST_S), last=search is None):
                    await self._dialled(info, await _within(search, _DIAL_TIMEOUT_S), last=True)
            except NetworkError as error:
                if known is not None:
                    self._network.add_peer(known)  # an invite that leads nowhere does not move a peer that we have
                raise _unreachable(invite, places, search, error) from error

    async def _dialled(self, info: PeerInfo, found: PeerInfo | None, *, last: bool = False) -> bool:
        """Dial a key at its addresses, and where it was found. Raises NetworkError the `last` time."""
        if found is not None:
            info = replace(info, host=found.host, port=found.port)
        try:
            if not info.places:
                raise LocalError("the invite names no address", hint="let them invite with --address HOST:PORT")
            self._network.add_peer(info, provisional=True)
            await self._network.connect_to_peer(info.pubkey_hex, timeout_s=self._dial_timeout_s(info))
            return True
        except NetworkError:
            if last or found is not None:
                raise
            return False

    @asynccontextmanager
    async def _search(self, invite: Invite) -> AsyncIterator[asyncio.Task[PeerInfo] | None]:
        """Look for the inviter on the local network meanwhile, where this node looks there at all."""
        finder = self._network.finder
        if not finder.is_on:
            yield None
            return
        audience = Audience.invite(invite.secret, invite.key)
        search = asyncio.ensure_future(finder.find(invite.secret, audience, invite.key, _DIAL_TIMEOUT_S))
        try:
            yield search
        finally:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)

    def _dial_timeout_s(self, info: PeerInfo) -> float:
        config = self._daemon.config
        proxied = config.proxy_everything or any(is_onion(one.host) for one in info.places)
        return _DIAL_TIMEOUT_S + (config.limits.proxy_dial_timeout_s if proxied else 0.0)

    def _known(self, name: str) -> PeerInfo | None:
        """Return what the book has of a confirmed peer, by its label or its key in hex."""
        try:
            peer = self._network.peer(name)
        except PeerNotFound:
            return None
        return None if peer.provisional else peer.info

    def _own_addresses(self) -> tuple[str, ...]:
        """Return where others may reach this node: as configured, or where it listens; and through Tor, and relays."""
        own = tuple(self._daemon.config.advertise) or self._straight_addresses()
        known = (*own, *self._daemon.onions, *self._daemon.relays)
        return tuple(dict.fromkeys(known))[:INVITE_ADDRESSES_MAX]

    def _straight_addresses(self) -> tuple[str, ...]:
        network = self._network
        if self._daemon.config.only_tor or not network.host or not network.port:
            return ()
        host = _own_host() if network.host in ("0.0.0.0", "::") else network.host
        forwarded = self._daemon.forwarding.address
        tls = () if network.tls_port is None else (address_text(host, network.tls_port, "tls"),)
        return (*((forwarded,) if forwarded else ()), address_text(host, network.port), *tls)


async def _within(search: asyncio.Task[PeerInfo] | None, wait_s: float) -> PeerInfo | None:
    """Return who was found, if somebody is within that time."""
    if search is None:
        return None
    await asyncio.wait((search,), timeout=wait_s)
    return search.result() if search.done() and not search.exception() else None


def _unreachable(
    invite: Invite, places: tuple[str, ...], search: asyncio.Task[PeerInfo] | None, error: NetworkError
) -> NetworkError:
    """Return the sentence for an invite that led nowhere."""
    unseen = search is not None and search.done() and search.exception() is not None
    if not places and search is None:
        return error
    why = str(error).removesuffix(f"; {error.hint}")  # there is one hint for all of it
    tried = f"cannot be reached at {', '.join(places)}: {why}" if places else f"does not answer where it is: {why}"
    parts = [tried] * bool(places or not unseen) + ["is not seen on the local network"] * unseen
    hint = "is `musignet invite` still waiting there? is a firewall between? `musignet doctor` looks"
    return ConnectionError(f"{who(invite.label, invite.key)} {' and '.join(parts)}", hint=hint)


def _own_host() -> str:
    """Return the address by which this machine speaks to others: nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
