"""The data folder of one process: locked for as long as it runs, and private (THREATS.md Z3, Z8).

Elsewhere than on POSIX (Windows) there are no locks, owners or mode bits of this kind: there SQLite's own exclusive
lock keeps a second process from a journal, and who may read it is for the folder's access list to say.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from typing import Final

from ..errors import IoError

if sys.platform != "win32":
    import fcntl

__all__ = ["DataFolder"]

_LOCK_FILE: Final = "lock"
_POSIX: Final = hasattr(os, "geteuid")
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class DataFolder:
    """A folder that this process alone works in, until `close` or its end. Use `DataFolder.lock`."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def lock(cls, path: Path) -> DataFolder:
        """Make the folder ours alone; where there is none, make it with mode 700.

        Raises: IoError when another process, or another part of this one, has it, or it cannot be had.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600) if _POSIX else None
        except OSError as error:
            raise IoError(f"{error.strerror}: data folder {path}", hint="check the path and who owns it") from error
        if sys.platform != "win32" and lock is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                hint = "stop it first, or give this one a data folder of its own"
                raise IoError(f"another node runs on {path}", hint=hint) from None
        return cls(path, lock)

    def close(self) -> None:
        """Let others have it. Doing it twice is harmless."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_private(self) -> None:
        """Raise IoError unless the folder is ours, with mode 700 or less."""
        _check_private(self.path, os.stat(self.path), "folder", "700")

    def has(self, name: str) -> bool:
        """Return whether a file of that name is there. Raises IoError unless it is a regular file of ours, mode 600."""
        path = self.path / name
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(info.st_mode):
            raise IoError(f"file {path}", expected="a regular file", got=stat.filemode(info.st_mode))
        _check_private(path, info, "file", "600")
        return True

    def create(self, name: str) -> None:
        """Make an empty file of mode 600. Raises FileExistsError where something has that name."""
        os.close(os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600))

    def sync(self) -> None:
        """Make the names of the files in the folder survive a power cut."""
        if _POSIX:
            folder = os.open(self.path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _check_private(path: Path, info: os.stat_result, what: str, most: str) -> None:
    if not _POSIX:
        return
    if info.st_uid != os.geteuid():
        raise IoError(f"{what} {path}", expected=f"owner {os.geteuid()}", got=f"owner {info.st_uid}")
    if info.st_mode & 0o077:
        hint = f"chmod {most} {shlex.quote(str(path))}"
        mode = f"mode {stat.S_IMODE(info.st_mode):o}"
        raise IoError(f"{what} {path}", expected=f"mode {most}, for nobody else", got=mode, hint=hint)
