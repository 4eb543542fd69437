"""Journals for tests: their kinds, and records that can be told from their number alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

from musignet.net.folder import DataFolder
from musignet.net.store import Journal, Kind, Record, Stored

BURN = Kind(1, "burn", single=True)
MESSAGE = Kind(2, "message", single=True, prunable=True)
NOTE = Kind(3, "note", prunable=True)
KINDS = (BURN, MESSAGE, NOTE)


def record(number: int) -> Record:
    """The record that tests give the id `number`: 32 bytes of key, up to 2 KiB of body."""
    key = hashlib.sha256(number.to_bytes(8)).digest()
    return Record(BURN.code, key, (key * 64)[: number * 37 % 2048])


def expected(last: int) -> list[Stored]:
    return [Stored(number, record(number)) for number in range(1, last + 1)]


def contents(path: Path) -> list[Stored]:
    """Open the journal `node` of a folder, and return all that is in it."""
    folder = DataFolder.lock(path)
    try:
        with Journal.open(folder, "node", KINDS) as journal:
            return list(journal.replay())
    finally:
        folder.close()
