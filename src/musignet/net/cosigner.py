"""One cosigner in this process: a group's keyholder with its journal, and the journal of the node's sessions.

The keyholder is a machine of its own, reached only by its verbs: later it moves into a process of its own, and this is
the one place that changes. Records are on disk before anything that depends on them goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from secrets import token_bytes
from typing import Final

from ..node.effects import Save
from ..signing.coordinator import Sessions
from ..signing.effects import Saved as RecordSaved
from ..signing.journal import ApprovalGiven, ApprovalWiped, read
from ..signing.keyholder import Account, Keyholder
from ..signing.verbs import KeyholderInput, Reply, Store, Stored, Verb, Woken
from .clock import Clock
from .folder import DataFolder
from .store import Journal, Kind, Record

__all__ = ["Cosigner"]

_KEYHOLDER_KINDS: Final = (
    Kind(0, "approval given"),
    Kind(1, "nonces out", single=True),
    Kind(2, "slots burned", single=True),  # the last line of defence: the database refuses a second burn
    Kind(3, "partials out", single=True),
    Kind(4, "approval wiped"),
)
_NODE_KINDS: Final = (Kind(0, "session"),)


class Cosigner:
    """See the module.

    Args:
        account: whose key it is, in which group, by which policy.
        folder:  the data folder, locked by this process.
        sessions: the node's side of the same group.
        answer:  takes what the keyholder says, for the node.

    Raises: IoError when a journal is damaged; then nothing is signed. InvalidMessage when the key is not the group's.
    """

    def __init__(
        self, account: Account, folder: DataFolder, sessions: Sessions, answer: Callable[[Reply], None]
    ) -> None:
        name = account.group.id.hex()[:16]
        self.group = account.group.id
        self._answer = answer
        self._holder_journal = Journal.open(folder, f"keyholder-{name}", _KEYHOLDER_KINDS)
        self._node_journal = Journal.open(folder, f"node-{name}", _NODE_KINDS)
        kept = (one.record.body for one in self._holder_journal.replay())
        self._keyholder = Keyholder(account, token_bytes, kept)
        self.sessions = sessions
        self.records = tuple(one.record.body for one in self._node_journal.replay())
        self._now = Clock().now
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, verb: Verb) -> None:
        """Give the keyholder a verb; its answers go to `answer`."""
        self._feed(verb)
        self._arm()

    def save(self, effect: Save) -> RecordSaved:
        """Write a record of the node's sessions. Returns what tells the node that it is on disk."""
        record = effect.save.record
        self._node_journal.append([Record(0, effect.save.session, record)])
        return RecordSaved(effect.save.session, effect.save.number)

    def close(self) -> None:
        """Close the journals. The secret nonces are forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        self._holder_journal.close()
        self._node_journal.close()

    def _feed(self, event: KeyholderInput) -> None:
        for effect in self._keyholder.handle(event, self._now()):
            if isinstance(effect, Store):
                self._holder_journal.append([_row(effect.record)])
                self._feed(Stored(effect.number))
            else:
                self._answer(effect)

    def _arm(self) -> None:
        deadline = self._keyholder.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            delay_s = max(0.0, deadline - self._now())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._feed(Woken())
        self._arm()


def _row(record: bytes) -> Record:
    """Return how a record of the keyholder is filed: by session, and by attempt where it is about one."""
    entry = read(record)
    if isinstance(entry, ApprovalGiven | ApprovalWiped):
        return Record(record[0], entry.session, record)
    return Record(record[0], entry.session + entry.attempt.to_bytes(4, "big"), record)
