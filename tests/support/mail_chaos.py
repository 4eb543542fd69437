"""Two nodes in processes of their own that are killed again and again, while one writes to the other.

    python -m support.mail_chaos FOLDER KILLS SEED

Prints what happened as JSON, or fails with an assertion. The nodes are forked from here, so that a life costs
milliseconds; keys are made after the fork.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from musignet.crypto.keys import Identity
from musignet.net.service import NetworkService
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message, SignedMessage
from musignet.wire.messages import MessageType
from support.keys import secret
from support.unbound import FREELY

_LIMITS = replace(FREELY, backoff_min_s=0.005, backoff_max_s=0.02)
_BATCH = 50
_LINE_BYTES = 64
"""A whole number of them is a page of any size: SIGKILL ends a write between two pages."""


def _append(file: Path, line: str) -> None:
    """One write at the end of a file, within a page: a kill does not tear it, and does not take it back."""
    assert len(line) < _LINE_BYTES
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line.ljust(_LINE_BYTES - 1).encode() + b"\n")
    os.close(handle)


def _lines(file: Path) -> list[str]:
    return [line.rstrip() for line in file.read_text().splitlines()] if file.exists() else []


def _identity(name: str) -> Identity:
    return Identity.from_secret(secret(name))


def _info(name: str, port: int) -> PeerInfo:
    return PeerInfo(id=name, host="127.0.0.1", port=port, pubkey_hex=_identity(name).pubkey_hex)


async def _send(folder: Path, port: int, life: int, tell: Callable[[], None]) -> None:
    """Write for ever; note what was accepted."""
    service = NetworkService(
        "sender", host="", identity=_identity("sender"), data_dir=folder / "sender", limits=_LIMITS
    )
    service.add_peer(_info("receiver", port))
    await service.start()
    dialling = asyncio.ensure_future(service.connect_to_peer("receiver", persist=True))

    async def one(text: str, wait_ack: bool) -> None:
        await service.send_message_to("receiver", Message(MessageType.CHAT, "sender", text.encode()), wait_ack=wait_ack)
        _append(folder / "accepted", text)

    for batch in range(1 << 20):
        numbers = range(batch * _BATCH, (batch + 1) * _BATCH)
        await asyncio.gather(*(one(f"{life}.{number}", number % 200 == 199) for number in numbers))
    await dialling


async def _receive(folder: Path, port: int, life: int, tell: Callable[[], None]) -> None:
    """Handle what comes: the id goes to a file with the effect, so that a message which comes again is recognised."""
    done = {line.split()[0] for line in _lines(folder / "handed")}

    def handle(message: Message, _: Any) -> None:
        assert isinstance(message, SignedMessage)
        key, text = message.id.hex(), message.payload.decode()
        _append(folder / "handed", f"{key} {text} {life} {'again' if key in done else 'new'}")
        done.add(key)
        tell()

    service = NetworkService(
        "receiver", port=port, identity=_identity("receiver"), data_dir=folder / "receiver", limits=_LIMITS
    )
    service.add_peer(_info("sender", 0))
    await service.start(handle)
    await asyncio.get_running_loop().create_future()


_ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"sender": _send, "receiver": _receive}


class Chaos:
    """Starts and kills. A handled message is a byte in `pipe`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.pipe, self.tell = os.pipe()
        self.pids: dict[str, int] = {}
        self.lives = 0
        self.accepted: set[str] = set()
        """What was before the last life of the sender."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self, role: str) -> None:
        self.lives += 1
        pid = os.fork()
        if pid:
            self.pids[role] = pid
            return
        try:
            asyncio.run(_ROLES[role](self.folder, self.port, self.lives, lambda: os.write(self.tell, b".")))
        finally:
            os._exit(1)

    def kill(self, role: str) -> None:
        pid = self.pids.pop(role)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), f"the {role} ended by itself"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def handled(self, count: int, within_s: float) -> bool:
        """Wait until so many messages were handled; return whether they were."""
        while count > 0 and select.select([self.pipe], [], [], within_s)[0]:
            count -= len(os.read(self.pipe, count))
        return count <= 0

    def run(self, kills: int) -> None:
        for role in _ROLES:
            self.start(role)
        for _ in range(kills):
            role = self.draw.choice(list(_ROLES))
            self.handled(self.draw.randrange(1, 120), 5.0)  # kill it at work, not while it starts
            select.select([], [], [], self.draw.random() ** 2 * 0.15)  # and at any moment of it
            self.kill(role)
            self.start(role)
        self.kill("sender")
        self.accepted = set(_lines(self.folder / "accepted"))
        self.start("sender")
        while not self.accepted <= {line.split()[1] for line in _lines(self.folder / "handed")}:
            assert self.handled(1, 10.0), "an accepted message never arrived"
        for role in _ROLES:
            self.kill(role)

    def check(self) -> dict[str, int]:
        """Nothing accepted is lost, the order is that of the sender, and what was handed over a second time is exactly
        the end of what was handed over before the receiver was killed, at the very start of a life."""
        handed = [line.split() for line in _lines(self.folder / "handed")]
        order = [tuple(map(int, text.split("."))) for _, text, _, how in handed if how == "new"]
        assert order == sorted(set(order)), "out of order, or twice"
        so_far: list[str] = []
        for _, group in itertools.groupby(handed, key=lambda line: line[2]):
            life = list(group)
            again = [key for key, _, _, how in life if how == "again"]
            new = [key for key, _, _, how in life if how == "new"]
            assert [key for key, *_ in life] == again + new, "something new came before what came again"
            if again:
                at = so_far.index(again[0])
                assert again == so_far[at : at + len(again)], "out of order"
                assert not new or at + len(again) == len(so_far), "something old came again, and not what came after it"
            so_far += new
        assert self.accepted <= {text for _, text, _, _ in handed}
        return {
            "lives": self.lives,
            "accepted": len(self.accepted),
            "handled": len(so_far),
            "again": len(handed) - len(so_far),
        }


def main(folder: str, kills: str, seed: str) -> None:
    chaos = Chaos(Path(folder), int(seed))
    try:
        chaos.run(int(kills))
    finally:
        for role in list(chaos.pids):
            os.kill(chaos.pids[role], signal.SIGKILL)
    print(json.dumps(chaos.check()))


if __name__ == "__main__":
    main(*sys.argv[1:])
