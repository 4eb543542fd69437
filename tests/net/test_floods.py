"""Floods, for a moment each: what strangers and members can make a node keep is bounded, and it goes on working.

`python -m bench flood` runs the same attacks for a minute each, from processes of their own, and measures.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from bench.ceremony.wallet import signing_key
from bench.flood.attacks import Attack, SlowReaders, duel, member
from bench.flood.plan import FLOODS
from chaos_party import GROUP, ChaosCosigner, coins
from endpoints import CARRIERS, Carrier, Signal, aio, soon, turns
from services import LogLines

from musignet.limits import LOG_LINK_LINES_MAX, PREFIXES_MAX, Limits
from musignet.net.service import NetworkService
from musignet.net.transport import flow
from musignet.node.peers import PeerInfo
from musignet.signing.effects import End
from musignet.signing.keyholder import Account
from musignet.signing.policy import ask_always
from musignet.wire.channel import SecureChannel
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import Chain
from support.ceremony import account
from support.wallet import MEMBERS

pytestmark = pytest.mark.driver

LIMITS: Final = Limits(log_lines_per_s=0.001)
"""All defaults, but for one line for everything that needs leave."""
HONEST: Final = member(900)
ATTACKED: Final = {"spam": 2000, "slow-readers": 3000}
"""How often until it has been a flood: messages of these, connections of the others."""
CONNECTIONS: Final = 300
ANSWERS_MAX_BYTES: Final = 300 * LIMITS.pace_burst_messages
"""Answers to what is taken in at once, and acknowledgements of them."""
CHANNELS_MAX: Final = 12
"""Both ends of three links, and a few that a traceback or a timer still holds: hundreds were made."""
READS_MAX: Final = 50
"""Messages beyond the rate: each read takes one at least, and the cosigners spoke before the flood."""
ATTACKS: Final = {flood.name: flood.attack for flood in FLOODS if not (flood.descriptors or flood.beacons)}
"""Descriptors run out in a process of its own, in `test_tcp.py`; beacons are heard in `test_discovery.py`."""


@pytest.fixture(params=["tcp", "tcp on uvloop"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()


class Victim(ChaosCosigner):
    """A cosigner, and everything in it that others could fill."""

    began = 0.0
    """When it began to be flooded, by the loop's clock."""

    @property
    def transport(self) -> Any:
        return self.service._transport

    @property
    def lobby(self) -> Any:
        return self.transport._listener.lobby

    @property
    def unread(self) -> list[Any]:
        """Links that are read no further, because their peers do not take our answers."""
        return [link for links in self.transport._links.values() for link in links if link._held & flow._ANSWERS]

    def require_bounds(self) -> None:
        """Nothing has more than its bound, at any moment."""
        slots, driver, limits = self.transport.slots, self.service._driver, self.transport.limits
        assert driver is not None
        assert len(slots.half_open) <= limits.half_open_slots
        assert slots.prefixes <= limits.half_open_slots
        assert len(self.lobby) <= limits.lobby_slots
        assert len(slots.inbound) <= limits.inbound_slots + limits.half_open_slots
        assert len(slots.doors) <= 2 * PREFIXES_MAX
        assert len(self.transport._accepted) <= 2 * limits.accepts_per_wake
        assert len(driver._connections) <= limits.inbound_slots + 2
        assert len(driver._tasks) <= len(MEMBERS)
        assert len(driver._inputs) <= limits.peer_burst_messages
        passed_s = asyncio.get_running_loop().time() - self.began
        for peer in driver.node.book:
            may = limits.peer_burst_messages + passed_s * limits.peer_messages_per_s
            assert peer.gauge.messages_in <= may + READS_MAX
        for links in self.transport._links.values():
            assert len(links) <= limits.links_per_peer + 1
            for link in links:
                count, size = link._channel.answers_waiting
                assert size <= limits.slow_reader_max_bytes
                assert count <= limits.slow_reader_messages + limits.peer_burst_messages
                assert link._stream.get_write_buffer_size() <= limits.write_buffer_bytes + ANSWERS_MAX_BYTES

    @property
    def calm(self) -> bool:
        """Whether only the other cosigners are left."""
        slots = self.transport.slots
        waiting = len(self.lobby) + len(slots.half_open) + slots.prefixes
        return (waiting, len(slots.inbound)) == (0, len(MEMBERS) - 1)


class Flood(Signal):
    """An attack that says each time what it has done, and looks at the victim."""

    def __init__(self, kind: type[Attack], victim: Victim) -> None:
        super().__init__()
        flood = self

        class Watched(kind):  # type: ignore[misc, valid-type]
            def _attacked(self, times: int) -> None:
                super()._attacked(times)
                with suppress(AssertionError):  # the attack would take it for the end of its connection
                    flood.wrong = "not bounded"
                    victim.require_bounds()
                    flood.wrong = ""
                flood.poke()

        self.wrong = ""
        service = victim.service
        self._attack = Watched(service.port, service.identity.public, seed=kind.__name__)

    async def reaches(self, count: int) -> None:
        await self.until(lambda: self._attack.count >= count, 15)

    async def run(self) -> None:
        await self._attack.run()


@asynccontextmanager
async def cosigners(
    folder: Path, limits: Limits = LIMITS
) -> AsyncIterator[tuple[Victim, ChaosCosigner, ChaosCosigner]]:
    """Start three of a group, connected to the first, who is the victim."""
    victim, *others = [
        kind(name, folder, limits) for kind, name in zip((Victim, ChaosCosigner, ChaosCosigner), MEMBERS, strict=True)
    ]
    everybody = (victim, *others)
    for one in everybody:
        await one.service.start()
    try:
        for one in everybody:
            for other in everybody:
                if one is not other:
                    one.service.add_peer(other.service.info)
            one.service.cosign(account(one.name, GROUP))
        own = victim.service.identity
        victim.service.cosign(
            Account(group=duel(own.public), identity=own.pubkey, key=signing_key(0), policy=ask_always)
        )
        for number in range(16):
            victim.service.add_peer(PeerInfo(id=f"member {number}", pubkey_hex=member(number).pubkey_hex))
        victim.service.add_peer(PeerInfo(id="honest", pubkey_hex=HONEST.pubkey_hex))
        for near, far in ((others[0], victim), (others[1], victim), (others[0], others[1])):
            await near.service.connect_to_peer(far.name)
        yield victim, others[0], others[1]  # type: ignore[misc]
    finally:
        for one in everybody:
            await one.service.stop()


def alive(kind: type) -> int:
    """Return how many of these are in memory."""
    gc.collect()
    return sum(isinstance(one, kind) for one in gc.get_objects())


@pytest.mark.parametrize("name", ATTACKS)
@aio
async def test_a_flood_is_bounded_and_the_node_goes_on(
    tmp_path: Path, name: str, carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "musignet")
    channels, messages = alive(SecureChannel), alive(VerifiedMessage)  # other tests keep some
    async with cosigners(tmp_path) as everybody:
        victim = everybody[0]
        flood = Flood(ATTACKS[name], victim)
        with LogLines(logging.INFO) as log:
            attacking = asyncio.create_task(flood.run())
            await flood.reaches(ATTACKED.get(name, CONNECTIONS) // 2)
            session = await everybody[1].service.propose(GROUP.id, coins(1))
            honest = NetworkService("honest", host="", identity=HONEST, chain=Chain.REGTEST)
            async with honest:
                await honest.connect_to_peer(victim.service.info, timeout_s=15, persist=True)
                await flood.reaches(ATTACKED.get(name, CONNECTIONS))
            assert [(await one.ended(session)).end for one in everybody] == [End.COMPLETED] * 3
            attacking.cancel()
            await asyncio.gather(attacking, return_exceptions=True)
            assert not flood.wrong
            while not victim.calm:
                victim.require_bounds()
                await turns(1)
        caused = [line for line in log.lines if re.search("member|refused|fault|x1b", line)]
        assert len(caused) <= 1 + LOG_LINK_LINES_MAX * ATTACKS[name].members
        assert all(len(line) < 500 and line.isprintable() for line in log.lines)
        assert alive(SecureChannel) - channels <= CHANNELS_MAX
        assert alive(VerifiedMessage) - messages <= LIMITS.peer_burst_messages


class TwoSlowReaders(SlowReaders):
    members = 2


@aio
async def test_answers_that_nobody_reads_do_not_pile_up_in_the_event_loop(tmp_path: Path, carrier: Carrier) -> None:
    """The kernel takes the first ones; behind them each costs several times its size."""
    fast = replace(LIMITS, peer_messages_per_s=10_000.0, peer_burst_messages=10_000)
    async with cosigners(tmp_path, fast) as (victim, *_):
        flood = Flood(TwoSlowReaders, victim)
        attacking = asyncio.create_task(flood.run())
        await soon(lambda: len(victim.unread) == TwoSlowReaders.members, 15)
        attacking.cancel()
        await asyncio.gather(attacking, return_exceptions=True)
        assert not flood.wrong
