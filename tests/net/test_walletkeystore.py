"""Wallet keys at rest: a file of a kind of its own, and all the refusals of key files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from musignet.bitcoin.walletkey import WalletKey
from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, IoError, LocalError, SerializationError
from musignet.net.keyfile import FILE_MAX_BYTES
from musignet.net.keystore import KdfCost, load_identity, load_wallet_key, save_identity, save_wallet_key

CHEAP = KdfCost(memory_kib=19 * 1024, passes=2, lanes=1)
WALLET = WalletKey.from_seed(bytes(range(16)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    os.chmod(tmp_path, 0o700)
    path = tmp_path / "wallet.key"
    save_wallet_key(WALLET, path, "pass", cost=CHEAP)
    return path


def test_it_opens_with_its_passphrase_and_holds_the_same_key(path: Path) -> None:
    assert load_wallet_key(path, "pass").secret_for_storage() == WALLET.secret_for_storage()
    data = path.read_bytes()
    assert len(data) == FILE_MAX_BYTES == 132
    assert data[:12] == b"MUSIGKEY" + bytes((1, 2, 1, 1))
    assert path.stat().st_mode & 0o777 == 0o600
    assert bytes(WALLET.secret_for_storage()[:32]) not in data


def test_the_format_does_not_change_by_accident(path: Path) -> None:
    """A file of the first version: whoever breaks this locks people out of their coins."""
    path.write_bytes(
        bytes.fromhex("4d555349474b4559010200000000000000000000") + bytes(range(32)) + bytes.fromhex(UNENCRYPTED)
    )
    assert load_wallet_key(path, None).public == WALLET.public


UNENCRYPTED = (
    "77f4c9cc68bdcc7f82553bf25fbec1c8791b18985f2ed5730652ea29faad11d8ae8adef75cc91c15"
    "f68c2c5562a695ef644d56f66c3bb0f182032de0a64e98672ad57d662f47d4ad3c0769c7e1951ca2"
)


@pytest.mark.parametrize("at", [8, 9, 10, 11, 15, 19, 20, 51, 52, 115, 131])
def test_an_altered_file_does_not_open(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises((AuthenticationError, SerializationError)):
        load_wallet_key(path, "pass")


@pytest.mark.parametrize("cut", [0, 8, 9, 10, 52, 100, 131, 133])
def test_a_file_cut_or_longer_does_not_open(path: Path, cut: int) -> None:
    path.write_bytes((path.read_bytes() + b"\0")[:cut])
    with pytest.raises(SerializationError):
        load_wallet_key(path, "pass")


def test_a_wrong_passphrase_opens_nothing(path: Path) -> None:
    with pytest.raises(AuthenticationError, match="wrong passphrase"):
        load_wallet_key(path, "Pass")
    with pytest.raises(LocalError, match="its passphrase"):
        load_wallet_key(path, None)


def test_open_permissions_and_symbolic_links_are_refused(path: Path) -> None:
    link = path.with_name("link.key")
    link.symlink_to(path)
    with pytest.raises(IoError, match="symbolic link"):
        load_wallet_key(link, "pass")
    os.chmod(path, 0o640)
    with pytest.raises(IoError, match="mode 600"):
        load_wallet_key(path, "pass")


def test_the_two_kinds_of_file_are_not_taken_for_each_other(path: Path) -> None:
    identity = path.with_name("identity.key")
    save_identity(Identity.generate(), identity, "pass", cost=CHEAP)
    with pytest.raises(SerializationError, match="contents 1, an identity, got contents 2"):
        load_identity(path, "pass")
    with pytest.raises(SerializationError, match="contents 2, a wallet key, got contents 1"):
        load_wallet_key(identity, "pass")
    with pytest.raises(SerializationError):
        save_wallet_key(WALLET, identity, "pass", cost=CHEAP, overwrite=True)
    with pytest.raises(SerializationError):
        save_identity(Identity.generate(), path, "pass", cost=CHEAP, overwrite=True)
    assert load_wallet_key(path, "pass").public == WALLET.public


def test_it_is_only_replaced_when_asked(path: Path) -> None:
    other = WalletKey.from_seed(bytes(range(32)))
    with pytest.raises(IoError, match="overwrite=True"):
        save_wallet_key(other, path, "pass", cost=CHEAP)
    save_wallet_key(other, path, None, insecure_no_passphrase=True, overwrite=True)
    assert load_wallet_key(path, None).public == other.public


def test_a_wiped_key_replaces_nothing(path: Path) -> None:
    wiped = WalletKey.from_seed(bytes(range(32)))
    wiped.wipe()
    with pytest.raises(LocalError):
        save_wallet_key(wiped, path, "pass", cost=CHEAP, overwrite=True)
    assert load_wallet_key(path, "pass").public == WALLET.public
