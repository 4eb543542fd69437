"""A `PunchedTransport` in a process of its own: one JSON object a line says what to do, and what happened.

python -m support.punching_node '{"who": "alice", "turn": true}'
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import Any

import aioice

from musignet.errors import NetworkError
from musignet.limits import Limits
from musignet.net.nat import Servers, TurnServer
from musignet.net.transport.base import Connection
from musignet.net.transport.punched import PunchedTransport
from musignet.node.rates import Standing
from musignet.wire.channel import CloseReceived
from support import keys
from support.gauges import Gauged
from support.netlab import INTERNET

STUN = (INTERNET, 3478)
TURN = TurnServer(INTERNET, 3478, "u", "p")


def say(**facts: Any) -> None:
    """Write one line."""
    print(json.dumps(facts), flush=True)


class _Sink(Gauged):
    def __init__(self) -> None:
        super().__init__(standing=Standing.COSIGNER)
        self.bytes = 0
        self.count = 0
        self.echo: PunchedTransport | None = None

    def connected(self, connection: Connection) -> None:
        say(event="connected", path=str(connection.path), address=connection.address)

    def received(self, connection: Connection, envelopes: list[bytes], ids: bytes) -> None:
        for envelope in envelopes:
            self.count += 1
            if envelope.startswith(b"?"):
                connection.send(b"!" + envelope[1:])
            elif envelope.startswith(b"!"):
                say(event="answer", count=self.count, length=len(envelope))
        connection.flush()

    def closed(self, connection: Connection, error: NetworkError | None, goodbye: CloseReceived | None) -> None:
        say(event="closed", error=type(error).__name__ if error else "", goodbye=goodbye is not None)

    def refused(self, address: str, error: NetworkError) -> None:
        say(event="refused", error=type(error).__name__, text=str(error))


async def _dial(transport: PunchedTransport, peer: str) -> None:
    began = time.perf_counter()
    try:
        await transport.connect(peer)
    except NetworkError as error:
        say(event="failed", error=type(error).__name__, text=str(error), seconds=time.perf_counter() - began)
    else:
        say(event="dialled", seconds=time.perf_counter() - began)


async def main(options: dict[str, Any]) -> None:
    """Do what standard input says until it ends."""
    aioice.ice.CONSENT_INTERVAL = options.get("consent_s", aioice.ice.CONSENT_INTERVAL)
    turn = replace(TURN, host=options.get("turn_host", INTERNET))
    if options.get("tls"):
        turn = replace(turn, port=5349, tls=True)
    servers = Servers(stun=(STUN,), turn=(turn,) if options.get("turn") else ())
    transport = PunchedTransport(
        getattr(keys, options["who"].upper()),
        _Sink(),
        signal=lambda peer, data: say(event="signal", data=data.hex()),
        servers=servers,
        limits=Limits(**options.get("limits", {})),
    )
    await transport.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(event="ready")
    dials = set()
    while line := await reader.readline():
        verb, argument = json.loads(line)
        if verb == "connect":
            dials.add(asyncio.create_task(_dial(transport, argument)))
        elif verb == "signalled":
            transport.signalled(argument[0], bytes.fromhex(argument[1]))
        elif verb == "send":
            for _ in range(argument[2]):
                await transport.send(argument[0], argument[1].encode() + bytes(argument[3]))
        elif verb == "disconnect":
            await transport.disconnect(argument)
    began = time.perf_counter()
    await transport.stop()
    await asyncio.gather(*dials)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    say(event="stopped", seconds=time.perf_counter() - began, left=len(left))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
