"""Runs the cases, round after round, in one process but for the memory of a fresh one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..machine import describe
from .plan import CASES, TITLES, Case

__all__ = ["run"]


def run(*, only: Sequence[str] | None, rounds: int, quick: bool, command: str) -> dict[str, Any]:
    """Measure, saying on standard error what runs.

    Returns: everything measured, ready for JSON.
    Raises:  BenchError when a ceremony does not complete.
    """
    results: dict[str, Any] = {
        "case": "ceremony",
        "command": command,
        "machine": describe(),
        "rounds": rounds,
        "quick": quick,
        "titles": TITLES,
        "measures": {},
    }
    begun = time.monotonic()
    for case in CASES:
        if not only or case.name in only:
            samples = _samples(case, rounds, quick)
            figures = {name: asdict(figure) for name, figure in case.figures.items()}
            results["measures"][case.name] = {"figures": figures, "samples": samples, "floor": case.floor}
    results["seconds"] = round(time.monotonic() - begun, 1)
    return results


def _samples(case: Case, rounds: int, quick: bool) -> dict[str, dict[str, list[float]]]:
    samples: dict[str, dict[str, list[float]]] = {}
    for number in range(1, rounds + 1):
        with TemporaryDirectory(prefix="musignet-bench-") as folder:
            taken = case.sample(Path(folder), quick)
        for contestant, values in taken.items():
            _say(case, f"round {number} of {rounds}", TITLES[contestant], values)
            for name, value in values.items():
                samples.setdefault(contestant, {}).setdefault(name, []).append(value)
    return samples


def _say(case: Case, which: str, who: str, values: dict[str, float]) -> None:
    shown = "  ".join(f"{value:10,.2f} {case.figures[name].unit}" for name, value in values.items())
    print(f"{case.name:16} {which} {who:36} {shown}", file=sys.stderr, flush=True)
