"""Offers and answers: one encoding, bounded, and no candidate that would aim datagrams at somebody's private place."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.errors import SerializationError
from musignet.limits import CONTROL_PAYLOAD_MAX_BYTES, ICE_CANDIDATES_MAX, ICE_PER_HOST_MAX
from musignet.wire.candidates import Candidate, Kind, Network, Role, Signal, reason_against, screen

HOME: list[Network] = [ip_network("192.168.7.0/24"), ip_network("fd00:7::/64")]
FIELDS: dict[str, Any] = {
    "role": Role.OFFER,
    "attempt": bytes(16),
    "name": "abcd",
    "password": "p" * 22,
    "candidates": (Candidate.of(Kind.HOST, "192.168.7.2", 40_000), Candidate.of(Kind.SRFLX, "2600::1", 1024)),
}


def signal(**changed: Any) -> Signal:
    return Signal(**{**FIELDS, **changed})


def test_an_offer_comes_back_as_it_went() -> None:
    assert Signal.parse_untrusted(signal().encode()) == signal()
    refusal = signal(role=Role.ANSWER, candidates=())
    assert Signal.parse_untrusted(refusal.encode()) == refusal


def test_the_largest_offer_fits_into_a_control_message() -> None:
    candidates = tuple(Candidate.of(Kind.RELAY, f"2600::{n:x}", 65_535) for n in range(ICE_CANDIDATES_MAX))
    assert len(signal(name="n" * 32, password="p" * 64, candidates=candidates).encode()) < CONTROL_PAYLOAD_MAX_BYTES


BAD: dict[str, dict[str, Any]] = {
    "17 candidates": {"candidates": (Candidate.of(Kind.HOST, "192.168.7.2", 40_000),) * (ICE_CANDIDATES_MAX + 1)},
    "a privileged port": {"candidates": (Candidate(Kind.HOST, b"\1\2\3\4", 1023),)},
    "port 0": {"candidates": (Candidate(Kind.HOST, b"\1\2\3\4", 0),)},
    "port 65536": {"candidates": (Candidate(Kind.HOST, b"\1\2\3\4", 65_536),)},
    "an address of 5 bytes": {"candidates": (Candidate(Kind.HOST, b"\1\2\3\4\5", 2000),)},
    "an address of 17 bytes": {"candidates": (Candidate(Kind.HOST, bytes(17), 2000),)},
    "a kind that is none": {"candidates": ([3, b"\1\2\3\4", 2000],)},
    "a name instead of an address": {"candidates": ([0, "printer.local", 2000],)},
    "a third role": {"role": 2},
    "a short attempt": {"attempt": bytes(15)},
    "a name with a line break": {"name": "abcd\n"},
    "a name with a colon": {"name": "ab:cd"},
    "a short name": {"name": "abc"},
    "a long name": {"name": "n" * 33},
    "a short password": {"password": "p" * 21},
    "a long password": {"password": "p" * 65},
}


@pytest.mark.parametrize("changed", BAD.values(), ids=BAD.keys())
def test_what_is_out_of_bounds_is_refused(changed: dict[str, Any]) -> None:
    data = msgspec.msgpack.encode(list({**FIELDS, **changed}.values()))
    with pytest.raises(SerializationError):
        Signal.parse_untrusted(data)


def test_a_longer_encoding_of_the_same_is_refused() -> None:
    data = signal().encode()
    assert data[0] == 0x95
    for longer in (b"\xdc\x00\x05" + data[1:], data + b"\0", data[:-1]):
        with pytest.raises(SerializationError):
            Signal.parse_untrusted(longer)


@given(st.binary(max_size=300))
def test_whatever_arrives_is_parsed_or_refused(data: bytes) -> None:
    try:
        parsed = Signal.parse_untrusted(data)
    except SerializationError:
        return
    assert parsed.encode() == data


@dataclass(frozen=True)
class Case:
    host: str
    why: str
    """A part of the reason; empty where the candidate is checked."""


CASES = [
    Case("192.168.7.9", ""),
    Case("fd00:7::9", ""),
    Case("8.8.8.8", ""),
    Case("2600::1", ""),
    Case("192.168.8.9", "private network that is not ours"),
    Case("10.0.0.1", "private network that is not ours"),
    Case("172.16.0.1", "private network that is not ours"),
    Case("100.64.0.1", "private network that is not ours"),
    Case("169.254.1.1", "private network that is not ours"),
    Case("fe80::1", "private network that is not ours"),
    Case("fd00:8::1", "private network that is not ours"),
    Case("203.0.113.5", "private network that is not ours"),
    Case("240.0.0.1", "private network that is not ours"),
    Case("127.0.0.1", "this machine"),
    Case("127.9.9.9", "this machine"),
    Case("::1", "this machine"),
    Case("0.0.0.0", "many machines or none"),
    Case("::", "many machines or none"),
    Case("255.255.255.255", "many machines or none"),
    Case("224.0.0.251", "many machines or none"),
    Case("239.1.2.3", "many machines or none"),
    Case("ff02::1", "many machines or none"),
    Case("192.168.7.255", "many machines or none"),
    Case("192.168.7.0", "many machines or none"),
    Case("::ffff:192.168.8.1", "stands for an IPv4 address"),
    Case("::ffff:8.8.8.8", "stands for an IPv4 address"),
    Case("64:ff9b::a00:1", "stands for an IPv4 address"),
    Case("2002:a00:1::1", "stands for an IPv4 address"),
    Case("2001:0:a00:1::1", "stands for an IPv4 address"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.host)
def test_where_no_datagram_goes(case: Case) -> None:
    for kind in Kind:
        why = reason_against(Candidate.of(kind, case.host, 2000), HOME)
        assert bool(why) == bool(case.why)
        assert case.why in why
    assert bool(screen([Candidate.of(Kind.HOST, case.host, 2000)], HOME)) == (not case.why)


def test_one_machine_is_named_a_few_times_at_most_and_each_address_once() -> None:
    many = [Candidate.of(Kind.SRFLX, "8.8.8.8", 2000 + n) for n in range(10)]
    other = Candidate.of(Kind.RELAY, "8.8.4.4", 2000)
    assert screen([*many, *many, other, other], HOME) == (*many[:ICE_PER_HOST_MAX], other)


@given(st.lists(st.builds(
    Candidate, st.sampled_from(Kind), st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
    st.integers(1024, 65_535),
), max_size=ICE_CANDIDATES_MAX))  # fmt: skip
def test_whatever_is_kept_is_public_or_in_a_network_of_ours(candidates: list[Candidate]) -> None:
    for kept in screen(candidates, HOME):
        where = ip_address(kept.host)
        assert where.is_global or any(where in network for network in HOME)
        assert not where.is_multicast
        assert not where.is_loopback
