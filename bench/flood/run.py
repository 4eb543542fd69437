"""Runs the floods, each against processes of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..ceremony.cosigner import COMPLETED
from ..ceremony.wallet import identity, signing_group, spend
from ..machine import cpus, describe
from ..sides import Side
from .plan import FLOODS, MIB, Flood
from .sides import LOG_FILE, info

__all__ = ["run"]

_MODULE = "bench.flood.sides"
_SAMPLE_S = 0.05
_CALM_S = 60.0
"""How long memory may take to come back."""
_CALM_MIB = 8
_NEVER_MS = 1e6


def run(*, only: Sequence[str] | None, seconds: float, command: str) -> dict[str, Any]:
    """Flood for so long each, saying on standard error what was measured. Returns it ready for JSON.

    Raises: BenchError when a process dies.
    """
    results: dict[str, Any] = {
        "case": "flood", "command": command, "machine": describe(), "flood_s": seconds, "floods": {},
    }  # fmt: skip
    begun = time.monotonic()
    for flood in FLOODS:
        if only and flood.name not in only:
            continue
        measured: dict[str, Any] = {"title": flood.title, "limits": flood.limits, "descriptors": flood.descriptors}
        with TemporaryDirectory(prefix="musignet-bench-") as folder:
            measured |= _flood(flood, seconds, Path(folder))
        shown = {key: round(one, 2) for key, one in measured.items() if isinstance(one, float)}
        print(f"{flood.name:16} {shown or measured}", file=sys.stderr, flush=True)
        results["floods"][flood.name] = measured
    results["seconds"] = round(time.monotonic() - begun, 1)
    return results


def _flood(flood: Flood, seconds: float, folder: Path) -> dict[str, Any]:
    ours, others = cpus()[:1], cpus()[1:] or cpus()
    with ExitStack() as stack:

        def side(role: str, where: list[int]) -> Side:
            return stack.enter_context(closing(Side(_MODULE, role, where, folder)))

        victim, friend = side("Victim", ours), side("Friend", others)
        honest, attacker = side("Honest", others), side("Attacker", others)
        port = victim.call("open", number=0, signers=2, limits=flood.limits, descriptors=flood.descriptors)
        ports = [port, friend.call("open", number=1, signers=2)]
        for one in (victim, friend):
            one.call("join", ports=ports)
        friend.call("connect")
        session = _begin(victim, friend)
        honest.call("start", victim=info(port))
        start, log = victim.resident_bytes(), folder / LOG_FILE
        lines = _lines(log)
        victim.call("watch")
        flooded = victim.call("discovery_port") if flood.beacons else port
        attacker.call("start", name=flood.name, port=flooded, key_hex=identity(0).pubkey_hex)
        honest.call("go")
        peak = _pass(seconds / 2, victim, start)
        victim.post("consent", session=session)
        peak = _pass(seconds / 2, victim, peak)
        ceremony, watched = victim.result(), victim.call("watched")
        count, let_in = attacker.call("stop"), honest.call("stop")
        written = [line for line in _lines(log)[len(lines) :] if " honest-" not in line]
        after, calm_s = _calm(victim, start)
    completed = ceremony["end"] == COMPLETED
    took_ms = 1000 * (float(ceremony["ended_at"]) - float(ceremony["said_yes_at"]))
    return {
        "start_mib": start / MIB,
        "peak_mib": peak / MIB,
        "after_mib": (after - start) / MIB,
        "calm_s": calm_s,
        "lag_p99_ms": watched["p99_ms"],
        "lag_max_ms": watched["max_ms"],
        "handled": watched["handled"],
        "attacks_per_s": count / seconds,
        "again_max_ms": _longest(let_in["honest-again"]),
        "anew_max_ms": _longest(let_in["honest-anew"]),
        "honest": let_in,
        "ceremony_ms": took_ms if completed else _NEVER_MS,
        "ceremony_end": ceremony["end"],
        "lines_per_s": len(written) / seconds,
        "longest_line": max(map(len, written), default=0),
    }


def _longest(dialled: dict[str, Any]) -> float:
    """Return how long the longest dial took, in milliseconds."""
    took_ms: list[float] = dialled["took_ms"]
    return _NEVER_MS if dialled["failed"] else max(took_ms, default=_NEVER_MS)


def _begin(victim: Side, friend: Side) -> str:
    """Propose, and wait until the victim's person is asked. Returns the session."""
    for one in (victim, friend):
        one.call("begin")
    session: str = friend.call("propose", psbt_hex=spend(signing_group(2), 1).psbt.hex())
    for one in (victim, friend):
        one.call("ready")
    return session


def _pass(seconds: float, victim: Side, peak: int) -> int:
    """Let so much time pass. Returns the most memory the victim had, or `peak` where that is more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        peak = max(peak, victim.resident_bytes())
        time.sleep(_SAMPLE_S)
    return peak


def _calm(victim: Side, start: int) -> tuple[int, float]:
    """Wait until the memory is back, but not for ever. Returns what it is then, and how long that took."""
    begun = time.monotonic()
    while (now := victim.resident_bytes()) > start + _CALM_MIB * MIB and time.monotonic() < begun + _CALM_S:
        time.sleep(_SAMPLE_S)
    return now, time.monotonic() - begun


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []
