"""Pairings: two sides, a queue between them, and two people. And whoever would like to be a third."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet import limits
from musignet.bitcoin import wally
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.errors import LocalError, NetworkError
from musignet.node import pairing as module
from musignet.node.pairing import (
    Compare,
    Paired,
    PairFault,
    PairingEnded,
    Role,
    Say,
    Step,
    check_phrase,
    hello_proof,
    statement,
)
from musignet.node.pairings import Drop, Effect, Pairings
from musignet.wire.codec import Record
from musignet.wire.invite import Invite, InviteError
from musignet.wire.messages import PairConfirm, PairEnd, PairHello, Ping
from support.keys import ALICE, BOB, CAROL

NOW = 1_800_000_000.0


class Side:
    """One node's pairings, and what became of its effects."""

    def __init__(self, world: World, identity: Identity, label: str) -> None:
        self.world, self.key, self.label = world, identity.pubkey, label
        self.book: dict[str, bytes] = {}
        self.dropped: list[bytes] = []
        self.shown: list[str] = []
        self.ended: list[NetworkError] = []
        self.random = iter(range(1 << 20))
        self.pairings = Pairings(
            self.key, label, Chain.REGTEST, owner_of=self.book.get,
            draw=lambda n: sha256(f"{label} {next(self.random)}".encode()).digest()[:n],
        )  # fmt: skip

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Say):
                self.world.carry(self, effect.key, effect.record)
            elif isinstance(effect, Compare):
                self.shown.append(effect.words)
            elif isinstance(effect, Paired):
                self.book[effect.label] = effect.key
            elif isinstance(effect, PairingEnded):
                self.ended.append(effect.error)
            elif isinstance(effect, Drop) and effect.key not in self.book.values():
                self.dropped.append(effect.key)

    def words(self, other: Side) -> str:
        return self.pairings.get(other.key).words

    def step(self, other: Side) -> Step:
        return self.pairings.get(other.key).step

    def yes(self, other: Side, label: str = "") -> None:
        self.do(self.pairings.agree(other.key, self.words(other), label))


class World:
    """Sides, the links between them by pair of keys, and what is on its way."""

    def __init__(self) -> None:
        self.now = NOW
        self.sides: dict[bytes, Side] = {}
        self.links: dict[frozenset[bytes], bytes] = {}
        self.queue: deque[tuple[Side, bytes, Record, bytes]] = deque()
        self.count = 0
        self.spy: Callable[[Record], None] = lambda record: None

    def side(self, identity: Identity, label: str) -> Side:
        side = self.sides[identity.pubkey] = Side(self, identity, label)
        return side

    def carry(self, sender: Side, to: bytes, record: Record) -> None:
        link = self.links.get(frozenset((sender.key, to)))
        if link is not None and to in self.sides:
            self.queue.append((self.sides[to], sender.key, record, link))

    def link(self, a: Side, b: Side) -> bytes:
        """Connect; a new link each time."""
        self.count += 1
        transcript = sha256(f"link {self.count}".encode()).digest()
        self.links[frozenset((a.key, b.key))] = transcript
        for one, other in ((a, b), (b, a)):
            if other.key not in one.book.values() and not any(other.key == each.peer for each in one.pairings):
                one.pairings.admit(other.key, self.now)
            one.do(one.pairings.linked(other.key, transcript))
        return transcript

    def cut(self, a: Side, b: Side) -> None:
        """Break the link: what is on its way is lost."""
        transcript = self.links.pop(frozenset((a.key, b.key)))
        self.queue = deque(one for one in self.queue if one[3] != transcript)
        for one, other in ((a, b), (b, a)):
            one.do(one.pairings.lost(other.key))

    def run(self, steps: int = 1000) -> None:
        while self.queue and steps:
            steps -= 1
            side, sender, record, link = self.queue.popleft()
            self.spy(record)
            side.do(side.pairings.heard(sender, record, link, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for side in self.sides.values():
            side.do(side.pairings.woken(self.now))
        self.run()


def invited() -> tuple[World, Side, Side, Invite]:
    """Return a host with an open invite, and a guest who has read it."""
    world = World()
    host, guest = world.side(ALICE, "alice"), world.side(BOB, "bob")
    return world, host, guest, host.pairings.invite(("127.0.0.1:9000",), world.now)


def met() -> tuple[World, Side, Side, Invite]:
    """Return both, connected, with words on their screens."""
    world, host, guest, invite = invited()
    guest.pairings.join(invite, world.now, ("127.0.0.1:9001",))
    world.link(guest, host)
    world.run()
    return world, host, guest, invite


def both_pinned(host: Side, guest: Side) -> bool:
    return guest.key in host.book.values() and host.key in guest.book.values()


def test_six_words_are_the_same_on_both_screens_and_nothing_is_pinned_before_both_say_yes() -> None:
    world, host, guest, _ = met()
    assert host.shown == guest.shown == [host.words(guest)]
    assert len(host.words(guest).split()) == 6
    assert host.step(guest) is guest.step(host) is Step.COMPARING
    host.yes(guest)
    world.run()
    assert not host.book
    assert not guest.book
    assert (host.step(guest), guest.step(host)) == (Step.AGREED_HERE, Step.AGREED_THERE)
    guest.yes(host)
    world.run()
    assert host.book == {"bob": BOB.pubkey}
    assert guest.book == {"alice": ALICE.pubkey}


def test_both_press_at_once() -> None:
    world, host, guest, _ = met()
    host.yes(guest)
    guest.yes(host)
    world.run()
    assert both_pinned(host, guest)


def test_what_is_pinned_carries_name_and_addresses() -> None:
    world, host, guest, _ = met()
    seen: list[Paired] = []
    guest.yes(host)
    world.run()
    for effect in host.pairings.agree(guest.key, host.words(guest)):
        if isinstance(effect, Paired):
            seen.append(effect)
    assert seen == [Paired(BOB.pubkey, "bob", "bob", ("127.0.0.1:9001",))]


@pytest.mark.parametrize("who", [0, 1])
def test_one_says_no(who: int) -> None:
    world, host, guest, invite = met()
    sides = (host, guest)
    sides[1 - who].yes(sides[who])
    world.run()
    sides[who].do(sides[who].pairings.refuse(sides[1 - who].key))
    world.run()
    assert host.step(guest) is guest.step(host) is Step.ENDED
    assert not host.book
    assert not guest.book
    assert "not confirmed" in str(host.ended[0])
    assert "not confirmed" in str(guest.ended[0])
    assert BOB.pubkey in host.dropped
    assert ALICE.pubkey in guest.dropped
    with pytest.raises(LocalError, match="no words"):
        host.pairings.agree(guest.key, "any words")
    guest.pairings.join(invite, world.now)
    world.link(guest, host)
    world.run()
    assert host.words(guest), "the invite was not used up: they may try again"


def test_other_words_are_not_confirmed() -> None:
    _, host, guest, _ = met()
    with pytest.raises(LocalError, match="not the words"):
        host.pairings.agree(guest.key, "zoo zoo zoo zoo zoo zoo")
    assert host.step(guest) is Step.COMPARING


def test_a_man_in_the_middle_gets_other_words_on_each_screen() -> None:
    """He changed the invite on its way, so the guest dials him; he dials the host. He knows the secret."""
    world, host, guest, invite = invited()
    middle = world.side(CAROL, "alice")
    middle.pairings._invites[invite.secret] = forged = Invite.make(
        CAROL.pubkey, "alice", (), chain=Chain.REGTEST, expires_at=NOW + 600, secret=invite.secret
    )
    guest.pairings.join(forged, world.now)
    middle.pairings.join(invite, world.now)
    world.link(middle, host)
    world.link(guest, middle)
    world.run()
    assert host.words(middle)
    assert guest.words(middle)
    assert host.words(middle) != guest.words(middle)
    with pytest.raises(LocalError):
        host.pairings.agree(middle.key, guest.words(middle))


def test_a_confirmation_of_another_link_or_pair_means_nothing() -> None:
    world, host, guest, _ = met()
    host.yes(guest)
    world.run()
    for stated in (bytes(32), statement(bytes(32), ALICE.pubkey, BOB.pubkey)):
        host.do(host.pairings.heard(guest.key, PairConfirm(stated), bytes(32), world.now))
    assert host.step(guest) is Step.AGREED_HERE
    assert not host.book


def test_a_confirmation_before_any_greeting_ends_it() -> None:
    world, host, guest, _ = invited()
    world.link(guest, host)
    host.do(host.pairings.heard(guest.key, PairConfirm(bytes(32)), bytes(32), world.now))
    assert host.dropped == [guest.key]


@pytest.mark.parametrize("proof", ["wrong secret", "another link", "the host's own role"])
def test_a_stranger_who_knows_the_key_but_not_the_secret_is_turned_away(proof: str) -> None:
    world, host, guest, invite = invited()
    transcript = world.link(guest, host)
    proofs = {
        "wrong secret": hello_proof(Role.GUEST, bytes(16), transcript),
        "another link": hello_proof(Role.GUEST, invite.secret, bytes(32)),
        "the host's own role": hello_proof(Role.HOST, invite.secret, transcript),
    }
    host.do(host.pairings.heard(guest.key, PairHello(proofs[proof], "bob", ()), transcript, world.now))
    assert host.dropped == [guest.key]
    assert not host.shown
    assert not list(host.pairings)


def test_a_stranger_is_let_in_only_while_an_invite_is_open_and_a_few_at_a_time() -> None:
    world = World()
    host = world.side(ALICE, "alice")
    keys = [bytes((2, number)) + bytes(31) for number in range(limits.PROVISIONAL_PEERS_MAX + 1)]
    assert not host.pairings.admit(keys[0], world.now)
    host.pairings.invite((), world.now)
    assert [host.pairings.admit(key, world.now) for key in keys] == [True] * len(keys[:-1]) + [False]
    assert host.pairings.next_deadline() == world.now + limits.PAIR_HELLO_TIMEOUT_S
    host.do(host.pairings.lost(keys[0]))
    assert host.pairings.admit(keys[-1], world.now)
    world.wait(limits.PAIR_HELLO_TIMEOUT_S)
    assert sorted(host.dropped) == sorted(keys), "silence is turned away"
    world.wait(limits.INVITE_TTL_S)
    assert not host.pairings.admit(keys[0], world.now)


def test_an_invite_serves_once() -> None:
    world, host, guest, invite = met()
    host.yes(guest)
    guest.yes(host)
    world.run()
    late = world.side(CAROL, "carol")
    assert not host.pairings.admit(late.key, world.now), "no invite is open any more"
    late.pairings.join(invite, world.now)
    world.link(late, host)
    world.run()
    assert "not open" in str(late.ended[0])
    assert host.book == {"bob": BOB.pubkey}


def test_of_two_guests_with_one_invite_the_first_confirmed_has_it() -> None:
    world, host, guest, invite = met()
    late = world.side(CAROL, "carol")
    late.pairings.join(invite, world.now)
    world.link(late, host)
    world.run()
    assert late.words(host) == host.words(late) != host.words(guest)
    host.yes(guest)
    guest.yes(host)
    world.run()
    assert host.step(late) is late.step(host) is Step.ENDED
    assert set(host.book) == {"bob"}


def test_with_a_leaked_invite_few_can_come_and_each_makes_one_check_phrase() -> None:
    world = World()
    host = world.side(ALICE, "alice")
    invite = host.pairings.invite((), world.now)
    guests = [Identity.from_secret(bytes(31) + bytes((number,))) for number in range(1, limits.INVITE_GUESTS_MAX + 3)]
    for number, one in enumerate(guests):
        guest = world.side(one, f"guest {number}")
        guest.pairings.join(invite, world.now)
        world.link(guest, host)
        world.run()
        host.do(host.pairings.lost(guest.key))
    assert len(list(host.pairings)) == len(host.shown) == limits.INVITE_GUESTS_MAX
    assert host.dropped == [one.pubkey for one in guests[limits.INVITE_GUESTS_MAX :]]
    again = host.pairings.invite((), world.now)
    late = world.side(BOB, "bob")
    late.pairings.join(again, world.now)
    world.link(late, host)
    world.run()
    assert host.words(late) == late.words(host), "a new invite is for whoever was meant"


def test_a_link_lost_before_anybody_answered_shows_new_words() -> None:
    world, host, guest, _ = met()
    old = host.words(guest)
    world.cut(host, guest)
    assert host.words(guest) == ""
    with pytest.raises(LocalError):
        host.pairings.agree(guest.key, old)
    world.link(guest, host)
    world.run()
    assert host.words(guest) == guest.words(host) != old
    with pytest.raises(LocalError, match="not the words"):
        host.pairings.agree(guest.key, old)


@pytest.mark.parametrize("who", [0, 1])
def test_a_link_lost_between_the_confirmations_asks_again(who: int) -> None:
    """The second person had not answered: words of the new link for both, and both answer again."""
    world, host, guest, _ = met()
    first, second = ((host, guest), (guest, host))[who]
    first.yes(second)
    world.run()
    world.cut(host, guest)
    world.link(guest, host)
    world.run()
    assert first.step(second) is second.step(first) is Step.COMPARING
    second.yes(first)
    world.run()
    assert not second.book
    first.yes(second)
    world.run()
    assert both_pinned(host, guest)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_confirmation_lost_with_the_link_counts_on_the_next(lost: int) -> None:
    """Both said yes to the same words. Whichever of the two confirmations was lost, nobody has to look again."""
    world, host, guest, _ = met()
    host.yes(guest)
    guest.yes(host)
    world.run(lost)
    world.cut(host, guest)
    assert both_pinned(host, guest) is (lost == 2)
    world.link(guest, host)
    world.run()
    assert both_pinned(host, guest)
    assert host.step(guest) is guest.step(host) is Step.PAIRED


def test_it_ends_by_itself() -> None:
    world, host, guest, _ = met()
    host.yes(guest)
    world.run()
    world.wait(limits.PAIR_COMPARE_TIMEOUT_S)
    assert "too long" in str(host.ended[0])
    assert guest.ended
    assert not list(host.pairings)
    assert host.pairings.next_deadline() is None


@pytest.mark.parametrize("name", ["../etc", "a\x1b[2J", "\u202eecila", "", " bob", "x" * 65])
def test_a_name_that_cannot_be_shown_ends_it(name: str) -> None:
    world, host, guest, invite = invited()
    transcript = world.link(guest, host)
    proof = hello_proof(Role.GUEST, invite.secret, transcript)
    host.do(host.pairings.heard(guest.key, PairHello(proof, name, ()), transcript, world.now))
    assert "cannot be shown" in str(host.ended[0])
    assert not host.shown


def test_a_taken_name_asks_for_another() -> None:
    world, host, guest, _ = met()
    host.book["bob"] = CAROL.pubkey
    assert host.pairings.taken(guest.key, "bob")
    with pytest.raises(LocalError, match="taken by another key"):
        host.yes(guest)
    with pytest.raises(LocalError, match="taken by another key"):
        host.yes(guest, "alice")
    with pytest.raises(LocalError, match="not a name"):
        host.yes(guest, "b\u202eob")
    host.yes(guest, "bob at work")
    guest.yes(host)
    world.run()
    assert host.book == {"bob": CAROL.pubkey, "bob at work": BOB.pubkey}


def test_each_joins_the_other_at_once() -> None:
    world, host, guest, invite = invited()
    other = guest.pairings.invite((), world.now)
    guest.pairings.join(invite, world.now)
    host.pairings.join(other, world.now)
    world.link(guest, host)
    world.run()
    assert host.words(guest) == guest.words(host) != ""
    host.yes(guest)
    guest.yes(host)
    world.run()
    assert both_pinned(host, guest)


def test_what_cannot_be_joined() -> None:
    world, host, guest, invite = invited()
    with pytest.raises(LocalError, match="own invite"):
        host.pairings.join(invite, world.now)
    with pytest.raises(InviteError, match="expired"):
        guest.pairings.join(invite, world.now + limits.INVITE_TTL_S)
    guest.pairings.join(invite, world.now)
    with pytest.raises(LocalError, match="under way"):
        guest.pairings.join(invite, world.now)
    guest.do(guest.pairings.cancel(host.key))
    guest.pairings.join(invite, world.now)
    with pytest.raises(LocalError, match="no pairing"):
        host.pairings.refuse(guest.key)


def test_whoever_is_paired_already_is_told_of_an_invite_that_is_not_open() -> None:
    """And does not wait ten minutes."""
    world, host, guest, _ = met()
    guest.yes(host)
    host.yes(guest)
    world.run()
    second = host.pairings.invite((), world.now)
    host.do(host.pairings.withdraw(second.secret))
    guest.pairings.join(second, world.now)
    world.link(guest, host)
    world.run()
    assert "this invite is not open" in str(guest.ended[0])
    assert both_pinned(host, guest)


def test_an_invite_that_was_used_begins_no_second_pairing() -> None:
    """It would show the words of the first one, which no other screen shows any more."""
    world, host, guest, invite = met()
    guest.yes(host)
    host.yes(guest)
    world.run()
    assert both_pinned(host, guest)
    assert guest.pairings.join(invite, world.now).step is Step.PAIRED
    assert len(guest.shown) == 1


def test_a_host_whose_proof_is_wrong_is_no_host() -> None:
    world, host, guest, invite = invited()
    guest.pairings.join(invite, world.now)
    transcript = world.link(guest, host)
    world.queue.clear()
    hello = PairHello(hello_proof(Role.HOST, bytes(16), transcript), "alice", ())
    guest.do(guest.pairings.heard(host.key, hello, transcript, world.now))
    assert guest.shown == []
    assert guest.step(host) is (Step.ENDED if guest.key > host.key else Step.GREETING)


def test_invites_are_bounded_and_can_be_withdrawn() -> None:
    world, host, guest, invite = met()
    for _ in range(limits.INVITES_OPEN_MAX - 1):
        host.pairings.invite((), world.now)
    with pytest.raises(LocalError, match="too many"):
        host.pairings.invite((), world.now)
    host.do(host.pairings.withdraw(invite.secret))
    world.run()
    assert host.step(guest) is guest.step(host) is Step.ENDED
    for ttl_s in (0, -1, limits.INVITE_TTL_MAX_S + 1):
        with pytest.raises(LocalError, match="no time"):
            host.pairings.invite((), world.now, ttl_s)
    host.pairings.invite((), world.now + limits.INVITE_TTL_S)


def test_what_the_other_side_says_of_the_end_is_shown_safely() -> None:
    for end in (PairEnd(PairFault.UNKNOWN_INVITE, "\x1b[2J"), PairEnd(999, "\x1b[2J")):
        world, host, guest, _ = met()
        guest.do(guest.pairings.heard(host.key, end, bytes(32), world.now))
        assert "\x1b" not in str(guest.ended[0])
        guest.do(guest.pairings.heard(host.key, end, bytes(32), world.now))
        assert len(guest.ended) == 1


def test_a_record_out_of_place_ends_it() -> None:
    world, host, guest, _ = met()
    host.do(host.pairings.heard(guest.key, Ping(1), bytes(32), world.now))
    assert "out of place" in str(host.ended[0])
    assert host.pairings.heard(guest.key, Ping(1), bytes(32), world.now) == []
    assert host.pairings.linked(guest.key, bytes(32)) == []


def test_a_line_that_breaks_all_the_time_needs_a_new_invite() -> None:
    world, host, guest, _ = invited()
    guest.pairings.join(_, world.now)
    for _n in range(limits.PAIR_LINKS_MAX + 1):
        world.link(guest, host)
        world.run()
        if host.ended:
            break
        world.cut(guest, host)
    assert "too long" in str(host.ended[0])


def test_phrases_differ_in_every_bit_of_the_statement_and_take_the_whole_list() -> None:
    phrases = {check_phrase(sha256(bytes((number,))).digest()) for number in range(24)}
    assert len(phrases) == 24
    words = {word for phrase in phrases for word in phrase.split()}
    assert words <= {wally.english_word(number) for number in range(2048)}
    assert len(words) > 120
    keys = (ALICE.pubkey, BOB.pubkey, CAROL.pubkey)
    stated = {statement(bytes(32), one, two) for one in keys for two in keys}
    assert len(stated) == 9


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(["host yes", "guest yes", "cut", "link", "run", "step", "host no"]), max_size=14))
def test_no_order_of_events_pins_one_side_without_both_words(events: list[str]) -> None:
    """Whatever happens: a key is pinned only after both people said yes to the same words."""
    world, host, guest, _ = met()
    said: dict[Side, set[str]] = {host: set(), guest: set()}
    for event in events:
        who, other = (host, guest) if event.startswith("host") else (guest, host)
        linked = frozenset((host.key, guest.key)) in world.links
        if event.endswith("yes") and who.words(other) and not who.pairings.get(other.key).over:
            said[who].add(who.words(other))
            who.yes(other)
        elif event == "host no":
            host.do(host.pairings.refuse(guest.key))
        elif event == "cut" and linked:
            world.cut(host, guest)
        elif event == "link" and not linked:
            world.link(guest, host)
        elif event in ("run", "step"):
            world.run(1000 if event == "run" else 1)
        if host.book or guest.book:
            assert said[host] & said[guest]


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(module, name) for name in module.__all__)
