"""Several carriers as one: who dials what, which dial wins, what becomes of the others, what is said when none does."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from endpoints import Recorder, Signal, aio, all_of, turns

from musignet.errors import ConnectionError, IoError, NetworkError, PeerNotFound, Timeout, TransportError
from musignet.limits import DIAL_STAGGER_S, DIALS_PER_PEER_MAX
from musignet.net.transport import Carriers, MemoryNetwork, MemoryTransport, Transport
from musignet.net.transport.base import Connection, Dials
from musignet.net.transport.carriers import Unreachable
from musignet.node.addresses import Address, parse_address
from support.keys import ALICE, BOB, CAROL

KEY = BOB.pubkey_hex


class Fake(Signal):
    """A carrier whose dials end as the test says, by host. It keeps in which order they began."""

    def __init__(self, fails: dict[str, NetworkError] | None = None) -> None:
        super().__init__()
        self.fails = fails or {}
        self.began: list[tuple[str, float]] = []
        self.open: dict[str, asyncio.Future[Connection]] = {}
        self.dropped: list[str] = []
        self.running: list[str] = []

    async def start(self) -> None:
        self.running.append("start")

    async def stop(self) -> None:
        self.running.append("stop")

    async def connect(self, peer: str, host: str, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        self.began.append((host, loop.time()))
        self.poke()
        if host in self.fails:
            raise self.fails[host]
        self.open[host] = loop.create_future()
        try:
            return await self.open[host]
        except asyncio.CancelledError:
            self.dropped.append(host)
            raise

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.began]


def places(*texts: str) -> list[Address]:
    return [parse_address(text) for text in texts]


def one(fake: Any) -> Carriers:
    return Carriers(ALICE, Recorder(), {"tcp": fake})


LINK: Any = object()


@aio
async def test_the_next_address_is_dialled_a_stagger_later_and_the_first_open_link_wins() -> None:
    fake = Fake()
    reaching = asyncio.ensure_future(one(fake).reach(KEY, places("c.example:1", "10.0.0.1:1", "b.example:1")))
    await fake.until(lambda: len(fake.began) == 3)
    assert fake.hosts == ["10.0.0.1", "c.example", "b.example"], "the best rank first, then in the order given"
    times = [at for _, at in fake.began]
    assert all(later - earlier >= DIAL_STAGGER_S - 0.01 for earlier, later in pairwise(times))
    fake.open["c.example"].set_result(LINK)
    assert (await reaching).link is LINK
    assert sorted(fake.dropped) == ["10.0.0.1", "b.example"]


@aio
async def test_an_address_that_fails_at_once_costs_no_stagger() -> None:
    fake = Fake({"a": ConnectionError("refused"), "b": ConnectionError("refused")})
    reaching = asyncio.ensure_future(one(fake).reach(KEY, places("a:1", "b:1", "c:1")))
    await fake.until(lambda: len(fake.began) == 3)
    assert fake.began[2][1] - fake.began[0][1] < DIAL_STAGGER_S / 2
    fake.open["c"].set_result(LINK)
    assert (await reaching).link is LINK


@aio
async def test_a_good_address_that_answers_in_time_is_not_raced() -> None:
    fake = Fake()
    reaching = asyncio.ensure_future(one(fake).reach(KEY, places("a:1", "b:1")))
    await fake.until(lambda: fake.began)
    fake.open["a"].set_result(LINK)
    assert (await reaching).link is LINK
    assert fake.hosts == ["a"]


@aio
async def test_only_so_many_dials_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("musignet.net.transport.carriers.DIAL_STAGGER_S", 0.0)
    fake = Fake()
    reaching = asyncio.ensure_future(one(fake).reach(KEY, places(*(f"h{n}:1" for n in range(8)))))
    await fake.until(lambda: len(fake.began) == DIALS_PER_PEER_MAX)
    await turns(50)
    assert len(fake.began) == DIALS_PER_PEER_MAX
    fake.open["h1"].set_exception(Timeout("silence"))
    await fake.until(lambda: len(fake.began) == DIALS_PER_PEER_MAX + 1)
    reaching.cancel()
    assert isinstance((await all_of(reaching))[0], asyncio.CancelledError)
    assert sorted(fake.dropped) == ["h0", "h2", "h3"], "whoever gives up leaves no dial behind"


@aio
async def test_where_none_answers_one_error_names_every_address_and_its_reason() -> None:
    fake = Fake({"a": ConnectionError("refused"), "b": Timeout("silence")})
    with pytest.raises(Unreachable) as caught:
        await one(fake).reach(KEY, places("a:1", "b:2", "tls://c:3"))
    assert isinstance(caught.value, ConnectionError)
    for part in ("a:1: refused", "b:2: silence", "tls://c:3: this node has no carrier for tls:"):
        assert part in str(caught.value)
    assert list(caught.value.failures) == ["a:1", "b:2", "tls://c:3"]


@aio
async def test_the_longest_reasons_of_the_most_addresses_are_all_there() -> None:
    fails = {f"h{n}": ConnectionError("x" * 500) for n in range(8)}
    with pytest.raises(Unreachable) as caught:
        await one(Fake(fails)).reach(KEY, places(*(f"{host}:1" for host in fails)))
    assert all(f"{host}:1: xxx" in str(caught.value) for host in fails)
    assert len(str(caught.value)) < 2_000


@aio
async def test_the_error_of_a_single_address_is_its_own() -> None:
    error = Timeout("silence")
    with pytest.raises(Timeout) as caught:
        await one(Fake({"a": error})).reach(KEY, places("a:1"))
    assert caught.value is error


@aio
async def test_a_carrier_that_knows_its_addresses_gets_the_whole_one() -> None:
    class Relay(Fake):
        async def dial(self, peer: str, address: Address) -> Connection:
            self.began.append((address.text, 0))
            return LINK  # type: ignore[no-any-return]

    relay: Any = Relay()
    assert isinstance(relay, Dials)
    assert not isinstance(Fake(), Dials)
    carriers = Carriers(ALICE, Recorder(), {"tcp": Fake(), "wss": relay, "ws": relay})  # type: ignore[dict-item]
    assert (await carriers.reach(KEY, places("wss://relay.example/box"))).link is LINK
    assert relay.hosts == ["wss://relay.example/box"]
    await carriers.start()
    assert relay.running == ["start"], "once, though it stands under two schemes"


@aio
async def test_where_one_does_not_start_none_runs() -> None:
    class Broken(Fake):
        async def start(self) -> None:
            raise IoError("the port is taken")

    good: Any = Fake()
    broken: Any = Broken()
    with pytest.raises(IoError, match="the port is taken"):
        await Carriers(ALICE, Recorder(), {"tcp": good, "tls": broken}).start()
    assert good.running == ["start", "stop"]


@aio
async def test_together_they_are_a_transport() -> None:
    """Two real carriers, a peer on each; what is said to a peer goes to whoever has it."""
    one, other = MemoryNetwork(), MemoryNetwork()
    bob, carol = Recorder(), Recorder()
    far = [
        MemoryTransport(BOB, bob, "here", 1, network=one),
        MemoryTransport(CAROL, carol, "there", 1, network=other),
    ]
    sink = Recorder()
    made = {"tcp": MemoryTransport(ALICE, sink, network=one), "tls": MemoryTransport(ALICE, sink, network=other)}
    carriers = Carriers(ALICE, sink, made)
    assert isinstance(carriers, Transport)
    for transport in (*far, carriers):
        await transport.start()
    with pytest.raises(PeerNotFound, match="connect first"):
        await carriers.send(KEY, b"x")
    link = await carriers.connect(KEY, "here", 1)
    assert link.peer == BOB.public
    await carriers.reach(CAROL.pubkey_hex, places("nobody:1", "tls://there:1"))
    assert carriers.connected_peers() == [KEY, CAROL.pubkey_hex]
    await carriers.send(CAROL.pubkey_hex, b"hers")
    assert await carriers.broadcast(b"all") == 2
    await carol.hears("received", 2)
    await bob.hears("received")
    assert (bob.envelopes, carol.envelopes) == ([b"all"], [b"hers", b"all"])
    await carriers.disconnect(KEY)
    await bob.hears("closed")
    assert not carriers.is_connected(KEY)
    assert carriers.is_connected(CAROL.pubkey_hex)
    for transport in (carriers, *far):
        await transport.stop()


@aio
async def test_a_carrier_that_is_not_there_is_a_typed_error() -> None:
    with pytest.raises(TransportError, match="no carrier for ice:"):
        await one(Fake()).reach(KEY, places("ice:"))
