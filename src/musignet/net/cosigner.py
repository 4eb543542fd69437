"""One cosigner at a node: the node's sessions of a group with their journal, and whoever holds the key.

The keyholder is a machine of its own, reached only by its verbs: in this process (`HolderHere`), or in one of its own
(`holder.HolderProcess`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from ..errors import NetworkError
from ..node.effects import Save
from ..signing.coordinator import Sessions
from ..signing.effects import Saved as RecordSaved
from ..signing.keyholder import Account
from ..signing.verbs import Reply, Verb
from .custody import Custody
from .folder import DataFolder
from .store import Journal, Kind, Record

__all__ = ["Cosigner", "Holder", "HolderHere"]

logger = logging.getLogger(__name__)

_NODE_KINDS: Final = (Kind(0, "session"),)


class Holder(Protocol):
    """Whoever holds the key of one group. Its answers go where it was told when it was made."""

    def ask(self, verb: Verb) -> None:
        """Pass on a verb. Raises NetworkError when it cannot be: then nothing is signed."""
        ...

    def close(self) -> None:
        """Nothing more will be asked."""
        ...


class Cosigner:
    """See the module.

    Args:
        holder:   who signs.
        folder:   the data folder, locked by this process.
        sessions: the node's side of the same group.

    Raises: IoError when the journal is damaged.
    """

    def __init__(self, holder: Holder, folder: DataFolder, sessions: Sessions) -> None:
        self.holder = holder
        self.sessions = sessions
        self._journal = Journal.open(folder, f"node-{sessions.group.id.hex()[:16]}", _NODE_KINDS)
        self.records = tuple(one.record.body for one in self._journal.replay())

    def ask(self, verb: Verb) -> None:
        """Give the keyholder a verb. Raises NetworkError when it cannot be had."""
        self.holder.ask(verb)

    def save(self, effect: Save) -> RecordSaved:
        """Write a record of the node's sessions. Returns what tells the node that it is on disk."""
        record = effect.save.record
        self._journal.append([Record(0, effect.save.session, record)])
        return RecordSaved(effect.save.session, effect.save.number)

    def close(self) -> None:
        """Close the journal, and leave the holder."""
        self.holder.close()
        self._journal.close()


class HolderHere:
    """The keyholder of one group in this process, on the running event loop.

    Args:
        account: whose key it is, in which group, by which policy.
        folder:  the data folder, locked by this process.
        answer:  takes what the keyholder says, for the node.

    Raises: IoError when the journal is damaged; then nothing is signed. InvalidMessage when the key is not the group's.
    """

    def __init__(self, account: Account, folder: DataFolder, answer: Callable[[Reply], None]) -> None:
        self.custody = Custody(account, folder, answer)
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, verb: Verb) -> None:
        """Give the keyholder a verb. Raises IoError when its journal fails."""
        self.custody.ask(verb)
        self._arm()

    def close(self) -> None:
        """Close the journal. The secret nonces are forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        self.custody.close()

    def _arm(self) -> None:
        wait_s = self.custody.wait_s()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        try:
            self.custody.wake()
        except NetworkError as error:
            logger.error("the keyholder's journal failed, nothing is signed: %s", error)
        self._arm()
