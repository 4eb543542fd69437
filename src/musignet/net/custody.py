"""A keyholder with its journal and its clocks: what runs it is a loop of the node, or a process of its own.

Records are on disk before anything that depends on them goes on. Before each step the clocks are compared: where the
machine slept, or was restored or cloned, all secret nonces die first (THREATS.md K5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from secrets import token_bytes
from typing import Final

from .. import limits
from ..signing.clockjump import JumpDetector, Readings
from ..signing.journal import ApprovalGiven, ApprovalWiped, read
from ..signing.keyholder import Account, Keyholder
from ..signing.verbs import KeyholderInput, Reply, Resumed, Store, Stored, Verb, Woken
from .clock import Clock, readings
from .folder import DataFolder
from .store import Journal, Kind, Record

__all__ = ["KEYHOLDER_KINDS", "Custody", "row"]

logger = logging.getLogger(__name__)

KEYHOLDER_KINDS: Final = (
    Kind(0, "approval given"),
    Kind(1, "nonces out", single=True),
    Kind(2, "slots burned", single=True),  # the last line of defence: the database refuses a second burn
    Kind(3, "partials out", single=True),
    Kind(4, "approval wiped"),
)


class Custody:
    """See the module.

    Args:
        account: whose key it is, in which group, by which policy.
        folder:  a data folder, locked by this process.
        answer:  takes what the keyholder says.
        clocks:  reads the clocks.

    Raises: IoError when the journal is damaged; then nothing is signed. InvalidMessage when the key is not the group's.
    """

    def __init__(
        self,
        account: Account,
        folder: DataFolder,
        answer: Callable[[Reply], None],
        clocks: Callable[[], Readings] = readings,
    ) -> None:
        self._answer = answer
        self._clocks = clocks
        self._jumps = JumpDetector(clocks())
        self._now = Clock().now
        self._journal = Journal.open(folder, f"keyholder-{account.group.id.hex()[:16]}", KEYHOLDER_KINDS)
        try:
            kept = (one.record.body for one in self._journal.replay())
            self.keyholder = Keyholder(account, token_bytes, kept)
        except BaseException:
            self._journal.close()
            raise

    def ask(self, verb: Verb) -> None:
        """Give the keyholder a verb; its answers go to `answer`. Raises IoError when the journal fails."""
        self._feed(verb)

    def wake(self) -> None:
        """Call it when `wait_s` is over. Raises IoError when the journal fails."""
        deadline = self.keyholder.next_deadline()
        if deadline is not None and deadline <= self._now():
            self._feed(Woken())
        else:
            self._compare_clocks()

    def wait_s(self) -> float | None:
        """Return in how many seconds `wake` is due; None while no secret nonce is alive."""
        deadline = self.keyholder.next_deadline()
        return None if deadline is None else min(max(0.0, deadline - self._now()), limits.CLOCK_TICK_S)

    def close(self) -> None:
        """Forget the secret nonces and close the journal. Twice is harmless."""
        self.keyholder.handle(Resumed(), self._now())
        self._journal.close()

    def _feed(self, event: KeyholderInput) -> None:
        self._compare_clocks()
        self._handle(event)

    def _handle(self, event: KeyholderInput) -> None:
        for effect in self.keyholder.handle(event, self._now()):
            if isinstance(effect, Store):
                self._journal.append([row(effect.record)])
                self._feed(Stored(effect.number))
            else:
                self._answer(effect)

    def _compare_clocks(self) -> None:
        happened = self._jumps.check(self._clocks(), ticking=self.keyholder.next_deadline() is not None)
        if happened is not None:
            logger.warning("%s: secret nonces are forgotten, attempts begin again", happened)
            self._handle(Resumed())


def row(record: bytes) -> Record:
    """Return how a record of the keyholder is filed: by session, and by attempt where it is about one."""
    entry = read(record)
    if isinstance(entry, ApprovalGiven | ApprovalWiped):
        return Record(record[0], entry.session, record)
    return Record(record[0], entry.session + entry.attempt.to_bytes(4, "big"), record)
