"""ChaCha20-Poly1305, HKDF and Argon2id, from `cryptography`.

Keep one `Aead` object per key: making it costs as much as sealing a small message.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag as AeadError
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305 as Aead
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["TAG_BYTES", "Aead", "AeadError", "argon2id", "hkdf2"]

TAG_BYTES: Final = 16
_SHA256: Final = SHA256()


def hkdf2(salt: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Return two 32-byte keys: HKDF-SHA256 with empty info, as BOLT 8 uses it."""
    both = HKDF(_SHA256, 64, salt, b"").derive(material)
    return both[:32], both[32:]


def argon2id(passphrase: bytes, salt: bytes, *, memory_kib: int, passes: int, lanes: int) -> bytes:
    """Return a 32-byte key from a passphrase. The caller bounds the parameters: they are the cost."""
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(passphrase)
