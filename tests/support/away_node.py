"""A whole node behind a NAT, in a process of its own: a relay, and holes to be punched. A line of JSON for each event.

python -m support.away_node '{"who": "alice", "friend": "bob"}'
python -m support.away_node relay          the relay, on the internet of the lab
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

from musignet.crypto.keys import Identity
from musignet.limits import Limits
from musignet.net.nat import Servers, TurnServer
from musignet.net.peer import Peer
from musignet.net.service import NetworkService
from musignet.net.transport import Transport
from musignet.net.transport.base import Sink
from musignet.net.transport.punched import punching
from musignet.net.transport.relay import RelayTransport
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support import keys
from support.netlab import INTERNET

RELAY_PORT = 7777
RELAY = f"ws://{INTERNET}:{RELAY_PORT}"


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _relays(identity: Identity, sink: Sink, *, limits: Limits) -> Mapping[str, Transport]:
    return {"ws": RelayTransport(identity, sink, relays=[RELAY], limits=limits)}


class _Paths:
    """Says each path to the friend, once it changes."""

    def __init__(self, service: NetworkService, key: bytes) -> None:
        self._service = service
        self._key = key
        self._said = ""

    async def watch(self) -> None:
        while True:
            driver = self._service._driver
            record = driver.node.book.get(self._key) if driver is not None else None
            path = str(record.links[-1].path) if record is not None and record.links else ""
            if path != self._said:
                self._said = path
                say(event="path", path=path)
            await asyncio.sleep(0.05)


async def main(options: dict[str, Any]) -> None:
    """Do what standard input says until it ends: `dial`, or `send` a text."""
    who, friend = (getattr(keys, options[name].upper()) for name in ("who", "friend"))
    turn = (TurnServer(INTERNET, 3478, "u", "p"),) if options.get("turn") else ()
    service = NetworkService(
        options["who"], host="", identity=who, limits=Limits(ice_gather_s=1.5, ice_direct_s=0.8), announce=("ice:",),
        carriers=[_relays, punching(Servers(((INTERNET, 3478),), turn))],
    )  # fmt: skip

    def heard(message: Message, _: Peer) -> None:
        say(event="heard", text=message.payload.decode())

    await service.start(heard)
    service.add_peer(PeerInfo(id=options["friend"], addresses=(RELAY,), pubkey_hex=friend.pubkey_hex))
    watching = asyncio.create_task(_Paths(service, friend.pubkey).watch())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(event="ready")
    while line := await reader.readline():
        verb, text = json.loads(line)
        if verb == "dial":
            await service.connect_to_peer(options["friend"], timeout_s=15)
        else:
            await service.send_message_to(options["friend"], Message(MessageType.CHAT, "", text.encode()))
    watching.cancel()
    await service.stop()
    say(event="stopped", left=0)


async def relay() -> None:
    """Run a relay of another make until it is killed."""
    import nostr_sdk

    limit = nostr_sdk.RateLimit(max_reqs=500, notes_per_minute=1_000_000)
    made = nostr_sdk.LocalRelayBuilder().addr(INTERNET).port(RELAY_PORT).rate_limit(limit).build()
    await made.run()
    say(event="ready")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(relay() if sys.argv[1] == "relay" else main(json.loads(sys.argv[1])))
