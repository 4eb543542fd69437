"""Handlers of messages: routing by type, and one queue per peer so that each peer's messages are handled in order."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias, TypeVar

from ..wire.envelope import Message
from .peer import Peer

__all__ = ["Handler", "MessageHandler"]

Handler: TypeAlias = Callable[[Message, Peer], Any]
"""Called with a verified message and who it is from. A plain function, or one that returns an awaitable."""

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class MessageHandler:
    """Routes messages by type to any number of handlers, in the order they were registered.

        handler = MessageHandler()

        @handler.on(MessageType.CHAT)
        async def chat(message, peer):
            print(peer.info.id, message.payload)

        await network.start(handler)

    It is itself a handler. Messages of a type that nobody registered for are dropped. The messages of one peer are
    handled one after the other; those of different peers side by side.
    """

    def __init__(self) -> None:
        self._routes: dict[int, list[Handler]] = {}

    def on(self, *types: int) -> Callable[[HandlerT], HandlerT]:
        """Decorate a handler of these types."""

        def register(handler: HandlerT) -> HandlerT:
            for kind in types:
                self.register(kind, handler)
            return handler

        return register

    def register(self, kind: int, handler: Handler) -> None:
        """Add a handler of one type, after those that are there."""
        self._routes.setdefault(kind, []).append(handler)

    def __call__(self, message: Message, peer: Peer) -> Awaitable[None] | None:
        """Hand a message to its handlers. Returns what is to be awaited, or None when there is nothing to await."""
        handlers = self._routes.get(message.type, [])
        if len(handlers) == 1:
            result = handlers[0](message, peer)
            return result if inspect.isawaitable(result) else None
        return _one_by_one(handlers, message, peer) if handlers else None


async def _one_by_one(handlers: list[Handler], message: Message, peer: Peer) -> None:
    """Call all handlers, also after one that raises: an exit stack calls what it holds last in, first out."""
    async with AsyncExitStack() as stack:
        for handler in reversed(handlers):
            stack.push_async_callback(_call, handler, message, peer)


async def _call(handler: Handler, message: Message, peer: Peer) -> None:
    result = handler(message, peer)
    if inspect.isawaitable(result):
        await result
