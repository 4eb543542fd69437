"""What is kept on disk, measured: `python -m bench outbox`.

Durable sends a second to a peer in another process until it has acknowledged the last, with so many callers at once;
to a peer that is not there; and the start of a service that has 10,000 messages kept. Beside a floor: as many appends
of one record to a journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.support.unbound import FREELY

from musignet.crypto.keys import Identity
from musignet.net.folder import DataFolder
from musignet.net.mailstore import _KINDS
from musignet.net.service import NetworkService
from musignet.net.store import Journal, Record
from musignet.net.writer import Writer
from musignet.node.kept import Box
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType

__all__ = ["add_to", "main"]

_PAYLOAD = bytes(300)
_STORED = 10_000


def add_to(cases: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the case `outbox` to the benchmark's command."""
    outbox = cases.add_parser("outbox", help="durable sends a second, and a start with 10,000 kept messages")
    outbox.add_argument("--rounds", type=int, default=5)
    outbox.add_argument("--messages", type=int, default=5_000, help="of each round")
    outbox.add_argument("--callers", type=int, default=100, help="coroutines that send at once")
    outbox.add_argument("--stored", type=int, default=_STORED)
    outbox.add_argument("--json", type=Path, metavar="FILE")


def main(options: argparse.Namespace) -> int:
    """Measure, print a table, and write JSON where that is wanted."""
    samples: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="musignet-bench-") as folder:
            for name, value in asyncio.run(_round(Path(folder), options)).items():
                samples.setdefault(name, []).append(value)
    for name, values in samples.items():
        print(f"{name:52} median {statistics.median(values):10,.1f}   least {min(values):10,.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"samples": samples}, indent=1) + "\n")
    return 0


async def _round(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    count, callers = options.messages, options.callers
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sender, receiver = Identity.generate(), Identity.generate()
    child = context.Process(target=_receive, args=(theirs, str(folder), sender.pubkey_hex), daemon=True)
    child.start()
    port, key = await asyncio.to_thread(ours.recv)
    there = PeerInfo(id="there", host="127.0.0.1", port=port, pubkey_hex=key)
    away = PeerInfo(id="away", pubkey_hex=receiver.pubkey_hex)
    figures = {"floor: journal appends/s": await _floor(folder, count, callers)}
    async with NetworkService("here", host="", identity=sender, data_dir=folder / "sender", limits=FREELY) as service:
        await service.connect_to_peer(there)
        figures["durable sends/s, until all are acknowledged"] = await _rate(
            count, callers, lambda last: service.send_message_to("there", _message(), wait_ack=last)
        )
        service.add_peer(away)
        stored = min(options.stored, _STORED)
        figures["durable sends/s, to a peer that is not there"] = await _rate(
            stored, callers, lambda _: service.send_message_to("away", _message())
        )
    began = time.perf_counter()
    async with NetworkService("here", host="", identity=sender, data_dir=folder / "sender", limits=FREELY) as service:
        service.add_peer(away)
        figures[f"ms to start with {stored:,} kept messages"] = 1000 * (time.perf_counter() - began)
    ours.send(None)
    await asyncio.to_thread(child.join)
    return figures


def _message() -> Message:
    return Message(MessageType.CHAT, "here", _PAYLOAD)


async def _rate(count: int, callers: int, send: Callable[[bool], Coroutine[Any, Any, Any]]) -> float:
    """Return how many a second `callers` coroutines get done; the last one of each waits for its acknowledgement."""

    async def caller(share: int) -> None:
        for number in range(share):
            await send(number == share - 1)

    began = time.perf_counter()
    await asyncio.gather(*(caller(count // callers) for _ in range(callers)))
    return count // callers * callers / (time.perf_counter() - began)


async def _floor(folder: Path, count: int, callers: int) -> float:
    with closing(DataFolder.lock(folder / "floor")) as locked, Journal.open(locked, "messages", _KINDS) as journal:
        writer, numbers, body = Writer(journal), iter(range(1 << 40)), bytes(500)

        async def append(_: bool) -> None:
            await writer.append([Record(Box.OUT, next(numbers).to_bytes(49), body)])

        rate = await _rate(count, callers, append)
        await writer.close()
    return rate


def _receive(pipe: Connection, folder: str, sender: str) -> None:
    async def run() -> None:
        identity = Identity.generate()
        async with NetworkService(
            "there",
            identity=identity,
            data_dir=Path(folder) / "receiver",
            handler=lambda message, peer: None,
            limits=FREELY,
        ) as service:
            service.add_peer(PeerInfo(id="here", pubkey_hex=sender))
            pipe.send((service.port, service.pubkey_hex))
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())
