"""What happens in a running node, for everybody who listens: bounded for each, so that no reader holds the node up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

from ..errors import TransportError
from ..limits import API_EVENT_CLIENTS_MAX, API_EVENTS_WAITING_MAX, API_KEEP_ALIVE_S

__all__ = ["MISSED", "Event", "Events"]

Event: TypeAlias = dict[str, Any]
"""What JSON can hold, with the kind of event under `event`."""

MISSED: Final[Event] = {"event": "missed"}
"""A listener was too slow: what it knows is old, and it should read everything again."""


class _Listener:
    def __init__(self) -> None:
        self.waiting: deque[Event] = deque()
        self.wake = asyncio.Event()

    def put(self, event: Event) -> None:
        if len(self.waiting) >= API_EVENTS_WAITING_MAX:
            self.waiting.clear()
            event = MISSED
        self.waiting.append(event)
        self.wake.set()


class Events:
    """See the module."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    def publish(self, kind: str, **facts: object) -> None:
        """Tell everybody who listens."""
        for listener in self._listeners:
            listener.put({"event": kind, **facts})

    def close(self) -> None:
        """End every stream after what waits in it."""
        self._closed = True
        for listener in self._listeners:
            listener.wake.set()

    def listen(self) -> AsyncIterator[Event | None]:
        """Return what happens from now on; None where nothing did for a while.

        Raises: TransportError when too many listen.
        """
        if len(self._listeners) >= API_EVENT_CLIENTS_MAX:
            hint = "close one of them"
            raise TransportError("too many event streams", expected=f"at most {API_EVENT_CLIENTS_MAX}", hint=hint)
        listener = _Listener()
        self._listeners.add(listener)
        return self._stream(listener)

    async def _stream(self, listener: _Listener) -> AsyncIterator[Event | None]:
        try:
            while True:
                while listener.waiting:
                    yield listener.waiting.popleft()
                if self._closed:
                    return
                listener.wake.clear()
                yield await _next(listener)
        finally:
            self._listeners.discard(listener)


async def _next(listener: _Listener) -> Event | None:
    try:
        async with asyncio.timeout(API_KEEP_ALIVE_S):
            await listener.wake.wait()
    except TimeoutError:
        return None
    return listener.waiting.popleft() if listener.waiting else None
