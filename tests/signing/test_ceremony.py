"""Whole ceremonies over seeds: honest ones complete, liars are named, nothing is signed twice, sabotage is caught."""

from __future__ import annotations

from collections import Counter

import pytest

from musignet.signing.blame import Kind
from musignet.signing.effects import End
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


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_crashes_and_losses(first: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + 20):
        counts += World(seed, inputs=1, crashes=seed % 5, loss=0.05 * (seed % 3)).run().counts
    assert counts["crash"]
    assert counts["COMPLETED"] >= 60
