"""Runs the measures: one process per side, the contestants in alternation, round after round."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..machine import cpus, describe
from ..sides import Pair
from .plan import LIMITS, MEASURES, TITLES, Measure
from .tls import write_certificates

__all__ = ["run"]


def run(
    *,
    only: Sequence[str] | None,
    against: Sequence[str] | None,
    rounds: int,
    quick: bool,
    profile: Path | None,
    command: str,
) -> dict[str, Any]:
    """Measure, saying on standard error what runs.

    Returns: everything measured, ready for JSON.
    Raises:  BenchError when a side fails.
    """
    results: dict[str, Any] = {
        "case": "link",
        "command": command,
        "machine": describe(),
        "rounds": rounds,
        "quick": quick,
        "limits": LIMITS,
        "titles": TITLES,
        "measures": {},
    }
    begun = time.monotonic()
    with TemporaryDirectory(prefix="musignet-bench-") as name:
        folder = Path(name)
        write_certificates(folder)
        for measure in MEASURES:
            contestants = [c for c in measure.contestants if not against or c in against]
            if contestants and (not only or measure.name in only):
                samples = _samples(measure, contestants, rounds, quick, folder, profile)
                figures = {name: asdict(figure) for name, figure in measure.figures.items()}
                results["measures"][measure.name] = {"figures": figures, "samples": samples}
    results["seconds"] = round(time.monotonic() - begun, 1)
    return results


def _samples(
    measure: Measure, contestants: list[str], rounds: int, quick: bool, folder: Path, profile: Path | None
) -> dict[str, dict[str, list[float]]]:
    samples: dict[str, dict[str, list[float]]] = {c: {name: [] for name in measure.figures} for c in contestants}
    with ExitStack() as stack:
        pairs = [stack.enter_context(_pair(measure, c, folder, profile)) for c in contestants]
        for pair in pairs:
            _say(f"{measure.name:16} warming up   {TITLES[pair.contestant]:24} ")
            _open(measure, pair)
            measure.sample(pair, True)
            _say("\n")
        for number in range(1, rounds + 1):
            for pair in pairs:
                _say(f"{measure.name:16} round {number} of {rounds} {TITLES[pair.contestant]:24} ")
                sample = measure.sample(pair, quick)
                _say("  ".join(f"{sample[n]:10,.2f} {f.unit}" for n, f in measure.figures.items()) + "\n")
                for name, value in sample.items():
                    samples[pair.contestant][name].append(value)
    return samples


def _pair(measure: Measure, contestant: str, folder: Path, profile: Path | None) -> Pair:
    """Start the processes of a contestant on the CPUs of this measure."""
    available = cpus()
    first, last = available[:1], available[-1:]
    if measure.links is None:
        return Pair(contestant, last, None, folder, profile)
    far = available if contestant in measure.wide else last if measure.one_cpu else first
    return Pair(contestant, last, far, folder, profile)


def _open(measure: Measure, pair: Pair) -> None:
    if measure.links is not None:
        address = pair.far.call("open", links=measure.links)
        pair.near.call("open", address=address, links=measure.links)


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
