"""What the contestants share: keys, payloads, and how much memory a process holds."""

from __future__ import annotations

import gc
import os
from hashlib import sha256
from pathlib import Path

from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import TaggedHash

__all__ = ["DIGEST", "SIGNATURE_BYTES", "identity", "payload", "resident_kib"]

DIGEST = TaggedHash("musignet/bench")
SIGNATURE_BYTES = 64


def identity(name: str) -> Identity:
    """Return the key of this name: the same in every process, so each side knows the other's."""
    return Identity.from_secret(sha256(name.encode()).digest())


def payload(size: int, *, answer: bool) -> bytes:
    """Return `size` bytes. The first says whether the far side is to answer with the same bytes."""
    return bytes((answer,)) + bytes(size - 1)


def resident_kib() -> float:
    """Return the resident memory of this process after a garbage collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
