"""Key files on disk: written so that a crash loses nothing, read so that nobody else could have (THREATS.md Z2, Z3).

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

from ..bitcoin.walletkey import WalletKey
from ..crypto.keys import Identity
from ..errors import IoError, LocalError, NetworkError
from .keyfile import (
    DEFAULT_COST,
    FILE_MAX_BYTES,
    SALT_BYTES,
    KdfCost,
    Passphrase,
    Sealed,
    SealedT,
    check_untrusted,
    open_as_untrusted,
    phrase,
    seal,
)

__all__ = [
    "DEFAULT_COST",
    "KdfCost",
    "Passphrase",
    "load_identity",
    "load_wallet_key",
    "save_identity",
    "save_wallet_key",
]

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


def save_identity(
    identity: Identity,
    path: str | os.PathLike[str],
    passphrase: Passphrase | None,
    *,
    overwrite: bool = False,
    insecure_no_passphrase: bool = False,
    cost: KdfCost = DEFAULT_COST,
) -> None:
    """Write `identity` to a key file of mode 600. When this returns it is on disk and has been opened again.

    It is written under a temporary name, synced, read back and decrypted; only then does it take its name. After a
    crash the old file or the whole new one is there, and perhaps a `.musignet-*.tmp`, protected alike, which may
    be deleted. The key is derived twice (2 s at the default cost): call it in a thread where a loop is running.

    Args:    passphrase - None only together with `insecure_no_passphrase=True`.
             overwrite - replace the key file of an identity; no other file is ever replaced.
    Raises:  IoError for the file or its folder. Nothing was changed, unless the sentence says "in place".
             SerializationError when the file to be replaced is not a key file.
             LocalError for a passphrase or a cost that cannot be, or a wiped identity.
    """
    _save(identity, path, passphrase, overwrite, insecure_no_passphrase, cost)


def save_wallet_key(
    wallet: WalletKey,
    path: str | os.PathLike[str],
    passphrase: Passphrase | None,
    *,
    overwrite: bool = False,
    insecure_no_passphrase: bool = False,
    cost: KdfCost = DEFAULT_COST,
) -> None:
    """Write a wallet key to a file of its own, as `save_identity` writes an identity. The two kinds of file cannot be
    taken for each other, nor one be written over the other."""
    _save(wallet, path, passphrase, overwrite, insecure_no_passphrase, cost)


def load_identity(path: str | os.PathLike[str], passphrase: Passphrase | None) -> Identity:
    """Return the identity in a key file. It takes a second at the default cost: see `save_identity`.

    Args:    passphrase - None for a file that was written without one, and only for such a file.
    Raises:  AuthenticationError for a wrong passphrase or an altered file; it cannot be told which.
             SerializationError when it is not a key file, or not of this version.
             IoError when it cannot be read, is not a regular file of ours, or others may read or replace it.
             LocalError when the file is encrypted and there is no passphrase.
    """
    return _load(path, passphrase, Identity)


def load_wallet_key(path: str | os.PathLike[str], passphrase: Passphrase | None) -> WalletKey:
    """Return the wallet key in a key file, as `load_identity` returns an identity; it raises the same."""
    return _load(path, passphrase, WalletKey)


def _save(
    sealed: SealedT, path: str | os.PathLike[str], passphrase: Passphrase | None, overwrite: bool, insecure: bool,
    cost: KdfCost,
) -> None:  # fmt: skip
    kind: type[SealedT] = type(sealed)
    if (passphrase is None) != insecure:
        expected = "either a passphrase or insecure_no_passphrase=True"
        raise LocalError("saving a key", expected=expected, got="neither" if passphrase is None else "both")
    secret_phrase = phrase(passphrase)
    parent, name = _split(path)
    with _file_trouble(path), _opened(parent) as folder:
        if overwrite:
            folder.check_replaceable(name, kind)
        data = seal(sealed, secret_phrase, cost, secrets.token_bytes(SALT_BYTES))
        with folder.temporary(data) as temporary:
            open_as_untrusted(folder.read(temporary), secret_phrase, path, kind).wipe()
            folder.place(temporary, name, overwrite)
        folder.confirm(name, data)


def _load(path: str | os.PathLike[str], passphrase: Passphrase | None, kind: type[SealedT]) -> SealedT:
    secret_phrase = phrase(passphrase)
    parent, name = _split(path)
    with _file_trouble(path), _opened(parent) as folder:
        data = folder.read(name)
    return open_as_untrusted(data, secret_phrase, path, kind)


def _split(path: str | os.PathLike[str]) -> tuple[Path, str]:
    whole = Path(path)
    if whole.name in ("", "..") or "\0" in str(whole):
        raise LocalError("path of a key file", expected="the name of a file", got=repr(str(whole)))
    return whole.parent, whole.name


@contextmanager
def _file_trouble(path: object) -> Iterator[None]:
    """Turn an OSError into an IoError that names the file."""
    try:
        yield
    except NetworkError:
        raise
    except OSError as error:
        raise IoError(f"{error.strerror}: key file {path}", hint=_HINTS.get(error.errno or 0, "")) from error


@contextmanager
def _opened(path: Path) -> Iterator[_Folder]:
    folder = _Folder(path)
    try:
        folder.check()
        yield folder
    finally:
        folder.close()


class _Folder:
    """A folder held open; every name is looked up in it, wherever its path leads by then."""

    def __init__(self, path: Path) -> None:
        self._path = path
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

    def read(self, name: str) -> bytes:
        """Return the file, or of a longer one the first byte too many. Checked after it was opened (Z3)."""
        fd = os.open(self._name(name), _READ, dir_fd=self._fd)
        try:
            self._check_file(os.fstat(fd), name)
            return os.read(fd, FILE_MAX_BYTES + 1)
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
            same = self.read(name) == data
        except OSError as error:
            raise IoError(
                f"in place, but may not survive a power cut ({error}): key file {self._path / name}",
                hint="save it again with overwrite=True",
            ) from error
        if not same:
            raise IoError(f"in place, but somebody else changed it meanwhile: key file {self._path / name}")

    def check_replaceable(self, name: str, kind: type[Sealed]) -> None:
        """Refuse to replace anything but a key file of this kind, or nothing."""
        with suppress(FileNotFoundError):
            check_untrusted(self.read(name), self._path / name, kind)

    def _name(self, name: str) -> str:
        return name if self._fd is not None else str(self._path / name)

    def _check_file(self, info: os.stat_result, name: str) -> None:
        path = self._path / name
        if not stat.S_ISREG(info.st_mode):
            raise IoError(f"key file {path}", expected="a regular file", got=stat.filemode(info.st_mode))
        if self._fd is None:
            return
        if info.st_uid != os.geteuid():
            hint = "load it as its owner"
            raise IoError(f"key file {path}", expected=f"owner {os.geteuid()}", got=f"owner {info.st_uid}", hint=hint)
        if info.st_mode & 0o077:
            hint = f"chmod 600 {shlex.quote(str(path))}"
            mode = f"mode {stat.S_IMODE(info.st_mode):o}"
            raise IoError(f"key file {path}", expected="mode 600, for nobody else", got=mode, hint=hint)
