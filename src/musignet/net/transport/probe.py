"""One question to a STUN or TURN server, for `musignet doctor`: does it answer, and what does it say?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from aioice import stun
from aioice.ice import StunProtocol

from ...errors import ConnectionError, NetworkError, Timeout
from ...limits import Limits
from ..nat import Servers, TurnServer
from ..oserror import spoken
from .ice import Hole
from .turn import MALFORMED, allocate, resolve

__all__ = ["Seen", "ask_stun", "ask_turn"]

Seen = tuple[str, int]
"""An address as a server sees it."""


async def ask_stun(servers: Sequence[tuple[str, int]], within_s: float) -> list[Seen | NetworkError]:
    """Return how each server sees one and the same socket of this machine, or why it does not say.

    Two servers that see different ports stand for a NAT that no hole is punched through (RFC 4787 "symmetric").
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(_Questions, local_addr=("0.0.0.0", 0))
    try:
        return await asyncio.gather(*(protocol.ask(server, within_s) for server in servers))
    finally:
        transport.close()


class _Questions(asyncio.DatagramProtocol):
    """A socket that asks, and takes an answer from whom it asked only."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, str], asyncio.Future[stun.Message]] = {}
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            message = stun.parse_message(data)
        except MALFORMED:
            return
        waiting = self._waiting.get((message.transaction_id, addr[0]))
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def ask(self, server: tuple[str, int], within_s: float) -> Seen | NetworkError:
        try:
            async with asyncio.timeout(within_s):
                return _mapped(await self._answer(await resolve(*server)))
        except TimeoutError:
            return Timeout(f"no answer within {within_s:g} s", hint="is UDP let out, and is it a STUN server?")
        except (OSError, ValueError) as error:  # the latter of a name that cannot be looked up
            return ConnectionError(spoken(error))

    async def _answer(self, place: tuple[str, int]) -> stun.Message:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[request.transaction_id, place[0]] = waiting
        pause_s = stun.RETRY_RTO
        while not waiting.done():
            self._transport.sendto(bytes(request), place)
            await asyncio.wait((waiting,), timeout=pause_s)
            pause_s *= 2
        answer: stun.Message = waiting.result()
        return answer


def _mapped(answer: stun.Message) -> Seen | NetworkError:
    seen = answer.attributes.get("XOR-MAPPED-ADDRESS")
    if answer.message_class != stun.Class.RESPONSE or seen is None:
        return ConnectionError("it answers, and names no address", hint="is it a STUN server?")
    return str(seen[0]), int(seen[1])


async def ask_turn(server: TurnServer, by: str, limits: Limits) -> Seen:
    """Return an address that the server lends, over one of its `ways`; it is given back at once.

    Raises: Timeout, and ConnectionError with what the server answered: a wrong password reads `401`.
    """
    nobody = Hole(True, Servers(), (), (), limits)
    try:
        async with asyncio.timeout(limits.ice_gather_s):
            lent = await allocate(server, by, lambda: StunProtocol(nobody), limits)
    except TimeoutError:
        raise Timeout(f"no answer within {limits.ice_gather_s:g} s") from None
    except (OSError, ValueError) as error:
        raise ConnectionError(spoken(error)) from None
    except stun.TransactionError as error:
        raise ConnectionError(str(error)) from None
    seen = lent.local_candidate.host, lent.local_candidate.port
    await lent.close()
    return seen
