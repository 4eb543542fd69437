"""What a message can be: its type, its priority, its cap, and one record per typed payload."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from .. import limits
from ..chain import Chain
from ..errors import SerializationError
from .codec import Codec, Record

__all__ = [
    "Abort",
    "Ack",
    "Chain",
    "CloseCode",
    "Discovery",
    "Error",
    "GroupRelays",
    "MessageType",
    "PairConfirm",
    "PairEnd",
    "PairHello",
    "PeerAnnouncement",
    "Ping",
    "Pong",
    "Priority",
    "payload_cap_bytes",
    "payload_decode_untrusted",
    "payload_encode",
]


class MessageType(IntEnum):
    """The type of a message. BOLT 1: an unknown odd type is ignored, an unknown even one closes the link."""

    DISCOVERY = 1
    PEER_ANNOUNCEMENT = 2
    TRANSACTION_PROPOSAL = 4
    PUBLIC_NONCE = 6
    PARTIAL_SIGNATURE = 8
    TRANSACTION_COMPLETE = 10
    PING = 12
    PONG = 14
    ERROR = 16
    # Beyond the specification's nine:
    CHAT = 17
    ABORT = 18
    ACK = 19
    APPROVAL = 20
    ATTEMPT_GONE = 22
    NONCE_LIST = 24
    BLAME = 26
    ATTEMPT_FAILED = 28
    ATTEMPT_BEGIN = 30
    AGGREGATE_NONCE = 32
    AGGREGATE_SHOWN = 34
    LIST_WANTED = 36
    ANNOUNCEMENT_SHOWN = 38
    PAIR_HELLO = 40
    PAIR_CONFIRM = 42
    PAIR_END = 44
    FOUNDING_PROPOSAL = 46
    FOUNDING_KEY = 48
    FOUNDING_VIEW = 50
    FOUNDING_END = 52
    HOLE = 61
    GROUP_RELAYS = 63


class Priority(IntEnum):
    """What goes first on a busy link: the lower number, also between the fragments of another message."""

    ROUND_2 = 0
    ROUND_1 = 1
    CONTROL = 2
    BULK = 3

    @staticmethod
    def of(kind: int) -> Priority:
        """Return the priority of a message type. An unknown type is bulk."""
        return _PRIORITIES.get(kind, Priority.BULK)


_PRIORITIES: Final[dict[int, Priority]] = {
    MessageType.PARTIAL_SIGNATURE: Priority.ROUND_2,
    MessageType.TRANSACTION_COMPLETE: Priority.ROUND_2,
    MessageType.PUBLIC_NONCE: Priority.ROUND_1,
    MessageType.PEER_ANNOUNCEMENT: Priority.ROUND_2,  # nothing may overtake the first message of a link
    MessageType.PING: Priority.CONTROL,
    MessageType.PONG: Priority.CONTROL,
    MessageType.ERROR: Priority.CONTROL,
    MessageType.ABORT: Priority.CONTROL,
    MessageType.ACK: Priority.CONTROL,
    MessageType.APPROVAL: Priority.CONTROL,
    MessageType.ATTEMPT_GONE: Priority.CONTROL,
    MessageType.ATTEMPT_FAILED: Priority.CONTROL,
    MessageType.ATTEMPT_BEGIN: Priority.ROUND_1,
    MessageType.AGGREGATE_NONCE: Priority.ROUND_1,
    MessageType.PAIR_HELLO: Priority.CONTROL,
    MessageType.PAIR_CONFIRM: Priority.CONTROL,
    MessageType.PAIR_END: Priority.CONTROL,
    MessageType.FOUNDING_PROPOSAL: Priority.CONTROL,  # one priority for all of them keeps their order
    MessageType.FOUNDING_KEY: Priority.CONTROL,
    MessageType.FOUNDING_VIEW: Priority.CONTROL,
    MessageType.FOUNDING_END: Priority.CONTROL,
    MessageType.ANNOUNCEMENT_SHOWN: Priority.CONTROL,
    MessageType.HOLE: Priority.CONTROL,
    MessageType.GROUP_RELAYS: Priority.CONTROL,
}


class CloseCode(IntEnum):
    """Why a link is closed, in its close notice."""

    DONE = 0
    """The owner hung up."""
    DUPLICATE = 1
    """Another link to the same peer stays."""
    GOING_AWAY = 2
    """The node stops; it may come back."""
    FAULT = 3
    """The other side broke a rule; the text says which."""
    SILENT = 4
    """Nothing was heard for too long."""


PAYLOAD_CAPS_BYTES: Final[dict[int, int]] = {
    MessageType.DISCOVERY: limits.BEACON_MAX_BYTES,
    MessageType.CHAT: limits.CHAT_MAX_BYTES,
    MessageType.ANNOUNCEMENT_SHOWN: limits.ANNOUNCEMENT_KEPT_MAX_BYTES,
    MessageType.BLAME: limits.BLAME_MAX_BYTES,
    MessageType.FOUNDING_PROPOSAL: limits.FOUNDING_PAYLOAD_MAX_BYTES,
    MessageType.FOUNDING_KEY: limits.FOUNDING_PAYLOAD_MAX_BYTES,
    MessageType.FOUNDING_VIEW: limits.FOUNDING_PAYLOAD_MAX_BYTES,
    **dict.fromkeys(
        (
            MessageType.PEER_ANNOUNCEMENT,
            MessageType.PING,
            MessageType.PONG,
            MessageType.ERROR,
            MessageType.ABORT,
            MessageType.ACK,
            MessageType.APPROVAL,
            MessageType.ATTEMPT_GONE,
            MessageType.ATTEMPT_FAILED,
            MessageType.ATTEMPT_BEGIN,
            MessageType.LIST_WANTED,
            MessageType.PAIR_HELLO,
            MessageType.PAIR_CONFIRM,
            MessageType.PAIR_END,
            MessageType.FOUNDING_END,
            MessageType.HOLE,
            MessageType.GROUP_RELAYS,
        ),
        limits.CONTROL_PAYLOAD_MAX_BYTES,
    ),
}


def payload_cap_bytes(kind: int) -> int:
    """Return how large a payload of this type may be."""
    return PAYLOAD_CAPS_BYTES.get(kind, limits.PAYLOAD_MAX_BYTES)


# --- field types ------------------------------------------------------------------------------------------------------

Label: TypeAlias = Annotated[str, Meta(max_length=limits.LABEL_MAX_CHARS)]
Address: TypeAlias = Annotated[str, Meta(max_length=limits.ADDRESS_MAX_CHARS)]
BootEpoch: TypeAlias = Annotated[bytes, Meta(min_length=limits.BOOT_EPOCH_BYTES, max_length=limits.BOOT_EPOCH_BYTES)]
SeenEpoch: TypeAlias = Annotated[bytes, Meta(max_length=limits.BOOT_EPOCH_BYTES)]
SessionId: TypeAlias = Annotated[bytes, Meta(max_length=limits.SESSION_ID_BYTES)]
Sequence: TypeAlias = Annotated[int, Meta(ge=0, le=limits.SEQUENCE_MAX)]
Millis: TypeAlias = Annotated[int, Meta(ge=0, le=limits.SENT_AT_MAX_MS)]
Token: TypeAlias = Annotated[int, Meta(ge=0, le=limits.SEQUENCE_MAX)]
Code: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFF)]
Text: TypeAlias = Annotated[str, Meta(max_length=1024)]
Port: TypeAlias = Annotated[int, Meta(ge=1024, le=65_535)]
"""THREATS.md U1: a beacon never names a privileged port."""
Tag: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
MessageId: TypeAlias = Annotated[bytes, Meta(min_length=limits.MESSAGE_ID_BYTES, max_length=limits.MESSAGE_ID_BYTES)]


# --- typed payloads ---------------------------------------------------------------------------------------------------


class PeerAnnouncement(Record, frozen=True):
    """The first message on a link, from each side; and again on an open one, when `changes` has risen.

    `boot_epoch` is drawn at each start. `seen_epoch` and `seen_seq` are the newest counters the sender has ever
    accepted from the receiver (empty and 0 if none): a receiver that is behind them in this epoch runs twice.
    `changes` counts what became of the sender's sessions, as far as its disk has it (0 without a disk), and only rises:
    whoever announces less than before is shown its own announcement (`ANNOUNCEMENT_SHOWN`, whose payload is the
    envelope).
    """

    label: Label
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)]
    features: Annotated[tuple[Code, ...], Meta(max_length=limits.FEATURES_MAX)]
    boot_epoch: BootEpoch
    seen_epoch: SeenEpoch
    seen_seq: Sequence
    changes: Sequence = 0


class Discovery(Record, frozen=True):
    """A beacon on the local network: a rotating tag that only the group can read, and the port to dial.

    The address to dial is the packet's source, never something it says (THREATS.md U1).
    """

    tag: Tag
    port: Port


class Ping(Record, frozen=True):
    """Asks for a `Pong` with the same token."""

    token: Token


class Pong(Record, frozen=True):
    """Answers a `Ping`."""

    token: Token


class Error(Record, frozen=True):
    """A peer tells us what it did not like. `session` is empty when it is about no session."""

    code: Code
    text: Text
    session: SessionId


class Abort(Record, frozen=True):
    """A peer leaves a session, and says why."""

    code: Code
    text: Text


class Ack(Record, frozen=True):
    """Messages that arrived, for carriers without a live channel. On a link, frames carry the ids themselves."""

    ids: Annotated[tuple[MessageId, ...], Meta(min_length=1, max_length=limits.ACKS_PER_FRAME_MAX // 2)]


class PairHello(Record, frozen=True):
    """Begins a pairing on this link, from the invited side, and is answered with the same from the inviter.

    `proof` shows that the sender knows the secret of the invite, on this link and in this role, without telling it.
    """

    proof: Annotated[bytes, Meta(min_length=32, max_length=32)]
    label: Label
    addresses: Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)]


class PairConfirm(Record, frozen=True):
    """A person compared the words of the handshake that `statement` stands for, and said yes."""

    statement: Annotated[bytes, Meta(min_length=32, max_length=32)]


class PairEnd(Record, frozen=True):
    """No pairing: `code` is a `PairFault`, and the text says more."""

    code: Code
    text: Text


class GroupRelays(Record, frozen=True):
    """Where the sender looks for the other members of a group. What to make of it is for a person to say."""

    group: Annotated[bytes, Meta(min_length=32, max_length=32)]
    relays: Annotated[tuple[Address, ...], Meta(max_length=limits.GROUP_RELAYS_MAX)]


_CODECS: Final[dict[int, tuple[type[Record], Codec[Record]]]] = {
    kind: (record, Codec[Record](record))
    for kind, record in (
        (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement),
        (MessageType.DISCOVERY, Discovery),
        (MessageType.PING, Ping),
        (MessageType.PONG, Pong),
        (MessageType.ERROR, Error),
        (MessageType.ABORT, Abort),
        (MessageType.ACK, Ack),
        (MessageType.PAIR_HELLO, PairHello),
        (MessageType.PAIR_CONFIRM, PairConfirm),
        (MessageType.PAIR_END, PairEnd),
        (MessageType.GROUP_RELAYS, GroupRelays),
    )
}
"""Types whose payload is a record. Every other type carries bytes that mean something one floor up."""


def payload_encode(kind: int, record: Record) -> bytes:
    """Return the bytes of a typed payload.

    Raises: SerializationError when this type carries another record, or a field is out of bounds.
    """
    expected, codec = _CODECS.get(kind, (None, None))
    if codec is None or expected is not type(record):
        raise SerializationError(
            "wrong payload", expected=expected.__name__ if expected else "bytes", got=type(record).__name__
        )
    return codec.check(record)


def payload_decode_untrusted(kind: int, payload: bytes) -> Record | bytes:
    """Return the record in a payload, or the bytes themselves for a type without one.

    Raises: SerializationError when a typed payload is not canonical.
    """
    codec = _CODECS.get(kind)
    return payload if codec is None else codec[1].decode_untrusted(payload)
