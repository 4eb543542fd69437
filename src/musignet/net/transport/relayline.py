"""One connection to one relay: it lasts, it is bounded, and nothing it says is trusted (THREATS.md R1-R6).

    connect -> subscribe to our inboxes -> read at most 50 messages a second -> pause -> connect ...

A relay that breaks the rules is left at once, with a pause that doubles each time. One that is only fast is read
slowly: what it sends ahead waits on its side.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import Event as WireEvent

from ... import limits
from ...crypto.relaykey import RelayKey
from ...errors import ConnectionError, NetworkError, ReceiveError, Timeout
from ...node.addresses import parse_address
from ...text import safe
from ...wire.giftwrap import Event
from ...wire.relaytalk import LETTERS, Accepted, FromRelay
from ..lograte import LinesPerSecond
from ..oserror import spoken
from .relayreader import Reader, ReadFor
from .route import DIRECT, Route

__all__ = ["LineOwner", "RelayLine"]

logger = logging.getLogger("musignet")

_CLOSE_TIMEOUT_S = 1.0
_NO_BLAME = (1000, 1001, 1011)  # both were done, or a ping was not answered
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class LineOwner(ReadFor, Protocol):
    """Who has lines."""

    lines_per_s: LinesPerSecond
    """For what all relays together can make us write into the log."""

    def inboxes(self) -> Mapping[str, RelayKey]:
        """Our inbox keys by name, that of now first."""
        ...

    def delivered(self, line: RelayLine, event: Event, inbox: RelayKey) -> None:
        """An event for this inbox that has not been seen; its id and signature hold."""
        ...

    def line_up(self, line: RelayLine) -> None:
        """This relay can be used from now on."""
        ...


class _Connection(ClientConnection):
    """The library answers pings by itself, whether or not the answers are read: so many, and no more."""

    pings = 0
    pinged_at = 0.0
    """When the first one came."""

    def process_event(self, event: WireEvent) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pinged_at = self.pinged_at or self.loop.time()
            self.pings += 1
            if self.pings > limits.RELAY_PINGS_MAX:
                self.transport.abort()
        super().process_event(event)


class _Direct(connect):
    """A relay says where it is. It does not send us elsewhere, where the user's own network may be."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class RelayLine:
    """See the module. `up` is whether something can be published now, `trouble` why not, for people."""

    def __init__(self, url: str, owner: LineOwner, dial_timeout_s: float, route: Route = DIRECT) -> None:
        self.url = url
        self.up = False
        self.trouble = ""
        self.streams = 0
        """Links that use it."""
        self._owner = owner
        self._dial_timeout_s = dial_timeout_s
        self._route = route
        self._waiting: asyncio.Queue[str] = asyncio.Queue(limits.RELAY_WAITING_MAX)
        self._unanswered: set[str] = set()
        self._answered = asyncio.Event()
        self._answered.set()
        self._outcome: asyncio.Future[bool] | None = None
        self._awake = asyncio.Event()
        self._failures = 0
        self._broke_rules = False
        self._reader = self._make_reader()
        self._socket: ClientConnection | None = None
        self._visits: asyncio.Task[None] | None = None
        self._budget = float(limits.RELAY_EVENTS_BURST)
        self._budget_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    # --- for its owner ------------------------------------------------------------------------------------------------

    def publish(self, frame: str, event_id: str = "") -> None:
        """Send a message to the relay, if it is there and not too far behind. Whoever needs it there sends it again.

        Args: event_id — of an event that is to be stored: `written` waits for the answer to it.
        """
        if self.up and not self._waiting.full():
            self._waiting.put_nowait(frame)
            if event_id and len(self._unanswered) < limits.RELAY_WAITING_MAX:
                self._unanswered.add(event_id)
                self._answered.clear()

    def subscribe(self) -> None:
        """Ask for our inboxes of now: once connected, and when their names have changed.

        A relay that knows one key for each connection learns the new one in a new connection.
        """
        if self._reader.narrowed and self._socket is not None:
            self._socket.transport.abort()
        else:
            self._reader.ask()

    async def ready(self) -> None:
        """Return when it is up. Raises ConnectionError when the next attempt fails, or it broke the rules lately."""
        if self.up:
            return
        if self._outcome is None:
            if self._broke_rules:
                raise ConnectionError(f"the relay {safe(self.url)} is avoided for now: {self.trouble}")
            self._awake.set()
            self._outcome = self._loop.create_future()
        if not await asyncio.shield(self._outcome):
            raise ConnectionError(f"cannot reach the relay {safe(self.url)}: {self.trouble}")

    async def written(self) -> None:
        """Return when what was published has left, and what is to be stored was answered; or soon.

        Some relays forget what they have not read yet when the connection is closed.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled(), _CLOSE_TIMEOUT_S)

    async def _settled(self) -> None:
        await self._waiting.join()
        await self._answered.wait()

    async def stop(self) -> None:
        """Close it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._decide(False)

    # --- the connection -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            began = self._loop.time()
            try:
                await self._live()
            except NetworkError as error:
                self._failed(error)
            if self._loop.time() - began > limits.RELAY_QUIET_S and not self._broke_rules:
                self._failures = 0
            first, longest = limits.RELAY_BACKOFF_S
            pause = min(longest, first * 2 ** min(self._failures, 20)) * random.uniform(0.7, 1.3)
            self._failures += 1
            self._awake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._awake.wait()
            except TimeoutError:
                continue

    async def _live(self) -> None:
        """One connection, from beginning to end. Raises NetworkError, always."""
        self._outcome = self._outcome or self._loop.create_future()
        try:
            async with self._connected() as relay:
                self._begin()
                try:
                    await self._talk(relay)
                except ConnectionClosed as error:
                    raise _blamed(relay, error) from None
                except ReceiveError:
                    relay.transport.abort()  # nobody waits for its goodbye
                    raise
        except (OSError, InvalidHandshake, InvalidURI, EOFError, ValueError) as error:
            if isinstance(error, NetworkError):
                raise
            what = Timeout if isinstance(error, TimeoutError) else ConnectionError
            raise what(spoken(error)) from None
        finally:
            self.up = False
            while not self._waiting.empty():
                self._waiting.get_nowait()
                self._waiting.task_done()
            self._unanswered.clear()
            self._answered.set()

    async def _dial(self) -> Any:
        address = parse_address(self.url)
        way = await self._route.way(address.host, address.port, self.url.encode())
        return _Direct(
            self.url,
            sock=way.get("sock"),
            open_timeout=self._dial_timeout_s,
            close_timeout=_CLOSE_TIMEOUT_S,
            max_size=limits.RELAY_FRAME_MAX_BYTES,
            max_queue=4,
            compression=None,  # a small message could become a large one
            proxy=None,
            user_agent_header=None,
            create_connection=_Connection,
        )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ClientConnection]:
        """A connection that is closed at the end, whatever becomes of its goodbye: in a task that was cancelled, the
        library's clock for it is no `TimeoutError` with Python 3.11.2, which Debian 12 has.
        """
        relay: ClientConnection | None = None
        try:
            async with await self._dial() as relay:
                yield relay
        finally:
            if relay is not None:
                relay.transport.abort()

    def _begin(self) -> None:
        self.up = True
        self.trouble = ""
        self._broke_rules = False
        self._reader = self._make_reader()
        self._reader.ask()
        self._decide(True)
        self._owner.line_up(self)

    def _make_reader(self) -> Reader:
        return Reader(self.url, self._owner, self._owner.inboxes, self.publish, self._deliver)

    def _deliver(self, event: Event, inbox: RelayKey) -> None:
        self._owner.delivered(self, event, inbox)

    async def _talk(self, relay: ClientConnection) -> None:
        self._socket = relay
        writing = self._loop.create_task(self._write(relay))
        try:
            while True:
                self._heard(self._reader.take(await relay.recv()))
                self.trouble = self._reader.refusal or self.trouble
                if LETTERS in self._reader.narrowed and self._visits is None:
                    self._visits = self._loop.create_task(self._visit_all())
                _acknowledge_soon(relay)
                await self._pace()
        finally:
            working = [task for task in (writing, self._visits) if task is not None]
            self._visits = None
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    def _heard(self, said: FromRelay) -> None:
        if isinstance(said, Accepted):
            self._unanswered.discard(said.id)
            if not self._unanswered:
                self._answered.set()

    async def _write(self, relay: ClientConnection) -> None:
        while True:
            frame = await self._waiting.get()
            try:
                await relay.send(frame)
            finally:
                self._waiting.task_done()

    async def _pace(self) -> None:
        """Read no more than so many messages a second."""
        now = self._loop.time()
        gained = (now - self._budget_at) * limits.RELAY_EVENTS_PER_S
        self._budget = min(self._budget + gained, limits.RELAY_EVENTS_BURST) - 1
        self._budget_at = now
        if self._budget < 0:
            await asyncio.sleep(-self._budget / limits.RELAY_EVENTS_PER_S)

    # --- the other days -----------------------------------------------------------------------------------------------

    async def _visit_all(self) -> None:
        """Read what was left on other days, where a relay shows each connection one inbox: in connections of their own,
        one after the other. What fails is read when this connection has broken and is there again.
        """
        for name, key in list(self._owner.inboxes().items())[1:]:
            with suppress(OSError, NetworkError, WebSocketException, EOFError, ValueError):
                async with asyncio.timeout(limits.RELAY_VISIT_S):
                    await self._visit({name: key})

    async def _visit(self, inbox: Mapping[str, RelayKey]) -> None:
        waiting: list[str] = []
        async with self._connected() as relay:
            reader = Reader(self.url, self._owner, lambda: inbox, waiting.append, self._deliver, (LETTERS,))
            reader.ask()
            while LETTERS not in reader.read:
                for frame in waiting:
                    await relay.send(frame)
                waiting.clear()
                reader.take(await relay.recv())
                await self._pace()

    def _failed(self, error: NetworkError) -> None:
        self.trouble = str(error)
        self._broke_rules = isinstance(error, ReceiveError)
        self._decide(False)
        if self._owner.lines_per_s.allow():
            what = "broke the rules and is avoided for now" if self._broke_rules else "is not reached"
            logger.warning("the relay %s %s: %s%s", safe(self.url), what, error, self._owner.lines_per_s.left_out())

    def _decide(self, up: bool) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(up)
        self._outcome = None


def _blamed(relay: ClientConnection, error: ConnectionClosed) -> NetworkError:
    """Say why a connection ended: because we refused what came (too long, no UTF-8, pings), or by itself."""
    if isinstance(relay, _Connection) and relay.pings > limits.RELAY_PINGS_MAX:
        quick = relay.loop.time() - relay.pinged_at < limits.RELAY_PINGS_S
        return ReceiveError("pings without end") if quick else ConnectionError("after so many pings it is made anew")
    if error.sent is not None and not error.rcvd_then_sent and error.sent.code not in _NO_BLAME:
        return ReceiveError("not a relay's message", got=error.sent.reason or f"close code {error.sent.code}")
    return ConnectionError("it closed the connection")


def _acknowledge_soon(relay: ClientConnection) -> None:
    """Some relays hold a message back until the one before it was acknowledged (Nagle), which takes Linux 40 ms."""
    if _QUICKACK is not None:
        raw = relay.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
