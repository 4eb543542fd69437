"""Any inputs in any order: `handle` raises nothing, and what it asks for makes sense. Bounds hold throughout."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Any

from hypothesis import event as seen
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from pair import HIGH, LOW, announcement, chat, draws, info_of

from musignet.crypto.keys import Identity
from musignet.errors import Action, AuthenticationError, ConnectionError, InvalidMessage, IoError, Timeout
from musignet.limits import Limits
from musignet.node.addresses import UNKNOWN_PATH, Path, Rank
from musignet.node.config import NodeConfig
from musignet.node.core import Node
from musignet.node.effects import (
    Acknowledge,
    Connect,
    Disconnect,
    Effect,
    MessageArrived,
    PeerDown,
    PeerUp,
    Publish,
    Reply,
    Send,
    Store,
)
from musignet.node.inputs import (
    Acknowledged,
    AddPeer,
    ConnectFailed,
    Dial,
    ForgetPeer,
    Handled,
    HangUp,
    Input,
    MessageReceived,
    MessageRefused,
    NetworkChanged,
    PeerConnected,
    PeerLost,
    PeerSeen,
    PlacesFailed,
    SendMessage,
    Stop,
    Stored,
    Woken,
)
from musignet.node.peers import PeerInfo
from musignet.wire.channel import CloseReceived
from musignet.wire.envelope import Message, VerifiedMessage
from musignet.wire.messages import Ack, Chain, MessageType, Ping, Pong
from support.keys import CAROL

LIMITS = Limits(outbox_max=3, unacked_max=3, unacked_max_bytes=700, receive_window=3, epochs_per_sender=2, peers_max=2)
PEERS = (HIGH, CAROL)
STRANGER = Identity.from_secret(bytes(31) + b"\x07")

keys = st.sampled_from([HIGH.pubkey, CAROL.pubkey, STRANGER.pubkey, LOW.pubkey])
links = st.integers(0, 5)
"""Which of the open links; with none open, the number of one that never was."""
faults = st.sampled_from([InvalidMessage("x", action=action) for action in Action])
errors = faults | st.sampled_from([ConnectionError("broke"), Timeout("slow"), AuthenticationError("no")])
goodbyes = st.none() | st.builds(CloseReceived, st.integers(0, 6), st.sampled_from(["", "bye \x1b"]))


def verified() -> list[VerifiedMessage]:
    """Return messages that passed a gate: of every kind, under few numbers, so that they collide."""
    plain = [
        announcement(b"epoch--1", label="high"),
        announcement(b"epoch--2", label="carol"),
        announcement(b"epoch--1", seen=(b"12345678", 2**60)),
        Message(MessageType.PING, "x", Ping(3)),
        Message(MessageType.PONG, "x", Pong(0)),
        Message(MessageType.ACK, "x", Ack((bytes(16),))),
        Message(MessageType.ACK, "x", b"junk"),
        Message(MessageType.DISCOVERY, "x", b"junk"),
        Message(65_535, "x", b"odd"),
        chat("one"),
        chat("two"),
    ]
    return [
        message.sign(who, seq=seq, epoch=epoch, chain=Chain.REGTEST).verify()
        for message in plain
        for who in PEERS
        for seq in (1, 2, 9)
        for epoch in (b"epoch--1", b"epoch--2", b"epoch--3")
    ]


ARRIVING = verified()
OUTGOING = [
    chat("short"),
    chat("x" * 500),
    Message(65_535, "x", b"odd"),
    Message(MessageType.PING, "x", Ping(1)),
    Message(MessageType.CHAT, "x" * 65, b"label too long"),
    chat("signed").sign(LOW, seq=1, chain=Chain.REGTEST),
    chat("signed differently").sign(LOW, seq=1, chain=Chain.REGTEST),
    chat("for high").sign(LOW, to=HIGH.pubkey, seq=2, chain=Chain.REGTEST),
    chat("not ours").sign(HIGH, seq=3, chain=Chain.REGTEST),
]
INFOS = [
    info_of(HIGH, "high"),
    info_of(CAROL, "carol"),
    info_of(CAROL, "high"),
    info_of(STRANGER, "stranger"),
    info_of(LOW, "me"),
    info_of(HIGH, "renamed", port=0),
    PeerInfo(id="bad", pubkey_hex="zz"),
    replace(info_of(HIGH, "high"), addresses=("wss://relay.example", "10.0.0.1:9000")),
    replace(info_of(HIGH, "high"), addresses=("rubbish",)),
]
to_whom = st.none() | st.lists(keys, max_size=3, unique=True).map(tuple)

commands = st.one_of(
    st.builds(lambda info: lambda request: AddPeer(request, info), st.sampled_from(INFOS)),
    st.builds(lambda key, persist: lambda request: Dial(request, key, persist), keys, st.booleans()),
    st.builds(lambda key: lambda request: HangUp(request, key), keys),
    st.builds(lambda key: lambda request: ForgetPeer(request, key), keys),
    st.builds(
        lambda to, message, acked: lambda request: SendMessage(request, to, message, acked),
        to_whom,
        st.sampled_from(OUTGOING),
        st.booleans(),
    ),
    st.builds(
        lambda to, message, acked, keep_s: lambda request: SendMessage(request, (to,), message, acked, keep_s),
        st.sampled_from([HIGH.pubkey, CAROL.pubkey]),
        st.sampled_from(OUTGOING),
        st.booleans(),
        st.sampled_from([1.0, 20.0, 1e9, -1.0]),
    ),
)
happenings = st.one_of(
    st.builds(ConnectFailed, keys, errors),
    st.builds(PlacesFailed, keys, errors),
    st.builds(PeerLost, links, st.none() | errors, goodbyes),
    st.builds(MessageReceived, links, st.sampled_from(ARRIVING)),
    st.builds(MessageRefused, links, faults),
    st.builds(Acknowledged, links, st.binary(max_size=40)),
    st.just(Woken()),
    st.just(NetworkChanged()),
    st.builds(PeerSeen, keys, st.sampled_from(["192.0.2.7", "fe80::1%eth0", "x"]), st.integers(1, 65_535)),
)
paths = st.sampled_from([UNKNOWN_PATH, Path(Rank.LAN, "tcp"), Path(Rank.RELAYED, "wss")])
epochs = st.sampled_from([b"", b"", b"epoch--1", b"epoch--2"])
connects = st.tuples(st.sampled_from(PEERS), st.booleans(), epochs, paths)
acks_of_own = st.integers(0, 3)
disk = st.sampled_from(["stored", "stored", "stored", "failed", "handled"])
pauses = st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0, 60.0])
steps = st.lists(
    st.tuples(st.one_of(connects, commands, happenings, acks_of_own, disk), pauses), min_size=25, max_size=80
)


class Checker:
    """Feeds a node, and keeps what must hold about its effects."""

    def __init__(self, *, disk: bool = False) -> None:
        self.node = Node(LOW, NodeConfig(label="low", chain=Chain.REGTEST, disk=disk, limits=LIMITS), draws("any"))
        self.stores: deque[Store] = deque()
        self.unhandled: deque[Handled] = deque()
        self.now = 1_000.0
        self.open: set[int] = set()
        self.links = 0
        self.sent_ids: list[bytes] = []
        self.answers: Counter[int] = Counter()
        self.requests = 0
        self.up: set[bytes] = set()
        self.stopped = False
        for info in INFOS[:2]:
            self.command(lambda request, info=info: AddPeer(request, info))  # type: ignore[misc]

    def feed(self, happened: Input) -> None:
        if isinstance(happened, PeerConnected):
            self.open.add(happened.link)
        elif isinstance(happened, PeerLost):
            self.open.discard(happened.link)
        effects = self.node.handle(happened, self.now)
        for effect in effects:
            self.check(effect)
        if isinstance(happened, Woken):
            deadline = self.node.next_deadline()
            assert deadline is None or deadline > self.now
        self.check_bounds()

    def command(self, make: Any) -> None:
        self.requests += 1
        self.feed(make(self.requests))

    def check(self, effect: Effect) -> None:
        if isinstance(effect, Send | Acknowledge):
            assert effect.link in self.open, "nothing is sent on a link that is gone"
        if isinstance(effect, Send):
            assert not self.stopped
            self.sent_ids.append(Message.from_bytes(effect.data).id)
        elif isinstance(effect, Disconnect):
            assert effect.link in self.open, "a link is closed once"
            self.open.remove(effect.link)
        elif isinstance(effect, Connect):
            assert not self.stopped
            assert effect.addresses
        elif isinstance(effect, Reply):
            self.answers[effect.request] += 1
            assert self.answers[effect.request] == 1, "a command is answered once"
            assert 1 <= effect.request <= self.requests
        elif isinstance(effect, Store):
            assert self.node.config.disk
            self.stores.append(effect)
        elif isinstance(effect, Publish):
            self.check_news(effect.news)

    def check_news(self, news: object) -> None:
        seen(type(news).__name__)
        if isinstance(news, MessageArrived):
            self.unhandled.append(Handled(news.key, news.message.id))
        elif isinstance(news, PeerUp):
            assert news.key not in self.up
            self.up.add(news.key)
        elif isinstance(news, PeerDown):
            self.up.remove(news.key)

    def check_bounds(self) -> None:
        book = self.node.book
        assert len(book) <= LIMITS.peers_max
        assert {peer.key for peer in book if peer.links} == self.up
        for peer in book:
            held = sum(len(message.data) for message in peer.unacked.values())
            assert peer.unacked_bytes == held
            assert len(peer.unacked) <= LIMITS.unacked_max
            assert held <= LIMITS.unacked_max_bytes or len(peer.unacked) == 1
            assert len(peer.windows) <= LIMITS.epochs_per_sender
            waits = peer.parked and peer.parked[0].ready and not self.node._outbox._shelf.dropping(peer.key)
            assert not waits or peer.unacked or not peer.links, "nothing waits where nothing is in the air"

    def step(self, step: Any) -> None:
        if isinstance(step, tuple):
            self.connect(*step)
        elif step == "handled":
            if self.unhandled:
                self.feed(self.unhandled.popleft())
        elif isinstance(step, str):
            if self.stores:
                self.feed(Stored(self.stores.popleft(), IoError("full") if step == "failed" else None))
        elif isinstance(step, int):
            for link in self.open:
                self.feed(Acknowledged(link, b"".join(self.sent_ids[step:])))
                break
        elif callable(step):
            self.command(step)
        elif not isinstance(step, MessageReceived | MessageRefused | PeerLost | Acknowledged):
            self.feed(step)
        elif self.open:
            self.feed(structs.replace(step, link=sorted(self.open)[step.link % len(self.open)]))
        else:
            before = self.node.next_deadline()
            assert self.node.handle(step, self.now) == [], "what is about no link does nothing"
            assert self.node.next_deadline() == before

    def connect(self, who: Identity, outbound: bool, epoch: bytes, path: Path) -> None:
        """Open a link; with an epoch, let the peer announce itself too."""
        self.links += 1
        link = self.links
        self.feed(PeerConnected(link, who.pubkey, outbound, path=path))
        if epoch and link in self.open:
            message = announcement(epoch).sign(who, seq=100 + link, epoch=epoch, chain=Chain.REGTEST)
            self.feed(MessageReceived(link, message.verify()))


@settings(max_examples=150)
@given(steps, st.booleans())
def test_any_inputs_in_any_order_raise_nothing_and_every_command_is_answered_once(
    all_steps: list[Any], disk: bool
) -> None:
    checker = Checker(disk=disk)
    for step, pause in all_steps:
        checker.now += pause
        checker.step(step)
    checker.command(Stop)
    checker.stopped = True
    while checker.stores:
        checker.step("stored")
    assert set(checker.answers) == set(range(1, checker.requests + 1)), "nobody waits for ever"
    for step, pause in all_steps[:20]:
        checker.now += pause
        checker.step(step)
    assert set(checker.answers) == set(range(1, checker.requests + 1))


@settings(max_examples=50)
@given(steps)
def test_the_same_inputs_have_the_same_effects(all_steps: list[Any]) -> None:
    def trace() -> list[str]:
        checker = Checker()
        effects = []
        for step, pause in all_steps:
            checker.now += pause
            checker.step(step)
            effects.append(repr(checker.node._out))
        return effects

    assert trace() == trace()
