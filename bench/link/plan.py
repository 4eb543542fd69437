"""What is measured, on which CPUs, how often, and what TARGETS asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.unbound import RATES

from ..figure import Figure
from ..sides import Pair

__all__ = ["CONTESTANTS", "LIMITS", "MEASURES", "TITLES", "Measure"]

TITLES = {
    "floor": "floor (no encryption)",
    "ours": "musignet",
    "ours_plain": "musignet, plain handler",
    "ours_tls": "musignet over TLS",
    "tls": "TLS 1.3, uvloop",
    "zmq": "pyzmq CURVE, blocking",
    "arithmetic": "arithmetic",
    "imports": "import",
}
CONTESTANTS = ("floor", "ours", "ours_plain", "ours_tls", "tls", "zmq")
_ALL = ("floor", "ours", "ours_tls", "tls", "zmq")

LIMITS = {
    "inbound_slots": 4096,
    "outbound_slots": 4096,
    "half_open_per_prefix": 16,
    "prefix_handshakes_per_s": 10**6,
    "prefix_burst_handshakes": 10**6,
    "handshakes_share": 10**6,
    **RATES,
}
"""What our side overrides of `musignet.Limits`: here all links of a measurement come from one address."""

SMALL_BYTES = 300
LARGE_BYTES = 16 * 1024
IN_FLIGHT = 16
_BURST = 500


@dataclass(frozen=True)
class Measure:
    """`sample(pair, quick)` returns a number for each of `figures`."""

    name: str
    figures: dict[str, Figure]
    sample: Callable[[Pair, bool], dict[str, float]]
    contestants: tuple[str, ...] = _ALL
    links: int | None = 1
    """Links opened beforehand; None: there is no far side."""
    one_cpu: bool = False
    """Both sides on one CPU; otherwise each has one of its own."""
    wide: frozenset[str] = field(default_factory=frozenset)
    """Contestants whose far side may use both CPUs."""


def _round_trip(pair: Pair, quick: bool) -> dict[str, float]:
    result: dict[str, float] = pair.near.call("round_trips", count=100 if quick else 2000, size=SMALL_BYTES)
    return result


def _one_way(size: int, count: int) -> Callable[[Pair, bool], dict[str, float]]:
    def sample(pair: Pair, quick: bool) -> dict[str, float]:
        sent = count // 20 if quick else count
        return {"rate": sent / pair.near.call("one_way", count=sent, size=size)}

    return sample


def _backlog(pair: Pair, quick: bool) -> dict[str, float]:
    """The far side is stopped while a burst is sent, so it then has its CPUs to itself."""
    total = 0.0
    runs = 1 if quick else 4
    for _ in range(runs):
        pair.far.freeze(True)
        pair.near.post("burst", count=_BURST, size=SMALL_BYTES)
        time.sleep(0.1)  # the burst is in the kernel's buffers by then: it takes some 30 ms to sign
        begun = time.perf_counter()
        pair.far.freeze(False)
        total += pair.near.result() - begun
    return {"rate": runs * _BURST / total}


def _broadcast(count: int) -> Callable[[Pair, bool], dict[str, float]]:
    def sample(pair: Pair, quick: bool) -> dict[str, float]:
        return {"ms": pair.near.call("broadcasts", count=5 if quick else count, size=SMALL_BYTES)}

    return sample


def _dial(pair: Pair, quick: bool) -> dict[str, float]:
    return {"ms": pair.near.call("dials", count=10 if quick else 200)}


def _connects(pair: Pair, quick: bool) -> dict[str, float]:
    count = IN_FLIGHT * (2 if quick else 30)
    return {"rate": count / pair.near.call("connects", count=count, in_flight=IN_FLIGHT)}


def _memory(pair: Pair, quick: bool) -> dict[str, float]:
    count = IN_FLIGHT * (2 if quick else 13)
    before = pair.far.call("resident_kib")
    pair.near.call("hold", count=count, in_flight=IN_FLIGHT)
    time.sleep(0.1 if quick else 1.5)  # past our first ping
    return {"kib": (pair.far.call("resident_kib") - before) / count}


def _arithmetic(pair: Pair, quick: bool) -> dict[str, float]:
    result: dict[str, float] = pair.near.call("costs", seconds=0.1 if quick else 0.9)
    return result


def _import(pair: Pair, quick: bool) -> dict[str, float]:
    times = [pair.near.call("import_ms") for _ in range(1 if quick else 3)]
    least = {name: min(t[name] for t in times) for name in times[0]}
    return {**least, "ratio": least["musignet"] / least["dependencies"]}


MEASURES: tuple[Measure, ...] = (
    Measure(
        "import",
        {
            "musignet": Figure("import musignet", "ms"),
            "dependencies": Figure("import its dependencies alone", "ms"),
            "ratio": Figure("ratio", "x", aim_value=1.25, aim_said="<= 1.25x"),
        },
        _import,
        ("imports",),
        links=None,
    ),
    Measure(
        "arithmetic",
        {
            "sign": Figure("BIP-340 sign", "µs"),
            "verify": Figure("BIP-340 verify", "µs"),
            "seal_open_300": Figure("ChaCha20-Poly1305 seal + open, 300 B", "µs"),
            "seal_open_16k": Figure("ChaCha20-Poly1305 seal + open, 16 KiB", "µs"),
            "handshake_curve": Figure("BOLT 8 handshake, curve operations of both sides", "µs"),
            "handshake": Figure("BOLT 8 handshake, both sides, no I/O", "µs"),
        },
        _arithmetic,
        ("arithmetic",),
        links=None,
    ),
    Measure(
        "round-trip",
        {
            "p50": Figure("round trip 300 B, one CPU, p50", "µs", aim=1.25, aim_said="<= 1.25x"),
            "p99": Figure("round trip 300 B, one CPU, p99", "µs"),
        },
        _round_trip,
        ("floor", "ours", "ours_plain", "ours_tls", "tls", "zmq"),
        one_cpu=True,
    ),
    Measure(
        "one-way-300",
        {"rate": Figure("one way 300 B, a CPU each", "/s", True, aim=0.95, aim_said=">= 0.95x")},
        _one_way(SMALL_BYTES, 8000),
        ("floor", "ours", "ours_plain", "ours_tls", "tls", "zmq"),
    ),
    Measure(
        "one-way-300-two",
        {"rate": Figure("one way 300 B, receiver on both CPUs, sender on one of them", "/s", True)},
        _one_way(SMALL_BYTES, 8000),
        ("floor", "ours", "ours_plain"),
        wide=frozenset(("ours", "ours_plain")),
    ),
    Measure(
        "backlog-300",
        {"rate": Figure("300 B from a backlog, receiver alone on one CPU", "/s", True, aim=0.95, aim_said=">= 0.95x")},
        _backlog,
        ("floor", "ours", "ours_plain", "ours_tls", "tls"),
    ),
    Measure(
        "backlog-300-two",
        {"rate": Figure("300 B from a backlog, ours on both CPUs", "/s", True, aim=1.6, aim_said=">= 1.6x")},
        _backlog,
        ("floor", "ours", "ours_plain"),
        wide=frozenset(("ours", "ours_plain")),
    ),
    Measure(
        "one-way-16k",
        {"rate": Figure("one way 16 KiB, a CPU each", "/s", True, aim=1.0, aim_said=">= 1.0x")},
        _one_way(LARGE_BYTES, 4000),
    ),
    Measure(
        "broadcast-10",
        {"ms": Figure("broadcast 300 B to 10, all acknowledged", "ms", aim=1.13, aim_said="<= 1.9 ms of 1.68 (1.13x)")},
        _broadcast(150),
        links=10,
    ),
    Measure(
        "broadcast-50",
        {"ms": Figure("broadcast 300 B to 50, all acknowledged", "ms", aim=1.32, aim_said="<= 7.5 ms of 5.7 (1.32x)")},
        _broadcast(50),
        links=50,
    ),
    Measure(
        "dial",
        {"ms": Figure("dial + authenticate", "ms", aim=2.78, aim_said="<= 1.5 ms of 0.54 (2.78x)")},
        _dial,
        links=0,
    ),
    Measure(
        "connects",
        {"rate": Figure("connections, 16 in flight", "/s", True, aim=0.35, aim_said=">= 1,400 of 4,007 (0.35x)")},
        _connects,
        links=0,
    ),
    Measure(
        "memory",
        {"kib": Figure("resident per idle link, accepting side", "KiB", aim_value=8, aim_said="<= 8 KiB")},
        _memory,
        links=0,
    ),
)
