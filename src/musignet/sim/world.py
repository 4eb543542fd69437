"""A seeded world: machines, links between them, a virtual clock, and everything that goes wrong.

Nothing here is real and everything above the links is: the nodes, their messages and signatures, the gates. One seed
is one run, to the byte.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

from ..crypto.keys import Identity
from ..errors import ConnectionError, NetworkError, PeerError, Timeout
from ..node.config import NodeConfig
from ..node.core import Node
from ..node.effects import (
    Acknowledge,
    Connect,
    Disconnect,
    Effect,
    Fault,
    MessageArrived,
    Publish,
    Reply,
    Send,
    Store,
    Undelivered,
)
from ..node.inputs import (
    Acknowledged,
    AddPeer,
    ConnectFailed,
    Dial,
    Handled,
    Input,
    MessageReceived,
    MessageRefused,
    PeerConnected,
    PeerLost,
    SendMessage,
    Stored,
    Woken,
)
from ..wire.channel import CloseReceived
from ..wire.envelope import Gate, Message
from ..wire.messages import Chain, CloseCode, MessageType
from .actors import Actor, End, make_pair
from .invariants import Invariants
from .tape import Tape

__all__ = ["Plan", "World", "gate_between", "run"]

NodeMaker: TypeAlias = Callable[[Identity, NodeConfig, Callable[[int], bytes]], Node]

_BEGUN = 1_700_000_000.0
_KEEP_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How rough a world is. Times in virtual seconds."""

    nodes: int = 3
    busy_s: float = 60.0
    """How long things go wrong and the applications talk."""
    rest_s: float = 90.0
    """How long the network is whole afterwards, before the last look."""
    messages: int = 40
    breaks: int = 4
    partitions: int = 2
    crashes: int = 2
    holes: int = 2
    """Links that go on without carrying anything: only silence gives them away."""
    duplicates: float = 0.05
    """Share of messages that arrive twice."""
    delay_s: float = 0.2
    """The longest delay of one message; most are far shorter."""
    disks: bool = False
    """Whether messages are kept on disk, and a node that restarts takes them up again."""
    commit_s: float = 0.02
    """The longest a disk takes for one write."""
    handling_s: float = 0.5
    """The longest an application takes to handle a message, where there are disks."""


class World:
    """One run. `make_node` lets a test put a sabotaged node in everybody's place."""

    performers: ClassVar[dict[type[Effect], Callable[[Any, Any, Any], None]]]
    """Effect to the method that performs it."""

    def __init__(self, seed: int, plan: Plan | None = None, *, show: bool = False, make_node: NodeMaker = Node) -> None:
        self.seed = seed
        self.plan = plan or Plan()
        self.begun = self.now = _BEGUN
        self.make_node = make_node
        self.tape = Tape(show)
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._links = 0
        self._cut: dict[frozenset[str], float] = {}
        self._woken: dict[str, float] = {}
        self.checked: Any = self.make_invariants()
        self.actors: list[Any] = [
            self.make_actor(index, random.Random(self._random.getrandbits(64))) for index in range(self.plan.nodes)
        ]
        self.by_key: dict[bytes, Any] = {actor.key: actor for actor in self.actors}
        for actor in self.actors:
            actor.friends = [other for other in self.actors if other is not actor]

    def make_actor(self, index: int, draws: random.Random) -> Actor:
        """Return a machine of this world."""
        return Actor(index, draws, disk=self.plan.disks)

    def make_invariants(self) -> Invariants:
        """Return what watches this world."""
        return Invariants(self.seed)

    # --- the clock ----------------------------------------------------------------------------------------------------

    def _at(self, when: float, then: Callable[[], None]) -> None:
        """Do something at a time, or now if that is past."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, then))

    def _wake(self, actor: Actor, deadline: float) -> None:
        """A node wants to be woken. Only the soonest deadline of an actor is kept."""
        if self._woken.get(actor.name, float("inf")) <= deadline and self._woken[actor.name] > self.now:
            return
        self._woken[actor.name] = deadline
        life = actor.life

        def fire() -> None:
            node = actor.node
            if actor.life != life or node is None:
                return
            due = node.next_deadline()
            if due is not None and due <= self.now:
                self.feed(actor, Woken())
                self.checked.woken(actor, self.now)
            if (again := node.next_deadline()) is not None and actor.node is node:
                self._woken[actor.name] = float("inf")
                self._wake(actor, again)

        self._at(deadline, fire)

    def run(self) -> Tape:
        """Run the whole plan, and look at the end. Raises Broken when an invariant does not hold."""
        self._schedule()
        end = self.begun + self.plan.busy_s + self.plan.rest_s
        while self._events and self._events[0][0] <= end:
            self.now, _, then = heapq.heappop(self._events)
            then()
        self.now = end
        self.checked.at_rest(self.actors)
        return self.tape

    def feed(self, actor: Actor, event: Input) -> None:
        """Give an actor's node an input, and perform its effects."""
        node = actor.node
        if node is None:
            return
        self.tape.write(self.now, actor.name, type(event).__name__, _detail(event))
        for effect in node.handle(event, self.now):
            self.performers[type(effect)](self, actor, effect)
        self.checked.after_step(actor)
        deadline = node.next_deadline()
        if deadline is not None:
            self._wake(actor, deadline)

    # --- what happens -------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        plan, pick = self.plan, self._random
        for actor in self.actors:
            self._at(self.begun + pick.uniform(0, 0.05), partial(self._start, actor))
        for number in range(plan.messages):
            self._at(self._some_time(), partial(self._talk, number))
        for _ in range(pick.randint(0, plan.breaks)):
            self._at(self._some_time(), self._break_a_link)
        for _ in range(pick.randint(0, plan.holes)):
            self._at(self._some_time(), self._swallow_a_link)
        for _ in range(pick.randint(0, plan.partitions)):
            self._at(self._some_time(), self._partition)
        for _ in range(pick.randint(0, plan.crashes)):
            self._at(self._some_time(), self._crash)

    def _some_time(self) -> float:
        return self.begun + self._random.uniform(0, self.plan.busy_s)

    def _talk(self, number: int) -> None:
        sender = self._random.choice(self.actors)
        payload = f"{sender.name}.{number}".encode("ascii")
        if self._random.random() < 0.2:
            self._shout(sender, payload)
            return
        friend = self._random.choice(sender.friends)
        for burst in range(self._random.choice((1, 1, 1, 12))):
            self._say(sender, friend, payload + b".%d" % burst, self._random.random() < 0.5)

    def _start(self, actor: Actor) -> None:
        """Begin a life: a fresh node with the old identity and book, which dials every friend."""
        actor.life += 1
        actor.node = self.make_node(actor.identity, actor.config, actor.draw)
        if self.plan.disks:
            self.feed(actor, actor.disk.restore())
        for friend in actor.friends:
            self.feed(actor, AddPeer(actor.request(), friend.info))
            self.feed(actor, Dial(actor.request(), friend.key, persist=True))

    def _say(self, actor: Actor, friend: Actor, payload: bytes, until_acked: bool) -> None:
        if actor.node is None:
            return
        request = actor.request()
        actor.sent[request] = (friend, payload)
        self.feed(
            actor,
            SendMessage(
                request,
                (friend.key,),
                Message(MessageType.CHAT, actor.name, payload),
                until_acked,
                _KEEP_S if self.plan.disks else 0.0,
            ),
        )

    def _shout(self, actor: Actor, payload: bytes) -> None:
        self.feed(actor, SendMessage(actor.request(), None, Message(MessageType.CHAT, actor.name, payload)))

    def _break_a_link(self) -> None:
        ends = [end for actor in self.actors for end in actor.ends.values()]
        if ends:
            end = self._random.choice(ends)
            self.tape.write(self.now, end.actor.name, "break")
            for side in (end, end.other):
                self._at(self.now + self._delay(), partial(self._lose, side, None))

    def _swallow_a_link(self) -> None:
        ends = [end for actor in self.actors for end in actor.ends.values()]
        if ends:
            end = self._random.choice(ends)
            self.tape.write(self.now, end.actor.name, "hole")
            end.swallows = end.other.swallows = True

    def _partition(self) -> None:
        pair = frozenset(actor.name for actor in self._random.sample(self.actors, 2))
        until = min(self.now + self._random.choice((0.5, 5.0, 30.0)), self.begun + self.plan.busy_s)
        self._cut[pair] = max(until, self._cut.get(pair, 0.0))
        self.tape.write(self.now, "-".join(sorted(pair)), "partition")

    def _crash(self) -> None:
        """A process dies: with a reset that its peers see, or like a power cut, which they only find out by silence."""
        actor = self._random.choice(self.actors)
        if actor.node is None:
            return
        self.tape.write(self.now, actor.name, "crash")
        ends = list(actor.ends.values())
        actor.crash()
        actor.disk.crash(self._random)
        if self._random.random() < 0.5:
            for end in ends:
                self._at(self._arrival(end, end.other), partial(self._lose, end.other, None))
        back = min(self.now + self._random.choice((0.01, 1.0, 20.0)), self.begun + self.plan.busy_s)
        self._at(back, partial(self._start, actor))

    def reached(self, key: bytes) -> Actor:
        """Return the machine that answers where this key is dialled."""
        actor: Actor = self.by_key[key]
        return actor

    # --- links --------------------------------------------------------------------------------------------------------

    def _dial(self, actor: Actor, key: bytes) -> None:
        """A node dials: act one and two cross, then act three arrives at the other side."""
        target, life = self.reached(key), actor.life
        failed = partial(self._dial_failed, actor, life, key)
        if self._cut_until(actor, target) > self.now:
            self._at(self.now + 10.0, partial(failed, Timeout(f"{target.name} did not answer")))
            return
        there = self.now + self._delay()
        back = there + self._delay()

        def arrive() -> None:
            if target.node is None:
                self._at(back, partial(failed, ConnectionError(f"{target.name} is down")))
            else:
                self._at(back, lambda: self._open(actor, life, target, target.life))

        self._at(there, arrive)

    def _dial_failed(self, actor: Actor, life: int, key: bytes, error: NetworkError) -> None:
        if actor.life == life:
            self.feed(actor, ConnectFailed(key, error))

    def _open(self, near: Actor, near_life: int, far: Actor, far_life: int) -> None:
        if near.life != near_life or near.node is None:
            return
        self._links += 2
        third = self.now + self._delay()
        near_end = End(near, self._links, gate_between(near, far), self.now)
        far_end = End(far, self._links + 1, gate_between(far, near), third)
        far_end.life = far_life
        make_pair(near_end, far_end)
        near.ends[near_end.number] = near_end

        def answered() -> None:
            if far.life == far_life and far.node is not None:
                far.ends[far_end.number] = far_end
                self.feed(far, PeerConnected(far_end.number, near.key, False))
            else:
                self._lose(near_end, None)

        self._at(third, answered)
        self.feed(near, PeerConnected(near_end.number, far.key, True))

    def _carry(self, end: End, data: bytes, priority: int) -> None:
        """Carry an envelope to the other side; now and then twice, as a resend after a lost acknowledgement would."""
        for _ in range(2 if self._random.random() < self.plan.duplicates else 1):
            when = end.other.next_arrival(self._arrival(end, end.other), priority)
            self._at(when, lambda: self._deliver(end.other, data))

    def _carry_ack(self, end: End, message_id: bytes) -> None:
        """Carry an acknowledgement to the other side."""
        when = end.other.next_arrival(self._arrival(end, end.other), -1)

        def deliver() -> None:
            if end.other.alive and end.other.number in end.other.actor.ends:
                self.feed(end.other.actor, Acknowledged(end.other.number, message_id))

        self._at(when, deliver)

    def _hang_up(self, end: End, code: CloseCode | None, text: str) -> None:
        """One side closes: the other hears it after everything that was sent before."""
        end.open = False
        goodbye = None if code is None else CloseReceived(code, text)
        if code is CloseCode.DUPLICATE:
            self.tape.write(self.now, end.actor.name, "duplicate")
        self._at(end.other.last_arrival(self._arrival(end, end.other)), lambda: self._lose(end.other, goodbye))

    def _deliver(self, end: End, data: bytes) -> None:
        actor = end.actor
        if not end.alive or end.number not in actor.ends:
            return
        try:
            message = end.gate.open_untrusted(data)
        except PeerError as error:
            self.feed(actor, MessageRefused(end.number, error))
        else:
            self.feed(actor, MessageReceived(end.number, message))

    def _lose(self, end: End, goodbye: CloseReceived | None) -> None:
        if not end.alive or end.actor.ends.pop(end.number, None) is None:
            return
        end.open = False
        error = None if goodbye is not None else ConnectionError(f"the link to {end.other.actor.name} broke")
        self.feed(end.actor, PeerLost(end.number, error, goodbye))

    # --- effects ------------------------------------------------------------------------------------------------------

    def _connect(self, actor: Actor, effect: Connect) -> None:
        self._dial(actor, effect.key)

    def _disconnect(self, actor: Actor, effect: Disconnect) -> None:
        end = actor.ends.pop(effect.link, None)
        if end is not None:
            self._hang_up(end, effect.code, effect.text)

    def _send(self, actor: Actor, effect: Send) -> None:
        end = actor.ends.get(effect.link)
        if end is not None:
            self._carry(end, effect.data, effect.priority)

    def _acknowledge(self, actor: Actor, effect: Acknowledge) -> None:
        end = actor.ends.get(effect.link)
        if end is not None:
            self._carry_ack(end, effect.message_id)

    def _store(self, actor: Actor, effect: Store) -> None:
        life = actor.life
        actor.disk.take(effect)
        actor.written_at = max(self.now, actor.written_at) + self.plan.commit_s * self._random.random() ** 2

        def written() -> None:
            if actor.life == life and actor.node is not None:
                stored = actor.disk.write()
                self.checked.on_disk(actor, stored)
                self.feed(actor, Stored(stored))

        self._at(actor.written_at, written)

    def _hand_over(self, actor: Actor, news: MessageArrived) -> None:
        """The application takes a while for a message, one after the other."""
        life = actor.life
        self.checked.once(actor, news.message.id)
        actor.busy_until = max(self.now, actor.busy_until) + self.plan.handling_s * self._random.random() ** 4

        def handled() -> None:
            if actor.life == life and actor.node is not None:
                self.checked.finished(actor, news.message.payload)
                self.feed(actor, Handled(news.key, news.message.id))

        self._at(actor.busy_until, handled)

    def _reply(self, actor: Actor, effect: Reply) -> None:
        pending = actor.sent.pop(effect.request, None)
        if pending is not None and effect.error is None:
            self.checked.accepted(actor, *pending)
        self.tape.write(self.now, actor.name, "Reply", _error_name(effect.error))

    def _publish(self, actor: Actor, effect: Publish) -> None:
        news, checked = effect.news, self.checked
        self.tape.write(self.now, actor.name, type(news).__name__, news.key.hex()[:10])
        if isinstance(news, MessageArrived):
            checked.delivered(actor, self.by_key[news.key], news.message.payload)
            if self.plan.disks:
                self._hand_over(actor, news)
        elif isinstance(news, Fault):
            checked.fault(actor, news.error)
        elif isinstance(news, Undelivered):
            checked.undelivered(actor)

    # --- time on the way ----------------------------------------------------------------------------------------------

    def _delay(self) -> float:
        return self.plan.delay_s * self._random.random() ** 4

    def _arrival(self, source: End, target: End) -> float:
        """When something sent now arrives: a stream waits a partition out."""
        return max(self.now, self._cut_until(source.actor, target.actor)) + self._delay()

    def _cut_until(self, one: Actor, other: Actor) -> float:
        return self._cut.get(frozenset((one.name, other.name)), 0.0)


def run(seed: int, plan: Plan | None = None, *, show: bool = False) -> Tape:
    """Run one seed. Returns its tape; raises Broken when an invariant does not hold."""
    return World(seed, plan, show=show).run()


def gate_between(own: Actor, peer: Actor) -> Gate:
    """Return what judges the peer's messages at this machine."""
    groups = own.node.ceremonies.ids if own.node is not None else frozenset[bytes]()
    return Gate(peer.identity.public, own.key, Chain.REGTEST, label=peer.name, groups=groups)


def _detail(event: Input) -> str:
    if isinstance(event, MessageReceived):
        return f"{event.link} {event.message.id.hex()}"
    link = getattr(event, "link", None)
    return "" if link is None else str(link)


def _error_name(error: NetworkError | None) -> str:
    return type(error).__name__ if error is not None else ""


World.performers = {
    Connect: World._connect,
    Disconnect: World._disconnect,
    Send: World._send,
    Acknowledge: World._acknowledge,
    Store: World._store,
    Reply: World._reply,
    Publish: World._publish,
}
