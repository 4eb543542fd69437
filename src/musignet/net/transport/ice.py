"""One hole through two NATs: aioice's connection, with bounds on what it sends where, and direct paths first."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar, cast

import aioice
from aioice import stun, turn
from aioice.candidate import Candidate as IceCandidate
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol, server_reflexive_candidate

from ... import limits as bounds
from ...errors import ConnectionError, Timeout
from ...limits import Limits
from ...wire.candidates import Candidate, Kind, Network, Signal, reason_against, screen
from ..nat import Servers, TurnServer
from .turn import MALFORMED, allocate, resolve

__all__ = ["Hole"]

_T = TypeVar("_T")
_COMPONENT = 1
_STUN_OR_CHANNEL = 0x40


class _Socket(StunProtocol):
    """A socket that hears nothing but checks from strangers, and is not put out by a malformed one."""

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        hole = cast("Hole", self.receiver)
        try:
            if data and cast(int, data[0]) >= _STUN_OR_CHANNEL and not hole.knows(addr):
                return
            super().datagram_received(data, addr)
        except MALFORMED:
            pass


class Hole(aioice.Connection):
    """One attempt to reach a peer, and then the path that it found.

    Args:
        controlling: whether this side made the offer.
        sockets:     our own addresses to try from, the likeliest first.
        ours:        the networks of our own interfaces (see `reason_against`).
        direct_only: the peer's TURN servers are not used either.
    """

    def __init__(
        self,
        controlling: bool,
        servers: Servers,
        sockets: Sequence[str],
        ours: Sequence[Network],
        limits: Limits,
        *,
        direct_only: bool = False,
    ) -> None:
        super().__init__(ice_controlling=controlling)
        self.on_datagram: Callable[[bytes], None] | None = None
        self.on_gone: Callable[[], None] | None = None
        self._servers = servers
        self._sockets = sockets[: bounds.ICE_SOCKETS_MAX]
        self._ours = ours
        self._limits = limits
        self._direct_only = direct_only
        self._early: list[bytes] = []
        self._relays: list[StunProtocol] = []
        self._held: list[IceCandidate] = []

    # --- our own addresses --------------------------------------------------------------------------------------------

    async def gather(self) -> tuple[Candidate, ...]:
        """Return where this side may be reached. What a server does not say within `ice_gather_s` is left out."""
        await self.gather_candidates()
        kinds = {"host": Kind.HOST, "srflx": Kind.SRFLX, "relay": Kind.RELAY}
        found: dict[tuple[str, int], Candidate] = {}
        for one in self.local_candidates:
            if one.port >= 1024:
                found.setdefault((one.host, one.port), Candidate.of(kinds[one.type], one.host, one.port))
        return tuple(found.values())[: bounds.ICE_CANDIDATES_MAX]

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109  (aioice's own signature)
    ) -> list[IceCandidate]:
        """What aioice's `gather_candidates` calls, with our own bounds: all in parallel, and one deadline."""
        sockets = [one for one in [await self._bind(host) for host in self._sockets] if one is not None]
        self._protocols += sockets
        work: list[Coroutine[Any, Any, list[IceCandidate]]] = [
            self._reflexive(one) for one in sockets if ip_address(one.local_candidate.host).version == 4
        ]
        work.append(self._relay())
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            await self._answered(tasks)
        finally:
            answers = await _end(tasks)
        return [one.local_candidate for one in sockets] + list(itertools.chain.from_iterable(answers))

    async def _answered(self, tasks: Sequence[asyncio.Future[list[IceCandidate]]]) -> None:
        """Wait for all, `ice_gather_s` at most. Once TURN has answered, the last task, STUN has little time left."""
        began = asyncio.get_running_loop().time()
        await asyncio.wait(tasks[-1:], timeout=self._limits.ice_gather_s)
        left_s = began + self._limits.ice_gather_s - asyncio.get_running_loop().time()
        if tasks[-1].done() and not tasks[-1].exception() and tasks[-1].result():
            left_s = min(left_s, self._limits.ice_stun_after_turn_s)
        if left_s > 0:
            await asyncio.wait(tasks, timeout=left_s)

    async def _bind(self, host: str) -> StunProtocol | None:
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.create_datagram_endpoint(lambda: _Socket(self), local_addr=(host, 0))
        except OSError:
            return None
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
        name = transport.get_extra_info("sockname")
        protocol.local_candidate = _ice(Candidate.of(Kind.HOST, name[0], name[1]))
        return protocol

    async def _reflexive(self, one: StunProtocol) -> list[IceCandidate]:
        async def ask(server: tuple[str, int]) -> IceCandidate:
            return (await server_reflexive_candidate(one, await resolve(*server)))[0]

        return (await _first([ask(server) for server in self._servers.stun]))[:1]

    async def _relay(self) -> list[IceCandidate]:
        async def ask(by: str, turn: int, server: TurnServer) -> StunProtocol:
            if turn:
                await asyncio.sleep(turn * self._limits.ice_turn_tcp_after_s)
            protocol = await allocate(server, by, lambda: _Socket(self), self._limits)
            self._relays.append(protocol)  # at once: whatever was lent is given back, also when another came first
            return protocol

        asked = [ask(by, turn, server) for server in self._servers.turn for turn, by in enumerate(server.ways)]
        found = await _first(asked)
        return [one.local_candidate for one in found]

    # --- the checks ---------------------------------------------------------------------------------------------------

    async def punch(self, signal: Signal) -> None:
        """Find a path to the side that sent `signal`, and keep it open: a direct one first, then through TURN.

        Raises: ConnectionError when every check failed, Timeout after `ice_checks_s`.
        """
        self.remote_username, self.remote_password = signal.name, signal.password
        kept = screen(signal.candidates, self._ours)
        self._held = [_ice(one) for one in kept if one.kind == Kind.RELAY]
        for one in kept:
            if one.kind != Kind.RELAY:
                await self.add_remote_candidate(_ice(one))
        wait_s = self._limits.ice_direct_s
        if self._direct_only:
            wait_s = self._limits.ice_checks_s
        elif not (self._relays or self._held):
            wait_s = 0
        timer = asyncio.get_running_loop().call_later(wait_s, self._use_turn)
        try:
            async with asyncio.timeout(self._limits.ice_checks_s):
                await self.connect()
        except TimeoutError:
            raise Timeout(f"no path opened within {self._limits.ice_checks_s:g} s", hint=_NO_PATH_HINT) from None
        except OSError as error:
            raise ConnectionError(f"no path opened: {error}", hint=_NO_PATH_HINT) from None
        finally:
            timer.cancel()

    def _use_turn(self) -> None:
        """Nothing direct has opened: from here on the lent addresses are checked as well, ours and the peer's."""
        self._protocols += self._relays
        self._relays = []
        for known in list(self._remote_candidates):
            self._pair_remote_candidate(known)
        held, self._held = self._held, []
        for one in held:
            self._add_remote_candidate(one, one.host)
        self.sort_check_list()
        self._remote_candidates_end = True
        self._end_remote_candidates()

    def _pair_remote_candidate(self, remote_candidate: IceCandidate) -> None:
        if len(self._check_list) < bounds.ICE_PAIRS_MAX:
            super()._pair_remote_candidate(remote_candidate)

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """A check that showed our password. Where it comes from is a candidate like any other, and as bounded."""
        if any((one.host, one.port) == addr for one in self._held):
            return  # TURN's turn comes later
        if not self.knows(addr) and not self._may_learn(addr):
            return
        super().check_incoming(message, addr, protocol)

    def _may_learn(self, addr: tuple[str, int]) -> bool:
        same = sum(one.host == addr[0] for one in self._remote_candidates)
        if addr[1] < 1024 or same >= bounds.ICE_PER_HOST_MAX or len(self._check_list) >= bounds.ICE_PAIRS_MAX:
            return False
        return not reason_against(Candidate.of(Kind.SRFLX, *addr), self._ours)

    def knows(self, addr: tuple[Any, ...]) -> bool:
        """Return whether a peer said, or a check with our password showed, that it is at this address."""
        return any(one.host == addr[0] and one.port == addr[1] for one in self._remote_candidates)

    # --- the path -----------------------------------------------------------------------------------------------------

    @property
    def _path(self) -> CandidatePair | None:
        return self._nominated.get(_COMPONENT)

    @property
    def relayed(self) -> bool:
        """Whether the path goes through a TURN server."""
        path = self._path
        return path is not None and "relay" in (path.local_candidate.type, path.remote_candidate.type)

    @property
    def address(self) -> str:
        """Where the peer is, as `host:port`."""
        path = self._path
        return "" if path is None else f"{path.remote_addr[0]}:{path.remote_addr[1]}"

    def push(self, data: bytes) -> None:
        """Send a datagram. Without a path it is dropped."""
        path = self._path
        if path is not None:
            path.protocol.transport.sendto(data, path.remote_addr)

    def data_received(self, data: bytes, component: int) -> None:
        """A datagram that is no STUN. The first ones wait for `deliver_to`."""
        if self.on_datagram is not None:
            self.on_datagram(data)
        elif len(self._early) < bounds.ICE_EARLY_DATAGRAMS_MAX:
            self._early.append(data)

    def deliver_to(self, on_datagram: Callable[[bytes], None], on_gone: Callable[[], None]) -> None:
        """From here on datagrams go to `on_datagram`; `on_gone` hears, once, that the path is lost."""
        self.on_datagram, self.on_gone = on_datagram, on_gone
        early, self._early = self._early, []
        for data in early:
            on_datagram(data)

    def protocol_lost(self, protocol: StunProtocol) -> None:
        """A socket, or a TURN allocation, ended."""
        path = self._path
        if path is not None and path.protocol is protocol:
            self._gone()

    def _gone(self) -> None:
        on_gone, self.on_gone = self.on_gone, None
        self.on_datagram = None
        if on_gone is not None:
            on_gone()

    async def close(self) -> None:
        """Give everything back. Called by aioice itself when the other side answers no more checks."""
        self._gone()
        self._protocols += self._relays
        self._relays = []
        await super().close()


_NO_PATH_HINT = "both sides may need a TURN server: see [nat] in config.toml"


def _ice(candidate: Candidate) -> IceCandidate:
    """Return aioice's form. Priority and foundation follow from the kind: a peer does not choose them."""
    kind = Kind(candidate.kind).name.lower()
    host = str(candidate.address)
    return IceCandidate(
        foundation=candidate_foundation(kind, "udp", host),
        component=_COMPONENT,
        transport="udp",
        priority=candidate_priority(_COMPONENT, kind),
        host=host,
        port=candidate.port,
        type=kind,
    )


async def _first(work: Sequence[Awaitable[_T]]) -> list[_T]:
    """Return what came first, with whatever came in the same turn of the loop; nothing when all failed."""
    tasks = [asyncio.ensure_future(one) for one in work]
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if good := [one.result() for one in done if one.exception() is None]:
                return good
        return []
    finally:
        await _end(list(waiting))


async def _end(tasks: Sequence[asyncio.Future[_T]]) -> list[_T]:
    """Cancel what still runs, and return what is there."""
    for one in tasks:
        one.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    return [one for one in ended if not isinstance(one, BaseException)]
