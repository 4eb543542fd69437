"""What `musignet init` puts into a new data folder: two keys of two kinds, the approver, and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..bitcoin.walletkey import WalletKey
from ..crypto.keys import Identity
from ..errors import IoError, LocalError
from ..net.approver import make_approver
from ..net.folder import DataFolder
from ..net.keystore import save_identity, save_wallet_key
from ..net.privatefile import write_whole
from .config import Config, template
from .places import APPROVER_FILE, CONFIG_FILE, IDENTITY_FILE, KEYHOLDER_FOLDER, WALLET_FILE

__all__ = ["Passphrases", "check_empty", "make"]


@dataclass(frozen=True, slots=True, repr=False)
class Passphrases:
    """One for each key file. None: not encrypted."""

    identity: str | None
    wallet: str | None


def check_empty(folder: DataFolder) -> None:
    """Raise LocalError where there is something that would have to be replaced."""
    for name in (CONFIG_FILE, IDENTITY_FILE, WALLET_FILE, APPROVER_FILE):
        if (folder.path / name).exists():
            hint = "start it: musignet run; or give another folder with --data"
            if not (folder.path / CONFIG_FILE).exists():
                hint = "an init was cut short: if no wallet was made with it, delete that file"
            raise LocalError(f"{folder.path / name} is there already", hint=hint)


def make(folder: DataFolder, config: Config, wallet: WalletKey | None, passphrases: Passphrases) -> Identity:
    """Make everything, the settings last: a folder that has them is whole. Returns the identity.

    With a wallet key it comes from there, so that the words of one device restore both, and its groups know it again.

    Raises: LocalError when one secret would be both keys, or a passphrase both passphrases; IoError.
    """
    if wallet is not None and passphrases.identity and passphrases.identity == passphrases.wallet:
        raise LocalError("one passphrase for both keys", hint="choose another one for the wallet: it says yes")
    identity = Identity.generate() if wallet is None else wallet.identity(config.network)
    _save_identity(folder.path / IDENTITY_FILE, identity, passphrases.identity)
    if wallet is not None:
        wallet.require_other_than(identity.pubkey)
        _make_wallet(folder.path, wallet, passphrases.wallet)
    write_whole(folder.path / CONFIG_FILE, "settings", template(config).encode(), overwrite=False)
    return identity


def _save_identity(path: Path, identity: Identity, passphrase: str | None) -> None:
    save_identity(identity, path, passphrase, insecure_no_passphrase=passphrase is None)


def _make_wallet(data: Path, wallet: WalletKey, passphrase: str | None) -> None:
    try:
        (data / KEYHOLDER_FOLDER).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise IoError(f"{error.strerror}: {data / KEYHOLDER_FOLDER}") from error
    save_wallet_key(wallet, data / WALLET_FILE, passphrase, insecure_no_passphrase=passphrase is None)
    make_approver(data / APPROVER_FILE, passphrase)
