"""The bridge to another signer, with its journal, where the node expects who holds the key."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes
from typing import Final

from ..signing.approvals import Place
from ..signing.bridge import Bridge, Wants
from ..signing.verbs import KeyholderEffect, Reply, Store, Stored, Verb
from .clock import Clock
from .custody import KEYHOLDER_KINDS, row
from .folder import DataFolder
from .store import Journal, Kind

__all__ = ["BridgeHolder"]

_KINDS: Final = (*KEYHOLDER_KINDS, Kind(5, "nonces lent", single=True))


class BridgeHolder:
    """A `cosigner.Holder` whose key is in another signer: `export` and `import_untrusted` are its two ways.

    Args:
        place:  our place in the group.
        folder: the data folder, locked by this process.
        answer: takes what the bridge says, for the node.

    Raises: IoError when the journal is damaged; then nothing is signed.
    """

    def __init__(self, place: Place, folder: DataFolder, answer: Callable[[Reply], None]) -> None:
        self._answer = answer
        self._now = Clock().now
        self._journal = Journal.open(folder, f"bridge-{place.group.id.hex()[:16]}", _KINDS)
        try:
            self._bridge = Bridge(place, token_bytes, (one.record.body for one in self._journal.replay()))
        except BaseException:
            self._journal.close()
            raise

    def ask(self, verb: Verb) -> None:
        """Give the bridge a verb. Raises IoError when its journal fails."""
        self._perform(self._bridge.handle(verb, self._now()))

    def wants(self, session: bytes) -> Wants:
        """Return what the PSBT of a session is to come back with."""
        return self._bridge.wants(session)

    def export(self, session: bytes) -> bytes:
        """Return the PSBT for the signer. Raises LocalError for a session that is not known here."""
        return self._bridge.export(session)

    def import_untrusted(self, session: bytes, data: bytes, replaces: frozenset[bytes] = frozenset()) -> Wants:
        """Take the PSBT back from the signer, in place of other sessions where some are named. Returns what it brought.

        Raises: what `Bridge.import_untrusted` raises, and nothing is changed then; IoError when the journal fails.
        """
        wanted = self._bridge.wants(session)
        self._perform(self._bridge.import_untrusted(session, data, self._now(), replaces))
        return Wants.PARTIALS if wanted is Wants.PARTIALS else Wants.NONCES

    def close(self) -> None:
        """Close the journal. There is no secret to forget."""
        self._journal.close()

    def _perform(self, effects: list[KeyholderEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Store):
                self._journal.append([row(effect.record)])
                self._perform(self._bridge.handle(Stored(effect.number), self._now()))
            else:
                self._answer(effect)
