"""What hosts a pure machine in a running node: its messages in, its effects out one after the other, and its clock."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from ..errors import NetworkError
from ..net.folder import DataFolder
from ..net.handlers import MessageHandler
from ..net.service import NetworkService
from ..node.effects import News
from ..node.peers import PeerInfo
from ..signing.groupfile import GroupFile
from .config import Config
from .events import Events
from .groups import Groups
from .keys import WalletKeys
from .natting import Forwarding

__all__ = ["Desk", "House"]

logger = logging.getLogger("musignet")


class House(Protocol):
    """What a machine needs of the daemon that it runs in."""

    folder: DataFolder
    network: NetworkService
    config: Config
    events: Events
    handler: MessageHandler
    strangers: list[Callable[[PeerInfo], bool]]
    listeners: list[Callable[[News], None]]
    groups: Groups
    keys: WalletKeys
    forwarding: Forwarding

    @property
    def onions(self) -> tuple[str, ...]:
        """Where this node can be reached through Tor."""
        ...

    @property
    def relays(self) -> tuple[str, ...]:
        """Where this node reads its inbox: its own relays, and those of its groups."""
        ...

    def pin(self, info: PeerInfo) -> None:
        """Keep a peer."""
        ...

    def look_at_relays(self) -> None:
        """The relays of a group are others than before."""
        ...

    def add_group(self, group: GroupFile, *, elsewhere: bool = False) -> None:
        """Keep a group, and cosign from now on."""
        ...


class Desk:
    """Performs effects in order, in one task; wakes the machine when it asked for that.

    Args:
        deadline: when the machine is to be woken next, in seconds since 1970, or None.
        woken:    wakes it.
    """

    def __init__(self, deadline: Callable[[], float | None], woken: Callable[[], None]) -> None:
        self._deadline, self._woken = deadline, woken
        self._waiting: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def do(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this after everything before it."""
        self._waiting.put_nowait(work)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def arm(self) -> None:
        """Set the clock anew: what the machine waits for may have changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._deadline()
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - time.time()), self._wake)

    async def stop(self) -> None:
        """Do nothing more. Doing it twice is harmless."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _wake(self) -> None:
        self._timer = None
        self._woken()
        self.arm()

    async def _work(self) -> None:
        while True:
            work = await self._waiting.get()
            try:
                await work()
            except NetworkError as error:
                logger.info("not done: %s", error)
