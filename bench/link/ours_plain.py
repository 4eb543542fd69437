"""MuSigNet with plain handlers: no coroutine per message. A plain handler cannot await, so an answer takes a task."""

from __future__ import annotations

import asyncio
from pathlib import Path

from musignet import Message, MessageType, Peer

from . import ours


class Far(ours.Far):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._answers: set[asyncio.Task[None]] = set()

    def handle(self, message: Message, peer: Peer) -> None:  # type: ignore[override]
        if message.payload[0]:
            task = asyncio.get_running_loop().create_task(peer.send(Message(MessageType.CHAT, "far", message.payload)))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)


class Near(ours.Near):
    def handle(self, message: Message, peer: Peer) -> None:  # type: ignore[override]
        self._answered.set_result(None)
