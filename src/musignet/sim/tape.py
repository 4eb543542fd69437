"""What happened in a run, as one hash: the same seed must give the same tape."""

from __future__ import annotations

import hashlib
from collections import Counter

__all__ = ["Tape"]


class Tape:
    """Hashes each step of a run, counts what kinds of things really happened, and prints the steps on request."""

    def __init__(self, show: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._show = show
        self.counts: Counter[str] = Counter()

    def write(self, at: float, who: str, what: str, detail: str = "") -> None:
        """Record one step."""
        line = f"{at:.6f} {who} {what} {detail}"
        self._hash.update(line.encode("utf-8") + b"\n")
        self.counts[what] += 1
        if self._show:
            print(line)

    def digest(self) -> str:
        """Return the hash of all steps so far."""
        return self._hash.hexdigest()
