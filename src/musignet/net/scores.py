"""The scores of peers in the data folder: `scores.json`, so that a restart forgives nobody and forgets nobody.

It is a help and no record: where it is damaged or lost, everybody begins anew, and that is one line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from ..errors import NetworkError
from ..limits import SCORES_FILE_MAX_BYTES
from ..node.reputation import Reputation
from .folder import DataFolder
from .privatefile import opened

__all__ = ["ScoreFile"]

logger = logging.getLogger("musignet")

_NAME: Final = "scores.json"
_WRITE_AFTER_S: Final = 300.0
"""How long a change may wait for the disk: a crash forgets five minutes of what peers did."""


class ScoreFile:
    """Reads the scores when it is made; afterwards it writes them now and then, and with `close`."""

    def __init__(self, folder: DataFolder, reputation: Reputation, now: Callable[[], float]) -> None:
        self._folder = folder
        self._reputation = reputation
        self._read(now())
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(_WRITE_AFTER_S, self._due)

    async def close(self) -> None:
        """Write what changed. Doing it twice is harmless."""
        self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        await self.write()

    async def write(self) -> None:
        """Write the scores where they have changed since. What the disk refuses is logged."""
        if self._reputation.changed:
            self._reputation.changed = False
            await asyncio.to_thread(self._write, self._reputation.dump())

    def _due(self) -> None:
        self._timer = self._loop.call_later(_WRITE_AFTER_S, self._due)
        self._writing = self._loop.create_task(self.write())

    def _write(self, data: bytes) -> None:
        try:
            with opened(self._folder.path, "scores", self._folder.path / _NAME) as folder:
                with folder.temporary(data) as name:
                    folder.place(name, _NAME, overwrite=True)
        except NetworkError as error:
            logger.warning("the scores of peers are not kept: %s", error)

    def _read(self, now: float) -> None:
        try:
            if not self._folder.has(_NAME):
                return
            with opened(self._folder.path, "scores", self._folder.path / _NAME) as folder:
                data = folder.read(_NAME, SCORES_FILE_MAX_BYTES)
        except NetworkError as error:
            logger.warning("the scores of peers begin anew: %s", error)
            return
        if not self._reputation.load(data, now):
            logger.warning("the scores of peers begin anew: %s is damaged", self._folder.path / _NAME)
