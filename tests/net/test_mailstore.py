"""The journal of messages, and a service on it: what was accepted survives kills and power cuts, handled once."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from endpoints import CARRIERS, Carrier, aio, turns
from services import LogLines, Party, chat

from musignet.errors import IoError, LocalError, SendError, Timeout
from musignet.limits import Limits
from musignet.net.folder import DataFolder
from musignet.net.mailstore import _KINDS, MailStore
from musignet.net.peer import Peer
from musignet.net.store import Forget, Journal, Kind, Record
from musignet.node.effects import Expired, Store
from musignet.node.inputs import Restore, Stored
from musignet.node.kept import Box, Kept
from musignet.wire.envelope import Message, SignedMessage
from support.keys import ALICE, BOB

TESTS = Path(__file__).parents[1]
CUTS = int(os.environ.get("MUSIGNET_CUTS", "600"))
"""Power cuts, each at a moment and with a seed of its own. `make cuts` for more."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with closing(DataFolder.lock(tmp_path / "data")) as locked:
        yield locked


@pytest.fixture
def memory() -> Carrier:
    return CARRIERS["memory"]()


def signed(number: int, size: int = 100) -> SignedMessage:
    return Message(17, "alice", bytes(size)).sign(ALICE, seq=number)


def put(box: Box, message: SignedMessage, expires_ms: int = 0) -> Store:
    body = b"" if box is Box.HANDLED else message.raw
    return Store(BOB.pubkey, (Kept(box, message.id, body, expires_ms),))


# --- the journal ------------------------------------------------------------------------------------------------------


def test_forgetting_takes_a_record_away_and_is_no_error_twice(folder: DataFolder) -> None:
    with Journal.open(folder, "messages", _KINDS) as journal:
        assert journal.append([Record(Box.OUT, b"a", b"1"), Record(Box.OUT, b"b", b"2", 5)]) == [1, 2]
        assert journal.append([Forget(Box.OUT, b"a"), Record(Box.IN, b"a", b"3"), Forget(Box.OUT, b"x")]) == [1, 3, 0]
        assert journal.append([Forget(Box.OUT, b"a")]) == [0]
    with Journal.open(folder, "messages", _KINDS) as journal:
        assert [one.record.key for one in journal.replay()] == [b"b", b"a"]
        assert journal.append([Record(Box.OUT, b"c", b"4")]) == [4], "no id is used twice"


def test_only_what_may_be_deleted_is_forgotten(folder: DataFolder) -> None:
    kinds = (Kind(0, "burn", single=True), Kind(1, "note", prunable=True))
    with Journal.open(folder, "other", kinds) as journal:
        journal.append([Record(0, b"a", b"1"), Record(1, b"a", b"1")])
        for kind in (0, 1, 2):
            with pytest.raises(LocalError, match="record to forget"):
                journal.append([Record(1, b"b", b"2"), Forget(kind, b"a")])
        assert len(list(journal.replay())) == 2


@aio
async def test_what_was_stored_is_loaded_in_order(folder: DataFolder) -> None:
    out, arrived, done = signed(1), signed(2), signed(3)
    answers: list[Stored] = []
    store = MailStore(folder, answers.append)
    assert store.load() == Restore()
    effects = [put(Box.OUT, signed(9)), put(Box.OUT, out, 77), put(Box.IN, arrived), put(Box.HANDLED, done, 88)]
    effects.append(Store(BOB.pubkey, (), ((Box.OUT, signed(9).id), (Box.IN, bytes(16)))))
    for effect in effects:
        store.store(effect)
    assert store.waiting_bytes == 3 * len(out.raw)
    await store.close()
    store.store(put(Box.OUT, signed(5)))  # too late, and no harm
    assert answers == [Stored(effect) for effect in effects]
    assert store.waiting_bytes == 0
    again = MailStore(folder, answers.append)
    key = BOB.pubkey
    assert again.load() == Restore(((key, out, 77),), ((key, arrived.verify()),), ((key, done.id, 88),))
    await again.close()


@aio
async def test_more_than_the_writer_takes_waits_and_keeps_its_order(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musignet.net.mailstore.JOURNAL_WAITING_MAX_RECORDS", 3)
    answers: list[Stored] = []
    last = put(Box.IN, signed(99))

    def answer(stored: Stored) -> None:
        answers.append(stored)
        if len(answers) == 1:
            store.store(last)

    store = MailStore(folder, answer)
    effects = [put(Box.OUT, signed(number)) for number in range(20)]
    effects.insert(7, Store(BOB.pubkey, (), tuple((Box.IN, bytes([n]) * 16) for n in range(9))))  # more than 3 alone
    for effect in effects:
        store.store(effect)
    await store.close()
    assert [one.store for one in answers] == [*effects, last]


@aio
async def test_trouble_with_the_disk_is_answered(folder: DataFolder) -> None:
    answers: list[Stored] = []
    store = MailStore(folder, answers.append)
    store._journal.close()
    store.store(put(Box.OUT, signed(1)))
    await store.close()
    assert isinstance(answers[0].error, IoError)


@aio
async def test_a_message_that_is_none_is_refused_at_the_start(folder: DataFolder) -> None:
    with Journal.open(folder, "messages", _KINDS) as journal:
        journal.append([Record(Box.OUT, BOB.pubkey + bytes(16), b"not a message")])
    store = MailStore(folder, lambda _: None)
    with pytest.raises(IoError, match="a message in the journal messages"):
        store.load()
    await store.close()


# --- kills and power cuts ---------------------------------------------------------------------------------------------


@pytest.mark.driver
def test_200_kills_lose_nothing_and_hand_over_again_only_what_was_not_marked(tmp_path: Path) -> None:
    kills = os.environ.get("MUSIGNET_KILLS", "200")
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "support.mail_chaos", str(tmp_path), kills, "5"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    assert counts["lives"] == int(kills) + 3
    assert counts["handled"] >= counts["accepted"] > int(kills)


def test_a_power_cut_leaves_a_state_that_was_and_none_before_the_last_answer(tmp_path: Path) -> None:
    pytest.importorskip("apsw", reason="apsw, the disk that forgets, is not installed")
    power = importlib.import_module("support.power")
    recorder = power.Recorder()
    folder = power.Folder.lock(tmp_path / "data")
    folder.ops = recorder.ops
    draw = random.Random(3)
    states: list[set[tuple[Box, bytes]]] = [set()]
    answered = 0

    def answer(stored: Stored) -> None:
        nonlocal answered
        assert stored.error is None
        answered += 1
        witness = (folder.path / "messages.last").read_bytes()
        recorder.ops.append(power.Op("ack", offset=answered, data=witness))

    def effects() -> Iterator[Store]:
        for number in range(150):
            state = set(states[-1])
            drops = tuple(draw.sample(sorted(state), min(len(state), draw.randrange(3))))
            one = put(draw.choice((Box.OUT, Box.IN, Box.HANDLED)), signed(number, 900))
            states.append(state - set(drops) | {(one.puts[0].box, one.puts[0].message_id)})
            yield Store(BOB.pubkey, one.puts, drops)

    async def work() -> None:
        store = MailStore(folder, answer, connect=power.ApswConnection, checkpoint_bytes=60_000)
        for effect in effects():
            store.store(effect)
            waits = draw.random() < 0.4
            while waits and store._given:
                await turns(1)
        await store.close()

    asyncio.run(work())
    folder.close()
    assert sum(op.what == "sync" for op in recorder.ops) > 30
    for seed in range(CUTS):
        cut = draw.randrange(len(recorder.ops) + 1)
        acks = [op for op in recorder.ops[:cut] if op.what == "ack"]
        image = power.disk_after_cut(recorder.ops[:cut], random.Random(seed))
        if acks:
            image["messages.last"] = acks[-1].data
        there = loaded(tmp_path / "image", image)
        assert there in states[acks[-1].offset if acks else 0 :], f"seed {seed}, cut {cut}"
        shutil.rmtree(tmp_path / "image")


def loaded(path: Path, image: dict[str, bytes]) -> set[tuple[Box, bytes]]:
    path.mkdir(mode=0o700)
    for name, data in image.items():
        (path / name).touch(mode=0o600)
        (path / name).write_bytes(data)
    with closing(DataFolder.lock(path)) as folder, Journal.open(folder, "messages", _KINDS) as journal:
        return {(Box(one.record.kind), one.record.key[33:]) for one in journal.replay()}


# --- a service --------------------------------------------------------------------------------------------------------


class Both:
    """Alice and Bob with data folders, one run of each at a time."""

    def __init__(self, carrier: Carrier, path: Path, limits: Limits | None = None) -> None:
        self.carrier, self.path, self.limits = carrier, path, limits or Limits(backoff_min_s=0.01, backoff_max_s=0.05)

    async def run(self, name: str, friend: Party | None = None, handler: Any = None) -> Party:
        identity = {"alice": ALICE, "bob": BOB}[name]
        party = Party(self.carrier, identity, name, data_dir=self.path / name, limits=self.limits)
        if friend is not None:
            party.service.add_peer(friend.info)
        await party.start(handler)
        return party


@aio
async def test_what_was_sent_while_nobody_was_there_arrives_after_restarts_of_both(
    memory: Carrier, tmp_path: Path
) -> None:
    both = Both(memory, tmp_path)
    bob = await both.run("bob")
    alice = await both.run("alice", bob)
    await bob.service.stop()
    for text in "abc":
        await alice.service.send_message_to("bob", chat(text))
    with pytest.raises(SendError, match=r"bob \(.*\) is disconnected"):
        await alice.service.send_message_to("bob", chat("no"), durable=False)
    await alice.service.stop()
    alice = await both.run("alice", bob)
    bob = await both.run("bob", alice)
    alice.service.add_peer(bob.info)
    await alice.service.connect_to_peer("bob")
    await bob.hears(3)
    await alice.service.peer("bob").send(chat("d"), wait_ack=True)
    assert bob.texts() == ["a", "b", "c", "d"]
    await alice.service.stop()
    await bob.service.stop()
    bob = await both.run("bob", alice)
    assert bob.texts() == []
    await bob.service.stop()


@aio
async def test_what_a_handler_did_not_finish_is_handed_over_by_the_next_run(memory: Carrier, tmp_path: Path) -> None:
    both = Both(memory, tmp_path, Limits(stop_timeout_s=0.05))
    begun: list[str] = []

    async def slow(message: Message, peer: Peer) -> None:
        begun.append(message.payload.decode())
        if message.payload != b"a":
            await asyncio.get_running_loop().create_future()

    bob = await both.run("bob", handler=slow)
    alice = await both.run("alice", bob)
    bob.service.add_peer(alice.info)
    await alice.service.connect_to_peer("bob")
    for text in "abc":
        await alice.service.send_message_to("bob", chat(text), wait_ack=True)
    await bob.service.stop()
    assert begun == ["a", "b"]
    bob = await both.run("bob", alice)
    await bob.hears(2)
    assert bob.texts() == ["b", "c"]
    await bob.service.stop()
    await alice.service.stop()


@aio
async def test_a_handler_that_stops_its_own_service_has_handled_its_message(memory: Carrier, tmp_path: Path) -> None:
    both = Both(memory, tmp_path, Limits(stop_timeout_s=0.05))
    stopped = asyncio.Event()

    async def stop(message: Message, peer: Peer) -> None:
        await bob.service.stop()
        stopped.set()

    bob = await both.run("bob", handler=stop)
    alice = await both.run("alice", bob)
    bob.service.add_peer(alice.info)
    await alice.service.connect_to_peer("bob")
    await alice.service.send_message_to("bob", chat("stop"))
    await stopped.wait()
    await turns()
    bob = await both.run("bob", alice)
    assert bob.texts() == []
    await bob.service.stop()
    await alice.service.stop()


@aio
async def test_expiry_is_told(memory: Carrier, tmp_path: Path) -> None:
    both = Both(memory, tmp_path)
    bob = await both.run("bob")
    alice = await both.run("alice", bob)
    await bob.service.stop()
    with LogLines() as log:
        with pytest.raises(Timeout, match="not acknowledged in time"):
            await alice.service.send_message_to("bob", chat("x"), wait_ack=True, expires_in_s=0.05)
        await alice.learns(Expired)
        assert [line.split(" (")[0] for line in log.lines] == ["1 messages kept for bob"]
    await alice.service.stop()


@aio
async def test_without_a_data_folder_nothing_can_be_durable(memory: Carrier) -> None:
    alice = Party(memory, ALICE, "alice")
    await alice.start()
    alice.service.add_peer(Party(memory, BOB, "bob").info)
    with pytest.raises(SendError, match="no disk to keep a message on"):
        await alice.service.send_message_to("bob", chat(), durable=True)
    await alice.service.stop()


@aio
async def test_while_the_disk_is_behind_nothing_is_read(memory: Carrier, tmp_path: Path) -> None:
    both = Both(memory, tmp_path, Limits(disk_waiting_max_bytes=2_000))
    bob = await both.run("bob")
    alice = await both.run("alice", bob)
    bob.service.add_peer(alice.info)
    await alice.service.connect_to_peer("bob")
    driver: Any = bob.service._driver
    behind: list[bool] = []
    keep_up = driver._keep_up
    driver._keep_up = lambda: (keep_up(), behind.append(driver._brakes.disk_behind))
    await asyncio.gather(*(alice.service.send_message_to("bob", chat(str(n) * 200)) for n in range(60)))
    await bob.hears(60)
    assert bob.texts() == [str(n) * 200 for n in range(60)]
    assert set(behind) == {True, False}
    assert not driver._brakes.disk_behind
    await alice.service.stop()
    await bob.service.stop()


@aio
async def test_a_start_that_fails_closes_the_journal(tmp_path: Path) -> None:
    carrier = CARRIERS["tcp"]()
    taken = Party(carrier, BOB, "bob")
    await taken.start()
    failing = Party(carrier, ALICE, "alice", data_dir=tmp_path / "a", port=taken.service.port)
    with pytest.raises(IoError):
        await failing.start()
    await taken.service.stop()
    again = Party(carrier, ALICE, "alice", data_dir=tmp_path / "a")
    await again.start()
    await again.service.stop()
