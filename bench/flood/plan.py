"""The floods, and what is asked of the node under each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from musignet.limits import LOG_LINE_MAX_CHARS

from . import attacks
from .attacks import Attack
from .beacons import Beacons

__all__ = ["AIMS", "FLOODS", "MEMBERS", "Aim", "Flood"]

MIB: Final = 1024 * 1024


_LINE_MAX_CHARS: Final = LOG_LINE_MAX_CHARS + len("2026-11-26 01:02:03 WARNING ")


@dataclass(frozen=True)
class Flood:
    """One flood."""

    name: str
    title: str
    attack: type[Attack]
    limits: dict[str, float] = field(default_factory=dict)
    """What the victim overrides of its bounds."""
    descriptors: int = 0
    """Its RLIMIT_NOFILE; 0: as it is."""
    connections: int = 0
    """Of the attackers at once; 0: as the attack has it. More than a lobby holds, or they would wait there in peace."""
    beacons: bool = False
    """Whether it is the discovery port that is flooded."""


FLOODS: Final = (
    Flood("connect", "connect, and say nothing", attacks.ConnectOnly, connections=1000),
    Flood("bad-act-one", "a bad act one", attacks.BadActOne, connections=1000),
    Flood("silence", "act one, then silence", attacks.ActOneThenSilence, connections=1000),
    Flood("strangers", "strangers with valid handshakes", attacks.Strangers, connections=500),
    Flood("spam", "a member's valid messages", attacks.MemberSpam),
    Flood("proposals", "a member's valid proposals", attacks.Proposals),
    Flood("bad-signatures", "a member's invalid signatures", attacks.BadSignatures),
    Flood("beacons", "50,000 beacons a second", Beacons, beacons=True),
    Flood("slow-readers", "16 members who ask and never read", attacks.SlowReaders),
    Flood(
        "descriptors",
        "64 file descriptors, all taken",
        attacks.ConnectOnly,
        descriptors=64,
    ),
    Flood("logs", "16 members with long labels, faults and goodbyes", attacks.LongLines),
)


MEMBERS: Final = max(flood.attack.members for flood in FLOODS)
"""How many of the attackers the victim has to know."""


@dataclass(frozen=True)
class Aim:
    """One figure, and the most it may be."""

    key: str
    title: str
    most: float | None = None
    said: str = ""


AIMS: Final = (
    Aim("attacks_per_s", "attacks/s"),
    Aim("peak_mib", "resident at most, MiB", 128, "<= 128"),
    Aim("after_mib", "more afterwards, MiB", 8, "<= 8"),
    Aim("lag_p99_ms", "loop lag p99, ms", 100, "<= 100"),
    Aim("again_max_ms", "honest peer in after, from an address it had before, ms", 2000, "<= 2,000"),
    Aim("anew_max_ms", "from a new address, ms", 2000, "<= 2,000"),
    Aim("ceremony_ms", "ceremony ends after, ms", 20_000, "ends"),
    Aim("lines_per_s", "log lines/s", 1, "<= 1"),
    Aim("longest_line", "longest line, characters", _LINE_MAX_CHARS, f"<= {_LINE_MAX_CHARS:,}"),
)
