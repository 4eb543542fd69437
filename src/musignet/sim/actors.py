"""Machines and the links between them: what the world knows of each, and nothing that happens."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..crypto.keys import Identity
from ..limits import Limits
from ..node.config import NodeConfig
from ..node.core import Node
from ..node.peers import PeerInfo
from ..wire.envelope import Gate
from ..wire.messages import Chain
from .disk import Disk

__all__ = ["Actor", "End", "make_pair"]

_LIMITS = Limits(unacked_max=8, receive_window=64, ping_interval_s=10.0, dead_after_s=17.0, backoff_max_s=8.0)
"""Small, so that a short run meets every bound."""


class Actor:
    """One machine with a node on it. `life` counts its starts; what an earlier life knew in memory is gone."""

    def __init__(self, index: int, draws: random.Random, *, disk: bool = False) -> None:
        self.name = f"n{index}"
        self.identity = Identity.from_secret(draws.randbytes(32))
        self.key = self.identity.pubkey
        self.config = NodeConfig(label=self.name, chain=Chain.REGTEST, disk=disk, limits=_LIMITS)
        self.disk = Disk()
        self.written_at = self.busy_until = 0.0
        """When the disk, and the application, are done with all they were given."""
        self.draw: Callable[[int], bytes] = draws.randbytes
        self.friends: list[Actor] = []
        self.life = 0
        self.node: Node | None = None
        self.ends: dict[int, End] = {}
        self.sent: dict[int, tuple[Actor, bytes]] = {}
        """Requests of this life that wait for their answer: to whom, and the payload."""
        self._requests = 0

    @property
    def info(self) -> PeerInfo:
        """What others have in their books."""
        return PeerInfo(id=self.name, host=self.name, port=1, pubkey_hex=self.identity.pubkey_hex)

    def request(self) -> int:
        """Return a fresh request number."""
        self._requests += 1
        return self._requests

    def crash(self) -> None:
        """End a life without a word."""
        self.node = None
        self.written_at = self.busy_until = 0.0
        self.ends = {}
        self.sent = {}

    def __repr__(self) -> str:
        return f"{self.name}.{self.life}"


class End:
    """One side of a link. What the other side sends arrives here, in order within each priority."""

    __slots__ = ("actor", "arrived_at", "gate", "life", "number", "open", "other", "swallows")

    other: End

    def __init__(self, actor: Actor, number: int, gate: Gate, ready_at: float) -> None:
        self.actor = actor
        self.life = actor.life
        """The incarnation of the actor that this end belongs to; a restart leaves its ends dead."""
        self.number = number
        self.gate = gate
        self.open = True
        self.swallows = False
        """Nothing arrives here any more and nobody is told, as behind a router that forgot the connection."""
        self.arrived_at = dict.fromkeys(range(-1, 4), ready_at)
        """When the last thing of each priority arrives: only what is more urgent overtakes it. -1: acknowledgements."""

    @property
    def alive(self) -> bool:
        """Whether anybody is there to notice what arrives."""
        return self.open and not self.swallows and self.actor.life == self.life and self.actor.node is not None

    def next_arrival(self, at: float, priority: int) -> float:
        """Return when something that would arrive at `at` does, and remember it."""
        urgent = (arrived for other, arrived in self.arrived_at.items() if other <= priority)
        when = self.arrived_at[priority] = max((at, *urgent))
        return when

    def last_arrival(self, at: float) -> float:
        """Return when a close notice does: after everything else."""
        return max(at, *self.arrived_at.values())


def make_pair(near: End, far: End) -> None:
    """Join two ends."""
    near.other, far.other = far, near
