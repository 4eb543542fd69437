"""A process that runs out of file descriptors: strangers take all of them while one link is up.

The strangers live in a second process, so that only the accepted ends count here. Prints what happened as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import subprocess
import sys

import uvloop
from endpoints import Recorder, Signal

from musignet.crypto.keys import Identity
from musignet.errors import NetworkError
from musignet.limits import Limits
from musignet.net.service import NetworkService
from musignet.net.transport import TcpTransport
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.keys import ALICE, BOB

STRANGERS = """
import resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
held = []
for _ in range(200):
    s = socket.socket(); s.setblocking(False); s.connect_ex(("127.0.0.1", int(sys.argv[1]))); held.append(s)
print("connected", flush=True)
sys.stdin.read()
"""


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
        descriptors_share=share, half_open_slots=256, half_open_per_prefix=256,
        prefix_burst_handshakes=10**6, handshakes_per_s=1e6,
        act_one_timeout_s=1.5, handshake_timeout_s=60, log_lines_per_s=1.0,
    )  # fmt: skip
    bob = NetworkService("bob", identity=BOB, limits=limits)
    bob.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
    carol = Identity.from_secret(bytes(31) + b"\x09")
    bob.add_peer(PeerInfo(id="carol", pubkey_hex=carol.pubkey_hex))
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
        [sys.executable, "-c", STRANGERS, str(bob.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as strangers:
        assert strangers.stdout is not None
        assert strangers.stdin is not None
        await counting.until(lambda: counting.lines, 10)
        await echo()
        await asyncio.to_thread(strangers.stdout.readline)
        strangers.stdin.close()
    late = TcpTransport(carol, Recorder())
    await late.start()
    after = False
    for _ in range(200):
        try:
            link = await late.connect(bob.pubkey_hex, "127.0.0.1", bob.port)
        except (NetworkError, OSError):
            continue
        after = link.peer.compressed == BOB.pubkey
        break
    await echo()
    lines = [line for line in counting.lines if "refused a connection" in line]
    driver = bob._driver
    assert driver is not None
    waiting = driver._log._lines._left_out
    left_out = waiting + sum(int(line.split("(")[-1].split(" ")[0]) for line in lines if "more" in line)
    await late.stop()
    await alice.stop()
    await bob.stop()
    refusals = len(lines) + left_out
    print(json.dumps({"echoes": len(echoes), "after": after, "lines": lines, "refusals": refusals}))


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    factory = uvloop.new_event_loop if sys.argv[1] == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(float(sys.argv[2])))
