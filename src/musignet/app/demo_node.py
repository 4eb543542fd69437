"""One node of `musignet demo`, in a process of its own. It reports on standard output, a line of JSON each."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from ..errors import NetworkError
from ..net.peer import Peer
from ..net.service import NetworkService
from ..node.peers import PeerInfo
from ..wire.envelope import Message
from ..wire.messages import Chain, MessageType


def _report(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class _Node:
    def __init__(self, label: str) -> None:
        self._label = label
        self._network = NetworkService(label, f"{label}'s node", "127.0.0.1", 0, chain=Chain.REGTEST)
        self._greeted_at = 0.0

    async def run(self) -> None:
        await self._network.start(self._on_message)
        _report("ready", pubkey_hex=self._network.pubkey_hex, port=self._network.port)
        try:
            while line := await asyncio.to_thread(sys.stdin.readline):
                await self._obey(json.loads(line))
        finally:
            await self._network.stop()

    async def _obey(self, order: dict[str, Any]) -> None:
        """Learn a peer; dial and greet it where it has a port."""
        info = PeerInfo(id=order["peer"], host="127.0.0.1", port=order["port"], pubkey_hex=order["pubkey_hex"])
        self._network.add_peer(info)
        _report("knows")
        if not info.port:
            return
        begun = time.perf_counter()
        peer = await self._network.connect_to_peer(info)
        _report("connected", ms=1000 * (time.perf_counter() - begun))
        self._greeted_at = time.perf_counter()
        await peer.send(self._chat(f"hello {info.id}, this is {self._label}"))

    async def _on_message(self, message: Message, peer: Peer) -> None:
        ms = 1000 * (time.perf_counter() - self._greeted_at)
        _report("message", text=message.payload.decode("utf-8"), key=peer.pubkey_hex, ms=ms)
        if not self._greeted_at:
            await peer.send(self._chat(f"hello {peer.info.id}, nice to meet you"))

    def _chat(self, text: str) -> Message:
        return Message(MessageType.CHAT, self._label, text.encode("utf-8"))


def _main() -> int:
    try:
        asyncio.run(_Node(sys.argv[1]).run())
    except NetworkError as error:
        _report("failed", error=str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
