"""Strict msgpack: one encoding per value, and nothing else is accepted (THREATS.md T4).

msgpack by itself is not canonical: integers and lengths have longer forms that decode the same. What is decoded
here is encoded again and compared, so exactly one byte string means each value.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from ..errors import SerializationError

__all__ = ["Codec", "Record"]


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A fixed list of fields: encoded as one msgpack array without names, in the order of definition."""


RecordT = TypeVar("RecordT", bound=Record)

_encode = msgspec.msgpack.Encoder().encode


class Codec(Generic[RecordT]):
    """Encodes and decodes one kind of `Record`."""

    __slots__ = ("_decode", "_name")

    def __init__(self, record: type[RecordT]) -> None:
        self._name = record.__name__
        self._decode = msgspec.msgpack.Decoder(record, strict=True).decode

    def encode(self, record: RecordT) -> bytes:
        """Return the one encoding. Bounds are checked when decoding: `check` does both."""
        return _encode(record)

    def decode_untrusted(self, data: bytes) -> RecordT:
        """Return the record that `data` encodes.

        Raises: SerializationError for anything that is not exactly one canonical encoding within bounds.
        """
        try:
            record = self._decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SerializationError(f"not a {self._name}: {error}") from None
        if _encode(record) != data:
            raise SerializationError(f"not a {self._name}", expected="its shortest encoding", got="a longer one")
        return record

    def check(self, record: RecordT) -> bytes:
        """Return the encoding of a record made by our own caller, every bound checked.

        Raises: SerializationError naming the field and its bound.
        """
        try:
            encoded = _encode(record)
        except (OverflowError, TypeError, ValueError) as error:
            raise SerializationError(f"not a {self._name}: {error}") from None
        try:
            self._decode(encoded)  # our own encoder has one encoding for each value
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise SerializationError(f"not a {self._name}: {error}") from None
        return encoded
