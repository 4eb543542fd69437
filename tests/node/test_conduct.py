"""What a node makes of how a peer behaves: scores, smaller rates, a door that closes for a while and opens again."""

from __future__ import annotations

import pytest
from pair import HIGH, LOW, Side, World, announcement, info_of
from test_node_links import half, sign

from musignet.errors import (
    Action,
    AuthenticationError,
    ConnectionError,
    InvalidMessage,
    NetworkError,
    PeerError,
    ReceiveError,
    SerializationError,
    Timeout,
)
from musignet.limits import REFUSAL_COSIGNER_MAX_S, REFUSAL_MIN_S
from musignet.node.conduct import deed_of
from musignet.node.effects import Disconnect
from musignet.node.inputs import AddPeer, ForgetPeer, MessageRefused, PeerLost, Woken
from musignet.node.peers import PeerInfo
from musignet.node.rates import Standing
from musignet.node.reputation import Deed
from musignet.wire.channel import NoRoom
from musignet.wire.envelope import Message
from musignet.wire.messages import CloseCode, MessageType
from musignet.wire.noise import BrokenFrame
from support.keys import CAROL

BAD_SIGNATURE = AuthenticationError("signature does not verify")


def score(side: Side) -> float:
    return side.node.conduct.reputation.score(HIGH.pubkey, side.world.now)


def come(world: World, side: Side) -> int:
    """HIGH dials us and announces itself."""
    link = world.half_link(side, HIGH)
    world.raw(side, link, sign(announcement(label="high"), 0))
    return link


def is_let_in(world: World, side: Side) -> bool:
    """HIGH dials us. Return whether it gets in; a link that opens is given up again."""
    link = come(world, side)
    if not side.peer(HIGH.pubkey).links:
        return False
    side.feed(PeerLost(link))
    return True


def misbehave(world: World, side: Side, error: PeerError = BAD_SIGNATURE) -> None:
    side.feed(MessageRefused(come(world, side), error))


# --- what is noted ----------------------------------------------------------------------------------------------------

SAID: list[tuple[NetworkError | None, Deed | None]] = [
    (NoRoom("x"), None),
    (BrokenFrame("x"), Deed.BROKEN_FRAME),
    (ReceiveError("x"), Deed.MALFORMED),
    (SerializationError("x"), Deed.MALFORMED),
    (AuthenticationError("x"), Deed.BAD_SIGNATURE),
    (InvalidMessage("x"), Deed.OUT_OF_PLACE),
    (Timeout("x"), Deed.SILENT),
    (ConnectionError("a cable was pulled"), None),
    (None, None),
]


@pytest.mark.parametrize(("error", "deed"), SAID)
def test_an_error_says_something_of_the_peer_or_nothing(error: NetworkError | None, deed: Deed | None) -> None:
    assert deed_of(error) is deed


def test_a_link_that_breaks_says_nothing_and_one_whose_bytes_were_changed_little() -> None:
    world, low, link = half()
    low.feed(PeerLost(link, ConnectionError("the connection broke")))
    assert score(low) == 0
    low.feed(PeerLost(come(world, low), BrokenFrame("a frame does not decrypt")))
    assert score(low) == Deed.BROKEN_FRAME.weight


def test_two_bodies_under_one_number_are_the_worst() -> None:
    world, low, link = half()
    for text in (b"one", b"two"):
        world.raw(low, link, sign(Message(MessageType.CHAT, "high", text), 7))
    assert score(low) == -100
    assert low.node.conduct.reputation.why(HIGH.pubkey) == "1x two messages under one number"


def test_a_borrowed_label_is_a_mistake_before_it_is_a_lie() -> None:
    world, low, link = half(announced=False)
    low.add(PeerInfo(id="carol", pubkey_hex=CAROL.pubkey_hex))
    world.raw(low, link, sign(announcement(label="carol"), 0))
    assert score(low) == Deed.OUT_OF_PLACE.weight


def test_what_is_ignored_is_not_held_against_anybody() -> None:
    _, low, link = half()
    low.feed(MessageRefused(link, InvalidMessage("of a newer version", action=Action.IGNORE)))
    assert score(low) == 0


def test_silence_counts_a_little() -> None:
    world, low, _ = half()
    world.wait(60.0)
    assert -2.0 <= score(low) < 0


def test_a_link_that_lasted_is_good_service() -> None:
    _, low, link = half()
    low.world.now += 3600
    low.feed(PeerLost(link))
    assert score(low) == Deed.SERVED.weight


def test_a_flood_is_noted_once_for_each_minute_of_it() -> None:
    world, low, _ = half()
    low.peer(HIGH.pubkey).gauge.floods = 1
    world.wait(2.0)
    assert low.node.conduct.reputation.why(HIGH.pubkey) == "1x more messages than it may send"
    low.feed(Woken())
    assert score(low) == pytest.approx(Deed.FLOODED.weight, abs=0.1)


# --- what follows -----------------------------------------------------------------------------------------------------


def test_after_two_invalid_signatures_it_is_told_why_and_waits_a_minute() -> None:
    world, low, link = half()
    low.feed(MessageRefused(link, BAD_SIGNATURE))
    assert is_let_in(world, low), "once may be a fault of a disk"
    misbehave(world, low)
    link = come(world, low)
    (refusal,) = [one for one in low.all(Disconnect) if one.link == link]
    assert refusal == Disconnect(link, CloseCode.FAULT, "refused for 60 s more: 2x invalid signatures")
    world.now += REFUSAL_MIN_S - 1
    assert not is_let_in(world, low)
    world.now += 1
    assert is_let_in(world, low)


def test_a_cosigner_is_never_refused_for_longer_than_a_quarter_of_an_hour_whatever_it_does() -> None:
    world, low, _ = half()
    longest = 0.0
    for _ in range(12):
        misbehave(world, low)
        began = world.now
        while not is_let_in(world, low):
            world.now += 10
        longest = max(longest, world.now - began)
    assert longest == REFUSAL_COSIGNER_MAX_S


def test_whoever_we_dial_ourselves_is_not_refused() -> None:
    world, low, _ = half()
    for _ in range(3):
        misbehave(world, low)
    assert not is_let_in(world, low)
    link = world.half_link(low, HIGH, outbound=True)
    world.raw(low, link, sign(announcement(label="high"), 0))
    assert low.peer(HIGH.pubkey).links


def test_a_bad_score_makes_the_rates_smaller_and_fading_gives_them_back() -> None:
    world, low, _ = half()
    gauge = low.peer(HIGH.pubkey).gauge
    misbehave(world, low)
    assert gauge.share == pytest.approx(0.4)
    world.now += 24 * 3600
    come(world, low)
    world.wait(2.0)
    assert gauge.share == 1.0


def test_forgetting_a_peer_forgets_what_it_did() -> None:
    world, low, _ = half()
    misbehave(world, low)
    low.ask(lambda request: ForgetPeer(request, HIGH.pubkey))
    low.add(info_of(HIGH, "high"))
    assert score(low) == 0
    assert low.peer(HIGH.pubkey).gauge.share == 1.0


def test_scores_of_an_earlier_run_count() -> None:
    world, low, _ = half()
    for _ in range(3):
        misbehave(world, low)
    dump = low.node.conduct.reputation.dump()
    again, after, _ = half(announced=False)
    assert after.node.conduct.reputation.load(dump, again.now)
    after.node.conduct.restored(after.node.book, again.now)
    assert after.peer(HIGH.pubkey).gauge.share == pytest.approx(0.2)
    assert not is_let_in(again, after)


# --- who it is --------------------------------------------------------------------------------------------------------


def test_a_peer_is_a_cosigner_unless_it_came_by_itself_or_is_not_confirmed() -> None:
    _, low, _ = half()
    assert low.peer(HIGH.pubkey).gauge.standing is Standing.COSIGNER
    for provisional, stranger in ((True, False), (False, True)):
        world = World()
        side = world.add(LOW, "low")
        info = info_of(HIGH, "high")
        side.ask(lambda request, p=provisional, s=stranger, i=info: AddPeer(request, i, p, s))  # type: ignore[misc]
        assert side.peer(HIGH.pubkey).gauge.standing is Standing.STRANGER
        side.add(info)
        assert side.peer(HIGH.pubkey).gauge.standing is Standing.COSIGNER, "somebody has put it into the book"
        side.ask(lambda request, p=provisional, s=stranger, i=info: AddPeer(request, i, p, s))  # type: ignore[misc]
        assert side.peer(HIGH.pubkey).gauge.standing is Standing.COSIGNER, "and it stays there"


def test_who_is_not_in_the_book_is_unknown() -> None:
    _, low, _ = half()
    conduct, book = low.node.conduct, low.node.book
    assert conduct.gauge(book.get(LOW.pubkey)).standing is Standing.UNKNOWN
    assert conduct.gauge(book.get(HIGH.pubkey)) is low.peer(HIGH.pubkey).gauge
