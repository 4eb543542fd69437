"""Messages that are kept on disk: accepted there, sent until acknowledged, handled once, over crashes of both sides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pair import HIGH, LOW, Side, World, announcement, chat, info_of, keepers, strangers

from musignet.errors import ConnectionError, IoError, SendError, Timeout
from musignet.limits import CEREMONY_WAITING_MAX, OUTBOX_TTL_MAX_S, Limits
from musignet.node.effects import (
    Acknowledge,
    Disconnect,
    Expired,
    MessageArrived,
    PeerDown,
    Reply,
    Send,
    Store,
    Undelivered,
)
from musignet.node.inputs import (
    Acknowledged,
    ForgetPeer,
    HangUp,
    MessageReceived,
    PeerConnected,
    PeerLost,
    SendMessage,
    Stop,
    Stored,
)
from musignet.node.kept import Box
from musignet.node.outbox import NODES_OWN
from musignet.node.peers import Mail
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, CloseCode

FULL = IoError("disk full")


def boxes(side: Side) -> list[int]:
    """Return how many records are in each box of messages."""
    assert side.disk is not None
    return [sum(box is one for box, _, _ in side.disk.records) for one in (Box.OUT, Box.IN, Box.HANDLED)]


def sent(side: Side) -> list[str]:
    messages = [Message.from_bytes(one.data) for one in side.all(Send)]
    return [message.payload.decode() for message in messages if message.type not in NODES_OWN]


def _text(one: Send) -> str:
    message = Message.from_bytes(one.data)
    return "" if message.type in NODES_OWN else message.payload.decode()


def link_up(world: World, low: Side, high: Side) -> None:
    low.dial(high.key)
    world.run()
    assert low.peer(high.key).links


def cut(world: World, side: Side) -> None:
    for at, number in list(world.wires):
        if at is side:
            world.break_link(side, number)
            break
    world.run()


# --- accepted ---------------------------------------------------------------------------------------------------------


def test_disk_before_answer_and_disk_before_wire() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    request = low.keep("hello", high.key)
    assert (low.replies(request), sent(low)) == ([], [])
    assert isinstance(low.effects[-1], Store)
    world.run()
    assert low.answer(request) is None
    assert high.handle() == ["hello"]
    world.run()
    assert (boxes(low), boxes(high)) == ([0, 0, 0], [0, 0, 1])


def test_room_for_more_lets_nothing_out_that_is_not_on_disk() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    world.acks_lost = True
    low.keep("a", high.key)
    world.run()
    (message_id,) = low.peer(high.key).unacked
    low.keep("b", high.key)
    low.feed(Acknowledged(low.peer(high.key).links[0].number, message_id))
    assert sent(low) == ["a"]
    world.run()
    assert sent(low) == ["a", "b"]


def test_a_peer_that_is_not_there_is_written_to_all_the_same() -> None:
    world, low, high = keepers()
    request = low.keep("hello", high.key)
    acked = low.keep("and back", high.key, until_acked=True)
    world.run()
    assert low.answer(request) is None
    assert low.replies(acked) == []
    assert boxes(low) == [2, 0, 0]
    link_up(world, low, high)
    assert low.answer(acked) is None
    assert high.handle() == ["hello", "and back"]


def test_a_message_that_need_not_survive_waits_for_those_before_it_and_is_not_kept() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("first", high.key)
    low.send(chat("second"), high.key)
    assert sent(low) == []
    world.run()
    assert high.handle() == ["first", "second"]


@pytest.mark.parametrize(
    ("keep_s", "what"),
    [(OUTBOX_TTL_MAX_S + 1, "not a time to keep a message"), (-1.0, "not a time"), (float("nan"), "not a time")],
)
def test_times_that_are_none_are_refused(keep_s: float, what: str) -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    with pytest.raises(SendError, match=what):
        raise low.answer(low.keep("x", high.key, keep_s=keep_s)) or AssertionError
    assert boxes(low) == [0, 0, 0]


def test_a_node_without_a_disk_refuses_to_keep() -> None:
    _, low, high = strangers()
    with pytest.raises(SendError, match="no disk to keep a message on"):
        raise low.answer(low.keep("x", high.key)) or AssertionError


@pytest.mark.parametrize("limits", [Limits(outbox_max=2), Limits(outbox_max_bytes=300)])
def test_what_is_kept_is_bounded_while_nobody_takes_it(limits: Limits) -> None:
    world, low, high = keepers(limits)
    answers = [low.keep(str(number), high.key) for number in range(3)]
    world.run()
    assert [low.answer(one) for one in answers[:2]] == [None, None]
    with pytest.raises(SendError, match="too much waits for high"):
        raise low.answer(answers[2]) or AssertionError
    link_up(world, low, high)
    assert high.handle() == ["0", "1"]
    assert low.answer_after_run(low.keep("again", high.key)) is None


def test_a_connected_peer_is_waited_for_instead() -> None:
    world, low, high = keepers(Limits(outbox_max=1, unacked_max=1))
    link_up(world, low, high)
    world.acks_lost = True
    answers = [low.keep(str(number), high.key) for number in range(3)]
    world.run()
    assert [len(low.replies(one)) for one in answers] == [1, 0, 0]
    cut(world, low)
    assert [low.answer(one) for one in answers] == [None] * 3, "they are on disk, and nobody takes them"


def test_a_disk_that_fails_is_told_to_the_sender_and_nothing_is_sent() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.disk_error = FULL
    request = low.keep("lost", high.key)
    world.run()
    assert low.answer(request) is FULL
    low.disk_error = None
    low.keep("kept", high.key)
    world.run()
    assert high.handle() == ["kept"]


# --- until acknowledged -----------------------------------------------------------------------------------------------


def test_over_restarts_of_the_sender_the_same_bytes_go_out_in_order() -> None:
    world, low, high = keepers()
    for text in "abc":
        low.keep(text, high.key)
    world.run()
    before = list(low.disk.records.values()) if low.disk else []
    for _ in range(6):  # more runs than a receiver keeps windows for
        world.crash(low)
        low.restart(high)
    link_up(world, low, high)
    assert high.handle() == ["a", "b", "c"]
    envelopes = [one.data for one in low.all(Send)]
    assert [one.envelope for one in before if one.envelope in envelopes] == [one.envelope for one in before]


def test_a_crash_before_the_disk_has_it_accepts_nothing_and_a_crash_after_it_loses_nothing() -> None:
    for writes in (False, True):
        world, low, high = keepers()
        request = low.keep("hello", high.key)
        world.crash(low, writes=writes)
        assert low.replies(request) == []
        low.restart(high)
        link_up(world, low, high)
        assert high.handle() == ["hello"] * writes


def test_a_peer_that_is_added_after_the_start_gets_what_was_kept_for_it() -> None:
    world, low, high = keepers()
    low.keep("hello", high.key)
    world.run()
    world.crash(low)
    low.restart()
    low.add(info_of(HIGH, "high"))
    low.add(info_of(HIGH, "high again"))
    link_up(world, low, high)
    assert high.handle() == ["hello"]


def test_an_acknowledged_message_is_not_sent_again_and_one_whose_drop_was_lost_is_not_handled_again() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("hello", high.key)
    while not low.peer(high.key).unacked:
        world.step()
    while low.peer(high.key).unacked:
        world.step()
    assert boxes(low) == [1, 0, 0], "acknowledged, and on disk still"
    world.crash(low)
    world.run()
    assert high.handle() == ["hello"]
    low.restart(high)
    link_up(world, low, high)
    assert (sent(low), high.handle()) == (["hello"], [])
    world.run()
    assert boxes(low) == [0, 0, 0]


def test_what_may_still_be_on_disk_counts_as_on_its_way() -> None:
    """Or a crash could send again what the receiver has forgotten since."""
    world, low, high = keepers(Limits(unacked_max=2))
    link_up(world, low, high)
    world.acks_lost = True
    for text in "abc":
        low.keep(text, high.key)
    world.run()
    ids = list(low.peer(high.key).unacked)
    link = low.peer(high.key).links[0].number
    before = len(sent(low))
    low.feed(Acknowledged(link, b"".join(ids)))
    assert len(sent(low)) == before
    world.run()
    assert sent(low)[before:] == ["c"]


def test_drops_that_the_disk_refused_are_tried_again() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("a", high.key)
    world.acks_lost = True
    world.run()
    world.acks_lost = False
    (message_id,) = low.peer(high.key).unacked
    low.disk_error = FULL
    low.feed(Acknowledged(low.peer(high.key).links[0].number, message_id))
    world.run()
    low.disk_error = None
    assert boxes(low) == [1, 0, 0]
    low.keep("b", high.key)
    world.run()
    assert boxes(low) == [0, 0, 0]


def test_hanging_up_and_stopping_keep_what_is_kept_and_forgetting_does_not() -> None:
    commands: list[tuple[Callable[[int], object], int]] = [
        (lambda request: HangUp(request, HIGH.pubkey), 2),
        (Stop, 2),
        (lambda request: ForgetPeer(request, HIGH.pubkey), 0),
    ]
    for command, left in commands:
        world, low, high = keepers(Limits(unacked_max=1))
        link_up(world, low, high)
        world.acks_lost = True
        in_the_air, parked = low.keep("a", high.key), low.keep("b", high.key, until_acked=True)
        world.run()
        gone = low.ask(command)  # type: ignore[arg-type]
        world.run()
        assert low.answer(gone) is None
        assert low.answer(in_the_air) is None
        assert isinstance(low.answer(parked), ConnectionError)
        assert boxes(low)[0] == left
        assert [one.count for one in low.news(Undelivered)] == ([] if left else [2])


def test_what_stays_after_a_hang_up_goes_out_on_the_next_link() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    world.acks_lost = True
    low.keep("a", high.key)
    world.run()
    low.ask(lambda request: HangUp(request, high.key))
    low.keep("b", high.key)
    world.run()
    world.acks_lost = False
    link_up(world, low, high)
    assert high.handle() == ["a", "b"]
    world.run()
    assert (boxes(low), low.peer(high.key).unacked_bytes) == ([0, 0, 0], 0)


# --- expiry -----------------------------------------------------------------------------------------------------------


def test_after_its_time_a_message_is_dropped_and_that_is_said() -> None:
    world, low, high = keepers()
    short = low.keep("short", high.key, keep_s=10, until_acked=True)
    low.keep("long", high.key, keep_s=100)
    world.wait(10.1)
    assert isinstance(low.answer(short), Timeout)
    (expired,) = low.news(Expired)
    assert (expired.key, len(expired.message_ids)) == (high.key, 1)
    assert boxes(low) == [1, 0, 0]
    link_up(world, low, high)
    assert high.handle() == ["long"]
    world.wait(100)
    assert len(low.news(Expired)) == 1


def test_a_message_over_which_the_peer_closes_two_links_leaves_the_disk_too_and_the_next_run_does_not_send_it() -> None:
    world, low, high = keepers(Limits(backoff_min_s=1))
    link_up(world, low, high)
    poison = chat("poison", kind=65_534)
    low.ask(lambda request: SendMessage(request, (high.key,), poison, False, 60.0))
    world.wait(10)
    assert [lost.count for lost in low.news(Undelivered)] == [1]
    assert (sent(low), boxes(low)) == (["poison"] * 2, [0, 0, 0])
    world.crash(low)
    low.restart(high)
    link_up(world, low, high)
    assert sent(low) == []


def test_each_message_expires_in_its_own_time() -> None:
    world, low, high = keepers()
    for keep_s in (30, 10, 20):
        low.keep("x", high.key, keep_s=keep_s)
    for count in range(4):
        assert len(low.news(Expired)) == count
        world.wait(10.1)
    assert boxes(low) == [0, 0, 0]
    assert low.node.next_deadline() is None


def test_times_go_on_while_the_node_is_off_and_for_peers_that_are_not_in_the_book() -> None:
    for friends in (True, False):
        world, low, high = keepers()
        low.keep("a", high.key, keep_s=10)
        low.keep("b", high.key, keep_s=60)
        world.run()
        world.crash(low)
        world.now += 30
        low.restart(*([high] if friends else []))
        world.wait(1)
        assert [len(one.message_ids) for one in low.news(Expired)] == [1]
        low.add(info_of(HIGH, "high"))
        link_up(world, low, high)
        assert high.handle() == ["b"]


def test_a_message_that_expires_in_the_air_makes_room() -> None:
    world, low, high = keepers(Limits(unacked_max=1, ping_interval_s=1_000, dead_after_s=5_000))
    link_up(world, low, high)
    world.acks_lost = True
    low.keep("a", high.key, keep_s=5)
    low.keep("b", high.key, keep_s=100)
    world.run()
    world.acks_lost = False
    world.wait(6)
    assert high.handle() == ["a", "b"]
    assert low.peer(high.key).unacked_bytes == 0


# --- handled once -----------------------------------------------------------------------------------------------------


def test_disk_before_handler_and_disk_before_acknowledgement() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("hello", high.key)
    while not any(one.puts and one.puts[0].box is Box.IN for one in high.all(Store)):
        world.step()
    assert (high.all(Acknowledge), high.news(MessageArrived)) == ([], [])
    world.run()
    assert (len(high.all(Acknowledge)), high.handle()) == (1, ["hello"])


def test_what_was_not_handled_is_handed_over_by_the_next_run_before_anything_new() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    for text in "abc":
        low.keep(text, high.key)
    world.run()
    world.crash(high)
    high.restart(low)
    low.keep("d", high.key)
    world.run()
    link_up(world, low, high)
    assert high.handle() == ["a", "b", "c", "d"]
    world.run()
    world.crash(high)
    high.restart(low)
    assert (high.handle(), boxes(high)) == ([], [0, 0, 4])


def test_a_crash_before_it_is_on_disk_that_a_message_was_handled_hands_it_over_again() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("hello", high.key)
    world.run()
    assert high.handle() == ["hello"]
    world.crash(high)
    high.restart(low)
    assert high.handle() == ["hello"]


def test_a_message_that_comes_again_on_the_way_to_the_disk_is_acknowledged_on_every_link_it_came_on() -> None:
    """The larger key keeps both links of a simultaneous dial until the smaller one has chosen."""
    world, _, high = keepers()
    links = []
    for seq in (0, 1):
        links.append(world.half_link(high, LOW))
        world.raw(high, links[-1], announcement().sign(LOW, epoch=b"epoch--1", seq=seq, chain=Chain.REGTEST))
    message = chat("x").sign(LOW, seq=2, epoch=b"epoch--1", chain=Chain.REGTEST)
    for link in links:
        assert not [one for one in world.raw(high, link, message) if isinstance(one, Acknowledge)]
    world.run()
    assert [one.link for one in high.all(Acknowledge) if one.message_id == message.id] == links
    assert high.handle() == ["x"]


def test_a_link_that_closes_while_the_disk_writes_gets_no_acknowledgement_and_the_next_one_does() -> None:
    world, _, high = keepers()
    message = chat("x").sign(LOW, seq=2, epoch=b"epoch--1", chain=Chain.REGTEST)
    first = world.half_link(high, LOW)
    world.raw(high, first, announcement().sign(LOW, epoch=b"epoch--1", chain=Chain.REGTEST))
    world.raw(high, first, message)
    high.feed(PeerLost(first, ConnectionError("the connection broke")))
    world.run()
    assert (high.all(Acknowledge), high.handle()) == ([], ["x"])
    second = world.half_link(high, LOW)
    world.raw(high, second, announcement().sign(LOW, epoch=b"epoch--1", seq=1, chain=Chain.REGTEST))
    assert world.raw(high, second, message) == [Acknowledge(second, message.id)]
    assert high.handle() == []


def test_what_was_behind_a_message_that_the_disk_refused_is_not_handed_over_before_it() -> None:
    world, low, high = keepers(Limits(backoff_min_s=1))
    link_up(world, low, high)
    for text in "abc":
        low.keep(text, high.key)
    high.disk_error = FULL
    while not high.all(Store):
        world.step()
    high.disk_error = None
    world.run()
    assert high.handle() == []
    world.wait(5)
    assert high.handle() == ["a", "b", "c"]


def test_what_the_disk_refuses_is_not_acknowledged_and_comes_again_in_order() -> None:
    world, low, high = keepers(Limits(backoff_min_s=1))
    link_up(world, low, high)
    high.disk_error = FULL
    for text in "abc":
        low.keep(text, high.key)
    world.run()
    (down,) = high.news(PeerDown)
    assert down.error is FULL
    assert [one.code for one in high.all(Disconnect)] == [CloseCode.GOING_AWAY]
    assert (high.all(Acknowledge), high.handle()) == ([], [])
    high.disk_error = None
    world.wait(5)
    assert high.handle() == ["a", "b", "c"]


def test_ids_are_remembered_over_more_runs_of_the_sender_than_there_are_windows() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    world.acks_lost = True
    low.keep("hello", high.key)
    world.run()
    assert high.handle() == ["hello"]
    for number in range(6):
        world.crash(low)
        low.restart(high)
        low.keep(str(number), high.key)
        link_up(world, low, high)
        world.run()
        assert high.handle() == [str(number)]


def test_ids_are_bounded_by_a_window_and_by_time() -> None:
    world, low, high = keepers(Limits(receive_window=3, unacked_max=3))
    link_up(world, low, high)
    for number in range(10):
        low.keep(str(number), high.key)
        world.run()
        high.handle()
    world.run()
    assert boxes(high) == [0, 0, 3]
    world.crash(high)
    world.now += OUTBOX_TTL_MAX_S + 1
    high.restart(low)
    world.run()
    assert boxes(high) == [0, 0, 0]


def test_what_is_older_than_the_ids_on_disk_is_handed_over_again_when_somebody_kept_it() -> None:
    """Not held (THREATS.md T7): a letter of before the last window, replayed after a restart."""
    world, low, high = keepers(Limits(receive_window=3, unacked_max=3))
    link_up(world, low, high)
    for text in "abcdef":
        low.keep(text, high.key)
        world.run()
        high.handle()
        world.run()
    kept = {text: Message.from_bytes(one.data).verify() for one in low.all(Send) if (text := _text(one))}
    world.crash(high)
    world.crash(low)
    high.restart(low)
    high.feed(PeerConnected(77, low.key, False, mail=Mail.LETTERS))
    for text in "af":
        high.feed(MessageReceived(77, kept[text]))
    world.run()
    assert high.handle() == ["a"]


def test_more_than_a_window_that_waited_for_a_peer_arrives_though_its_announcement_has_a_higher_number() -> None:
    world, low, high = keepers(Limits(receive_window=8, unacked_max=4))
    texts = [str(number) for number in range(30)]
    for text in texts:
        low.keep(text, high.key)
    world.run()
    link_up(world, low, high)
    arrived: list[str] = []
    while new := high.handle():
        arrived += new
        world.run()
    assert arrived == texts
    assert boxes(low) == [0, 0, 0]


def test_a_forgotten_peer_leaves_nothing_on_disk() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    for text in "abc":
        low.keep(text, high.key)
    world.run()
    high.handle()
    low.keep("d", high.key)
    world.run()
    arrived = high.news(MessageArrived)[-1]
    high.ask(lambda request: ForgetPeer(request, low.key))
    world.run()
    assert boxes(high) == [0, 0, 0]
    high.add(info_of(low.identity, "low"))
    assert high.handle() == ["d"]  # too late: nobody counts on it any more
    world.run()
    assert boxes(high) == [0, 0, 0]
    assert arrived.message.payload == b"d"


def test_a_stopped_node_hands_nothing_over_and_the_next_run_does() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("hello", high.key)
    while not any(one.puts and one.puts[0].box is Box.IN for one in high.all(Store)):
        world.step()
    high.ask(Stop)
    world.run()
    assert (high.all(Acknowledge), high.news(MessageArrived)) == ([], [])
    high.restart(low)
    assert high.handle() == ["hello"]


def test_a_stopped_node_keeps_nothing_new() -> None:
    _, low, high = keepers()
    low.ask(Stop)
    with pytest.raises(SendError, match="this node is stopped"):
        raise low.answer(low.keep("x", high.key)) or AssertionError


def test_answers_about_what_was_given_up_meanwhile_mean_nothing() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.keep("a", high.key)
    store = low.all(Store)[-1]
    low.ask(lambda request: ForgetPeer(request, high.key))
    replies = len(low.all(Reply))
    assert low.feed(Stored(store)) == []
    assert low.feed(Stored(store, FULL)) == []
    assert len(low.all(Reply)) == replies


def test_a_broadcast_and_a_message_to_nobody_are_not_kept() -> None:
    world, low, high = keepers()
    link_up(world, low, high)
    low.send(chat("all"))
    world.run()
    assert boxes(low) == [0, 0, 0]
    assert high.handle() == ["all"]
    world.run()
    assert boxes(high) == [0, 0, 1]


def test_a_ceremony_does_not_wait_behind_what_is_kept() -> None:
    world, low, high = keepers(Limits(unacked_max=2))
    link_up(world, low, high)
    low.keep("a", high.key)
    peer, out = low.peer(high.key), []
    signed = low.node._outbox.to_group(8, bytes(32), b"partial", bytes(32), world.now)
    low.node._outbox.spread(signed, [peer], out)
    assert [one for one in out if isinstance(one, Send)]
    low.keep("b", high.key)
    low.keep("c", high.key)
    second = low.node._outbox.to_group(8, bytes(32), b"other", bytes(32), world.now)
    third = low.node._outbox.to_group(8, bytes(32), b"third", bytes(32), world.now)
    out.clear()
    for one in (second, third):
        low.node._outbox.spread(one, [peer], out)
    order = [*peer.unacked, *(one.message_id for one in peer.parked)]
    assert order.index(second.id) < order.index(third.id)


def test_a_member_that_acknowledges_nothing_of_a_ceremony_fills_no_memory() -> None:
    """It proposes for ever, and each refusal is a message to it."""
    world, low, high = keepers(Limits(unacked_max=2))
    link_up(world, low, high)
    peer, out = low.peer(high.key), []
    for number in range(CEREMONY_WAITING_MAX + 50):
        signed = low.node._outbox.to_group(8, bytes(32), number.to_bytes(4, "big"), bytes(32), world.now)
        low.node._outbox.spread(signed, [peer], out)
    assert (len(peer.unacked), len(peer.parked)) == (2, CEREMONY_WAITING_MAX)
    low.keep("kept", high.key)
    assert len(peer.parked) == CEREMONY_WAITING_MAX + 1, "the application's are counted apart"
