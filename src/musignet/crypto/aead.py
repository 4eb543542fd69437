"""ChaCha20-Poly1305, HKDF and Argon2id, from `cryptography`.

Keep one `Aead` object per key: making it costs as much as sealing a small message.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag as AeadError
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305 as Aead
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

__all__ = ["TAG_BYTES", "Aead", "AeadError", "argon2id", "hkdf2"]

TAG_BYTES: Final = 16


def hkdf2(salt: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Return two 32-byte keys: HKDF-SHA256 with empty info, as BOLT 8 uses it."""
    extracted = hmac.digest(salt, material, "sha256")
    first = hmac.digest(extracted, b"\x01", "sha256")
    return first, hmac.digest(extracted, first + b"\x02", "sha256")


def argon2id(passphrase: bytes, salt: bytes, *, memory_kib: int, passes: int, lanes: int) -> bytes:
    """Return a 32-byte key from a passphrase. The caller bounds the parameters: they are the cost."""
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(passphrase)
