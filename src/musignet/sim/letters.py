"""Seeded worlds whose nodes leave letters at relays for who does not answer: sealed, in parts, and left again.

What a node says on a mail link waits in a pile and leaves as a sealed bundle, in parts, at every relay. In some worlds
no live link ever opens, so that letters have to do everything; in others links come and go beside them.
`sim.absences` has cosigners do it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..errors import NetworkError, PeerError, Timeout
from ..limits import LETTER_GATHER_S, SEALED_IDS_MAX
from ..node.core import Node
from ..node.effects import Acknowledge, Disconnect, Send
from ..node.inputs import Acknowledged, MailMoved, MessageReceived, MessageRefused, PeerConnected
from ..node.peers import Mail, PeerState
from ..wire.envelope import Gate, Message
from ..wire.letter import Reassembly, split
from ..wire.messages import Chain
from ..wire.sealed import Bundle, open_untrusted, seal
from .actors import Actor
from .invariants import Invariants
from .relays import FAULTS, Relay
from .tape import Tape
from .world import NodeMaker, Plan, World, gate_between

__all__ = ["MUST_HAPPEN", "LetterPlan", "LetterWorld", "Letters", "MailEnd", "run"]

MUST_HAPPEN: Final = (*FAULTS, "apart", "letter", "letter read", "letter in parts", "crash", "break", "MessageArrived")
"""A run of many seeds in which one of these never happened proves nothing."""

_LETTER_LIVES_S: Final = 3600.0
_LARGE_BYTES: Final = 40_000
"""More than fits into one part."""


class MailEnd:
    """One side of a mail link. It dies with the life of its machine."""

    def __init__(self, actor: Actor, friend: Actor, number: int, gate: Gate) -> None:
        self.actor, self.friend, self.number, self.gate = actor, friend, number, gate
        self.life = actor.life
        self.open = True
        self.hello = b""
        self.pile: dict[bytes, bytes] = {}
        self.acks: dict[bytes, None] = {}
        self.left: set[bytes] = set()
        self.turn = 0
        """Of its clock: an older alarm counts no more."""

    @property
    def alive(self) -> bool:
        return self.open and self.actor.life == self.life and self.actor.node is not None

    def say(self, envelope: bytes) -> None:
        """Put an envelope on the pile. The first one says who we are, and heads each letter."""
        if not self.hello:
            self.hello = envelope
        else:
            self.pile[Message.from_bytes(envelope).id] = envelope


class Letters(World):
    """A world with relays. `apart`: no live link ever opens.

    Args: relays  - how many.
          again_s - when what nobody acknowledged is left again.
    """

    apart = False

    def __init__(self, seed: int, plan: Plan, *, relays: int = 2, again_s: float = 12.0, **options: Any) -> None:
        super().__init__(seed, plan, **options)
        draws = random.Random(f"relays {seed}")
        honest_from = self.begun + plan.busy_s
        self.relays = [
            Relay(f"r{n}", random.Random(draws.getrandbits(64)), self.tape, self._at, self._arrived, honest_from)
            for n in range(relays)
        ]
        self._again_s = again_s
        self._mail: dict[int, MailEnd] = {}
        self._parts: dict[str, tuple[int, Reassembly]] = {}
        self._fresh = draws.randbytes

    # --- what happens -------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        super()._schedule()
        for relay in self.relays:
            for _ in range(3):
                self._at(when := self._some_time(), partial(relay.replay, when))
            if self._random.random() < 0.5:
                self._at(when := self._some_time(), partial(relay.forget, when))

    def _start(self, actor: Actor) -> None:
        super()._start(actor)
        for relay in self.relays:
            relay.read(actor, self.now)

    # --- links --------------------------------------------------------------------------------------------------------

    def _dial(self, actor: Actor, key: bytes) -> None:
        if self.apart:
            self._at(
                self.now + self._delay(), partial(self._dial_failed, actor, actor.life, key, Timeout("nobody answers"))
            )
        else:
            super()._dial(actor, key)

    def _dial_failed(self, actor: Actor, life: int, key: bytes, error: NetworkError) -> None:
        """Nobody answers there: from now on letters are left for them."""
        if actor.life == life and actor.node is not None:
            self._mail_link(actor, self.by_key[key])
        super()._dial_failed(actor, life, key, error)

    def _mail_link(self, actor: Actor, friend: Actor) -> MailEnd:
        """Return the mail link to a friend, a new one where there is none; the node may close it at once."""
        for end in self._mail.values():
            if end.alive and end.actor is actor and end.friend is friend:
                return end
        self._links += 2
        end = self._mail[self._links] = MailEnd(actor, friend, self._links, gate_between(actor, friend))
        self.feed(actor, PeerConnected(end.number, friend.key, True, mail=Mail.LETTERS))
        return end

    def _send(self, actor: Actor, effect: Send) -> None:
        end = self._mail.get(effect.link)
        if end is None:
            super()._send(actor, effect)
        elif end.alive:
            end.say(effect.data)
            self._alarm(end, LETTER_GATHER_S)

    def _acknowledge(self, actor: Actor, effect: Acknowledge) -> None:
        end = self._mail.get(effect.link)
        if end is None:
            super()._acknowledge(actor, effect)
        elif end.alive:
            end.acks[effect.message_id] = None
            self._alarm(end, LETTER_GATHER_S)

    def _disconnect(self, actor: Actor, effect: Disconnect) -> None:
        end = self._mail.pop(effect.link, None)
        if end is None:
            super()._disconnect(actor, effect)
        else:
            end.open = False

    # --- leaving and reading ------------------------------------------------------------------------------------------

    def _alarm(self, end: MailEnd, after_s: float) -> None:
        end.turn += 1
        self._at(self.now + after_s, partial(self._leave, end, end.turn))

    def _leave(self, end: MailEnd, turn: int) -> None:
        """Leave what is new, and once in a while everything that nobody acknowledged."""
        if not end.alive or turn != end.turn:
            return
        if not end.acks and not end.pile.keys() - end.left:
            end.left.clear()
        if ids := [one for one in end.pile if one not in end.left] or end.acks:
            self._post(end, [end.pile[one] for one in ids if one in end.pile])
            end.left.update(end.pile)
            end.acks.clear()
            self._alarm(end, self._again_s)

    def _post(self, end: MailEnd, envelopes: list[bytes]) -> None:
        expires_at_ms = int(1000 * (self.now + _LETTER_LIVES_S))
        acks = tuple(end.acks)[-SEALED_IDS_MAX:]
        bundle = Bundle(Chain.REGTEST, expires_at_ms, acks, (end.hello, *envelopes))
        sealed = seal(end.actor.identity, end.friend.identity.public, bundle, self._fresh(32))
        parts = split(sealed, self._fresh(16))
        self.tape.write(self.now, end.actor.name, "letter", end.friend.name)
        if len(parts) > 1:
            self.tape.write(self.now, end.actor.name, "letter in parts")
        for relay in self.relays:
            for part in parts:
                relay.leave(end.friend, part, self.now)

    def _arrived(self, actor: Actor, part: bytes) -> None:
        """A relay hands a part out to a machine that is up."""
        life, parts = self._parts.get(actor.name, (0, Reassembly()))
        if life != actor.life:
            parts = Reassembly()
        self._parts[actor.name] = (actor.life, parts)
        sealed = parts.take_untrusted(part)
        if sealed is None or actor.node is None:
            return
        opened = open_untrusted(actor.identity, sealed)
        opened.bundle.require(Chain.REGTEST, self.now)
        self.tape.write(self.now, actor.name, "letter read")
        self._read(self._mail_link(actor, self.by_key[opened.sender]), opened.bundle)

    def _read(self, end: MailEnd, bundle: Bundle) -> None:
        for message_id in bundle.acknowledged:
            if end.alive:
                end.pile.pop(message_id, None)
                self.feed(end.actor, Acknowledged(end.number, message_id))
        for envelope in bundle.envelopes:
            if end.alive:
                self._judge(end, envelope)
        if end.alive:
            self.feed(end.actor, MailMoved(end.number))

    def _judge(self, end: MailEnd, envelope: bytes) -> None:
        try:
            message = end.gate.open_untrusted(envelope)
        except PeerError as error:
            self.feed(end.actor, MessageRefused(end.number, error))
        else:
            self.feed(end.actor, MessageReceived(end.number, message))


Letters.performers = {
    **World.performers,
    Send: Letters._send,
    Acknowledge: Letters._acknowledge,
    Disconnect: Letters._disconnect,
}


# --- nodes that talk --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterPlan(Plan):
    """How rough a world is."""

    messages: int = 16
    crashes: int = 4
    disks: bool = True
    relays: int = 2
    again_s: float = 12.0
    """When what nobody acknowledged is left again."""
    apart: bool | None = None
    """Whether no live link ever opens. None: the seed says."""


class LetterInvariants(Invariants):
    """As in every world; where no link ever opens, nobody is connected in the end, and all the same all has arrived."""

    apart = False

    def _pair_at_rest(self, actor: Actor, friend: Actor) -> None:
        if not self.apart:
            super()._pair_at_rest(actor, friend)
            return
        peer = actor.node.book.get(friend.key) if actor.node is not None else None
        if peer is None or peer.state is PeerState.CONNECTED:
            self._break(actor, f"knows {friend.name} in another way than by letters")
        if peer.unacked or peer.parked:
            self._break(actor, f"still has {len(peer.unacked)}+{len(peer.parked)} messages for {friend.name}")


class LetterWorld(Letters):
    """One run."""

    checked: LetterInvariants

    def __init__(
        self, seed: int, plan: LetterPlan | None = None, *, show: bool = False, make_node: NodeMaker = Node
    ) -> None:
        plan = plan or LetterPlan()
        super().__init__(seed, plan, relays=plan.relays, again_s=plan.again_s, show=show, make_node=make_node)
        drawn = random.Random(f"apart {seed}").random() < 0.5
        self.apart = self.checked.apart = drawn if plan.apart is None else plan.apart

    def make_invariants(self) -> LetterInvariants:
        return LetterInvariants(self.seed)

    def _schedule(self) -> None:
        super()._schedule()
        if self.apart:
            self.tape.write(self.now, "world", "apart")

    def _say(self, actor: Actor, friend: Actor, payload: bytes, until_acked: bool) -> None:
        large = self._random.random() < 0.05
        super()._say(actor, friend, payload + b" " * (_LARGE_BYTES * large), until_acked)


def run(seed: int, plan: LetterPlan | None = None, *, show: bool = False) -> Tape:
    """Run one seed. Returns its tape; raises Broken when an invariant does not hold."""
    return LetterWorld(seed, plan, show=show).run()
