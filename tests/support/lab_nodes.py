"""Programs in the namespaces of a `Lab`, driven by lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from support.keys import ALICE, BOB
from support.netlab import Lab

__all__ = ["Node", "nodes"]

TESTS: Final = Path(__file__).resolve().parents[1]
PHASES_S: Final = 30.0
"""Every phase of an attempt together, and a process or two."""


class Node:
    """A program in a namespace of the lab. What it says is kept; offers and answers go to `other` at once."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.key = ""
        self.said: list[dict[str, Any]] = []
        self.other: Node | None = None
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, lab: Lab, side: str, program: str = "punching_node", **options: Any) -> Node:
        """Start `support.PROGRAM` at a side: Alice at A, Bob at B."""
        who, identity = {"A": ("alice", ALICE), "B": ("bob", BOB)}[side]
        node = await cls.run(lab, side, program, json.dumps({"who": who, **options}))
        node.key = identity.pubkey_hex
        return node

    @classmethod
    async def run(cls, lab: Lab, place: str, program: str, argument: str) -> Node:
        """Start `support.PROGRAM` somewhere, and wait until it is ready."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *lab.inside(place), sys.executable, "-m", f"support.{program}", argument, stdin=pipe, stdout=pipe,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        node = cls(process)
        await node.hears("ready")
        return node

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            fact = json.loads(line)
            if fact["event"] == "signal" and self.other is not None:
                self.other.do("signalled", [self.key, fact["data"]])
            self.said.append(fact)
            self._more.set()

    def do(self, verb: str, argument: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, argument]).encode() + b"\n")

    async def hears(self, *events: str, timeout_s: float = PHASES_S) -> dict[str, Any]:
        """Return the first of these events that is not taken yet."""
        async with asyncio.timeout(timeout_s):
            while True:
                for fact in self.said:
                    if fact["event"] in events:
                        self.said.remove(fact)
                        return fact
                self._more.clear()
                await self._more.wait()

    async def kill(self) -> None:
        """End it, unless it has ended, and take in what it said."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._reading

    async def stop(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        stopped = await self.hears("stopped")
        await self.process.wait()
        await self._reading
        return stopped


@asynccontextmanager
async def nodes(lab: Lab, **options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Return two nodes that pass each other offers and answers. Afterwards nothing of them is left."""
    pair = [await Node.start(lab, "A", **options), await Node.start(lab, "B", **options)]
    pair[0].other, pair[1].other = pair[1], pair[0]
    try:
        yield pair[0], pair[1]
        for node in pair:
            if node.process.returncode is None:
                assert (await node.stop())["left"] == 0
    finally:
        for node in pair:
            await node.kill()
