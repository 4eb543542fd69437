"""What tells a node that its links may be dead, clocks that jumped and other addresses, and what it does then."""

from __future__ import annotations

import pytest
from endpoints import CARRIERS, Carrier, aio
from services import Party

from musignet.limits import CLOCK_SLEEP_MAX_S, CLOCK_STALL_MAX_S, NETWORK_POLL_S, Limits
from musignet.net.roaming import Roaming, own_addresses
from musignet.node.effects import PeerUp
from musignet.signing.clockjump import Readings
from support.keys import ALICE, BOB

HOME, CAFE, BOTH = frozenset({"10.0.0.2 on wlan0"}), frozenset({"10.9.9.9 on wlan0"}), frozenset({"a on x", "b on y"})


class Machine:
    """One whose clocks and addresses the test sets."""

    def __init__(self) -> None:
        self.at = Readings(1e9, 50.0, 50.0)
        self.addresses = HOME
        self.told: list[str] = []
        self.roaming = Roaming(self.told.append, lambda: self.at, lambda: self.addresses)

    def after(self, *, asleep: float = 0.0, step: float = 0.0, awake: float = NETWORK_POLL_S) -> list[str]:
        """Look again; return what is new."""
        real, monotonic, boot, _ = self.at
        assert boot is not None
        self.at = Readings(real + awake + asleep + step, monotonic + awake, boot + awake + asleep)
        self.told.clear()
        self.roaming.look()
        return self.told


def test_nothing_is_said_while_nothing_changes() -> None:
    machine = Machine()
    assert [machine.after() for _ in range(3)] == [[], [], []]


def test_sleep_and_standing_still_are_told_once() -> None:
    machine = Machine()
    assert machine.after(asleep=CLOCK_SLEEP_MAX_S + 60) == ["the machine slept for 62 s"]
    assert machine.after() == []
    assert "stood still" in machine.after(awake=CLOCK_STALL_MAX_S + 1)[0]
    assert machine.after() == []


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (HOME, CAFE, "new address 10.9.9.9 on wlan0"),
        (frozenset({"a on x"}), BOTH, "new address b on y"),
        (BOTH, frozenset({"b on y"}), "lost address a on x"),
    ],
)
def test_other_addresses_are_told_once(before: frozenset[str], now: frozenset[str], said: str) -> None:
    machine = Machine()
    machine.addresses = before
    machine.after()
    machine.addresses = now
    assert machine.after() == [said]
    assert machine.after() == []


def test_being_offline_is_not_told_and_coming_back_elsewhere_is() -> None:
    machine = Machine()
    machine.addresses = frozenset()
    assert machine.after() == []
    machine.addresses = HOME
    assert machine.after() == [], "the same place as before: TCP bridges that by itself"
    machine.addresses = frozenset()
    machine.after()
    machine.addresses = CAFE
    assert machine.after() == ["new address 10.9.9.9 on wlan0"]


def test_the_loopback_is_no_address_of_this_machine() -> None:
    assert not any(one.startswith(("127.0.0.1 ", "::1 ")) for one in own_addresses())


@aio
async def test_a_change_has_a_missing_peer_dialled_at_once(carrier: Carrier) -> None:
    limits = Limits(backoff_min_s=600, backoff_max_s=600)
    alice, bob = Party(carrier, ALICE, "alice", limits=limits), Party(carrier, BOB, "bob", limits=limits)
    await alice.start()
    await bob.start()
    bob.service.add_peer(alice.info)
    await alice.service.connect_to_peer(bob.info)
    driver = alice.service._driver
    assert driver is not None
    record = alice.service._find("bob")
    for connection, _ in list(driver._connections.values()):
        connection.close(None)
    await alice.until(lambda: record.redial_at is not None)
    driver._roaming._addresses = lambda: frozenset({"198.51.100.7 on eth9"})
    driver._roaming.look()
    await alice.until(lambda: sum(isinstance(one, PeerUp) for one in alice.news) == 2)
    await alice.service.stop()
    await bob.service.stop()


@pytest.fixture(params=["tcp", "memory"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()
