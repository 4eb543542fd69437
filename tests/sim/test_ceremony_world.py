"""The simulator of ceremonies: invariants over seeds, determinism, and planted bugs that must be caught."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from musignet.bitcoin.finalise import Verified
from musignet.bitcoin.slots import SigningSlot
from musignet.node.changes import Changes
from musignet.node.effects import Effect
from musignet.signing import approvals, coordinator, journal, keyholder, session
from musignet.signing.attempt import Arrival, Collected
from musignet.signing.base import SessionBase
from musignet.signing.effects import End
from musignet.signing.keyholder import Account, Keyholder
from musignet.signing.mesh import MeshSession
from musignet.signing.records import Topology
from musignet.signing.verbs import Wipe
from musignet.sim.__main__ import main
from musignet.sim.ceremony import MUST_HAPPEN, CeremonyPlan, CeremonyWorld, run
from musignet.sim.liars import COLLECTORS, LIARS
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.seeds import breaks, never_happened

SEEDS = 500
BLOCK = 100


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_and_everything_happens(first: int) -> None:
    assert never_happened(run, range(first, first + BLOCK), MUST_HAPPEN) == []


def test_same_seed_same_tape_other_seed_another() -> None:
    assert run(7).digest() == run(7).digest() != run(8).digest()


@pytest.mark.parametrize("nodes", [2, 4])
def test_other_sizes(nodes: int) -> None:
    for seed in range(5):
        run(seed, CeremonyPlan(nodes=nodes))


PROVED = {
    "bad partial": "bad_partial",
    "two nonces": "equivocation",
    "both nonces": "equivocation",
    "wrong completion": "wrong_completion",
    "wrong transcript": "wrong_transcript",
    "nonce stripper": "malformed",
    "silent": "silent",
    "last mover": "silent",
    "wrong approval": "aborted",
    "two proposals": "lie",
    "replayer": "replay",
}


@pytest.mark.parametrize("lie", LIARS)
def test_what_becomes_of_each_liar(lie: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(5):
        counts += run(seed, CeremonyPlan(lie=lie, sessions=1, topology=Topology.MESH)).counts
    assert counts[PROVED[lie]]


@pytest.mark.parametrize("lie", COLLECTORS)
def test_a_collector_who_lies_breaks_nothing(lie: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(5):
        counts += run(seed, CeremonyPlan(lie=lie, sessions=1, topology=Topology.STAR)).counts
    assert counts["lie"]


def test_a_copy_that_nobody_notices_is_counted_apart() -> None:
    """THREATS.md V1: whoever can copy live memory and lie to the copy gets a second signature. We say so."""
    counts: Counter[str] = Counter()
    for seed in range(10):
        counts += run(seed, CeremonyPlan(lie="silent", unnoticed=True, crashes=0, topology=Topology.MESH)).counts
        counts += run(seed, CeremonyPlan(lie="replayer", unnoticed=True, crashes=0, topology=Topology.MESH)).counts
    assert counts["unnoticed copy"]
    assert counts["exposed"]


# --- planted bugs: each is a line or two, and each must be caught -----------------------------------------------------

Patch = pytest.MonkeyPatch


def _does_not_wait_for(patch: Patch, kind: type) -> None:
    honest = Keyholder._store

    def store(self: Keyholder, entry: journal.Entry, after: Callable[[], None]) -> None:
        honest(self, entry, after)
        if isinstance(entry, kind):
            after()

    patch.setattr(Keyholder, "_store", store)


def _signs_before_the_store(patch: Patch) -> None:
    _does_not_wait_for(patch, journal.SlotsBurned)


def _shows_nonces_before_the_store(patch: Patch) -> None:
    _does_not_wait_for(patch, journal.NoncesOut)


def _releases_partials_before_the_store(patch: Patch) -> None:
    _does_not_wait_for(patch, journal.PartialsOut)


def _signs_another_transcript(patch: Patch) -> None:
    honest = keyholder.signing_transcript
    patch.setattr(keyholder, "signing_transcript", lambda *given: (bytes(32), honest(*given)[1]))


def _makes_the_same_nonces_on_a_retry(patch: Patch) -> None:
    patch.setattr(keyholder, "_extra", lambda *_: bytes(32))
    patch.setattr(Keyholder, "_random", lambda self: b"\x01" * 32)


def _keeps_nonces_over_resumed(patch: Patch) -> None:
    patch.setattr(Keyholder, "_resume", lambda self: None)


def _believes_a_completion(patch: Patch) -> None:
    def believed(slot: SigningSlot, signature: bytes) -> Verified:
        made = Verified(signature)
        made.slot = slot
        return made

    patch.setattr(session, "verified", believed)


def _takes_an_approval_of_another_digest(patch: Patch) -> None:
    def approval(self: session.Session, message: VerifiedMessage) -> None:
        self._approvals.setdefault(message.sender_key, message)
        self._begin_if_ready()

    patch.setitem(MeshSession._MESSAGES, MessageType.APPROVAL, approval)
    patch.setattr(approvals, "require_approved", lambda *_: None)


def _overwrites_the_first_contribution(patch: Patch) -> None:
    def take(self: Collected, message: VerifiedMessage, epoch: bytes) -> Arrival:
        kept = self.nonces if message.type == MessageType.PUBLIC_NONCE else self.partials
        kept[message.sender_key] = message
        return Arrival.FIRST

    patch.setattr(Collected, "take", take)


def _does_not_replay_its_journal(patch: Patch) -> None:
    patch.setattr(Keyholder, "_replay", lambda self, entry: None)


class _Rejoins(Keyholder):
    """After a restart it takes part in the same attempt, with new nonces: as an equivocator does."""

    def __init__(self, account: Account, draw: Callable[[int], bytes], records: Iterable[bytes] = ()) -> None:
        kept = [one for one in records if not isinstance(journal.read(one), journal.NoncesOut)]
        super().__init__(account, lambda size: bytes(8) if size == 8 else draw(size), kept)


def _rejoins_an_attempt(patch: Patch) -> None:
    patch.setattr(CeremonyWorld, "__init__", _with_holder(_Rejoins))


def _with_holder(holder: Any) -> Any:
    honest = CeremonyWorld.__init__

    def init(self: CeremonyWorld, seed: int, plan: CeremonyPlan | None = None, **options: Any) -> None:
        honest(self, seed, plan, make_holder=holder)

    return init


def _keeps_no_lock(patch: Patch) -> None:
    patch.setattr(Keyholder, "_rivals", lambda self, holding, replaces: frozenset())


def _completes_before_the_store(patch: Patch) -> None:
    honest = SessionBase._save

    def save(self: SessionBase, record: bytes, after: Callable[[], None]) -> None:
        honest(self, record, after)
        if record[:1] == b"\x02":
            after()

    patch.setattr(SessionBase, "_save", save)


def _forgets_its_sessions(patch: Patch) -> None:
    patch.setattr(coordinator.Sessions, "resume", lambda self, records, now: [])


def _raises_out_of_handle(patch: Patch) -> None:
    patch.setattr(coordinator.Sessions, "_take_early", lambda self, session: {}[session])


def _goes_on_with_an_old_disk(patch: Patch) -> None:
    patch.setattr(coordinator.Sessions, "_void", lambda self, event, now: [])


def _revokes_nothing_of_an_old_disk(patch: Patch) -> None:
    honest = SessionBase._end

    def end(self: SessionBase, end: End, **given: Any) -> None:
        honest(self, end, **given)
        if end is End.OLD_DISK:
            self._out[:] = [one for one in self._out if not isinstance(one, Wipe)]

    patch.setattr(SessionBase, "_end", end)


def _counts_in_memory_alone(patch: Patch) -> None:
    honest = Changes._put

    def put(self: Changes, count: int, proof: bytes, out: list[Effect]) -> None:
        if proof:
            honest(self, count, proof, out)
        else:
            self.count = count

    patch.setattr(Changes, "_put", put)


SABOTAGES: list[tuple[Callable[[Patch], None], str]] = [
    (_signs_before_the_store, "before its burn record is on disk"),
    (_shows_nonces_before_the_store, "nonces leave before they are on disk"),
    (_releases_partials_before_the_store, "a partial signature leaves that is not on disk"),
    (_signs_another_transcript, "it signs another transcript"),
    (_makes_the_same_nonces_on_a_retry, "a secret nonce signs twice"),
    (_keeps_nonces_over_resumed, "a secret nonce outlives"),
    (_believes_a_completion, "a completion that does not verify"),
    (_takes_an_approval_of_another_digest, "a cosigner approved something else"),
    (_overwrites_the_first_contribution, "an honest node is blamed|did not complete"),
    (_does_not_replay_its_journal, "a second (NoncesOut|SlotsBurned|PartialsOut)"),
    (_rejoins_an_attempt, "two nonce payloads for one attempt|a second NoncesOut|is blamed"),
    (_keeps_no_lock, "two transactions that spend one coin"),
    (_completes_before_the_store, "a completion leaves before it is on disk"),
    (_forgets_its_sessions, "did not complete"),
    (_raises_out_of_handle, "handle raised"),
    (_goes_on_with_an_old_disk, "a session from an old disk is still open"),
    (_revokes_nothing_of_an_old_disk, "an approval from an old disk is not revoked"),
    (_counts_in_memory_alone, "its disk is called old, and is not"),
]


@pytest.mark.parametrize(
    ("sabotage", "invariant"), SABOTAGES, ids=[sabotage.__name__.strip("_") for sabotage, _ in SABOTAGES]
)
def test_sabotage_is_caught(sabotage: Callable[[Patch], None], invariant: str, monkeypatch: Patch) -> None:
    sabotage(monkeypatch)
    breaks(lambda seed: CeremonyWorld(seed).run(), range(500), invariant)


def test_the_command_runs_ceremonies_and_shows_a_broken_one(
    monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--world", "ceremony", "--seed", "3", "--show"]) == 0
    assert "keyholder Approve" in capsys.readouterr().out
    _signs_before_the_store(monkeypatch)
    assert main(["--world", "ceremony", "--seeds", "20"]) == 1
    replay = r"BROKEN seed \d+, n\d.*\nreplay: python -m musignet\.sim --world ceremony --seed \d+ --show"
    assert re.search(replay, capsys.readouterr().err)
