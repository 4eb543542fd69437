"""The keys of a wallet are aggregated once, for every review, session, keyholder and blame of it."""

from __future__ import annotations

import pytest

from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import Group
from musignet.chain import Chain
from musignet.crypto.keyagg import KeyAgg, KeyAggCache
from musignet.signing.group import Member, SigningGroup
from support import ceremony_world
from support.ceremony import identity
from support.ceremony_world import World
from support.wallet import MEMBERS, descriptor_text, xpub


def _group(cache: KeyAggCache | None) -> SigningGroup:
    wallet = Group(Descriptor.parse_untrusted(descriptor_text("aggregate")), Chain.REGTEST, cache=cache)
    return SigningGroup(wallet, [Member(identity(name).pubkey, str(xpub(name))) for name in MEMBERS])


def test_one_aggregation_serves_a_whole_ceremony_and_its_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    made, honest = [], KeyAgg.__init__

    def count(self: KeyAgg, keys: object) -> None:
        made.append(self)
        honest(self, keys)

    monkeypatch.setattr(KeyAgg, "__init__", count)
    cache = KeyAggCache()
    for _ in range(2):  # another wallet object of the same process, with the same cache
        group = _group(cache)
        monkeypatch.setattr(ceremony_world, "signing_group", lambda *_, group=group: group)
        assert World(0, inputs=3, liar=("bob", "bad partial")).run().counts["BLAMED"] == 2
    assert len(made) == 1
