"""Inboxes: who can address them, who can open them, and what a relay can tell from their names."""

from __future__ import annotations

import pytest

from musignet.crypto.keys import Identity
from musignet.crypto.relaykey import RelayKey, inbox_of
from musignet.errors import AuthenticationError
from support.keys import ALICE, BOB, CAROL, secret


@pytest.mark.parametrize("who", [ALICE, BOB, CAROL], ids=["alice", "bob", "carol"])
@pytest.mark.parametrize("period", [0, 1, 20_000, 2**63])
def test_who_knows_an_identity_knows_its_inbox_and_its_owner_opens_it(who: Identity, period: int) -> None:
    inbox = RelayKey.inbox(who, period)
    assert inbox.xonly == inbox_of(who.public, period)
    sender = RelayKey.one_time(secret("sender"))
    assert sender.shared_x(inbox.xonly) == inbox.shared_x(sender.xonly)


def test_no_two_periods_and_no_two_nodes_have_one_name_and_none_is_the_identity() -> None:
    names = {inbox_of(who.public, period) for who in (ALICE, BOB) for period in range(50)}
    assert len(names) == 100
    assert not names & {ALICE.pubkey[1:], BOB.pubkey[1:]}


def test_what_is_no_point_has_nothing_to_share() -> None:
    with pytest.raises(AuthenticationError):
        RelayKey.one_time(secret("sender")).shared_x(b"\xff" * 32)


def test_a_wiped_identity_has_no_inbox() -> None:
    identity = Identity.from_secret(secret("short-lived"))
    identity.wipe()
    with pytest.raises(AuthenticationError):
        RelayKey.inbox(identity, 1)


def test_it_signs_under_its_own_name_and_prints_no_secret() -> None:
    inbox = RelayKey.inbox(ALICE, 7)
    assert inbox.public.verify(bytes(32), inbox.sign(bytes(32)))
    assert secret("alice").hex() not in repr(inbox)
