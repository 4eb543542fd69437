"""A seeded world of cosigners: real nodes and keyholders, disks that lose what was not synced, and their worst day.

On top of what happens to links, machines crash or lose power between any two effects, come back with an old disk,
sleep, or are cloned while they run; and one of the cosigners may lie.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..node.core import Node
from ..node.effects import Fault, OldDisk, Publish, Reply, Send, SessionNews
from ..node.inputs import Acknowledged, Propose
from ..signing.effects import End, Outcome, Progress
from ..signing.keyholder import Keyholder
from ..signing.records import Topology
from ..signing.states import State
from ..signing.verbs import KeyholderInput, MakePartials, PartialsMade, Store, Stored
from ..wire.envelope import Message, SignedMessage, VerifiedMessage
from ..wire.messages import MessageType
from .actors import Actor
from .actors import End as LinkEnd
from .cosigners import Cosigner, HolderMaker
from .liars import COLLECTORS, LIARS, Mouth, Said, false_nonces
from .machines import Machines
from .tape import Tape
from .wallets import payment
from .world import NodeMaker, Plan

__all__ = ["MUST_HAPPEN", "CeremonyPlan", "CeremonyWorld", "run"]

_LIE_EPOCH = b"\xff" * 8
"""The boot epoch of what a liar says beside its node: its numbers meet no others."""

_REVOKED_IN_S = 1.0
"""How long an order to the keyholder, and its disk, may take."""

_LIES: Final = {**LIARS, **COLLECTORS}
MUST_HAPPEN: Final = (
    "crash", "power loss", "restore", "old disk", "clone", "resume", "keyholder crash", "partition", "break", "hole",
    "retry", "lie", "replay", "blamed", "equivocation", "bad_partial", "completed", "silent", "partials",
)  # fmt: skip
"""A run of many seeds in which one of these never happened proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CeremonyPlan(Plan):
    """How rough a world is. `lie` None: the seed says whether somebody lies, and how; "" for nobody."""

    busy_s: float = 8.0
    rest_s: float = 34.0
    messages: int = 0
    breaks: int = 2
    partitions: int = 1
    holes: int = 1
    crashes: int = 4
    """Machines that crash, lose power, come back with an old disk, sleep, or are cloned; up to so many."""
    delay_s: float = 0.1
    sessions: int = 2
    inputs: int = 2
    """Inputs of the largest transaction."""
    lasts_s: float = 40.0
    """How long a proposal lasts."""
    topology: Topology | None = None
    """None: the seed says which."""
    lie: str | None = None
    unnoticed: bool = False
    """A copy of each keyholder's live memory, which nobody notices, is fed by the liar (THREATS.md V1)."""


class CeremonyWorld(Machines):
    """One run. `make_node` and `make_holder` let a test put sabotaged machines in everybody's place."""

    plan: CeremonyPlan

    def __init__(
        self,
        seed: int,
        plan: CeremonyPlan | None = None,
        *,
        show: bool = False,
        make_node: NodeMaker = Node,
        make_holder: HolderMaker = Keyholder,
    ) -> None:
        plan = plan or CeremonyPlan()
        draws = random.Random(f"roles {seed}")
        drawn = draws.choice((Topology.MESH, Topology.STAR))
        self.topology = drawn if plan.topology is None else plan.topology
        lies = [*LIARS, *(COLLECTORS if self.topology is Topology.STAR else ())]
        lie = draws.choice((*lies, *[""] * len(lies))) if plan.lie is None else plan.lie
        super().__init__(
            seed, plan, show=show, make_node=make_node, make_holder=make_holder, lie=lie,
            liar_at=draws.randrange(plan.nodes),
        )  # fmt: skip
        self.proposed: dict[bytes, Cosigner] = {}
        self.ends: dict[tuple[bytes, bytes], list[End]] = {}
        """(identity key, session) to how it ended there, restarts included."""
        self._rivals = draws.random() < 0.2
        """Whether the transactions spend the same coins: then at most one of them is signed by each keyholder."""
        self._inputs = draws.randint(1, plan.inputs)
        self._lie_sequence = 0
        victims = [one.key for one in self.actors if not one.lie]
        self._mouths = {
            one.key: Mouth(one.key, draws.choice(victims), self._inputs, draws) for one in self.actors if one.lie
        }

    # --- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Tape:
        """Run the whole plan, or until nothing is left to happen. Raises Broken when an invariant does not hold."""
        self._schedule()
        end = self.begun + self.plan.lasts_s + self.plan.busy_s + 4.0
        while self._events and self._events[0][0] <= end and not self._finished():
            self.now, _, then = heapq.heappop(self._events)
            then()
        for actor in self.honest:
            self.checked.still_open(actor, self.now)
        self._must_complete()
        return self.tape

    def _finished(self) -> bool:
        """Whether everybody who is honest knows how everything ended, and nothing more goes wrong."""
        if self.now <= self.begun + self.plan.busy_s + 1 or self._copies:
            return False
        return all(actor.node is not None for actor in self.honest) and not self._unknown()

    def _unknown(self, completed: bool = False) -> list[tuple[Cosigner, bytes]]:
        """Return who does not know how (or, that it was completed) a session ended that its proposer has on disk.

        Somebody whose old disk knows nothing of a session that another one has finished is told nothing any more.
        """
        lasting = [session for session, actor in self.proposed.items() if actor.has(session)]
        done = {session for (_, session), ends in self.ends.items() if End.COMPLETED in ends}
        return [
            (actor, session)
            for session in lasting
            for actor in self.honest
            if not (ends := self.ends.get((actor.key, session))) or (completed and End.COMPLETED not in ends)
            if not (actor.restored and session in done and not actor.has(session))
        ]

    def _must_complete(self) -> None:
        voided = {session for (_, session), ends in self.ends.items() if End.OLD_DISK in ends}
        for actor, session in [] if self.lie or self._rivals else self._unknown(completed=True):
            if session in voided:
                continue
            self.checked.must_complete(actor, session, self.ends.get((actor.key, session), []))

    def _schedule(self) -> None:
        plan, pick = self.plan, self._random
        for actor in self.actors:
            self._at(self.begun + pick.uniform(0, 0.05), partial(self._start, actor))
            for _ in range(3):
                self._at(self.begun + pick.uniform(0, plan.busy_s), actor.backup)
        for number in range(pick.randint(1, plan.sessions)):
            self._at(self.begun + pick.choice((0.3, 1.0, 3.0)) + pick.random(), partial(self._propose, number))
        for count, what in (
            (plan.breaks, self._break_a_link), (plan.holes, self._swallow_a_link), (plan.partitions, self._partition)
        ):  # fmt: skip
            for _ in range(pick.randint(0, count)):
                self._at(self._some_time(), what)
        for _ in range(pick.randint(0, plan.crashes)):
            self._at(self._some_time(), lambda: self._mishap(pick.choice(self.actors)))
        self._at(self.begun + plan.busy_s + 1, lambda: None)

    def _propose(self, number: int) -> None:
        liars = [one for one in self.actors if one.lie == "two proposals"]
        up = [one for one in liars or self.actors if one.node is not None]
        if not up:
            self._at(self.now + 0.5, partial(self._propose, number))
            return
        actor = self._random.choice(up)
        coins, rate = (0, 2 + number) if self._rivals else (number, 2)
        psbt = payment(self.plan.nodes, self._inputs, coins, fee_rate_sat_vb=rate)
        self.feed(
            actor, Propose(actor.request(), self.wallet.group.id, psbt, self.now + self.plan.lasts_s, "", self.topology)
        )

    def about_to_sign(self, actor: Cosigner, event: KeyholderInput) -> None:
        if isinstance(event, MakePartials) and self.plan.unnoticed and not actor.lie:
            self._copy_unnoticed(actor, event)

    def _copy_unnoticed(self, actor: Cosigner, verb: MakePartials) -> None:
        """Let a copy of live memory sign what the liar tells it alone."""
        copy = actor.fork_holder(self.make_holder, random.Random(self._random.getrandbits(64)))
        told = tuple(self._lied_to_copy(message) for message in verb.nonces)
        effects = copy.handle(MakePartials(verb.session, verb.attempt, told), self.now)
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, Store):
                effects += copy.handle(Stored(effect.number), self.now)
            elif isinstance(effect, PartialsMade):
                self.tape.write(self.now, actor.name, "unnoticed copy")
                self.checked.copy_signed(actor, effect.payload, verb.session)

    def _lied_to_copy(self, message: VerifiedMessage) -> VerifiedMessage:
        mouth = self._mouths.get(message.sender_key)
        if mouth is None:
            return message
        said = Said(MessageType.PUBLIC_NONCE, message.session, false_nonces(message.payload))
        return self._sign_lie(self.by_key[mouth.key], said).verify()

    # --- what is said -------------------------------------------------------------------------------------------------

    def _send(self, actor: Actor, effect: Send) -> None:
        assert isinstance(actor, Cosigner)
        end = actor.ends.get(effect.link)
        if end is None:
            return
        message = Message.from_bytes(effect.data)
        if message.body.recipient != self.wallet.group.id:
            self._carry(end, effect.data, effect.priority)
            return
        self.checked.leaves(actor, message)
        if actor.lie:
            self._lie_on(actor, end, message, effect.priority)
        else:
            self._carry(end, effect.data, effect.priority)

    def _lie_on(self, actor: Cosigner, end: LinkEnd, message: SignedMessage, priority: int) -> None:
        """Send what a liar makes of a message. Its own node is told that the true one arrived."""
        mouth = self._mouths[actor.key]
        true = Said(message.type, message.session, message.payload)
        said = _LIES[actor.lie](mouth, true, end.other.actor.key)
        mouth.spoken.append(true)
        if said != [true]:
            self.tape.write(self.now, actor.name, "replay" if true in said[:1] and actor.lie == "replayer" else "lie")
        if not said:
            self._at(self.now + 0.1, partial(self.feed, actor, Acknowledged(end.number, message.id)))
        for number, one in enumerate(said):
            if one == true and not number:
                signed = message
            elif not number:
                signed = self._resign(actor, message, one)
            else:
                signed = self._sign_lie(actor, one)
            self._carry(end, signed.to_bytes(), priority)

    def _resign(self, actor: Cosigner, message: SignedMessage, said: Said) -> SignedMessage:
        """Sign a lie in the place of a message: its number, and its acknowledgement."""
        body = message.body
        lie = Message(MessageType(said.kind), actor.name, said.payload, session=said.session).sign(
            actor.identity, to=body.recipient, seq=body.seq, sent_at_ms=body.sent_at_ms, epoch=body.epoch,
            chain=self.wallet.group.wallet.chain,
        )  # fmt: skip
        actor.forged[lie.id] = message.id
        return lie

    def _sign_lie(self, actor: Actor, said: Said) -> SignedMessage:
        """Sign one more message of a liar."""
        self._lie_sequence += 1
        return Message(MessageType(said.kind), actor.name, said.payload, session=said.session).sign(
            actor.identity, to=self.wallet.group.id, seq=self._lie_sequence, epoch=_LIE_EPOCH,
            chain=self.wallet.group.wallet.chain,
        )  # fmt: skip

    def _carry_ack(self, end: LinkEnd, message_id: bytes) -> None:
        liar = end.other.actor
        assert isinstance(liar, Cosigner)
        super()._carry_ack(end, liar.forged.get(message_id, message_id))

    # --- what is told -------------------------------------------------------------------------------------------------

    def _reply(self, actor: Actor, effect: Reply) -> None:
        assert isinstance(actor, Cosigner)
        super()._reply(actor, effect)
        if effect.session and effect.error is None and actor.original is None:
            self.proposed[effect.session] = actor

    def _publish(self, actor: Actor, effect: Publish) -> None:
        assert isinstance(actor, Cosigner)
        news = effect.news
        if isinstance(news, SessionNews):
            self._session_news(actor, news.news)
        elif isinstance(news, OldDisk):
            self._old_disk(actor)
        elif isinstance(news, Fault):
            self.tape.write(self.now, actor.name, "fault", str(news.error))
            if not (actor.lie or self.by_key[news.key].lie or self._cloned):
                self.checked.fault(actor, news.error)
        else:
            self.tape.write(self.now, actor.name, type(news).__name__, news.key.hex()[:10])

    def _old_disk(self, actor: Cosigner) -> None:
        self.tape.write(self.now, actor.name, "old disk")
        if not (actor.restored or self._cloned):
            self.checked.false_proof(actor)
        self.checked.none_open(actor)
        life = actor.life

        def revoked() -> None:
            if (actor.life, actor.holder is None) == (life, False):
                self.checked.none_approved(actor)

        self._at(self.now + _REVOKED_IN_S, revoked)

    @property
    def _cloned(self) -> bool:
        """Whether there ever were two of one: then links, not sessions, may find fault with it."""
        return self.tape.counts["clone"] > 0

    def _session_news(self, actor: Cosigner, news: object) -> None:
        if isinstance(news, Progress) and news.state is State.ROUND_1 and news.attempt > 1:
            self.tape.write(self.now, actor.name, "retry", str(news.attempt))
        elif isinstance(news, Outcome):
            self.tape.write(self.now, actor.name, news.end.value, str(news.error or news.verdict or ""))
            if news.verdict is not None:
                self.tape.write(self.now, actor.name, news.verdict.kind.name.lower())
            if not actor.lie:
                self.checked.outcome(actor, news, {one.key for one in self.actors if one.lie})
                self.ends.setdefault((actor.key, news.session), []).append(news.end)


CeremonyWorld.performers = {
    **Machines.performers,
    Send: CeremonyWorld._send,
    Reply: CeremonyWorld._reply,
    Publish: CeremonyWorld._publish,
}


def run(seed: int, plan: CeremonyPlan | None = None, *, show: bool = False) -> Tape:
    """Run one seed. Returns its tape; raises Broken when an invariant does not hold."""
    return CeremonyWorld(seed, plan, show=show).run()
