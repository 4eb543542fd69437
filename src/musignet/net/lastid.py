"""The small file beside a journal that tells how far it went (see `store`)."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO, Final

from ..errors import IoError
from .folder import DataFolder

__all__ = ["REFUSED", "LastId"]

REFUSED: Final = "keep a copy of the data folder; nothing is signed until the journal opens"


class LastId:
    """The file beside the database: 8 bytes of the last id, 8 bytes of its digest. It may lag behind, never lead."""

    def __init__(self, folder: DataFolder, name: str) -> None:
        self.id = 0
        self._path = folder.path / name
        if not folder.has(name):
            folder.create(name)
        self._file: BinaryIO = open(self._path, "r+b", buffering=0)
        data = self._file.read(17)
        if data.strip(b"\0"):  # a cut while it was first written may leave it empty, or zeros
            self.id = int.from_bytes(data[:8])
            if data != _last_bytes(self.id):
                self.close()
                raise IoError(f"damaged file {self._path}", expected="the last id", got="no id", hint=REFUSED)

    def begin(self, id: int) -> None:
        self.write(id)
        os.fsync(self._file.fileno())

    def write(self, id: int) -> None:
        self._file.seek(0)
        self._file.write(_last_bytes(id))

    def close(self) -> None:
        self._file.close()


def _last_bytes(id: int) -> bytes:
    number = id.to_bytes(8)
    return number + hashlib.sha256(number).digest()[:8]
