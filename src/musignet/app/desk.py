"""What hosts a pure machine in a running node: its messages in, its effects out in order for each peer, its clock."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from ..errors import NetworkError
from ..limits import DESK_WAITING_MAX
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


Work: TypeAlias = Callable[[], Awaitable[object]]


class Desk:
    """Performs effects in order for each peer; wakes the machine when it asked for that.

    A peer that takes nothing more holds up what is for itself, and no more of that waits than `DESK_WAITING_MAX`.

    Args:
        deadline: when the machine is to be woken next, in seconds since 1970, or None.
        woken:    wakes it.
    """

    def __init__(self, deadline: Callable[[], float | None], woken: Callable[[], None]) -> None:
        self._deadline, self._woken = deadline, woken
        self._waiting: dict[bytes, deque[Work]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many effects are not begun."""
        return sum(map(len, self._waiting.values()))

    def do(self, work: Work, peer: bytes) -> None:
        """Do this after everything before it that is for the same peer, named by its key; our own work by `b""`."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            waiting = self._waiting[peer] = deque()
            task = asyncio.get_running_loop().create_task(self._work(peer, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(waiting) < DESK_WAITING_MAX:
            waiting.append(work)

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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wake(self) -> None:
        self._timer = None
        self._woken()
        self.arm()

    async def _work(self, peer: bytes, waiting: deque[Work]) -> None:
        try:
            while waiting:
                try:
                    await waiting.popleft()()
                except NetworkError as error:
                    logger.info("not done: %s", error)
        finally:
            del self._waiting[peer]
