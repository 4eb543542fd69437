"""Names of onion services, version 3: a public key as text, with a checksum (Tor's rend-spec-v3, section 6).

onion_address = base32(PUBKEY | CHECKSUM | VERSION) + ".onion"
CHECKSUM = SHA3-256(".onion checksum" | PUBKEY | VERSION)[:2]
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from hashlib import sha3_256
from typing import Final

from ..errors import TransportError
from ..text import safe

__all__ = ["check_onion", "is_onion", "onion_host"]

_SUFFIX: Final = ".onion"
_VERSION: Final = b"\x03"
_KEY_BYTES: Final = 32
_CHARS: Final = 56


def is_onion(host: str) -> bool:
    """Return whether a host is one that only Tor finds: nobody else may be asked for it (RFC 7686)."""
    if not host.isascii():
        host = unicodedata.normalize("NFKC", host).replace("\u3002", ".")  # as a name lookup reads it
    return host.rstrip(".").lower().endswith(_SUFFIX)


def onion_host(pubkey: bytes) -> str:
    """Return the name of the service that has this 32-byte Ed25519 key."""
    return base64.b32encode(pubkey + _checksum(pubkey) + _VERSION).decode().lower() + _SUFFIX


def check_onion(host: str) -> None:
    """Raise TransportError unless a name that ends in `.onion` is that of a service, without a mistyped letter."""
    name = host.lower().removesuffix(_SUFFIX).rpartition(".")[2]  # a subdomain belongs to the service
    try:
        raw = base64.b32decode(name.upper()) if len(name) == _CHARS else b""
    except (ValueError, binascii.Error):
        raw = b""
    if raw[_KEY_BYTES:] != _checksum(raw[:_KEY_BYTES]) + _VERSION:
        raise TransportError(
            f"{safe(host, 80)} is no onion address",
            expected="56 letters and digits 2 to 7, with their checksum, and .onion",
            hint="copy it again",
        )


def _checksum(pubkey: bytes) -> bytes:
    return sha3_256(b".onion checksum" + pubkey + _VERSION).digest()[:2]
