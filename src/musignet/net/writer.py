"""Appending to a journal from an event loop: one thread, and one commit for all that waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from ..errors import IoError, LocalError
from ..limits import JOURNAL_GROUP_MAX_RECORDS, JOURNAL_WAITING_MAX_RECORDS
from .store import Change, Journal

__all__ = ["Writer"]

_Waiting: TypeAlias = tuple[Sequence[Change], "asyncio.Future[list[int]]"]


class Writer:
    """Owns a journal while it runs on the current loop. What arrives during one commit shares the next.

    A future that is cancelled does not take its records back.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self.commits = 0

    def append(self, records: Sequence[Change]) -> asyncio.Future[list[int]]:
        """Return a future of the ids of these records. It is done when they are on disk, in the order of the calls.

        Raises: from the future what `Journal.append` raises; at once LocalError when too many records wait, or after
                `close`.
        """
        if self._closed:
            raise LocalError("this writer is closed")
        if self._count + len(records) > JOURNAL_WAITING_MAX_RECORDS and self._count:
            expected = f"at most {JOURNAL_WAITING_MAX_RECORDS} records"
            raise LocalError("too much waits for the disk", expected=expected, hint="wait for what was given before")
        future: asyncio.Future[list[int]] = self._loop.create_future()
        self._waiting.append((records, future))
        self._count += len(records)
        if self._task is None:
            self._task = self._loop.create_task(self._run())
        return future

    async def close(self) -> None:
        """Store what waits, then end the thread. The journal stays open. Doing it twice is harmless."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()

    async def _run(self) -> None:
        while self._waiting:
            group = self._take()
            try:
                requests = [records for records, _ in group]
                outcomes = await self._loop.run_in_executor(self._thread, self._journal.append_many, requests)
            except IoError as error:
                _answer(group, [error] * len(group))
            else:
                self.commits += 1
                _answer(group, outcomes)
        self._task = None

    def _take(self) -> list[_Waiting]:
        """Take what fits into one commit, at least one request."""
        group: list[_Waiting] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0][0]) <= JOURNAL_GROUP_MAX_RECORDS):
            size += len(self._waiting[0][0])
            group.append(self._waiting.popleft())
        self._count -= size
        return group


def _answer(group: Sequence[_Waiting], outcomes: Sequence[list[int] | LocalError | IoError]) -> None:
    for (_, future), outcome in zip(group, outcomes, strict=True):
        if future.done():
            continue
        if isinstance(outcome, list):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
