"""libwally's part in private keys: BIP-39 words and BIP-32 derivation.

It returns buffers, which callers wipe. Inside, libwally copies keys and seeds to memory of its own and clears that when
the object dies; that memory is neither locked nor kept out of core dumps. Words are Python texts: nothing wipes them.
"""

from __future__ import annotations

from typing import NamedTuple

from ..chain import Chain
from .wally import WallyError, wallycore

__all__ = ["PrivateChild", "derive", "master_of_seed", "master_of_xprv", "seed_of_words", "words_of_entropy"]

_PRIVATE_VERSION = bytes.fromhex("0488ade4")
_TEST_PRIVATE_VERSION = bytes.fromhex("04358394")


class PrivateChild(NamedTuple):
    """A key below a master key."""

    secret: bytearray
    """32 bytes, for the caller to wipe."""
    xpub: str
    fingerprint: bytes
    """Of the master key."""


def words_of_entropy(entropy: bytes) -> str:
    """Return the English words of BIP-39 for 16, 20, 24, 28 or 32 random bytes."""
    return wallycore.bip39_mnemonic_from_bytes(None, entropy)


def seed_of_words(words: str, passphrase: str) -> bytearray:
    """Return the 64-byte seed. Refuses words that are not in the list, too many or too few, and a wrong checksum."""
    try:
        wallycore.bip39_mnemonic_validate(None, words)
        return wallycore.bip39_mnemonic_to_seed512(words, passphrase)
    except ValueError as error:
        raise WallyError(str(error)) from None


def master_of_seed(seed: bytes | bytearray) -> bytearray:
    """Return the master key of a BIP-32 seed of 16, 32 or 64 bytes: 32 bytes of key, 32 of chain code."""
    try:
        key = wallycore.bip32_key_from_seed(seed, wallycore.BIP32_VER_MAIN_PRIVATE, 0)
    except ValueError as error:
        raise WallyError(str(error)) from None
    return _parts(key)


def master_of_xprv(text: str) -> tuple[bytearray, int]:
    """Return the same of an `xprv` or `tprv` text, and its depth: 0 for a master key."""
    try:
        key = wallycore.bip32_key_from_base58(text)
        parts, depth = _parts(key), wallycore.bip32_key_get_depth(key)
    except ValueError as error:
        raise WallyError(str(error)) from None
    if not any(parts[:32]):
        raise WallyError("a public key")
    return parts, depth


def derive(master: bytes | bytearray, path: tuple[int, ...], chain: Chain) -> PrivateChild:
    """Return the key at `path`, hardened or not, below 64 bytes of a master key."""
    version = _PRIVATE_VERSION if chain is Chain.MAINNET else _TEST_PRIVATE_VERSION
    raw = bytearray(78)
    raw[:4], raw[13:45], raw[46:] = version, master[32:], master[:32]
    try:
        top = wallycore.bip32_key_unserialize(raw)
        child = wallycore.bip32_key_from_parent_path(top, list(path), wallycore.BIP32_FLAG_KEY_PRIVATE)
        xpub = wallycore.bip32_key_to_base58(child, wallycore.BIP32_FLAG_KEY_PUBLIC)
        fingerprint = bytes(wallycore.bip32_key_get_fingerprint(top))
        return PrivateChild(wallycore.bip32_key_get_priv_key(child), xpub, fingerprint)
    except ValueError as error:  # a child that does not exist: 1 in 2^127
        raise WallyError(str(error)) from None
    finally:
        raw[:] = bytes(len(raw))


def _parts(key: wallycore._ExtKey) -> bytearray:
    secret, chaincode = wallycore.bip32_key_get_priv_key(key), wallycore.bip32_key_get_chain_code(key)
    both = bytearray(64)
    both[:32], both[32:] = secret, chaincode
    secret[:], chaincode[:] = bytes(32), bytes(32)
    return both
