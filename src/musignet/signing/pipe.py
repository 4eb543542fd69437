"""What a node and a keyholder in a process of its own say to each other: frames on two pipes.

    frame: 4 bytes of length, big-endian | 1 byte of kind | 32 bytes of group id, zeros where it is about none | msgpack

The keyholder trusts nothing that the node says: a signed message crosses as its envelope, and is verified again on the
other side. A review does not cross; the node makes its own of the same proposal. Errors cross as their kind and text.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from .. import errors, limits
from ..errors import LocalError, NetworkError, SerializationError
from ..wire.envelope import Message, VerifiedMessage
from .verbs import (
    Approve,
    Approved,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Status,
    StatusIs,
    Verb,
    Wipe,
    Wiped,
)

__all__ = [
    "NO_GROUP",
    "AccountIs",
    "AccountWanted",
    "Answer",
    "Failed",
    "Frames",
    "Hello",
    "PersonAsked",
    "PinWanted",
    "Pinned",
    "ProofIs",
    "ProofWanted",
    "Ready",
    "Request",
    "VerbRefused",
    "error_of",
    "failed",
    "frame",
    "read_answer_untrusted",
    "read_request_untrusted",
]

NO_GROUP: Final = bytes(32)
_HEAD_BYTES: Final = 1 + len(NO_GROUP)
_LENGTH_BYTES: Final = 4

_Text = Annotated[str, Meta(max_length=limits.PIPE_TEXT_MAX_CHARS)]
_Name = Annotated[str, Meta(max_length=limits.LABEL_MAX_CHARS)]
_Account = Annotated[str, Meta(max_length=limits.PIPE_ACCOUNT_MAX_CHARS)]


class Hello(Struct, frozen=True):
    """The node's first word: its identity key, which the wallet key must not be, and its Bitcoin network."""

    identity: bytes
    chain: int


class AccountWanted(Struct, frozen=True):
    """Tell the public key of an account."""

    number: int


class ProofWanted(Struct, frozen=True):
    """Prove that the key of an account is held here: `founding_records.prove_possession` over 32 bytes."""

    number: int
    statement: Annotated[bytes, Meta(min_length=32, max_length=32)]


class PinWanted(Struct, frozen=True):
    """Cosign in this group from now on, as a person wants by this proof."""

    file: bytes
    proof: bytes


class Ready(Struct, frozen=True):
    """The keyholder's first word: its first account with its origin, whether it is unencrypted, its pinned groups."""

    account: _Account
    insecure: bool
    groups: tuple[bytes, ...]


class AccountIs(Struct, frozen=True):
    """The public key of an account, with its origin, as it goes into a descriptor."""

    account: _Account


class ProofIs(Struct, frozen=True):
    """The proof of possession, 64 bytes."""

    proof: bytes


class Pinned(Struct, frozen=True):
    """The group of this frame is pinned, and on disk."""


class Failed(Struct, frozen=True):
    """What was wanted was not done. Before `Ready`: there will be no keyholder."""

    kind: _Name
    text: _Text


class PersonAsked(Struct, frozen=True):
    """A person must say yes to `digest` (`verbs.Asked` without its review)."""

    session: bytes
    digest: bytes
    replaces: frozenset[bytes] = frozenset()


class VerbRefused(Struct, frozen=True):
    """`verbs.Refused`; `verb` is its number in `REQUESTS`."""

    session: bytes
    verb: int
    kind: _Name
    text: _Text


Request: TypeAlias = Hello | AccountWanted | PinWanted | ProofWanted | Verb
Answer: TypeAlias = (
    Ready
    | AccountIs
    | Pinned
    | ProofIs
    | Failed
    | PersonAsked
    | VerbRefused
    | Approved
    | NoncesMade
    | PartialsMade
    | Wiped
    | StatusIs
    | AttemptLost
)

REQUESTS: Final[tuple[type[Any], ...]] = (
    Hello, AccountWanted, PinWanted, Approve, MakeNonces, MakePartials, Wipe, Status, ProofWanted
)  # fmt: skip
ANSWERS: Final[tuple[type[Any], ...]] = (
    Ready, AccountIs, Pinned, Failed, PersonAsked, VerbRefused, Approved, NoncesMade, PartialsMade, Wiped, StatusIs,
    AttemptLost, ProofIs,
)  # fmt: skip


def frame(message: Request | Answer, group: bytes = NO_GROUP) -> bytes:
    """Return a frame. Raises LocalError when it is too large for the other side to take."""
    kind = type(message)
    number = (REQUESTS if kind in REQUESTS else ANSWERS).index(kind)
    body = bytes((number,)) + group + _encode(message)
    if len(body) > limits.PIPE_FRAME_MAX_BYTES:
        raise LocalError("too large for the keyholder", expected=f"at most {limits.PIPE_FRAME_MAX_BYTES} bytes")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Frames:
    """Cuts what a pipe brings into the bodies of frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed_untrusted(self, data: bytes) -> list[bytes]:
        """Take bytes; return the bodies that are whole now. Raises SerializationError for one that is too large."""
        self._buffer += data
        bodies = []
        while len(self._buffer) >= _LENGTH_BYTES:
            size = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if size > limits.PIPE_FRAME_MAX_BYTES:
                raise SerializationError("a frame that is too large", got=size)
            if len(self._buffer) < _LENGTH_BYTES + size:
                break
            bodies.append(bytes(self._buffer[_LENGTH_BYTES : _LENGTH_BYTES + size]))
            del self._buffer[: _LENGTH_BYTES + size]
        return bodies


def read_request_untrusted(body: bytes) -> tuple[bytes, Request]:
    """Return group and request of a frame's body; every signed message in it was verified.

    Raises: SerializationError for no request; whatever `Message.verify` raises.
    """
    group, request = _read_untrusted(body, _REQUEST_DECODERS)
    return group, request


def read_answer_untrusted(body: bytes) -> tuple[bytes, Answer]:
    """Return group and answer of a frame's body. Raises SerializationError."""
    group, answer = _read_untrusted(body, _ANSWER_DECODERS)
    return group, answer


def failed(error: NetworkError) -> Failed:
    """Return an error as it crosses."""
    return Failed(*described(error))


def described(error: NetworkError) -> tuple[str, str]:
    """Return the kind of an error, by the name of the nearest one in `errors`, and its sentence."""
    kind = next(one.__name__ for one in type(error).__mro__ if one.__name__ in errors.__all__)
    return kind, str(error)[: limits.PIPE_TEXT_MAX_CHARS]


def error_of(kind: str, text: str) -> NetworkError:
    """Return the error that crossed; one of unknown kind is a LocalError."""
    found = getattr(errors, kind, None) if kind in errors.__all__ else None
    if not (isinstance(found, type) and issubclass(found, NetworkError)):
        found = LocalError
    return found(text)


def _read_untrusted(body: bytes, decoders: tuple[msgspec.msgpack.Decoder[Any], ...]) -> tuple[bytes, Any]:
    if len(body) < _HEAD_BYTES or body[0] >= len(decoders):
        raise SerializationError("not a frame of this pipe", got=body[:1].hex())
    try:
        return body[1:_HEAD_BYTES], decoders[body[0]].decode(body[_HEAD_BYTES:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SerializationError(f"not a frame of this pipe: {error}") from None


def _to_wire(value: object) -> bytes:
    if isinstance(value, VerifiedMessage):
        return value.to_bytes()
    raise NotImplementedError(type(value).__name__)


def _from_wire(kind: type[Any], data: Any) -> VerifiedMessage:
    if kind is not VerifiedMessage or not isinstance(data, bytes):
        raise SerializationError("not a signed message")
    return Message.from_bytes(data).verify()


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_to_wire).encode
_REQUEST_DECODERS: Final = tuple(msgspec.msgpack.Decoder(one, dec_hook=_from_wire) for one in REQUESTS)
_ANSWER_DECODERS: Final = tuple(msgspec.msgpack.Decoder(one, dec_hook=_from_wire) for one in ANSWERS)
