"""The life of a link: announcements, the tie-break, goodbyes, keep-alive. Both ends are real nodes."""

from __future__ import annotations

import pytest
from pair import HIGH, LOW, Side, World, announcement, chat, connected, draws, info_of, strangers

from musignet.crypto.keys import Identity
from musignet.errors import Action, AuthenticationError, ConnectionError, InvalidMessage, SerializationError, Timeout
from musignet.limits import Limits
from musignet.node.effects import Connect, Disconnect, Fault, MessageArrived, PeerDown, PeerUp, Reply, Send
from musignet.node.inputs import (
    Acknowledged,
    ForgetPeer,
    HangUp,
    MessageReceived,
    MessageRefused,
    PeerConnected,
    PeerLost,
    Stop,
    Woken,
)
from musignet.node.peers import PeerInfo, PeerState
from musignet.wire.channel import CloseReceived
from musignet.wire.envelope import Message, SignedMessage
from musignet.wire.messages import (
    Chain,
    CloseCode,
    Discovery,
    MessageType,
    PeerAnnouncement,
    Ping,
    Pong,
    Priority,
)
from support.keys import CAROL

LIMITS = Limits()


def sign(message: Message, seq: int = 1, *, who: Identity = HIGH, epoch: bytes = b"epoch--1") -> SignedMessage:
    return message.sign(who, seq=seq, epoch=epoch, chain=Chain.REGTEST)


def half(*, outbound: bool = False, announced: bool = True, limits: Limits = LIMITS) -> tuple[World, Side, int]:
    """Return a node whose one peer, HIGH, is the test itself."""
    world = World()
    low = world.add(LOW, "low", limits=limits)
    low.add(info_of(HIGH, "high"))
    if outbound:
        low.dial(HIGH.pubkey)
        world.queue.clear()
    link = world.half_link(low, HIGH, outbound=outbound)
    if announced:
        world.raw(low, link, sign(announcement(label="high"), 0))
        assert low.peer(HIGH.pubkey).links
    return world, low, link


# --- the announcement -------------------------------------------------------------------------------------------------


def test_a_connected_pair_knows_each_other() -> None:
    _, low, high = connected()
    for side, other in ((low, high), (high, low)):
        assert side.news(PeerUp) == [PeerUp(other.key)]
        assert side.peer(other.key).state is PeerState.CONNECTED
        assert side.news(Fault) == []
        assert [link.epoch for link in side.peer(other.key).links] == [other.node.epoch]


def test_the_first_thing_on_a_link_is_the_announcement_and_nothing_overtakes_it() -> None:
    _, low, link = half(announced=False)
    (send,) = low.all(Send)
    content = Message.from_bytes(send.data).content
    assert content == PeerAnnouncement("low", (), (), low.node.epoch, b"", 0)
    assert (send.link, send.priority) == (link, min(Priority))
    assert Message.from_bytes(send.data).body.recipient == HIGH.pubkey


def test_nobody_is_connected_before_the_peers_announcement() -> None:
    _, low, _ = half(announced=False)
    assert low.news(PeerUp) == []
    assert low.peer(HIGH.pubkey).state is PeerState.DISCONNECTED


@pytest.mark.parametrize(
    "first",
    [
        chat(),
        Message(MessageType.PING, "high", Ping(1)),
        Message(MessageType.PEER_ANNOUNCEMENT, "high", b"\xc0"),
        Message(65_535, "high", b"unknown and odd"),
    ],
    ids=["a chat", "a ping", "an undecodable announcement", "an unknown type"],
)
def test_anything_else_first_closes_the_link_with_one_fault(first: Message) -> None:
    world, low, link = half(announced=False)
    world.raw(low, link, sign(first))
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, InvalidMessage | SerializationError)
    assert low.all(Disconnect) == [Disconnect(link, CloseCode.FAULT, str(fault.error))]
    assert low.news(PeerUp) == low.news(PeerDown) == low.news(MessageArrived) == []
    assert world.raw(low, link, sign(chat(), 2)) == [], "the link is gone"


def test_a_second_announcement_closes_the_link() -> None:
    world, low, link = half()
    world.raw(low, link, sign(announcement(label="high"), 1))
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, InvalidMessage)
    assert "a message out of place from high" in str(fault.error)
    assert "got PeerAnnouncement" in str(fault.error)
    assert low.all(Disconnect)[-1].code == CloseCode.FAULT
    assert [type(down.error) for down in low.news(PeerDown)] == [InvalidMessage]


def test_a_silent_peer_is_dropped_after_the_handshake_timeout() -> None:
    world, low, link = half(announced=False)
    world.wait(LIMITS.handshake_timeout_s - 0.001)
    assert low.all(Disconnect) == []
    world.wait(0.001)
    assert low.all(Disconnect) == [Disconnect(link, CloseCode.SILENT, "")]
    assert low.news(PeerDown) == []


def test_a_silent_peer_that_was_dialled_answers_the_dial_with_timeout() -> None:
    world, low, _ = half(outbound=True, announced=False)
    world.wait(LIMITS.handshake_timeout_s)
    error = low.answer(low.requests)
    assert isinstance(error, Timeout)
    assert "high" in str(error)
    assert "did not announce itself within 5 s" in str(error)
    assert low.peer(HIGH.pubkey).state is PeerState.DISCONNECTED


def test_a_peer_without_a_name_gets_the_one_it_announces_and_a_given_name_stays() -> None:
    world, low, _ = half()
    assert low.peer(HIGH.pubkey).info == PeerInfo(
        id="high", name="high", host="high", port=9000, pubkey_hex=HIGH.pubkey_hex
    )
    low.add(PeerInfo(id="high", name="Mine", pubkey_hex=HIGH.pubkey_hex))
    world.raw(low, world.half_link(low, HIGH), sign(announcement(label="theirs"), 5))
    assert low.peer(HIGH.pubkey).info.name == "Mine"


def test_a_label_that_belongs_to_another_key_is_refused_when_it_announces_itself() -> None:
    world, low, link = half(announced=False)
    low.add(info_of(CAROL, "carol"))
    world.raw(low, link, sign(announcement(label="carol"), 0))
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, AuthenticationError)
    assert "the label 'carol' belongs to another key" in str(fault.error)
    assert low.all(Disconnect)[-1].code == CloseCode.FAULT
    assert low.news(PeerUp) == []


def test_a_label_that_was_announced_before_its_owner_came_is_refused_from_then_on() -> None:
    world, low, link = half(announced=False)
    world.raw(low, link, sign(announcement(label="carol"), 0))
    assert low.peer(HIGH.pubkey).info.name == "carol", "nobody has that name yet"
    low.add(info_of(CAROL, "carol"))
    world.raw(low, world.half_link(low, HIGH), sign(announcement(label="carol"), 1))
    (fault,) = low.news(Fault)
    assert "the label 'carol' belongs to another key" in str(fault.error)


def test_a_peer_that_nobody_named_is_called_what_it_announced_last() -> None:
    world, low, _ = half()
    world.raw(low, world.half_link(low, HIGH), sign(announcement(label="other"), 5))
    assert low.peer(HIGH.pubkey).info.name == "other"


def test_a_label_that_belongs_to_another_key_is_refused_when_its_owner_adds_it() -> None:
    _, low, _ = half()
    assert isinstance(low.add(info_of(CAROL, "high")), AuthenticationError)
    assert low.peer(HIGH.pubkey).state is PeerState.CONNECTED


def test_the_announcement_says_the_newest_counter_seen_and_the_peer_finds_its_own() -> None:
    world, low, high = connected()
    high.send(chat(), low.key)
    world.run()
    last = high.node._outbox.seq
    world.break_link(low, low.peer(high.key).links[0].number)
    world.wait(1)
    announced = [Message.from_bytes(send.data) for send in low.all(Send)]
    content = [m.content for m in announced if m.type == MessageType.PEER_ANNOUNCEMENT][-1]
    assert isinstance(content, PeerAnnouncement)
    assert (content.seen_epoch, content.seen_seq) == (high.node.epoch, last)
    assert high.news(Fault) == []


def test_a_peer_that_has_seen_more_than_we_sent_proves_a_copy_and_the_link_stays() -> None:
    world, low, link = half(announced=False)
    seen = (low.node.epoch, 1_000)
    world.raw(low, link, sign(announcement(label="high", seen=seen), 0))
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, AuthenticationError)
    assert fault.error.action is Action.WARN
    assert "a copy of this node is running" in str(fault.error)
    assert low.all(Disconnect) == []
    assert low.news(PeerUp) == [PeerUp(HIGH.pubkey)]


@pytest.mark.parametrize("seen", [(b"", 0), (b"12345678", 1_000)], ids=["nothing", "another run"])
def test_counters_of_another_run_prove_nothing(seen: tuple[bytes, int]) -> None:
    world, low, link = half(announced=False)
    world.raw(low, link, sign(announcement(label="high", seen=seen), 0))
    assert low.news(Fault) == []


# --- strangers and what comes too late --------------------------------------------------------------------------------


def test_a_key_that_is_not_in_the_book_is_closed_without_a_word() -> None:
    world = World()
    low = world.add(LOW, "low")
    assert low.feed(PeerConnected(1, HIGH.pubkey, False)) == [Disconnect(1, None)]
    assert low.node.next_deadline() is None


def test_what_is_about_a_link_that_is_gone_means_nothing() -> None:
    world, low, link = half()
    message = sign(chat()).verify()
    low.ask(lambda request: HangUp(request, HIGH.pubkey))
    for event in (
        MessageReceived(link, message),
        MessageRefused(link, InvalidMessage("x")),
        Acknowledged(link, bytes(16)),
        PeerLost(link, None, CloseReceived(CloseCode.DONE, "")),
        PeerLost(99),
    ):
        assert low.feed(event) == []
    world.wait(100)


@pytest.mark.parametrize(
    ("action", "faults", "closed"),
    [(Action.IGNORE, 0, False), (Action.WARN, 1, False), (Action.ABORT_SESSION, 1, False), (Action.CLOSE, 1, True)],
)
def test_a_refused_message_does_what_its_action_says(action: Action, faults: int, closed: bool) -> None:
    _, low, link = half()
    error = InvalidMessage("bad \x1b[31m", action=action)
    low.feed(MessageRefused(link, error))
    assert [fault.error for fault in low.news(Fault)] == [error] * faults
    assert [(d.code, d.text) for d in low.all(Disconnect)] == [(CloseCode.FAULT, "bad \\x1b[31m")] * closed
    assert bool(low.peer(HIGH.pubkey).links) is not closed


# --- one link per pair ------------------------------------------------------------------------------------------------


def links(side: Side, other: Side) -> list[bool]:
    """Return for each link whether this side opened it."""
    return [link.outbound for link in side.peer(other.key).links]


def test_after_a_simultaneous_dial_the_link_of_the_smaller_key_stays() -> None:
    world, low, high = strangers()
    requests = low.dial(high.key), high.dial(low.key)
    world.run()
    assert links(low, high) == [True]
    assert links(high, low) == [False]
    assert low.answer(requests[0]) is None
    assert high.answer(requests[1]) is None
    assert [d.code for d in low.all(Disconnect)] == [CloseCode.DUPLICATE]
    assert high.all(Disconnect) == [], "only the smaller key settles it"
    for side, other in ((low, high), (high, low)):
        assert side.news(PeerUp) == [PeerUp(other.key)]
        assert side.news(PeerDown) == side.news(Fault) == []
    world.wait(1_000)
    assert links(low, high) == [True]


def test_a_simultaneous_dial_is_settled_alike_whichever_link_opens_first() -> None:
    world, low, high = strangers()
    high.dial(low.key)
    low.dial(high.key)
    world.run()
    assert links(low, high) == [True]
    assert [d.code for d in low.all(Disconnect)] == [CloseCode.DUPLICATE]


def test_both_sides_want_a_link_that_both_have_dialled() -> None:
    world, low, high = strangers()
    low.dial(high.key)
    high.dial(low.key)
    world.run()
    assert low.peer(high.key).wanted
    assert high.peer(low.key).wanted


@pytest.mark.parametrize("first_outbound", [False, True])
@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
def test_the_smaller_key_keeps_its_own_of_two_at_once_and_else_the_newer(first_outbound: bool, late: bool) -> None:
    world, low, first = half(outbound=first_outbound)
    if late:
        world.now += LIMITS.handshake_timeout_s
    if not first_outbound:
        low.node._dialler._connect(low.peer(HIGH.pubkey), [])
        world.queue.clear()
    second = world.half_link(low, HIGH, outbound=not first_outbound)
    world.raw(low, second, sign(announcement(label="high"), 1))
    closed = second if first_outbound and not late else first
    assert low.all(Disconnect) == [Disconnect(closed, CloseCode.DUPLICATE, "another link stays")]


def test_a_peer_that_dials_again_replaces_its_older_link() -> None:
    world, low, first = half()
    second = world.half_link(low, HIGH)
    world.raw(low, second, sign(announcement(label="high"), 1))
    assert low.all(Disconnect) == [Disconnect(first, CloseCode.DUPLICATE, "another link stays")]


def big_half() -> tuple[World, Side, int]:
    """As `half`, for the node with the larger key."""
    world = World()
    high = world.add(HIGH, "high")
    high.add(info_of(LOW, "low"))
    link = world.half_link(high, LOW)
    world.raw(high, link, sign(announcement(), 0, who=LOW))
    return world, high, link


def test_the_larger_key_leaves_two_links_of_one_run_to_the_smaller() -> None:
    world, high, first = big_half()
    second = world.half_link(high, LOW)
    world.raw(high, second, sign(announcement(), 1, who=LOW))
    assert high.all(Disconnect) == []
    assert [link.number for link in high.peer(LOW.pubkey).links] == [first, second]


def test_the_larger_key_closes_the_oldest_of_three() -> None:
    world, high, first = big_half()
    for seq in (1, 2):
        link = world.half_link(high, LOW)
        world.raw(high, link, sign(announcement(), seq, who=LOW))
    assert [d.link for d in high.all(Disconnect)] == [first]
    assert len(high.peer(LOW.pubkey).links) == 2


def test_a_link_from_before_a_restart_of_the_peer_is_closed_by_either() -> None:
    world, high, first = big_half()
    second = world.half_link(high, LOW)
    world.raw(high, second, sign(announcement(b"epoch--2"), 0, who=LOW, epoch=b"epoch--2"))
    assert [d.link for d in high.all(Disconnect)] == [first]
    assert high.news(PeerDown) == [], "it was never without a link"
    assert high.news(PeerUp) == [PeerUp(LOW.pubkey)]


# --- goodbyes ---------------------------------------------------------------------------------------------------------


def test_hanging_up_says_done_and_neither_side_dials_again() -> None:
    world, low, high = connected()
    request = low.ask(lambda request: HangUp(request, high.key))
    assert low.answer(request) is None
    assert low.all(Disconnect)[-1].code == CloseCode.DONE
    world.run()
    assert low.news(PeerDown) == [PeerDown(high.key, None, None)]
    assert high.news(PeerDown) == [PeerDown(low.key, None, None)]
    before = len(low.all(Connect) + high.all(Connect))
    world.wait(1_000)
    assert len(low.all(Connect) + high.all(Connect)) == before
    assert low.peer(high.key).state is PeerState.DISCONNECTED


def test_a_peer_that_hangs_up_is_not_dialled_again_by_who_dialled_it() -> None:
    world, low, high = connected()
    high.ask(lambda request: HangUp(request, low.key))
    world.wait(1_000)
    assert low.news(PeerDown) == [PeerDown(high.key, None, None)]
    assert len(low.all(Connect)) == 1


def test_hanging_up_on_nobody_is_answered() -> None:
    _, low, _ = strangers()
    for key in (HIGH.pubkey, CAROL.pubkey):
        assert low.answer(low.ask(lambda request, key=key: HangUp(request, key))) is None  # type: ignore[misc]
    assert low.all(Disconnect) == []


def test_a_node_that_stops_says_that_it_goes_away_and_is_dialled_again() -> None:
    world, low, high = connected()
    assert high.answer(high.ask(Stop)) is None
    world.run()
    (down,) = low.news(PeerDown)
    assert isinstance(down.error, ConnectionError)
    assert "went away" in str(down.error)
    assert down.retry_in_s is not None
    assert low.peer(high.key).state is PeerState.RECONNECTING
    world.wait(down.retry_in_s)
    assert len(low.all(Connect)) == 2


def test_a_stopped_node_closes_what_connects_and_dials_nobody() -> None:
    world, low, high = connected(low_dials=False)
    high.ask(Stop)
    world.run()
    assert high.feed(PeerConnected(77, low.key, False)) == [Disconnect(77, None)]
    error = high.answer(high.dial(low.key))
    assert "this node is stopped" in str(error)
    world.wait(1_000)
    assert len(high.all(Connect)) == 1


def test_a_fault_that_the_peer_reports_is_shown_escaped() -> None:
    world, low, high = connected()
    (wire,) = (w for w in world.wires.values() if w.side is high)
    world.perform(high, Disconnect(wire.number, CloseCode.FAULT, "you \x1b[31m"))
    world.run()
    (down,) = low.news(PeerDown)
    assert isinstance(down.error, ConnectionError)
    assert str(down.error).endswith("closed the link; it says: you \\x1b[31m")


def test_a_goodbye_without_a_text_says_only_who_closed() -> None:
    _, low, link = half()
    low.feed(PeerLost(link, None, CloseReceived(999, "")))
    (down,) = low.news(PeerDown)
    assert str(down.error).endswith("closed the link")


def test_a_forgotten_peer_is_closed_and_unknown_afterwards() -> None:
    world, low, high = connected()
    assert low.answer(low.ask(lambda request: ForgetPeer(request, high.key))) is None
    world.run()
    assert low.node.book.get(high.key) is None
    assert low.all(Disconnect)[-1].code == CloseCode.DONE
    high.dial(low.key)
    world.run()
    assert isinstance(high.answer(high.requests), AuthenticationError)
    assert low.answer(low.ask(lambda request: ForgetPeer(request, high.key))) is None, "twice is harmless"


# --- keep-alive -------------------------------------------------------------------------------------------------------


def pings(side: Side) -> list[int]:
    contents = [Message.from_bytes(send.data).content for send in side.all(Send)]
    return [content.token for content in contents if isinstance(content, Ping)]


def test_a_first_round_trip_comes_after_a_second_then_one_per_interval() -> None:
    world, low, high = connected()
    assert low.peer(high.key).round_trip_s is None
    world.wait(1)
    assert low.peer(high.key).round_trip_s == 0
    assert len(pings(low)) == 1
    world.wait(LIMITS.ping_interval_s * 0.8 - 0.001)
    assert len(pings(low)) == 1
    world.wait(LIMITS.ping_interval_s * 0.4)
    assert len(pings(low)) == 2
    world.wait(3_600)
    assert 90 <= len(pings(low)) <= 160, "a ping every 24 to 36 s"
    assert low.news(PeerDown) == high.news(PeerDown) == []


def test_the_round_trip_is_from_the_ping_to_its_own_pong() -> None:
    world, low, link = half()
    world.wait(1)
    (token,) = pings(low)
    world.now += 0.25
    world.raw(low, link, sign(Message(MessageType.PONG, "high", Pong(token + 1)), 5))
    assert low.peer(HIGH.pubkey).round_trip_s is None, "a pong to nothing that was asked"
    world.raw(low, link, sign(Message(MessageType.PONG, "high", Pong(token)), 6))
    assert low.peer(HIGH.pubkey).round_trip_s == pytest.approx(0.25)
    world.now += 1
    world.raw(low, link, sign(Message(MessageType.PONG, "high", Pong(token)), 7))
    assert low.peer(HIGH.pubkey).round_trip_s == pytest.approx(0.25), "a pong counts once"


def test_a_ping_is_answered_with_its_token_and_not_acknowledged() -> None:
    world, low, link = half()
    effects = world.raw(low, link, sign(Message(MessageType.PING, "high", Ping(42))))
    (send,) = effects
    assert isinstance(send, Send)
    assert Message.from_bytes(send.data).content == Pong(42)
    assert world.raw(low, link, sign(Message(MessageType.PING, "high", Ping(42)))) == [], "a repeat is dropped"


def test_a_peer_that_falls_silent_is_dead_after_50_s() -> None:
    world, low, link = half()
    world.wait(LIMITS.dead_after_s - 0.001)
    assert low.all(Disconnect) == []
    world.wait(0.002)
    assert low.all(Disconnect) == [Disconnect(link, CloseCode.SILENT, "")]
    (down,) = low.news(PeerDown)
    assert isinstance(down.error, Timeout)
    assert "nothing heard from high" in str(down.error)


@pytest.mark.parametrize("sign_of_life", ["a message", "an acknowledgement"])
def test_whatever_is_heard_counts_as_life(sign_of_life: str) -> None:
    world, low, link = half()
    for seq in range(1, 6):
        world.wait(LIMITS.dead_after_s - 1)
        if sign_of_life == "a message":
            world.raw(low, link, sign(chat(), seq))
        else:
            low.feed(Acknowledged(link, bytes(16)))
    assert low.all(Disconnect) == []


@pytest.mark.parametrize(("byte", "share"), [(b"\0", 0.8), (b"\xff", 1.2)])
def test_the_interval_of_pings_is_jittered_by_a_fifth(byte: bytes, share: float) -> None:
    world, low, high = strangers()
    low.node._pulse._draw = lambda n: byte * n
    low.dial(high.key)
    world.run()
    world.wait(1)
    world.wait(LIMITS.ping_interval_s * share - 0.01)
    assert len(pings(low)) == 1
    world.wait(0.02)
    assert len(pings(low)) == 2


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageType.PING, "high", b"\x91\xff"),
        Message(MessageType.ACK, "high", b"junk"),
        Message(MessageType.DISCOVERY, "high", Discovery(bytes(16), 9000)),
    ],
    ids=["an undecodable ping", "an undecodable ack", "a beacon"],
)
def test_a_message_of_nodes_that_makes_no_sense_closes_the_link(message: Message) -> None:
    world, low, link = half()
    world.raw(low, link, sign(message))
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, InvalidMessage | SerializationError)
    assert "high" in str(fault.error)
    assert low.all(Disconnect)[-1].code == CloseCode.FAULT


# --- deadlines --------------------------------------------------------------------------------------------------------


def test_waking_early_does_nothing_and_no_deadline_is_in_the_past() -> None:
    world, low, high = connected()
    before = len(low.effects)
    assert low.feed(Woken()) == []
    assert len(low.effects) == before
    for _ in range(50):
        deadline = low.node.next_deadline()
        assert deadline is not None
        assert deadline > world.now
        world.wait(deadline - world.now)
    assert low.peer(high.key).state is PeerState.CONNECTED


def test_a_node_without_links_waits_for_nothing() -> None:
    world = World()
    assert world.add(LOW, "low").node.next_deadline() is None


def test_the_same_inputs_give_the_same_bytes() -> None:
    first, second = ([send.data for send in connected()[1].all(Send)] for _ in range(2))
    assert first == second


def test_each_start_draws_its_own_epoch() -> None:
    world = World()
    assert world.add(LOW, "low").node.epoch != world.add(LOW, "low", seed="again").node.epoch
    assert len(world.add(LOW, "low", draw=draws("x")).node.epoch) == 8
    assert Reply(1) == Reply(1, None, 0)
