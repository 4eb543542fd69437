"""Whole ceremonies over TCP that a seeded proxy harms: where the fault permits all complete, and all end in a word.

`make chaos SEEDS=200` runs more seeds. A seed draws the sizes at which faults strike; the moments are the machine's.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final, cast

import pytest
from chaos_party import GROUP, Party, chaos, coins
from endpoints import CARRIERS, Carrier, aio, turns

from musignet.signing.effects import End
from musignet.signing.records import Topology
from support.chaos_proxy import PASSING, ChaosProxy, DatagramChaos, Fault, Harm, harms

pytestmark = pytest.mark.driver

SEEDS: Final = int(os.environ.get("MUSIGNET_CHAOS_SEEDS", "2"))
FIRST: Final = int(os.environ.get("MUSIGNET_CHAOS_FIRST", "1"))
HARMFUL: Final = [fault for fault in Fault if fault is not Fault.NONE]
TOPOLOGIES: Final = (Topology.MESH, Topology.STAR)


@pytest.fixture(params=range(FIRST, FIRST + SEEDS), ids="seed {}".format)
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def carrier(seed: int) -> Carrier:
    """Both event loops in turn."""
    return CARRIERS[("tcp", "tcp on uvloop")[seed % 2]]()


def plans(*about: object, **options: object) -> Callable[[str], Callable[[int], Harm]]:
    return lambda pair: harms((*about, pair), **options)  # type: ignore[arg-type]


async def complete(party: Party, count: int, draw: random.Random) -> None:
    """Run so many ceremonies, one after the other, from proposers that the seed draws."""
    for number in range(count):
        proposer = draw.choice(party.members)
        session = await proposer.service.propose(GROUP.id, coins(number), topology=draw.choice(TOPOLOGIES))
        outcomes = [await one.ended(session) for one in party.members]
        assert [one.end for one in outcomes] == [End.COMPLETED] * 3
        assert len({one.transaction.raw for one in outcomes if one.transaction}) == 1
    assert [one.open_sessions for one in party.members] == [0] * 3


@pytest.mark.parametrize("fault", HARMFUL, ids=lambda fault: fault.value)
@aio
async def test_every_session_completes_where_the_fault_permits(
    tmp_path: Path, fault: Fault, seed: int, carrier: Carrier
) -> None:
    """The first connections of each pair are harmed; what does not end them, harms all of them."""
    plan = plans(seed, fault, faults=[fault], until=3)
    async with chaos(tmp_path, plan, both_ways=fault is Fault.DUPLICATE) as party:
        await complete(party, 2, random.Random(seed))
        assert party.fired[fault] > 0


@aio
async def test_every_session_completes_under_all_faults_at_once(tmp_path: Path, seed: int, carrier: Carrier) -> None:
    async with chaos(tmp_path, plans(seed, faults=HARMFUL, until=4), both_ways=seed % 2 == 0) as party:
        await complete(party, 2, random.Random(seed))
        assert party.fired.total() > 0


@aio
async def test_every_session_ends_in_a_typed_state_under_faults_that_do_not_end(
    tmp_path: Path, seed: int, carrier: Carrier
) -> None:
    """Links die for ever, some after a few bytes: whoever knows of a session hears how it ended, in time."""
    lethal = [Fault.RESET, Fault.HALF_CLOSE, Fault.BLACK_HOLE]
    draw = random.Random(seed)
    async with chaos(tmp_path, plans(seed, faults=lethal, bytes_max=draw.choice((300, 3000, 30_000)))) as party:
        sessions = [
            await one.service.propose(GROUP.id, coins(number), expires_in_s=1.5, topology=draw.choice(TOPOLOGIES))
            for number, one in enumerate(party.members)
        ]
        for one, session in zip(party.members, sessions, strict=True):
            await one.ended(session)
        for one in party.members:
            await one.until(lambda one=one: not one.open_sessions)  # type: ignore[misc]
            for outcome in one.outcomes.values():
                assert outcome.end in (End.COMPLETED, End.EXPIRED, End.SILENT, End.ABORTED)
                assert outcome.verdict is None, "nobody is blamed for the network"
        signed = [one.outcomes[session].transaction for session in sessions for one in party.members
                  if session in one.outcomes and one.outcomes[session].end is End.COMPLETED]  # fmt: skip
        assert len({one.txid_hex for one in signed if one}) <= len(sessions)


# --- the proxy itself -------------------------------------------------------------------------------------------------


class _Echo(asyncio.Protocol):
    """Says everything back, in as many writes as it came in reads."""

    reads: ClassVar[list[int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.reads.append(len(data))
        self._stream.write(data)


SAID: Final = bytes(range(200))
HARMED: Final[dict[Fault, tuple[bytes, type[BaseException] | None]]] = {
    Fault.NONE: (SAID, None),
    Fault.DELAY: (SAID, None),
    Fault.SPLIT: (SAID, None),
    Fault.DUPLICATE: (SAID, None),
    Fault.RESET: (b"", ConnectionResetError),
    Fault.HALF_CLOSE: (SAID[:50], None),
    Fault.BLACK_HOLE: (b"", TimeoutError),
}
"""What comes back of what was said when the fault strikes after 50 bytes, and how reading ends."""


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
@aio
async def test_the_proxy_does_what_the_fault_says(fault: Fault) -> None:
    _Echo.reads.clear()
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    expected, error = HARMED[fault]
    async with server, ChaosProxy(target, lambda _: Harm(fault, 50, to_target=True, delay_s=0.01)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(SAID)
        got, ended = b"", None
        try:
            while len(got) < len(expected) or error is not None:
                async with asyncio.timeout(0.2):
                    piece = await reader.read(len(SAID))
                if not piece:
                    break
                got += piece
        except (ConnectionResetError, TimeoutError) as raised:
            ended = type(raised)
        assert (got if fault is not Fault.RESET else b"", ended) == (expected, error)
        assert proxy.fired[fault] == 1
        assert sum(_Echo.reads) == {Fault.DUPLICATE: 400}.get(fault, 200 if error is None and expected == SAID else 50)
        if fault is Fault.SPLIT:
            assert len(_Echo.reads) > 100, "one byte, seldom two"
        writer.transport.abort()
    await turns()


def test_a_seed_harms_the_same_connections_alike() -> None:
    first, again, other = ([harms(seed, list(Fault), until=6)(number) for number in range(40)] for seed in (1, 1, 2))
    assert first == again != other
    assert {harm.fault for harm in first[6:]} <= PASSING


@aio
async def test_datagrams_are_lost_doubled_held_back_and_cut_by_the_seed() -> None:
    def run(seed: int) -> tuple[list[bytes], Counter[str]]:
        chaos = DatagramChaos(9, seed, lost=0.2, doubled=0.2, late=0.2, cut=0.2)
        out: list[bytes] = []
        chaos._stream = cast(Any, SimpleNamespace(sendto=lambda data, to: out.append(data)))
        for number in range(200):
            chaos.datagram_received(bytes((number,)) * 4, ("127.0.0.1", 7))
        return out, chaos.fired

    (first, fired), again, (other, _) = run(1), run(1), run(2)
    assert (first, fired) == again
    assert first != other
    assert set(fired) == {"passed", "lost", "doubled", "late", "cut"}
    whole = Counter(data[0] for data in first if len(data) == 4)
    assert sum(count == 2 for count in whole.values()) == fired["doubled"]
    assert sum(len(data) < 4 for data in first) == fired["cut"]
    assert 200 - fired["lost"] - 1 <= len(first) - fired["doubled"] <= 200 - fired["lost"], "the last may be held back"
    order = [data[0] for data in first if len(data) == 4]
    assert order != sorted(order)


@aio
async def test_datagrams_pass_both_ways() -> None:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.stream = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.stream.sendto(data[::-1], addr)

    class Asker(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            answers.put_nowait(data)

    loop = asyncio.get_running_loop()
    echo, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    async with DatagramChaos(echo.get_extra_info("sockname")[1], 1, lost=0, doubled=0, late=0) as chaos:
        asker, _ = await loop.create_datagram_endpoint(Asker, remote_addr=("127.0.0.1", chaos.port))
        asker.sendto(b"abc")
        async with asyncio.timeout(5):
            assert await answers.get() == b"cba"
        asker.close()
        echo.close()
    await turns()
