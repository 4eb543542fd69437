"""Starts that fail and stops that are cut short: nothing is left over, and nothing is left half done."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from endpoints import CARRIERS, Carrier, aio, turns
from services import Party, chat, friends, maker

from musignet.errors import IoError
from musignet.limits import Limits
from musignet.net.finder import Discover
from musignet.net.folder import DataFolder
from musignet.net.mailstore import _KINDS
from musignet.net.service import NetworkService
from musignet.net.store import Journal, Record
from musignet.node.effects import PeerDown
from musignet.node.kept import Box
from musignet.wire.envelope import Message
from support.keys import ALICE, BOB


@pytest.fixture
def memory() -> Carrier:
    return CARRIERS["memory"]()


class Busy:
    """A service with a handler that does not end by itself."""

    def __init__(self, carrier: Carrier, folder: Path, *, stop_timeout_s: float = 0.05) -> None:
        self.party = Party(carrier, BOB, "bob", limits=Limits(stop_timeout_s=stop_timeout_s), data_dir=folder)
        self.began = asyncio.Event()
        self.service = self.party.service

    async def handle(self, _: Message, __: Any) -> None:
        self.began.set()
        await asyncio.Event().wait()

    async def begin(self, alice: Party) -> None:
        await self.party.start(self.handle)
        self.service.add_peer(alice.info)
        await alice.service.connect_to_peer(self.party.info)
        await alice.service.send_message_to("bob", chat())
        await self.began.wait()


@aio
async def test_a_stop_that_is_cancelled_goes_on_and_the_next_one_waits_for_its_end(
    memory: Carrier, tmp_path: Path
) -> None:
    async with friends(memory, "alice") as (alice,):
        busy = Busy(memory, tmp_path)
        await busy.begin(alice)
        stop = asyncio.create_task(busy.service.stop())
        await turns()
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        await busy.service.stop()
        DataFolder.lock(tmp_path).close()
        await alice.learns(PeerDown)


@aio
async def test_whoever_stops_second_waits_for_the_end_too(memory: Carrier, tmp_path: Path) -> None:
    async with friends(memory, "alice") as (alice,):
        busy = Busy(memory, tmp_path)
        await busy.begin(alice)
        first = asyncio.create_task(busy.service.stop())
        await turns()
        await busy.service.stop()
        DataFolder.lock(tmp_path).close()
        await first


@aio
async def test_a_handler_may_stop_the_service_with_a_deadline(memory: Carrier, tmp_path: Path) -> None:
    async with friends(memory, "alice") as (alice,):
        bob = Party(memory, BOB, "bob", limits=Limits(stop_timeout_s=0.05), data_dir=tmp_path)

        async def handle(_: Message, __: Any) -> None:
            await asyncio.wait_for(bob.service.stop(), 5)

        await bob.start(handle)
        bob.service.add_peer(alice.info)
        await alice.service.connect_to_peer(bob.info)
        await alice.service.send_message_to("bob", chat())
        await alice.learns(PeerDown)
        await bob.service.stop()
        DataFolder.lock(tmp_path).close()


@aio
async def test_a_start_that_fails_at_its_last_step_undoes_the_others(memory: Carrier, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        discover = Discover(interfaces=("lo",), port=taken.getsockname()[1])
        with pytest.raises(IoError, match="cannot listen on UDP port"):
            await NetworkService(
                "a", identity=ALICE, data_dir=tmp_path, transport=maker(memory), discover=discover
            ).start()
    async with NetworkService("a", identity=ALICE, data_dir=tmp_path, transport=maker(memory)):
        pass


@aio
async def test_a_journal_that_cannot_be_read_is_let_go(memory: Carrier, tmp_path: Path) -> None:
    folder = DataFolder.lock(tmp_path)
    with Journal.open(folder, "messages", _KINDS) as journal:
        journal.append([Record(Box.OUT, BOB.pubkey + bytes(16), b"not a message", 1)])
    folder.close()
    for _ in range(2):
        with pytest.raises(IoError, match="a message in the journal messages"):
            await NetworkService("a", identity=ALICE, data_dir=tmp_path, transport=maker(memory)).start()
