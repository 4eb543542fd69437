"""What is measured of a ceremony, and what TARGETS asks of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ..figure import Figure
from . import floor
from .memory import resident_mib
from .tcp import ceremonies
from .wallet import signing_group, spend
from .world import World

__all__ = ["CASES", "TITLES", "Case", "Samples"]

TITLES = {
    "floor": "libsecp256k1, each partial verified",
    "sum": "libsecp256k1, only the sum verified",
    "ours": "musignet",
    "bip327": "BIP-327 alone",
    "here": "this machine",
}

Samples = dict[str, dict[str, float]]
"""Contestant to figure to value."""

_MEMORY = Path("/dev/shm")
"""A file system without a disk below it: an fsync there costs nothing."""


@dataclass(frozen=True)
class Case:
    """`sample(folder, quick)` returns a value of each figure for each contestant."""

    name: str
    figures: dict[str, Figure]
    sample: Callable[[Path, bool], Samples]
    floor: str = "floor"
    """The contestant that the ratios are to."""


# --- in memory --------------------------------------------------------------------------------------------------------


def _costs(rounds_s: float, whole_s: float, parts: int) -> dict[str, float]:
    return {"rounds": rounds_s * 1e3, "whole": whole_s * 1e3, "each": whole_s * 1e6 / parts}


def _ceremony(signers: int, inputs: int, star: bool, _: Path, quick: bool) -> Samples:
    """Run floor and ours in turn, several times where one is short; each figure is the median."""
    if quick:
        signers, inputs = min(signers, 5), min(inputs, 3)
    raw, made = (floor.star if star else floor.mesh), spend(signing_group(signers), inputs, described=not star)
    floors = ("sum",) if star else ("floor", "sum")
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in (*floors, "ours")}
    parts = signers * inputs
    for _number in range(1 if quick else max(1, 60 // parts)):
        for name in floors:
            cost = raw(signers, inputs, each=name == "floor")
            taken[name].append(_costs(cost.rounds, cost.whole, parts))
        times = World(signers, made, star=star).run()
        taken["ours"].append(_costs(times.rounds, times.whole, parts))
    return {name: {one: median(run[one] for run in runs) for one in runs[0]} for name, runs in taken.items()}


def _in_memory(signers: int, inputs: int, *, star: bool = False, aim: float | None = None) -> Case:
    said = f"<= {aim:g}x" if aim else ""
    title = f"{'star, ' if star else ''}{signers:,} signers, {inputs} input{'s' * (inputs > 1)}"
    figures = {
        "rounds": Figure(f"{title}: both rounds, all signers", "ms", aim=aim, aim_said=said),
        "whole": Figure(f"{title}: reviews and rounds, all signers", "ms", aim=aim, aim_said=said),
        "each": Figure(f"{title}: the same for each signer and input", "µs"),
    }
    name = f"{'star' if star else 'mesh'}-{signers}x{inputs}"
    return Case(name, figures, partial(_ceremony, signers, inputs, star), "sum" if star else "floor")


# --- bytes, loopback, memory ------------------------------------------------------------------------------------------

_BIP327_BYTES = 66 + 32
_SIZES = (1, 10, 100)


def _bytes(_: Path, quick: bool) -> Samples:
    ours = {}
    for inputs in _SIZES[:2] if quick else _SIZES:
        times = World(3, spend(signing_group(3), inputs)).run()
        ours[f"rounds-{inputs}"] = times.round_bytes / (3 * inputs)
        ours[f"all-{inputs}"] = times.all_bytes / (3 * inputs)
    return {"bip327": dict.fromkeys(ours, float(_BIP327_BYTES)), "ours": ours}


def _bytes_figures() -> dict[str, Figure]:
    figures = {}
    for inputs in _SIZES:
        aim, said = (1.15, "<= 1.15x") if inputs == _SIZES[-1] else (None, "")
        title = f"bytes for each signer and input, sent once, 3 signers, {inputs} input{'s' * (inputs > 1)}"
        figures[f"rounds-{inputs}"] = Figure(f"{title}: both rounds", "B", aim=aim, aim_said=said)
        figures[f"all-{inputs}"] = Figure(f"{title}: and the completions", "B")
    return figures


def _over_tcp(in_memory: bool, folder: Path, quick: bool) -> Samples:
    number = 5 if quick else 100
    costs = sorted(floor.mesh(3, 1, each=True).rounds * 1e3 for _ in range(20))
    raw = {"p50": costs[10], "p99": costs[-1]}
    if not in_memory:
        return {"floor": raw, "ours": ceremonies(folder, number)}
    if not _MEMORY.is_dir():
        return {"floor": raw}
    with TemporaryDirectory(prefix="musignet-bench-", dir=_MEMORY) as name:
        return {"floor": raw, "ours": ceremonies(Path(name), number)}


def _tcp(name: str, said: str, aim_ms: float, in_memory: bool) -> Case:
    title = f"3 of 3, one input, loopback TCP, {said}"
    figures = {
        "p50": Figure(f"{title}, p50", "ms", aim_value=aim_ms, aim_said=f"<= {aim_ms:g} ms"),
        "p99": Figure(f"{title}, p99", "ms"),
    }
    return Case(name, figures, partial(_over_tcp, in_memory))


def _resident(folder: Path, quick: bool) -> Samples:
    return {"ours": {what: resident_mib(what, folder) for what in ("node", "keyholder", "ceremony")}}


CASES: tuple[Case, ...] = (
    Case(
        "verify",
        {"us": Figure("BIP-340 verify, the V of the targets", "µs")},
        lambda *_: {"here": {"us": floor.verify_us()}},
    ),
    *(_in_memory(signers, 1) for signers in (2, 3, 5, 15)),
    _in_memory(3, 10),
    *(_in_memory(3, inputs, aim=2) for inputs in (100, 250)),
    _in_memory(100, 1, star=True),
    _in_memory(1000, 1, star=True, aim=2),
    Case("bytes", _bytes_figures(), _bytes, "bip327"),
    _tcp("tcp", "journals on disk", 10, in_memory=False),
    _tcp("tcp-no-fsync", "journals in memory", 3, in_memory=True),
    Case(
        "memory",
        {
            "node": Figure("resident, a node at its start", "MiB", aim_value=60, aim_said="<= 60 MiB"),
            "keyholder": Figure(
                "resident, a keyholder after its key was opened", "MiB", aim_value=40, aim_said="<= 40 MiB"
            ),
            "ceremony": Figure("resident at most, 3 signers, 250 inputs, all in one process", "MiB"),
        },
        _resident,
    ),
)
