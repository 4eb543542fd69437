"""`broadcast = true` in [chain]: what the cosigners have finished is passed on, and nobody has to be there for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from ...errors import NetworkError
from ...limits import BROADCAST_PAUSE_S
from ..sessions import Entry
from .service import ChainService, on_a_thread

__all__ = ["Broadcasting"]

logger = logging.getLogger("musignet")


class Broadcasting:
    """Each finished transaction is passed on until the backend has taken it, or its proposal has expired.

    A refusal ends nothing: what it spends may be on its way to the backend. Every cosigner may pass it on; that does
    no harm.

    Args:
        tell:  hears, once for each transaction and for each other reason, what came of it: `session`, `txid`, `error`.
        pause: between two tries of one transaction: the first, and the longest.
    """

    def __init__(
        self,
        chain: ChainService,
        tell: Callable[[bytes, str, str], None],
        pause: tuple[float, float] = BROADCAST_PAUSE_S,
    ) -> None:
        self._chain, self._tell, self._pause = chain, tell, pause
        self._begun: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def finished(self, entry: Entry) -> None:
        """A session is complete, now or before the last restart. Said twice is said once."""
        if entry.id not in self._begun:
            self._begun.add(entry.id)
            task = asyncio.get_running_loop().create_task(self._pass_on(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Try nothing any more. What is not passed on yet, is when the node is started again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, entry: Entry) -> None:
        try:
            until, raw = entry.proposal().expires_at, entry.transaction().raw
        except NetworkError as error:
            logger.info("session %s: nothing to pass on: %s", entry.id.hex()[:8], error)
            return
        pause, longest = self._pause
        said = ""
        while time.time() < until:
            why = await self._try(entry, raw)
            if not why:
                return
            if why != said:
                logger.warning("the transaction of session %s is not passed on yet: %s", entry.id.hex()[:8], why)
                self._tell(entry.id, "", said := why)
            await asyncio.sleep(pause)
            pause = min(longest, 2 * pause)

    async def _try(self, entry: Entry, raw: bytes) -> str:
        """Return why the backend did not take it; empty when it did."""
        try:
            async with self._turn:
                txid = (await on_a_thread(lambda: self._chain.backend.broadcast(raw)))[::-1].hex()
        except NetworkError as error:
            return str(error)
        logger.info("the transaction of session %s is passed on: %s", entry.id.hex()[:8], txid)
        self._tell(entry.id, txid, "")
        return ""
