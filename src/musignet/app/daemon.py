"""`Daemon`: one running node with everything a person expects of it: pinned peers, groups, sessions, events.

It listens to no program by itself: `app/api` puts its routes on top, `app/run.py` puts both into a process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..crypto.keys import Identity
from ..errors import LocalError, NetworkError
from ..net.finder import Discover
from ..net.folder import DataFolder
from ..net.handlers import MessageHandler
from ..net.onion import OnionService
from ..net.service import NetworkService
from ..node.effects import Fault, News, OldDisk, PeerDown, PeerUp, SessionNews
from ..node.peers import PeerInfo
from ..signing.effects import End
from ..signing.groupfile import GroupFile
from ..text import safe, short_key, who
from ..wire.beacon import Audience
from .carriers import carriers
from .chain.broadcasting import Broadcasting
from .chain.service import ChainService
from .config import Config
from .events import Events
from .foundings import FoundingDesk
from .grouprelays import RelayDesk
from .groups import Groups
from .keys import WalletKeys
from .natting import Forwarding, announced
from .neighbours import Neighbours
from .pairing import PairingDesk
from .pins import Pins
from .proxies import chain_way, onion_of, route_of, sealed
from .sessions import Entry, SessionBook

if TYPE_CHECKING:
    from ..net.mdns import Mdns

__all__ = ["ERRAND", "Daemon"]

ERRAND: Final = "musignet export {0} --psbt > out.psbt; sign it there; musignet import {0} FILE"
"""What a person does for a signer elsewhere."""

logger = logging.getLogger("musignet")


class Daemon:
    """See the module.

    Args:
        folder:   the data folder, locked; whoever locked it closes it.
        identity: who this node is.
        keys:     who holds the wallet key.

    Attributes:
        network:   the links. `handler` routes its messages: register more before `start`.
        strangers: asked in turn about an unknown key that connects; the first True lets it in.
        listeners: called with all news of the node, after the daemon has taken them in.
        events:    what API clients are told.
        neighbours: who is seen on the local network.
        pins, groups, sessions, group_relays: what is durable.
        chain:      who is asked for coins.
        onion:      the onion service that leads here, where one is wanted.
        forwarding: the port of the router that leads here.

    Raises: IoError when a journal or a group file is damaged; Leak for a setting that only-tor rules out.
    """

    def __init__(self, folder: DataFolder, config: Config, identity: Identity, keys: WalletKeys) -> None:
        self.folder, self.keys = folder, keys
        self.config = config = sealed(config)
        self.events = Events()
        self.neighbours = Neighbours(self.events, lambda: self.network)
        self.handler = MessageHandler()
        self.strangers: list[Callable[[PeerInfo], bool]] = []
        self.listeners: list[Callable[[News], None]] = []
        self.pins = Pins(folder)
        self.groups = Groups(folder)
        self.sessions = SessionBook()
        self.chain = ChainService(config.chain_backend, config.network, chain_way(config))
        self._broadcasting = Broadcasting(self.chain, self._broadcast)
        if config.chain_broadcast and not config.chain_backend:
            raise LocalError("[chain] broadcast passes on to nobody", hint="name a backend in [chain] of config.toml")
        route = route_of(config)
        self.network = NetworkService(
            config.label or short_key(identity.pubkey),
            host=config.listen_host,
            port=config.listen_port,
            tls_port=config.tls_port or None,
            identity=identity,
            data_dir=folder,
            chain=config.network,
            accept=self._accept,
            on_event=self._on_news,
            limits=config.limits,
            handler=self.handler,
            route=route,
            carriers=carriers(config, route),
            announce=announced(config),
            discover=Discover(
                interfaces=config.discovery_interfaces,
                port=config.discovery_port,
                mdns=_mdns() if config.discovery_mdns else None,
                seen=self.neighbours.seen,
                required=False,
            ),
        )
        self.onion: OnionService | None = None
        self.forwarding = Forwarding(config.nat_map_port)
        self._dialling: set[asyncio.Task[None]] = set()
        self.pairings = PairingDesk(self)
        self.foundings = FoundingDesk(self)
        self.group_relays = RelayDesk(self)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, take up the groups with their open sessions, and dial everybody who has an address.

        Raises: IoError, AuthenticationError, LocalError; ConnectionError and Timeout of Tor. Then nothing runs.
        """
        try:
            await self.keys.start(self.network.identity.pubkey, self.config.network)
            await self.network.start()
            self.forwarding.start(self.network.host, self.network.port)
            if self.network.finder.error is not None:
                logger.warning("nobody is found on the local network: %s", self.network.finder.error)
            for info in self.pins:
                self.network.add_peer(info)
            for group in self.groups:
                self._cosign(group)
            self.look_at_relays()
            self.onion = onion_of(self.config, self.network.identity, self.network.host, self.network.port)
            if self.onion is not None:
                await self.onion.start()
        except BaseException:
            await self.stop()
            raise
        if self.config.auto_connect:
            for info in self.pins:
                self.dial(info)

    async def stop(self) -> None:
        """Finish what is on the wire, say goodbye, close the journals. Doing it twice is harmless."""
        await self.pairings.stop()
        await self.foundings.stop()
        await self.group_relays.stop()
        await self._broadcasting.stop()
        self.events.close()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        if self.onion is not None:
            await self.onion.stop()
        await self.forwarding.stop()
        await self.network.stop()
        await self.keys.stop()
        self.pins.close()

    # --- peers --------------------------------------------------------------------------------------------------------

    def pin(self, info: PeerInfo) -> None:
        """Keep a peer, under its key: on disk, in the book, and dialled where it has an address.

        Raises: AuthenticationError when its label belongs to another key; IoError.
        """
        self.network.add_peer(self._placed(info))
        self.pins.pin(info)
        self.events.publish("peer", key=info.pubkey_hex, label=info.id, state=self.state_of(info.pubkey_hex))
        if self.config.auto_connect:
            self.dial(info)

    async def forget(self, peer: str) -> PeerInfo:
        """Hang up on a peer and keep it no longer. Raises PeerNotFound, LocalError for a cosigner of a group."""
        info = self.network.peer(peer).info
        groups = [one.name for one in self.groups if bytes.fromhex(info.pubkey_hex) in one.group]
        if groups:
            raise LocalError(f"{who(info.id, info.pubkey_hex)} is a cosigner of {safe(groups[0])}", hint="keep it")
        await self.network.remove_peer(info.pubkey_hex)
        self.pins.forget(info.pubkey_hex)
        self.events.publish("peer", key=info.pubkey_hex, label=info.id, state="forgotten")
        return info

    def dial(self, info: PeerInfo) -> None:
        """Dial a peer until it answers, where it has an address."""
        if info.places:
            task = asyncio.get_running_loop().create_task(self._dial(info.pubkey_hex))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)

    async def _dial(self, key: str) -> None:
        try:
            await self.network.connect_to_peer(key, persist=True)
        except NetworkError as error:
            logger.warning("not dialled any more: %s", error)

    def label_of(self, key: bytes) -> str:
        """Return what people here call a key; its first digits where they call it nothing."""
        if key == self.network.identity.pubkey:
            return self.network.id
        try:
            return self.network.peer(key.hex()).info.id
        except LocalError:
            return short_key(key)

    def state_of(self, key: str) -> str:
        """Return where a peer stands, in one word."""
        return self.network.peer_state(key).value

    def look_at_relays(self) -> None:
        """Read our inbox at the relays of our groups, too, and dial the cosigners there.

        Raises: LocalError where no carrier knows relays.
        """
        self.network.read_relays(self.group_relays.all)
        for key in dict.fromkeys(key for one in self.groups for key in one.group.identities):
            if key == self.network.identity.pubkey:
                continue
            known = self.network.peer(key.hex()).info
            info = self._placed(self.pins.get(key.hex()) or replace(known, addresses=()))
            if info != known:
                self.network.add_peer(info)
                if self.config.auto_connect:
                    self.dial(info)

    def _placed(self, info: PeerInfo) -> PeerInfo:
        """Return a peer with the relays of the groups that it is in."""
        return replace(info, addresses=self.group_relays.beside(bytes.fromhex(info.pubkey_hex), info.addresses))

    @property
    def relays(self) -> tuple[str, ...]:
        """Where this node reads its inbox: its own relays, and those of its groups."""
        return tuple(dict.fromkeys((*self.config.relays, *self.group_relays.all)))

    @property
    def onions(self) -> tuple[str, ...]:
        """Where this node can be reached through Tor."""
        return () if self.onion is None else (self.onion.address,)

    # --- groups -------------------------------------------------------------------------------------------------------

    def add_group(self, group: GroupFile, *, elsewhere: bool = False) -> None:
        """Keep a group that everybody has confirmed, and cosign from now on. It is pinned at the keyholder before.

        `elsewhere`: our key in it is in another signer, and no keyholder is asked.

        Raises: LocalError when the wallet key or the identity is not in it, IoError.
        """
        self.groups.add(group, elsewhere=elsewhere)
        self._cosign(group)
        self.events.publish("group", group=group.group.id.hex(), name=group.name)

    def _cosign(self, group: GroupFile) -> None:
        for identity in group.group.identities:
            self._know(identity, group.labels[identity])
        described = group.group.wallet.descriptor.canonical().encode()
        self.network.finder.add(group.group.id, Audience.group(described, group.group.identities))
        if self.groups.elsewhere(group.group.id):
            self.network.cosign_by_hand(group.group)
        else:
            self.keys.cosign(self.network, group.group)
        self.sessions.load(group.group, self.network.session_records(group.group.id))
        self.sessions.look(self.network.sessions(group.group.id))

    def _know(self, identity: bytes, label: str) -> None:
        """Let a cosigner in who was never paired here: the group, which people confirmed, has their key."""
        key = identity.hex()
        if identity == self.network.identity.pubkey or self.pins.get(key) is not None:
            return
        taken = any(one.id == label for one in self.pins)
        self.network.add_peer(PeerInfo(id=f"{label[:48]} {short_key(key)}" if taken else label, pubkey_hex=key))

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def propose(self, group: GroupFile, psbt: bytes, memo: str, expires_in_s: float) -> Entry:
        """Open a session. Raises LocalError, SerializationError; the error of the rule that the PSBT breaks."""
        session = await self.network.propose(group.group.id, psbt, expires_in_s=expires_in_s, memo=memo)
        self.sessions.look(self.network.sessions(group.group.id))
        entry = self.sessions.find(session.hex())
        if entry.error is not None and not entry.envelope:
            raise entry.error
        return entry

    async def consent(self, entry: Entry, proof: bytes, replaces: frozenset[bytes]) -> None:
        """Give the keyholder a person's proof, over the sessions that this one replaces, too.

        Raises: LocalError when the session has ended.
        """
        if entry.end is not None:
            raise LocalError("this session has ended", got=entry.state)
        if self.groups.elsewhere(entry.group.id):
            raise LocalError("the yes of this group is given at its signer", hint=ERRAND.format(entry.id.hex()[:8]))
        entry.asked = False  # it is with the keyholder now; a proof that does not hold ends the session
        await self.network.consent(entry.id, proof, replaces=replaces)

    def signer_wants(self, entry: Entry) -> str:
        """Return what a session waits for from a signer elsewhere, in a word or two; empty where there is none."""
        wants = self.network.signer_wants(entry.id) if entry.end is None else None
        return "" if wants is None else wants.value

    def psbt_for_signer(self, entry: Entry) -> bytes:
        """Return the PSBT of a session for the signer elsewhere. Raises LocalError where there is none."""
        return self.network.export_psbt(entry.id)

    def psbt_from_signer(self, entry: Entry, data: bytes, replaces: frozenset[bytes]) -> str:
        """Take it back. Returns what it brought. Raises as `NetworkService.import_psbt`; nothing is changed then."""
        return self.network.import_psbt(entry.id, data, replaces=replaces).value

    async def leave(self, entry: Entry, reason: str) -> bool:
        """Leave a session. Returns whether it came too late: a partial signature of ours had left already.

        Raises: LocalError when it has ended.
        """
        if entry.end is not None or entry.live is None:
            raise LocalError("this session has ended", got=entry.state, hint="musignet show says how")
        released = entry.live.released
        await self.network.cancel_session(entry.id, reason)
        return released

    # --- inside -------------------------------------------------------------------------------------------------------

    def _accept(self, info: PeerInfo) -> bool:
        return any(let_in(info) for let_in in self.strangers)

    def _on_news(self, news: News) -> None:
        if isinstance(news, SessionNews):
            entry = self.sessions.told(self.network.sessions(news.key), news.news)
            self.events.publish("session", **self.progress(entry))
            if self.config.chain_broadcast and entry.end is End.COMPLETED:
                self._broadcasting.finished(entry)
        elif isinstance(news, PeerUp | PeerDown):
            key = news.key.hex()
            self.events.publish("peer", key=key, label=self.label_of(news.key), state=self.state_of(key))
        elif isinstance(news, Fault | OldDisk):
            label = self.label_of(news.key)
            self.events.publish("fault", key=news.key.hex(), label=label, error=str(news.error))
        for listener in self.listeners:
            listener(news)

    def _broadcast(self, session: bytes, txid: str, error: str) -> None:
        self.events.publish("broadcast", session=session.hex(), txid=txid, error=error)

    def progress(self, entry: Entry) -> dict[str, object]:
        """Return where a session stands, as an event says it."""
        return {
            "session": entry.id.hex(),
            "group": entry.group.id.hex(),
            "state": entry.state,
            "ended": entry.end is not None,
            "waiting_for": [self.label_of(key) for key in entry.waiting_for],
            "asked": entry.asked,
            "signer_wants": self.signer_wants(entry),
            "error": "" if entry.error is None else str(entry.error),
        }


def _mdns() -> type[Mdns]:
    """The library is an extra: a node that does not ask for it does without."""
    try:
        from ..net.mdns import Mdns
    except ModuleNotFoundError as error:
        if error.name != "zeroconf":
            raise
        raise LocalError("mdns in [discovery] needs a library", hint='pip install "musignet[mdns]"') from None
    return Mdns
