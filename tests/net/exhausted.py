"""A process that runs out of file descriptors: strangers take all of them while one link is up.

The strangers live in a second process, so that only the accepted ends count here; so does Carol, who dials while they
hold all there are. Prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import subprocess
import sys

from endpoints import Signal

from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.keys import ALICE, BOB, CAROL

HELD = 200


async def strangers(port: int) -> None:
    """Hold connections that say nothing, as many as are let in. Say when Carol is in."""
    held = [socket.socket() for _ in range(HELD)]
    for one in held:
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
    carol = NetworkService("carol", host="", identity=CAROL)
    async with carol:
        there = PeerInfo(id="bob", host="127.0.0.1", port=port, pubkey_hex=BOB.pubkey_hex)
        await carol.connect_to_peer(there, timeout_s=10, persist=True)
        print("in", flush=True)
        await asyncio.to_thread(sys.stdin.read)


class Counting(logging.Handler, Signal):
    """Counts log lines."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        Signal.__init__(self)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.poke()


async def main(share: float) -> None:
    counting = Counting()
    logging.getLogger("musignet").addHandler(counting)
    logging.getLogger("musignet").propagate = False
    echoes: list[bytes] = []
    heard = Signal()

    def on_message(message: Message, _: object) -> None:
        echoes.append(message.payload)
        heard.poke()

    limits = Limits(
        descriptors_share=share, half_open_per_prefix=256,
        prefix_burst_handshakes=10**6,
        act_one_timeout_s=1.5, handshake_timeout_s=60, log_lines_per_s=1.0,
    )  # fmt: skip
    bob = NetworkService("bob", identity=BOB, limits=limits)
    bob.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
    bob.add_peer(PeerInfo(id="carol", pubkey_hex=CAROL.pubkey_hex))
    await bob.start(on_message)
    alice = NetworkService("alice", host="", identity=ALICE)
    await alice.start()
    await alice.connect_to_peer(bob.info)

    async def echo() -> None:
        count = len(echoes)
        await alice.send_message_to("bob", Message(MessageType.CHAT, "alice", b"x"))
        await heard.until(lambda: len(echoes) > count)

    await echo()
    with subprocess.Popen(  # noqa: ASYNC220  (it takes milliseconds, and nothing else is going on)
        [sys.executable, __file__, "strangers", str(bob.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as others:
        assert others.stdout is not None
        assert others.stdin is not None
        await counting.until(lambda: counting.lines, 10)
        await echo()
        said = await asyncio.to_thread(others.stdout.readline)
        others.stdin.close()
    await echo()
    lines = [line for line in counting.lines if "refused a connection" in line]
    driver = bob._driver
    assert driver is not None
    waiting = driver._log._lines._left_out
    left_out = waiting + sum(int(line.split("(")[-1].split(" ")[0]) for line in lines if "more" in line)
    await alice.stop()
    await bob.stop()
    refusals = len(lines) + left_out
    print(json.dumps({"echoes": len(echoes), "carol": said.decode().strip(), "lines": lines, "refusals": refusals}))


def run() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sys.argv[1] == "strangers":
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
        asyncio.run(strangers(int(sys.argv[2])))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    factory = None
    if sys.argv[1] == "uvloop":
        from uvloop import new_event_loop as factory
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(float(sys.argv[2])))


if __name__ == "__main__":
    run()
