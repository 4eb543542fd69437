"""The keyholder: a table of refusals, what is on disk before what leaves, and what a restart leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import pytest

from musignet import limits
from musignet.bitcoin import finalise as finalising
from musignet.bitcoin.group import Known
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.errors import InvalidMessage, LocalError, NetworkError, SerializationError
from musignet.signing import journal, rounds
from musignet.signing.keyholder import Keyholder
from musignet.signing.policy import Ask, No
from musignet.signing.proposal import Proposal
from musignet.signing.records import Approval, PartialSignature, PublicNonce, consent_digest, decode_untrusted, split
from musignet.signing.states import State
from musignet.signing.verbs import (
    Approve,
    Approved,
    Asked,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    Resumed,
    Status,
    StatusIs,
    Store,
    Stored,
    Wipe,
    Wiped,
    Woken,
)
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.ceremony import NOW, account, drawer, identity, keyholder, perform, proposal, say, signing_group
from support.plain_musig2 import G, O, Point, point_of
from support.wallet import MEMBERS, SHAPES

PROPOSAL = proposal()
SESSION = PROPOSAL.session
PROPOSING = MessageType.TRANSACTION_PROPOSAL
ALICE, BOB, CAROL = MEMBERS


def the(effects: Sequence[object], kind: type) -> object:
    found = [one for one in effects if type(one) is kind]
    assert len(found) == 1, effects
    return found[0]


def refusal(effects: Sequence[object]) -> NetworkError:
    return the(effects, Refused).error


class Table:
    """Three keyholders, and what they have told each other so far."""

    def __init__(self, names: Sequence[str] = MEMBERS, shape: str = "aggregate", inputs: int = 2) -> None:
        self.group = signing_group(shape, tuple(names))
        self.proposal = proposal(names[0], self.group, inputs=inputs)
        self.session = self.proposal.session
        self.names = names
        self.disks: dict[str, list[bytes]] = {name: [] for name in names}
        self.holders = {name: keyholder(name, self.group) for name in names}
        self.said: dict[tuple[str, int], VerifiedMessage] = {}

    def do(self, name: str, event: object, now: float = NOW) -> list[object]:
        return perform(self.holders[name], event, now, self.disks[name])

    def say(self, name: str, kind: MessageType, payload: object) -> None:
        self.said[name, kind] = say(name, kind, self.session, payload, self.group)

    def others(self, name: str, kind: MessageType) -> tuple[VerifiedMessage, ...]:
        return tuple(self.said[other, kind] for other in self.names if other != name)

    def approve(self) -> Table:
        for name in self.names:
            self.say(name, MessageType.APPROVAL, Approval(the(self.do(name, Approve(self.proposal)), Approved).digest))
        return self

    def ask_nonces(self, name: str, attempt: int = 1, now: float = NOW) -> list[object]:
        return self.do(name, MakeNonces(self.session, attempt, self.others(name, MessageType.APPROVAL)), now)

    def nonces(self, attempt: int = 1) -> Table:
        for name in self.names:
            self.say(name, MessageType.PUBLIC_NONCE, the(self.ask_nonces(name, attempt), NoncesMade).payload)
        return self

    def ask_partials(self, name: str, attempt: int = 1, now: float = NOW) -> list[object]:
        return self.do(name, MakePartials(self.session, attempt, self.others(name, MessageType.PUBLIC_NONCE)), now)

    def restart(self, name: str) -> None:
        self.holders[name] = keyholder(name, self.group, tuple(self.disks[name]))

    def partials(self) -> Table:
        for name in self.names:
            self.say(name, MessageType.PARTIAL_SIGNATURE, the(self.ask_partials(name), PartialsMade).payload)
        return self


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.mark.parametrize(("names", "inputs"), [(MEMBERS[:2], 1), (MEMBERS, 1), (MEMBERS, 5)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_ceremony(names: tuple[str, ...], shape: str, inputs: int) -> None:
    table = Table(names, shape, inputs).approve().nonces().partials()
    read = Proposal.open_untrusted(table.proposal, table.group)
    reviewed = read.review(table.group, Known(), NOW)
    slots = rounds.contexts(table.group, reviewed.slots)
    nonces, partials = {}, {}
    for name in names:
        key = identity(name).pubkey
        nonce = decode_untrusted(MessageType.PUBLIC_NONCE, table.said[name, MessageType.PUBLIC_NONCE].payload)
        partial = decode_untrusted(
            MessageType.PARTIAL_SIGNATURE, table.said[name, MessageType.PARTIAL_SIGNATURE].payload
        )
        assert isinstance(nonce, PublicNonce)
        assert isinstance(partial, PartialSignature)
        nonces[key] = rounds.parse_nonces(slots, key, nonce.nonces)
        partials[key] = split(partial.partials, limits.PARTIAL_BYTES, inputs)
    signatures = rounds.complete(slots, rounds.signing_sessions(slots, nonces), nonces, partials)
    by_input = dict(zip((one.slot.input_index for one in slots), signatures, strict=True))
    assert finalising.finalise(read.psbt, reviewed, by_input).txid == read.psbt.tx.txid()


# --- approve ----------------------------------------------------------------------------------------------------------


def test_the_default_policy_asks_and_nothing_is_stored() -> None:
    holder = keyholder(ALICE, policy=lambda _: Ask())
    effects = holder.handle(Approve(PROPOSAL), NOW)
    asked = the(effects, Asked)
    assert asked.review.sent_sat == 600_000
    assert len(effects) == 1


def test_a_proof_over_session_and_digest_is_needed_and_enough() -> None:
    def verifier(session: bytes, digest: bytes, proof: bytes) -> bool:
        return proof == b"yes " + session + digest

    holder = keyholder(ALICE, policy=lambda _: Ask(), verifier=verifier)
    asked = the(perform(holder, Approve(PROPOSAL)), Asked)
    for bad in (b"no", b"yes " + bytes(32) + asked.digest, b"yes " + SESSION + bytes(32), bytes(999)):
        assert "proof" in str(refusal(perform(holder, Approve(PROPOSAL, bad))))
    assert the(perform(holder, Approve(PROPOSAL, b"yes " + SESSION + asked.digest)), Approved).digest == asked.digest


def test_the_policy_says_no_and_a_proof_does_not_help() -> None:
    holder = keyholder(ALICE, policy=lambda _: No("not today"), verifier=lambda *_: True)
    assert "not today" in str(refusal(perform(holder, Approve(PROPOSAL, b"proof"))))


def test_a_policy_never_confirms_for_a_person() -> None:
    far = proposal(locktime=2_000_000_000)
    assert the(perform(keyholder(ALICE), Approve(far)), Asked).review.confirm


def _stranger() -> VerifiedMessage:
    return say("mallory", MessageType.TRANSACTION_PROPOSAL, SESSION, PROPOSAL.payload)


BAD_PROPOSALS = {
    "a stranger's": (_stranger, "not a cosigner"),
    "another's session id": (
        lambda: say(BOB, MessageType.TRANSACTION_PROPOSAL, SESSION, PROPOSAL.payload),
        "session id",
    ),
    "another type": (lambda: say(ALICE, MessageType.APPROVAL, SESSION, PROPOSAL.payload), "not of this session"),
    "no proposal": (lambda: say(ALICE, MessageType.TRANSACTION_PROPOSAL, SESSION, b"?"), "not a TransactionProposal"),
    "of another group": (lambda: proposal(group=signing_group("participants")), "not of this session"),
    "expired": (lambda: proposal(expires_at=NOW), "expire"),
    "lasting too long": (lambda: proposal(expires_at=NOW + limits.SESSION_MAX_S + 1), "expire"),
}


@pytest.mark.parametrize(("make", "words"), BAD_PROPOSALS.values(), ids=BAD_PROPOSALS)
def test_a_proposal_that_is_refused(make: object, words: str) -> None:
    effects = perform(keyholder(CAROL), Approve(make()))
    assert words in str(refusal(effects))
    assert len(effects) == 1


def test_the_same_coin_is_approved_once_and_again_only_by_a_person_or_after_a_wipe() -> None:
    second = proposal(random=b"\x08" * 32)
    consents: list[tuple[bytes, bytes]] = []

    def verifier(session: bytes, digest: bytes, proof: bytes) -> bool:
        consents.append((session, digest))
        return True

    holder = keyholder(ALICE, verifier=verifier)
    perform(holder, Approve(PROPOSAL))
    assert "same coin" in str(refusal(perform(holder, Approve(second))))
    asked = the(perform(holder, Approve(second, b"", frozenset({SESSION}))), Asked)
    replies = perform(holder, Approve(second, b"proof", frozenset({SESSION})))
    assert the(replies, Approved).session == second.session
    assert the(replies, Wiped).session == SESSION
    assert consents == [(second.session, consent_digest(asked.digest, {SESSION}))]
    assert consents[0][1] != asked.digest
    perform(holder, Wipe(second.session))
    assert the(perform(holder, Approve(proposal(random=b"\x09" * 32))), Approved)


def test_an_expired_approval_frees_its_coins_and_makes_no_nonces(table: Table) -> None:
    table.approve()
    late = NOW + 3600
    assert "no approval" in str(refusal(table.ask_nonces(ALICE, now=late)))
    fresh = proposal(random=b"\x08" * 32, expires_at=late + 60)
    assert the(table.do(ALICE, Approve(fresh), late), Approved)


# --- nonces -----------------------------------------------------------------------------------------------------------


def test_no_nonces_without_an_approval(table: Table) -> None:
    table.approve()
    table.holders[ALICE] = keyholder(ALICE)
    assert "no approval" in str(refusal(table.ask_nonces(ALICE)))


def test_no_nonces_unless_everybody_approved_the_same(table: Table) -> None:
    table.approve()
    good = table.others(ALICE, MessageType.APPROVAL)
    other = say(CAROL, MessageType.APPROVAL, SESSION, Approval(bytes(32)))
    rows = ((), good[:1], (good[0], good[0]), (good[0], other), (*good, table.said[ALICE, MessageType.APPROVAL]))
    for approvals in rows:
        refusal(table.do(ALICE, MakeNonces(SESSION, 1, approvals)))
    assert isinstance(refusal(table.do(ALICE, MakeNonces(SESSION, 1, (good[0], other)))), RuleBroken)
    assert the(table.do(ALICE, MakeNonces(SESSION, 1, good)), NoncesMade)


def test_what_was_said_in_another_session_counts_for_nothing(table: Table) -> None:
    """THREATS.md T7: a node that shows its keyholder what a cosigner signed elsewhere gets nothing for it."""
    table.approve()
    good = table.others(ALICE, MessageType.APPROVAL)
    elsewhere = say(CAROL, MessageType.APPROVAL, bytes(32), good[1].content)
    assert "not of this session" in str(refusal(table.do(ALICE, MakeNonces(SESSION, 1, (good[0], elsewhere)))))
    table.nonces()
    good = table.others(ALICE, MessageType.PUBLIC_NONCE)
    for recorded in (
        say(CAROL, MessageType.PUBLIC_NONCE, bytes(32), good[1].content),
        say(CAROL, MessageType.PUBLIC_NONCE, SESSION, good[1].content, signing_group("participants")),
    ):
        assert "not of this session" in str(refusal(table.do(ALICE, MakePartials(SESSION, 1, (good[0], recorded)))))
    assert the(table.ask_partials(ALICE), PartialsMade)


def test_attempts_only_rise_across_a_restart_too(table: Table) -> None:
    table.approve().nonces(3)
    for _ in range(2):
        for attempt in (0, 1, 2, 3, limits.ATTEMPTS_MAX + 1):
            assert "attempts only rise" in str(refusal(table.ask_nonces(ALICE, attempt)))
        table.restart(ALICE)
    assert the(table.ask_nonces(ALICE, 4), NoncesMade).attempt == 4


def test_no_nonce_and_no_slot_repeats(table: Table) -> None:
    table.approve()
    seen: set[bytes] = set()
    for attempt in (1, 2, 3):
        made = the(table.ask_nonces(ALICE, attempt), NoncesMade)
        seen |= set(split(decode_untrusted(MessageType.PUBLIC_NONCE, made.payload).nonces, 66, 2))
    assert len(seen) == 6


def related(points: Sequence[Point]) -> bool:
    """Whether a sum or difference of two points is a small multiple of G, or the same as that of two others."""
    small = {G.times(number).x for number in range(1, 17)} | {O.x}
    found = [one.plus(other).x for at, one in enumerate(points) for two in points[:at] for other in (two, -two)]
    return len({*found, *small}) < len(found) + len(small)


def test_no_nonces_are_related(table: Table) -> None:
    """THREATS.md K12: as counters, or what is derived from one another, would be."""
    table.approve()
    halves: list[bytes] = []
    for attempt in (1, 2, 3):
        made = decode_untrusted(MessageType.PUBLIC_NONCE, the(table.ask_nonces(ALICE, attempt), NoncesMade).payload)
        halves += split(made.nonces, 33, 4)
    points = [point_of(half) for half in halves]
    assert not related(points)
    assert related([*points, points[3].plus(G.times(5))])
    assert related([*points, points[0].plus(points[1]).plus(-points[2])])


def test_a_new_attempt_wipes_the_nonces_of_the_one_before(table: Table) -> None:
    """THREATS.md K11."""
    table.approve().nonces()
    old = table.holders[ALICE]._held[SESSION].live
    memory = old.secrets._memory
    assert any(memory.view[0 : memory.size])
    the(table.ask_nonces(ALICE, 2), NoncesMade)
    assert old.state is State.GONE
    assert not any(memory.view[0 : memory.size])


def test_with_a_source_of_two_values_no_nonce_repeats(table: Table) -> None:
    """THREATS.md K8: it is not caught as one that stands still, and each nonce is another all the same."""
    table.approve()
    values = cycle((b"\x05", b"\x06"))
    poor = Keyholder(account(ALICE, table.group), lambda size: next(values) * size)
    perform(poor, Approve(PROPOSAL))
    seen: set[bytes] = set()
    for attempt in (1, 2, 3):
        asked = MakeNonces(SESSION, attempt, table.others(ALICE, MessageType.APPROVAL))
        made = the(perform(poor, asked), NoncesMade)
        seen |= set(split(decode_untrusted(MessageType.PUBLIC_NONCE, made.payload).nonces, 66, 2))
    assert len(seen) == 6


def test_a_source_that_repeats_is_refused(table: Table) -> None:
    table.approve()
    stuck = Keyholder(account(ALICE, table.group), lambda size: b"\x05" * size)
    perform(stuck, Approve(PROPOSAL))
    assert "equal" in str(refusal(perform(stuck, MakeNonces(SESSION, 1, table.others(ALICE, MessageType.APPROVAL)))))


def test_a_source_of_zeros_is_refused(table: Table) -> None:
    table.approve()
    zeros = Keyholder(account(ALICE, table.group), bytes)
    perform(zeros, Approve(PROPOSAL))
    assert "random" in str(refusal(perform(zeros, MakeNonces(SESSION, 1, table.others(ALICE, MessageType.APPROVAL)))))


# --- partials ---------------------------------------------------------------------------------------------------------


def test_a_repeat_is_the_same_bytes_and_so_it_is_after_a_restart(table: Table) -> None:
    table.approve().nonces()
    first = the(table.ask_partials(ALICE), PartialsMade).payload
    burned = [one for one in map(journal.read, table.disks[ALICE]) if isinstance(one, journal.SlotsBurned)]
    assert the(table.ask_partials(ALICE), PartialsMade).payload == first
    table.restart(ALICE)
    assert the(table.ask_partials(ALICE), PartialsMade).payload == first
    assert the(table.do(ALICE, Status(SESSION)), StatusIs).partials == first
    assert len(burned) == 1


def test_other_nonces_after_signing_give_the_stored_bytes_and_no_second_signature(table: Table) -> None:
    table.approve().nonces()
    first = the(table.ask_partials(ALICE), PartialsMade).payload
    other = Table().approve().nonces()
    other.restart(BOB)
    table.say(BOB, MessageType.PUBLIC_NONCE, the(other.ask_nonces(BOB, 2), NoncesMade).payload)
    assert the(table.ask_partials(ALICE), PartialsMade).payload == first
    assert sum(isinstance(journal.read(one), journal.SlotsBurned) for one in table.disks[ALICE]) == 1


def test_nothing_leaves_before_it_is_on_disk(table: Table) -> None:
    """Each effect that is not a Store comes only in answer to the Stored of its record."""
    holder, approvals = table.holders[ALICE], table.approve().others(ALICE, MessageType.APPROVAL)
    table.nonces()
    holder = keyholder(ALICE)
    steps = (
        (Approve(PROPOSAL), (journal.ApprovalGiven,), Approved),
        (MakeNonces(SESSION, 1, approvals), (journal.NoncesOut,), NoncesMade),
        (
            MakePartials(SESSION, 1, table.others(ALICE, MessageType.PUBLIC_NONCE)),
            (journal.SlotsBurned, journal.PartialsOut),
            PartialsMade,
        ),
    )
    for verb, entries, reply in steps:
        effects = holder.handle(verb, NOW)
        for entry in entries:
            store = the(effects, Store)
            assert len(effects) == 1
            assert isinstance(journal.read(store.record), entry)
            effects = holder.handle(Stored(store.number), NOW)
        assert [type(one) for one in effects] == [reply]


@pytest.mark.parametrize("stores", range(5))
def test_a_crash_after_any_record_never_signs_twice(stores: int) -> None:
    """Only the first `stores` records reach the disk; whatever the next life does, one transcript per attempt."""
    table = Table().approve().nonces().partials()
    records = table.disks[ALICE][:stores]
    again = keyholder(ALICE, table.group, records)
    partial_on_disk = any(isinstance(journal.read(one), journal.PartialsOut) for one in records)
    effects = perform(again, MakePartials(SESSION, 1, table.others(ALICE, MessageType.PUBLIC_NONCE)))
    assert isinstance(effects[0], PartialsMade if partial_on_disk else Refused)
    assert not any(isinstance(one, PartialsMade) for one in effects) or partial_on_disk


def _partials_of(table: Table, **changes: object) -> tuple[VerifiedMessage, ...]:
    nonce = decode_untrusted(MessageType.PUBLIC_NONCE, table.said[BOB, MessageType.PUBLIC_NONCE].payload)
    fields = {"attempt": nonce.attempt, "epoch": nonce.epoch, "nonces": nonce.nonces} | changes
    return (
        say(BOB, MessageType.PUBLIC_NONCE, SESSION, PublicNonce(**fields)),
        table.said[CAROL, MessageType.PUBLIC_NONCE],
    )


BAD_NONCES = {
    "of another attempt": {"attempt": 2},
    "a slot short": {"nonces": bytes(66)},
    "no points": {"nonces": bytes(132)},
}


@pytest.mark.parametrize("changes", BAD_NONCES.values(), ids=BAD_NONCES)
def test_bad_nonces_are_refused_and_burn_nothing(table: Table, changes: dict[str, object]) -> None:
    table.approve().nonces()
    refusal(table.do(ALICE, MakePartials(SESSION, 1, _partials_of(table, **changes))))
    assert the(table.ask_partials(ALICE), PartialsMade)


def test_a_missing_cosigner_is_refused(table: Table) -> None:
    table.approve().nonces()
    refusal(table.do(ALICE, MakePartials(SESSION, 1, table.others(ALICE, MessageType.PUBLIC_NONCE)[:1])))


def test_nonces_die_of_age_also_when_nobody_wakes_the_keyholder(table: Table) -> None:
    table.approve().nonces()
    due = table.holders[ALICE].next_deadline()
    assert due == NOW + limits.NONCE_TTL_S
    assert the(table.do(ALICE, Woken(), due), AttemptLost).attempt == 1
    effects = table.ask_partials(BOB, now=due)
    assert the(effects, AttemptLost)
    assert "no nonces" in str(refusal(effects))


@pytest.mark.parametrize("event", [Resumed(), Wipe(SESSION)])
def test_nothing_is_signed_when_it_comes_between_burn_and_disk(table: Table, event: object) -> None:
    table.approve().nonces()
    others = table.others(ALICE, MessageType.PUBLIC_NONCE)
    store = the(table.holders[ALICE].handle(MakePartials(SESSION, 1, others), NOW), Store)
    perform(table.holders[ALICE], event)
    assert table.holders[ALICE].handle(Stored(store.number), NOW) == []


def test_nothing_is_signed_when_the_nonces_died_between_burn_and_disk(table: Table) -> None:
    table.approve().nonces()
    others = table.others(ALICE, MessageType.PUBLIC_NONCE)
    store = the(table.holders[ALICE].handle(MakePartials(SESSION, 1, others), NOW), Store)
    effects = table.holders[ALICE].handle(Stored(store.number), NOW + limits.NONCE_TTL_S)
    assert [type(one) for one in effects] == [AttemptLost]


@pytest.mark.parametrize("end", ["signed", "wiped", "slept"])
def test_keys_below_ours_live_as_long_as_the_attempt(end: str) -> None:
    """Where each key is derived, every address has one: each in a locked page of its own."""
    table = Table(shape="participants").approve().nonces()
    holding = table.holders[ALICE]._held[table.session]
    keys = list(holding.keys.values())
    assert len(keys) == 2
    if end == "signed":
        the(table.ask_partials(ALICE), PartialsMade)
    else:
        table.do(ALICE, Wipe(table.session) if end == "wiped" else Resumed())
    assert holding.keys == {}
    for key in keys:
        with pytest.raises(LocalError, match="wiped"):
            key.prove(bytes(32))


@pytest.mark.parametrize("restarted", [False, True])
def test_of_what_was_signed_long_ago_only_the_coins_are_remembered(table: Table, restarted: bool) -> None:
    table.approve().nonces().partials()
    asking = keyholder(ALICE, table.group, tuple(table.disks[ALICE]), verifier=lambda *_: True)
    holder = asking if restarted else table.holders[ALICE]
    late = NOW + limits.POLICY_DAY_S
    perform(holder, Woken(), late - 1)
    assert list(holder._held) == [SESSION], "the day still counts it"
    perform(holder, Woken(), late)
    assert not holder._held
    again = proposal(random=b"\x08" * 32, expires_at=late + 60)
    if restarted:
        asked = the(perform(holder, Approve(again), late), Asked)
        assert asked.replaces == {SESSION}
        assert the(perform(holder, Approve(again, b"yes", asked.replaces), late), Approved)
    else:
        assert "same coin" in str(refusal(perform(holder, Approve(again), late)))


def test_a_refusal_keeps_nothing_of_where_it_came_from(table: Table) -> None:
    """Sessions keep it for people to read; its frames hold keys, parsed PSBTs and reviews."""
    table.approve().nonces()
    table.holders[ALICE].account.key.wipe()
    for error in (refusal(table.ask_partials(ALICE)), refusal(table.ask_nonces(ALICE, 2))):
        assert error.__traceback__ is None


def test_what_a_nonce_was_made_of_is_not_kept(table: Table) -> None:
    drawn, draw = [], drawer("watched")

    def watched(size: int) -> bytes:
        drawn.append(draw(size))
        return drawn[-1]

    holder = table.holders[ALICE] = Keyholder(account(ALICE, table.group), watched)
    table.approve()
    the(table.ask_nonces(ALICE), NoncesMade)
    assert [len(one) for one in drawn] == [limits.BOOT_EPOCH_BYTES, 32, 32]
    assert not {one for one in vars(holder).values() if isinstance(one, bytes)} & set(drawn[1:])


def test_secret_nonces_do_not_outlive_the_session(table: Table) -> None:
    """Also where they may wait for hours: nothing can be signed with them any more."""
    table.holders[ALICE] = keyholder(ALICE, table.group, nonce_ttl_s=limits.NONCE_TTL_MAX_S)
    table.approve()
    the(table.ask_nonces(ALICE), NoncesMade)
    expiry = NOW + 3600
    assert table.holders[ALICE].next_deadline() == expiry
    live = table.holders[ALICE]._held[table.session].live
    assert isinstance(the(table.do(ALICE, Woken(), expiry), AttemptLost), AttemptLost)
    assert table.holders[ALICE].next_deadline() is None
    assert not live.secrets._ready


def test_a_resume_ends_every_attempt_and_begins_an_epoch(table: Table) -> None:
    table.approve().nonces()
    before = table.holders[ALICE].epoch
    assert the(table.do(ALICE, Resumed()), AttemptLost).epoch == before
    assert table.holders[ALICE].epoch != before
    assert "no nonces" in str(refusal(table.ask_partials(ALICE)))
    assert the(table.ask_nonces(ALICE, 2), NoncesMade).epoch != before


# --- wipe and restart -------------------------------------------------------------------------------------------------


def test_a_wipe_is_for_good(table: Table) -> None:
    table.approve().nonces()
    assert not the(table.do(ALICE, Wipe(SESSION)), Wiped).released
    for _ in range(2):
        assert "no approval" in str(refusal(table.ask_partials(ALICE)))
        assert "revoked" in str(refusal(table.do(ALICE, Approve(PROPOSAL))))
        assert the(table.do(ALICE, Status(SESSION)), StatusIs).wiped
        table.restart(ALICE)


def test_a_wipe_says_when_it_is_too_late_and_the_coins_stay_locked(table: Table) -> None:
    table.approve().nonces().partials()
    assert the(table.do(ALICE, Wipe(SESSION)), Wiped).released
    table.restart(ALICE)
    assert the(table.do(ALICE, Status(SESSION)), StatusIs).partials == b""
    later = proposal(random=b"\x08" * 32, expires_at=NOW + 9000)
    assert "same coin" in str(refusal(table.do(ALICE, Approve(later), NOW + 8000)))


@pytest.mark.parametrize("wiped", [False, True])
def test_coins_that_a_partial_has_left_for_are_a_persons_to_give_up(table: Table, wiped: bool) -> None:
    table.approve().nonces().partials()
    if wiped:
        table.do(ALICE, Wipe(SESSION))
    consents: list[tuple[bytes, bytes, bytes]] = []

    def verifier(session: bytes, digest: bytes, proof: bytes) -> bool:
        consents.append((session, digest, proof))
        return True

    holder = keyholder(ALICE, table.group, tuple(table.disks[ALICE]), verifier=verifier)
    later, disk = proposal(random=b"\x08" * 32, expires_at=NOW + 9000), []
    for proof in (b"", b"that names nothing"):
        asked = the(perform(holder, Approve(later, proof), NOW + 8000, disk), Asked)
        assert asked.replaces == {SESSION}, "the policy says yes, and does not speak for a person"
    assert (disk, consents) == ([], [])
    replies = perform(holder, Approve(later, b"proof", asked.replaces), NOW + 8000, disk)
    assert the(replies, Approved).session == later.session
    assert consents == [(later.session, consent_digest(asked.digest, {SESSION}), b"proof")]
    assert [type(journal.read(one)) for one in disk] == [journal.ApprovalWiped, journal.ApprovalGiven]
    third = proposal(random=b"\x09" * 32, expires_at=NOW + 9000)
    assert "same coin" in str(refusal(perform(holder, Approve(third), NOW + 8000))), "the new one can be cancelled"


def test_a_changed_descriptor_revokes_what_was_approved(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.approve()
    given = journal.read(table.disks[ALICE][0])
    table.disks[ALICE][0] = journal.write(journal.ApprovalGiven(given.session, bytes(32), given.proposal, given.at_ms))
    table.restart(ALICE)
    assert "no approval" in str(refusal(table.ask_nonces(ALICE)))


def test_what_is_signed_is_recomputed_from_the_approval(table: Table) -> None:
    table.approve().nonces()
    holding = table.holders[ALICE]._held[SESSION]
    holding.review = Proposal.open_untrusted(proposal(inputs=1), table.group).review(table.group, Known(), NOW)
    error = refusal(table.ask_partials(ALICE))
    assert isinstance(error, RuleBroken)
    assert error.rule is Rule.X15


@pytest.mark.parametrize("record", [b"", b"\x09", b"\x00\x90"])
def test_a_damaged_journal_is_no_journal(record: bytes) -> None:
    with pytest.raises(SerializationError):
        keyholder(ALICE, records=[record])


def test_a_journal_with_a_gap(table: Table) -> None:
    table.approve().nonces()
    with pytest.raises(SerializationError, match="gap"):
        keyholder(ALICE, records=table.disks[ALICE][1:])


def test_a_key_that_is_not_ours() -> None:
    account_of_bob = account(BOB, signing_group())
    mixed = type(account_of_bob)(group=signing_group(), identity=identity(ALICE).pubkey, key=account_of_bob.key)
    with pytest.raises(InvalidMessage, match="not the one"):
        Keyholder(mixed, drawer(1))


# --- what was approved within a day -----------------------------------------------------------------------------------


def test_a_day_counts_approvals_until_they_are_revoked_or_a_day_old() -> None:
    disk: list[bytes] = []
    holder = keyholder("alice")
    assert holder.day() == (0, 0)
    verb = proposal("bob")
    perform(holder, Approve(verb), NOW, disk)
    assert holder.day() == (602_000, 2_000)
    again = keyholder("alice", records=disk)
    perform(again, Woken(), NOW + 3_599)
    assert again.day() == (602_000, 2_000), "a restart forgets nothing"
    perform(again, Woken(), NOW + 3_601)
    assert again.day() == (0, 0), "it expired before anything was signed"
    perform(holder, Wipe(verb.session), NOW + 1, disk)
    assert holder.day() == (0, 0)
    perform(keyholder("alice", records=disk), Woken(), NOW + 2)
    assert keyholder("alice", records=disk).day() == (0, 0)


def test_a_day_counts_what_was_signed_though_it_was_revoked() -> None:
    holder = keyholder("alice")
    verb = proposal("bob")
    perform(holder, Approve(verb), NOW)
    held = holder._held[verb.session]
    held.partials[1] = b"payload"
    perform(holder, Wipe(verb.session), NOW + 1)
    perform(holder, Woken(), NOW + 86_399)
    assert holder.day() == (602_000, 2_000)
    perform(holder, Woken(), NOW + 86_400)
    assert holder.day() == (0, 0)


@pytest.mark.parametrize("index", [3, 19, 20, 23, 24])
def test_change_is_looked_for_behind_the_last_that_was_signed_also_after_a_restart(table: Table, index: int) -> None:
    """An old wallet's change is no stranger: the policy and the person are told what really leaves (X5)."""
    later = Proposal.open_untrusted(proposal("bob", table.group, change_index=index, random=bytes(32)), table.group)

    def sent_sat() -> int:
        return table.holders["alice"]._judge(later).review.sent_sat

    table.approve().nonces()
    assert (sent_sat() == 600_000) == (index <= 19), "an approval alone moves nothing"
    table.partials()
    assert (sent_sat() == 600_000) == (index <= 23)
    table.restart("alice")
    assert (sent_sat() == 600_000) == (index <= 23)
