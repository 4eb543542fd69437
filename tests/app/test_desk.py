"""The desk of a machine: its effects in order for each peer, and nobody waits for another's."""

from __future__ import annotations

import asyncio
from functools import partial

from musignet.app.desk import Desk
from musignet.errors import SendError
from musignet.limits import DESK_WAITING_MAX

ALICE, BOB = b"alice", b"bob"


def test_a_peer_that_acknowledges_nothing_waits_alone_and_within_a_bound() -> None:
    """`send_message_to` waits once 512 messages to it are on their way."""

    async def run() -> None:
        desk, said = Desk(lambda: None, lambda: None), list[int]()
        acknowledged, bob_heard, all_heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def note(number: int) -> None:
            said.append(number)
            if number == DESK_WAITING_MAX - 1:
                all_heard.set()

        async def end() -> None:
            bob_heard.set()

        desk.do(acknowledged.wait, ALICE)
        await asyncio.sleep(0)  # that one is begun
        for number in range(2 * DESK_WAITING_MAX):
            desk.do(partial(note, number), ALICE)
        for number in range(3):
            desk.do(partial(note, number), BOB)
        desk.do(end, BOB)
        await asyncio.wait_for(bob_heard.wait(), 5)
        assert said == [0, 1, 2]
        assert desk.waiting == DESK_WAITING_MAX
        acknowledged.set()
        await asyncio.wait_for(all_heard.wait(), 5)
        assert said[3:] == list(range(DESK_WAITING_MAX))
        await desk.stop()

    asyncio.run(run())


def test_what_fails_keeps_nothing_behind_it_from_being_done() -> None:
    async def run() -> None:
        desk, done = Desk(lambda: None, lambda: None), asyncio.Event()

        async def fail() -> None:
            raise SendError("not connected")

        async def end() -> None:
            done.set()

        desk.do(fail, ALICE)
        desk.do(end, ALICE)
        await asyncio.wait_for(done.wait(), 5)
        await desk.stop()
        assert desk.waiting == 0

    asyncio.run(run())
