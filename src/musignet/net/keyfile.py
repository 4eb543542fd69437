"""The bytes of a key file: one secret, sealed under a passphrase (THREATS.md "Keys at rest").

A file of an identity key has 100 bytes, of a wallet key 132; integers are big-endian:

    at   bytes
    0    8      "MUSIGKEY"
    8    1      version of this format: 1
    9    1      contents: 1 = an identity key, 2 = a wallet key (BIP-32 master key and chain code)
    10   1      protection: 1 = Argon2id and ChaCha20-Poly1305, 0 = none
    11   1      Argon2id: lanes
    12   4      Argon2id: memory, KiB
    16   4      Argon2id: passes
    20   32     salt, fresh for each write
    52   48, 80 the 32 or 64 secret bytes, sealed with everything before them as associated data

The salt makes each key unique, so the nonce is zeros. Protection 0 has zeros as its cost and seals under a
key of zeros: that is a checksum and hides nothing.

The secret is wiped where it lies in a buffer of ours. The passphrase, the derived key and the opened secret
also pass through `bytes` objects, which Python frees without overwriting them.
"""

from __future__ import annotations

import struct
import unicodedata
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from ..bitcoin.walletkey import MASTER_BYTES, WalletKey
from ..crypto.aead import TAG_BYTES, Aead, AeadError, argon2id
from ..crypto.keys import Identity
from ..errors import AuthenticationError, LocalError, SerializationError
from ..limits import KDF_LANES, KDF_MEMORY_KIB, KDF_PASSES, KIB

__all__ = [
    "DEFAULT_COST",
    "FILE_BYTES",
    "FILE_MAX_BYTES",
    "LEAST_COST",
    "KdfCost",
    "Passphrase",
    "Sealed",
    "check_untrusted",
    "open_as_untrusted",
    "open_untrusted",
    "phrase",
    "seal",
]

Sealed: TypeAlias = Identity | WalletKey
"""What a key file may hold."""
SealedT = TypeVar("SealedT", Identity, WalletKey)

Passphrase: TypeAlias = str | bytes | bytearray | memoryview
"""Text is taken as NFC in UTF-8: it opens the file whichever keyboard composed it. Bytes are taken as they are."""

_MAGIC: Final = b"MUSIGKEY"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sBBBBII32s")
_CONTENTS: Final[dict[type[Sealed], tuple[int, int, str]]] = {
    Identity: (1, _HEADER.size + 32 + TAG_BYTES, "an identity"),
    WalletKey: (2, _HEADER.size + MASTER_BYTES + TAG_BYTES, "a wallet key"),
}
"""Its number, the bytes of the file, and its name."""
_NONCE: Final = bytes(12)

SALT_BYTES: Final = 32
FILE_BYTES: Final = _CONTENTS[Identity][1]
FILE_MAX_BYTES: Final = _CONTENTS[WalletKey][1]

_COST_RANGE: Final = "19 MiB to 2 GiB, 2 to 10 passes, 1 to 16 lanes"
"""Below it guessing is cheap (OWASP's least is 19 MiB and 2 passes). Above it a file that somebody else wrote
could hold the machine for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KdfCost:
    """What one guess at a passphrase costs (Argon2id, RFC 9106). The default takes about a second.

    Accepted are 19 MiB to 2 GiB of memory, 2 to 10 passes and 1 to 16 lanes (threads).
    """

    memory_kib: int = 256 * KIB
    passes: int = 3
    lanes: int = 4

    def in_range(self) -> bool:
        """Return whether this cost is accepted, for writing and for reading."""
        chosen = ((self.memory_kib, KDF_MEMORY_KIB), (self.passes, KDF_PASSES), (self.lanes, KDF_LANES))
        return all(least <= value <= most for value, (least, most) in chosen)

    def __str__(self) -> str:
        return f"{self.memory_kib} KiB, {self.passes} passes, {self.lanes} lanes"


DEFAULT_COST: Final = KdfCost()
LEAST_COST: Final = KdfCost(memory_kib=KDF_MEMORY_KIB[0], passes=KDF_PASSES[0], lanes=KDF_LANES[0])
_NO_COST: Final = KdfCost(memory_kib=0, passes=0, lanes=0)


def phrase(passphrase: Passphrase | None) -> bytes | None:
    """Return the bytes that the key is derived from; None for None.

    Raises: LocalError when it is empty, or text with lone surrogates.
    """
    if passphrase is None:
        return None
    try:
        data = unicodedata.normalize("NFC", passphrase).encode() if isinstance(passphrase, str) else bytes(passphrase)
    except UnicodeEncodeError:
        raise LocalError("the passphrase is not Unicode text", hint="pass it as bytes") from None
    if not data:
        raise LocalError("the passphrase is empty", hint="None stands for no passphrase")
    return data


def seal(sealed: Sealed, secret_phrase: bytes | None, cost: KdfCost, salt: bytes) -> bytes:
    """Return the bytes of a key file.

    Args:   secret_phrase - from `phrase`; None leaves the secret readable to whoever has the file.
            salt - 32 fresh random bytes: sealing two secrets under one salt and passphrase reveals both.
    Raises: LocalError for a cost out of range, or a wiped key.
    """
    if not cost.in_range():
        raise LocalError("cost of a key file", expected=_COST_RANGE, got=cost)
    kind = WalletKey if isinstance(sealed, WalletKey) else Identity
    header = _Header(kind, cost if secret_phrase is not None else _NO_COST, salt)
    associated = header.pack()
    aead = header.aead(secret_phrase)
    secret = sealed.secret_for_storage()
    try:
        return associated + aead.encrypt(_NONCE, secret, associated)
    finally:
        secret[:] = bytes(len(secret))


def check_untrusted(data: bytes, source: object, kind: type[Sealed] = Identity) -> None:
    """Raise SerializationError unless `data` has the form of a key file of this kind. Opens and derives nothing.

    Args: source - where the bytes are from, for the sentence of an error.
    """
    _parse_untrusted(data, source, kind)


def is_encrypted(data: bytes) -> bool:
    """Return whether a key file says that a passphrase opens it. Only whoever opens it knows."""
    return data[10:11] != b"\0"


def open_untrusted(data: bytes, secret_phrase: bytes | None, source: object) -> Identity:
    """Return the identity in the bytes of a key file: `open_as_untrusted` for this kind."""
    return open_as_untrusted(data, secret_phrase, source, Identity)


def open_as_untrusted(data: bytes, secret_phrase: bytes | None, source: object, kind: type[SealedT]) -> SealedT:
    """Return the key in the bytes of a key file. At most 2 GiB and 10 passes are spent on it.

    Args:   source - where the bytes are from, for the sentence of an error.
            kind   - what it must hold.
    Raises: SerializationError when they are not a key file of this version and kind; no key was derived then.
            AuthenticationError when they do not open, or were never encrypted and a passphrase was given.
            LocalError when they are encrypted and no passphrase was given.
    """
    header = _parse_untrusted(data, source, kind)
    if header.protected and secret_phrase is None:
        raise LocalError(f"encrypted key file: {source}", expected="its passphrase", got="none")
    if not header.protected and secret_phrase is not None:
        hint = "whoever could read the file has the key; pass None if that is as you want it"
        raise AuthenticationError(f"unencrypted key file: {source}", expected="no passphrase", got="one", hint=hint)
    aead = header.aead(secret_phrase)
    try:
        return kind.from_secret(aead.decrypt(_NONCE, data[_HEADER.size :], data[: _HEADER.size]))
    except AeadError:
        fault = (
            "wrong passphrase or altered key file, it cannot be told which" if header.protected else "altered key file"
        )
        raise AuthenticationError(f"{fault}: {source}") from None


@dataclass(frozen=True, slots=True)
class _Header:
    kind: type[Sealed]
    cost: KdfCost
    salt: bytes

    @property
    def protected(self) -> bool:
        return self.cost != _NO_COST

    def pack(self) -> bytes:
        cost = self.cost
        numbers = (_VERSION, _CONTENTS[self.kind][0], self.protected, cost.lanes, cost.memory_kib, cost.passes)
        return _HEADER.pack(_MAGIC, *numbers, self.salt)

    def aead(self, secret_phrase: bytes | None) -> Aead:
        if secret_phrase is None:
            return Aead(bytes(32))
        cost = self.cost
        try:
            key = argon2id(secret_phrase, self.salt, memory_kib=cost.memory_kib, passes=cost.passes, lanes=cost.lanes)
        except MemoryError:
            raise LocalError("not enough memory for a key file", expected=f"{cost.memory_kib} KiB free") from None
        return Aead(key)


def _parse_untrusted(data: bytes, source: object, kind: type[Sealed]) -> _Header:
    number, size, name = _CONTENTS[kind]
    if not data.startswith(_MAGIC):
        raise _malformed(source, f"a file that begins with {_MAGIC.decode()}", "another beginning")
    if data[8:9] not in (b"", bytes([_VERSION])):
        raise _malformed(source, f"version {_VERSION}", f"version {data[8]}", "it may need a newer MuSigNet")
    if data[9:10] not in (b"", bytes([number])):
        raise _malformed(source, f"contents {number}, {name}", f"contents {data[9]}")
    if len(data) != size:
        raise _malformed(source, f"{size} bytes", len(data) if len(data) < size else "more")
    _, _, _, protection, lanes, memory_kib, passes, salt = _HEADER.unpack_from(data)
    if protection not in (0, 1):
        raise _malformed(source, "protection 0 or 1", f"protection {protection}")
    cost = KdfCost(memory_kib=memory_kib, passes=passes, lanes=lanes)
    if not (cost.in_range() if protection else cost == _NO_COST):
        raise _malformed(source, _COST_RANGE if protection else _NO_COST, cost)
    return _Header(kind, cost, salt)


def _malformed(source: object, expected: object, got: object, hint: str = "") -> SerializationError:
    return SerializationError(f"not a key file: {source}", expected=expected, got=got, hint=hint)
