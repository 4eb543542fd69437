"""The simulator of letters at relays that harm them: invariants over seeds, and planted bugs that must be caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from musignet.node.core import Node
from musignet.node.effects import Effect
from musignet.node.outbox import Outbox
from musignet.node.peers import Link, PeerRecord
from musignet.node.window import Verdict, Window
from musignet.sim.__main__ import main
from musignet.sim.disk import Disk
from musignet.sim.invariants import Broken
from musignet.sim.letters import MUST_HAPPEN, LetterPlan, LetterWorld, run
from musignet.wire.letter import Reassembly
from support.seeds import breaks, never_happened

SEEDS = 150
BLOCK = 50


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_and_everything_happens(first: int) -> None:
    assert never_happened(run, range(first, first + BLOCK), MUST_HAPPEN) == []


def test_same_seed_same_tape_other_seed_another() -> None:
    assert run(7).digest() == run(7).digest() != run(8).digest()


@pytest.mark.parametrize("relays", [1, 3])
@pytest.mark.parametrize("nodes", [2, 4])
def test_other_sizes(nodes: int, relays: int) -> None:
    for seed in range(4):
        run(seed, LetterPlan(nodes=nodes, relays=relays))


def test_the_command_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--world", "letters", "--seed", "3", "--show"]) == 0
    assert "letter read" in capsys.readouterr().out


# --- planted bugs: each is a line or two, and each must be caught -----------------------------------------------------

Patch = pytest.MonkeyPatch


def _says_nothing_again_to_who_is_away(patch: Patch) -> None:
    def ready(self: Node, link: Link) -> None:
        link.epoch = b"?" * 8
        link.peer.links = [link]

    patch.setattr(Node, "_mail_ready", ready)


def _forgets_what_is_parked(patch: Patch) -> None:
    def unpark(self: Outbox, peer: PeerRecord, out: list[Effect]) -> None:
        peer.parked.clear()

    patch.setattr(Outbox, "_unpark", unpark)


def _forgets_over_restarts_what_it_handled(patch: Patch) -> None:
    honest = Disk.restore
    patch.setattr(Disk, "restore", lambda self: structs.replace(honest(self), handled=()))


def _does_not_acknowledge_a_repeat(patch: Patch) -> None:
    honest = Window.judge

    def judge(self: Window, seq: int, message_id: bytes, *, at_once: bool = False) -> Verdict:
        verdict = honest(self, seq, message_id, at_once=at_once)
        return Verdict.STALE if verdict is Verdict.REPEAT else verdict

    patch.setattr(Window, "judge", judge)


def _takes_what_comes_late_for_stale(patch: Patch) -> None:
    honest = Window.judge

    def judge(self: Window, seq: int, message_id: bytes, *, at_once: bool = False) -> Verdict:
        return Verdict.STALE if seq < self.highest else honest(self, seq, message_id, at_once=at_once)

    patch.setattr(Window, "judge", judge)


def _puts_no_letter_together(patch: Patch) -> None:
    honest = Reassembly.take_untrusted
    patch.setattr(Reassembly, "take_untrusted", lambda self, part: honest(Reassembly(), part))


SABOTAGES = [
    _says_nothing_again_to_who_is_away,
    _forgets_what_is_parked,
    _forgets_over_restarts_what_it_handled,
    _does_not_acknowledge_a_repeat,
    _takes_what_comes_late_for_stale,
    _puts_no_letter_together,
]


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__.strip("_"))
def test_sabotage_is_caught(sabotage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    sabotage(monkeypatch)
    breaks(lambda seed: LetterWorld(seed, LetterPlan(apart=True)).run(), range(40))


def test_where_relays_hand_out_nothing_that_is_noticed() -> None:
    world = LetterWorld(1, LetterPlan(apart=True))
    for relay in world.relays:
        relay._deliver = lambda reader, part: None
    with pytest.raises(Broken, match=r"still has|never arrived|never answered"):
        world.run()
