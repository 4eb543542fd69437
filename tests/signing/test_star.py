"""Star: whole ceremonies over seeds, collectors who lie, and what a keyholder and a blame record make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.errors import InvalidMessage, PeerError
from musignet.limits import ATTEMPTS_MAX, SLOTS_MAX, Limits
from musignet.signing import blame, evidence
from musignet.signing.attempt import Collected
from musignet.signing.blame import Kind, accuse, verify_blame
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Save, Saved, SendToGroup
from musignet.signing.proposal import Proposal
from musignet.signing.records import (
    AggregateNonces,
    Approval,
    AttemptBegin,
    AttemptFailed,
    ListWanted,
    PartialSignature,
    PublicNonce,
    Topology,
    decode_untrusted,
    encode,
)
from musignet.signing.star import StarSession
from musignet.signing.verbs import (
    Approve,
    Approved,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    StatusIs,
    Woken,
)
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.ceremony import NOW, identity, keyholder, perform, proposal, say, signing_group
from support.ceremony_world import LIARS, STAR_LIARS, World, watch_signatures
from support.wallet import MEMBERS, SHAPES

STAR = Topology.STAR
GROUP = signing_group()
NAMES = {identity(name).pubkey: name for name in MEMBERS}
FIRST, SECOND, THIRD = (NAMES[key] for key in GROUP.identities)
"""In the order of their turns."""


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_signatures(monkeypatch)


# --- honest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [1, 5])
@pytest.mark.parametrize("names", [MEMBERS[:2], MEMBERS], ids=len)
@pytest.mark.parametrize("shape", SHAPES)
def test_everybody_is_honest_and_connected(shape: str, names: tuple[str, ...], inputs: int) -> None:
    world = World(1, names, shape=shape, inputs=inputs, topology=STAR).run()
    assert world.counts["COMPLETED"] == len(names)
    assert world.counts["partials"] == len(names)  # the first attempt did it


SEEDS, BLOCK = 120, 20


def honest_block(first: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, first + BLOCK):
        names = MEMBERS[:2] if seed % 7 == 0 else MEMBERS
        trouble = {"crashes": seed % 5, "loss": 0.05 * (seed % 3), "cuts": seed % 4}
        counts += World(seed, names, inputs=1, topology=STAR, **trouble).run().counts
    return counts


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_crashes_losses_and_cuts(first: int) -> None:
    counts = honest_block(first)
    assert counts["crash"]
    assert counts["COMPLETED"] >= 2 * BLOCK


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("first", [0.001, 0.04, 0.08, 0.15])
def test_one_visit_is_enough(who: str, first: float) -> None:
    for seed in range(4):
        world = World(seed, inputs=1, away=[(who, first, 80.0)], topology=STAR).run()
        assert world.counts["COMPLETED"] >= 3


def test_same_seed_same_run() -> None:
    assert World(4, crashes=3, topology=STAR).run().counts == World(4, crashes=3, topology=STAR).run().counts


def sent_by_signers(count: int) -> Counter[str]:
    """Return how many messages reach somebody from each signer, in a whole ceremony."""
    names = tuple(f"member {number}" for number in range(count))
    world = World(1, names, inputs=1, topology=STAR)
    sent: Counter[str] = Counter()
    send = world._send

    def counting(party: object, effect: SendToGroup) -> None:
        sent[party.name] += 1 if effect.to is not None else count - 1
        send(party, effect)

    world._send = counting
    assert world.run().counts["COMPLETED"] == count
    collector = next(name for name in names if identity(name).pubkey == world.group.collector(1))
    return Counter({name: sent[name] for name in names if name not in (collector, names[0])})


def test_what_a_signer_sends_is_the_same_in_a_group_of_any_size() -> None:
    """Approval, approval to the next in line, nonces, partial signatures; and what the network doubled, again."""
    for count in (4, 16):
        assert max(sent_by_signers(count).values()) <= 6


# --- liars ------------------------------------------------------------------------------------------------------------

PROVED = {
    "bad partial": Kind.BAD_PARTIAL,
    "wrong completion": Kind.WRONG_COMPLETION,
    "nonce stripper": Kind.MALFORMED,
    "two nonces to the collector": Kind.EQUIVOCATION,
    "wrong sum": Kind.WRONG_AGGREGATE,
    "wrong root": Kind.WRONG_AGGREGATE,
    "two aggregates": Kind.EQUIVOCATION,
    "no points": Kind.MALFORMED,
}
AS_COLLECTOR = {"wrong sum", "wrong root", "two aggregates", "no points"}
SILENT = {"silent", "last mover", "wrong transcript"}


def meet_liar(kind: str, who: str, seed: int) -> World:
    """Run with one liar. Nobody honest is ever named; the world checks that of proofs, this of suspicions."""
    world = World(seed, inputs=2, liar=(who, kind), topology=STAR).run()
    liar = world.parties[who].key.pubkey
    for party in world.honest:
        outcome = party.outcomes[-1]
        if outcome.end is End.BLAMED:
            assert (outcome.verdict.accused, outcome.verdict.kind) == (liar, PROVED[kind])
        elif outcome.end is End.SILENT:
            assert (outcome.suspects, outcome.verdict) == ((liar,), None)
            assert "as a signer or as the collector" in str(outcome.error)
        elif kind != "changed proposal":
            assert outcome.end is End.COMPLETED
    return world


def ends(world: World) -> set[End]:
    return {party.outcomes[-1].end for party in world.honest}


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("kind", [*LIARS, *STAR_LIARS])
def test_a_liar_in_each_place(kind: str, who: str) -> None:
    if kind == "changed proposal" and who != MEMBERS[0]:
        return
    for seed in range(4):
        world = meet_liar(kind, who, seed)
        if kind in SILENT:
            assert ends(world) == {End.SILENT}
        if kind == "replayer":
            assert ends(world) == {End.COMPLETED}


@pytest.mark.parametrize("kind", PROVED)
def test_who_lies_in_a_way_that_can_be_proved_is(kind: str) -> None:
    who = FIRST if kind in AS_COLLECTOR else SECOND
    assert sum(ends(meet_liar(kind, who, seed)) == {End.BLAMED} for seed in range(8)) >= 5


@pytest.mark.parametrize("kind", ["silent collector", "false silence", "other digest", "withholds the completion"])
def test_a_collector_who_only_delays_is_passed_over(kind: str) -> None:
    for seed in range(6):
        world = meet_liar(kind, SECOND if kind == "withholds the completion" else FIRST, seed)
        assert ends(world) == {End.COMPLETED}


@pytest.mark.parametrize("kind", [*LIARS, *STAR_LIARS])
def test_a_liar_among_crashes_is_never_taken_for_somebody_else(kind: str) -> None:
    for seed in range(4):
        who = MEMBERS[0] if kind == "changed proposal" else MEMBERS[1 + seed % 2]
        World(seed, inputs=1, crashes=3, loss=0.05, cuts=1, liar=(who, kind), topology=STAR).run()


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("kind", ["silent", "last mover"])
@pytest.mark.parametrize("names", [MEMBERS[:2], MEMBERS], ids=len)
def test_silence_is_named_within_30_s_wherever_it_is(names: tuple[str, ...], kind: str, who: str) -> None:
    if who in names:
        world = World(3, names, inputs=1, liar=(who, kind), topology=STAR, bounds=Limits()).run()
        assert ends(world) == {End.SILENT}
        assert all(party.outcomes[-1].suspects == (identity(who).pubkey,) for party in world.honest)
        assert world.now - NOW < 30


# --- the keyholder ----------------------------------------------------------------------------------------------------


class Table:
    """Three keyholders of a star, and what is said at their table."""

    def __init__(self) -> None:
        self.proposal = proposal(topology=STAR)
        self.session = self.proposal.session
        self.holders = {name: keyholder(name) for name in MEMBERS}
        self.digest = b""
        for name in MEMBERS:
            (approved,) = self.do(name, Approve(self.proposal))
            assert isinstance(approved, Approved)
            self.digest = approved.digest

    def do(self, name: str, event: object) -> list[object]:
        return perform(self.holders[name], event)

    def say(self, name: str, kind: MessageType, record: object) -> VerifiedMessage:
        return say(name, kind, self.session, record)

    def begin(self, name: str = FIRST, attempt: int = 1, digest: bytes | None = None) -> VerifiedMessage:
        return self.say(name, MessageType.ATTEMPT_BEGIN, AttemptBegin(attempt, digest or self.digest))

    def nonces(self, attempt: int = 1) -> dict[str, VerifiedMessage]:
        said = {}
        for name in MEMBERS:
            shown = (self.begin(attempt=attempt),)
            if name == FIRST:
                shown = tuple(
                    self.say(one, MessageType.APPROVAL, Approval(self.digest)) for one in MEMBERS if one != name
                )
            (made,) = self.do(name, MakeNonces(self.session, attempt, shown))
            assert isinstance(made, NoncesMade), made
            said[name] = self.say(name, MessageType.PUBLIC_NONCE, made.payload)
        return said


def refusal(effects: list[object]) -> Exception:
    (refused,) = effects
    assert isinstance(refused, Refused), effects
    return refused.error


def test_a_signer_makes_nonces_at_the_word_of_the_collector_alone() -> None:
    table = Table()
    for begin in (
        table.begin(THIRD),
        table.begin(attempt=4),
        table.say(FIRST, MessageType.APPROVAL, Approval(bytes(32))),
    ):
        assert isinstance(refusal(table.do(SECOND, MakeNonces(table.session, 1, (begin,)))), PeerError)
    other = refusal(table.do(SECOND, MakeNonces(table.session, 1, (table.begin(digest=bytes(32)),))))
    assert isinstance(other, RuleBroken)
    assert other.rule is Rule.X15
    for shown in ((), (table.begin(), table.begin())):
        refusal(table.do(SECOND, MakeNonces(table.session, 1, shown)))
    assert isinstance(table.do(SECOND, MakeNonces(table.session, 1, (table.begin(),)))[0], NoncesMade)


def test_the_collector_itself_is_shown_every_approval() -> None:
    table = Table()
    refusal(table.do(FIRST, MakeNonces(table.session, 1, (table.begin(),))))
    approvals = [table.say(name, MessageType.APPROVAL, Approval(table.digest)) for name in (SECOND, THIRD)]
    refusal(table.do(FIRST, MakeNonces(table.session, 1, tuple(approvals[:1]))))
    lie = table.say(SECOND, MessageType.APPROVAL, Approval(bytes(32)))
    assert isinstance(refusal(table.do(FIRST, MakeNonces(table.session, 1, (lie, approvals[1])))), RuleBroken)


def aggregate(table: Table, nonces: dict[str, VerifiedMessage], **changes: object) -> AggregateNonces:
    fields = {"attempt": 1, "epoch": bytes(8), "root": bytes(32), "aggregates": nonces[SECOND].payload[-132:]} | changes
    return AggregateNonces(**fields)


def test_a_signer_signs_once_and_only_under_the_aggregate_of_the_collector() -> None:
    table = Table()
    nonces = table.nonces()
    bad = {
        "of somebody else": table.say(THIRD, MessageType.AGGREGATE_NONCE, aggregate(table, nonces)),
        "of another attempt": table.say(FIRST, MessageType.AGGREGATE_NONCE, aggregate(table, nonces, attempt=4)),
        "too short": table.say(FIRST, MessageType.AGGREGATE_NONCE, aggregate(table, nonces, aggregates=bytes(66))),
        "no points": table.say(FIRST, MessageType.AGGREGATE_NONCE, aggregate(table, nonces, aggregates=b"\5" * 132)),
        "not an aggregate": nonces[FIRST],
    }
    for message in bad.values():
        assert isinstance(refusal(table.do(SECOND, MakePartials(table.session, 1, (message,)))), PeerError)
    good = table.say(FIRST, MessageType.AGGREGATE_NONCE, aggregate(table, nonces))
    (made,) = table.do(SECOND, MakePartials(table.session, 1, (good,)))
    other = table.say(FIRST, MessageType.AGGREGATE_NONCE, aggregate(table, nonces, root=b"\1" * 32))
    assert isinstance(made, PartialsMade)
    assert table.do(SECOND, MakePartials(table.session, 1, (other,))) == [made]  # the stored one, never another


def test_the_collector_sums_the_signed_nonces_itself() -> None:
    table = Table()
    nonces = table.nonces()
    own = table.say(FIRST, MessageType.AGGREGATE_NONCE, aggregate(table, nonces))
    refusal(table.do(FIRST, MakePartials(table.session, 1, (own,))))
    refusal(table.do(FIRST, MakePartials(table.session, 1, (nonces[SECOND],))))
    (made,) = table.do(FIRST, MakePartials(table.session, 1, (nonces[SECOND], nonces[THIRD])))
    assert isinstance(made, PartialsMade)


def test_a_partial_of_another_life_than_its_nonces_ends_the_attempt_and_accuses_nobody() -> None:
    """A signer restarts between the rounds: its old nonces are in the sum, and its partial cannot verify."""
    table = Table()
    nonces = table.nonces()
    sessions = Sessions(signing_group(), identity(FIRST).pubkey)
    do = partial(settle, sessions)
    do(table.proposal)
    do(Approved(table.session, table.digest))
    for name in (SECOND, THIRD):
        do(table.say(name, MessageType.APPROVAL, Approval(table.digest)))
    do(NoncesMade(table.session, 1, bytes(8), nonces[FIRST].payload))
    effects = do(nonces[SECOND]) + do(nonces[THIRD])
    assert MakePartials in map(type, effects)
    do(PartialsMade(table.session, 1, b"ours"))
    session = sessions[table.session]
    other_life = PartialSignature(1, b"restart.", session._current.transcript, bytes(64))
    effects = do(table.say(SECOND, MessageType.PARTIAL_SIGNATURE, other_life))
    assert next(one.kind for one in effects if isinstance(one, SendToGroup)) is MessageType.ATTEMPT_FAILED
    assert (session.outcome, session._silent) == (None, Counter())


def settle(sessions: Sessions, event: object) -> list[object]:
    queue, out = list(sessions.handle(event, NOW)), []
    for effect in queue:
        if isinstance(effect, Save):
            queue += sessions.handle(Saved(effect.session, effect.number), NOW)
        out.append(effect)
    return out


# --- blame ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest() -> World:
    return World(3, inputs=2, topology=STAR).run()


def said(world: World, kind: MessageType) -> dict[str, VerifiedMessage]:
    return {NAMES[one.sender_key]: one for one in world._heard if one.type == kind}


def test_a_lying_collector_cannot_frame_an_honest_signer(honest: World) -> None:
    """Whatever aggregate it shows: the accused signed for one only, and under that one the partial holds."""
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    nonces, partials = (said(honest, kind) for kind in (MessageType.PUBLIC_NONCE, MessageType.PARTIAL_SIGNATURE))
    sums = said(honest, MessageType.AGGREGATE_NONCE)[FIRST]
    true = decode_untrusted(MessageType.AGGREGATE_NONCE, sums.payload)
    points = identity("x").pubkey * 4
    shown = [
        true,
        AggregateNonces(true.attempt, true.epoch, bytes(32), true.aggregates),
        AggregateNonces(true.attempt, true.epoch, true.root, points),
        AggregateNonces(true.attempt + 3, true.epoch, true.root, true.aggregates),
    ]
    for name in (SECOND, THIRD):
        for one in shown:
            record = accuse(Kind.BAD_PARTIAL, proposed, (partials[name], nonces[name]), (encode(one),))
            with pytest.raises(InvalidMessage, match="proves nothing"):
                verify_blame(record, honest.group)
    for evidence_, extra in (
        ((partials[SECOND], nonces[THIRD]), (sums.payload,)),
        ((nonces[SECOND], partials[SECOND]), (sums.payload,)),
        ((partials[SECOND], partials[SECOND]), (sums.payload,)),
        ((partials[SECOND], nonces[SECOND]), ()),
        ((partials[SECOND],), (sums.payload,)),
    ):
        with pytest.raises(PeerError):
            verify_blame(accuse(Kind.BAD_PARTIAL, proposed, evidence_, extra), honest.group)


def test_other_nonces_of_another_boot_epoch_do_not_frame(honest: World) -> None:
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    nonces, partials = (said(honest, kind) for kind in (MessageType.PUBLIC_NONCE, MessageType.PARTIAL_SIGNATURE))
    sums = said(honest, MessageType.AGGREGATE_NONCE)[FIRST]
    mine = decode_untrusted(MessageType.PUBLIC_NONCE, nonces[SECOND].payload)
    for other in (PublicNonce(1, b"epoch 2.", identity("x").pubkey * 4), PublicNonce(2, mine.epoch, mine.nonces)):
        before = say(SECOND, MessageType.PUBLIC_NONCE, proposed.session, other)
        record = accuse(Kind.BAD_PARTIAL, proposed, (partials[SECOND], before), (sums.payload,))
        with pytest.raises(InvalidMessage, match="the nonces of this partial"):
            verify_blame(record, honest.group)


def test_an_honest_collector_is_not_proved_by_its_own_list(honest: World) -> None:
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    nonces = said(honest, MessageType.PUBLIC_NONCE)
    sums = said(honest, MessageType.AGGREGATE_NONCE)[FIRST]
    held = next(iter(honest.sessions[FIRST]))._collected[1]
    shown = say(FIRST, MessageType.NONCE_LIST, proposed.session, held.list_payload(honest.group))
    for evidence_ in ((sums, shown), (sums, sums), (shown, shown), (shown, sums)):
        with pytest.raises(PeerError):
            verify_blame(accuse(Kind.WRONG_AGGREGATE, proposed, evidence_), honest.group)
    partials = said(honest, MessageType.PARTIAL_SIGNATURE)
    for kind in (Kind.WRONG_TRANSCRIPT, Kind.EQUIVOCATION, Kind.MALFORMED):
        with pytest.raises(PeerError):
            verify_blame(accuse(kind, proposed, (partials[SECOND], nonces[SECOND])), honest.group)


@pytest.mark.parametrize("kind", ["bad partial", "wrong sum", "wrong root", "two aggregates", "no points"])
def test_a_record_is_portable_and_a_changed_one_says_the_same_or_nothing(kind: str) -> None:
    who = FIRST if kind in AS_COLLECTOR else SECOND
    outcome = next(
        outcome
        for seed in range(9)
        for party in meet_liar(kind, who, seed).honest
        if (outcome := party.outcomes[-1]).end is End.BLAMED
    )
    verdict = verify_blame(outcome.blame, signing_group())
    assert (NAMES[verdict.accused], verdict.kind) == (who, PROVED[kind])
    with pytest.raises(PeerError):
        verify_blame(outcome.blame, signing_group("participants"))
    for at in range(0, len(outcome.blame), 61):
        changed = bytearray(outcome.blame)
        changed[at] ^= 1
        try:
            assert verify_blame(bytes(changed), signing_group()) == verdict
        except PeerError:
            continue


# --- one session, by hand ---------------------------------------------------------------------------------------------


def test_a_collectors_word_counts_only_in_its_turn() -> None:
    world = World(5, inputs=1, topology=STAR)
    sessions, session = world.sessions[THIRD], world.proposal.session
    sessions.handle(world.proposal, NOW)
    one = sessions[session]
    one._proposal_saved()
    sessions.handle(Approved(session, one.digest), NOW)
    begin = AttemptBegin(1, one.digest)
    assert sessions.handle(say(SECOND, MessageType.ATTEMPT_BEGIN, session, begin), NOW) == []
    failed = AttemptFailed(1, (identity(SECOND).pubkey,), ())
    assert sessions.handle(say(SECOND, MessageType.ATTEMPT_FAILED, session, failed), NOW) == []
    effects = sessions.handle(say(FIRST, MessageType.ATTEMPT_BEGIN, session, begin), NOW)
    assert MakeNonces in [type(effect) for effect in effects]
    assert sessions.handle(say(FIRST, MessageType.AGGREGATE_NONCE, session, _sums(4, one)), NOW) == []
    effects = sessions.handle(say(FIRST, MessageType.ATTEMPT_FAILED, session, failed), NOW)
    assert [effect.to for effect in effects if isinstance(effect, SendToGroup)] == [identity(SECOND).pubkey]
    assert dict(one._silent) == {identity(FIRST).pubkey: 1, identity(SECOND).pubkey: 1}


def _sums(attempt: int, one: object) -> AggregateNonces:
    return AggregateNonces(attempt, bytes(8), bytes(32), identity("x").pubkey * 2 * len(one.slots))


def test_nobody_uses_up_the_attempts_with_a_word() -> None:
    world = World(5, inputs=1, topology=STAR)
    sessions, session = world.sessions[THIRD], world.proposal.session
    sessions.handle(world.proposal, NOW)
    one = sessions[session]
    sessions.handle(Approved(session, one.digest), NOW)
    sessions.handle(say(FIRST, MessageType.APPROVAL, session, Approval(one.digest, ATTEMPTS_MAX)), NOW)
    assert one.attempt == 1
    assert one.outcome is None


def test_a_list_that_no_message_can_carry_is_not_sent() -> None:
    """Of many signers and inputs it has tens of megabytes; asking for it must not stop the node that was asked."""
    names = tuple(f"member {number}" for number in range(70))
    group = signing_group(names=names)
    by_key = {identity(name).pubkey: name for name in names}
    asked, asking = (by_key[group.collector(turn)] for turn in (1, 2))
    made = proposal(names[0], group, inputs=1, topology=STAR)
    sessions = Sessions(group, identity(asked).pubkey)
    sessions.handle(made, NOW)
    nonces = PublicNonce(1, bytes(8), bytes(66 * SLOTS_MAX))
    said = [say(name, MessageType.PUBLIC_NONCE, made.session, nonces, group) for name in names if name != asked]
    held = Collected(1, nonces={one.sender_key: one for one in said}, own_nonce=encode(nonces), own_aggregate=b"sum")
    sessions[made.session]._collected[1] = held
    for limit, sent in ((70, []), (2, [MessageType.NONCE_LIST])):
        held.nonces = dict(list(held.nonces.items())[:limit])
        effects = sessions.handle(say(asking, MessageType.LIST_WANTED, made.session, ListWanted(1), group), NOW)
        assert [effect.kind for effect in effects if isinstance(effect, SendToGroup)] == sent


@pytest.mark.parametrize("name", MEMBERS)
def test_a_restart_in_the_last_attempt_goes_on(name: str) -> None:
    """A collector may begin the last one at once: whoever restarts then has no further turn to speak of."""
    made = proposal(topology=STAR)
    sessions = Sessions(GROUP, identity(name).pubkey)
    sessions.resume([b"\0" + made.to_bytes()], NOW)
    one = sessions[made.session]
    sessions.handle(StatusIs(made.session, one.digest, ATTEMPTS_MAX, b"", b"restart.", wiped=False), NOW)
    for other in MEMBERS:
        sessions.handle(say(other, MessageType.APPROVAL, made.session, Approval(one.digest, 1)), NOW)
    while (due := sessions.next_deadline()) is not None:
        effects = sessions.handle(Woken(), due)
        assert MakeNonces not in [type(effect) for effect in effects]
    assert one.outcome.end in (End.SILENT, End.EXPIRED)


# --- planted bugs -----------------------------------------------------------------------------------------------------


def _all_liars() -> None:
    for kind in (*PROVED, "silent", "false silence"):
        for who in (FIRST, SECOND):
            for seed in range(3):
                meet_liar(kind, who, seed)
    for kind in PROVED:
        test_who_lies_in_a_way_that_can_be_proved_is(kind)


def _all_honest() -> None:
    for first in range(0, SEEDS, BLOCK):
        honest_block(first)


def _all_keyholders() -> None:
    test_a_signer_makes_nonces_at_the_word_of_the_collector_alone()
    test_a_signer_signs_once_and_only_under_the_aggregate_of_the_collector()
    test_the_collector_itself_is_shown_every_approval()
    test_the_collector_sums_the_signed_nonces_itself()


def _frames() -> None:
    world = World(3, inputs=2, topology=STAR).run()
    test_a_lying_collector_cannot_frame_an_honest_signer(world)
    test_other_nonces_of_another_boot_epoch_do_not_frame(world)


def _drops(kind: MessageType) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(StarSession._MESSAGES, kind, lambda self, message: None)


def _believes_any_collector(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "_of_collector", lambda group, holding, attempt, messages, kind: messages[0])


def _any_digest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "_require_digest", lambda holding, digest: None)


def _any_transcript(patch: pytest.MonkeyPatch) -> None:
    honest = blame.star_transcript_hash
    required = blame._require

    def require(held: bool, expected: str) -> None:
        if "aggregate that the accused" not in expected:
            required(held, expected)

    patch.setattr(blame, "_require", require)
    patch.setattr(blame, "star_transcript_hash", honest)


def _any_nonce(patch: pytest.MonkeyPatch) -> None:
    required = blame._require
    patch.setattr(
        blame, "_require", lambda held, expected: None if "this partial" in expected else required(held, expected)
    )


def _never_passes_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StarSession, "_pass_on", lambda self, paused=False: None)


def _takes_the_last_contribution(patch: pytest.MonkeyPatch) -> None:
    honest = Collected.take

    def take(self: Collected, message: VerifiedMessage, epoch: bytes) -> object:
        self.kept(message.type).pop(message.sender_key, None)
        return honest(self, message, epoch)

    patch.setattr(Collected, "take", take)


def _counts_the_named_alone(patch: pytest.MonkeyPatch) -> None:
    """A collector that names somebody is not counted: who lies about others goes free, and its victim does not."""
    patch.setattr(StarSession, "_silence", lambda self, silent: "no answer")


PLANTED = {
    "no signer hears the collector": (_drops(MessageType.AGGREGATE_NONCE), _all_honest),
    "nobody compares aggregates": (_drops(MessageType.AGGREGATE_SHOWN), _all_liars),
    "nobody looks at lists": (_drops(MessageType.NONCE_LIST), _all_liars),
    "the turn never passes on": (_never_passes_on, _all_honest),
    "takes the last contribution": (_takes_the_last_contribution, _all_liars),
    "does not say what silence means": (_counts_the_named_alone, _all_liars),
    "keyholder believes any collector": (_believes_any_collector, _all_keyholders),
    "keyholder takes any digest": (_any_digest, _all_keyholders),
    "blame under any transcript": (_any_transcript, _frames),
    "blame by any nonce": (_any_nonce, _frames),
}


@pytest.mark.parametrize(("plant", "search"), PLANTED.values(), ids=PLANTED)
def test_a_planted_bug_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], search: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        search()
