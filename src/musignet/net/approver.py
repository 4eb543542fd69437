"""The approver's file: how the key that says yes is derived from the wallet's passphrase, and its public half.

    {"musignet_approver": 1, "salt": "<64 hex>", "memory_kib": 262144, "passes": 3, "lanes": 4, "public": "<64 hex>"}

It holds no secret. A guess at the passphrase costs as much here as at the wallet's key file, and the salts differ, so
what is learned of one says nothing of the other. The passphrase and the derived key pass through `bytes` objects, which
Python frees without overwriting them.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from .. import limits
from ..crypto.aead import argon2id
from ..crypto.keys import ApproverKey
from ..errors import AuthenticationError, LocalError, SerializationError
from ..signing import strictjson
from ..signing.approver import Approver
from .keyfile import DEFAULT_COST, LEAST_COST, SALT_BYTES, KdfCost, Passphrase, phrase
from .privatefile import opened, write_whole

__all__ = ["ApproverFile", "load_approver", "make_approver"]

_WHAT: Final = "approver file"
_EXPECTED: Final = "JSON as `musignet init` writes it"
_Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    musignet_approver: Literal[1]
    salt: _Hex32
    memory_kib: int
    passes: int
    lanes: int
    public: _Hex32


@dataclass(frozen=True, slots=True)
class ApproverFile:
    """What the file says."""

    salt: bytes
    cost: KdfCost
    public: bytes
    """32 bytes, x-only."""

    @classmethod
    def parse_untrusted(cls, data: bytes) -> ApproverFile:
        """Read one. Raises SerializationError for anything else, a cost beyond the bounds included."""
        file = strictjson.read_untrusted(data, _File, f"an {_WHAT}", limits.APPROVER_FILE_MAX_BYTES, _EXPECTED)
        cost = KdfCost(memory_kib=file.memory_kib, passes=file.passes, lanes=file.lanes)
        if not cost.in_range():
            raise SerializationError(f"not an {_WHAT}", expected="a cost within the bounds", got=cost)
        return cls(bytes.fromhex(file.salt), cost, bytes.fromhex(file.public))

    def encode(self) -> bytes:
        cost = self.cost
        salt, public = self.salt.hex(), self.public.hex()
        return strictjson.write(_File(1, salt, cost.memory_kib, cost.passes, cost.lanes, public))

    def approver(self) -> Approver:
        """Return the public half. Raises AuthenticationError when it is no key."""
        return Approver(self.public)

    def unlock(self, passphrase: Passphrase | None) -> ApproverKey:
        """Return the key that says yes; wipe it after use. It takes a second at the default cost.

        Args:   passphrase - the wallet's; None where the wallet has none.
        Raises: AuthenticationError when it is not the wallet's, or the file was altered; it cannot be told which.
        """
        key = _derive(passphrase, self.salt, self.cost)
        if key.pubkey[1:] != self.public:
            key.wipe()
            raise AuthenticationError("wrong passphrase or altered approver file, it cannot be told which")
        return key


def make_approver(path: str | os.PathLike[str], passphrase: Passphrase | None, cost: KdfCost = DEFAULT_COST) -> None:
    """Write the file of a new approver, mode 600. No file is ever replaced.

    Args:   passphrase - the wallet's; None where the wallet has none: then whoever reads the file can say yes.
    Raises: IoError; LocalError for a passphrase or a cost that cannot be.
    """
    salt = secrets.token_bytes(SALT_BYTES)
    cost = LEAST_COST if passphrase is None else cost
    if not cost.in_range():
        raise LocalError("cost of an approver file", expected=f"at least {LEAST_COST}", got=cost)
    key = _derive(passphrase, salt, cost)
    data = ApproverFile(salt, cost, key.pubkey[1:]).encode()
    key.wipe()
    path = Path(path)
    write_whole(path, _WHAT, data, overwrite=False)


def load_approver(path: str | os.PathLike[str]) -> ApproverFile:
    """Read the file. Raises IoError when others could have written it, SerializationError when it is no such file."""
    path = Path(path)
    with opened(path.parent, _WHAT, path) as folder:
        data = folder.read(path.name, limits.APPROVER_FILE_MAX_BYTES)
    return ApproverFile.parse_untrusted(data)


def _derive(passphrase: Passphrase | None, salt: bytes, cost: KdfCost) -> ApproverKey:
    secret_phrase = phrase(passphrase) or b""
    try:
        secret = argon2id(secret_phrase, salt, memory_kib=cost.memory_kib, passes=cost.passes, lanes=cost.lanes)
    except MemoryError:
        raise LocalError("not enough memory for the approver's key", expected=f"{cost.memory_kib} KiB free") from None
    return ApproverKey.from_secret(secret)
