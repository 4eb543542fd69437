"""Key files on disk: written so that a crash loses nothing, read so that nobody else could have (THREATS.md Z2, Z3)."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..bitcoin.walletkey import WalletKey
from ..crypto.keys import Identity
from ..errors import LocalError
from .keyfile import (
    DEFAULT_COST,
    FILE_MAX_BYTES,
    SALT_BYTES,
    KdfCost,
    Passphrase,
    SealedT,
    check_untrusted,
    open_as_untrusted,
    phrase,
    seal,
)
from .privatefile import opened

__all__ = [
    "DEFAULT_COST",
    "KdfCost",
    "Passphrase",
    "load_identity",
    "load_wallet_key",
    "save_identity",
    "save_wallet_key",
]

_WHAT: Final = "key file"


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
    with opened(parent, _WHAT, path) as folder:
        if overwrite:
            with suppress(FileNotFoundError):
                check_untrusted(folder.read(name, FILE_MAX_BYTES), parent / name, kind)
        data = seal(sealed, secret_phrase, cost, secrets.token_bytes(SALT_BYTES))
        with folder.temporary(data) as temporary:
            open_as_untrusted(folder.read(temporary, FILE_MAX_BYTES), secret_phrase, path, kind).wipe()
            folder.place(temporary, name, overwrite)
        folder.confirm(name, data)


def _load(path: str | os.PathLike[str], passphrase: Passphrase | None, kind: type[SealedT]) -> SealedT:
    secret_phrase = phrase(passphrase)
    parent, name = _split(path)
    with opened(parent, _WHAT, path) as folder:
        data = folder.read(name, FILE_MAX_BYTES)
    return open_as_untrusted(data, secret_phrase, path, kind)


def _split(path: str | os.PathLike[str]) -> tuple[Path, str]:
    whole = Path(path)
    if whole.name in ("", "..") or "\0" in str(whole):
        raise LocalError("path of a key file", expected="the name of a file", got=repr(str(whole)))
    return whole.parent, whole.name
