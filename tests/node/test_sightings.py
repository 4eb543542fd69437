"""Sightings: what is believed, what it costs, and who is dialled (THREATS.md U1 to U5)."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet import limits
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.node.sightings import Mark, Sighting, Sightings, Unheard
from musignet.wire.beacon import Audience, Beacon, announce, seal
from support.keys import ALICE, BOB, CAROL

NOW = 1_800_000_000.0
PAIR = Audience.pair(ALICE, BOB.public)
LAN = (ip_network("192.0.2.0/24"), ip_network("fe80::/64"))
HOME = "192.0.2.7"


def table(*audiences: Audience, own: Identity = BOB) -> Sightings:
    made = Sightings(own.pubkey, Chain.REGTEST)
    made.listen(audiences or [PAIR])
    made.reach(LAN)
    return made


def said(identity: Identity = ALICE, at: float = NOW, **changes: Any) -> Beacon:
    return replace(Beacon(identity.pubkey, b"epoch123", int(at * 1000), int(at * 1000), 8737), **changes)


def sealed(identity: Identity = ALICE, at: float = NOW, audience: Audience = PAIR, **changes: Any) -> bytes:
    return seal(said(identity, at, **changes), identity, Chain.REGTEST, audience, bytes(12))


def opened(identity: Identity, at: float = NOW, label: str = "x", **changes: Any) -> bytes:
    return announce(said(identity, at, label=label, **changes), identity, Chain.REGTEST)


def stranger(number: int) -> Identity:
    return Identity.from_secret(sha256(f"stranger {number}".encode()).digest())


def hear(seen: Sightings, data: bytes, source: str = HOME, way: str = "broadcast", now: float = NOW) -> Any:
    return seen.heard(data, source, way, now)


def test_a_beacon_is_seen_and_dialled_at_its_source() -> None:
    seen = table()
    found = hear(seen, sealed())
    assert isinstance(found, Sighting)
    assert (found.host, found.member, found.ways, found.first_at) == (HOME, True, {"broadcast"}, NOW)
    assert seen.may_dial(found, NOW)
    assert found.beacon.port == 8737
    assert hear(seen, sealed(), "fe80::1%eth0", "multicast6") is Unheard.REPLAY
    assert seen.get(ALICE.pubkey, NOW) is found
    assert found.came
    assert (found.ways, found.host) == ({"broadcast", "multicast6"}, HOME), "a copy by another way"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", Unheard.FORM),
        (b"junk" * 50, Unheard.FORM),
        (sealed()[:-1], Unheard.FORM),
        (seal(said(), ALICE, Chain.MAINNET, PAIR, bytes(12)), Unheard.FORM),
        (sealed(audience=Audience.pair(ALICE, CAROL.public)), Unheard.TAG),
        (sealed()[:-1] + b"\x00", Unheard.SEALED),
        (sealed(BOB), Unheard.OURS),
        (sealed(at=NOW - 60.01), Unheard.AGE),
        (sealed(at=NOW + 60.01), Unheard.AGE),
        (seal(said(ALICE), BOB, Chain.REGTEST, PAIR, bytes(12)), Unheard.FORGED),
        (opened(CAROL), Unheard.OPEN),
    ],
    ids=lambda value: value.name if isinstance(value, Unheard) else "",
)  # fmt: skip
def test_what_comes_to_nothing(data: bytes, why: Unheard) -> None:
    seen = table()
    assert hear(seen, data) is why
    assert seen.unheard == {why: 1}
    assert seen.seen(NOW) == []
    assert seen.verified == (why is Unheard.FORGED), "only this one costs a verification"


@pytest.mark.parametrize("at", [NOW - 60, NOW + 60])
def test_a_minute_of_clock_is_forgiven(at: float) -> None:
    assert isinstance(hear(table(), sealed(at=at)), Sighting)


@pytest.mark.parametrize("source", ["198.51.100.1", "8.8.8.8", "2001:db8::1", "fe80:1::1", "", "host", "192.0.2.7:80"])
def test_whoever_is_not_on_our_networks_is_not_dialled(source: str) -> None:
    seen = table()
    assert hear(seen, sealed(), source) is Unheard.SOURCE
    assert isinstance(hear(seen, sealed(), "fe80::5%eth0"), Sighting), "it was not used up by that"


def test_a_thousand_spoofed_announcements_dial_nobody() -> None:
    """Each from another address of the LAN: forged, replayed, of strangers. U1."""
    seen, dials = table(), []
    seen.look(NOW + 60)
    first = hear(seen, sealed())
    assert seen.may_dial(first, NOW)
    tag = sealed()[:23]
    for n in range(1000):
        source, kind = f"192.0.2.{n % 250 + 1}", n % 5
        if kind == 0:
            found = hear(seen, sealed(), source)  # captured, sent again from a victim's address
        elif kind == 1:
            found = hear(seen, tag + n.to_bytes(12, "big") + bytes(140), source)  # the tag was overheard
        elif kind == 2:
            found = hear(seen, seal(said(ALICE, NOW + n), BOB, Chain.REGTEST, PAIR, bytes(12)), source)
        elif kind == 3:
            found = hear(seen, sealed(CAROL, audience=Audience(bytes(32), [CAROL.pubkey])), source)
        else:
            found = hear(seen, opened(stranger(n)), source)  # valid: it may be shown, but it is no member
        if isinstance(found, Sighting) and found.member:
            dials.append(seen.may_dial(found, NOW))
    assert dials == []
    assert seen.get(ALICE.pubkey, NOW).host == HOME  # type: ignore[union-attr]


def test_even_a_member_causes_one_dial_in_30_seconds() -> None:
    seen, dials = table(), 0
    for n in range(600):  # a minute of beacons, each from another address
        found = hear(seen, sealed(at=NOW + n / 10), f"192.0.2.{n % 250 + 1}", now=NOW + n / 10)
        assert isinstance(found, Sighting)
        dials += seen.may_dial(found, NOW + n / 10)
    assert dials == 2


def test_a_flood_costs_a_bounded_number_of_verifications() -> None:
    """50,000 datagrams in one second, from 500 addresses, half of them by a member who can sign. U4."""
    group = [stranger(n) for n in range(20)]
    audience = Audience.group(b"many", [one.pubkey for one in group])
    seen = table(audience)
    seen.look(NOW + 60)
    seen.reach([ip_network("10.0.0.0/8")])
    good = [sealed(one, NOW + k / 1000, audience) for one in group for k in range(50)]
    bad = [one[:-1] + bytes((one[-1] ^ 1,)) for one in good]
    noise = [bytes(175), b"musB\x01\x00\x03" + bytes(168), sealed(), opened(stranger(99))]
    for n in range(50_000):
        pool = (good, bad, noise, good)[n % 4]
        hear(seen, pool[n // 4 % len(pool)], f"10.0.{n % 500 // 250}.{n % 250}", now=NOW + n / 50_000)
    assert seen.verified <= 2 * (limits.BEACON_VERIFICATIONS_S + limits.OPEN_VERIFICATIONS_S)
    assert len(seen._sources) <= limits.BEACON_SOURCES_MAX
    assert len(seen.seen(NOW + 1)) <= limits.SIGHTINGS_MAX


def test_one_address_is_heard_20_times_a_second() -> None:
    group = [stranger(n) for n in range(30)]
    audience = Audience.group(b"many", [one.pubkey for one in group])
    seen = table(audience)
    answers = [hear(seen, sealed(one, audience=audience)) for one in group]
    assert [isinstance(one, Sighting) for one in answers] == [True] * 20 + [False] * 10
    assert seen.unheard == {Unheard.OFTEN: 10}
    assert isinstance(hear(seen, sealed(group[-1], audience=audience), "192.0.2.9"), Sighting), "another one is"
    assert isinstance(hear(seen, sealed(group[-2], audience=audience), now=NOW + 0.06), Sighting), "and so it is again"
    assert hear(seen, sealed(group[-3], audience=audience), now=NOW - 5) is Unheard.OFTEN, "a clock back gives nothing"


def test_all_together_are_verified_200_times_a_second() -> None:
    bad = [seal(said(ALICE, NOW + n / 1000), BOB, Chain.REGTEST, PAIR, bytes(12)) for n in range(250)]
    seen = table()
    for n, data in enumerate(bad):
        hear(seen, data, f"192.0.2.{n + 1}")
    assert seen.unheard == {Unheard.FORGED: 200, Unheard.BUSY: 50}
    assert seen.verified == 200


def test_strangers_do_not_use_up_what_members_need() -> None:
    seen = table()
    seen.look(NOW + 1)
    for n in range(300):
        hear(seen, opened(stranger(n)), f"192.0.2.{n % 200 + 1}")
    assert seen.verified == 20
    assert isinstance(hear(seen, sealed(), "192.0.2.250"), Sighting)


def test_open_beacons_are_seen_while_a_person_looks() -> None:
    seen = table()
    seen.look(NOW + 10)
    found = hear(seen, opened(CAROL, label="carol"))
    assert (found.label, found.member) == ("carol", False)
    assert hear(seen, opened(CAROL, NOW + 10), now=NOW + 10) is Unheard.OPEN
    seen.look(NOW + 40)
    assert isinstance(hear(seen, opened(ALICE, label="alice")), Sighting)
    found = hear(seen, sealed(at=NOW + 1))
    assert (found.label, found.member) == ("alice", True), "a member that announces itself stays a member"
    assert hear(seen, opened(ALICE, NOW + 2, label="alice")).member
    assert [one.label for one in seen.seen(NOW)] == ["alice", "carol"], "members first"
    assert hear(seen, b"musB\x01\x01\x03" + bytes(132)) is Unheard.FORM, "no label"


def test_the_table_forgets_strangers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGHTINGS_MAX", 4)
    monkeypatch.setattr(limits, "OPEN_VERIFICATIONS_S", 1000.0)
    seen = table()
    seen.look(NOW + 999)
    hear(seen, sealed())
    for n in range(10):
        hear(seen, opened(stranger(n), NOW + n), f"192.0.2.{n + 1}", now=NOW + n)
    assert [one.beacon.key for one in seen.seen(NOW + 9)] == [ALICE.pubkey, *(stranger(n).pubkey for n in (7, 8, 9))]


def test_a_sighting_ends() -> None:
    seen = table()
    hear(seen, sealed())
    assert seen.get(ALICE.pubkey, NOW + 180) is not None
    assert seen.get(ALICE.pubkey, NOW + 180.1) is None
    assert hear(seen, sealed(), now=NOW + 181) is Unheard.AGE, "what is forgotten is too old by then"


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    seen, back = table(), NOW - 3600
    assert seen.may_dial(hear(seen, sealed()), NOW)
    again = hear(seen, sealed(at=back, epoch=b"restarts"), now=back)
    assert isinstance(again, Sighting), "what was seen in the future is forgotten"
    assert seen.may_dial(again, back)
    for n in range(30):
        hear(seen, sealed(at=back, seq=n), "192.0.2.8", now=back)
    seen.unheard.clear()
    hear(seen, sealed(at=back - 3600), "192.0.2.8", now=back - 3600)
    hear(seen, sealed(at=back - 3599), "192.0.2.8", now=back - 3599)
    assert seen.unheard == {Unheard.OFTEN: 1}, "a second later it is heard again"


def test_a_node_that_moves() -> None:
    seen = table()
    first = hear(seen, sealed())
    seen.may_dial(first, NOW)
    moved = hear(seen, sealed(at=NOW + 5), "192.0.2.99", "multicast", NOW + 5)
    assert (moved.host, moved.ways, moved.first_at, moved.last_at) == ("192.0.2.99", {"multicast"}, NOW, NOW + 5)
    assert not seen.may_dial(moved, NOW + 5)
    assert not moved.came
    assert hear(seen, sealed(at=NOW + 6, epoch=b"restarts"), now=NOW + 6).came
    moved = hear(seen, sealed(at=NOW + 7, epoch=b"restarts"), "192.0.2.99", now=NOW + 7)
    assert seen.may_dial(moved, NOW + 30)
    assert moved.host == "192.0.2.99"


def test_what_was_heard_before_a_restart_is_not_heard_again() -> None:
    """Whoever recorded a beacon cannot make a restarted node dial with it. U3."""
    before, captured = table(), sealed(at=NOW + 1)
    assert isinstance(hear(before, captured), Sighting)
    after = Sightings(BOB.pubkey, Chain.REGTEST, before.marks)
    after.listen([PAIR])
    after.reach(LAN)
    assert hear(after, captured, "192.0.2.66") is Unheard.REPLAY
    assert hear(after, sealed(at=NOW + 0.9), "192.0.2.66") is Unheard.REPLAY, "an older one of the same start"
    assert hear(after, sealed(at=NOW + 0.9, epoch=b"restarts"), "192.0.2.66") is Unheard.REPLAY, "or of another"
    assert isinstance(hear(after, sealed(at=NOW + 2)), Sighting)
    assert hear(before, captured, now=NOW + 200) is Unheard.AGE
    before.forget(NOW + 200)
    assert before.marks == {}, "too old by itself"


def test_a_member_that_left_the_table_is_still_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGHTINGS_MAX", 3)
    group = [stranger(n) for n in range(5)]
    audience = Audience.group(b"many", [one.pubkey for one in group])
    seen = table(audience)
    for n, one in enumerate(group):
        assert isinstance(hear(seen, sealed(one, NOW + n, audience)), Sighting)
    assert list(seen.marks.values()) == [
        Mark(b"epoch123", int(at), int(at)) for at in (1000 * (NOW + n) for n in (2, 3, 4))
    ]
    del seen._by_key[group[4].pubkey]
    assert hear(seen, sealed(group[4], NOW + 4, audience)) is Unheard.REPLAY


def test_a_guest_is_seen_and_is_no_member() -> None:
    """Who was given Bob's invite looks for him: he hears that somebody has it, and dials nobody for that."""
    invite = Audience.invite(bytes(16), BOB.pubkey)
    seen = table(PAIR, invite)
    found = hear(seen, sealed(CAROL, audience=invite))
    assert (found.member, found.came, found.label) == (False, True, "")
    assert CAROL.pubkey not in seen.marks
    for n in range(30):
        hear(seen, sealed(stranger(n), audience=invite), f"192.0.2.{n + 20}")
    assert seen.unheard == {Unheard.BUSY: 11}, "guests count as strangers do"
    assert isinstance(hear(seen, sealed()), Sighting), "and members are heard all the same"
    carol = table(invite, own=CAROL)
    assert hear(carol, sealed(BOB, audience=invite)).member, "the maker of the invite is who is looked for"


def test_what_a_person_is_told_of() -> None:
    seen = table()
    seen.look(NOW + 999)
    told = [
        hear(seen, data, source, now=at).changed
        for data, source, at in (
            (sealed(), HOME, NOW),
            (sealed(at=NOW + 1), HOME, NOW + 1),
            (sealed(at=NOW + 2), "192.0.2.8", NOW + 2),
            (opened(ALICE, NOW + 3, label="alice"), "192.0.2.8", NOW + 3),
            (opened(ALICE, NOW + 40, label="alice"), "192.0.2.8", NOW + 40),
            (sealed(at=NOW + 41, epoch=b"restarts"), "192.0.2.8", NOW + 41),
        )
    ]
    assert told == [True, False, True, True, False, True]
    found = seen.get(ALICE.pubkey, NOW + 41)
    assert found is not None
    assert (found.label, found.open_at) == ("alice", NOW + 40)
    assert seen.forget(NOW + 221) == []
    assert seen.forget(NOW + 221.1) == [found]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(-70, 70)), max_size=40))
def test_replay_by_a_model(beacons: list[tuple[str, int, int]]) -> None:
    """U3: within one boot epoch the number rises; after a restart the time does; nothing is older than a minute."""
    seen, model = table(), None
    for epoch, seq, age in beacons:
        data = sealed(at=NOW + age, epoch=epoch.encode() * 8, seq=seq)
        fresh = abs(age) <= 60 and (model is None or (seq > model[1] if epoch == model[0] else age > model[2]))
        found = hear(seen, data, f"192.0.2.{len(seen.unheard) + 1}")
        if found is Unheard.OFTEN:
            return
        assert isinstance(found, Sighting) is fresh
        model = (epoch, seq, age) if fresh else model


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.text(max_size=20))
def test_any_datagram_from_anywhere_is_a_reason(data: bytes, source: str) -> None:
    """And nothing is ever answered: there is nothing that `heard` could send (U2)."""
    assert isinstance(table().heard(data, source, "broadcast", NOW), Unheard)
