"""What the tests of every simulated world do with seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from musignet.sim.invariants import Broken
from musignet.sim.tape import Tape

__all__ = ["breaks", "never_happened"]


def never_happened(run: Callable[[int], Tape], seeds: Iterable[int], must: Iterable[str]) -> list[str]:
    """Run these seeds. Returns what should have happened in one of them and did not; raises Broken."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += run(seed).counts
    return [what for what in must if not counts[what]]


def breaks(run: Callable[[int], object], seeds: Iterable[int], invariant: str | None = None) -> None:
    """Fail unless one of these seeds breaks an invariant, said in words that match `invariant`."""

    def hunt() -> None:
        for seed in seeds:
            run(seed)

    with pytest.raises(Broken, match=invariant):
        hunt()
