"""The journal `messages` of a node: what its outbox keeps, what its peers sent, and how far disks are (`node.kept`)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..errors import IoError, LocalError, NetworkError
from ..limits import JOURNAL_CHECKPOINT_BYTES, JOURNAL_WAITING_MAX_RECORDS
from ..node.changes import counted
from ..node.effects import Store
from ..node.inputs import Restore, Stored
from ..node.kept import Box
from ..wire.envelope import Message
from .folder import DataFolder
from .store import Change, Forget, Journal, Kind, Record, connect_sqlite
from .writer import Writer

__all__ = ["MailStore"]

_NAME: Final = "messages"
_KINDS: Final = tuple(Kind(box.value, box.name.lower(), single=True, prunable=True) for box in Box)
_KEY_BYTES: Final = 33


class MailStore:
    """Performs `Store` effects in their order, many in one commit, and answers each.

    Args:
        folder: the data folder, locked by this process.
        answer: called with `Stored`, in the order of the effects.
        connect, checkpoint_bytes: as for `Journal.open`.

    Raises: IoError when the journal is damaged or cannot be had.
    """

    def __init__(
        self,
        folder: DataFolder,
        answer: Callable[[Stored], None],
        *,
        connect: Callable[[Path], sqlite3.Connection] = connect_sqlite,
        checkpoint_bytes: int = JOURNAL_CHECKPOINT_BYTES,
    ) -> None:
        self._answer = answer
        self._journal = Journal.open(folder, _NAME, _KINDS, connect=connect, checkpoint_bytes=checkpoint_bytes)
        self._writer = Writer(self._journal)
        self._closed = False
        self._given = 0
        self._last: asyncio.Future[list[int]] | None = None
        self._later: deque[Store] = deque()
        self.waiting_bytes = 0
        """Of messages that are not on disk yet."""

    def load(self) -> Restore:
        """Return what an earlier run left. Raises IoError when it is not what this version writes."""
        boxes: dict[int, list[tuple[bytes, Record]]] = {box: [] for box in Box}
        for _, record in self._journal.replay():
            boxes[record.kind].append((record.key[:_KEY_BYTES], record))
        try:
            return Restore(
                tuple((key, Message.from_bytes(one.body), one.expires_ms) for key, one in boxes[Box.OUT]),
                tuple((key, Message.from_bytes(one.body).verify()) for key, one in boxes[Box.IN]),
                tuple((key, one.key[_KEY_BYTES:], one.expires_ms) for key, one in boxes[Box.HANDLED]),
                tuple((key, Message.from_bytes(one.body)) for key, one in boxes[Box.ANNOUNCED]),
                *counted([(one.key, one.body) for _, one in boxes[Box.CHANGES]]),
            )
        except NetworkError as error:
            raise IoError(f"a message in the journal {_NAME}: {error}", hint="another version wrote it") from error

    def store(self, effect: Store) -> None:
        """Do what the effect says as soon as the disk can. Any number may wait. After `close` nothing happens, as if
        the process had ended."""
        if self._closed:
            return
        self.waiting_bytes += _bytes(effect)
        if self._later or (self._given and self._given + _size(effect) > JOURNAL_WAITING_MAX_RECORDS):
            self._later.append(effect)
        else:
            self._give(effect)

    async def close(self) -> None:
        """Store what waits, and close the journal."""
        while self._given and self._last is not None:
            await asyncio.wait([self._last])
        self._closed = True
        await self._writer.close()
        self._journal.close()

    def _give(self, effect: Store) -> None:
        future = self._last = self._writer.append(_changes(effect))
        self._given += _size(effect)
        future.add_done_callback(lambda done: self._done(effect, done))

    def _done(self, effect: Store, future: asyncio.Future[list[int]]) -> None:
        self._given -= _size(effect)
        self.waiting_bytes -= _bytes(effect)
        error = future.exception()
        assert error is None or isinstance(error, IoError | LocalError)
        self._answer(Stored(effect, error))
        while self._later and (not self._given or self._given + _size(self._later[0]) <= JOURNAL_WAITING_MAX_RECORDS):
            self._give(self._later.popleft())


def _size(effect: Store) -> int:
    return len(effect.puts) + len(effect.drops)


def _bytes(effect: Store) -> int:
    return sum(len(one.envelope) for one in effect.puts)


def _changes(effect: Store) -> list[Change]:
    return [
        *(Record(one.box, effect.peer + one.message_id, one.envelope, one.expires_ms) for one in effect.puts),
        *(Forget(box, effect.peer + message_id) for box, message_id in effect.drops),
    ]
