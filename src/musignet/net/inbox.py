"""One queue per peer between the driver and the application's handler."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from .. import limits
from ..wire.envelope import VerifiedMessage
from .guard import guarded, guarded_await

__all__ = ["Inbox"]

logger = logging.getLogger("musignet")


class Inbox:
    """Messages of one peer for the application, handled one after the other, in order.

    A plain handler is called at once. An awaitable is awaited by one task per peer, made with the first of them. When
    `inbox_max` messages wait, `throttle(True)` stops reading from the peer until half of them are done.

    `done` is called with each message that was handled: its handler has returned, or raised, or closes this very inbox,
    and was not cancelled by `close`.
    """

    def __init__(
        self,
        handle: Callable[[VerifiedMessage], Any],
        throttle: Callable[[bool], None],
        inbox_max: int,
        done: Callable[[VerifiedMessage], None] | None = None,
    ) -> None:
        self._handle = handle
        self._done = done
        self._throttle = throttle
        self._max = inbox_max
        self._waiting: deque[tuple[VerifiedMessage, Awaitable[Any] | None]] = deque()
        self._current: VerifiedMessage | None = None
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
                if self._done is not None:
                    self._done(message)
                return
            self._waiting.append((message, result))
        else:
            self._waiting.append((message, None))
        self._run()
        if len(self._waiting) >= self._max and not self._throttled:
            self._throttled = True
            self._throttle(True)

    async def close(self, timeout_s: float, caller: asyncio.Task[Any] | None) -> None:
        """Let what waits finish for `timeout_s`, then cancel it. A handler that closes its own inbox is let finish.

        One that goes on though it is cancelled is not waited for longer than `HANDLER_CANCEL_S`.
        """
        worker = self._worker
        if worker is None:
            return
        self._throttle(False)  # whoever comes back under this key finds nothing stopped
        self._closing = True
        if worker is caller:
            self._finish()
            return  # it ends by itself, once the handler that called has returned
        self._run()
        await asyncio.wait((worker,), timeout=timeout_s)
        worker.cancel()
        ended, _ = await asyncio.wait((worker,), timeout=limits.HANDLER_CANCEL_S)
        await asyncio.gather(*ended, return_exceptions=True)
        if not ended:
            logger.warning("a handler of the application goes on though it was cancelled; nobody waits for it")

    def _finish(self) -> None:
        """The current message is handled; said once."""
        message, self._current = self._current, None
        if message is not None and self._done is not None:
            self._done(message)

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
                self._current, begun = self._waiting.popleft()
                if begun is not None:
                    await guarded_await(begun)
                elif inspect.isawaitable(result := guarded(self._handle, self._current)):
                    await guarded_await(result)
                self._finish()
                if self._throttled and len(self._waiting) <= self._max // 2:
                    self._throttled = False
                    self._throttle(False)
            self._idle = True
            if self._closing:
                return
            self._wake = loop.create_future()
            await self._wake
