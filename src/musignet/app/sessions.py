"""Every signing session of this node, ended ones too: what was proposed, where it stands, how it ended.

What is open is read from the node itself; what has ended, from its journal. A review is made again each time that it
is asked for: nothing that was shown before is believed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..bitcoin.finalise import FinalTransaction, finalise
from ..bitcoin.group import Known
from ..bitcoin.review import Review
from ..errors import LocalError, NetworkError
from ..limits import SESSIONS_REMEMBERED_MAX, SIGNATURE_BYTES
from ..signing.blame import verify_blame
from ..signing.coordinator import Sessions
from ..signing.effects import End, News, Outcome, read_end
from ..signing.group import SigningGroup
from ..signing.proposal import Proposal
from ..signing.records import TransactionComplete, decode_untrusted, encode, split
from ..signing.session import Session
from ..signing.states import State
from ..signing.verbs import Asked
from ..text import safe
from ..wire.envelope import Message
from ..wire.messages import MessageType

__all__ = ["Entry", "NotFound", "SessionBook", "matching"]

_PROPOSED: Final = 0
_ENDED: Final = 1
_COMPLETED: Final = 2
"""The first byte of a record of the node's journal, as `signing.session` writes it."""


class NotFound(LocalError):
    """Nothing of that id or name is here."""


@dataclass(slots=True)
class Entry:
    """One session."""

    id: bytes
    group: SigningGroup
    envelope: bytes = b""
    """The signed proposal; empty where a rule refused it before it was written down."""
    end: End | None = None
    completion: bytes = b""
    """The payload of the completion: all signatures."""
    outcome: Outcome | None = None
    """The whole outcome, of this run of the node."""
    asked: bool = False
    """A person must still say yes."""
    replaces: frozenset[bytes] = frozenset()
    """Then: the sessions that this yes must name, and gives up."""
    live: Session | None = field(default=None, repr=False)

    def proposal(self) -> Proposal:
        """Return what was proposed, read again from the signed message. Raises NotFound where there is none."""
        if self.live is not None:
            return self.live.proposal
        if not self.envelope:
            raise NotFound("nothing is written down of this session", hint="a rule refused its proposal at once")
        return Proposal.open_untrusted(Message.from_bytes(self.envelope).verify(), self.group)

    def review(self) -> Review:
        """Return what it would do, judged now. Raises RuleBroken, NotFound."""
        return self.proposal().review(self.group, Known(), time.time())

    def transaction(self) -> FinalTransaction:
        """Return the finished transaction. Raises LocalError where there is none (yet)."""
        if self.outcome is not None and self.outcome.transaction is not None:
            return self.outcome.transaction
        if not self.completion:
            raise LocalError("this session has no transaction", got=self.state, hint="see musignet show")
        return finalise(self.proposal().psbt, self.review(), self.signatures())

    def signatures(self) -> dict[int, bytes]:
        """Return the signature of each input of ours; nothing where it is not complete."""
        if not self.completion:
            return {}
        read = decode_untrusted(MessageType.TRANSACTION_COMPLETE, self.completion)
        assert isinstance(read, TransactionComplete)
        slots = self.review().slots
        each = split(read.signatures, SIGNATURE_BYTES, len(slots))
        return {slot.input_index: one for slot, one in zip(slots, each, strict=True)}

    @property
    def state(self) -> str:
        """Where it stands, in a word or two."""
        if self.end is not None:
            return self.end.value
        return self.live.state.value if self.live is not None else "unknown"

    @property
    def waiting_for(self) -> tuple[bytes, ...]:
        """The identity keys of those it waits for; our own where a person here is asked."""
        if self.end is not None or self.live is None:
            return ()
        own = (self.live.identity,) if self.asked else ()
        return own + self.live.waiting_for

    @property
    def error(self) -> NetworkError | None:
        return None if self.outcome is None else self.outcome.error


class SessionBook:
    """All sessions of all groups, the oldest first."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._known: dict[bytes, Known] = {}
        self._counted: set[bytes] = set()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, group: SigningGroup, records: Iterable[bytes]) -> None:
        """Take in what the node's journal has of a group."""
        for record in records:
            if record[0] == _PROPOSED:
                self._entry(Message.from_bytes(record[1:]).session, group).envelope = record[1:]
                continue
            if record[0] not in (_ENDED, _COMPLETED):
                continue
            entry = self._entry(record[1:33], group)
            if record[0] == _ENDED:
                entry.end, blame = read_end(record[33:])
                if blame:
                    verdict = verify_blame(blame, group)
                    entry.outcome = Outcome(entry.id, entry.end, verdict=verdict, blame=blame)
            else:
                entry.end, entry.completion = End.COMPLETED, record[33:]

    def told(self, sessions: Sessions, news: News) -> Entry:
        """Take in what the node says of a session. Returns its entry."""
        if news.session not in self._entries:
            self._forget_refused()
        entry = self._entry(news.session, sessions.group)
        self._look(entry, sessions)
        if isinstance(news, Asked):
            entry.asked, entry.replaces = True, news.replaces
        elif isinstance(news, Outcome):
            self._end(entry, news)
        elif news.state is not State.REVIEWING:  # somebody who came or went does not answer for the person here
            entry.asked = False
        return entry

    def look(self, sessions: Sessions) -> None:
        """Take in the sessions of a group that are open."""
        for session in sessions:
            if session.outcome is None:
                self._look(self._entry(session.id, sessions.group), sessions)

    def known(self, group: SigningGroup) -> Known:
        """Return what the complete sessions of a group tell of its change, as the keyholder knows it from its own."""
        known = self._known.get(group.id, Known())
        for entry in self:
            if entry.completion and entry.group.id == group.id and entry.id not in self._counted:
                self._counted.add(entry.id)
                known = known.after(entry.proposal().review(group, known, time.time()).last_change)
        self._known[group.id] = known
        return known

    def find(self, start: str) -> Entry:
        """Return the session whose id begins so. Raises NotFound, LocalError when several do."""
        return matching(start, {one.id.hex(): one for one in self}, "session", "musignet sessions")

    def _entry(self, session: bytes, group: SigningGroup) -> Entry:
        entry = self._entries.get(session)
        if entry is None:
            entry = self._entries[session] = Entry(session, group)
        return entry

    def _look(self, entry: Entry, sessions: Sessions) -> None:
        if entry.id in sessions:
            entry.live = sessions[entry.id]
            entry.envelope = entry.live.proposal.envelope

    def _end(self, entry: Entry, outcome: Outcome) -> None:
        """A restart tells an old end again, and says less of it; a completion after another end counts."""
        if entry.outcome is None or outcome.end is End.COMPLETED:
            entry.outcome = outcome
        entry.end, entry.asked, entry.live = entry.outcome.end, False, None
        if outcome.signatures:
            entry.completion = _completion(outcome)

    def _forget_refused(self) -> None:
        """Proposals that a rule refused are anybody's to send: only the newest of them are remembered."""
        refused = [one.id for one in self if not one.envelope] if len(self) >= SESSIONS_REMEMBERED_MAX else []
        for session in refused[: max(0, len(refused) - SESSIONS_REMEMBERED_MAX + 1)]:
            del self._entries[session]


def _completion(outcome: Outcome) -> bytes:
    return encode(TransactionComplete(b"".join(outcome.signatures)))


def matching(start: str, named: Mapping[str, Entry], what: str, command: str) -> Entry:
    """Return the one entry whose name begins so."""
    found = [name for name in named if start and name.startswith(start.lower())]
    if not found:
        raise NotFound(f"no {what} {safe(start)!r}", hint=f"see: {command}")
    if len(found) > 1:
        raise LocalError(f"several {what}s begin with {safe(start)}", hint="give more digits of its id")
    return named[found[0]]
