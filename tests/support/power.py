"""A disk that forgets: SQLite's writes are recorded through apsw, and the disk after a power cut is made from them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from musignet.net.folder import DataFolder

SECTOR_BYTES = 512


class Op(NamedTuple):
    """What happened to a file. `folder`: its names were synced. `ack`: `offset` is the last id that was acknowledged
    by then, `data` what the file of the last id held."""

    what: str
    file: str = ""
    offset: int = 0
    data: bytes = b""


class Recorder(apsw.VFS):
    """Passes everything on to the real file system and notes it in `ops`."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        super().__init__("recorder", "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _File(name, flags, self.ops)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.ops.append(Op("delete", Path(filename).name))


class Folder(DataFolder):
    """A data folder that notes when its names are synced."""

    ops: list[Op]

    def sync(self) -> None:
        super().sync()
        self.ops.append(Op("folder"))


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], ops: list[Op]) -> None:
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary").name
        self._ops = ops
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._ops.append(Op("write", self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._ops.append(Op("truncate", self._name, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._ops.append(Op("sync", self._name))


class ApswConnection:
    """As much of `sqlite3.Connection` as the journal uses, on a connection of apsw."""

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path), vfs="recorder")

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        try:
            return self._db.execute(sql, values)
        except apsw.ConstraintError as error:
            raise sqlite3.IntegrityError(str(error)) from error

    def close(self) -> None:
        self._db.close()


def disk_after_cut(ops: list[Op], draw: random.Random) -> dict[str, bytes]:
    """Return the files as a power cut after `ops` may leave them: all that was synced, and any of the rest, torn."""
    synced: dict[str, bytearray] = {}
    pending: dict[str, list[Op]] = {}
    for op in ops:
        if op.what == "sync":  # of a new file SQLite syncs the name too
            for earlier in pending.pop(op.file, []):
                _apply(synced, earlier)
        elif op.what == "folder":
            for name, left in pending.items():
                for at, earlier in enumerate(left):
                    if earlier.what == "delete":
                        synced.pop(name, None)
                        del left[: at + 1]
                        break
        elif op.what != "ack":
            pending.setdefault(op.file, []).append(op)
    share = draw.random()
    for left in pending.values():
        for op in left:
            for part in _torn(op):
                if draw.random() < share:
                    _apply(synced, part)
    return {name: bytes(data) for name, data in synced.items()}


def _torn(op: Op) -> Iterator[Op]:
    if op.what != "write":
        yield op
    for at in range(0, len(op.data), SECTOR_BYTES):
        yield op._replace(offset=op.offset + at, data=op.data[at : at + SECTOR_BYTES])


def _apply(files: dict[str, bytearray], op: Op) -> None:
    if op.what == "delete":
        files.pop(op.file, None)
        return
    data = files.setdefault(op.file, bytearray())
    if op.what == "truncate":
        del data[op.offset :]
        return
    data.extend(bytes(max(0, op.offset - len(data))))
    data[op.offset : op.offset + len(op.data)] = op.data
