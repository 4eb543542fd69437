"""Both ends of a link know one hash of its handshake; a key that is let in on trial gets nothing but a pairing."""

from __future__ import annotations

import pytest
from endpoints import CARRIERS, Carrier, aio
from services import Party, chat, party

from musignet.errors import SendError
from musignet.net.service import NetworkService
from musignet.node.effects import PeerDown, PeerUp
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType, PairConfirm
from support.keys import ALICE, BOB


@pytest.fixture(params=CARRIERS.values(), ids=CARRIERS.keys())
def carrier(request: pytest.FixtureRequest) -> Carrier:
    made: Carrier = request.param()
    return made


@pytest.fixture
def memory() -> Carrier:
    return CARRIERS["memory"]()


@aio
async def test_both_ends_know_the_hash_of_the_handshake_and_a_new_link_has_another(carrier: Carrier) -> None:
    async with party(carrier, "alice", "bob") as (alice, bob):
        there, here = bob.service.peer("alice"), alice.service.peer("bob")
        first = here.handshake_hash
        assert len(first) == 32
        assert there.handshake_hash == first
        await here.disconnect()
        await bob.learns(PeerDown)
        assert here.handshake_hash == there.handshake_hash == b""
        await alice.service.connect_to_peer("bob")
        await bob.learns(PeerUp, 2)
        assert there.handshake_hash == here.handshake_hash not in (first, b"")


@aio
async def test_a_key_that_is_let_in_on_trial_says_nothing_but_a_pairing(memory: Carrier) -> None:
    services: list[NetworkService] = []

    def on_trial(info: PeerInfo) -> bool:
        services[0].add_peer(info, provisional=True)
        return True

    host = Party(memory, ALICE, "alice", accept=on_trial)
    guest = Party(memory, BOB, "bob")
    services.append(host.service)
    kinds: list[int] = []
    await host.start(lambda message, _: kinds.append(message.type))
    await guest.start()
    try:
        await guest.service.connect_to_peer(host.info)
        await host.learns(PeerUp)
        peer = host.service.peers()[0]
        assert peer.provisional
        assert await host.service.broadcast_message(chat()) == 0
        with pytest.raises(SendError, match="not paired yet"):
            await peer.send(chat())
        confirm = Message(MessageType.PAIR_CONFIRM, "bob", PairConfirm(bytes(32)))
        await guest.service.send_message_to("alice", confirm, wait_ack=True)
        assert kinds == [MessageType.PAIR_CONFIRM]
        await guest.service.send_message_to("alice", chat())
        await host.learns(PeerDown)
        assert kinds == [MessageType.PAIR_CONFIRM]
    finally:
        for one in (host, guest):
            await one.service.stop()
