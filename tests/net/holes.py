"""The carrier through holes, for the conformance suite: on loopback, with offers and answers handed over in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from secrets import token_bytes

from endpoints import WAIT_S, NoiseActs, RawEnd, flipped

from musignet.crypto.keys import Identity
from musignet.errors import PeerNotFound
from musignet.limits import Limits
from musignet.net.nat import Servers
from musignet.net.transport.base import Sink
from musignet.net.transport.ice import Hole
from musignet.net.transport.link import ChannelTransport
from musignet.net.transport.punched import PunchedTransport, _own
from musignet.net.transport.quic import Stream
from musignet.wire.candidates import Role, Signal
from support.keys import BOB, CAROL

__all__ = ["PunchedCarrier"]

HERE = ("127.0.0.1/8",)
"""Loopback is no address of ours by itself: a test says that it is."""


class _Transport(PunchedTransport):
    port = 0
    """Who is dialled by key alone listens nowhere."""


class _RawHole(RawEnd):
    """One end of a stream through a hole, without a channel on it."""

    stream: Stream

    def __init__(self, hole: Hole, *, client: bool) -> None:
        super().__init__()
        self.hole = hole
        self._client = client

    async def raise_over(self, signal: Signal) -> None:
        await self.hole.punch(signal)
        self.stream = Stream(asyncio.get_running_loop(), self.hole.push, self, client=self._client)
        self.hole.deliver_to(self.stream.receive, self.stream.lost)
        await self.stream.open(WAIT_S)

    def stream_opened(self) -> None:
        pass

    def stream_data(self, data: bytes) -> None:
        self._arrived(data)

    def stream_room(self, unsent: int) -> None:
        pass

    def stream_ended(self, error: OSError | None) -> None:
        self._end()

    def send(self, data: bytes, *, flip: int | None = None) -> None:
        self.stream.write(flipped(data, flip))

    def close(self) -> None:
        self.stream.finish()


class PunchedCarrier(NoiseActs):
    """Links through holes. A raw end that dials is Carol's: whose offer it was is checked."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    host = "127.0.0.1"
    fill_mib = 8
    bulk_s = 15.0

    def place(self, port: int) -> str:
        """ICE finds the port."""
        return re.escape(self.host) + r":\d+"

    def __init__(self) -> None:
        self._board: dict[str, Callable[[str, bytes], None]] = {}
        self._raw: list[_RawHole] = []
        self._opening: set[asyncio.Task[None]] = set()

    def transport(
        self, identity: Identity, sink: Sink, host: str | None = None, port: int = 0, *, limits: Limits | None = None
    ) -> ChannelTransport:
        key = identity.pubkey_hex
        often = replace(limits or Limits(), ice_offers_pause_s=0.0)
        made = _Transport(
            identity, sink, signal=lambda to, data: self._pass(key, to, data), interfaces=HERE, limits=often
        )
        self._board[key] = made.signalled
        return made

    def _pass(self, source: str, to: str, data: bytes) -> None:
        if to not in self._board:
            raise PeerNotFound("no link to that peer")
        asyncio.get_running_loop().call_soon(self._board[to], source, data)

    def _hole(self, *, client: bool) -> _RawHole:
        hole = Hole(client, Servers(), *_own(HERE), Limits())
        self._raw.append(made := _RawHole(hole, client=client))
        return made

    async def raw_dial(self, target: ChannelTransport) -> RawEnd:
        end = self._hole(client=True)
        answer: asyncio.Future[Signal] = asyncio.get_running_loop().create_future()
        self._board[CAROL.pubkey_hex] = lambda _, data: answer.set_result(Signal.parse_untrusted(data))
        await self._say(CAROL, target.identity.pubkey_hex, Role.OFFER, token_bytes(16), end.hole)
        signal = await answer
        if signal.candidates:
            await end.raise_over(signal)
        else:
            end._end()
        return end

    async def _say(self, source: Identity, to: str, role: Role, attempt: bytes, hole: Hole) -> None:
        candidates = await hole.gather()
        signal = Signal(role, attempt, hole.local_username, hole.local_password, candidates)
        self._pass(source.pubkey_hex, to, signal.encode())

    async def raw_listen(self, accepted: Callable[[RawEnd], None]) -> int:
        async def answer(source: str, offer: Signal) -> None:
            end = self._hole(client=False)
            await self._say(BOB, source, Role.ANSWER, offer.attempt, end.hole)
            await end.raise_over(offer)
            accepted(end)

        def hear(source: str, data: bytes) -> None:
            task = asyncio.get_running_loop().create_task(answer(source, Signal.parse_untrusted(data)))
            self._opening.add(task)

        self._board[BOB.pubkey_hex] = hear
        return 0

    async def unlisten(self) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, *(end.hole.close() for end in self._raw), return_exceptions=True)
        self._raw.clear()
        self._opening.clear()
