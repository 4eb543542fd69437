"""Types, priorities, caps and the typed payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.errors import SerializationError
from musignet.wire import messages
from musignet.wire.codec import Record
from musignet.wire.messages import (
    Abort,
    Ack,
    Discovery,
    Error,
    GroupRelays,
    MessageType,
    PairConfirm,
    PairEnd,
    PairHello,
    PeerAnnouncement,
    Ping,
    Pong,
    Priority,
    payload_cap_bytes,
    payload_decode_untrusted,
    payload_encode,
)

EPOCH = bytes(range(8))
RECORDS: dict[MessageType, Record] = {
    MessageType.PEER_ANNOUNCEMENT: PeerAnnouncement("alice", ("tcp://192.0.2.1:8001",), (1, 3), EPOCH, b"", 0),
    MessageType.DISCOVERY: Discovery(bytes(16), 8001),
    MessageType.PING: Ping(7),
    MessageType.PONG: Pong(7),
    MessageType.ERROR: Error(3, "no", b""),
    MessageType.ABORT: Abort(1, "changed my mind"),
    MessageType.ACK: Ack((bytes(16), b"\1" * 16)),
    MessageType.PAIR_HELLO: PairHello(bytes(32), "bob", ("192.0.2.1:8001",)),
    MessageType.PAIR_CONFIRM: PairConfirm(bytes(32)),
    MessageType.PAIR_END: PairEnd(1, "no"),
    MessageType.GROUP_RELAYS: GroupRelays(bytes(32), ("wss://relay.example",)),
}
OPAQUE = sorted(set(MessageType) - set(RECORDS))

ANY_TEXT = st.text(max_size=64)
VALID = {
    MessageType.PEER_ANNOUNCEMENT: st.builds(
        PeerAnnouncement,
        ANY_TEXT,
        st.lists(st.text(max_size=128), max_size=8).map(tuple),
        st.lists(st.integers(0, 0xFFFF), max_size=32).map(tuple),
        st.binary(min_size=8, max_size=8),
        st.binary(max_size=8),
        st.integers(0, limits.SEQUENCE_MAX),
        st.integers(0, limits.SEQUENCE_MAX),
    ),
    MessageType.DISCOVERY: st.builds(Discovery, st.binary(min_size=16, max_size=16), st.integers(1024, 65535)),
    MessageType.PING: st.builds(Ping, st.integers(0, limits.SEQUENCE_MAX)),
    MessageType.PONG: st.builds(Pong, st.integers(0, limits.SEQUENCE_MAX)),
    MessageType.ERROR: st.builds(Error, st.integers(0, 0xFFFF), st.text(max_size=99), st.binary(max_size=32)),
    MessageType.ABORT: st.builds(Abort, st.integers(0, 0xFFFF), st.text(max_size=99)),
    MessageType.ACK: st.builds(Ack, st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=127).map(tuple)),
    MessageType.PAIR_HELLO: st.builds(
        PairHello, st.binary(min_size=32, max_size=32), ANY_TEXT, st.lists(ANY_TEXT, max_size=8).map(tuple)
    ),
    MessageType.PAIR_CONFIRM: st.builds(PairConfirm, st.binary(min_size=32, max_size=32)),
    MessageType.PAIR_END: st.builds(PairEnd, st.integers(0, 0xFFFF), ANY_TEXT),
    MessageType.GROUP_RELAYS: st.builds(
        GroupRelays, st.binary(min_size=32, max_size=32), st.lists(ANY_TEXT, max_size=3).map(tuple)
    ),
}


def test_the_types_of_the_specification_are_there_and_none_changed_its_number() -> None:
    assert {kind.name: int(kind) for kind in MessageType} == {
        "DISCOVERY": 1, "PEER_ANNOUNCEMENT": 2, "TRANSACTION_PROPOSAL": 4, "PUBLIC_NONCE": 6, "PARTIAL_SIGNATURE": 8,
        "TRANSACTION_COMPLETE": 10, "PING": 12, "PONG": 14, "ERROR": 16, "CHAT": 17, "ABORT": 18, "ACK": 19,
        "APPROVAL": 20, "ATTEMPT_GONE": 22, "NONCE_LIST": 24, "BLAME": 26,
        "ATTEMPT_FAILED": 28, "ATTEMPT_BEGIN": 30, "AGGREGATE_NONCE": 32, "AGGREGATE_SHOWN": 34, "LIST_WANTED": 36,
        "ANNOUNCEMENT_SHOWN": 38,
        "PAIR_HELLO": 40, "PAIR_CONFIRM": 42, "PAIR_END": 44,
        "FOUNDING_PROPOSAL": 46, "FOUNDING_KEY": 48, "FOUNDING_VIEW": 50, "FOUNDING_END": 52, "HOLE": 61,
        "GROUP_RELAYS": 63,
    }  # fmt: skip


def test_what_signing_waits_for_goes_first() -> None:
    by_priority = {priority: {kind for kind in MessageType if Priority.of(kind) is priority} for priority in Priority}
    assert by_priority[Priority.ROUND_2] == {
        MessageType.PEER_ANNOUNCEMENT,  # the first message on a link: nothing may overtake it
        MessageType.PARTIAL_SIGNATURE,
        MessageType.TRANSACTION_COMPLETE,
    }
    assert by_priority[Priority.ROUND_1] == {
        MessageType.PUBLIC_NONCE,
        MessageType.ATTEMPT_BEGIN,
        MessageType.AGGREGATE_NONCE,
    }
    assert by_priority[Priority.BULK] == {
        MessageType.DISCOVERY,
        MessageType.TRANSACTION_PROPOSAL,
        MessageType.CHAT,
        MessageType.NONCE_LIST,
        MessageType.AGGREGATE_SHOWN,
        MessageType.LIST_WANTED,
        MessageType.BLAME,
    }
    assert Priority.of(999) is Priority.BULK
    assert list(map(int, Priority)) == list(range(limits.PRIORITIES))


@pytest.mark.parametrize("kind", MessageType)
def test_every_cap_leaves_room_for_the_header(kind: MessageType) -> None:
    assert 0 < payload_cap_bytes(kind) <= limits.MESSAGE_MAX_BYTES - limits.HEADER_MAX_BYTES


def test_an_unknown_type_has_the_largest_cap() -> None:
    assert payload_cap_bytes(999) == limits.PAYLOAD_MAX_BYTES


@pytest.mark.parametrize("kind", RECORDS)
def test_a_typed_payload_comes_back_as_its_record(kind: MessageType) -> None:
    encoded = payload_encode(kind, RECORDS[kind])
    assert payload_decode_untrusted(kind, encoded) == RECORDS[kind]
    for size in range(len(encoded)):
        with pytest.raises(SerializationError):
            payload_decode_untrusted(kind, encoded[:size])
    with pytest.raises(SerializationError):
        payload_decode_untrusted(kind, encoded + b"\0")


@given(st.data())
def test_every_record_within_bounds_comes_back(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(VALID)))
    record = data.draw(VALID[kind])
    encoded = payload_encode(kind, record)
    assert payload_decode_untrusted(kind, encoded) == record
    assert len(encoded) <= payload_cap_bytes(kind) or kind is MessageType.PEER_ANNOUNCEMENT


@pytest.mark.parametrize("kind", RECORDS)
def test_another_types_record_is_refused(kind: MessageType) -> None:
    name = type(RECORDS[kind]).__name__
    for other, record in RECORDS.items():
        if other is not kind:
            with pytest.raises(
                SerializationError, match=f"^wrong payload: expected {name}, got {type(record).__name__}"
            ):
                payload_encode(kind, record)


@pytest.mark.parametrize("kind", [*OPAQUE, 999])
def test_a_type_without_a_record_carries_bytes(kind: int) -> None:
    assert payload_decode_untrusted(kind, b"\xff any") == b"\xff any"
    with pytest.raises(SerializationError, match=r"^wrong payload: expected bytes, got Ping"):
        payload_encode(kind, Ping(1))


TOO_MUCH: list[tuple[MessageType, Record]] = [
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("x" * 65, (), (), EPOCH, b"", 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", ("x",) * 9, (), EPOCH, b"", 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", ("x" * 129,), (), EPOCH, b"", 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", (), (1,) * 33, EPOCH, b"", 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", (), (0x10000,), EPOCH, b"", 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", (), (), EPOCH[1:], b"", 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", (), (), EPOCH, bytes(9), 0)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", (), (), EPOCH, b"", -1)),
    (MessageType.PEER_ANNOUNCEMENT, PeerAnnouncement("", (), (), EPOCH, b"", 0, -1)),
    (MessageType.DISCOVERY, Discovery(bytes(15), 8001)),
    (MessageType.DISCOVERY, Discovery(bytes(16), 1023)),
    (MessageType.DISCOVERY, Discovery(bytes(16), 65_536)),
    (MessageType.PING, Ping(-1)),
    (MessageType.PONG, Pong(2**63)),
    (MessageType.ERROR, Error(0x10000, "", b"")),
    (MessageType.ERROR, Error(0, "x" * 1025, b"")),
    (MessageType.ERROR, Error(0, "", bytes(33))),
    (MessageType.ABORT, Abort(-1, "")),
    (MessageType.ACK, Ack(())),
    (MessageType.ACK, Ack((bytes(15),))),
    (MessageType.ACK, Ack((bytes(16),) * 128)),
    (MessageType.PAIR_HELLO, PairHello(bytes(31), "", ())),
    (MessageType.PAIR_HELLO, PairHello(bytes(32), "x" * 65, ())),
    (MessageType.PAIR_HELLO, PairHello(bytes(32), "", ("x",) * 9)),
    (MessageType.PAIR_CONFIRM, PairConfirm(bytes(33))),
    (MessageType.PAIR_END, PairEnd(0x10000, "")),
]


@pytest.mark.parametrize(("kind", "record"), TOO_MUCH, ids=[f"{kind.name} {n}" for n, (kind, _) in enumerate(TOO_MUCH)])
def test_a_field_out_of_bounds_is_refused(kind: MessageType, record: Record) -> None:
    with pytest.raises(SerializationError, match=f"^not a {type(record).__name__}: .*`"):
        payload_encode(kind, record)


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(messages, name) for name in messages.__all__)
