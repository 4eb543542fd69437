"""What a session asks of its node beside the keyholder's verbs, and what it tells its owner."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from ..bitcoin.finalise import FinalTransaction
from ..errors import NetworkError
from ..wire.messages import MessageType
from .blame import Verdict
from .states import State
from .verbs import Asked, Verb

__all__ = [
    "End",
    "News",
    "Outcome",
    "Progress",
    "Publish",
    "Save",
    "Saved",
    "SendToGroup",
    "SessionEffect",
    "Void",
    "read_end",
    "write_end",
]


class End(Enum):
    """How a session ended."""

    COMPLETED = "completed"
    REFUSED = "refused"
    """By us: a rule, the policy or a person."""
    ABORTED = "aborted"
    """By a cosigner, who said so."""
    BLAMED = "blamed"
    """A cosigner is proved to have broken the protocol."""
    SILENT = "silent"
    """Somebody did not answer. It proves nothing about them: networks fail by themselves."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    """By our own side."""
    OLD_DISK = "old disk"
    """By our own side: it came back with an old copy of its disk, and does not know what it has said since."""


class SendToGroup(Struct, frozen=True):
    """Sign this, addressed to the group, and send it to every other member, or to one of them alone."""

    kind: MessageType
    session: bytes
    payload: bytes
    to: bytes | None = None
    """An identity key; None: everybody."""
    again: bool = False
    """It only repeats what a link may have lost: mail loses nothing."""


class Save(Struct, frozen=True):
    """Write this record to the node's journal, then say `Saved`."""

    session: bytes
    number: int
    record: bytes


class Saved(Struct, frozen=True):
    """The record is on disk."""

    session: bytes
    number: int


class Void(Struct, frozen=True):
    """The disk that our sessions came from is old: what was open before this start ends, once for each `number`."""

    number: int
    error: NetworkError
    """What happened, and what to do."""


class Progress(Struct, frozen=True):
    """Where a session is, and whom it waits for: identity keys, of large groups the first `PROGRESS_NAMES_MAX`."""

    session: bytes
    state: State
    attempt: int
    waiting_for: tuple[bytes, ...]
    away: tuple[bytes, ...] = ()
    """Those of them that are not connected: nothing is wrong, they are waited for until the session expires."""


class Outcome(Struct, frozen=True):
    """How it ended. After any other end a `COMPLETED` may still follow: what the others could finish is finished.

    Attributes:
        transaction: the finished one; None where inputs of strangers to the group are not signed yet.
        suspects:    identity keys of who was waited for, or said no. Nothing is proved about them.
        verdict:     who is proved at fault, and `blame` the record that proves it to anybody.
    """

    session: bytes
    end: End
    signatures: tuple[bytes, ...] = ()
    transaction: FinalTransaction | None = None
    suspects: tuple[bytes, ...] = ()
    verdict: Verdict | None = None
    blame: bytes = b""
    error: NetworkError | None = None


def write_end(session: bytes, end: End, blame: bytes) -> bytes:
    """Return the record of the node's journal that says how a session ended, and proves it where it can."""
    return b"\x01" + session + end.value.encode() + b"\0" + blame


def read_end(record: bytes) -> tuple[End, bytes]:
    """Return how a session ended, and the blame record or nothing. Takes what `write_end` made, from its end on."""
    word, _, blame = record.partition(b"\0")
    return End(word.decode()), blame


News: TypeAlias = Progress | Outcome | Asked


class Publish(Struct, frozen=True):
    """Tell the owner."""

    news: News


SessionEffect: TypeAlias = SendToGroup | Save | Publish | Verb
