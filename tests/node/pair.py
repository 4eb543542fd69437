"""Nodes, what is on its way between them, and a clock that stands still unless a test moves it. No event loop.

It does what a driver does: opens envelopes with a `Gate`, performs effects in order, and wakes nodes when they asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TypeVar

from musignet.crypto.keys import Identity
from musignet.errors import ConnectionError, NetworkError, PeerError
from musignet.limits import Limits
from musignet.node.addresses import UNKNOWN_PATH, Path, path_by
from musignet.node.config import NodeConfig
from musignet.node.core import Node
from musignet.node.effects import (
    Acknowledge,
    Connect,
    Disconnect,
    Effect,
    MessageArrived,
    News,
    Publish,
    Reply,
    Send,
    SignalHeard,
    Store,
)
from musignet.node.inputs import (
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
from musignet.node.peers import PeerInfo, PeerRecord
from musignet.sim.disk import Disk
from musignet.wire.channel import CloseReceived
from musignet.wire.envelope import Gate, Message, SignedMessage
from musignet.wire.messages import Chain, MessageType, PeerAnnouncement
from support.keys import ALICE, BOB

__all__ = [
    "HIGH",
    "LOW",
    "Side",
    "World",
    "announcement",
    "chat",
    "connected",
    "draws",
    "info_of",
    "keepers",
    "strangers",
]

LOW, HIGH = sorted((ALICE, BOB), key=lambda identity: identity.pubkey)
"""The two ends of a pair: the node with the smaller key settles a simultaneous dial."""

EffectT = TypeVar("EffectT", bound=Effect)
NewsT = TypeVar("NewsT", bound=News)


def draws(seed: str) -> Callable[[int], bytes]:
    """Return a source of the same bytes each time."""
    count = iter(range(1 << 30))
    return lambda n: sha256(f"{seed} {next(count)}".encode()).digest()[:n]


def info_of(identity: Identity, label: str, *, port: int = 9000) -> PeerInfo:
    return PeerInfo(id=label, host=label, port=port, pubkey_hex=identity.pubkey_hex)


def chat(text: str = "hello", *, kind: int = MessageType.CHAT) -> Message:
    return Message(kind, "sender", text.encode())


def announcement(epoch: bytes = b"epoch--1", *, label: str = "", seen: tuple[bytes, int] = (b"", 0)) -> Message:
    return Message(MessageType.PEER_ANNOUNCEMENT, label, PeerAnnouncement(label, (), (), epoch, *seen))


@dataclass(eq=False, repr=False)
class Side:
    """One node and everything it has asked for so far."""

    identity: Identity
    label: str
    world: World
    limits: Limits = field(default_factory=Limits)
    seed: str = ""
    draw: Callable[[int], bytes] | None = None
    disk: Disk | None = None
    disk_error: NetworkError | None = None
    """Set: every write fails with it."""

    def __post_init__(self) -> None:
        draw = self.draw = self.draw or draws(self.label + self.seed)
        disk = self.disk is not None
        self.config = NodeConfig(label=self.label, chain=Chain.REGTEST, disk=disk, limits=self.limits)
        self.node = Node(self.identity, self.config, draw)
        self.key = self.identity.pubkey
        self.effects: list[Effect] = []
        self.requests = 0

    def restart(self, *friends: Side) -> None:
        """Begin another run from what is on disk, with these in the book."""
        assert self.disk is not None
        assert self.draw is not None
        self.effects, self.seen = [], 0
        self.node = Node(self.identity, self.config, self.draw)
        self.feed(self.disk.restore())
        for friend in friends:
            self.add(info_of(friend.identity, friend.label))

    def announce(self, *addresses: str) -> None:
        """Name these addresses to whoever connects from now on."""
        self.node.config = self.node._changes._config = replace(self.config, addresses=addresses)

    def handle(self) -> list[str]:
        """Let the application handle what arrived since the last time; return the texts."""
        arrived = self.news(MessageArrived)
        new, self.seen = arrived[self.seen :], len(arrived)
        for one in new:
            self.feed(Handled(one.key, one.message.id))
        return [one.message.payload.decode() for one in new]

    seen: int = 0

    def keep(self, text: str, *keys: bytes, keep_s: float = 1_000.0, until_acked: bool = False) -> int:
        return self.ask(lambda request: SendMessage(request, keys, chat(text), until_acked, keep_s))

    def feed(self, event: Input) -> list[Effect]:
        """Give the node an input; perform and return its effects."""
        effects = self.node.handle(event, self.world.now)
        self.effects += effects
        for effect in effects:
            self.world.perform(self, effect)
        return effects

    def ask(self, command: Callable[[int], Input]) -> int:
        """Give the node a command; return its request number."""
        self.requests += 1
        self.feed(command(self.requests))
        return self.requests

    def add(self, info: PeerInfo) -> NetworkError | None:
        return self.answer(self.ask(lambda request: AddPeer(request, info)))

    def dial(self, key: bytes, *, persist: bool = False) -> int:
        return self.ask(lambda request: Dial(request, key, persist))

    def send(self, message: Message, *keys: bytes, until_acked: bool = False) -> int:
        return self.ask(lambda request: SendMessage(request, keys or None, message, until_acked))

    def replies(self, request: int) -> list[Reply]:
        return [reply for reply in self.all(Reply) if reply.request == request]

    def answer(self, request: int) -> NetworkError | None:
        """Return the error of the one reply to a request."""
        (reply,) = self.replies(request)
        return reply.error

    def answer_after_run(self, request: int) -> NetworkError | None:
        self.world.run()
        return self.answer(request)

    def all(self, kind: type[EffectT]) -> list[EffectT]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def news(self, kind: type[NewsT]) -> list[NewsT]:
        return [effect.news for effect in self.all(Publish) if isinstance(effect.news, kind)]

    def peer(self, key: bytes) -> PeerRecord:
        record = self.node.book.get(key)
        assert record is not None
        return record


@dataclass(eq=False)
class _Wire:
    """One end of a link: whose it is, where the other end is, and the gate before it."""

    side: Side
    number: int
    gate: Gate
    other: _Wire | None = None


class World:
    """Nodes by key, and a queue of what is on its way: first in, first out, over all links."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.sides: dict[bytes, Side] = {}
        self.wires: dict[tuple[Side, int], _Wire] = {}
        self.gates: dict[int, Gate] = {}
        self.queue: deque[tuple[Side, Input]] = deque()
        self.unreachable: set[bytes] = set()
        self.dead: set[str] = set()
        """Addresses that nobody answers at."""
        self.acks_lost = False
        self._numbers = iter(range(1, 1 << 30))

    def add(self, identity: Identity, label: str, **options: object) -> Side:
        side = self.sides[identity.pubkey] = Side(identity, label, self, **options)  # type: ignore[arg-type]
        return side

    # --- what a driver does -------------------------------------------------------------------------------------------

    def perform(self, side: Side, effect: Effect) -> None:
        if isinstance(effect, Connect):
            self._connect(side, effect)
        elif isinstance(effect, Store):
            self._store(side, effect)
        elif isinstance(effect, Publish | Reply | SignalHeard):
            pass
        elif (wire := self.wires.get((side, effect.link))) is not None:
            self._on_link(wire, effect)

    def _on_link(self, wire: _Wire, effect: Send | Acknowledge | Disconnect) -> None:
        if isinstance(effect, Disconnect):
            goodbye = None if effect.code is None else CloseReceived(effect.code, effect.text)
            error = ConnectionError("the connection broke") if goodbye is None else None
            self._cut(wire, PeerLost(0, error, goodbye))
        elif isinstance(effect, Acknowledge):
            if not self.acks_lost:
                self._to_other(wire, Acknowledged(0, effect.message_id))
        else:
            self._arrive(wire, effect.data)

    def _store(self, side: Side, effect: Store) -> None:
        """Written when its turn in the queue has come; unless the disk fails or the side crashes."""
        assert side.disk is not None
        if side.disk_error is None:
            side.disk.take(effect)
        self.queue.append((side, Stored(effect, side.disk_error)))

    def crash(self, side: Side, *, writes: bool = False) -> None:
        """End a run without a word. What was on its way to the disk is lost, or came through with `writes`."""
        assert side.disk is not None
        for at, number in list(self.wires):
            if at is side:
                self.break_link(side, number)
        while writes and side.disk.waiting:
            side.disk.write()
        side.disk.crash(None)
        self.queue = deque((at, event) for at, event in self.queue if at is not side)

    def _connect(self, side: Side, effect: Connect) -> None:
        other = self.sides.get(effect.key)
        alive = [one for one in effect.addresses if one.text not in self.dead]
        if other is None or effect.key in self.unreachable or not alive:
            self.queue.append((side, ConnectFailed(effect.key, ConnectionError("cannot reach it"))))
        else:
            self.link(side, other, path_by(alive[0].carrier, alive[0].host))

    def link(self, dialler: Side, answerer: Side, path: Path = UNKNOWN_PATH) -> tuple[int, int]:
        """Open a link; both sides will hear of it."""
        ends = [
            _Wire(side, next(self._numbers), _gate(side, peer))
            for side, peer in ((dialler, answerer), (answerer, dialler))
        ]
        ends[0].other, ends[1].other = ends[1], ends[0]
        for wire, other, outbound in ((ends[0], answerer, True), (ends[1], dialler, False)):
            self.wires[wire.side, wire.number] = wire
            self.queue.append((wire.side, PeerConnected(wire.number, other.key, outbound, path=path)))
        return ends[0].number, ends[1].number

    def half_link(self, side: Side, peer: Identity, *, outbound: bool = False, path: Path = UNKNOWN_PATH) -> int:
        """Open a link whose other end is the test: `raw` puts envelopes on it."""
        wire = _Wire(side, next(self._numbers), Gate(peer.public, side.key, Chain.REGTEST, label="peer"))
        self.wires[side, wire.number] = wire
        self.gates[wire.number] = wire.gate
        side.feed(PeerConnected(wire.number, peer.pubkey, outbound, path=path))
        return wire.number

    def raw(self, side: Side, link: int, message: SignedMessage) -> list[Effect]:
        """Let an envelope arrive on a half link, also after it was closed; return what the node made of it."""
        try:
            event: Input = MessageReceived(link, self.gates[link].open_untrusted(message.raw))
        except PeerError as error:
            event = MessageRefused(link, error)
        return side.feed(event)

    def _arrive(self, wire: _Wire, data: bytes) -> None:
        if wire.other is None:
            return
        try:
            self._to_other(wire, MessageReceived(0, wire.other.gate.open_untrusted(data)))
        except PeerError as error:
            self._to_other(wire, MessageRefused(0, error))

    def _to_other(self, wire: _Wire, event: Input) -> None:
        other = wire.other
        if other is not None and (other.side, other.number) in self.wires:
            numbered = type(event)(other.number, *(getattr(event, name) for name in event.__struct_fields__[1:]))
            self.queue.append((other.side, numbered))

    def _cut(self, wire: _Wire, lost: PeerLost) -> None:
        self._to_other(wire, lost)
        self.wires.pop((wire.side, wire.number), None)

    def break_link(self, side: Side, number: int) -> None:
        """Cut the wire: what is on its way is lost, and both sides hear it."""
        wire = self.wires.pop((side, number))
        ends = [wire] if wire.other is None else [wire, wire.other]
        self.queue = deque(
            (at, event)
            for at, event in self.queue
            if not any(at is end.side and getattr(event, "link", None) == end.number for end in ends)
        )
        for end in ends:
            self.wires.pop((end.side, end.number), None)
            self.queue.append((end.side, PeerLost(end.number, ConnectionError("the connection broke"))))

    # --- time ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything that is on its way arrive."""
        while self.queue:
            self.step()

    def step(self) -> None:
        """Let the next thing arrive."""
        side, event = self.queue.popleft()
        if isinstance(event, Stored) and event.error is None:
            assert side.disk is not None
            assert side.disk.write() is event.store
        side.feed(event)

    def wait(self, seconds: float) -> None:
        """Move the clock, waking each node whenever it asked to be."""
        end = self.now + seconds
        self.run()
        while (due := self._next_due(end)) is not None:
            at, side = due
            self.now = max(self.now, at)
            side.feed(Woken())
            after = side.node.next_deadline()
            assert after is None or after > self.now, "a deadline that has come is not set again"
            self.run()
        self.now = end

    def _next_due(self, end: float) -> tuple[float, Side] | None:
        due = [
            (at, side) for side in self.sides.values() if (at := side.node.next_deadline()) is not None and at <= end
        ]
        return min(due, key=lambda one: one[0], default=None)


def _gate(side: Side, peer: Side) -> Gate:
    groups = side.node.ceremonies.ids
    return Gate(peer.identity.public, side.key, Chain.REGTEST, label=peer.label, groups=groups)


def strangers(limits: Limits | None = None) -> tuple[World, Side, Side]:
    """Return a world and two sides that have each other in the book, the one with the smaller key first."""
    world = World()
    limits = limits or Limits()
    low, high = world.add(LOW, "low", limits=limits), world.add(HIGH, "high", limits=limits)
    low.add(info_of(HIGH, "high"))
    high.add(info_of(LOW, "low"))
    return world, low, high


def keepers(limits: Limits | None = None) -> tuple[World, Side, Side]:
    """Return what `strangers` does, both with disks."""
    world = World()
    limits = limits or Limits()
    low, high = (world.add(one, name, limits=limits, disk=Disk()) for one, name in ((LOW, "low"), (HIGH, "high")))
    low.add(info_of(HIGH, "high"))
    high.add(info_of(LOW, "low"))
    return world, low, high


def connected(limits: Limits | None = None, *, low_dials: bool = True) -> tuple[World, Side, Side]:
    """Return what `strangers` does, connected."""
    world, low, high = strangers(limits)
    dialler, other = (low, high) if low_dials else (high, low)
    request = dialler.dial(other.key)
    world.run()
    assert dialler.answer(request) is None
    return world, low, high
