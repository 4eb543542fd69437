"""BIP-340: tagged hashes and public keys that verify.

A tag's two leading SHA-256 blocks are hashed once, when the `TaggedHash` is made; each call continues from there.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from ..errors import AuthenticationError
from ..text import safe
from . import backend

__all__ = ["PublicKey", "TaggedHash"]


class TaggedHash:
    """SHA256(SHA256(tag) || SHA256(tag) || data): BIP-340 "Design", so that no digest means two things."""

    __slots__ = ("_start", "tag")

    def __init__(self, tag: str) -> None:
        self.tag: Final = tag
        half = sha256(tag.encode("utf-8")).digest()
        self._start = sha256(half + half)

    def __call__(self, *parts: bytes | memoryview) -> bytes:
        """Return the 32-byte digest of the concatenated parts."""
        state = self._start.copy()
        for part in parts:
            state.update(part)
        return state.digest()


class PublicKey:
    """A secp256k1 point, parsed once: 33 bytes compressed; its x-only form is made at the first verification."""

    __slots__ = ("_xonly", "compressed", "point")

    def __init__(self, compressed: bytes) -> None:
        """Parse 33 bytes.

        Raises: AuthenticationError when they are not a compressed point of the curve.
        """
        try:
            self.point = backend.point_parse(compressed)
        except backend.BackendError:
            raise AuthenticationError(
                "not a public key",
                expected="33 bytes of a compressed secp256k1 point",
                got=safe(bytes(compressed).hex(), 80) or "nothing",
            ) from None
        self.compressed = compressed
        self._xonly: backend.Handle = None

    @classmethod
    def of_point(cls, point: backend.Handle) -> PublicKey:
        """Return the key of a point that is parsed already; for `crypto` alone."""
        key = cls.__new__(cls)
        key.point, key.compressed, key._xonly = point, backend.point_serialize(point), None
        return key

    @classmethod
    @lru_cache(maxsize=256)
    def from_hex(cls, pubkey_hex: str) -> PublicKey:
        """Parse 66 hex digits, those of late once. Raises AuthenticationError for anything else."""
        try:
            return cls(bytes.fromhex(pubkey_hex))
        except ValueError:
            raise AuthenticationError("not a public key", expected="66 hex digits", got=safe(pubkey_hex, 80)) from None

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Return whether a BIP-340 signature over `digest` holds under this key. Never raises for bad input."""
        if self._xonly is None:
            self._xonly = backend.xonly_of(self.point)
        return backend.schnorr_verify(self._xonly, digest, signature)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.compressed == self.compressed

    def __hash__(self) -> int:
        return hash(self.compressed)

    def __repr__(self) -> str:
        return f"PublicKey({self.compressed.hex()})"
