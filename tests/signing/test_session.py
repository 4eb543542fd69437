"""One session, message by message: what is answered, what is ignored, and every way it ends."""

from __future__ import annotations

from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.errors import LocalError, Timeout
from musignet.limits import ATTEMPTS_MAX, Limits
from musignet.signing.effects import End, SendToGroup
from musignet.signing.records import Approval, AttemptGone, PartialSignature, encode
from musignet.signing.session import Cancel, Consent
from musignet.signing.verbs import (
    Approve,
    Approved,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    Refused,
    StatusIs,
    Wipe,
    Wiped,
    Woken,
)
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import Abort, MessageType, payload_encode
from support.ceremony import NOW, identity, say
from support.one_session import EPOCH, ID, PROPOSAL, One, kinds, nonce, verbs


def test_nothing_begins_before_everybody_has_approved() -> None:
    one = One()
    assert verbs(one.hear("alice", MessageType.APPROVAL, Approval(one.digest))) == []
    assert verbs(one.do(Approved(ID, one.digest))) == []
    assert verbs(one.hear("bob", MessageType.APPROVAL, Approval(one.digest))) == [MakeNonces]


def test_an_approval_of_something_else_ends_it_unproved() -> None:
    one = One()
    one.hear("bob", MessageType.APPROVAL, Approval(bytes(32)))
    assert (one.outcome.end, one.outcome.suspects, one.outcome.verdict) == (
        End.ABORTED, (identity("bob").pubkey,), None,
    )  # fmt: skip


def test_a_keyholder_that_approved_something_else_ends_it() -> None:
    one = One()
    assert Wipe in verbs(one.do(Approved(ID, bytes(32))))
    assert one.outcome.end is End.REFUSED


def test_an_approval_that_is_refused_is_told() -> None:
    one = One()
    effects = one.do(Refused(ID, Approve, RuleBroken(Rule.X4, "no")))
    assert kinds(effects) == [MessageType.ABORT]
    assert one.outcome.end is End.REFUSED


def test_an_abort_of_a_member_ends_it_and_one_of_a_stranger_does_not() -> None:
    one = One()
    abort = payload_encode(MessageType.ABORT, Abort(1, "no"))
    one.hear("mallory", MessageType.ABORT, abort)
    assert one.outcome is None
    one.hear("bob", MessageType.ABORT, abort)
    assert (one.outcome.end, one.outcome.suspects) == (End.ABORTED, (identity("bob").pubkey,))


def test_our_own_message_sent_back_is_ignored() -> None:
    one = One().approved()
    one.do(NoncesMade(ID, 1, EPOCH, encode(nonce())))
    assert one.hear("carol", MessageType.PUBLIC_NONCE, nonce()) == []
    one.hear("alice", MessageType.PUBLIC_NONCE, nonce())
    (asked,) = (verb for verb in one.hear("bob", MessageType.PUBLIC_NONCE, nonce()) if isinstance(verb, MakePartials))
    assert [message.sender_key for message in asked.nonces] == [identity(name).pubkey for name in ("alice", "bob")]


def test_a_repeat_is_answered_with_the_same_bytes_and_not_for_ever() -> None:
    one = One().approved()
    one.do(NoncesMade(ID, 1, EPOCH, b"our nonces"))
    one.hear("bob", MessageType.PUBLIC_NONCE, nonce())
    answers = [one.hear("bob", MessageType.PUBLIC_NONCE, nonce(), seq) for seq in range(1, 100)]
    assert [effect.payload for effect in answers[0]] == [b"our nonces"]
    assert answers[-1] == []
    assert sum(map(bool, answers)) == 64


def test_another_epoch_is_neither_taken_nor_blamed() -> None:
    one = One().approved()
    one.hear("bob", MessageType.PUBLIC_NONCE, nonce())
    assert one.hear("bob", MessageType.PUBLIC_NONCE, nonce(epoch=b"epoch 2.")) == []
    assert one.outcome is None
    assert one.sessions[ID].waiting_for == (identity("alice").pubkey,)


def test_a_higher_attempt_of_somebody_is_followed_and_an_older_one_ignored() -> None:
    one = One().approved()
    assert MakeNonces(ID, 3, tuple(one.sessions[ID]._approvals.values())) in one.hear(
        "bob", MessageType.PUBLIC_NONCE, nonce(3)
    )
    assert one.hear("alice", MessageType.PUBLIC_NONCE, nonce(2)) == []
    assert one.do(NoncesMade(ID, 1, EPOCH, b"late")) == []


def test_a_lost_attempt_is_told_and_the_next_begins() -> None:
    one = One().approved()
    effects = one.do(AttemptLost(ID, 1, EPOCH))
    assert MessageType.ATTEMPT_GONE in kinds(effects)
    assert verbs(effects) == [MakeNonces]
    assert one.do(AttemptLost(ID, 1, EPOCH)) == []


def test_somebody_who_restarted_gets_our_approval_and_a_new_attempt() -> None:
    one = One().approved()
    effects = one.hear("bob", MessageType.ATTEMPT_GONE, AttemptGone(1, EPOCH))
    assert MessageType.APPROVAL in kinds(effects)
    assert one.sessions[ID].attempt == 2


def test_somebody_who_missed_this_attempt_gets_what_we_said() -> None:
    one = One().approved()
    one.do(NoncesMade(ID, 1, EPOCH, b"our nonces"))
    effects = one.hear("bob", MessageType.ATTEMPT_GONE, AttemptGone(0, EPOCH))
    assert kinds(effects) == [MessageType.APPROVAL, MessageType.PUBLIC_NONCE]


def test_after_a_restart_stored_partials_are_sent_and_otherwise_the_attempt_is_gone() -> None:
    for partials, gone in ((b"stored", 1), (b"", 2)):
        one = One()
        effects = one.do(StatusIs(ID, one.digest, 2, partials, EPOCH, wiped=False))
        sent = {effect.kind: effect.payload for effect in effects if isinstance(effect, SendToGroup)}
        assert (
            sent[MessageType.ATTEMPT_GONE]
            == say("carol", MessageType.ATTEMPT_GONE, ID, AttemptGone(gone, EPOCH)).payload
        )
        assert sent.get(MessageType.PARTIAL_SIGNATURE, b"") == partials


def test_a_wiped_approval_ends_it_after_a_restart_too() -> None:
    for event in (StatusIs(ID, bytes(32), 1, b"", EPOCH, wiped=True), Wiped(ID, False)):
        one = One()
        one.do(event)
        assert one.outcome.end is End.CANCELLED


def test_silence_is_named_after_some_attempts_and_proves_nothing() -> None:
    one = One().approved()
    bounds, now = Limits(), NOW
    for _ in range(bounds.silent_attempts_max):
        assert one.outcome is None
        one.do(NoncesMade(ID, one.sessions[ID].attempt, EPOCH, b"ours"))
        one.hear("alice", MessageType.PUBLIC_NONCE, nonce(one.sessions[ID].attempt))
        now += bounds.phase_timeout_s
        effects = one.do(Woken(), now)
    assert (one.outcome.end, one.outcome.suspects, one.outcome.verdict) == (
        End.SILENT, (identity("bob").pubkey,), None,
    )  # fmt: skip
    assert isinstance(one.outcome.error, Timeout)
    assert kinds(effects) == [MessageType.ABORT]
    assert now - NOW < 30


def test_the_last_attempt_is_the_last() -> None:
    one = One().approved()
    one.hear("bob", MessageType.PUBLIC_NONCE, nonce(ATTEMPTS_MAX))
    one.hear("alice", MessageType.ATTEMPT_GONE, AttemptGone(ATTEMPTS_MAX, EPOCH))
    assert one.outcome.end is End.SILENT


def test_whoever_uses_up_the_last_attempt_is_named_and_nobody_else() -> None:
    one = One().approved()
    one.hear("bob", MessageType.PUBLIC_NONCE, nonce(ATTEMPTS_MAX))
    one.hear("bob", MessageType.ATTEMPT_GONE, AttemptGone(ATTEMPTS_MAX, EPOCH))
    assert (one.outcome.end, one.outcome.suspects) == (End.SILENT, (identity("bob").pubkey,))


def test_nobody_uses_up_the_attempts_with_a_word() -> None:
    one = One().approved()
    one.hear("bob", MessageType.ATTEMPT_GONE, AttemptGone(ATTEMPTS_MAX, EPOCH))
    assert (one.sessions[ID].attempt, one.outcome) == (2, None)


def test_a_partial_that_comes_before_its_nonce_is_kept() -> None:
    one = One().approved()
    partial = PartialSignature(1, EPOCH, bytes(32), bytes(64))
    assert one.hear("bob", MessageType.PARTIAL_SIGNATURE, partial) == []
    one.do(NoncesMade(ID, 1, EPOCH, say("carol", MessageType.PUBLIC_NONCE, ID, nonce()).payload))
    one.hear("alice", MessageType.PUBLIC_NONCE, nonce())
    effects = one.hear("bob", MessageType.PUBLIC_NONCE, nonce())
    assert verbs(effects) == [MakePartials]
    assert MessageType.NONCE_LIST in kinds(effects)  # it is of another transcript: compare


def test_two_partials_are_equivocation() -> None:
    one = One().approved()
    for last in (b"\0", b"\1"):
        one.hear("bob", MessageType.PARTIAL_SIGNATURE, PartialSignature(1, EPOCH, bytes(32), bytes(63) + last))
    assert one.outcome.end is End.BLAMED
    assert one.outcome.verdict.accused == identity("bob").pubkey


def test_a_person_says_yes_or_leaves() -> None:
    one = One()
    assert one.do(Consent(ID, b"proof")) == [Approve(PROPOSAL, b"proof")]
    assert kinds(one.do(Cancel(ID))) == [MessageType.ABORT]
    assert isinstance(one.outcome.error, LocalError)


def test_it_ends_at_its_expiry_whatever_happens() -> None:
    one = One().approved()
    one.do(Woken(), NOW + 3600)
    assert one.outcome.end is End.EXPIRED
    assert set(one.outcome.suspects) == {identity("alice").pubkey, identity("bob").pubkey}
    assert one.sessions.next_deadline() is None


def test_undecodable_bytes_of_somebody_who_has_not_approved_are_dropped() -> None:
    one = One()
    for kind in (MessageType.PUBLIC_NONCE, MessageType.BLAME, MessageType.NONCE_LIST, MessageType.PING):
        message: VerifiedMessage = say("bob", kind, ID, b"?")
        assert one.do(message) == []
    assert one.outcome is None
