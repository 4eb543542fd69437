"""An old disk that came back (THREATS.md K4): what is counted, what peers keep, and what proves it."""

from __future__ import annotations

import pytest
from pair import HIGH, LOW, Side, World, draws, info_of, keepers

from musignet.crypto.keys import Identity
from musignet.errors import InvalidMessage, IoError, PeerError, SerializationError
from musignet.limits import ANNOUNCEMENT_KEPT_MAX_BYTES, CHANGES_COUNTED_AFTER_S, Limits
from musignet.node.effects import Disconnect, Fault, OldDisk, Send, Store
from musignet.node.inputs import AddPeer, ForgetPeer, MessageReceived, PeerConnected, Stop
from musignet.node.kept import Box, Kept
from musignet.node.peers import Mail
from musignet.sim.disk import Disk
from musignet.wire.envelope import Message, SignedMessage
from musignet.wire.messages import Chain, CloseCode, MessageType, PeerAnnouncement
from support.keys import CAROL

EPOCH = b"epoch--1"


def said(side: Side, kind: MessageType = MessageType.PEER_ANNOUNCEMENT) -> list[SignedMessage]:
    messages = [Message.from_bytes(one.data) for one in side.all(Send)]
    return [one for one in messages if one.type == kind]


def announced(side: Side) -> list[int]:
    """Return how many changes each announcement of a run named."""
    contents = [one.content for one in said(side)]
    return [one.changes for one in contents if isinstance(one, PeerAnnouncement)]


def shown(side: Side) -> list[SignedMessage]:
    return said(side, MessageType.ANNOUNCEMENT_SHOWN)


def written(side: Side, box: Box) -> list[Kept]:
    return [kept for store in side.all(Store) for kept in store.puts if kept.box is box]


def linked() -> tuple[World, Side, Side]:
    world, low, high = keepers()
    low.dial(high.key)
    world.run()
    return world, low, high


def change(world: World, side: Side, times: int = 1) -> None:
    """Let sessions of a node change, each long after the one before."""
    for _ in range(times):
        side.node._changes.changed(world.now)
        world.wait(CHANGES_COUNTED_AFTER_S)


def copied(side: Side) -> Disk:
    assert side.disk is not None
    copy = Disk()
    copy.records = dict(side.disk.records)
    return copy


def come_back(world: World, side: Side, friend: Side, disk: Disk | None = None) -> None:
    """The machine dies, and starts again; with an old copy of its disk, where there is one."""
    world.crash(side)
    side.disk = disk or side.disk
    world.run()
    side.restart(friend)
    side.dial(friend.key)
    world.wait(1)
    assert side.peer(friend.key).live


# --- the count --------------------------------------------------------------------------------------------------------


def test_a_change_is_counted_after_a_second_and_announced_once_it_is_on_disk() -> None:
    world, low, high = linked()
    low.node._changes.changed(world.now)
    low.node._changes.changed(world.now + CHANGES_COUNTED_AFTER_S / 2)
    assert (low.node.next_deadline() or 0) <= world.now + CHANGES_COUNTED_AFTER_S
    world.now += CHANGES_COUNTED_AFTER_S
    low.node._changes.write(low.node._out)
    assert announced(low) == [0]
    world.perform(low, low.node._out[-1])
    assert announced(low) == [0], "the disk has not answered"
    world.run()
    assert announced(low) == [0, 1]
    assert high.news(Fault) == low.news(Fault) == []
    change(world, low)
    assert announced(low) == [0, 1, 2]
    assert low.disk is not None
    assert len([box for box, _, _ in low.disk.records if box is Box.CHANGES]) == 1, "the last count alone is kept"


@pytest.mark.parametrize("came_through", [False, True])
def test_a_crash_while_it_is_counted_announces_what_the_disk_has(came_through: bool) -> None:
    world, low, high = linked()
    change(world, low)
    low.node._changes.changed(world.now)
    world.now += CHANGES_COUNTED_AFTER_S
    for effect in low.node.handle(Stop(99), world.now):
        if isinstance(effect, Store):
            world.perform(low, effect)
    world.crash(low, writes=came_through)
    assert announced(low) == [0, 1]
    come_back(world, low, high)
    assert announced(low) == [2 if came_through else 1]
    assert low.news(OldDisk) == []


def test_a_clean_stop_counts_what_waits() -> None:
    world, low, high = linked()
    low.node._changes.changed(world.now)
    low.ask(Stop)
    world.run()
    come_back(world, low, high)
    assert announced(low) == [1]


def test_a_disk_that_fails_is_not_announced() -> None:
    world, low, _ = linked()
    low.disk_error = IoError("disk full")
    change(world, low)
    low.disk_error = None
    assert (announced(low), low.node._changes.count) == ([0], 0)
    change(world, low)
    assert announced(low)[1:] == [low.node._changes.count]


def test_without_a_disk_nothing_is_counted_or_said() -> None:
    world = World()
    low, high = world.add(LOW, "low"), world.add(HIGH, "high")
    low.add(info_of(HIGH, "high"))
    high.add(info_of(LOW, "low"))
    low.dial(high.key)
    change(world, low)
    assert (announced(low), high.node._changes._newest) == ([0], {})


# --- what peers keep --------------------------------------------------------------------------------------------------


def test_a_peer_keeps_the_newest_and_writes_only_when_it_is_newer() -> None:
    world, low, high = linked()
    change(world, low, 2)
    assert [one.envelope for one in written(high, Box.ANNOUNCED)] == [one.raw for one in said(low)[1:]]
    assert high.disk is not None
    assert len([box for box, _, _ in high.disk.records if box is Box.ANNOUNCED]) == 1
    high.effects.clear()
    come_back(world, low, high)
    assert announced(low) == [2]
    assert written(high, Box.ANNOUNCED) == shown(high) == []


def test_what_is_kept_is_there_after_a_restart_of_the_peer_too() -> None:
    world, low, high = linked()
    change(world, low)
    old = copied(low)
    change(world, low)
    come_back(world, high, low)
    come_back(world, low, high, old)
    assert len(low.news(OldDisk)) == 1


def test_a_peer_that_is_forgotten_is_forgotten_on_disk() -> None:
    world, low, high = linked()
    change(world, low)
    high.ask(lambda request: ForgetPeer(request, low.key))
    world.run()
    assert high.disk is not None
    assert [box for box, _, _ in high.disk.records if box is Box.ANNOUNCED] == []


def test_of_too_many_peers_the_oldest_is_not_kept() -> None:
    world, _, high = linked()
    newest = high.node._changes
    object.__setattr__(high.node.config, "limits", Limits(peers_max=1))
    for who in (LOW, CAROL):
        high.add(info_of(who, who.pubkey_hex[:8]))
        world.raw(high, world.half_link(high, who), announcement(who, 3))
    assert list(newest._newest) == [CAROL.pubkey]
    world.run()
    assert high.disk is not None
    assert [peer for box, peer, _ in high.disk.records if box is Box.ANNOUNCED] == [CAROL.pubkey]


def test_what_is_too_large_is_not_kept_and_an_honest_announcement_is_not() -> None:
    largest = PeerAnnouncement("x" * 64, ("a" * 128,) * 8, (65_535,) * 32, EPOCH, EPOCH, 2**62, 2**62)
    assert len(Message(2, "x" * 64, largest).sign(LOW, to=HIGH.pubkey, seq=2**62).raw) <= ANNOUNCEMENT_KEPT_MAX_BYTES
    world, _, high = linked()
    big = PeerAnnouncement("x", ("\N{BALLOT BOX}" * 128,) * 8, (), EPOCH, b"", 0, 7)
    high.add(info_of(CAROL, "carol"))
    world.raw(high, world.half_link(high, CAROL), announcement(CAROL, 7, content=big))
    assert CAROL.pubkey not in high.node._changes._newest


# --- the proof --------------------------------------------------------------------------------------------------------


def announcement(
    who: Identity, changes: int, *, to: bytes = b"", chain: Chain = Chain.REGTEST, seq: int = 0,
    content: PeerAnnouncement | None = None,
) -> SignedMessage:  # fmt: skip
    content = content or PeerAnnouncement("", (), (), EPOCH, b"", 0, changes)
    return Message(MessageType.PEER_ANNOUNCEMENT, "", content).sign(who, to=to, seq=seq, epoch=EPOCH, chain=chain)


def show(data: bytes, seq: int = 1) -> SignedMessage:
    message = Message(MessageType.ANNOUNCEMENT_SHOWN, "high", data)
    return message.sign(HIGH, to=LOW.pubkey, seq=seq, epoch=EPOCH, chain=Chain.REGTEST)


def alone(*, disk: bool = True, provisional: bool = False, count: int = 0) -> tuple[World, Side, int]:
    """Return a node whose one peer, HIGH, is the test itself."""
    world = World(10_000.0)
    low = world.add(LOW, "low", disk=Disk() if disk else None)
    low.ask(lambda request: AddPeer(request, info_of(HIGH, "high"), provisional))
    link = world.half_link(low, HIGH)
    world.raw(low, link, announcement(HIGH, 0))
    change(world, low, count)
    low.effects.clear()
    return world, low, link


def test_an_old_disk_is_proved_by_what_it_signed_once() -> None:
    world, low, high = linked()
    change(world, low)
    old = copied(low)
    change(world, low, 3)
    world.wait(7_200)
    come_back(world, low, high, old)
    (news,) = low.news(OldDisk)
    assert news.key == high.key
    assert "high" in str(news.error)
    assert "signed 2 h ago" in str(news.error)
    assert "propose them again" in str(news.error)
    assert "cannot be called back" in str(news.error)
    assert announced(low) == [1, 5], "counted past what was shown, and announced"
    assert low.news(Fault) == high.news(Fault) == []
    come_back(world, low, high)
    assert (announced(low), low.news(OldDisk)) == ([5], [])


def test_it_is_taken_only_once_it_is_on_disk() -> None:
    world, low, link = alone()
    (store,) = world.raw(low, link, show(announcement(LOW, 9, to=HIGH.pubkey).raw))
    assert isinstance(store, Store)
    assert (low.news(OldDisk), low.node._changes.count) == ([], 0)
    world.run()
    assert (len(low.news(OldDisk)), low.node._changes.count) == (1, 10)


def test_where_the_disk_fails_the_sessions_end_all_the_same_and_it_is_taken_again() -> None:
    world, low, link = alone()
    low.disk_error = IoError("disk full")
    for seq in (1, 2):
        world.raw(low, link, show(announcement(LOW, 9, to=HIGH.pubkey).raw, seq))
        world.run()
        assert (len(low.news(OldDisk)), low.node._changes.count) == (seq, 0)


LIES = {
    "another signer": announcement(CAROL, 9, to=HIGH.pubkey).raw,
    "another network": announcement(LOW, 9, to=HIGH.pubkey, chain=Chain.MAINNET).raw,
    "another recipient": announcement(LOW, 9, to=CAROL.pubkey).raw,
    "no recipient": announcement(LOW, 9).raw,
    "another signature": bytes(64) + announcement(LOW, 9, to=HIGH.pubkey).raw[64:],
    "a changed count": announcement(LOW, 8, to=HIGH.pubkey).raw[:64] + announcement(LOW, 9, to=HIGH.pubkey).raw[64:],
    "another message of ours": Message(17, "", b"hi").sign(LOW, to=HIGH.pubkey, chain=Chain.REGTEST).raw,
    "garbage": b"\xc1" * 300,
    "nothing": b"",
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES.keys())
def test_a_lie_is_the_fault_of_who_tells_it_and_drops_nothing(data: bytes) -> None:
    world, low, link = alone(count=2)
    world.raw(low, link, show(data))
    (fault,) = low.news(Fault)
    assert fault.key == HIGH.pubkey
    assert isinstance(fault.error, InvalidMessage | SerializationError)
    assert "high" in str(fault.error)
    assert [one.code for one in low.all(Disconnect)] == [CloseCode.FAULT]
    assert (low.all(Store), low.news(OldDisk), low.node._changes.count) == ([], [], 2)


@pytest.mark.parametrize("changes", [0, 1, 2])
def test_what_the_disk_has_proves_nothing_and_is_no_fault(changes: int) -> None:
    world, low, link = alone(count=2)
    assert world.raw(low, link, show(announcement(LOW, changes, to=HIGH.pubkey).raw)) == []


def test_a_proof_proves_nothing_a_second_time_nor_after_a_restart() -> None:
    world, low, link = alone()
    proof = announcement(LOW, 9, to=HIGH.pubkey).raw
    world.raw(low, link, show(proof))
    world.run()
    assert len(low.news(OldDisk)) == 1
    assert world.raw(low, link, show(proof, 2)) == []
    world.crash(low)
    low.restart()
    low.add(info_of(HIGH, "high"))
    link = world.half_link(low, HIGH)
    world.raw(low, link, announcement(HIGH, 0))
    assert world.raw(low, link, show(proof, 3)) == []


def test_a_node_without_a_disk_has_no_old_one() -> None:
    world, low, link = alone(disk=False)
    assert world.raw(low, link, show(announcement(LOW, 9, to=HIGH.pubkey).raw)) == []


def test_a_peer_that_is_not_confirmed_may_show_it_and_is_kept_nothing_of() -> None:
    world, low, link = alone(provisional=True)
    world.raw(low, link, show(announcement(LOW, 9, to=HIGH.pubkey).raw))
    world.run()
    assert len(low.news(OldDisk)) == 1
    world.raw(low, world.half_link(low, HIGH), announcement(HIGH, 3, seq=2))
    assert low.node._changes._newest == {}


def test_an_identity_in_a_fresh_folder_loses_nothing_and_is_told_once() -> None:
    world, low, high = linked()
    change(world, low, 2)
    come_back(world, low, high, Disk())
    assert len(low.news(OldDisk)) == 1
    come_back(world, low, high)
    assert low.news(OldDisk) == []


def test_of_two_machines_with_one_disk_the_one_that_is_behind_is_told_and_then_the_other() -> None:
    world, low, high = linked()
    change(world, low)
    disk = copied(low)
    change(world, low)
    copy = world.add(LOW, "low", disk=disk, draw=draws("another machine"))
    for one, other in ((copy, low), (low, copy)):
        world.sides[LOW.pubkey] = one
        come_back(world, one, high)
        assert (len(one.news(OldDisk)), other.node._changes.count < one.node._changes.count) == (1, True)


def test_nothing_is_shown_by_mail() -> None:
    world, low, high = linked()
    change(world, low, 2)
    world.crash(low)
    del world.sides[low.key]
    world.run()
    high.feed(PeerConnected(99, low.key, False, mail=Mail.LETTERS))
    old = announcement(LOW, 1, to=high.key).verify()
    assert high.feed(MessageReceived(99, old)) == []
    world.raw(high, world.half_link(high, LOW), announcement(LOW, 1, seq=1))
    assert len(shown(high)) == 1


# --- on an open link --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [announcement(HIGH, 0, seq=1), announcement(
    HIGH, 5, seq=1, content=PeerAnnouncement("", (), (), b"epoch--2", b"", 0, 5)
)], ids=["without a count", "of another run"])  # fmt: skip
def test_an_announcement_on_an_open_link_is_out_of_place_unless_its_count_rose(again: SignedMessage) -> None:
    world, low, link = alone()
    world.raw(low, link, again)
    (fault,) = low.news(Fault)
    assert isinstance(fault.error, PeerError)
    assert "out of place" in str(fault.error)
