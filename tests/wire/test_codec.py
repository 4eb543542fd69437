"""Invariant of the codec: any bytes are accepted or raise SerializationError, nothing else.

What is accepted encodes again to the same bytes, so every longer form of a number or a length is refused.
"""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from musignet.errors import SerializationError
from musignet.limits import SENT_AT_MAX_MS, SEQUENCE_MAX
from musignet.wire.codec import Codec, Record
from musignet.wire.envelope import Body, Message
from musignet.wire.messages import MessageType, payload_decode_untrusted
from support.keys import ALICE, BOB
from support.msgpack import Value, forms, shortest

BODIES = Codec(Body)

FIELDS = st.tuples(
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.sampled_from([ALICE.pubkey, BOB.pubkey]),
    st.binary(max_size=33),
    st.binary(max_size=32),
    st.binary(min_size=8, max_size=8),
    st.integers(0, SEQUENCE_MAX),
    st.integers(0, SENT_AT_MAX_MS),
    st.text(max_size=64),
    st.binary(max_size=300),
)


def _decoded(data: bytes) -> Body | None:
    """Return the body, or None when it was refused as it should be; anything else raised fails the test."""
    try:
        return BODIES.decode_untrusted(data)
    except SerializationError:
        return None


@given(st.binary(max_size=400))
def test_any_bytes_are_a_body_or_a_serialization_error(data: bytes) -> None:
    body = _decoded(data)
    assert body is None or BODIES.encode(body) == data


@given(FIELDS)
def test_a_valid_body_is_what_a_second_encoder_makes(fields: tuple[Value, ...]) -> None:
    data = shortest(list(fields))
    body = BODIES.decode_untrusted(data)
    assert tuple(getattr(body, name) for name in Body.__struct_fields__) == fields
    assert BODIES.encode(body) == BODIES.check(body) == data


@given(FIELDS, st.data())
def test_every_longer_form_of_one_field_is_refused(fields: tuple[Value, ...], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(fields) - 1))
    longer = [b"".join([*map(shortest, fields[:number]), form, *map(shortest, fields[number + 1 :])])
              for form in forms(fields[number])[1:]]  # fmt: skip
    for body in longer:
        assert _decoded(bytes((0x90 | len(fields),)) + body) is None


@given(FIELDS)
def test_every_longer_form_of_the_array_is_refused(fields: tuple[Value, ...]) -> None:
    short, *longer = forms(list(fields))
    assert _decoded(short) is not None
    assert len(longer) == 2
    for body in longer:
        assert _decoded(body) is None


@given(FIELDS, st.data())
def test_any_mutation_of_a_valid_body_is_a_body_or_a_serialization_error(
    fields: tuple[Value, ...], data: st.DataObject
) -> None:
    valid = shortest(list(fields))
    at = data.draw(st.integers(0, len(valid)))
    cut = data.draw(st.integers(0, 3))
    mutated = valid[:at] + data.draw(st.binary(max_size=6)) + valid[at + cut :]
    body = _decoded(mutated)
    assert body is None or BODIES.encode(body) == mutated


@given(FIELDS)
def test_every_truncation_and_every_trailing_byte_is_refused(fields: tuple[Value, ...]) -> None:
    valid = shortest(list(fields))
    for size in range(len(valid)):
        assert _decoded(valid[:size]) is None
    for trail in (b"\0", b"\xc0", valid):
        assert _decoded(valid + trail) is None


FINE: tuple[Value, ...] = (0, 0, 17, ALICE.pubkey, b"", b"", bytes(8), 0, 0, "alice", b"hi")
FLOAT, NIL, TRUE, TIMESTAMP = b"\xcb" + bytes(8), b"\xc0", b"\xc3", b"\xd6\xff" + bytes(4)
NAN = b"\xcb\x7f\xf8" + bytes(6)
DEEP = b"\x91" * 5000 + b"\xc0"
WRONG = {
    "nothing": b"",
    "nil": NIL,
    "a map": b"\x80",
    "an extension": TIMESTAMP,
    "an invalid marker": b"\xc1",
    "arrays 5,000 deep": DEEP,
    "an array that says 4 billion": b"\xdd\xff\xff\xff\xff",
    "a map of names": b"\x8b" + b"".join(shortest(name) + shortest(value) for name, value in zip(
        Body.__struct_fields__, FINE, strict=True)),
    "one field less": shortest(list(FINE[:-1])),
    "one field more": shortest([*FINE, 0]),
}  # fmt: skip


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_the_array_is_refused(data: bytes) -> None:
    with pytest.raises(SerializationError, match=r"^not a Body: "):
        BODIES.decode_untrusted(data)


@pytest.mark.parametrize("number", range(len(FINE)), ids=Body.__struct_fields__)
def test_a_field_of_another_kind_is_refused(number: int) -> None:
    right = shortest(FINE[number])
    others = [FLOAT, NAN, NIL, TRUE, TIMESTAMP, DEEP, b"\xff", *map(shortest, (0, "x", b"x" * 40, [], [b""]))]
    for wrong in others:
        if type(FINE[number]) is int and wrong == shortest(0):
            continue
        if isinstance(FINE[number], str) and wrong == shortest("x"):
            continue
        if Body.__struct_fields__[number] == "payload" and wrong == shortest(b"x" * 40):
            continue
        parts = [*map(shortest, FINE[:number]), wrong, *map(shortest, FINE[number + 1 :])]
        assert _decoded(b"\x9b" + b"".join(parts)) is None, (right, wrong[:9])


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_a_label_that_is_not_utf8_is_refused(text: bytes) -> None:
    head, tail = b"".join(map(shortest, FINE[:9])), shortest(FINE[10])
    assert _decoded(b"\x9b" + head + bytes((0xA0 | len(text),)) + text + tail) is None


OUT_OF_BOUNDS: dict[str, tuple[Value, ...]] = {
    "version": (256,),
    "chain": (256,),
    "type": (0x10000,),
    "sender_key": (b"", bytes(32), bytes(34)),
    "recipient": (bytes(34),),
    "session": (bytes(33),),
    "epoch": (b"", bytes(7), bytes(9)),
    "seq": (SEQUENCE_MAX + 1, 2**64 - 1),
    "sent_at_ms": (SENT_AT_MAX_MS + 1,),
    "label": ("x" * 65, "\U0001f511" * 65),
}


@pytest.mark.parametrize(("name", "values"), OUT_OF_BOUNDS.items(), ids=OUT_OF_BOUNDS.keys())
def test_a_field_out_of_bounds_is_refused_in_both_directions(name: str, values: tuple[Value, ...]) -> None:
    number = Body.__struct_fields__.index(name)
    for value in values:
        fields = [*FINE[:number], value, *FINE[number + 1 :]]
        assert _decoded(shortest(fields)) is None
        with pytest.raises(SerializationError, match=r"^not a Body: "):
            BODIES.check(Body(*fields))  # type: ignore[arg-type]


class Pair(Record, frozen=True):
    """A record with a number that msgspec cannot always encode."""

    number: Annotated[int, Meta(ge=0)]
    text: str


@pytest.mark.parametrize(
    "record",
    [Pair(2**64, "x"), Pair(-1, "x"), Pair(0, "\ud800"), Pair(0, object()), Pair(object(), "x")],  # type: ignore[arg-type]
)
def test_a_record_that_our_own_caller_made_badly_is_refused(record: Pair) -> None:
    with pytest.raises(SerializationError, match=r"^not a Pair: "):
        Codec(Pair).check(record)


def test_a_view_is_decoded_like_bytes() -> None:
    data = shortest(list(FINE))
    assert BODIES.decode_untrusted(memoryview(b"xx" + data)[2:]) == BODIES.decode_untrusted(data)


@given(st.binary(max_size=300), st.sampled_from(MessageType))
def test_any_payload_is_a_record_or_bytes_or_a_serialization_error(data: bytes, kind: MessageType) -> None:
    try:
        payload_decode_untrusted(kind, data)
    except SerializationError:
        pass


@given(st.binary(max_size=400))
def test_any_bytes_are_an_envelope_or_a_serialization_error(data: bytes) -> None:
    try:
        message = Message.from_bytes(data)
    except SerializationError:
        return
    assert message.to_bytes() == data
