"""NIP-44 version 2: a text from one key to another, its length hidden in steps. Pure.

Ours, and not the binding that the tests compare it with: that one wants an inbox's secret as `bytes`, which nobody can
wipe, draws its own nonces, and takes ten times as long and more for 24,000 bytes, for it copies byte by byte.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from ..errors import SerializationError

__all__ = ["NONCE_BYTES", "conversation_key", "decrypt_untrusted", "encrypt", "padded_size"]

NONCE_BYTES: Final = 32
_VERSION: Final = b"\x02"
_MAC_BYTES: Final = 32
_TEXT_MAX_BYTES: Final = 65_535
"""What the two-byte length names; the longer form is not written here, and refused."""
_PAYLOAD_MIN_CHARS: Final = 132
_PAYLOAD_MAX_CHARS: Final = 87_472
_COUNTER: Final = bytes(4)


def conversation_key(shared_x: bytes) -> bytes:
    """Return the 32-byte key that two keys share, from the x coordinate of their shared point."""
    return hmac.digest(b"nip44-v2", shared_x, "sha256")


def encrypt(key: bytes, text: bytes, nonce: bytes) -> str:
    """Return the payload of a text under a conversation key.

    Args: text — UTF-8, 1 to 65,535 bytes. nonce — 32 fresh random bytes.
    Raises: SerializationError for another length.
    """
    if not 0 < len(text) <= _TEXT_MAX_BYTES or len(nonce) != NONCE_BYTES:
        raise SerializationError("cannot encrypt", expected="1 to 65535 bytes", got=f"{len(text)} bytes")
    cipher_key, mac_key = _message_keys(key, nonce)
    padded = len(text).to_bytes(2) + text + bytes(padded_size(len(text)) - len(text))
    sealed = nonce + _chacha(cipher_key, padded)
    return base64.b64encode(_VERSION + sealed + hmac.digest(mac_key, sealed, "sha256")).decode("ascii")


def decrypt_untrusted(key: bytes, payload: str) -> bytes:
    """Return the text in a payload. Raises SerializationError for anything that `encrypt` does not make."""
    if not _PAYLOAD_MIN_CHARS <= len(payload) <= _PAYLOAD_MAX_CHARS or payload[0] == "#":
        raise _refused("its length or version")
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise _refused("its base64") from None
    if data[:1] != _VERSION or len(data) < 1 + NONCE_BYTES + 34 + _MAC_BYTES:
        raise _refused("its version")
    sealed, mac = data[1:-_MAC_BYTES], data[-_MAC_BYTES:]
    nonce = sealed[:NONCE_BYTES]
    cipher_key, mac_key = _message_keys(key, nonce)
    if not hmac.compare_digest(hmac.digest(mac_key, sealed, "sha256"), mac):
        raise _refused("its MAC")
    padded = _chacha(cipher_key, sealed[NONCE_BYTES:])
    size = int.from_bytes(padded[:2])
    text = padded[2 : 2 + size]
    if not size or len(text) != size or len(padded) != 2 + padded_size(size):
        raise _refused("its padding")
    return text


def padded_size(size: int) -> int:
    """Return to how many bytes a text of `size` bytes is padded: at most an eighth more, and at least 32."""
    if size <= 32:
        return 32
    power = 1 << (size - 1).bit_length()
    step = 32 if power <= 256 else power // 8
    return step * ((size - 1) // step + 1)


def _message_keys(key: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    """HKDF-expand to 76 bytes: 44 of key and nonce for ChaCha20, and 32 for the MAC."""
    first = hmac.digest(key, nonce + b"\x01", "sha256")
    second = hmac.digest(key, first + nonce + b"\x02", "sha256")
    third = hmac.digest(key, second + nonce + b"\x03", "sha256")
    expanded = first + second + third
    return expanded[:44], expanded[44:76]


def _chacha(key: bytes, data: bytes) -> bytes:
    return Cipher(ChaCha20(key[:32], _COUNTER + key[32:]), mode=None).encryptor().update(data)


def _refused(what: str) -> SerializationError:
    return SerializationError("not a NIP-44 payload", got=f"wrong in {what}")
