"""Whole ceremonies over seeds: honest ones complete, liars are named, nothing is signed twice, sabotage is caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from musignet.crypto import backend
from musignet.crypto.secret_nonces import SecretNonces
from musignet.limits import Limits
from musignet.signing import journal, keyholder, session
from musignet.signing.attempt import Arrival, Collected
from musignet.signing.blame import Kind, Verdict
from musignet.signing.effects import End
from musignet.signing.keyholder import Keyholder
from musignet.signing.mesh import MeshSession
from musignet.signing.records import Approval
from musignet.signing.session import Session
from musignet.signing.states import State
from musignet.signing.verbs import MakePartials, PartialsMade, StatusIs
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.ceremony_world import LIARS, World, watch_signatures
from support.wallet import MEMBERS, SHAPES


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_signatures(monkeypatch)


@pytest.mark.parametrize("inputs", [1, 5])
@pytest.mark.parametrize("names", [MEMBERS[:2], MEMBERS], ids=len)
@pytest.mark.parametrize("shape", SHAPES)
def test_everybody_is_honest_and_connected(shape: str, names: tuple[str, ...], inputs: int) -> None:
    world = World(1, names, shape=shape, inputs=inputs).run()
    assert world.counts["COMPLETED"] == len(names)
    assert world.counts["partials"] == len(names)  # the first attempt did it


SEEDS = 120
BLOCK = 20


def honest_block(first: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, first + BLOCK):
        counts += World(seed, inputs=1, crashes=seed % 5, loss=0.05 * (seed % 3)).run().counts
    return counts


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_crashes_and_losses(first: int) -> None:
    counts = honest_block(first)
    assert counts["crash"]
    assert counts["resume"]
    assert counts["COMPLETED"] >= 3 * BLOCK


def test_same_seed_same_run() -> None:
    assert World(4, crashes=3).run().counts == World(4, crashes=3).run().counts


# --- liars ------------------------------------------------------------------------------------------------------------

PROVED = {
    "bad partial": Kind.BAD_PARTIAL,
    "two nonces": Kind.EQUIVOCATION,
    "wrong completion": Kind.WRONG_COMPLETION,
    "nonce stripper": Kind.MALFORMED,
    "wrong transcript": Kind.WRONG_TRANSCRIPT,
}


def meet_liar(kind: str, seed: int) -> World:
    """Run with one liar, and check how it ended at each honest node."""
    who = "alice" if kind == "changed proposal" else "bob"
    world = World(seed, inputs=2, liar=(who, kind)).run()
    liar = world.parties[who].key.pubkey
    for party in world.honest:
        outcome = party.outcomes[-1]
        if kind == "replayer":
            assert outcome.end is End.COMPLETED
        elif kind == "wrong transcript" and outcome.end is End.SILENT:
            assert outcome.suspects == (liar,)  # it had finished for itself and never showed its list: not proved
        elif kind in PROVED:
            assert outcome.end is End.BLAMED, outcome
            assert (outcome.verdict.accused, outcome.verdict.kind) == (liar, PROVED[kind])
        elif kind in ("silent", "last mover"):
            assert (outcome.end, outcome.suspects, outcome.verdict) == (End.SILENT, (liar,), None)
        else:
            assert outcome.end in (End.REFUSED, End.ABORTED)
            assert outcome.verdict is None
    return world


@pytest.mark.parametrize("kind", LIARS)
def test_a_liar(kind: str) -> None:
    for seed in range(8):
        meet_liar(kind, seed)


@pytest.mark.parametrize("kind", LIARS)
def test_a_liar_among_crashes_is_never_taken_for_somebody_else(kind: str) -> None:
    for seed in range(6):
        World(seed, inputs=1, crashes=3, loss=0.05, liar=("alice" if kind == "changed proposal" else "bob", kind)).run()


def test_a_silent_cosigner_is_named_within_30_s_by_the_default_bounds() -> None:
    assert Limits().phase_timeout_s * Limits().silent_attempts_max < 30


# --- planted bugs: each must be caught --------------------------------------------------------------------------------


def _skips_store(*skipped: type) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        honest = Keyholder._store

        def store(self: Keyholder, entry: journal.Entry, after: Callable[[], None]) -> None:
            if isinstance(entry, skipped):
                after()
            else:
                honest(self, entry, after)

        patch.setattr(Keyholder, "_store", store)

    return plant


def _answers_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    honest = Keyholder._store

    def store(self: Keyholder, entry: journal.Entry, after: Callable[[], None]) -> None:
        honest(self, entry, lambda: None)
        after()

    patch.setattr(Keyholder, "_store", store)


def _reuses_nonces_on_retry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keyholder, "_random", lambda self: b"\x05" * 32)
    patch.setattr(keyholder, "_extra", lambda *parts: parts[0])


def _signs_again_on_retry(patch: pytest.MonkeyPatch) -> None:
    """The nonce is not consumed, and neither the stored partials nor the state of the attempt are looked at."""
    sign, make = SecretNonces.partial_sign, Keyholder._make_partials

    def partial_sign(self: SecretNonces, slot: int, *args: object) -> bytes:
        made, before = self._ready[slot], bytes(backend.ffi.buffer(self._memory.view))
        partial = sign(self, slot, *args)
        self._ready[slot] = made
        self._memory.view[0 : len(before)] = before
        return partial

    def make_partials(self: Keyholder, verb: MakePartials) -> None:
        holding = self._held.get(verb.session)
        if holding is not None and holding.live is not None and holding.live.state is State.SIGNED:
            holding.partials, holding.live.state = {}, State.NONCES_OUT
        make(self, verb)

    patch.setattr(SecretNonces, "partial_sign", partial_sign)
    patch.setattr(SecretNonces, "wipe", lambda self: None)
    patch.setattr(Keyholder, "_make_partials", make_partials)


def _forgets_stored_partials(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(Session._HANDLERS, PartialsMade, lambda self, event: None)


def _believes_completions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "verify_signature", lambda slot, signature: True)


def _sends_completions_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_save", lambda self, record, after: after())


def _judges_under_any_transcript(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Collected, "strangers", lambda self: [])


def _keeps_quiet_about_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(Session._HANDLERS, StatusIs, lambda self, event: None)


def _never_repeats_an_approval(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        MeshSession,
        "_repeat_approval",
        lambda self, to=None: self._say(MessageType.APPROVAL, Approval(self.digest)) if self.attempt == 0 else None,
    )


def _takes_the_last_contribution(patch: pytest.MonkeyPatch) -> None:
    def take(self: Collected, message: VerifiedMessage, epoch: bytes) -> Arrival:
        kept = self.nonces if message.type == MessageType.PUBLIC_NONCE else self.partials
        kept[message.sender_key] = message
        return Arrival.FIRST

    patch.setattr(Collected, "take", take)


def _blames_without_proof(patch: pytest.MonkeyPatch) -> None:
    honest = Session._end

    def end(self: Session, end: End, **facts: Any) -> None:
        if facts.get("suspects"):
            facts["verdict"] = Verdict(facts["suspects"][0], Kind.EQUIVOCATION, self.id)
        honest(self, end, **facts)

    patch.setattr(Session, "_end", end)


def _never_tries_again(patch: pytest.MonkeyPatch) -> None:
    honest = MeshSession._begin
    patch.setattr(MeshSession, "_begin", lambda self, attempt: honest(self, attempt) if attempt == 1 else None)


def _all_liars() -> None:
    for seed in range(3):
        for kind in LIARS:
            meet_liar(kind, seed)


def _all_honest() -> None:
    for first in range(0, SEEDS, BLOCK):
        honest_block(first)


PLANTED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "approves without a record": (_skips_store(journal.ApprovalGiven), _all_honest),
    "sends nonces without a record": (_skips_store(journal.NoncesOut), _all_honest),
    "signs without a burn record": (_skips_store(journal.SlotsBurned), _all_honest),
    "sends partials without a record": (_skips_store(journal.PartialsOut), _all_honest),
    "answers before the disk": (_answers_before_the_disk, _all_honest),
    "reuses nonces on retry": (_reuses_nonces_on_retry, _all_honest),
    "signs again on retry": (_signs_again_on_retry, _all_honest),
    "drops its partials": (_forgets_stored_partials, _all_honest),
    "believes completions": (_believes_completions, _all_liars),
    "sends completions before the disk": (_sends_completions_before_the_disk, _all_honest),
    "judges under any transcript": (_judges_under_any_transcript, _all_liars),
    "keeps quiet about a restart": (_keeps_quiet_about_a_restart, _all_honest),
    "never repeats an approval": (_never_repeats_an_approval, _all_honest),
    "takes the last contribution": (_takes_the_last_contribution, _all_liars),
    "blames without proof": (_blames_without_proof, _all_liars),
    "never tries again": (_never_tries_again, _all_honest),
}


@pytest.mark.parametrize(("plant", "search"), PLANTED.values(), ids=PLANTED)
def test_a_planted_bug_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], search: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        search()
