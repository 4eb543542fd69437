"""From bytes to `VerifiedMessage`, before the node sees them.

When one read brings many messages, a second thread verifies half of them: the C call releases the GIL, so two cores
verify nearly twice as many. Both halves are waited for: a loop that hands messages on meanwhile holds the GIL, and the
thread, which wants it back after each signature, gets it after milliseconds.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from ..errors import PeerError
from ..wire.envelope import Gate, VerifiedMessage
from .frameless import frameless

__all__ = ["Opener"]


class Opener:
    """Opens what one read brought. From `batch` envelopes on, on two threads."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._pool: ThreadPoolExecutor | None = None

    def open(self, gate: Gate, envelopes: list[bytes]) -> list[VerifiedMessage | PeerError]:
        """Return the messages up to the first that is refused, and its error: the link ends there."""
        if len(envelopes) < self._batch or (self._pool is None and _cores() < 2):
            return _open(gate, envelopes)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "musignet-verify")
        half = len(envelopes) // 2
        later = self._pool.submit(_open, gate, envelopes[half:])
        opened = _open(gate, envelopes[:half])
        return opened + later.result()

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _open(gate: Gate, envelopes: list[bytes]) -> list[VerifiedMessage | PeerError]:
    opened: list[VerifiedMessage | PeerError] = []
    try:
        for envelope in envelopes:
            opened.append(gate.open_untrusted(envelope))
    except PeerError as error:
        opened.append(frameless(error))
    return opened
