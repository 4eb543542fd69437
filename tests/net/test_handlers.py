"""Routing by type, without a network."""

from __future__ import annotations

import inspect
from typing import Any, cast

import pytest
from endpoints import aio

from musignet.net.handlers import MessageHandler
from musignet.net.peer import Peer
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType

NOBODY = cast(Peer, None)
CHAT, ERROR = Message(MessageType.CHAT, "a", b"x"), Message(MessageType.ERROR, "a", b"y")


def test_a_type_that_nobody_registered_for_is_dropped() -> None:
    routes = MessageHandler()
    routes.register(MessageType.ERROR, lambda *_: pytest.fail("not for this one"))
    assert routes(CHAT, NOBODY) is None


def test_one_plain_handler_is_called_at_once_and_nothing_is_awaited() -> None:
    routes, got = MessageHandler(), []
    routes.register(MessageType.CHAT, lambda message, peer: got.append((message, peer)))
    assert routes(CHAT, NOBODY) is None
    assert got == [(CHAT, NOBODY)]


def test_what_a_plain_handler_returns_is_not_awaited() -> None:
    routes = MessageHandler()
    routes.register(MessageType.CHAT, lambda *_: "text")
    assert routes(CHAT, NOBODY) is None


@aio
async def test_several_handlers_are_called_in_order_plain_or_async() -> None:
    routes, got = MessageHandler(), []

    async def later(message: Message, _: Any) -> None:
        got.append(("async", message.type))

    routes.register(MessageType.CHAT, lambda message, _: got.append(("plain", message.type)))
    assert routes.on(MessageType.CHAT, MessageType.ERROR)(later) is later
    routes.register(MessageType.CHAT, lambda message, _: got.append(("last", message.type)))
    for message in (CHAT, ERROR):
        work = routes(message, NOBODY)
        assert inspect.isawaitable(work)
        await work
    assert got == [("plain", 17), ("async", 17), ("last", 17), ("async", 16)]


@aio
async def test_a_handler_that_raises_does_not_keep_the_message_from_the_others() -> None:
    routes, got = MessageHandler(), []

    def broken(_: Message, __: Any) -> None:
        got.append("broken")
        raise ZeroDivisionError("first")

    routes.register(MessageType.CHAT, broken)
    routes.register(MessageType.CHAT, lambda *_: got.append("still called"))
    work = routes(CHAT, NOBODY)
    assert work is not None
    with pytest.raises(ZeroDivisionError, match="first"):
        await work
    assert got == ["broken", "still called"]
