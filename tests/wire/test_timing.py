"""A failed act one takes the same time whatever is wrong with it, and does the same work (THREATS.md T13).

As dudect does it (Reparaz, Balasch, Verbauwhede 2017): two classes of input in random order, and Welch's t-test on how
long each took. What must not show is whether the key in act one is ours: then a stranger could ask a node who it is.

`make timing` takes 100,000 samples of each class.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from itertools import cycle
from math import sqrt
from statistics import fmean, variance
from time import perf_counter_ns
from types import FrameType
from typing import Any

import pytest

from musignet.wire.noise import HandshakeError, Initiator, Responder
from support.keys import ALICE, BOB, CAROL, secret

SAMPLES = int(os.environ.get("MUSIGNET_TIMINGS", "1500"))
T_MAX = 4.5
"""Of dudect: beyond it the two classes differ. By chance once in 100,000 runs."""
KEPT = 0.9
"""The slowest tenth is the machine's: interrupts, other processes."""
POOL = 32

Answer = Callable[[bytes], None]


def for_another_key() -> list[bytes]:
    """Return acts that are right in every way, made for Carol."""
    return [Initiator(ALICE, CAROL.public, secret(f"carol {n}")).act_one() for n in range(POOL)]


def for_us_but_changed() -> list[bytes]:
    """Return acts made for Bob, one bit of the tag flipped."""
    acts = [Initiator(ALICE, BOB.public, secret(f"bob {n}")).act_one() for n in range(POOL)]
    return [act[:-1] + bytes((act[-1] ^ 1,)) for act in acts]


def answer(act: bytes) -> None:
    """What a listener does with act one."""
    try:
        Responder(BOB, b"\1" * 32).act_two(act)
    except HandshakeError:
        return
    raise AssertionError("it was refused")


def times(classes: tuple[list[bytes], list[bytes]], answer: Answer, samples: int, seed: int) -> tuple[list[int], ...]:
    """Return how many nanoseconds each answer took, by class, in an order that nobody can predict."""
    order = [0, 1] * samples
    random.Random(seed).shuffle(order)
    acts = cycle(classes[0]), cycle(classes[1])
    taken: tuple[list[int], ...] = ([], [])
    for which in order:
        act = next(acts[which])
        began = perf_counter_ns()
        answer(act)
        taken[which].append(perf_counter_ns() - began)
    return taken


def t_value(first: list[int], second: list[int]) -> float:
    """Return Welch's t of the fastest nine tenths of both together."""
    most = sorted(first + second)[int(KEPT * (len(first) + len(second))) - 1]
    one, other = ([x for x in side if x <= most] for side in (first, second))
    spread = variance(one) / len(one) + variance(other) / len(other)
    return (fmean(one) - fmean(other)) / sqrt(spread)


def work(act: bytes) -> tuple[str, ...]:
    """Return every call that answering an act makes, in order, those into C included."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, what: Any) -> None:
        if event in ("call", "c_call"):
            calls.append(frame.f_code.co_name if event == "call" else f"C {what.__name__}")

    sys.setprofile(note)
    try:
        answer(act)
    finally:
        sys.setprofile(None)
    return tuple(calls)


def test_the_same_calls_are_made_whatever_is_wrong() -> None:
    traces = [work(act) for act in for_another_key() + for_us_but_changed()]
    assert len(traces[0]) > 10
    assert len(set(traces)) == 1


@pytest.mark.skipif("MUSIGNET_TIMINGS" not in os.environ, reason="times on a busy machine prove nothing: `make timing`")
@pytest.mark.driver
def test_the_time_does_not_tell_whose_key_it_was_made_for() -> None:
    taken = times((for_another_key(), for_us_but_changed()), answer, SAMPLES, seed=1)
    t = t_value(*taken)
    print(
        f"\n{SAMPLES} samples each: means {fmean(taken[0]) / 1e3:.1f} and {fmean(taken[1]) / 1e3:.1f} us, t = {t:+.2f}"
    )
    assert abs(t) < T_MAX


@pytest.mark.driver
def test_a_leak_would_be_seen() -> None:
    """A listener that spends a hash more where the key is its own."""
    mine = set(for_us_but_changed())

    def leaky(act: bytes) -> None:
        answer(act)
        if act in mine:
            sorted(range(300), key=lambda n: -n)

    taken = times((for_another_key(), for_us_but_changed()), leaky, min(SAMPLES, 1500), seed=2)
    assert abs(t_value(*taken)) > T_MAX
