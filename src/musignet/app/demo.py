"""`musignet demo`: two nodes, two processes, one encrypted link, one greeting each way.

The parent only starts the processes, tells each the other's key and address, and shows what they report: lines of JSON
over their standard streams. It never sees a key that is secret.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import click

from ..errors import NetworkError, Other, Timeout
from ..text import safe, short_key

__all__ = ["run_demo"]

_DEADLINE_S = 30.0
_LINE_MAX_BYTES = 65_536


class _Process:
    """One node in a process of its own."""

    def __init__(self, label: str, process: asyncio.subprocess.Process) -> None:
        self.label = label
        self.process = process

    @classmethod
    async def start(cls, label: str) -> _Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "musignet.app.demo_node", label),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_MAX_BYTES,
        )
        return cls(label, process)

    async def tell(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode("ascii") + b"\n")
        await self.process.stdin.drain()

    async def hear(self, event: str) -> dict[str, Any]:
        """Return the node's next report. Raises Other when it is another one, or the process ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        report = json.loads(line) if line else {"event": "end of process"}
        if report["event"] != event:
            raise Other(f"{self.label} failed", expected=event, got=report.get("error", report["event"]))
        return dict(report)

    async def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def run_demo(as_json: bool) -> int:
    """Run the demo. Returns the exit code; raises NetworkError when it does not do what it says."""
    begun = time.perf_counter()
    show = _Progress(begun, quiet=as_json)
    show("starting two nodes, each in a process of its own")
    nodes = [await _Process.start(label) for label in ("alice", "bob")]
    try:
        async with asyncio.timeout(_DEADLINE_S):
            result = await _greet(nodes[0], nodes[1], show)
    except TimeoutError as error:
        if isinstance(error, NetworkError):
            raise
        raise Timeout(f"the demo did not end within {_DEADLINE_S:g} s") from None
    finally:
        await asyncio.gather(*(node.end() for node in nodes))
    result["timings_ms"]["whole_demo"] = round(1000 * (time.perf_counter() - begun), 3)
    if as_json:
        click.echo(json.dumps(result))
    else:
        show("both said goodbye")
        click.echo("\nNothing left this machine. To talk by hand: musignet chat alice")
    return 0


async def _greet(alice: _Process, bob: _Process, show: _Progress) -> dict[str, Any]:
    keys: dict[str, str] = {}
    ports: dict[str, int] = {}
    for node in (alice, bob):
        ready = await node.hear("ready")
        keys[node.label], ports[node.label] = ready["pubkey_hex"], ready["port"]
        show(f"{node.label} listens on 127.0.0.1:{ready['port']}; its key is {ready['pubkey_hex']}")
    show("each gets the other's key into its book")
    await bob.tell({"peer": "alice", "pubkey_hex": keys["alice"], "port": 0})
    await bob.hear("knows")
    await alice.tell({"peer": "bob", "pubkey_hex": keys["bob"], "port": ports["bob"]})
    await alice.hear("knows")
    dialled = await alice.hear("connected")
    show(f"alice dialled bob by key: both keys proved and the link encrypted, in {dialled['ms']:.1f} ms")
    there = await bob.hear("message")
    show(f"bob got, signed by key {short_key(there['key'])}: {safe(there['text'])}")
    back = await alice.hear("message")
    show(f"alice got, signed by key {short_key(back['key'])}: {safe(back['text'])}")
    show(f"there and back, signed and verified on both sides: {back['ms']:.1f} ms")
    if (there["key"], back["key"]) != (keys["alice"], keys["bob"]):
        raise Other("a greeting came from the wrong key")
    return {
        "nodes": keys,
        "greetings": [there["text"], back["text"]],
        "timings_ms": {"connect": dialled["ms"], "greeting_and_answer": back["ms"]},
    }


class _Progress:
    """Lines with the time since the start."""

    def __init__(self, begun: float, quiet: bool) -> None:
        self._begun = begun
        self._quiet = quiet

    def __call__(self, line: str) -> None:
        if not self._quiet:
            click.echo(f"{time.perf_counter() - self._begun:6.2f} s  {line}")
