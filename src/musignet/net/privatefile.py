"""Files that nobody else may read or write: written whole or not at all, read without following a link (THREATS.md Z3).

Everything happens relative to a descriptor of the folder, which is checked once: no path is resolved twice.
Elsewhere than on POSIX (Windows) there are no such descriptors, owners or mode bits: there paths are used, and
who may read the file is for the folder's access list to say.
"""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..errors import IoError, NetworkError

__all__ = ["PrivateFolder", "opened", "write_whole"]

_POSIX: Final = hasattr(os, "geteuid") and os.open in os.supports_dir_fd
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS  # a FIFO in the file's place must not hold us
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
_FILE_MODE: Final = 0o600

_HINTS: Final = {
    errno.ENOENT: "check the path; the folder must exist",
    errno.EEXIST: "pass overwrite=True to replace a key file",
    errno.ELOOP: "give the path of the file itself, not of a symbolic link",
}


@contextmanager
def opened(path: Path, what: str, shown: object) -> Iterator[PrivateFolder]:
    """Open a folder in which nobody else could replace a file, and close it at the end.

    Args:   what  - the kind of file that is worked with, for sentences: "key file".
            shown - its path, as the caller gave it.
    Raises: IoError, also for every OSError in the body.
    """
    try:
        folder = PrivateFolder(path, what)
        try:
            folder.check()
            yield folder
        finally:
            folder.close()
    except NetworkError:
        raise
    except OSError as error:
        raise IoError(f"{error.strerror}: {what} {shown}", hint=_HINTS.get(error.errno or 0, "")) from error


def write_whole(path: Path, what: str, data: bytes, *, overwrite: bool) -> None:
    """Put a file in place, whole and of mode 600, or leave what is there; it is on disk when this returns.

    Args:   what - the kind of file, as for `opened`.
    Raises: IoError, also where there is such a file and `overwrite` is false.
    """
    with opened(path.parent, what, path) as folder:
        with folder.temporary(data) as temporary:
            folder.place(temporary, path.name, overwrite)
        folder.confirm(path.name, data)


class PrivateFolder:
    """A folder held open; every name is looked up in it, wherever its path leads by then. Use `opened`."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if _POSIX else None

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def check(self) -> None:
        """Refuse a folder in which somebody else could replace the file. A sticky one (/tmp) does not let them."""
        if self._fd is None:
            return
        info = os.fstat(self._fd)
        if info.st_uid not in (0, os.geteuid()):
            raise IoError(f"folder {self._path}", expected=f"owner {os.geteuid()}", got=f"owner {info.st_uid}")
        if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
            hint = f"chmod go-w {shlex.quote(str(self._path))}"
            mode = f"mode {stat.S_IMODE(info.st_mode):o}"
            raise IoError(f"folder {self._path}", expected="nobody else may write to it", got=mode, hint=hint)

    def read(self, name: str, most: int) -> bytes:
        """Return the file, or of one longer than `most` the first byte too many. Checked after it was opened (Z3)."""
        fd = os.open(self._name(name), _READ, dir_fd=self._fd)
        try:
            self._check_file(os.fstat(fd), name)
            return os.read(fd, most + 1)
        finally:
            os.close(fd)

    @contextmanager
    def temporary(self, data: bytes) -> Iterator[str]:
        """Write and sync `data` to a new file of mode 600; yield its name, and remove that name at the end."""
        name = f".musignet-{secrets.token_hex(8)}.tmp"
        fd = os.open(self._name(name), _CREATE, _FILE_MODE, dir_fd=self._fd)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            yield name
        finally:
            with suppress(OSError):  # it has its final name already; or it stays, and may be deleted by hand
                os.unlink(self._name(name), dir_fd=self._fd)

    def place(self, temporary: str, name: str, overwrite: bool) -> None:
        """Give the file its name: atomically in the place of the old one, or only where nothing has it (EEXIST)."""
        names = self._name(temporary), self._name(name)
        put = os.replace if overwrite else os.link
        put(*names, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def confirm(self, name: str, data: bytes) -> None:
        """Sync the new name, and compare what it shows now with what was decrypted."""
        try:
            if self._fd is not None:
                os.fsync(self._fd)
            same = self.read(name, len(data)) == data
        except OSError as error:
            raise IoError(
                f"in place, but may not survive a power cut ({error}): {self._what} {self._path / name}",
                hint="save it again with overwrite=True",
            ) from error
        if not same:
            raise IoError(f"in place, but somebody else changed it meanwhile: {self._what} {self._path / name}")

    def _name(self, name: str) -> str:
        return name if self._fd is not None else str(self._path / name)

    def _check_file(self, info: os.stat_result, name: str) -> None:
        path = self._path / name
        if not stat.S_ISREG(info.st_mode):
            raise IoError(f"{self._what} {path}", expected="a regular file", got=stat.filemode(info.st_mode))
        if self._fd is None:
            return
        if info.st_uid != os.geteuid():
            hint = "load it as its owner"
            raise IoError(
                f"{self._what} {path}", expected=f"owner {os.geteuid()}", got=f"owner {info.st_uid}", hint=hint
            )
        if info.st_mode & 0o077:
            hint = f"chmod 600 {shlex.quote(str(path))}"
            mode = f"mode {stat.S_IMODE(info.st_mode):o}"
            raise IoError(f"{self._what} {path}", expected="mode 600, for nobody else", got=mode, hint=hint)
