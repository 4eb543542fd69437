"""The wallet key of one device: a BIP-32 master key, made from BIP-39 words, a seed or an `xprv`.

Every group of this device has an account below it, at m/87'/coin'/account' (BIP-87, the purpose for wallets of several
keys). The account's extended public key goes into descriptors; its secret signs, and nothing else of the master does.
The words are not kept: whoever writes them down has the only copy.
"""

from __future__ import annotations

import hmac
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from .. import limits
from ..chain import Chain
from ..crypto.keys import Identity, SigningKey
from ..crypto.secret import SecretBuffer
from ..errors import AuthenticationError, InvalidMessage, LocalError
from . import wallykeys
from .bip32 import HARDENED, KeyOrigin, Xpub
from .descriptor import KeyExpression
from .wally import WallyError

__all__ = ["MASTER_BYTES", "WalletAccount", "WalletKey", "new_words"]

MASTER_BYTES: Final = 64
"""32 bytes of key, 32 of chain code."""
_PURPOSE: Final = 87
_IDENTITY_PURPOSE: Final = 0x6D757367
_ENTROPY_BYTES: Final = (16, 20, 24, 28, 32)
_WIPED_HINT: Final = "it was wiped, or inherited by fork: load it again in this process"


@dataclass(frozen=True, slots=True, eq=False)
class WalletAccount:
    """One account: its secret key, and what others are told of it. `str` is what a descriptor has for it."""

    key: SigningKey
    xpub: Xpub
    origin: KeyOrigin

    def __str__(self) -> str:
        return str(KeyExpression(self.xpub, self.origin, ()))


class WalletKey:
    """A master key in protected memory (`SecretBuffer`), wiped by `wipe`, when it dies, and at exit.

    Secrets also pass through libwally, which copies and clears them (see `wallykeys`). Words and an `xprv` are texts:
    Python frees them without overwriting.
    """

    __slots__ = ("_secret", "public")

    public: bytes
    """33 bytes: the master public key. It tells wallets apart, and is in no descriptor."""

    def __init__(self, master: bytearray) -> None:
        """Take over 64 bytes, which are wiped. Raises AuthenticationError when they hold no secret key."""
        try:
            if len(master) != MASTER_BYTES:
                raise AuthenticationError("not a wallet key", expected=f"{MASTER_BYTES} bytes", got=len(master))
            self._secret = SecretBuffer(MASTER_BYTES)
            self._secret.load(master)
        finally:
            master[:] = bytes(len(master))
        key = SigningKey.from_secret(self._secret.view[0:32])
        self.public = key.pubkey
        key.wipe()

    @classmethod
    def from_words(cls, words: str, passphrase: str = "") -> WalletKey:
        """Return the key of BIP-39 words; case and spaces do not matter.

        Args:   passphrase - the one that BIP-39 mixes into the seed, which is not the one of a key file. Another one
                gives another wallet, and nothing can tell that it is wrong.
        Raises: LocalError when they are no such words.
        """
        plain = " ".join(unicodedata.normalize("NFKD", words).lower().split())
        if "\0" in passphrase or not _is_unicode(passphrase):  # libwally would take what stands before it
            raise LocalError("passphrase of a seed", expected="Unicode text without NUL")
        try:
            if not plain.isascii():
                raise WallyError("not English")
            seed = wallykeys.seed_of_words(plain, unicodedata.normalize("NFKD", passphrase))
        except WallyError:
            raise LocalError(
                "these are not the words of a seed",
                expected="12, 15, 18, 21 or 24 English words of BIP-39, the last of which checks the others",
                got=f"{len(plain.split())} words",
                hint="compare each word with what was written down",
            ) from None
        return cls.from_seed(seed)

    @classmethod
    def from_seed(cls, seed: bytes | bytearray) -> WalletKey:
        """Return the key of a BIP-32 seed of 16, 32 or 64 bytes; a bytearray is wiped. Raises LocalError."""
        try:
            return cls(wallykeys.master_of_seed(seed))
        except WallyError:
            raise LocalError("not a seed", expected="16, 32 or 64 bytes", got=f"{len(seed)} bytes") from None
        finally:
            if isinstance(seed, bytearray):
                seed[:] = bytes(len(seed))

    @classmethod
    def from_xprv(cls, text: str) -> WalletKey:
        """Return the key in an `xprv` or `tprv` text; the network that it names says nothing here.

        Raises: LocalError for anything but a master key: paths begin there, and another wallet could not find them.
        """
        try:
            if not text.isascii():
                raise WallyError("not Base58")
            master, depth = wallykeys.master_of_xprv(text.strip())
        except WallyError:
            raise LocalError("not an extended private key", expected="a master key that begins xprv or tprv") from None
        if depth:
            master[:] = bytes(MASTER_BYTES)
            raise LocalError("not a master key", expected="depth 0", got=f"depth {depth}")
        return cls(master)

    @classmethod
    def from_secret(cls, secret: bytes | bytearray) -> WalletKey:
        """Return the key in what `secret_for_storage` gave."""
        return cls(bytearray(secret))

    def account(self, number: int, chain: Chain) -> WalletAccount:
        """Return account `number` (0 to 2^31 - 1) of a network: coin 0 for mainnet, 1 for all others.

        Raises: LocalError for a number out of range, or a wiped key.
        """
        if not 0 <= number <= limits.ACCOUNT_MAX:
            raise LocalError("account of a wallet", expected=f"0 to {limits.ACCOUNT_MAX}", got=number)
        coin = 0 if chain is Chain.MAINNET else 1
        path = (_PURPOSE + HARDENED, coin + HARDENED, number + HARDENED)
        master = self.secret_for_storage()
        try:
            child = wallykeys.derive(master, path, chain)
        except WallyError as error:
            raise LocalError(f"this account cannot be derived: {error}", hint="take another number") from None
        finally:
            master[:] = bytes(MASTER_BYTES)
        try:
            key = SigningKey.from_secret(child.secret)
        finally:
            child.secret[:] = bytes(len(child.secret))
        return WalletAccount(key, Xpub.parse_untrusted(child.xpub), KeyOrigin(child.fingerprint, path))

    def identity(self, chain: Chain) -> Identity:
        """Return the key by which this device is known on the network: the same again after a restore.

        It is at m/1836413799'/coin'/0', hardened throughout, and that purpose (0x6d757367, "musg") is no wallet's: it
        is another key than any that signs a transaction, and neither leads to the other.
        """
        coin = 0 if chain is Chain.MAINNET else 1
        master = self.secret_for_storage()
        try:
            child = wallykeys.derive(master, (_IDENTITY_PURPOSE + HARDENED, coin + HARDENED, HARDENED), chain)
        except WallyError as error:  # 1 in 2^127
            raise LocalError(f"this seed has no identity: {error}", hint="make another wallet") from None
        finally:
            master[:] = bytes(MASTER_BYTES)
        try:
            return Identity.from_secret(child.secret)
        finally:
            child.secret[:] = bytes(len(child.secret))

    def require_other_than(self, identity: bytes) -> None:
        """Raise InvalidMessage when this is the key by which the node is known on the network (THREATS.md A4)."""
        if hmac.compare_digest(self.public[1:], identity[1:]):  # x alone: k and -k are one person's
            raise InvalidMessage("one secret for the wallet and the node", hint="make a key of its own for each")

    def secret_for_storage(self) -> bytearray:
        """Return the 64 bytes for an encrypted key file. The caller overwrites them. Raises LocalError once wiped."""
        secret = bytearray(self._secret.view[0:MASTER_BYTES])
        if not any(secret):
            raise LocalError(f"cannot use {self!r}", hint=_WIPED_HINT)
        return secret

    def wipe(self) -> None:
        """Forget the secret now. Doing it twice is harmless."""
        self._secret.wipe()

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a WalletKey holds a secret: it cannot be copied or pickled")

    __copy__ = __deepcopy__ = __reduce_ex__ = __reduce__ = _refuse

    def __repr__(self) -> str:
        return f"<WalletKey {self.public[1:5].hex()}>"


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def new_words(entropy: bytes) -> str:
    """Return the BIP-39 words of fresh random bytes: 16 give 12 words, 32 give 24. Raises LocalError."""
    if len(entropy) not in _ENTROPY_BYTES:
        raise LocalError("entropy of a seed", expected="16, 20, 24, 28 or 32 bytes", got=len(entropy))
    return wallykeys.words_of_entropy(entropy)
