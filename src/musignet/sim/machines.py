"""Machines that cosign: what they ask of their keyholders and disks is performed here, and so is what befalls them.

A machine may die between any two effects. What it had not synced is lost then, and nothing in its memory survives.
"""

from __future__ import annotations

import random
from functools import partial

from ..errors import ConnectionError
from ..node.core import Node
from ..node.effects import AskKeyholder, Save
from ..node.inputs import AddPeer, Dial, Input, KeyholderReplied, PeerLost, Saved
from ..signing.effects import Saved as RecordSaved
from ..signing.keyholder import Keyholder
from ..signing.verbs import KeyholderInput, Resumed, Store, Stored, Woken
from .actors import Actor
from .cosigners import Cosigner, HolderMaker
from .disks import Disk, Ready, Write
from .invariants import Broken
from .wallets import wallet
from .watch import CeremonyInvariants
from .world import NodeMaker, Plan, World

__all__ = ["Machines"]


class Machines(World):
    """A world whose actors are cosigners. `lie` is how the one at `liar_at` lies; "" if nobody does."""

    actors: list[Cosigner]
    checked: CeremonyInvariants

    def __init__(
        self,
        seed: int,
        plan: Plan,
        *,
        show: bool,
        make_node: NodeMaker = Node,
        make_holder: HolderMaker = Keyholder,
        lie: str = "",
        liar_at: int = 0,
    ) -> None:
        self.make_holder = make_holder
        self.wallet = wallet(plan.nodes)
        self.lie, self._liar_at = lie, liar_at
        super().__init__(seed, plan, show=show, make_node=make_node)
        self._copies: dict[bytes, Cosigner] = {}
        self._mishaps = self._random.randint(0, plan.crashes)
        """How many may still fall between two effects."""
        self._memories = 0

    def make_actor(self, index: int, draws: random.Random) -> Cosigner:
        return Cosigner(index, draws, self.wallet, self.lie if index == self._liar_at else "")

    def make_invariants(self) -> CeremonyInvariants:
        return CeremonyInvariants(self.seed, self.wallet.group, self.tape)

    @property
    def honest(self) -> list[Cosigner]:
        """The machines of those who do not lie."""
        return [one for one in self.actors if not one.lie]

    def feed(self, actor: Actor, event: Input) -> None:
        """Give a node an input, and perform its effects, unless the machine dies between two of them."""
        assert isinstance(actor, Cosigner)
        node = actor.node
        if node is None:
            return
        self.tape.write(self.now, actor.name, type(event).__name__, "")
        actor.remember(event, self.now)
        try:
            effects = node.handle(event, self.now)
        except Exception as error:
            raise Broken(f"seed {self.seed}, {actor!r}: handle raised at {type(event).__name__}: {error!r}") from error
        for effect in effects:
            self.performers[type(effect)](self, actor, effect)
            self._perhaps(actor)
            if actor.node is not node:
                return
        if not self._copies:
            self.checked.after_step(actor)
        self.checked.sessions_bounded(actor)
        deadline = node.next_deadline()
        if deadline is not None:
            self._wake(actor, deadline)

    # --- the keyholder and the disks ----------------------------------------------------------------------------------

    def _ask(self, actor: Cosigner, effect: AskKeyholder) -> None:
        self._at(actor.later("ask", self.now, self._random), partial(self._feed_if, actor, actor.holder, effect.verb))
        if self._random.random() < 0.1:  # a node that asks twice gets no second signature
            again = self.now + 3 * self._random.random()
            self._at(again, partial(self._feed_if, actor, actor.holder, effect.verb))

    def _feed_if(self, actor: Cosigner, holder: Keyholder | None, event: KeyholderInput) -> None:
        """Tell a keyholder, unless it is another one by now."""
        if holder is not None and actor.holder is holder:
            self.feed_holder(actor, event)

    def feed_holder(self, actor: Cosigner, event: KeyholderInput) -> None:
        """Give a keyholder an input, and perform its effects, unless the machine dies between two of them."""
        holder = actor.holder
        if holder is None:
            return
        self.tape.write(self.now, actor.name, f"keyholder {type(event).__name__}")
        self.checked.verb(actor, event)
        if isinstance(event, Resumed):
            self._forget_nothing_but(actor)
        self.about_to_sign(actor, event)
        actor.remember_holder(event, self.now)
        try:
            effects = holder.handle(event, self.now)
        except Exception as error:
            raise Broken(f"seed {self.seed}, {actor!r}: keyholder raised: {error!r}") from error
        for effect in effects:
            if isinstance(effect, Store):
                self.checked.stored(actor, effect.record)
                self._write(actor, actor.holder_disk, effect.record, Stored(effect.number))
            else:
                self.checked.replied(actor, effect)
                reply = KeyholderReplied(self.wallet.group.id, effect)
                self._at(actor.later("reply", self.now, self._random), partial(self._answer, actor, holder, reply))
            self._perhaps(actor)
            if actor.holder is not holder:
                return
        deadline = holder.next_deadline()
        if deadline is not None:
            self._at(deadline, partial(self._feed_if, actor, holder, Woken()))

    def about_to_sign(self, actor: Cosigner, event: KeyholderInput) -> None:
        """A keyholder is about to be told this: a copy of its memory could be made here."""

    def _answer(self, actor: Cosigner, holder: Keyholder, reply: KeyholderReplied) -> None:
        if actor.holder is holder:
            self.feed(actor, reply)

    def _forget_nothing_but(self, actor: Cosigner) -> None:
        """From here on the memory of this keyholder is another one: no secret nonce may cross."""
        self._memories += 1
        actor.memory = self._memories

    def _save(self, actor: Cosigner, effect: Save) -> None:
        saved = Saved(effect.group, RecordSaved(effect.save.session, effect.save.number))
        self._write(actor, actor.node_disk, effect.save.record, saved)

    def _write(self, actor: Cosigner, disk: Disk, record: bytes, ready: Ready) -> None:
        write = Write(record, ready)
        disk.pending.append(write)
        self._sync_later(actor, disk, write)

    def _sync_later(self, actor: Cosigner, disk: Disk, write: Write) -> None:
        """Make a record safe, and a little later say so: power may fail before, between and after."""
        disk.free_at = max(disk.free_at, self.now) + 0.01 * self._random.random()
        holder, node = actor.holder, actor.node

        def ready() -> None:
            if isinstance(write.ready, Saved):
                if actor.node is node:
                    self.feed(actor, write.ready)
            else:
                self._feed_if(actor, holder, write.ready)

        def sync() -> None:
            if write in disk.pending:
                disk.sync(write)
                self._at(self.now + 0.001, ready)

        self._at(disk.free_at, sync)

    # --- machines -----------------------------------------------------------------------------------------------------

    def _start(self, actor: Actor) -> None:
        """Begin a life: both machines are made again from their journals."""
        assert isinstance(actor, Cosigner)
        actor.life += 1
        join = actor.boot(self.make_holder)
        self._forget_nothing_but(actor)
        actor.node = self.make_node(actor.identity, actor.config, actor.draw)
        for event in (actor.disk.restore(), join, *(one for friend in actor.friends for one in _meet(actor, friend))):
            self.feed(actor, event)

    def _perhaps(self, actor: Cosigner) -> None:
        """Now and then something happens right here, between two effects."""
        if self._mishaps and actor.original is None and self._random.random() < 0.01 and not self._over:
            self._mishaps -= 1
            self._mishap(actor)

    @property
    def _over(self) -> bool:
        return self.now >= self.begun + self.plan.busy_s

    def _mishap(self, actor: Cosigner) -> None:
        if actor.node is None or actor.key in self._copies or self._over:
            return
        what = self._random.choice((self._die, self._die, self._restore, self._resume, self._clone, self._lose_holder))
        what(actor)

    def _die(self, actor: Cosigner, *, what: str = "") -> None:
        """The process dies with a reset that peers see, or the power fails, which they find out by silence."""
        power = self._random.random() < 0.5
        self.tape.write(self.now, actor.name, what or ("power loss" if power else "crash"))
        ends = list(actor.ends.values())
        actor.stop(self._random)
        if not power:
            for end in ends:
                self._at(self._arrival(end, end.other), partial(self._lose, end.other, None))
        back = self.now + self._random.choice((0.01, 0.3, 2.0))
        self._at(min(back, max(self.now, self.begun + self.plan.busy_s)), partial(self._start, actor))

    def _restore(self, actor: Cosigner) -> None:
        """The machine comes back with an old copy of its disks."""
        if actor.backups:
            self._die(actor, what="restore")
            actor.restore(self._random)

    def _resume(self, actor: Cosigner) -> None:
        """The machine has slept, and its clocks gave it away."""
        self.tape.write(self.now, actor.name, "resume")
        self.feed_holder(actor, Resumed())

    def _lose_holder(self, actor: Cosigner) -> None:
        """The keyholder's process dies alone: the node gets no answer any more, and stops soon after."""
        self.tape.write(self.now, actor.name, "keyholder crash")
        actor.holder = None
        actor.holder_disk.crash(self._random)
        life = actor.life
        self._at(self.now + self._random.random(), lambda: self._die(actor) if actor.life == life else None)

    def _clone(self, actor: Cosigner) -> None:
        """Two machines go on from one memory; the clocks of both have jumped. Some time later their owner notices."""
        self.tape.write(self.now, actor.name, "clone")
        draws = random.Random(self._random.getrandbits(64))
        clone = Cosigner(self.actors.index(actor), draws, self.wallet, actor.lie)
        clone.name += "'"
        actor.fork(clone, self.make_holder)
        clone.node = self.make_node(clone.identity, clone.config, clone.draw)
        clone.replay_node()
        self._copies[actor.key] = clone
        for one in (actor, clone):
            self._resume(one)
        for disk in (clone.node_disk, clone.holder_disk):
            for write in list(disk.pending):
                self._sync_later(clone, disk, write)
        for link in actor.ends:
            self.feed(clone, PeerLost(link, ConnectionError("the link stayed with the other copy")))
        self._at(self.now + self._random.choice((0.5, 3.0)), partial(self._end_clone, actor, clone))

    def _end_clone(self, actor: Cosigner, clone: Cosigner) -> None:
        for end in list(clone.ends.values()):
            self._at(self._arrival(end, end.other), partial(self._lose, end.other, None))
        clone.stop(self._random)
        if actor.node is not None:
            self._die(actor)
        del self._copies[actor.key]

    def reached(self, key: bytes) -> Actor:
        """Return who answers: one of two copies."""
        own, clone = self.by_key[key], self._copies.get(key)
        return own if clone is None or self._random.random() < 0.5 else clone


def _meet(actor: Cosigner, friend: Actor) -> tuple[Input, Input]:
    return AddPeer(actor.request(), friend.info), Dial(actor.request(), friend.key, persist=True)


Machines.performers = {**World.performers, AskKeyholder: Machines._ask, Save: Machines._save}
