"""Beacons: there and back, every change refused, and what a listener learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, SerializationError
from musignet.wire.beacon import Audience, Beacon, Datagram, Listening, announce, hour_of, seal
from support.keys import ALICE, BOB, CAROL

NOW = 1_800_000_000.0
HOUR = hour_of(NOW)
PAIR = Audience.pair(ALICE, BOB.public)
NONCE = bytes(range(12))


def beacon(identity: Identity = ALICE, **changes: Any) -> Beacon:
    return replace(Beacon(identity.pubkey, b"epoch123", 7, int(NOW * 1000), 8737), **changes)


def sealed(audience: Audience = PAIR, identity: Identity = ALICE, **changes: Any) -> bytes:
    return seal(beacon(identity, **changes), identity, Chain.REGTEST, audience, NONCE)


def opened(data: bytes, audience: Audience = PAIR, now: float = NOW) -> Beacon:
    datagram = Datagram.parse_untrusted(data)
    found = Listening([audience]).find(datagram.tag, now)
    if found is None:
        raise SerializationError("for somebody else")
    return datagram.unseal_untrusted(*found).verify()


def test_there_and_back() -> None:
    data = sealed()
    assert len(data) == 175
    assert Datagram.parse_untrusted(data).chain is Chain.REGTEST
    assert opened(data, Audience.pair(BOB, ALICE.public)) == beacon(), "both have the same secret"
    said = beacon(label="Alice's phone \N{SNOWMAN}")
    data = announce(said, ALICE, Chain.SIGNET)
    datagram = Datagram.parse_untrusted(data)
    assert (datagram.tag, datagram.chain) == (b"", Chain.SIGNET)
    assert datagram.read_untrusted().verify() == said


@pytest.mark.parametrize(
    "audience",
    [
        Audience.pair(ALICE, CAROL.public),
        Audience.group(b"tr(...)", [ALICE.pubkey, BOB.pubkey]),
        Audience.invite(bytes(16), ALICE.pubkey),
    ],
)
def test_one_audience_cannot_read_anothers(audience: Audience) -> None:
    assert opened(sealed(audience), audience) == beacon()
    with pytest.raises(SerializationError):
        opened(sealed(audience))
    assert str(audience).startswith("<Audience of "), "it prints no secret"


def test_audiences_of_other_secrets_differ() -> None:
    same = bytes(32)
    kinds = [Audience(same, ()), Audience.group(same, ()), Audience.invite(same, ALICE.pubkey), Audience.group(b"", ())]
    assert len({one.ring(HOUR).tag for one in kinds}) == len(kinds)


def test_a_member_cannot_pass_anothers_beacon_on() -> None:
    """Bob shares a secret with Alice and one with Carol: what Alice told him, Carol does not take for Alice's word."""
    both = [ALICE.pubkey, BOB.pubkey, CAROL.pubkey]
    first, second = Audience.group(b"first", both), Audience.group(b"second", both)
    data = sealed(first)
    tag, aead = first.ring(HOUR)
    text = aead.decrypt(NONCE, data[35:], data[:35])
    tag, aead = second.ring(HOUR)
    head = data[:7] + tag + NONCE
    moved = head + aead.encrypt(NONCE, text, head)
    with pytest.raises(AuthenticationError):
        opened(moved, second)
    tag, aead = first.ring(HOUR + 1)
    head = data[:7] + tag + NONCE
    with pytest.raises(AuthenticationError):
        opened(head + aead.encrypt(NONCE, text, head), first, NOW + 3600)


def test_whoever_is_no_member_is_not_believed() -> None:
    with pytest.raises(SerializationError):
        sealed(PAIR, CAROL)
    secret = bytes(32)
    with pytest.raises(SerializationError, match="somebody else"):
        opened(sealed(Audience(secret, [CAROL.pubkey]), CAROL), Audience(secret, [ALICE.pubkey]))


def test_a_member_cannot_speak_for_another() -> None:
    forged = seal(beacon(ALICE), BOB, Chain.REGTEST, PAIR, NONCE)
    with pytest.raises(AuthenticationError):
        opened(forged)
    with pytest.raises(AuthenticationError):
        Datagram.parse_untrusted(announce(beacon(label="a"), BOB, Chain.REGTEST)).read_untrusted().verify()


def test_every_change_is_refused() -> None:
    for data in (sealed(), announce(beacon(label="alice"), ALICE, Chain.REGTEST)):
        for at in range(len(data)):
            changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
            with pytest.raises((SerializationError, AuthenticationError)):
                taken(changed)
        for cut in range(len(data)):
            with pytest.raises((SerializationError, AuthenticationError)):
                taken(data[:cut])
        for junk in (b"\x00", bytes(512)):
            with pytest.raises((SerializationError, AuthenticationError)):
                taken(data + junk)


def taken(data: bytes) -> Beacon:
    """Take a datagram of either kind, on the test's network."""
    datagram = Datagram.parse_untrusted(data)
    if datagram.chain is not Chain.REGTEST:
        raise SerializationError("another network")
    return opened(data) if datagram.tag else datagram.read_untrusted().verify()


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda end: b"musB\x01" + end))
def test_any_bytes_are_a_beacon_or_refused(data: bytes) -> None:
    with pytest.raises((SerializationError, AuthenticationError)):
        taken(data)


def test_nothing_longer_than_512_bytes_is_looked_into() -> None:
    """U2."""
    said = announce(beacon(label="x"), ALICE, Chain.REGTEST)
    assert Datagram.parse_untrusted(said.ljust(512, b"\0")).tag == b""
    with pytest.raises(SerializationError):
        Datagram.parse_untrusted(said.ljust(513, b"\0"))


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 1023}, {"port": 65_536}, {"port": 0}, {"seq": -1}, {"seq": 2**64}, {"sent_at_ms": -1},
        {"sent_at_ms": 2**70},
    ],
)  # fmt: skip
def test_what_cannot_be_said(changes: dict[str, int]) -> None:
    with pytest.raises(SerializationError):
        beacon(**changes).encode()


@pytest.mark.parametrize(
    ("at", "value"), [(56, bytes(2)), (56, b"\x03\xff"), (58, b"\x00"), (58, b"\x02"), (48, b"\xff" * 8)]
)
def test_statements_out_of_bounds_are_refused_however_signed(at: int, value: bytes) -> None:
    whole = beacon().encode()
    text = whole[: at + 1] + value + whole[at + 1 + len(value) :]
    data = announce(beacon(label="a"), ALICE, Chain.REGTEST)
    with pytest.raises(SerializationError):
        Datagram.parse_untrusted(data[:7] + text + data[7 + 60 :]).read_untrusted()


@pytest.mark.parametrize("label", ["", "a\x1b[2J", "x" * 65, "\u202eevil", " a"])
def test_a_label_is_a_name(label: str) -> None:
    with pytest.raises(SerializationError):
        announce(beacon(label=label), ALICE, Chain.REGTEST)
    data = announce(beacon(label="y"), ALICE, Chain.REGTEST)
    with pytest.raises(SerializationError):
        Datagram.parse_untrusted(data[:67] + label.encode() + data[-64:]).read_untrusted()
    with pytest.raises(SerializationError):
        Datagram.parse_untrusted(data[:67] + b"\xff" + data[-64:]).read_untrusted()


def test_the_longest_label_fits() -> None:
    data = announce(beacon(label="\N{HEDGEHOG}" * limits.LABEL_MAX_CHARS), ALICE, Chain.REGTEST)
    assert len(data) <= limits.BEACON_MAX_BYTES
    assert taken(data).label == "\N{HEDGEHOG}" * limits.LABEL_MAX_CHARS


def test_tags_and_keys_change_with_the_hour() -> None:
    tags = {PAIR.ring(hour).tag for hour in range(HOUR, HOUR + 48)}
    assert len(tags) == 48
    assert PAIR.ring(HOUR) is PAIR.ring(HOUR)
    begin = HOUR * 3600.0
    for sent, now, heard in (
        (begin - 0.5, begin + 59, True),  # sent in the hour before
        (begin + 0.5, begin - 59, True),  # by a clock that is ahead
        (begin - 0.5, begin + 61, False),
        (begin + 0.5, begin - 61, False),
    ):
        data = sealed(sent_at_ms=int(sent * 1000))
        assert (Listening([PAIR]).find(Datagram.parse_untrusted(data).tag, now) is not None) is heard


def test_a_listener_learns_neither_keys_nor_names() -> None:
    """What a capture of an hour's beacons shows: one tag, and bytes that look random. Nobody's key, x-only or whole."""
    datagrams = [
        seal(beacon(seq=n, sent_at_ms=int(NOW * 1000) + n), ALICE, Chain.REGTEST, PAIR, n.to_bytes(12, "big"))
        for n in range(200)
    ]
    assert {data[:23] for data in datagrams} == {b"musB\x01\x00" + bytes((Chain.REGTEST,)) + PAIR.ring(HOUR).tag}
    for data in datagrams:
        for one in (ALICE, BOB):
            assert one.pubkey[1:9] not in data
            assert one.pubkey_hex[2:18].encode() not in data
        assert b"alice" not in data.lower()
        assert (8737).to_bytes(2, "big") + b"\x01" not in data[35:39]
    assert len({data[35:] for data in datagrams}) == len(datagrams)
    ones = sum(byte.bit_count() for data in datagrams for byte in data[35:])
    assert abs(ones / (200 * 140 * 8) - 0.5) < 0.01
