"""Fixed identities, so that a failing test prints the same bytes each time."""

from __future__ import annotations

from hashlib import sha256

from musignet.crypto.keys import Identity

__all__ = ["ALICE", "BOB", "CAROL", "GROUP_ORDER", "secret"]

GROUP_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def secret(name: str) -> bytes:
    """Return 32 bytes that are a valid secret key, different for each name."""
    return sha256(f"musignet test {name}".encode()).digest()


ALICE = Identity.from_secret(secret("alice"))
BOB = Identity.from_secret(secret("bob"))
CAROL = Identity.from_secret(secret("carol"))
