"""From bytes to `VerifiedMessage`, before the node sees them.

When one read brings many messages, a second thread verifies the larger part of them: the C call releases the GIL. While
it does, the loop verifies the rest, and hands that on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..errors import PeerError
from ..wire.envelope import Gate, VerifiedMessage
from .frameless import frameless

__all__ = ["Opener"]

_OURS: Final = 0.4
"""The share that the loop verifies: it also hands all of them on."""


class Opener:
    """Opens what one read brought. From `batch` envelopes on, on two threads."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._pool: ThreadPoolExecutor | None = None

    def open(self, gate: Gate, envelopes: list[bytes]) -> Iterable[list[VerifiedMessage | PeerError]]:
        """Return the messages, in parts and in order. A part ends with the first that is refused: so does the link."""
        if len(envelopes) < self._batch or (self._pool is None and _cores() < 2):
            return (_open(gate, envelopes),)
        return self._open_on_two(gate, envelopes)

    def _open_on_two(self, gate: Gate, envelopes: list[bytes]) -> Iterator[list[VerifiedMessage | PeerError]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "musignet-verify")
        ours = int(len(envelopes) * _OURS)
        later = self._pool.submit(_open, gate, envelopes[ours:])
        yield _open(gate, envelopes[:ours])
        yield later.result()

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
