"""What only the memory carrier has: a network of addresses inside the process."""

from __future__ import annotations

import pytest
from endpoints import CARRIERS, Recorder, aio

from musignet.errors import ConnectionError, IoError
from musignet.limits import Limits
from musignet.net.transport import MemoryNetwork, MemoryTransport
from support.keys import ALICE, BOB, CAROL


def test_port_0_picks_a_free_one_and_a_taken_one_is_refused() -> None:
    network = MemoryNetwork()
    transport = MemoryTransport(ALICE, Recorder(), network=network)
    assert [network.listen("a", 0, transport) for _ in range(3)] == [1, 2, 3]
    assert network.listen("b", 0, transport) == 1
    with pytest.raises(IoError, match="cannot listen on a:2: the address is taken; port 0 picks a free one"):
        network.listen("a", 2, transport)
    network.unlisten("a", 2)
    network.unlisten("a", 2)
    assert network.find("a", 2) is None
    assert network.find("a", 1) is transport
    assert network.listen("a", 0, transport) == 2


@aio
async def test_two_networks_do_not_meet() -> None:
    here, there = CARRIERS["memory"](), CARRIERS["memory"]()
    alice, bob = here.transport(ALICE, Recorder()), there.transport(BOB, Recorder())
    await alice.start()
    await bob.start()
    await bob.stop()
    with pytest.raises(ConnectionError, match="cannot reach here:2: nobody listens there"):
        await alice.connect(BOB.pubkey_hex, "here", 2)
    await alice.stop()


@aio
async def test_a_listener_without_a_slot_looks_like_nobody() -> None:
    carrier = CARRIERS["memory"]()
    alice = carrier.transport(ALICE, Recorder(), limits=Limits(half_open_per_prefix=0))
    others = [carrier.transport(who, Recorder()) for who in (BOB, CAROL)]
    for transport in (alice, *others):
        await transport.start()
    with pytest.raises(ConnectionError, match="nobody listens there"):
        await others[0].connect(ALICE.pubkey_hex, "here", 1)
    for transport in (alice, *others):
        await transport.stop()
