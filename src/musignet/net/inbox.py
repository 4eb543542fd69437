"""One queue per peer between the driver and the application's handler."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..wire.envelope import VerifiedMessage
from .driver import guarded, guarded_await

__all__ = ["Inbox"]


class Inbox:
    """Messages of one peer for the application, handled one after the other, in order.

    A plain handler is called at once. An awaitable is awaited by one task per peer, made with the first of them. When
    `inbox_max` messages wait, `throttle(True)` stops reading from the peer until half of them are done.
    """

    def __init__(
        self, handle: Callable[[VerifiedMessage], Any], throttle: Callable[[bool], None], inbox_max: int
    ) -> None:
        self._handle = handle
        self._throttle = throttle
        self._max = inbox_max
        self._waiting: deque[VerifiedMessage | Awaitable[Any]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._idle = True
        self._throttled = False
        self._closing = False

    def put(self, message: VerifiedMessage) -> None:
        """Handle a message now, or as soon as those before it are done."""
        if self._idle and not self._waiting:
            result = guarded(self._handle, message)
            if result is None or not inspect.isawaitable(result):
                return
            self._waiting.append(result)
        else:
            self._waiting.append(message)
        self._run()
        if len(self._waiting) >= self._max:
            self._throttled = True
            self._throttle(True)  # each time: it may have come on a new link

    async def close(self, timeout_s: float, caller: asyncio.Task[Any] | None) -> None:
        """Let what waits finish for `timeout_s`, then cancel it. A handler that closes its own inbox is let finish."""
        worker = self._worker
        if worker is None:
            return
        self._closing = True
        if worker is caller:
            return  # it ends by itself, once the handler that called has returned
        self._run()
        await asyncio.wait((worker,), timeout=timeout_s)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

    def _run(self) -> None:
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        elif self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting:
                self._idle = False
                item = self._waiting.popleft()
                result = guarded(self._handle, item) if isinstance(item, VerifiedMessage) else item
                if result is not None and inspect.isawaitable(result):
                    await guarded_await(result)
                if self._throttled and len(self._waiting) <= self._max // 2:
                    self._throttled = False
                    self._throttle(False)
            self._idle = True
            if self._closing:
                return
            self._wake = loop.create_future()
            await self._wake
