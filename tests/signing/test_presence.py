"""Who is here: one visit is enough, whoever is away is waited for without a clock, and whoever is here is not."""

from __future__ import annotations

import pytest

from musignet.limits import PROGRESS_NAMES_MAX, Limits
from musignet.signing.effects import End, Progress, Publish, SendToGroup
from musignet.signing.mesh import MeshSession
from musignet.signing.records import Approval, AttemptFailed
from musignet.signing.session import Present, Session
from musignet.signing.states import State
from musignet.signing.verbs import Approved, MakeNonces, NoncesMade, Woken
from musignet.wire.messages import MessageType
from support.ceremony import NOW, identity, signing_group
from support.ceremony_world import World
from support.one_session import EPOCH, ID, One, kinds, nonce, verbs
from support.wallet import MEMBERS

ALICE, BOB, CAROL = (identity(name).pubkey for name in MEMBERS)
ALL = Present(frozenset(signing_group().identities))
NO_BOB = Present(frozenset((ALICE, CAROL)))


def progress(effects: list[object]) -> Progress:
    return [one.news for one in effects if isinstance(one, Publish) and isinstance(one.news, Progress)][-1]


def test_an_attempt_begins_when_all_have_approved_and_are_here() -> None:
    one = One()
    one.do(NO_BOB)
    one.approved()
    assert one.sessions[ID].state is State.APPROVING
    shown = progress(one.do(Present(frozenset((CAROL,)))))
    assert (set(shown.waiting_for), set(shown.away)) == ({ALICE, BOB}, {ALICE, BOB})
    shown = progress(one.do(NO_BOB))
    assert (shown.waiting_for, shown.away) == ((BOB,), (BOB,))
    assert verbs(one.do(ALL)) == [MakeNonces]


def test_each_approval_is_told_as_it_comes() -> None:
    one = One()
    one.do(ALL)
    one.do(Approved(ID, one.digest))
    told = one.hear("alice", MessageType.APPROVAL, Approval(one.digest))
    assert (progress(told).state, progress(told).waiting_for) == (State.APPROVING, (BOB,))
    assert verbs(one.hear("bob", MessageType.APPROVAL, Approval(one.digest))) == [MakeNonces]
    assert not any(isinstance(one, Publish) for one in one.hear("alice", MessageType.APPROVAL, Approval(one.digest), 1))


def test_who_comes_back_is_told_at_once_what_they_missed() -> None:
    one = One()
    one.do(NO_BOB)
    one.approved()
    effects = one.do(ALL)
    assert [(one.kind, one.to) for one in effects if isinstance(one, SendToGroup)] == [(MessageType.APPROVAL, BOB)]
    one.do(NoncesMade(ID, 1, EPOCH, b"ours"))
    assert not any(isinstance(one, SendToGroup) for one in one.do(NO_BOB))
    effects = one.do(ALL)
    sent = [(one.kind, one.to) for one in effects if isinstance(one, SendToGroup)]
    assert sent == [(MessageType.APPROVAL, BOB), (MessageType.PUBLIC_NONCE, BOB)]


def test_nobody_who_is_away_is_counted_and_the_next_attempt_waits_for_them() -> None:
    one, now = One().approved(), NOW
    one.do(NO_BOB)
    one.hear("alice", MessageType.PUBLIC_NONCE, nonce())
    for _ in range(50):
        now += Limits().reapprove_s
        one.do(Woken(), now)
    assert one.outcome is None
    assert (one.sessions[ID].state, one.sessions[ID].attempt) == (State.APPROVING, 1)
    assert one.do(ALL, now)[-2:][0] == MakeNonces(ID, 2, tuple(one.sessions[ID]._approvals.values()))


def test_whoever_is_here_and_silent_is_counted_all_the_same() -> None:
    one, now = One().approved(), NOW
    one.do(NO_BOB)
    one.do(ALL)
    for _ in range(Limits().silent_attempts_max):
        one.hear("alice", MessageType.PUBLIC_NONCE, nonce(one.sessions[ID].attempt))
        now += Limits().phase_timeout_s
        one.do(Woken(), now)
    assert (one.outcome.end, one.outcome.suspects) == (End.SILENT, (BOB,))


def test_a_member_from_whom_somebody_is_away_says_so_and_is_not_counted() -> None:
    one = One()
    one.do(NO_BOB)
    one.approved()
    effects = one.hear("alice", MessageType.PUBLIC_NONCE, nonce(1))
    (said,) = [one for one in effects if isinstance(one, SendToGroup)]
    assert (said.kind, said.to) == (MessageType.ATTEMPT_FAILED, ALICE)
    other, now = One().approved(), NOW
    other.hear("bob", MessageType.ATTEMPT_FAILED, AttemptFailed(1, (), (ALICE,)))
    other.hear("alice", MessageType.PUBLIC_NONCE, nonce(1))
    now += Limits().phase_timeout_s
    assert MessageType.ATTEMPT_FAILED not in kinds(other.do(Woken(), now))
    assert (other.outcome, other.sessions[ID].state) == (None, State.APPROVING)
    assert MakeNonces in verbs(other.hear("bob", MessageType.PUBLIC_NONCE, nonce(2)))


def test_an_approval_said_again_does_not_begin_what_waits_for_somebody() -> None:
    one = One().approved()
    one.hear("bob", MessageType.ATTEMPT_FAILED, AttemptFailed(1, (), (ALICE,)))
    one.do(Woken(), NOW + Limits().phase_timeout_s)
    assert verbs(one.hear("bob", MessageType.APPROVAL, Approval(one.digest), seq=9)) == []


def test_without_word_of_who_is_here_everybody_is() -> None:
    assert MakeNonces in verbs(One().approved().do(ALL)) or One().approved().sessions[ID].state is State.ROUND_1


def test_progress_names_only_so_many() -> None:
    assert len(signing_group().identities) <= PROGRESS_NAMES_MAX
    assert progress(One().do(NO_BOB)).away == (BOB,)


# --- whole ceremonies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", MEMBERS)
@pytest.mark.parametrize("first", [0.001, 0.03, 0.06, 0.2])
def test_one_visit_is_enough(who: str, first: float) -> None:
    """Away for far longer than silence would be suffered: the rounds run by themselves when they are back."""
    for seed in range(4):
        world = World(seed, inputs=1, away=[(who, first, 80.0)]).run()
        assert world.counts["COMPLETED"] >= 3


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_links_come_and_go(first: int) -> None:
    for seed in range(first, first + 20):
        world = World(seed, inputs=1, cuts=seed % 6, crashes=seed % 3).run()
        assert world.counts["COMPLETED"] >= 3


def _counts_the_absent(self: MeshSession, away: frozenset[bytes]) -> None:
    self._count(self.waiting_for)
    if not self._end_if_silent():
        self._begin(self.attempt + 1)


def _all() -> None:
    test_who_comes_back_is_told_at_once_what_they_missed()
    test_a_member_from_whom_somebody_is_away_says_so_and_is_not_counted()
    for who in MEMBERS:
        test_one_visit_is_enough(who, 0.06)


PLANTED = {
    "never hears who is here": lambda patch: patch.setitem(Session._HANDLERS, Present, lambda self, event: None),
    "counts the absent": lambda patch: patch.setattr(MeshSession, "_wait", _counts_the_absent),
    "tells nobody what they missed": lambda patch: patch.setattr(MeshSession, "_catch_up", lambda self, member: None),
    "excuses nobody": lambda patch: patch.setitem(
        MeshSession._MESSAGES, MessageType.ATTEMPT_FAILED, lambda self, message: None
    ),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_planted_bug_is_caught(plant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        _all()
