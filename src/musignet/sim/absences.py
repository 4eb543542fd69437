"""A seeded world of cosigners who are away at times: proposals and approvals wait at relays that harm them.

One of them is away for the proposal; when they come, everybody else may just have gone. What is in letters is all they
know then. The rounds run once all are up, over live links alone: no nonce is ever left at a relay.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..node.effects import Acknowledge, Disconnect, Send
from ..node.outbox import ROUNDS
from ..wire.envelope import Message
from ..wire.messages import MessageType
from .actors import Actor
from .ceremony import CeremonyPlan, CeremonyWorld
from .cosigners import Cosigner
from .invariants import Broken
from .letters import Letters, MailEnd
from .relays import FAULTS
from .tape import Tape

__all__ = ["MUST_HAPPEN", "AbsencePlan", "AbsenceWorld", "run"]

MUST_HAPPEN: Final = (*FAULTS, "away", "gone", "proposal in a letter", "approval in a letter", "completed", "crash")
"""A run of many seeds in which one of these never happened proves nothing."""

_TOLD: Final = {
    MessageType.TRANSACTION_PROPOSAL: "proposal in a letter",
    MessageType.APPROVAL: "approval in a letter",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsencePlan(CeremonyPlan):
    """How rough a world is. Nobody lies: what relays do is enough."""

    lie: str | None = ""
    crashes: int = 2
    sessions: int = 1
    busy_s: float = 12.0
    again_s: float = 3.0


class AbsenceWorld(Letters, CeremonyWorld):
    """One run. See the module."""

    plan: AbsencePlan

    def __init__(self, seed: int, plan: AbsencePlan | None = None, **options: Any) -> None:
        plan = plan or AbsencePlan()
        super().__init__(seed, plan, again_s=plan.again_s, **options)
        draws = random.Random(f"away {seed}")
        self._absent = draws.choice(self.actors)
        self._back = self.begun + draws.uniform(3.0, 7.0)
        self._others_go = draws.random() < 0.6

    def _schedule(self) -> None:
        super()._schedule()
        self.tape.write(self.now, self._absent.name, "away")
        if self._others_go:
            self._at(self._back - 0.1, self._all_leave)

    def _start(self, actor: Actor) -> None:
        if actor is self._absent and self.now < self._back:
            self._at(self._back, partial(self._start, actor))
        elif actor.node is None:
            super()._start(actor)

    def _all_leave(self) -> None:
        """Everybody who is here goes home, and comes back a while after the one who was away has come."""
        for actor in self.actors:
            if actor.node is None:
                continue
            self.tape.write(self.now, actor.name, "gone")
            actor.stop(self._random)
            self._at(self.now + self._random.uniform(1.0, 4.0), partial(self._start, actor))

    def _send(self, actor: Actor, effect: Send) -> None:
        if effect.link in self._mail:
            assert isinstance(actor, Cosigner)
            message = Message.from_bytes(effect.data)
            if message.type in ROUNDS:
                raise Broken(f"seed {self.seed}, {actor!r}: {MessageType(message.type).name} is left at a relay")
            if message.body.recipient == self.wallet.group.id:
                self.checked.leaves(actor, message)
        super()._send(actor, effect)

    def _judge(self, end: MailEnd, envelope: bytes) -> None:
        told = _TOLD.get(MessageType(Message.from_bytes(envelope).type))
        if told is not None:
            self.tape.write(self.now, end.actor.name, told)
        super()._judge(end, envelope)


AbsenceWorld.performers = {
    **CeremonyWorld.performers,
    Send: AbsenceWorld._send,
    Acknowledge: AbsenceWorld._acknowledge,
    Disconnect: AbsenceWorld._disconnect,
}


def run(seed: int, plan: AbsencePlan | None = None, *, show: bool = False) -> Tape:
    """Run one seed. Returns its tape; raises Broken when an invariant does not hold."""
    return AbsenceWorld(seed, plan, show=show).run()
