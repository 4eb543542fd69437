"""`NetworkService`: one node of the network, as a program holds it. The friendly face of the driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..crypto.keys import Identity
from ..errors import LocalError, NetworkError, Timeout, TransportError
from ..limits import BOOT_EPOCH_BYTES, Limits
from ..node.addresses import Rank, address_text
from ..node.config import NodeConfig
from ..node.effects import News
from ..node.inputs import (
    AddPeer,
    Dial,
    Drain,
    ForgetPeer,
    Handled,
    HangUp,
    PeerSeen,
    SendMessage,
    Stop,
)
from ..node.peers import PeerInfo, PeerRecord, PeerState
from ..text import short_key
from ..wire.envelope import Message, VerifiedMessage
from ..wire.messages import Chain, MessageType, PeerAnnouncement
from .cosigning import Cosigning
from .driver import Driver
from .finder import Discover, Finder
from .folder import DataFolder
from .handlers import Handler
from .inbox import Inbox
from .keystore import load_identity, save_identity
from .mailing import Mailing
from .peer import Peer
from .traffic import Traffic, traffic_of
from .transport.base import Connection, Sink, Transport
from .transport.carriers import Carriers, MakeCarriers
from .transport.route import DIRECT, Route
from .transport.tcp import TcpTransport
from .transport.tls import TlsTransport

__all__ = ["NetworkService"]

_KEY_FILE = "identity.key"


class _MakeTransport(Protocol):
    def __call__(self, identity: Identity, sink: Sink, host: str, port: int, *, limits: Limits) -> Transport: ...


class NetworkService(Cosigning, Mailing):
    """One node: it listens, dials, and exchanges signed messages over encrypted links.

        async with NetworkService("alice", "Alice's Node", "127.0.0.1", 8001, handler=on_message) as network:
            await network.connect_to_peer(PeerInfo(id="bob", host="127.0.0.1", port=8002, pubkey_hex="02..."))
            await network.send_message_to("bob", Message(MessageType.CHAT, "alice", b"hello"))

    Args:
        id:   this node's label in messages, at most 64 characters.
        name: a longer name for people. It does not leave this process.
        host: where to listen; empty to dial only. `port` 0 picks a free one: read `network.port` after `start`.
        handler:    as for `start`; where `async with` starts the node.
        identity:   who this node is. Without it, the key file in `data_dir` (made there at the first start); without
                    that too, a fresh one for this run, and then nothing touches the disk.
        data_dir:   where journals and the key file are. A `DataFolder` is locked already, and stays so after `stop`.
        passphrase: opens the key file in `data_dir`.
        chain:      the Bitcoin network; peers on another one are refused.
        accept:     called with the `PeerInfo` of an unknown key that connects; True puts it into the book and lets
                    it in. Without it unknown keys are refused.
        on_event:   called with `PeerUp`, `PeerDown`, `Fault`, `Undelivered`, `Expired`, `OldDisk` and
                    `SessionNews`.
        limits:     bounds other than the default ones.
        transport:  makes the carrier of `tcp://` addresses; `TcpTransport` unless given.
        tls_port:   also listen for TLS there, where TCP listens; 0 picks a free one: read `network.tls_port`. Dialling
                    `tls://` addresses needs none.
        carriers:   make further ones, each by the scheme of its addresses.
        announce:   addresses to name to every peer that connects; of these a peer only makes use of `ice:`.
        discover:   find the peers of the book on the local network, and dial them there.
        route:      who is dialled through a proxy, over TCP and TLS. Other carriers are given theirs.
    """

    def __init__(
        self,
        id: str,
        name: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        handler: Handler | None = None,
        identity: Identity | None = None,
        data_dir: str | os.PathLike[str] | DataFolder | None = None,
        passphrase: str | bytes | None = None,
        chain: Chain = Chain.MAINNET,
        accept: Callable[[PeerInfo], bool] | None = None,
        on_event: Callable[[News], None] | None = None,
        limits: Limits | None = None,
        transport: _MakeTransport | None = None,
        tls_port: int | None = None,
        carriers: Sequence[MakeCarriers] = (),
        announce: Sequence[str] = (),
        discover: Discover | None = None,
        route: Route = DIRECT,
    ) -> None:
        announcement = PeerAnnouncement(id, tuple(announce), (), bytes(BOOT_EPOCH_BYTES), b"", 0)
        Message(MessageType.PEER_ANNOUNCEMENT, id, announcement)  # refuses a label that no message can carry
        self.id = id
        self.name = name
        self.host = host
        self._port = port
        self._identity = identity if identity is not None or data_dir is not None else Identity.generate()
        self._lent = data_dir if isinstance(data_dir, DataFolder) else None
        path = self._lent.path if self._lent is not None else data_dir
        self._data_dir = None if path is None else Path(path)  # type: ignore[arg-type]
        self._passphrase = passphrase
        self._chain = chain
        self._accept = accept
        self._on_event = on_event
        self._limits = limits or Limits()
        self._make_transport = transport or partial(TcpTransport, route=route)
        self._tls_port = tls_port
        self._make_carriers = tuple(carriers)
        self._announce = tuple(announce)
        self._route = route
        self._transport: Transport | None = None
        self._tls: TlsTransport | None = None
        self._driver: Driver | None = None
        self._carried: Carriers
        self.finder = Finder(self, discover, chain, self._limits.dial_timeout_s)
        self._handler = handler
        self._inboxes: dict[bytes, Inbox] = {}
        self._peers: dict[bytes, Peer] = {}
        self._piles = {}
        self._early: list[PeerInfo] = []
        self._folder: DataFolder | None = None
        self._stopping: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, handler: Handler | None = None) -> None:
        """Listen, and hand every arriving message to `handler(message, peer)`: a function, plain or async.

        Raises: TransportError when it runs already or was stopped, IoError when the address or the data folder cannot
                be had, AuthenticationError when the passphrase does not open the key file.
        """
        if self._driver is not None or self._stopping is not None:
            raise TransportError("this service was started before", hint="start once; handler= goes to the constructor")
        self._handler = handler or self._handler
        if self._data_dir is not None:
            self._folder = self._lent or DataFolder.lock(self._data_dir)
            try:
                if self._identity is None:
                    self._identity = await asyncio.to_thread(_identity_in, self._data_dir, self._passphrase)
            except BaseException:
                self._unlock()
                raise
            self._passphrase = None
        driver = Driver(
            self.identity,
            NodeConfig(
                label=self.id,
                chain=self._chain,
                addresses=self._announce,
                disk=self._folder is not None,
                best_rank=Rank.PROXIED if self._route.everything else Rank.LAN,
                limits=self._limits,
            ),
            deliver=self._deliver,
            tell=self._tell,
            admit=self._admit,
            folder=self._folder,
        )
        carriers = self._carried = self._carriers(driver)
        self._driver = driver
        try:
            for info in self._early:
                driver.submit(AddPeer, info)
            await driver.start(carriers)
            await self.finder.start(self._folder)
        except BaseException:
            self._driver = None
            await self.finder.stop()
            await driver.stop()
            await carriers.stop()  # which the driver may not have had yet
            self._unlock()
            raise

    async def stop(self) -> None:
        """Wait for acknowledgements, say goodbye to everybody, let handlers finish, and close: 2 s for each at most.

        Doing it twice is harmless: each call returns when all of that is done. It is also done where a call is
        cancelled, as long as the loop runs.
        """
        if self._driver is not None and self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._driver, asyncio.current_task()))
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def _stop(self, driver: Driver, caller: asyncio.Task[Any] | None) -> None:
        await self.finder.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._do(Drain), self._limits.stop_timeout_s)
        driver.submit(Stop)
        timeout_s = self._limits.stop_timeout_s
        await asyncio.gather(*(inbox.close(timeout_s, caller) for inbox in self._inboxes.values()))
        await driver.stop()
        self._driver = None
        self._unlock()

    async def __aenter__(self) -> NetworkService:
        if self._driver is None:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- who we are ---------------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """Who this node is. Raises LocalError before `start` when it comes from `data_dir`."""
        if self._identity is None:
            raise LocalError("the identity is in the data folder", hint="start() loads it")
        return self._identity

    @property
    def pubkey_hex(self) -> str:
        """This node's key: 66 hex digits. Give it to those who shall let this node in."""
        return self.identity.pubkey_hex

    @property
    def port(self) -> int:
        """The port it listens on."""
        return getattr(self._transport, "port", self._port)

    @property
    def tls_port(self) -> int | None:
        """The port where it listens for TLS; None where it does not."""
        return self._tls.port if self._tls is not None and self._tls_port is not None else self._tls_port

    @property
    def info(self) -> PeerInfo:
        """What another node needs to reach this one."""
        tls = (address_text(self.host, self.tls_port, "tls"),) if self.host and self.tls_port else ()
        return PeerInfo(
            id=self.id, name=self.name, host=self.host, port=self.port, pubkey_hex=self.pubkey_hex, addresses=tls
        )

    # --- the book -----------------------------------------------------------------------------------------------------

    def add_peer(self, info: PeerInfo, *, provisional: bool = False) -> None:
        """Put a peer into the book: it may connect from now on, and can be dialled where it has an address.

        A `provisional` one may do nothing but be paired, until it is put there again without it.

        Raises: AuthenticationError when the key is none, is our own, or its label belongs to another key.
        """
        if self._driver is None:
            self._early.append(info)
        else:
            self._driver.submit(AddPeer, info, provisional)
            self.finder.renewed(info)

    def read_relays(self, relays: Iterable[str]) -> None:
        """Read this node's inbox at these relays, too, beside those that its carrier has; what was said before is over.

        Raises: LocalError for what is no relay, and without a carrier that knows relays.
        """
        self._carried.read_at(relays)

    def peer_seen(self, peer: str, host: str, port: int) -> None:
        """A peer of the book was seen there on the local network: it is dialled there, too. Raises PeerNotFound."""
        self._running.feed(PeerSeen(self._find(peer).key, host, port))

    async def remove_peer(self, peer: str) -> None:
        """Hang up on a peer and take it out of the book. Raises PeerNotFound."""
        key = self._find(peer).key
        await self._do(ForgetPeer, key)
        self.finder.forgotten(key)
        self._peers.pop(key, None)
        inbox = self._inboxes.pop(key, None)
        if inbox is not None:
            await inbox.close(0, asyncio.current_task())

    def peer(self, peer: str) -> Peer:
        """Return a peer of the book, by its label or its key in hex. Raises PeerNotFound."""
        return self._peer(self._find(peer))

    def peers(self) -> list[Peer]:
        """Return everybody in the book."""
        return [self._peer(record) for record in self._running.node.book]

    def peer_state(self, peer: str) -> PeerState:
        """Return where a peer stands. Raises PeerNotFound."""
        return self._find(peer).state

    def traffic(self, peer: str) -> Traffic:
        """Return what passed between this node and a peer, and what is thought of it. Raises PeerNotFound."""
        driver, record = self._running, self._find(peer)
        return traffic_of(record, driver.node.conduct, asyncio.get_running_loop().time(), driver.now())

    @property
    def refusals(self) -> int:
        """How many connections did not become a link, in this run: no slot, too fast, or a failed handshake."""
        return 0 if self._driver is None else self._driver.refusals

    async def connected_peers(self) -> list[PeerInfo]:
        """Return the peers that are connected now."""
        return [record.info for record in self._running.node.book if record.live]

    # --- links --------------------------------------------------------------------------------------------------------

    async def connect_to_peer(
        self, info: PeerInfo | str, *, timeout_s: float | None = None, persist: bool = False
    ) -> Peer:
        """Connect to a peer, and put it into the book where it is not there yet.

        Returns when both sides have proved their keys and announced themselves. From then on a lost link is dialled
        again, with growing pauses, until `disconnect_from_peer`. With `persist` so is this first one: the call goes on
        until it succeeds, and the dialling even after `timeout_s`.

        Raises: AuthenticationError (it does not know us, or has another key: it cannot be told which),
                ConnectionError, TransportError without an address or a free slot, PeerNotFound; Timeout after
                `timeout_s`, caused by the last attempt's error.
        """
        if isinstance(info, PeerInfo):
            self.add_peer(info)
            record = self._find(info.pubkey_hex)
        else:
            record = self._find(info)
        try:
            async with asyncio.timeout(timeout_s):
                await self._do(Dial, record.key, persist)
        except TimeoutError as error:
            if isinstance(error, NetworkError):
                raise
            going_on = "it is still being dialled" if persist else "connect again, or pass persist=True"
            why = f": {record.last_error}" if record.last_error else ""
            text = f"{record.name} is not connected after {timeout_s:g} s{why}"
            raise Timeout(text, hint=going_on) from record.last_error
        return self._peer(record)

    async def disconnect_from_peer(self, peer: str) -> None:
        """Say goodbye to a peer and stop reconnecting. It stays in the book and may connect. Raises PeerNotFound."""
        key = self._find(peer).key
        self.finder.leave(key)
        await self._do(HangUp, key)

    # --- messages -----------------------------------------------------------------------------------------------------

    async def send_message_to(
        self,
        peer: str,
        message: Message,
        *,
        wait_ack: bool = False,
        durable: bool | None = None,
        expires_in_s: float | None = None,
    ) -> None:
        """Send a message to one peer; sign it first unless it is signed by this node's identity.

        Durable, which is what a service with a `data_dir` does unless told otherwise: returns when the message is on
        disk. It need not be connected: the message is kept until the peer acknowledges it, over lost links and
        restarts, and dropped only after `expires_in_s` (7 days unless given, at most 30), which `Expired` tells.

        Otherwise: returns when it is on its way to a connected peer. It is kept in memory and sent again on the next
        link until the peer acknowledges it.

        When too much is on its way, this call waits. With `wait_ack` it returns only once the peer has verified and
        accepted it: a peer with a `data_dir` has it on disk then, and hands it to its handler once.

        Raises: PeerNotFound; SendError when the peer is not connected and the message is not durable, when too much
                is kept for it, or the message is not ours to send; Timeout with `wait_ack` when it expired; IoError
                when the disk fails.
        """
        keep = self._data_dir is not None if durable is None else durable
        keep_s = (self._limits.outbox_ttl_s if expires_in_s is None else expires_in_s) if keep else 0.0
        driver = self._running
        answer = driver.submit(SendMessage, (driver.node.book.find(peer).key,), message, wait_ack, keep_s)
        if isinstance(answer, asyncio.Future):
            await answer

    async def broadcast_message(self, message: Message, *, wait_ack: bool = False) -> int:
        """Send a message to every connected peer, encoded and signed once. It is not durable.

        Returns: how many peers it went to.
        """
        reached: int = await self._do(SendMessage, None, message, wait_ack)
        return reached

    # --- inside -------------------------------------------------------------------------------------------------------

    def _find(self, peer: str) -> PeerRecord:
        return self._running.node.book.find(peer)

    def _peer(self, record: PeerRecord) -> Peer:
        peer = self._peers.get(record.key)
        if peer is None:
            peer = self._peers[record.key] = Peer(self, record)
        return peer

    def _carriers(self, sink: Sink) -> Carriers:
        identity, limits = self.identity, self._limits
        self._transport = self._make_transport(identity, sink, self.host, self._port, limits=limits)
        listens = self._tls_port is not None
        tls = (self.host if listens else "", self._tls_port or 0)
        self._tls = TlsTransport(identity, sink, *tls, limits=limits, route=self._route)
        made: dict[str, Transport] = {"tcp": self._transport, "tls": self._tls}
        for make in self._make_carriers:
            made |= make(identity, sink, limits=limits)
        return Carriers(identity, sink, made)

    def _admit(self, connection: Connection) -> bool:
        if self._accept is None:
            return False
        key = connection.peer.compressed
        host = connection.address.rpartition(":")[0]
        info = PeerInfo(id=short_key(key), host=host, pubkey_hex=key.hex())
        if not self._accept(info):
            return False
        if self._running.node.book.get(key) is None:  # unless the callee has put it there, provisionally for instance
            self._running.submit(AddPeer, info, False, True)
        return True

    def _tell(self, news: News) -> None:
        self.finder.told(news)
        if self._on_event is not None:
            self._on_event(news)

    def _deliver(self, key: bytes, message: VerifiedMessage) -> None:
        inbox = self._inboxes.get(key)
        if inbox is None:
            inbox = self._open_inbox(key)
        if inbox is not None:
            inbox.put(message)
        else:
            self._running.feed(Handled(key, message.id))

    def _open_inbox(self, key: bytes) -> Inbox | None:
        handler = self._handler
        record = self._running.node.book.get(key)
        if handler is None or record is None:
            return None
        peer, driver = self._peer(record), self._running

        def handle(message: VerifiedMessage) -> Awaitable[Any] | None:
            result: Awaitable[Any] | None = handler(message, peer)
            return result

        def done(message: VerifiedMessage) -> None:
            if self._folder is not None:
                driver.feed(Handled(key, message.id))

        kept = self._folder is not None
        inbox = Inbox(handle, lambda on: driver.throttle(key, on), self._limits.inbox_max, done if kept else None)
        self._inboxes[key] = inbox
        return inbox

    def _unlock(self) -> None:
        if self._folder is not None and self._lent is None:
            self._folder.close()
        self._folder = None


def _identity_in(folder: Path, passphrase: str | bytes | None) -> Identity:
    path = folder / _KEY_FILE
    if path.exists():
        return load_identity(path, passphrase)
    identity = Identity.generate()
    save_identity(identity, path, passphrase)
    return identity
