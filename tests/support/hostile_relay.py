"""A relay that works, and does one thing wrong. `BEHAVIOURS` names what.

It keeps everything that its clients published, so that a test can look at it as the relay's owner would.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_bytes
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from musignet.crypto.keys import Identity
from musignet.crypto.relaykey import RelayKey
from musignet.wire.giftwrap import LIVE, wrap
from musignet.wire.segment import DATA, DIALLER, RESET, Segment

__all__ = ["BEHAVIOURS", "Behaviour", "Client", "HostileRelay"]

FLOOD = 1_000
"""Messages of a flood: enough to be paced, few enough to be over."""
NOW_S = 1_790_000_000


@dataclass(eq=False)
class Client:
    """One connection, and what it subscribed to."""

    socket: ServerConnection
    number: int
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The filter of each subscription."""
    subscription: str = ""
    """The last one."""
    received: int = 0
    held: list[str] = field(default_factory=list)

    @property
    def inboxes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in self.asked.values() for name in one["#p"]))

    def wants(self, event: dict[str, Any]) -> bool:
        return any(event["kind"] in one["kinds"] and event["tags"][0][1] in one["#p"] for one in self.asked.values())

    async def say(self, *message: Any) -> None:
        await self.raw(json.dumps(message))

    async def raw(self, data: str | bytes) -> None:
        with suppress(ConnectionClosed):
            await self.socket.send(data)

    def cut(self) -> None:
        self.socket.transport.abort()


class Behaviour:
    """An honest relay. Subclasses do one thing otherwise."""

    alone = True
    """Whether two nodes find each other even when this is their only relay."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def answer(self, request: Request) -> Response | None:
        """Answer the handshake of the websocket; None: as usual."""
        return None

    async def connected(self, client: Client) -> None:
        """A client is there."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        await client.say("EOSE", subscription)

    async def published(self, client: Client, event: dict[str, Any]) -> None:
        await client.say("OK", event["id"], True, "")

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        await client.say("EVENT", client.subscription, event)


class HostileRelay:
    """A websocket server on a port of its own."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.clients: list[Client] = []
        self.count = 0
        self.read: list[dict[str, Any]] = []
        """What was asked for in connections that are over."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> Any:
        async with serve(
            self._serve, "127.0.0.1", self.port, compression=None, max_size=None, ping_interval=None,
            process_request=lambda _, request: self.behaviour.answer(request), close_timeout=0.1,
        ) as server:  # fmt: skip
            self.port = _port(server)
            yield self
            for client in self.clients:
                client.cut()

    async def _serve(self, socket: ServerConnection) -> None:
        self.count += 1
        client = Client(socket, self.count)
        self.clients.append(client)
        talking = [asyncio.ensure_future(self.behaviour.connected(client))]
        try:
            async for text in socket:
                await self._hear(client, json.loads(text), talking)
        except ConnectionClosed:
            pass
        finally:
            self.clients.remove(client)
            self.read.append(client.asked)
            for one in talking:
                one.cancel()
            await asyncio.gather(*talking, return_exceptions=True)

    async def _hear(self, client: Client, said: list[Any], talking: list[asyncio.Future[None]]) -> None:
        if said[0] == "REQ":
            client.subscription = said[1]
            client.asked[said[1]] = said[2]
            talking.append(asyncio.ensure_future(self.behaviour.subscribed(client, said[1])))
        elif said[0] == "EVENT":
            event = said[1]
            self.behaviour.events.append(event)
            await self.behaviour.published(client, event)
            for other in list(self.clients):
                if other.wants(event):
                    other.received += 1
                    await self.behaviour.deliver(other, event)


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


# --- what relays do wrong ---------------------------------------------------------------------------------------------


class BlackHole(Behaviour):
    alone = False

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        pass


class Mute(BlackHole):
    """It does not even say that it took an event, nor that there is nothing stored."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        pass

    async def published(self, client: Client, event: dict[str, Any]) -> None:
        pass


class DropsEverySecond(Behaviour):
    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        if client.received % 2:
            await super().deliver(client, event)


class Reorders(Behaviour):
    """Events leave in pairs, the second one first; the last one late."""

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        client.held.insert(0, json.dumps(["EVENT", client.subscription, event]))
        if len(client.held) == 2:
            held, client.held = client.held, []
            for text in held:
                await client.raw(text)


class Delays(Behaviour):
    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, lambda: asyncio.ensure_future(super(Delays, self).deliver(client, event)))


class Duplicates(Behaviour):
    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        for _ in range(2):
            await super().deliver(client, event)


class Replays(Behaviour):
    """With each event come all those before it."""

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        for one in [one for one in self.events if one["tags"][0][1] in client.inboxes][-20:]:
            await super().deliver(client, one)


class ReplaysToNewcomers(Behaviour):
    """It stores what is not to be stored, for ever, and ignores the limit."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        for one in [one for one in self.events if one["tags"][0][1] in client.inboxes]:
            await self.deliver(client, one)


class EachHearsAnother(Behaviour):
    """Each client misses another third of what is due."""

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        if client.received % 3 != client.number % 3:
            await super().deliver(client, event)


class Says(Behaviour):
    """It says one wrong thing to whoever subscribes, then goes on as an honest one. `TEXT` is what."""

    alone = False  # each connection is closed for it, again and again

    TEXT: str | bytes = ""

    async def subscribed(self, client: Client, subscription: str) -> None:
        await client.raw(self.TEXT)


def says(text: str | bytes) -> type[Behaviour]:
    return type("Says", (Says,), {"TEXT": text})


class Alters(Behaviour):
    """Every event is delivered with one field of another one. `FIELD` is which."""

    alone = False
    FIELD = "id"
    VALUE: Any = None

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        value = self.VALUE if self.VALUE is not None else sha256(event["id"].encode()).hexdigest()
        await super().deliver(client, {**event, self.FIELD: value})


def alters(name: str, value: Any = None) -> type[Behaviour]:
    return type("Alters", (Alters,), {"FIELD": name, "VALUE": value})


class Forges(Behaviour):
    """It knows the names of the inboxes, so it can write to them: segments of made-up links, resets, junk, letters."""

    def payloads(self) -> Iterator[bytes]:
        for _ in range(20):
            link, somebody = token_bytes(16), Identity.generate().pubkey
            yield Segment(DATA | DIALLER, link, somebody, 0, 0, 0, token_bytes(50)).encode()
            yield Segment(DATA, link, somebody, 3, 9, 0xFFFF, token_bytes(50)).encode()
            yield Segment(RESET, link, somebody).encode()
            yield Segment(DATA | DIALLER, link, b"\x05" * 33, 0).encode()
            yield token_bytes(70)
            yield b""

    async def subscribed(self, client: Client, subscription: str) -> None:
        for payload in self.payloads():
            await client.say("EVENT", client.subscription, forged(payload, client.inboxes[0]))


class FromTheFuture(Forges):
    """What it forges is dated as far ahead as numbers go, and has expired before it began."""

    async def subscribed(self, client: Client, subscription: str) -> None:
        for payload in self.payloads():
            event = forged(payload, client.inboxes[0], now_s=2**53 - 1, expires_s=0)
            await client.say("EVENT", client.subscription, event)


class Endless(Behaviour):
    """Valid events of strangers, as fast as they are taken."""

    alone = False

    async def subscribed(self, client: Client, subscription: str) -> None:
        event = forged(token_bytes(70), client.inboxes[0])
        content = event["content"]
        for n in range(FLOOD):
            await client.say("EVENT", client.subscription, resigned({**event, "content": content[:-4] + f"{n:04}"}))


class Floods(Behaviour):
    """`MESSAGE` without end."""

    alone = False
    MESSAGE: tuple[Any, ...] = ()

    async def connected(self, client: Client) -> None:
        for n in range(FLOOD):
            await client.say(*(f"{one}{n}" if one == "..." else one for one in self.MESSAGE))


def floods(*message: Any) -> type[Behaviour]:
    return type("Floods", (Floods,), {"MESSAGE": message})


class Pings(Behaviour):
    """Pings without end. The answers are never read."""

    alone = False

    async def subscribed(self, client: Client, subscription: str) -> None:
        client.socket.transport.pause_reading()
        for _ in range(100):
            client.socket.transport.write(b"\x89\x7d" + bytes(125) + b"\x89\x00" * 200)
            await asyncio.sleep(0)


class Challenges(Behaviour):
    """It serves nobody who has not proved whose inbox it is, and says so first. This is its right (NIP-42)."""

    def __init__(self) -> None:
        super().__init__()
        self.proved: set[Client] = set()

    async def connected(self, client: Client) -> None:
        await client.say("AUTH", "prove it")
        self.proved.add(client)

    async def subscribed(self, client: Client, subscription: str) -> None:
        if not client.held:
            client.held.append("refused once")
            await client.say("CLOSED", subscription, "auth-required: whose is it?")
        else:
            await super().subscribed(client, subscription)


class ClosesSubscriptions(Behaviour):
    alone = False

    async def subscribed(self, client: Client, subscription: str) -> None:
        await client.say("CLOSED", subscription, "blocked: not you")


class RefusesEvents(Behaviour):
    alone = False

    async def published(self, client: Client, event: dict[str, Any]) -> None:
        await client.say("OK", event["id"], False, "rate-limited: \x1b[31mslow down\x00")

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        pass


class ClosesEachTime(Behaviour):
    """It delivers one event, and closes."""

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        await super().deliver(client, event)
        if client.received % 3 == 0:
            client.cut()


class ClosesMidMessage(Behaviour):
    """A frame of 20,000 bytes begins, and ends after 2,000."""

    alone = False

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        client.socket.transport.write(b"\x81\x7e" + (20_000).to_bytes(2) + b"[" * 2_000)
        client.cut()


class ClosesMidEvent(Behaviour):
    """Every third event breaks off in the middle, and the connection with it."""

    async def deliver(self, client: Client, event: dict[str, Any]) -> None:
        if client.received % 3:
            await super().deliver(client, event)
            return
        text = json.dumps(["EVENT", client.subscription, event]).encode()
        client.socket.transport.write(b"\x81\x7e" + len(text).to_bytes(2) + text[:500])
        client.cut()


class Dribbles(Behaviour):
    """A message begins and never ends, byte by byte."""

    alone = False

    async def subscribed(self, client: Client, subscription: str) -> None:
        client.socket.transport.write(b"\x01\x01[")
        for _ in range(FLOOD):
            client.socket.transport.write(b"\x00\x01 ")
            await asyncio.sleep(0)


class Redirects(Behaviour):
    """It sends whoever comes to another address: `VICTIM`, perhaps in their own network."""

    alone = False
    VICTIM = "ws://127.0.0.1:1/"

    def answer(self, request: Request) -> Response | None:
        return Response(302, "Found", Headers({"Location": self.VICTIM}), b"")


class NoRelay(Behaviour):
    alone = False

    def answer(self, request: Request) -> Response | None:
        return Response(200, "OK", Headers({"Content-Type": "text/html"}), b"<html>" * 1_000)


def forged(payload: bytes, inbox: str, *, now_s: int = NOW_S, expires_s: int = NOW_S + 60) -> dict[str, Any]:
    """An event to an inbox that says what the relay likes."""
    times = {"now_s": now_s, "expires_s": expires_s}
    event = wrap(LIVE, payload, bytes.fromhex(inbox), **times, secret=token_bytes(32), nonce=token_bytes(32))
    made: dict[str, Any] = msgspec.to_builtins(event)
    return made


def resigned(event: dict[str, Any]) -> dict[str, Any]:
    """The same event with a right id and signature of another key."""
    key = RelayKey.one_time(token_bytes(32))
    event = {**event, "pubkey": key.xonly.hex()}
    body = [0, event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"]]
    digest = sha256(json.dumps(body, separators=(",", ":")).encode()).digest()
    return {**event, "id": digest.hex(), "sig": key.sign(digest).hex()}


_STRANGERS = resigned(forged(b"x", RelayKey.one_time(sha256(b"somebody").digest()).xonly.hex()))
_KIND_ONE = resigned({**_STRANGERS, "kind": 1})

BEHAVIOURS: dict[str, Callable[[], Behaviour]] = {
    "honest": Behaviour,
    "takes everything and delivers nothing": BlackHole,
    "says nothing at all": Mute,
    "drops every second event": DropsEverySecond,
    "reorders": Reorders,
    "delays": Delays,
    "delivers twice": Duplicates,
    "replays": Replays,
    "replays to newcomers": ReplaysToNewcomers,
    "tells each something else": EachHearsAnother,
    "garbage": says("\x00garbage{"),
    "binary data": says(b"\x00\x01\x02"),
    "an event of 64 KiB": says(json.dumps(["NOTICE", "x" * 65_536])),
    "a harmless message of more than 64 KiB": says('["NOTICE","hello"' + " " * 65_536 + "]"),
    "an event of 16 MiB": says("[" + " " * 16 * 2**20 + "]"),
    "deep JSON": says("[" * 60_000),
    "deep tags": says(json.dumps(["EVENT", "inbox", {**_STRANGERS, "tags": [[[[["p"]]]]]}])),
    "lone surrogates": says('["NOTICE","\\ud800\\u0000"]'),
    "numbers out of range": says(json.dumps(["EVENT", "inbox", {**_STRANGERS, "created_at": 2**70}])),
    "events of others": says(json.dumps(["EVENT", "inbox", _STRANGERS])),
    "another kind of event": says(json.dumps(["EVENT", "inbox", _KIND_ONE])),
    "another subscription": says(json.dumps(["EVENT", "other", _STRANGERS])),
    "wrong ids": alters("id"),
    "wrong signatures": alters("sig", "0" * 128),
    "wrong authors": alters("pubkey"),
    "wrong times": alters("created_at", 2**53 - 1),
    "wrong contents": alters("content", "AAAA"),
    "extra fields": alters("extra", "x"),
    "forged gift wraps": Forges,
    "events from the future": FromTheFuture,
    "events without end": Endless,
    "notices without end": floods("NOTICE", "..."),
    "challenges without end": floods("AUTH", "..."),
    "refusals without end": floods("CLOSED", "inbox", "auth-required: "),
    "receipts without end": floods("OK", "...", False, "no"),
    "pings without end": Pings,
    "a message without end": Dribbles,
    "wants to know whose inbox it is": Challenges,
    "ends subscriptions": ClosesSubscriptions,
    "refuses events": RefusesEvents,
    "closes again and again": ClosesEachTime,
    "closes in the middle of a message": ClosesMidMessage,
    "closes in the middle of an event": ClosesMidEvent,
    "sends us elsewhere": Redirects,
    "is a web page": NoRelay,
}
