"""One queue per peer: the order of handling, the throttle, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from endpoints import aio, turns
from services import LogLines, chat

from musignet import limits
from musignet.net.inbox import Inbox
from musignet.wire.envelope import VerifiedMessage
from support.keys import ALICE

MESSAGES = [chat(str(n)).sign(ALICE, seq=n).verify() for n in range(20)]


class Handler:
    """Starts and ends of each message. Those named in `waits` are async and end when `gate` opens."""

    def __init__(self, waits: set[int]) -> None:
        self.waits = waits
        self.gate = asyncio.Event()
        self.log: list[str] = []
        self.throttles: list[bool] = []
        self.inbox = Inbox(self, self.throttles.append, 4)

    def __call__(self, message: VerifiedMessage) -> Any:
        name = message.payload.decode()
        self.log.append(f"+{name}")
        if int(name) in self.waits:
            return self.end(name)
        self.log.append(f"-{name}")
        return None

    async def end(self, name: str) -> None:
        await self.gate.wait()
        self.log.append(f"-{name}")

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.inbox.put(MESSAGES[number])

    async def close(self, timeout_s: float = 1.0) -> None:
        await self.inbox.close(timeout_s, asyncio.current_task())


@aio
async def test_plain_handlers_are_called_at_once_without_a_task() -> None:
    handler = Handler(set())
    handler.put(0, 1)
    assert handler.log == ["+0", "-0", "+1", "-1"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await handler.close()


@aio
async def test_a_plain_call_waits_for_the_async_one_before_it() -> None:
    handler = Handler({0})
    handler.put(0)
    await turns()
    handler.put(1)
    await turns()
    assert handler.log == ["+0"]
    handler.gate.set()
    await turns()
    assert handler.log == ["+0", "-0", "+1", "-1"]
    handler.put(2)
    assert handler.log[-2:] == ["+2", "-2"], "idle again: called at once"
    await handler.close()


@aio
async def test_the_sender_is_held_up_at_the_bound_and_let_go_at_half_of_it() -> None:
    handler = Handler(set(range(20)))
    handler.put(0)
    await turns()
    handler.put(1, 2, 3)
    assert handler.throttles == []
    handler.put(4)
    assert handler.throttles == [True]
    handler.put(5)
    assert handler.throttles == [True], "said once"
    handler.gate.set()
    await turns(50)
    assert handler.throttles == [True, False]
    assert [line for line in handler.log if line[0] == "-"] == [f"-{n}" for n in range(6)]
    await handler.close()


@aio
async def test_closing_lets_what_waits_finish() -> None:
    handler = Handler({0})
    handler.put(0, 1)
    asyncio.get_running_loop().call_later(0.01, handler.gate.set)
    await handler.close(5)
    assert handler.log == ["+0", "-0", "+1", "-1"]


@aio
async def test_closing_cancels_what_takes_too_long() -> None:
    handler = Handler({0})
    handler.put(0, 1)
    await handler.close(0.01)
    assert handler.log == ["+0"]


@aio
async def test_closing_does_not_wait_for_a_handler_that_will_not_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDLER_CANCEL_S", 0.01)
    gate = asyncio.Event()

    async def handle(_: VerifiedMessage) -> None:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()

    inbox = Inbox(handle, lambda _: None, 4)
    inbox.put(MESSAGES[0])
    with LogLines(logging.WARNING) as log:
        async with asyncio.timeout(5):
            await inbox.close(0.01, None)
    assert log.lines == ["a handler of the application goes on though it was cancelled; nobody waits for it"]
    gate.set()
    await turns()


@pytest.mark.parametrize("count", range(4))
@aio
async def test_closing_at_any_turn_leaves_nothing_unawaited(count: int) -> None:
    handler = Handler({0})
    handler.put(0)
    await turns(count)
    await handler.close(0)


@aio
async def test_an_awaitable_that_was_cancelled_elsewhere_ends_only_its_message() -> None:
    handled: list[int] = []

    def handle(message: VerifiedMessage) -> Any:
        handled.append(len(handled))
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        return task

    inbox = Inbox(handle, lambda _: None, 4)
    with LogLines(logging.ERROR) as log:
        for message in MESSAGES[:3]:
            inbox.put(message)
        await turns(20)
    assert handled == [0, 1, 2]
    assert log.lines == ["a handler of the application was cancelled; the node goes on"] * 3
    await inbox.close(1, None)
