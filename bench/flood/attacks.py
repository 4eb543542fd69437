"""What is done to the victim: coroutines that attack, connection after connection, from addresses of their own.

The tests run the same attacks for a moment. Every attacker knows the victim's key, which a stranger need not even have.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from contextlib import suppress
from secrets import token_bytes
from typing import ClassVar, Final

from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey
from musignet.errors import NetworkError
from musignet.signing.group import SigningGroup
from musignet.signing.records import TransactionProposal, encode, session_id
from musignet.wire.channel import CloseReceived, SecureChannel
from musignet.wire.envelope import Message
from musignet.wire.messages import CloseCode, MessageType, PeerAnnouncement, Ping
from musignet.wire.noise import Initiator

from ..ceremony.wallet import CHAIN, group_of, identity, spend

__all__ = [
    "ActOneThenSilence", "Attack", "BadActOne", "BadSignatures", "ConnectOnly", "LongLines", "MemberSpam",
    "Proposals", "SlowReaders", "Strangers", "address", "duel", "member",
]  # fmt: skip

_POOL: Final = 256
"""First acts made ahead, so that it is the victim's work that is measured."""
_FIRST_MEMBER: Final = 1000
_READ_BYTES: Final = 65_536
_ESCAPES: Final = "\x1b[2J\x1b]0;owned\x07\u202e"
"""What would move the cursor and forge a line, were it printed as it came."""


def member(number: int) -> Identity:
    """Return one of those whom the victim has in its book."""
    return identity(_FIRST_MEMBER + number)


def duel(victim: PublicKey) -> SigningGroup:
    """Return a group of the victim, with the wallet key 0, and the first of the members."""
    return group_of([(victim.compressed, 0), (member(0).pubkey, 1)])


_SYSTEM: Final = random.SystemRandom()


def address(draw: random.Random = _SYSTEM) -> str:
    """Return an address of this machine that hardly anybody has used."""
    return f"127.{draw.randrange(1, 255)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


class Attack:
    """One flood.

    Args: the victim's port on the loopback and key; `seed` draws addresses.
    """

    slots: int = 256
    """Connections at once."""
    members: ClassVar[int] = 0
    """How many of the attackers are in the victim's book, one slot each. 0: all are strangers."""

    def __init__(self, port: int, victim: PublicKey, seed: object = 0) -> None:
        self.count = 0
        self._at = ("127.0.0.1", port)
        self._victim = victim
        self._draw = random.Random(str(seed))

    async def run(self, most: int | None = None) -> None:
        """Attack until cancelled, or `most` times at least."""
        slots = self.members or self.slots if most is None else min(most, self.members or self.slots)
        await asyncio.gather(*(self._slot(number, most) for number in range(slots)))

    async def _slot(self, number: int, most: int | None) -> None:
        loop = asyncio.get_running_loop()
        while most is None or self.count < most:
            with socket.socket() as one, suppress(OSError, NetworkError, EOFError):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._prepare(one)
                one.bind((address(self._draw), 0))
                await loop.sock_connect(one, self._at)
                self._attacked(1)
                await self._attack(one, number)

    def _attacked(self, times: int) -> None:
        self.count += times

    def _prepare(self, one: socket.socket) -> None:
        """Set what must be set before connecting."""

    async def _attack(self, one: socket.socket, number: int) -> None:
        """Do it, once. Returning closes the connection; OSError and NetworkError are its end."""
        raise NotImplementedError


async def _until_closed(one: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(one, _READ_BYTES):
        pass


class ConnectOnly(Attack):
    """Connects, and says nothing."""

    async def _attack(self, one: socket.socket, number: int) -> None:
        await _until_closed(one)


class _ActOne(Attack):
    """Sends a first act made ahead, and nothing more."""

    def __init__(self, port: int, victim: PublicKey, seed: object = 0) -> None:
        super().__init__(port, victim, seed)
        to = self._dialled()
        self._acts = [Initiator(member(0), to, token_bytes(32)).act_one() for _ in range(_POOL)]

    def _dialled(self) -> PublicKey:
        return self._victim

    async def _attack(self, one: socket.socket, number: int) -> None:
        await asyncio.get_running_loop().sock_sendall(one, self._draw.choice(self._acts))
        await _until_closed(one)


class BadActOne(_ActOne):
    """For another key: the point is one, so that the victim multiplies it before it sees that the MAC is wrong."""

    def _dialled(self) -> PublicKey:
        return member(0).public


class ActOneThenSilence(_ActOne):
    """Is answered with act two, and lets the victim wait for act three."""


class _Line:
    """An attacker's end of an open channel."""

    def __init__(self, one: socket.socket, channel: SecureChannel) -> None:
        self._one = one
        self._loop = asyncio.get_running_loop()
        self.channel = channel

    async def flush(self) -> None:
        while self.channel.pending:
            await self._loop.sock_sendall(self._one, b"".join(self.channel.data_to_send()))

    async def read(self) -> None:
        """Take what came. Raises EOFError at the end, and after a close notice."""
        data = await self._loop.sock_recv(self._one, _READ_BYTES)
        if not data:
            raise EOFError
        self.channel.receive_data(data)
        while events := self.channel.next_events():
            if any(isinstance(event, CloseReceived) for event in events):
                raise EOFError

    async def read_on(self) -> None:
        """Read until the end."""
        with suppress(EOFError, OSError):
            while True:
                await self.read()

    async def open(self) -> None:
        """Shake hands."""
        await self.flush()
        while not self.channel.established:
            await self.read()
        await self.flush()


class Strangers(Attack):
    """Finish the handshake with keys that nobody knows."""

    slots = 64

    async def _attack(self, one: socket.socket, number: int) -> None:
        line = _Line(one, SecureChannel.initiator(member(-number - 1), self._victim, token_bytes(32)))
        await line.open()
        await line.read_on()


class _Members(Attack):
    """They are in the book: each has one link, announces itself, and then does `_misuse` on it."""

    members: ClassVar[int] = 1

    def __init__(self, port: int, victim: PublicKey, seed: object = 0) -> None:
        super().__init__(port, victim, seed)
        self._epoch = token_bytes(8)
        self._numbers = [0] * self.members

    async def _attack(self, one: socket.socket, number: int) -> None:
        line = _Line(one, SecureChannel.initiator(member(number), self._victim, token_bytes(32)))
        await line.open()
        hello = PeerAnnouncement(self._label(number), (), (), self._epoch, b"", 0)
        line.channel.send(self._signed(number, MessageType.PEER_ANNOUNCEMENT, hello))
        await line.flush()
        await self._misuse(line, number)

    def _label(self, number: int) -> str:
        return f"member {number}"

    def _signed(self, number: int, kind: MessageType, payload: bytes | PeerAnnouncement | Ping) -> bytes:
        return self._sign(number, Message(kind, self._label(number), payload), self._victim.compressed)

    def _sign(self, number: int, message: Message, to: bytes) -> bytes:
        self._numbers[number] += 1
        return message.sign(member(number), to=to, seq=self._numbers[number], epoch=self._epoch, chain=CHAIN).raw

    async def _misuse(self, line: _Line, number: int) -> None:
        raise NotImplementedError


class MemberSpam(_Members):
    """Valid messages, as many as the socket takes."""

    batch: ClassVar[int] = 32

    async def _misuse(self, line: _Line, number: int) -> None:
        reading = asyncio.ensure_future(line.read_on())
        try:
            while not reading.done():
                for _ in range(self.batch):
                    line.channel.send(self._message(number))
                self._attacked(self.batch)
                await line.flush()
                await asyncio.sleep(0)
        finally:
            reading.cancel()

    def _message(self, number: int) -> bytes:
        return self._signed(number, MessageType.CHAT, bytes(300))


class Proposals(MemberSpam):
    """Valid proposals, to a wallet of the attacker and the victim alone (`duel`), each a session of its own."""

    batch: ClassVar[int] = 4

    def __init__(self, port: int, victim: PublicKey, seed: object = 0) -> None:
        super().__init__(port, victim, seed)
        self._group = duel(victim)
        self._psbts = [spend(self._group, 1, number).psbt for number in range(16)]

    def _message(self, number: int) -> bytes:
        expires_ms = int(1000 * (time.time() + 3600))
        psbt = self._psbts[self.count % len(self._psbts)]
        record = TransactionProposal(self._group.id, token_bytes(32), expires_ms, psbt, "")
        session = session_id(member(number).pubkey, record)
        message = Message(MessageType.TRANSACTION_PROPOSAL, self._label(number), encode(record), session=session)
        return self._sign(number, message, self._group.id)


class BadSignatures(_Members):
    """A message whose signature does not hold; then the same on the next link."""

    async def _misuse(self, line: _Line, number: int) -> None:
        raw = self._signed(number, MessageType.CHAT, bytes(300))
        line.channel.send(bytes((raw[0] ^ 1,)) + raw[1:])
        await line.flush()
        await line.read_on()


class SlowReaders(_Members):
    """Ask and ask, and never read an answer."""

    members: ClassVar[int] = 16
    batch: ClassVar[int] = 32

    def _prepare(self, one: socket.socket) -> None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    async def _misuse(self, line: _Line, number: int) -> None:
        while True:
            for _ in range(self.batch):
                line.channel.send(self._signed(number, MessageType.PING, Ping(self._numbers[number])))
            self._attacked(self.batch)
            await line.flush()
            await asyncio.sleep(0)


class LongLines(_Members):
    """Give the victim as much to write into its log as they can: labels, faults and goodbyes of control characters."""

    members: ClassVar[int] = 16

    def _label(self, number: int) -> str:
        return (_ESCAPES * 9)[:60] + f" {number}"

    async def _misuse(self, line: _Line, number: int) -> None:
        if self._draw.random() < 0.5:
            line.channel.send(self._signed(number, MessageType.ERROR, (_ESCAPES * 300).encode()[:4000]))
            line.channel.send(b"\xff" * 90_000)
        else:
            line.channel.close(CloseCode.FAULT, (_ESCAPES * 20)[:140])
        await line.flush()
        await line.read_on()
