"""The real driver: feeds a `Node` from a transport and the clock, and performs its effects.

Feed, take the effects, perform them in order, flush, arm the one timer. It decides nothing: whatever needs a decision
belongs into the node.

Bytes become a `VerifiedMessage` here (`opener`), before the node sees them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from secrets import token_bytes
from typing import Any, Final

from ..crypto.keys import Identity
from ..errors import LocalError, NetworkError
from ..node.config import NodeConfig
from ..node.core import Node
from ..node.effects import (
    Acknowledge,
    AskKeyholder,
    Connect,
    Disconnect,
    Effect,
    MessageArrived,
    News,
    Publish,
    Reply,
    Save,
    Send,
    SignalHeard,
    Store,
)
from ..node.inputs import (
    Acknowledged,
    ConnectFailed,
    Input,
    JoinGroup,
    KeyholderReplied,
    MailMoved,
    MessageReceived,
    MessageRefused,
    NetworkChanged,
    PeerConnected,
    PeerLost,
    PlacesFailed,
    Saved,
    SaySignal,
    Stored,
    Woken,
)
from ..node.rates import Gauge
from ..signing.coordinator import Sessions
from ..signing.verbs import Reply as HolderReply
from ..text import safe
from ..wire.channel import CloseReceived
from ..wire.envelope import Gate, VerifiedMessage
from .brakes import Brakes
from .clock import Clock
from .cosigner import Cosigner, Holder
from .folder import DataFolder
from .frameless import frameless
from .guard import guarded
from .mailstore import MailStore
from .newslog import NewsLog
from .opener import Opener
from .roaming import Roaming
from .scores import ScoreFile
from .transport.base import Connection
from .transport.carriers import Carriers

__all__ = ["Driver"]

logger = logging.getLogger("musignet")

_PATIENCE_TURNS: Final = 3
"""Turns of the loop that an acknowledgement waits for an answer to take it along: a handler is woken in the first, a
task that this handler wakes runs in the second. An acknowledgement of its own would wake the peer once more."""

_WAKE_PAUSE_S: Final = 0.01
"""From one waking to the next. Each link leaves a few deadlines: those of many that came together are seen to together.
"""


class Driver:
    """Runs one node on an event loop. `NetworkService` is its face.

    Args:
        deliver: called with each message for the application, its key first.
        tell:    called with everything else that the node publishes.
        folder:  the data folder, locked; None: messages are in memory only.
        admit:   called with the key of an unknown peer that connected and its address; True lets it in, after the
                 callee has put it into the book.
    """

    def __init__(
        self,
        identity: Identity,
        config: NodeConfig,
        *,
        deliver: Callable[[bytes, VerifiedMessage], None],
        tell: Callable[[News], None],
        admit: Callable[[Connection], bool],
        folder: DataFolder | None = None,
    ) -> None:
        self.node = Node(identity, config, token_bytes)
        self._deliver = deliver
        self._tell = tell
        self._admit = admit
        self._folder = folder
        self._mail: MailStore | None = None
        self._scores: ScoreFile | None = None
        self.refusals = 0
        """How often somebody did not become a link."""
        self._transport: Carriers | None = None
        self._loop: asyncio.AbstractEventLoop
        self._connections: dict[int, tuple[Connection, Gate]] = {}
        self._inputs: deque[Input] = deque()
        self._busy = False
        self._telling = False
        self._news: deque[News] = deque()
        self._to_flush: dict[int, Connection] = {}
        self._acks_to_flush: dict[int, Connection] = {}
        self._turns = 0
        self._requests = 0
        self._asked = 0
        self._replies: dict[int, Reply] = {}
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._brakes = Brakes(config.limits.disk_waiting_max_bytes)
        self._cosigners: dict[bytes, Cosigner] = {}
        self._hear_signal: Callable[[str, bytes], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._rest_s = 0.0
        self._opener = Opener(config.limits.verify_batch)
        self.now = Clock().now
        self._roaming = Roaming(self._network_changed)
        self._log = NewsLog(self.node.book, config.limits.log_lines_per_s)

    async def start(self, transport: Carriers) -> None:
        """Begin to run on the current event loop. The carriers have this driver as their sink.

        Raises: IoError when it cannot be had, or the journal of messages is damaged. Then call `stop`.
        """
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        if self._folder is not None:
            self._mail = MailStore(self._folder, self._stored)
            self.feed(self._mail.load())
            self._scores = ScoreFile(self._folder, self.node.conduct.reputation, self.now)
            self.node.conduct.restored(self.node.book, self.now())
        await transport.start()
        self._roaming.start()

    async def stop(self) -> None:
        """Close the transport, end what this driver began, however far that went. The node was told to stop before."""
        self._roaming.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            await self._transport.stop()
        if self._mail is not None:
            await self._mail.close()
        if self._scores is not None:
            await self._scores.close()
        if self._timer is not None:
            self._timer.cancel()
        self._opener.close()
        for cosigner in self._cosigners.values():
            cosigner.close()

    def cosign(
        self, sessions: Sessions, folder: DataFolder, holder: Callable[[Callable[[HolderReply], None]], Holder]
    ) -> None:
        """Be a cosigner of a group. `holder` makes who signs, given where the answers go.

        Raises: IoError when a journal cannot be had, LocalError when the node refuses.
        """
        group = sessions.group.id
        if group in self._cosigners:
            raise LocalError("cannot join this group", expected="a group of this node's, once")
        made = holder(lambda reply: self.feed(KeyholderReplied(group, reply)))
        try:
            cosigner = Cosigner(made, folder, sessions)
        except NetworkError:
            made.close()
            raise
        self._cosigners[group] = cosigner
        self.submit(JoinGroup, cosigner.sessions, cosigner.records)

    def cosigner(self, group: bytes) -> Cosigner:
        """Return our cosigner of a group. Raises LocalError."""
        found = self._cosigners.get(group)
        if found is None:
            raise LocalError("this node is not in that group", hint="cosign() first")
        return found

    def cosigners(self) -> Iterable[Cosigner]:
        """Return our cosigners of all groups."""
        return self._cosigners.values()

    # --- commands -----------------------------------------------------------------------------------------------------

    def submit(self, command: Callable[..., Input], *args: Any) -> asyncio.Future[Any] | Any:
        """Give the node the command `command(request, *args)`.

        Returns: what the reply carries, when the node answered at once, else a future of it.
        Raises:  the error of an immediate reply.
        """
        self._requests += 1
        request = self._asked = self._requests
        self._inputs.append(command(request, *args))
        self._run()
        reply = self._replies.pop(request, None)
        if reply is None:
            future = self._waiting[request] = self._loop.create_future()
            future.add_done_callback(lambda _: self._waiting.pop(request, None))
            return future
        if reply.error is not None:
            raise reply.error
        return reply.session or reply.peers

    def feed(self, event: Input) -> None:
        """Give the node one input, and perform what it asks for."""
        self._inputs.append(event)
        self._run()

    def _run(self) -> None:
        """Give the node every input that waits. Called from inside, the inputs join those being given."""
        if self._busy:
            return
        self._busy = True
        inputs, handle, now = self._inputs, self.node.handle, self.now()
        try:
            while inputs:
                for effect in handle(inputs.popleft(), now):
                    _PERFORM[type(effect)](self, effect)
        finally:
            self._busy = False
        self._settle()

    def _settle(self) -> None:
        """After the effects: write, arm the timer, tell the application. In that order, so that it may call back in."""
        if self._to_flush:
            self._flush()
        deadline = self.node.next_deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._arm(deadline)
        if self._news and not self._telling:
            self._telling = True
            try:
                self._tell_news()
            finally:
                self._telling = False
        if self._acks_to_flush:
            self._soon()

    def _flush(self) -> None:
        """Write what was sent so far."""
        connections, self._to_flush = self._to_flush, {}
        for number, connection in connections.items():
            connection.flush()
            self._acks_to_flush.pop(number, None)

    def _tell_news(self) -> None:
        """Tell the application, one thing after the other: what it sets off in here is told after this one."""
        while self._news:
            news = self._news.popleft()
            if isinstance(news, MessageArrived):
                self._deliver(news.key, news.message)
            else:
                self._log.tell(news)
                guarded(self._tell, news)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = self._loop.call_later(max(self._rest_s, deadline - self.now()), self._wake)

    def _network_changed(self, how: str) -> None:
        logger.info("%s: links are asked, and who is missing is dialled", safe(how, 200))
        self._armed = None  # the timer stood still while the machine slept, our clock did not
        self.feed(NetworkChanged())

    def _wake(self) -> None:
        self._armed = self._timer = None
        self._rest_s = _WAKE_PAUSE_S
        self.feed(Woken())
        self._rest_s = 0.0
        deadline = self.node.next_deadline()
        if deadline is not None and self._armed is None:
            self._arm(deadline)

    def throttle(self, key: bytes, on: bool) -> None:
        """Stop reading from a peer whose messages the application has not handled yet; or go on."""
        self._brakes.slow(key, on)
        for connection, _ in self._connections.values():
            if connection.peer.compressed == key:
                self._brakes.apply(connection)

    def _keep_up(self) -> None:
        """Stop reading from everybody while the disk is behind."""
        if self._brakes.disk(self._mail.waiting_bytes if self._mail else 0):
            for connection, _ in self._connections.values():
                self._brakes.apply(connection)

    # --- effects ------------------------------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        known = self._connections.get(effect.link)
        if known is not None:
            known[0].send(effect.data, effect.priority)
            self._to_flush[effect.link] = known[0]

    def _acknowledge(self, effect: Acknowledge) -> None:
        """Acknowledgements wait for a few turns of the loop: an answer to the message takes them along."""
        known = self._connections.get(effect.link)
        if known is not None:
            known[0].acknowledge(effect.message_id)
            self._acks_to_flush[effect.link] = known[0]

    def _soon(self) -> None:
        """A few turns of the loop from now, do what may wait: take acknowledgements in, and send ours out."""
        if not self._turns:
            self._turns = _PATIENCE_TURNS
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turns -= 1
        if self._turns and self._acks_to_flush:
            self._loop.call_soon(self._next_turn)
            return
        self._turns = 0
        if self._inputs:
            self._run()
        connections, self._acks_to_flush = self._acks_to_flush, {}
        for connection in connections.values():
            connection.flush()

    def _ask_keyholder(self, effect: AskKeyholder) -> None:
        """Without the disk nothing goes on: the keyholder waits for a record that was not stored, and signs nothing.

        What was sent before is written first: others can go on with it while we wait for the disk.
        """
        self._flush()
        try:
            self._cosigners[effect.group].ask(effect.verb)
        except NetworkError as error:
            logger.error("the keyholder failed, nothing is signed: %s", error)

    def _save(self, effect: Save) -> None:
        try:
            saved = self._cosigners[effect.group].save(effect)
        except NetworkError as error:
            logger.error("the node's journal failed, its session does not go on: %s", error)
        else:
            self._inputs.append(Saved(effect.group, saved))

    def _store(self, effect: Store) -> None:
        assert self._mail is not None, "a node without a disk stores nothing"
        self._mail.store(effect)
        self._keep_up()

    def _stored(self, stored: Stored) -> None:
        """One commit answers many: the node hears of all of them together."""
        self._inputs.append(stored)
        self._keep_up()
        self._soon()

    def _connect(self, effect: Connect) -> None:
        self._spawn(self._dial(effect))

    async def _dial(self, effect: Connect) -> None:
        assert self._transport is not None, "a node that does not run dials nobody"
        try:
            _, missed = await self._transport.reach(effect.key.hex(), effect.addresses)
            if missed is not None:
                self.feed(PlacesFailed(effect.key, frameless(missed)))
        except NetworkError as error:
            self.feed(ConnectFailed(effect.key, frameless(error)))

    def _disconnect(self, effect: Disconnect) -> None:
        known = self._connections.pop(effect.link, None)
        if known is not None:
            known[0].close(effect.code, effect.text)

    def _reply(self, effect: Reply) -> None:
        future = self._waiting.pop(effect.request, None)
        if future is None:
            if effect.request == self._asked:  # otherwise nobody waits for it any more
                self._replies[effect.request] = effect
        elif not future.done():
            if effect.error is None:
                future.set_result(effect.peers)
            else:
                future.set_exception(effect.error)

    def _signal_heard(self, effect: SignalHeard) -> None:
        if self._hear_signal is not None:  # not at once: it may answer, and the node is in the middle of something
            self._loop.call_soon(self._hear_signal, effect.key.hex(), effect.data)

    def _publish(self, effect: Publish) -> None:
        self._news.append(effect.news)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the transport's sink -----------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        """A channel is open. Unknown keys are let in only by `admit`."""
        key = connection.peer.compressed
        record = self.node.book.get(key)
        if record is None:
            if connection.outbound or not guarded(self._admit, connection):
                self._log.unknown(key, connection.address)
                connection.close(None)
                return
            record = self.node.book.get(key)
        label = record.info.id if record is not None else ""
        node = self.node
        own, chain, groups = node.identity.pubkey, node.config.chain, node.ceremonies.ids
        public = record.public if record is not None else connection.peer  # parsed once
        gate = Gate(public, own, chain, label=label, groups=groups)
        self._connections[connection.number] = (connection, gate)
        link = connection
        self.feed(PeerConnected(link.number, key, link.outbound, link.transcript, link.path, link.address, link.mail))

    def gauge(self, key: bytes) -> Gauge:
        """What counts and bounds a peer, or says that it is none."""
        return self.node.conduct.gauge(self.node.book.get(key))

    def received(self, connection: Connection, envelopes: list[bytes], ids: bytes) -> None:
        """Verify what one read brought, then give it to the node as one batch."""
        number, inputs = connection.number, self._inputs
        known = self._connections.get(number)
        if known is None:
            return
        if ids:
            inputs.append(Acknowledged(number, ids))
        for message in self._opener.open(known[1], envelopes):
            if isinstance(message, VerifiedMessage):
                inputs.append(MessageReceived(number, message))
            else:
                inputs.append(MessageRefused(number, message))
        self._run()
        if self._brakes.on:
            self._brakes.apply(connection)  # it may be a new link

    def mail_moved(self, connection: Connection) -> None:
        """Whatever waited for the next mail goes on."""
        self.feed(MailMoved(connection.number))

    def say_signal(self, peer: str, data: bytes) -> None:
        """Say it on any link that there is."""
        self.submit(SaySignal, bytes.fromhex(peer), data)

    def hear_signals(self, hear: Callable[[str, bytes], None]) -> None:
        """From here on."""
        self._hear_signal = hear

    def closed(self, connection: Connection, error: NetworkError | None, goodbye: CloseReceived | None) -> None:
        """A channel is gone."""
        if self._connections.pop(connection.number, None) is not None:
            self.feed(PeerLost(connection.number, error and frameless(error), goodbye))

    def refused(self, address: str, error: NetworkError) -> None:
        """A stranger did not get in. Floods of them cost one line a second."""
        self.refusals += 1
        self._log.refused(address, error)


_PERFORM: Final[dict[type[Effect], Callable[[Driver, Any], None]]] = {
    Send: Driver._send,
    Acknowledge: Driver._acknowledge,
    SignalHeard: Driver._signal_heard,
    AskKeyholder: Driver._ask_keyholder,
    Save: Driver._save,
    Store: Driver._store,
    Connect: Driver._connect,
    Disconnect: Driver._disconnect,
    Reply: Driver._reply,
    Publish: Driver._publish,
}
