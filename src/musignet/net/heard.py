"""What was heard of whom, kept over a restart: nobody makes this node dial with a beacon that it has heard before.

One small file in the data folder. A beacon is refused for its age a minute after it was made, so this need not outlive
a power cut: it is replaced whole, and not synced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final

import msgspec

from ..errors import IoError
from ..node.sightings import Mark
from .folder import DataFolder

__all__ = ["Heard"]

logger = logging.getLogger("musignet")

_NAME: Final = "heard.json"
_NEW: Final = "heard.json.new"


class Heard:
    """See the module. Without a folder it keeps nothing."""

    def __init__(self, folder: DataFolder | None) -> None:
        self._folder = folder

    def load(self) -> dict[bytes, Mark]:
        """Return what was stored, by key; nothing where that cannot be read: then a minute is a risk, and no more.

        Raises: IoError when the file is another user's, or open to others.
        """
        if self._folder is None or not self._folder.has(_NAME):
            return {}
        try:
            data = (self._folder.path / _NAME).read_bytes()
            rows = msgspec.json.decode(data, type=dict[str, Mark])
            return {bytes.fromhex(key): mark for key, mark in rows.items()}
        except (OSError, ValueError) as error:
            logger.warning("what was heard on the local network is forgotten: %s", error)
            return {}

    def store(self, marks: Mapping[bytes, Mark]) -> None:
        """Replace what was stored. Raises IoError."""
        if self._folder is None:
            return
        path, new = self._folder.path / _NAME, self._folder.path / _NEW
        data = msgspec.json.encode({key.hex(): mark for key, mark in marks.items()})
        try:
            new.unlink(missing_ok=True)
            self._folder.create(_NEW)
            new.write_bytes(data)
            os.replace(new, path)
        except OSError as error:
            raise IoError(f"{error.strerror}: {path}", hint="check the disk and who owns the folder") from error
