"""Relays that others have made, from PyPI and npm (`make relays`): links, letters and ceremonies over each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from endpoints import Recorder, aio, soon
from relays import LocalRelay
from test_cosign_over_relays import GROUP, Cosigner, completed, cosigners
from test_hostile_relay import converse, heard, nodes
from test_letters import Node, _box, chat
from test_relay import SHORT

from musignet.bitcoin.build import build
from musignet.bitcoin.group import RECEIVE, Known
from musignet.bitcoin.transaction import TxOut
from musignet.crypto.keys import Identity
from musignet.errors import Timeout
from musignet.net.transport.relay import RelayTransport
from musignet.net.transport.relayline import RelayLine
from musignet.wire.relaytalk import LETTERS
from support.hostile_relay import BEHAVIOURS, HostileRelay
from support.independent import MAKES, Independent, independent
from support.kernel import RegtestChain
from support.keys import ALICE, BOB, CAROL, secret
from support.wallet import EXTERNAL, psbt

pytestmark = pytest.mark.driver

OURS = "ours"
LARGE = secret("large") * 20_000
"""640 kB: 21 events, more than what may be on its way at once."""


@pytest.fixture(params=MAKES)
def relay(request: pytest.FixtureRequest, relay_by: Callable[[str], Independent]) -> Independent:
    return relay_by(request.param)


# --- each of them alone -----------------------------------------------------------------------------------------------


@aio
async def test_a_link_carries_everything_both_ways_once_and_in_order(relay: Independent) -> None:
    async with nodes(relay.url) as (alice, bob):
        await converse(alice, bob, relay.url)
        await asyncio.gather(alice.send(BOB.pubkey_hex, LARGE), bob.send(ALICE.pubkey_hex, LARGE))
        for node in (alice, bob):
            await heard(node).until(lambda node=node: heard(node).envelopes[-1:] == [LARGE], 15)  # type: ignore[misc]
            assert [line.trouble for line in node.streams.lines] == [""]


@asynccontextmanager
async def alone(identity: Identity, relay: Independent) -> AsyncIterator[RelayTransport]:
    node = RelayTransport(identity, Recorder(), relays=[relay.url], limits=SHORT)
    await node.start()
    await soon(lambda: len(node.streams.lines[0]._reader.read) == 2)
    yield node
    await node.stop()


@aio
async def test_who_is_not_there_is_a_timeout(relay: Independent) -> None:
    async with alone(ALICE, relay) as alice:
        with pytest.raises(Timeout, match="no handshake"):
            await alice.connect(CAROL.pubkey_hex, relay.url, 0)


@aio
async def test_a_node_that_starts_again_is_not_told_again_what_had_passed_live(relay: Independent) -> None:
    """Both relays keep for minutes what they only have to pass on. No more than one such event is asked for; one or two
    may be late.
    """
    async with nodes(relay.url) as (alice, bob):
        await converse(alice, bob, relay.url)
        await alice.send(BOB.pubkey_hex, LARGE)
        await heard(bob).until(lambda: heard(bob).envelopes[-1:] == [LARGE], 15)
        assert len(bob.streams._seen) > 20
    async with alone(BOB, relay) as bob:
        assert len(bob.streams._seen) <= 3


@aio
async def test_letters_wait_there_and_are_read_once(tmp_path: Path, relay: Independent) -> None:
    said = [b"before the dial", LARGE[:60_000]]
    async with Node("alice", tmp_path, [relay.url]) as alice:
        await alice.service.send_message_to("bob", chat(said[0]))
        await alice.dials("bob")
        await alice.service.send_message_to("bob", chat(said[1]))
    async with Node("bob", tmp_path, [relay.url]) as bob:
        await soon(lambda: bob.got == said)
    async with Node("bob", tmp_path, [relay.url]) as bob:
        await bob.service.send_message_to("alice", chat(b"back"))
        await bob.dials("alice")
        await soon(lambda: LETTERS in line(bob)._reader.read)
        assert bob.got == [], "what was handled is not handled again, though the relay still has it"
    async with Node("alice", tmp_path, [relay.url]) as alice:
        await soon(lambda: alice.got == [b"back"] and not alice.waits("bob"))


def line(node: Node) -> RelayLine:
    return _box(node).own_lines[0]  # type: ignore[attr-defined,no-any-return]


# --- together ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def makes(tmp_path: Path, relay_by: Callable[[str], Independent]) -> Iterator[dict[str, LocalRelay | Independent]]:
    """Three relays of three makes. A test may kill them."""
    with ExitStack() as stack:
        for name in MAKES:
            relay_by(name)  # skips where it is not installed
        others = {name: stack.enter_context(independent(name, tmp_path / name)) for name in MAKES}
        yield {OURS: LocalRelay()} | others


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegtestChain]:
    with RegtestChain(tmp_path_factory.mktemp("chain")) as opened:
        yield opened


def payment(chain: RegtestChain) -> bytes:
    """Return a PSBT that spends coins which the group has on this chain."""
    coins = chain.fund(GROUP.wallet.derive(RECEIVE, 0).script, [60_000, 70_000])
    known = Known(utxos=coins, last_index=(7, 3), tip_height=chain.height)
    return build(GROUP.wallet, coins, [TxOut(50_000, EXTERNAL)], fee_rate_sat_vb=2, known=known).serialize()


async def confirmed(chain: RegtestChain, everybody: tuple[Cosigner, ...], session: bytes) -> None:
    outcomes = [await one.outcome() for one in everybody]
    raw = {one.transaction.raw for one in outcomes if one.session == session and one.transaction}
    assert len(raw) == 1
    assert chain.confirmations(chain.confirm(raw.pop())) == 1


def test_three_cosigners_whose_inboxes_are_at_relays_of_three_makes(
    tmp_path: Path, makes: dict[str, LocalRelay | Independent]
) -> None:
    async def main() -> None:
        async with cosigners(tmp_path, *([one.url] for one in makes.values())) as everybody:
            session = await everybody[0].service.propose(GROUP.id, psbt().serialize())
            await completed(everybody, session)

    asyncio.run(main())


@pytest.mark.parametrize("killed", [OURS, *MAKES])
@pytest.mark.parametrize("hostile", ["tells each something else", "wrong signatures"])
def test_one_is_killed_and_one_is_hostile_in_the_middle_and_the_transaction_confirms(
    tmp_path: Path, makes: dict[str, LocalRelay | Independent], chain: RegtestChain, killed: str, hostile: str
) -> None:
    """One of the three lies, one dies: whichever is left carries the rest."""
    lying = next(name for name in (*MAKES, OURS) if name != killed)

    async def main() -> None:
        async with HostileRelay(BEHAVIOURS[hostile]()).running() as liar:
            urls = [liar.url if name == lying else one.url for name, one in makes.items()]
            async with cosigners(tmp_path, *[urls] * 3) as everybody:
                for one in everybody:
                    one.progress.clear()
                session = await everybody[0].service.propose(GROUP.id, payment(chain))
                await everybody[1].progress.wait()
                makes[killed].kill()
                await confirmed(chain, everybody, session)

    asyncio.run(main())
