"""Who gets a slot, and who has to go when they are short: `Slots` with links that are only seats. See `test_lobby`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest

from musignet.errors import TransportError
from musignet.limits import WELCOME_S, Limits
from musignet.net.transport.slots import Slots, neighbourhood, prefix
from musignet.node.rates import Gauge, Rates, Standing

RATES = Rates(Limits())
_numbers = count(1)


@pytest.mark.parametrize(
    ("address", "near", "wide"),
    [
        ("192.0.2.7:1234", "c0000207/32", "c00002/24"),
        ("::ffff:192.0.2.7:1234", "c0000207/32", "c00002/24"),
        ("2001:db8:1:23ff:3:4:5:6:1234", "20010db8000123ff/64", "20010db8000123/56"),
        ("2001:db8:1:23ff::9:1234", "20010db8000123ff/64", "20010db8000123/56"),
        ("2001:db8::1:1234", "20010db800000000/64", "20010db8000000/56"),
        ("[2001:db8::2]:1234", "20010db800000000/64", "20010db8000000/56"),
        ("fe80::1%eth0:1234", "fe80000000000000/64", "fe800000000000/56"),
        ("here:1", "here", "here"),
    ],
)
def test_a_prefix_is_what_one_host_can_easily_have_many_of(address: str, near: str, wide: str) -> None:
    assert prefix(address) == near
    assert neighbourhood(address) == wide


@dataclass(eq=False)
class Chair:
    """A link that only takes a slot."""

    slots: Slots
    address: str = "192.0.2.1:1"
    outbound: bool = False
    since: float = 0.0
    key: bytes = b""
    gauge: Gauge | None = None
    evicted: list[TransportError] = field(default_factory=list)

    def evict(self, error: TransportError) -> None:
        self.evicted.append(error)
        self.slots.closed(self, shook_hands=True, now=self.since)


def half_open(slots: Slots, address: str, now: float) -> Chair:
    chair = Chair(slots, address, since=now)
    slots.opened(chair, now)
    return chair


def seated(slots: Slots, standing: Standing, *, score: float = 0.0, now: float = 0.0, key: bytes = b"") -> Chair:
    """Return an inbound link whose handshake is done and that was let in."""
    number = next(_numbers)
    chair = half_open(slots, f"10.{number >> 8 & 255}.{number & 255}.1:1", now)
    chair.key = key or number.to_bytes(33, "big")
    slots.promote(chair)
    chair.gauge = RATES.gauge(standing)
    chair.gauge.score = score
    slots.admit(chair, now)
    return chair


# --- half open --------------------------------------------------------------------------------------------------------


def test_when_half_open_slots_are_short_the_oldest_goes() -> None:
    slots = Slots(Limits(half_open_slots=2))
    old, younger = (half_open(slots, f"198.51.{n}.1:1", 0.1 * n) for n in (1, 2))
    half_open(slots, "203.0.113.1:1", 1.0)
    assert [bool(chair.evicted) for chair in (old, younger)] == [True, False]


def test_the_most_crowded_neighbourhood_goes_first() -> None:
    slots = Slots(Limits(half_open_slots=3))
    alone = half_open(slots, "192.0.2.1:1", 0.0)
    crowd = [half_open(slots, f"198.51.100.{n}:1", 0.1 * n) for n in (1, 2)]
    half_open(slots, "203.0.113.1:1", 1.0)
    assert not alone.evicted
    assert crowd[0].evicted


def test_for_want_of_something_else_a_half_open_link_goes_too() -> None:
    slots = Slots(Limits())
    assert not slots.make_room("of descriptors")
    chair = half_open(slots, "192.0.2.1:1", 0.0)
    assert slots.make_room("of descriptors")
    assert [str(why) for why in chair.evicted] == ["of descriptors"]
    assert not slots.make_room("of descriptors")


@pytest.mark.parametrize(("later_s", "spared"), [(WELCOME_S - 10, True), (WELCOME_S + 10, False)])
def test_where_a_cosigner_came_from_is_left_alone_for_a_day(later_s: float, spared: bool) -> None:
    slots = Slots(Limits(half_open_slots=2))
    cosigner = seated(slots, Standing.COSIGNER)
    source = cosigner.address.rpartition(":")[0]
    slots.closed(cosigner, shook_hands=True, now=0.0)
    theirs = half_open(slots, f"{source}:2", later_s)
    other = half_open(slots, "198.51.100.1:1", later_s + 1)
    half_open(slots, "203.0.113.1:1", later_s + 2)
    assert (bool(theirs.evicted), bool(other.evicted)) == (not spared, spared)


def test_of_one_prefix_few_are_half_open_and_their_slots_come_back() -> None:
    slots = Slots(Limits(half_open_per_prefix=2, prefix_burst_handshakes=100))
    chairs = [half_open(slots, "192.0.2.1:1", 0.0) for _ in range(2)]
    assert slots.why_not("192.0.2.1:9", 0.0) == "too many open handshakes from this address"
    assert slots.why_not("192.0.2.2:9", 0.0, waiting=1) == ""
    assert slots.why_not("192.0.2.2:9", 0.0, waiting=2) == "too many open handshakes from this address", "in the lobby"
    slots.closed(chairs[0], shook_hands=False, now=0.0)
    assert slots.why_not("192.0.2.1:9", 0.0) == ""
    slots.closed(chairs[1], shook_hands=True, now=0.0)
    assert (len(slots.inbound), len(slots.half_open), slots.prefixes) == (0, 0, 0)


# --- inbound ----------------------------------------------------------------------------------------------------------


def test_a_cosigner_takes_the_slot_of_the_stranger_with_the_worst_score() -> None:
    slots = Slots(Limits(inbound_slots=3))
    good, bad, fair = (seated(slots, Standing.STRANGER, score=score) for score in (5.0, -30.0, 0.0))
    seated(slots, Standing.COSIGNER)
    assert [bool(chair.evicted) for chair in (good, bad, fair)] == [False, True, False]
    assert str(bad.evicted[0]) == "every inbound slot is taken, and others are known better"


def test_a_stranger_does_not_push_out_one_that_is_as_good() -> None:
    slots = Slots(Limits(inbound_slots=1))
    first = seated(slots, Standing.STRANGER, now=1.0)
    second = seated(slots, Standing.STRANGER, now=2.0)
    assert (bool(first.evicted), bool(second.evicted)) == (False, True)


def test_a_cosigner_is_never_evicted_and_has_a_slot_of_its_own() -> None:
    slots = Slots(Limits(inbound_slots=2))
    cosigners = [seated(slots, Standing.COSIGNER, score=-100.0) for _ in range(5)]
    stranger = seated(slots, Standing.STRANGER, score=20.0)
    assert not any(chair.evicted for chair in cosigners)
    assert stranger.evicted
    assert len(slots.inbound) == 5


def test_half_open_links_do_not_count_as_inbound_ones() -> None:
    slots = Slots(Limits(inbound_slots=1))
    stranger = seated(slots, Standing.STRANGER)
    for number in range(4):
        half_open(slots, f"192.0.2.{number}:1", 0.0)
    assert not stranger.evicted


def test_one_key_has_few_links_the_oldest_goes_even_a_cosigners() -> None:
    slots = Slots(Limits(links_per_peer=2))
    first, second, third = (seated(slots, Standing.COSIGNER, key=b"k" * 33) for _ in range(3))
    assert [bool(chair.evicted) for chair in (first, second, third)] == [True, False, False]


# --- outbound ---------------------------------------------------------------------------------------------------------


def test_dials_to_strangers_are_bounded_and_a_cosigner_has_a_slot_of_its_own() -> None:
    slots = Slots(Limits(outbound_slots=2))
    for _ in range(2):
        slots.dial(Standing.STRANGER)
    with pytest.raises(TransportError, match="no free slot to dial: expected at most 2 outbound links"):
        slots.dial(Standing.STRANGER)
    slots.dial(Standing.COSIGNER)
    assert slots.outbound == 3
    for _ in range(3):
        slots.closed(Chair(slots, outbound=True), shook_hands=False, now=0.0)
    assert slots.outbound == 0
