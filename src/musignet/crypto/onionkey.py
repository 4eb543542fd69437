"""The Ed25519 key of a node's onion service. It is made from the identity: nothing more to keep, lose or encrypt.

Restored from its words, a node has its old address again. Whoever has the address learns nothing of the identity, and
Tor, which gets the key, neither: between them is a hash.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .keys import Identity
from .schnorr import TaggedHash

__all__ = ["OnionKey"]

_seed = TaggedHash("musignet/onion-key")


class OnionKey:
    """See the module. It prints as nothing, and cannot be copied or pickled."""

    __slots__ = ("_seed", "public")

    def __init__(self, seed: bytes) -> None:
        """Args: seed - 32 secret bytes (RFC 8032); random ones make a service that nobody has again."""
        self._seed = seed
        self.public: bytes = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    @classmethod
    def of(cls, identity: Identity) -> OnionKey:
        """Return the key that belongs to a node, the same each time. Raises LocalError when it was wiped."""
        secret = identity.secret_for_storage()
        try:
            return cls(_seed(memoryview(secret)))
        finally:
            secret[:] = bytes(len(secret))

    def expanded(self) -> bytes:
        """Return the 64 bytes that Tor takes: the scalar and the prefix of RFC 8032, section 5.1.5. Secret."""
        digest = bytearray(hashlib.sha512(self._seed).digest())
        digest[0] &= 248
        digest[31] = digest[31] & 127 | 64
        return bytes(digest)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("an OnionKey holds a secret: it cannot be copied or pickled")

    __copy__ = __deepcopy__ = __reduce_ex__ = __reduce__ = _refuse

    def __repr__(self) -> str:
        return "<OnionKey>"
