"""The journal of a keyholder: what must survive a loss of power before anything that depends on it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from .. import limits
from ..errors import SerializationError
from ..wire.codec import Codec, Record
from ..wire.messages import BootEpoch, Millis
from .records import Attempt, Hash32

__all__ = ["ApprovalGiven", "ApprovalWiped", "NoncesLent", "NoncesOut", "PartialsOut", "SlotsBurned", "read", "write"]


class ApprovalGiven(Record, frozen=True):
    """We approve this proposal; its digest is what for."""

    session: Hash32
    digest: Hash32
    proposal: Annotated[bytes, Meta(max_length=limits.MESSAGE_MAX_BYTES)]
    """The signed message."""
    at_ms: Millis
    """When, by the keyholder's clock: what a policy allows for a day is counted from here."""


class NoncesOut(Record, frozen=True):
    """Nonces of this attempt may have left; they live in the memory of this boot epoch alone."""

    session: Hash32
    attempt: Attempt
    epoch: BootEpoch
    payload_hash: Hash32


class SlotsBurned(Record, frozen=True):
    """The secret nonces of this attempt are being used for this transcript: never again, whatever happens next."""

    session: Hash32
    attempt: Attempt
    epoch: BootEpoch
    transcript: Hash32


class PartialsOut(Record, frozen=True):
    """Partial signatures that may have left. A retry sends these bytes."""

    session: Hash32
    attempt: Attempt
    payload: Annotated[bytes, Meta(max_length=limits.PAYLOAD_MAX_BYTES)]


class ApprovalWiped(Record, frozen=True):
    """The approval is revoked."""

    session: Hash32


class NoncesLent(Record, frozen=True):
    """Public nonces that another signer gave us for this attempt. They are taken for no other attempt, ever."""

    session: Hash32
    attempt: Attempt
    epoch: BootEpoch
    nonces: Annotated[bytes, Meta(max_length=limits.PUBLIC_NONCE_BYTES * limits.SLOTS_MAX)]


Entry: TypeAlias = ApprovalGiven | NoncesOut | SlotsBurned | PartialsOut | ApprovalWiped | NoncesLent

_ENTRIES: Final[tuple[type[Record], ...]] = (
    ApprovalGiven,
    NoncesOut,
    SlotsBurned,
    PartialsOut,
    ApprovalWiped,
    NoncesLent,
)
_CODECS: Final[Mapping[int, Codec[Record]]] = {number: Codec[Record](one) for number, one in enumerate(_ENTRIES)}
_NUMBERS: Final[Mapping[type[Record], int]] = {one: number for number, one in enumerate(_ENTRIES)}


def write(entry: Entry) -> bytes:
    """Return the bytes of an entry: one for its kind, then its record."""
    number = _NUMBERS[type(entry)]
    return bytes((number,)) + _CODECS[number].check(entry)


def read(record: bytes) -> Entry:
    """Return the entry in a record. Raises SerializationError: a journal that cannot be read is no journal."""
    codec = _CODECS.get(record[0]) if record else None
    if codec is None:
        raise SerializationError("not a journal record", expected=f"a kind of 0 to {len(_ENTRIES) - 1}")
    entry = codec.decode_untrusted(record[1:])
    assert isinstance(entry, ApprovalGiven | NoncesOut | SlotsBurned | PartialsOut | ApprovalWiped | NoncesLent)
    return entry
