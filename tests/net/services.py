"""`NetworkService`s on one carrier, and what they told."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from endpoints import Carrier, Signal

from musignet.crypto.keys import Identity
from musignet.limits import Limits
from musignet.net.peer import Peer
from musignet.net.service import NetworkService
from musignet.net.transport import MemoryNetwork, MemoryTransport, TcpTransport
from musignet.node.effects import News
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, MessageType
from support.ceremony import identity as identity_of
from support.keys import ALICE, BOB, CAROL

__all__ = ["LogLines", "Party", "chat", "cosigner", "friends", "maker", "party"]


def chat(text: str = "hello", sender: str = "x") -> Message:
    return Message(MessageType.CHAT, sender, text.encode())


class Party(Signal):
    """One service, what arrived, and what it published."""

    def __init__(self, carrier: Carrier, identity: Identity, label: str, **options: Any) -> None:
        super().__init__()
        self.got: list[tuple[str, str]] = []
        self.news: list[News] = []
        self.carrier = carrier
        options.setdefault("host", carrier.host)
        name = f"{label.title()}'s Node"
        self.service = NetworkService(
            label, name, identity=identity, on_event=self._event, transport=maker(carrier), **options
        )

    def _event(self, news: News) -> None:
        self.news.append(news)
        self.poke()

    def on_message(self, message: Message, peer: Peer) -> None:
        self.got.append((peer.info.id, message.payload.decode()))
        self.poke()

    def texts(self, of: str | None = None) -> list[str]:
        return [text for sender, text in self.got if of in (None, sender)]

    def told(self, kind: type[News]) -> list[Any]:
        return [news for news in self.news if isinstance(news, kind)]

    async def hears(self, count: int = 1) -> None:
        await self.until(lambda: len(self.got) >= count)

    async def learns(self, kind: type[News], count: int = 1) -> None:
        await self.until(lambda: len(self.told(kind)) >= count)

    @property
    def info(self) -> PeerInfo:
        return self.service.info

    async def start(self, handler: Any = None) -> None:
        await self.service.start(handler or self.on_message)


def maker(carrier: Carrier) -> Any:
    network = getattr(carrier, "network", None)
    return TcpTransport if network is None else functools.partial(MemoryTransport, network=network)


@asynccontextmanager
async def friends(
    carrier: Carrier, *names: str, limits: Limits | None = None, **options: Any
) -> AsyncIterator[tuple[Party, ...]]:
    """Return started services that have each other in the book, not connected yet."""
    keys = {"alice": ALICE, "bob": BOB, "carol": CAROL}
    parties = tuple(Party(carrier, keys[name], name, limits=limits, **options) for name in names)
    for one in parties:
        await one.start()
    for one in parties:
        for other in parties:
            if other is not one:
                one.service.add_peer(other.info)
    try:
        yield parties
    finally:
        for one in parties:
            await one.service.stop()


@asynccontextmanager
async def party(carrier: Carrier, *names: str, limits: Limits | None = None) -> AsyncIterator[tuple[Party, ...]]:
    """Return what `friends` does, the first one connected to all others."""
    async with friends(carrier, *names, limits=limits) as parties:
        for other in parties[1:]:
            await parties[0].service.connect_to_peer(other.service.id)
        yield parties


def cosigner(
    name: str, network: MemoryNetwork, folder: Path, told: Callable[[News], None], **options: Any
) -> NetworkService:
    """Return the service of a member of a group, with a folder below `folder`, not started yet."""
    return NetworkService(
        name, **{"host": name} | options, identity=identity_of(name), data_dir=folder / name, chain=Chain.REGTEST,
        on_event=told, transport=functools.partial(MemoryTransport, network=network),
    )  # fmt: skip


class LogLines(logging.Handler, Signal):
    """The lines of the library's log while it is entered."""

    def __init__(self, level: int = logging.WARNING) -> None:
        logging.Handler.__init__(self, level)
        Signal.__init__(self)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.poke()

    def __enter__(self) -> LogLines:
        logging.getLogger("musignet").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("musignet").removeHandler(self)
