"""A machine that cosigns: a node and a keyholder, a disk for each, and what a clone of it would have to remember."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from ..chain import Chain
from ..limits import Limits
from ..node.config import NodeConfig
from ..node.inputs import Input, JoinGroup
from ..signing.coordinator import Sessions
from ..signing.keyholder import Account, Keyholder
from ..signing.policy import Yes
from ..signing.verbs import KeyholderInput
from .actors import Actor
from .disk import Disk as Messages
from .disks import Again, Disk, Draws
from .wallets import Wallet

__all__ = ["Cosigner", "HolderMaker"]

HolderMaker: TypeAlias = Callable[[Account, Callable[[int], bytes], list[bytes]], Keyholder]

_LIMITS = Limits(
    ping_interval_s=4.0,
    dead_after_s=7.0,
    backoff_max_s=2.0,
    phase_timeout_s=2.0,
    reapprove_s=2.0,
    silent_attempts_max=8,
)
"""Short, so that a session of a minute meets every timeout, and patient enough to outlast what goes wrong here."""


class Cosigner(Actor):
    """See the module. `memory` is another number after each restart and each `Resumed`."""

    def __init__(self, index: int, draws: random.Random, wallet: Wallet, lie: str = "") -> None:
        super().__init__(index, draws)
        self.identity = wallet.identities[index]
        self.key = self.identity.pubkey
        self.config = NodeConfig(label=self.name, chain=Chain.REGTEST, disk=True, limits=_LIMITS)
        self.group = wallet.group
        self.account = Account(group=wallet.group, identity=self.key, key=wallet.keys[index], policy=lambda _: Yes())
        self.lie = lie
        self.node_disk, self.holder_disk = Disk(), Disk()
        self.backups: list[tuple[tuple[bytes, ...], tuple[bytes, ...], Messages]] = []
        self.restored = False
        """Whether it ever came back with an old disk."""
        self.began_with: tuple[bytes, ...] = ()
        """The records of the node's journal at the last start."""
        self.holder: Keyholder | None = None
        self.memory = 0
        self.original: Cosigner | None = None
        """Of which machine this one is a clone."""
        self._queue_at: dict[str, float] = {}
        self.forged: dict[bytes, bytes] = {}
        """Of a liar: the id of what it sent to the id of what its node thinks was sent."""
        self._source = draws
        self._node_draws = self._holder_draws = Draws(draws)
        self._node_log: list[tuple[Input, float]] = []
        self._holder_log: list[tuple[KeyholderInput, float]] = []
        self._holder_records: list[bytes] = []

    def sessions(self) -> Sessions:
        """Return the node's side of the group, with nothing in it."""
        return Sessions(self.group, self.key, bounds=self.config.limits)

    def boot(self, make_holder: HolderMaker) -> JoinGroup:
        """Read both journals: the keyholder is there, and what is returned is the first thing to tell the node."""
        self._node_draws, self._holder_draws = Draws(self._source), Draws(self._source)
        self.draw = self._node_draws
        self._node_log, self._holder_log = [], []
        self._holder_records = list(self.holder_disk.synced)
        self._queue_at.clear()
        self.holder = make_holder(self.account, self._holder_draws, self._holder_records)
        self.began_with = tuple(self.node_disk.synced)
        return JoinGroup(self.request(), self.sessions(), self.began_with)

    def remember(self, event: Input, now: float) -> None:
        """The node is about to be told this."""
        self._node_log.append((event, now))

    def remember_holder(self, event: KeyholderInput, now: float) -> None:
        """The keyholder is about to be told this."""
        self._holder_log.append((event, now))

    def later(self, queue: str, now: float, pick: random.Random) -> float:
        """Return when the next thing in a queue between node and keyholder arrives: in order, after a little while."""
        at = self._queue_at[queue] = max(self._queue_at.get(queue, 0.0), now + 0.002 * pick.random())
        return at

    def stop(self, pick: random.Random) -> None:
        """End a life without a word, in the middle of anything."""
        self.crash()
        self.disk.crash(pick)
        self.holder = None
        self.node_disk.crash(pick)
        self.holder_disk.crash(pick)

    def has(self, session: bytes) -> bool:
        """Whether the proposal of a session is on the node's disk."""
        return any(record[:1] == b"\x00" and session in record for record in self.node_disk.synced)

    def backup(self) -> None:
        """Copy its disks, as they are now."""
        self.backups.append((self.node_disk.snapshot(), self.holder_disk.snapshot(), self.disk.copy()))

    def restore(self, pick: random.Random) -> None:
        """Come back with an old copy of its disks."""
        node, holder, messages = pick.choice(self.backups)
        self.node_disk, self.holder_disk, self.disk = Disk(list(node)), Disk(list(holder)), messages.copy()
        self.restored = True

    def fork_holder(self, make_holder: HolderMaker, source: random.Random) -> Keyholder:
        """Return a copy of the keyholder's live memory: it went through the same life."""
        return self._replay_holder(make_holder, Draws(source))

    def fork(self, clone: Cosigner, make_holder: HolderMaker) -> None:
        """Make another machine a copy of this running one: it goes through the same life, and forgets no secret."""
        clone.original = self
        clone.life = self.life
        clone.lie, clone._requests = self.lie, self._requests
        clone.friends = self.friends
        clone.node_disk, clone.holder_disk = self.node_disk.fork(), self.holder_disk.fork()
        clone.disk, clone.began_with = self.disk.copy(), self.began_with
        clone._node_draws, clone._holder_draws = Draws(clone._source), Draws(clone._source)
        clone.draw = Again(self._node_draws.given, clone._node_draws)
        clone.holder = self._replay_holder(make_holder, clone._holder_draws)
        clone._node_log, clone._holder_log = list(self._node_log), list(self._holder_log)
        clone._holder_records = list(self._holder_records)

    def replay_node(self) -> None:
        """Give a clone's fresh node the life of the original one."""
        assert self.node is not None
        for event, now in self._node_log:
            again = JoinGroup(event.request, self.sessions(), event.records) if isinstance(event, JoinGroup) else event
            self.node.handle(again, now)

    def _replay_holder(self, make_holder: HolderMaker, draws: Draws) -> Keyholder:
        holder = make_holder(self.account, Again(self._holder_draws.given, draws), list(self._holder_records))
        for event, now in self._holder_log:
            holder.handle(event, now)
        return holder
