"""The link simulator: invariants over seeds, determinism, and sabotage that must be caught."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from musignet.node import arrivals
from musignet.node.arrivals import Arrivals
from musignet.node.core import Node
from musignet.node.dialler import Dialler
from musignet.node.effects import Acknowledge, Effect, Reply
from musignet.node.inputs import Restore
from musignet.node.outbox import Outbox
from musignet.node.peers import Link, Outgoing, PeerRecord
from musignet.node.shelf import Shelf
from musignet.node.window import Verdict, Window
from musignet.sim import actors
from musignet.sim.__main__ import main
from musignet.sim.disk import Disk
from musignet.sim.world import Plan, World, run
from musignet.wire.envelope import VerifiedMessage
from support.seeds import breaks, never_happened

SEEDS = 300
BLOCK = 25
MUST_HAPPEN = ("crash", "break", "partition", "hole", "duplicate", "MessageArrived", "PeerDown", "ConnectFailed")


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_and_everything_happens(first: int) -> None:
    assert never_happened(run, range(first, first + BLOCK), MUST_HAPPEN) == []


@pytest.mark.parametrize("first", range(0, 150, BLOCK))
def test_with_disks_nothing_accepted_is_lost_and_nothing_handled_comes_again(first: int) -> None:
    plan = Plan(disks=True, crashes=5)
    must = (*MUST_HAPPEN, "Restore", "Handled")
    assert never_happened(lambda seed: run(seed, plan), range(first, first + BLOCK), must) == []


def _smallest_window(patch: pytest.MonkeyPatch) -> None:
    """Twice what is in the air, as by default."""
    patch.setattr(actors, "_LIMITS", replace(actors._LIMITS, receive_window=2 * actors._LIMITS.unacked_max))


def test_a_window_of_twice_what_is_in_the_air_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    _smallest_window(monkeypatch)
    for seed in range(60):
        run(seed)


def test_and_without_a_row_for_what_waits_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _smallest_window(monkeypatch)
    monkeypatch.setattr(arrivals, "leaves_at_once", lambda message: False)
    breaks(run, range(60))


def test_same_seed_same_tape_other_seed_another() -> None:
    first, again, other = run(7).digest(), run(7).digest(), run(8).digest()
    assert first == again
    assert first != other


@pytest.mark.parametrize("nodes", [2, 5])
def test_other_sizes(nodes: int) -> None:
    for seed in range(5):
        run(seed, Plan(nodes=nodes))


# --- planted bugs: each is one line, and each must be caught ----------------------------------------------------------


def _never_resends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "resend", lambda self, peer, out: self._unpark(peer, out))


def _forgets_what_it_has_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Window, "judge", lambda self, seq, message_id, **_: Verdict.NEW)


def _takes_a_repeat_for_a_conflict(patch: pytest.MonkeyPatch) -> None:
    honest = Window.judge

    def judge(self: Window, seq: int, message_id: bytes, *, at_once: bool = False) -> Verdict:
        verdict = honest(self, seq, message_id, at_once=at_once)
        return Verdict.CONFLICT if verdict is Verdict.REPEAT else verdict

    patch.setattr(Window, "judge", judge)


def _does_not_acknowledge_a_repeat(patch: pytest.MonkeyPatch) -> None:
    honest = Window.judge

    def judge(self: Window, seq: int, message_id: bytes, *, at_once: bool = False) -> Verdict:
        verdict = honest(self, seq, message_id, at_once=at_once)
        return Verdict.STALE if verdict is Verdict.REPEAT else verdict

    patch.setattr(Window, "judge", judge)


def _never_settles_a_simultaneous_dial(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Node, "_superfluous", lambda self, peer: None)


def _both_sides_settle_it(patch: pytest.MonkeyPatch) -> None:
    def superfluous(self: Node, peer: PeerRecord) -> Link | None:
        return peer.links[0] if len(peer.links) > 1 and peer.links[0].outbound else None

    patch.setattr(Node, "_superfluous", superfluous)


def _never_notices_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Node, "_check_link", lambda self, link: None)


def _does_not_reconnect(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dialler, "again_later", lambda self, peer, now: None)


def _has_room_for_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "_has_room", lambda self, peer, message: True)


def _forgets_what_is_parked(patch: pytest.MonkeyPatch) -> None:
    def unpark(self: Outbox, peer: PeerRecord, out: list[Effect]) -> None:
        peer.parked.clear()

    patch.setattr(Outbox, "_unpark", unpark)


SABOTAGES: list[Callable[[pytest.MonkeyPatch], None]] = [
    _never_resends,
    _forgets_what_it_has_seen,
    _takes_a_repeat_for_a_conflict,
    _does_not_acknowledge_a_repeat,
    _never_settles_a_simultaneous_dial,
    _both_sides_settle_it,
    _never_notices_silence,
    _does_not_reconnect,
    _has_room_for_everything,
    _forgets_what_is_parked,
]


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__.strip("_"))
def test_sabotage_is_caught(sabotage: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    breaks(lambda seed: World(seed).run(), range(60))


def _forgets_over_restarts_what_it_handled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Disk, "restore", _without(Disk.restore, "handled"))


def _forgets_over_restarts_what_it_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Disk, "restore", _without(Disk.restore, "outgoing"))


def _forgets_over_restarts_what_was_not_handled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Disk, "restore", _without(Disk.restore, "arrived"))


def _without(restore: Callable[[Disk], Restore], box: str) -> Callable[[Disk], Restore]:
    return lambda self: structs.replace(restore(self), **{box: ()})


def _accepts_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    honest = Shelf.put

    def put(self: Shelf, key: bytes, message: Outgoing, out: list[Effect]) -> None:
        honest(self, key, message, out)
        out.append(Reply(message.delivery.request, None, 1))
        message.delivery.missing = 0

    patch.setattr(Shelf, "put", put)


def _acknowledges_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    honest = Arrivals.take

    def take(self: Arrivals, link: Link, message: VerifiedMessage, verdict: Verdict, out: list[Effect]) -> None:
        honest(self, link, message, verdict, out)
        out.append(Acknowledge(link.number, message.id))

    patch.setattr(Arrivals, "take", take)


DISK_SABOTAGES: list[Callable[[pytest.MonkeyPatch], None]] = [
    _forgets_over_restarts_what_it_handled,
    _forgets_over_restarts_what_it_kept,
    _forgets_over_restarts_what_was_not_handled,
    _accepts_before_the_disk_has_it,
    _acknowledges_before_the_disk_has_it,
]


@pytest.mark.parametrize("sabotage", DISK_SABOTAGES, ids=lambda sabotage: sabotage.__name__.strip("_"))
def test_sabotage_with_disks_is_caught(
    sabotage: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    breaks(lambda seed: World(seed, Plan(disks=True, crashes=8, commit_s=0.2)).run(), range(300))


def test_the_command_counts_replays_and_refuses_an_empty_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--world", "links", "--seeds", "12"]) == 0
    assert "links: 12 seeds in" in capsys.readouterr().out
    assert main(["--world", "links", "--seed", "3", "--show"]) == 0
    assert "PeerConnected" in capsys.readouterr().out
    assert main(["--world", "links", "--seeds", "0"]) == 1
    assert "EMPTY" in capsys.readouterr().err


def test_a_broken_seed_prints_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _never_notices_silence(monkeypatch)
    assert main(["--world", "links", "--seeds", "60"]) == 1
    assert re.search(
        r"BROKEN seed \d+, n\d.*\nreplay: python -m musignet\.sim --world links --seed \d+ --show",
        capsys.readouterr().err,
    )
