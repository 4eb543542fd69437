"""Dialling, its answers, and reconnecting with growing pauses."""

from __future__ import annotations

import pytest
from pair import HIGH, LOW, Side, World, announcement, connected, info_of, strangers

from musignet.errors import AuthenticationError, ConnectionError, NetworkError, Timeout, TransportError
from musignet.limits import Limits
from musignet.node.addresses import parse_address
from musignet.node.effects import Connect, Disconnect, PeerDown, PeerUp, Reply
from musignet.node.inputs import ConnectFailed, ForgetPeer, HangUp, PeerConnected, PeerLost, Stop, Woken
from musignet.node.peers import PeerInfo, PeerState
from musignet.wire.channel import CloseReceived
from musignet.wire.messages import Chain, CloseCode
from support.keys import CAROL

LIMITS = Limits()


def lonely(*, byte: bytes = b"\x80", wanted: bool = True) -> tuple[World, Side]:
    """Return a node whose one peer cannot be reached; `byte` is what all its random draws consist of."""
    world = World()
    low = world.add(LOW, "low", draw=lambda n: byte * n)
    low.add(info_of(HIGH, "high"))
    if wanted:
        low.dial(HIGH.pubkey, persist=True)
        world.run()
    return world, low


def pauses(world: World, side: Side, count: int) -> list[float]:
    """Return the pauses before the next dials."""
    found = []
    for _ in range(count):
        deadline = side.node.next_deadline()
        assert deadline is not None
        found.append(deadline - world.now)
        world.wait(deadline - world.now)
    return found


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_dial_is_answered_once_the_peer_has_announced_itself() -> None:
    world, low, high = strangers()
    request = low.dial(high.key)
    assert low.all(Connect) == [Connect(high.key, (parse_address("high:9000"),))]
    assert low.peer(high.key).state is PeerState.CONNECTING
    assert low.replies(request) == []
    world.run()
    assert low.replies(request) == [Reply(request)]


def test_two_dials_at_once_are_one_connect_and_both_are_answered() -> None:
    world, low, high = strangers()
    requests = [low.dial(high.key) for _ in range(2)]
    assert len(low.all(Connect)) == 1
    world.run()
    assert [low.answer(request) for request in requests] == [None, None]


def test_a_dial_to_a_connected_peer_is_answered_at_once() -> None:
    _, low, high = connected()
    assert low.answer(low.dial(high.key)) is None
    assert len(low.all(Connect)) == 1


def test_a_dial_that_finds_nobody_is_answered_with_the_reason_and_not_repeated() -> None:
    world, low = lonely(wanted=False)
    error = low.answer_after_run(low.dial(HIGH.pubkey))
    assert isinstance(error, ConnectionError)
    record = low.peer(HIGH.pubkey)
    assert (record.state, record.last_error) == (PeerState.DISCONNECTED, error)
    world.wait(1_000)
    assert len(low.all(Connect)) == 1


@pytest.mark.parametrize(
    "info",
    [None, PeerInfo(id="carol", pubkey_hex=CAROL.pubkey_hex), PeerInfo(id="c", host="c", pubkey_hex=CAROL.pubkey_hex)],
    ids=["not in the book", "no address", "no port"],
)
def test_a_peer_without_an_address_cannot_be_dialled(info: PeerInfo | None) -> None:
    _, low, _ = strangers()
    if info is not None:
        low.add(info)
    error = low.answer(low.dial(CAROL.pubkey, persist=True))
    assert isinstance(error, TransportError)
    assert "no address for" in str(error)
    assert low.all(Connect) == []


@pytest.mark.parametrize(
    "lost",
    [
        PeerLost(0, ConnectionError("reset")),
        PeerLost(0, None, CloseReceived(CloseCode.FAULT, "no")),
        PeerLost(0, None, CloseReceived(CloseCode.DONE, "")),
        PeerLost(0),
    ],
    ids=["broken", "a fault", "done", "just gone"],
)
def test_a_peer_that_closes_before_it_announces_itself_did_not_let_us_in(lost: PeerLost) -> None:
    world, low, _ = strangers()
    request = low.dial(HIGH.pubkey)
    world.queue.clear()
    link = world.half_link(low, HIGH, outbound=True)
    low.feed(PeerLost(link, lost.error, lost.goodbye))
    error = low.answer(request)
    assert isinstance(error, AuthenticationError)
    assert "closed the connection before letting us in" in str(error)
    assert low.news(PeerDown) == low.news(PeerUp) == []


@pytest.mark.parametrize("error", [AuthenticationError("another key"), Timeout("too slow")])
def test_what_is_already_exact_is_not_rewritten(error: NetworkError) -> None:
    world, low, _ = strangers()
    request = low.dial(HIGH.pubkey)
    world.queue.clear()
    low.feed(PeerLost(world.half_link(low, HIGH, outbound=True), error))
    assert low.answer(request) is error


def test_an_inbound_link_answers_a_dial_that_is_still_under_way() -> None:
    world, low, high = strangers()
    world.unreachable.add(high.key)
    request = low.dial(high.key)
    world.queue.clear()
    high.dial(low.key)
    world.run()
    assert low.answer(request) is None
    assert low.peer(high.key).wanted, "its owner asked for this peer"
    low.feed(ConnectFailed(high.key, ConnectionError("at last")))
    assert low.peer(high.key).state is PeerState.CONNECTED
    assert low.peer(high.key).redial_at is None


def test_a_failure_about_a_forgotten_peer_means_nothing() -> None:
    _, low, _ = strangers()
    assert low.feed(ConnectFailed(CAROL.pubkey, ConnectionError("x"))) == []


# --- hanging up on a dial ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [HangUp, ForgetPeer])
def test_leaving_while_dialling_answers_the_dial_and_the_link_that_comes_is_closed(
    command: type[HangUp | ForgetPeer],
) -> None:
    world, low, high = strangers()
    dial = low.dial(high.key)
    low.ask(lambda request: command(request, high.key))
    error = low.answer(dial)
    assert isinstance(error, ConnectionError)
    assert "closed from here" in str(error)
    if command is HangUp:
        assert low.peer(high.key).state is PeerState.DISCONNECTED
    world.wait(1_000)
    assert low.news(PeerUp) == []
    assert not any(side is low for side, _ in world.wires)
    assert len(low.all(Connect)) == 1


def test_leaving_while_the_peer_has_not_announced_itself_answers_the_dial_so() -> None:
    world, low, _ = strangers()
    dial = low.dial(HIGH.pubkey)
    world.queue.clear()
    link = world.half_link(low, HIGH, outbound=True)
    low.ask(lambda request: HangUp(request, HIGH.pubkey))
    assert "closed from here" in str(low.answer(dial))
    assert low.all(Disconnect) == [Disconnect(link, CloseCode.DONE)]


def test_a_dial_after_leaving_takes_the_one_under_way() -> None:
    world, low, high = strangers()
    low.dial(high.key)
    low.ask(lambda request: HangUp(request, high.key))
    again = low.dial(high.key)
    assert low.peer(high.key).state is PeerState.CONNECTING
    world.run()
    assert low.answer(again) is None
    assert len(low.all(Connect)) == 1


def test_a_dial_that_was_left_and_fails_is_over() -> None:
    world, low = lonely(wanted=False)
    low.dial(HIGH.pubkey)
    low.ask(lambda request: HangUp(request, HIGH.pubkey))
    world.run()
    assert low.peer(HIGH.pubkey).state is PeerState.DISCONNECTED
    low.dial(HIGH.pubkey)
    assert len(low.all(Connect)) == 2


def test_a_stop_while_dialling_answers_the_dial_and_keeps_no_link() -> None:
    world, low, high = strangers()
    dial = low.dial(high.key)
    low.ask(Stop)
    assert isinstance(low.answer(dial), ConnectionError)
    world.wait(1_000)
    assert low.news(PeerUp) == []
    assert low.node.next_deadline() is None


# --- reconnecting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("byte", "share"), [(b"\0", 0.7), (b"\xff", 1.3)])
def test_pauses_double_up_to_a_minute_with_a_jitter_of_three_tenths(byte: bytes, share: float) -> None:
    world, low = lonely(byte=byte)
    expected = [min(LIMITS.backoff_max_s, LIMITS.backoff_min_s * 2**n) * share for n in range(12)]
    assert pauses(world, low, 12) == pytest.approx(expected)
    assert len(low.all(Connect)) == 13


def test_a_peer_that_is_away_for_a_day_is_still_dialled_at_the_longest_pause() -> None:
    world, low = lonely()
    world.wait(86_400)
    dials = len(low.all(Connect))
    world.wait(100 * LIMITS.backoff_max_s)
    assert len(low.all(Connect)) - dials == pytest.approx(100, abs=2)


def test_whoever_asks_for_a_peer_that_is_away_does_not_wait_as_long_as_those_before() -> None:
    world, low = lonely()
    world.wait(86_400)
    low.dial(HIGH.pubkey, persist=True)
    dials = len(low.all(Connect))
    world.wait(8 * LIMITS.backoff_min_s)
    assert len(low.all(Connect)) - dials == 3, "after one, three and seven of the shortest pauses"


def test_persist_dials_until_the_peer_lets_us_in() -> None:
    world = World()
    low, high = world.add(LOW, "low"), world.add(HIGH, "high")
    low.add(info_of(HIGH, "high"))
    first = low.dial(high.key, persist=True)
    world.wait(10)
    assert isinstance(low.peer(high.key).last_error, AuthenticationError)
    assert low.peer(high.key).state is PeerState.RECONNECTING
    assert low.replies(first) == []
    high.add(info_of(LOW, "low"))
    world.wait(60)
    assert low.answer(first) is None
    assert low.news(PeerUp) == [PeerUp(high.key)]
    assert high.news(PeerUp) == [PeerUp(low.key)]


def test_a_lost_link_is_dialled_again_and_the_news_says_when() -> None:
    world, low, high = connected()
    world.break_link(low, low.peer(high.key).links[0].number)
    world.run()
    (down,) = low.news(PeerDown)
    record = low.peer(high.key)
    assert record.state is PeerState.RECONNECTING
    assert down.retry_in_s is not None
    assert record.redial_at == pytest.approx(world.now + down.retry_in_s)
    assert high.news(PeerDown)[0].retry_in_s is None, "the side that was dialled waits"
    world.wait(down.retry_in_s)
    assert record.state is PeerState.CONNECTED
    assert record.last_error is None
    assert len(low.news(PeerUp)) == len(high.news(PeerUp)) == 2


@pytest.mark.parametrize(("more_s", "attempts"), [(-0.01, 4), (0.01, 1)])
def test_the_pause_starts_small_again_once_a_link_has_held(more_s: float, attempts: int) -> None:
    world, low, high = connected()
    record = low.peer(high.key)
    for _ in range(3):
        world.break_link(low, record.links[0].number)
        world.run()
        assert record.redial_at is not None
        world.wait(record.redial_at - world.now)
    assert record.attempts == 3
    world.wait(LIMITS.handshake_timeout_s + more_s)
    world.break_link(low, record.links[0].number)
    world.run()
    assert record.attempts == attempts


def test_hanging_up_ends_the_reconnecting() -> None:
    world, low = lonely()
    low.ask(lambda request: HangUp(request, HIGH.pubkey))
    assert low.peer(HIGH.pubkey).state is PeerState.DISCONNECTED
    world.wait(1_000)
    assert len(low.all(Connect)) == 1


def test_forgetting_a_peer_ends_the_reconnecting() -> None:
    world, low = lonely()
    low.ask(lambda request: ForgetPeer(request, HIGH.pubkey))
    world.wait(1_000)
    assert len(low.all(Connect)) == 1


def test_an_owner_who_cannot_wait_dials_at_once_and_the_pause_falls_away() -> None:
    world, low = lonely()
    low.dial(HIGH.pubkey)
    assert len(low.all(Connect)) == 2
    world.queue.clear()
    world.wait(0.5)
    assert len(low.all(Connect)) == 2


def test_an_inbound_link_ends_the_pause() -> None:
    world, low = lonely()
    link = world.half_link(low, HIGH)
    world.raw(low, link, announcement().sign(HIGH, chain=Chain.REGTEST))
    world.wait(20)
    assert len(low.all(Connect)) == 1


def test_losing_an_inbound_link_while_dialling_starts_no_second_dial() -> None:
    world, low = lonely()
    low.dial(HIGH.pubkey)
    world.queue.clear()
    link = world.half_link(low, HIGH)
    world.raw(low, link, announcement().sign(HIGH, chain=Chain.REGTEST))
    dials = len(low.all(Connect))
    low.feed(PeerLost(link, ConnectionError("broken")))
    assert low.peer(HIGH.pubkey).state is PeerState.CONNECTING
    assert low.peer(HIGH.pubkey).redial_at is None
    world.now += 10
    low.feed(Woken())
    assert len(low.all(Connect)) == dials


def test_connecting_to_a_peer_that_is_connected_already_keeps_it_connected() -> None:
    """`connect_to_peer` promises that a lost link is dialled again from then on, whoever had opened it."""
    world, low, high = connected(low_dials=False)
    low.dial(high.key)
    world.break_link(low, low.peer(high.key).links[0].number)
    world.run()
    assert low.peer(high.key).state is PeerState.RECONNECTING


def test_a_peer_without_a_port_is_not_dialled_again() -> None:
    world, low, high = connected()
    low.add(PeerInfo(id="high", pubkey_hex=HIGH.pubkey_hex))
    world.break_link(low, low.peer(high.key).links[0].number)
    world.run()
    assert low.news(PeerDown)[0].retry_in_s is None


def test_a_peer_that_loses_its_address_during_the_pause_is_not_dialled() -> None:
    world, low = lonely()
    low.add(PeerInfo(id="high", pubkey_hex=HIGH.pubkey_hex))
    assert low.peer(HIGH.pubkey).state is PeerState.DISCONNECTED
    world.wait(1_000)
    assert len(low.all(Connect)) == 1


def test_an_outbound_link_to_a_forgotten_peer_is_closed() -> None:
    _, low, high = strangers()
    low.ask(lambda request: ForgetPeer(request, high.key))
    assert low.feed(PeerConnected(5, high.key, True)) == [Disconnect(5, None)]
