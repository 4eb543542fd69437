"""Cosigners in processes of their own over loopback TCP: from the last approval to the end.

All but the last approve by their policy; that one asks a person. The clock starts when its keyholder has checked the
person's proof, before the approval is on disk, and stops when the transaction is on the disk of all: one record for the
approval, and four at each of them.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

from ..machine import cpus
from ..sides import BenchError, Side
from ..stats import percentile
from .cosigner import COMPLETED
from .wallet import signing_group, spend

__all__ = ["ceremonies"]

_MODULE = "bench.ceremony.cosigner"
_QUIET_S = 0.01
_SIGNERS = 3
_numbers = count()


def ceremonies(folder: Path, number: int) -> dict[str, float]:
    """Run so many ceremonies with one input each. Returns p50 and p99 in milliseconds."""
    with ExitStack() as stack:
        sides = []
        for at in range(_SIGNERS):
            role = "Asking" if at == _SIGNERS - 1 else "Cosigner"
            sides.append(stack.enter_context(closing(Side(_MODULE, role, cpus(), folder))))
        ports = [side.call("open", number=at, signers=_SIGNERS) for at, side in enumerate(sides)]
        for side in sides:
            side.call("join", ports=ports)
        for side in sides:
            side.call("connect")
        times = [_ceremony(sides) for _ in range(number)]
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def _all(sides: list[Side], verb: str) -> list[dict[str, float | str]]:
    for side in sides:
        side.post(verb)
    return [side.result() for side in sides]


def _ceremony(sides: list[Side]) -> float:
    """Run one ceremony; return milliseconds."""
    psbt = spend(signing_group(_SIGNERS), 1, next(_numbers)).psbt
    _all(sides, "begin")
    session = sides[0].call("propose", psbt_hex=psbt.hex())
    _all(sides, "ready")
    time.sleep(_QUIET_S)  # every approval has arrived everywhere
    for side in sides[:-1]:  # whatever is told to them is told before the clock starts
        side.post("ended")
    time.sleep(_QUIET_S)
    sides[-1].post("consent", session=session)
    ends = [side.result() for side in sides]
    time.sleep(_QUIET_S)  # what is still said belongs to this ceremony
    if any(one["end"] != COMPLETED for one in ends):
        raise BenchError(f"a ceremony over TCP did not complete: {ends}")
    return (max(float(one["ended_at"]) for one in ends) - float(ends[-1]["said_yes_at"])) * 1e3
