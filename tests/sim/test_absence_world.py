"""The simulator of cosigners who are away at times, and of relays that harm what is left there; planted bugs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from musignet.node import outbox
from musignet.node.ceremonies import Ceremonies
from musignet.node.effects import Effect
from musignet.node.outbox import Outbox
from musignet.node.peers import PeerRecord
from musignet.signing.records import Topology
from musignet.sim.__main__ import main
from musignet.sim.absences import MUST_HAPPEN, AbsencePlan, AbsenceWorld, run
from support.seeds import breaks, never_happened

SEEDS = 120
BLOCK = 40


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_and_everything_happens(first: int) -> None:
    assert never_happened(run, range(first, first + BLOCK), MUST_HAPPEN) == []


def test_same_seed_same_tape_other_seed_another() -> None:
    assert run(7).digest() == run(7).digest() != run(8).digest()


@pytest.mark.parametrize("topology", Topology)
@pytest.mark.parametrize("nodes", [2, 4])
def test_other_sizes(nodes: int, topology: Topology) -> None:
    for seed in range(4):
        run(seed, AbsencePlan(nodes=nodes, topology=topology))


def test_the_command_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--world", "absences", "--seed", "4", "--show"]) == 0
    assert "proposal in a letter" in capsys.readouterr().out


# --- planted bugs: each is a line or two, and each must be caught -----------------------------------------------------

Patch = pytest.MonkeyPatch


def _leaves_rounds_at_relays(patch: Patch) -> None:
    patch.setattr(outbox, "_may_leave", lambda peer, message: True)


def _says_nothing_again(patch: Patch) -> None:
    def resend(self: Outbox, peer: PeerRecord, out: list[Effect]) -> None:
        self._unpark(peer, out)

    patch.setattr(Outbox, "resend", resend)
    patch.setattr(Ceremonies, "links_changed", lambda self, key, now, out: None)


SABOTAGES: list[tuple[Callable[[Patch], None], str]] = [
    (_leaves_rounds_at_relays, "is left at a relay"),
    (_says_nothing_again, "did not complete"),
]


@pytest.mark.parametrize(
    ("sabotage", "invariant"), SABOTAGES, ids=[sabotage.__name__.strip("_") for sabotage, _ in SABOTAGES]
)
def test_sabotage_is_caught(sabotage: Callable[[Patch], None], invariant: str, monkeypatch: Patch) -> None:
    sabotage(monkeypatch)
    breaks(lambda seed: AbsenceWorld(seed).run(), range(80), invariant)


def test_a_run_in_which_nothing_is_left_at_relays_proves_nothing(monkeypatch: Patch) -> None:
    monkeypatch.setattr(Ceremonies, "_linked", lambda self, key: _live(self, key))
    assert "proposal in a letter" in never_happened(run, range(10), MUST_HAPPEN)


def _live(self: Ceremonies, key: bytes) -> PeerRecord | None:
    peer = self._book.get(key)
    return peer if peer is not None and peer.live and not peer.provisional else None
