"""Key aggregation: one key from many, immutable, remembered, and blame for a key that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.crypto.keyagg import (
    Contribution,
    InvalidContributionError,
    KeyAgg,
    KeyAggCache,
    Tweak,
    key_sort,
    keys_untrusted,
)
from musignet.errors import Action, AuthenticationError, LocalError
from support.keys import GROUP_ORDER, secret
from support.musig import signing_key

KEYS = tuple(signing_key(name).public for name in ("alice", "bob", "carol"))


def test_an_aggregate_knows_its_keys_in_order_and_prints_without_them_all() -> None:
    keyagg = KeyAgg(list(KEYS))
    assert keyagg.keys == KEYS
    assert keyagg.tweaks == ()
    assert keyagg.output.compressed == keyagg.aggregate
    assert keyagg.xonly == keyagg.aggregate[1:]
    assert repr(keyagg) == f"<KeyAgg {keyagg.aggregate.hex()[2:10]}: 3 keys, 0 tweaks>"


def test_another_order_is_another_key_and_sorting_undoes_it() -> None:
    assert KeyAgg(KEYS).aggregate != KeyAgg(KEYS[::-1]).aggregate
    assert KeyAgg(key_sort(KEYS)).aggregate == KeyAgg(key_sort(KEYS[::-1])).aggregate


def test_one_key_or_the_same_key_twice_is_a_group_too() -> None:
    alone, twice = KeyAgg(KEYS[:1]), KeyAgg([KEYS[0], KEYS[0]])
    assert len({alone.aggregate, twice.aggregate, KEYS[0].compressed}) == 3


def test_no_keys_are_refused() -> None:
    with pytest.raises(LocalError, match=r"^cannot aggregate 0 keys: .*expected 1 or more"):
        KeyAgg([])


def test_who_is_a_member() -> None:
    keyagg = KeyAgg(KEYS[:2])
    assert KEYS[0] in keyagg
    assert KEYS[2] not in keyagg
    assert KEYS[0].compressed not in keyagg, "bytes are no key"


def test_a_tweak_makes_a_new_context_and_leaves_the_old_one_alone() -> None:
    keyagg, plain, xonly = KeyAgg(KEYS), secret("plain tweak"), secret("x-only tweak")
    before = keyagg.output.compressed
    once = keyagg.tweak(plain, xonly=False)
    twice = once.tweak(xonly, xonly=True)
    assert keyagg.output.compressed == before
    assert keyagg.tweaks == ()
    assert once.tweaks == (Tweak(plain, False),)
    assert twice.tweaks == (Tweak(plain, False), Tweak(xonly, True))
    assert len({before, once.output.compressed, twice.output.compressed}) == 3
    assert once.aggregate == twice.aggregate == before
    assert twice.keys == KEYS
    assert KEYS[1] in twice


@given(st.binary(min_size=32, max_size=32).filter(lambda scalar: 0 < int.from_bytes(scalar, "big") < GROUP_ORDER))
def test_the_two_modes_agree_exactly_on_an_even_key(scalar: bytes) -> None:
    """BIP-327 "Applying Tweaks": x-only mode negates an odd key first."""
    for keys in (KEYS, KEYS[::-1], KEYS[:2], KEYS[1:]):
        keyagg = KeyAgg(keys)
        modes = {keyagg.tweak(scalar, xonly=mode).output.compressed for mode in (True, False)}
        assert len(modes) == (1 if keyagg.aggregate[0] == 2 else 2)


@pytest.mark.parametrize(
    "scalar",
    [b"", bytes(31), bytes(33), GROUP_ORDER.to_bytes(32, "big"), b"\xff" * 32],
    ids=["nothing", "31 bytes", "33 bytes", "the order", "above the order"],
)
@pytest.mark.parametrize("xonly", [True, False])
def test_a_tweak_outside_the_group_is_refused(scalar: bytes, xonly: bool) -> None:
    with pytest.raises(LocalError, match=r"^cannot tweak the aggregate key: .*expected 32 bytes below the group order"):
        KeyAgg(KEYS).tweak(scalar, xonly=xonly)


def test_the_cache_aggregates_once_for_each_order() -> None:
    cache = KeyAggCache()
    first = cache.aggregate(KEYS)
    assert cache.aggregate(list(KEYS)) is first
    assert cache.aggregate(KEYS[::-1]) is not first
    assert cache.aggregate(KEYS) is first
    assert first.aggregate == KeyAgg(KEYS).aggregate


def test_the_cache_forgets_what_was_used_least_recently() -> None:
    cache = KeyAggCache(max_entries=2)
    first, second = cache.aggregate(KEYS[:1]), cache.aggregate(KEYS[1:2])
    assert cache.aggregate(KEYS[:1]) is first
    third = cache.aggregate(KEYS[2:])
    assert cache.aggregate(KEYS[:1]) is first
    assert cache.aggregate(KEYS[2:]) is third
    assert cache.aggregate(KEYS[1:2]) is not second


def test_the_cache_does_not_remember_a_refusal() -> None:
    cache = KeyAggCache(max_entries=1)
    held = cache.aggregate(KEYS)
    with pytest.raises(LocalError, match="0 keys"):
        cache.aggregate([])
    assert cache.aggregate(KEYS) is held


def test_the_cache_tweaks_as_one_does_by_hand_and_remembers_each_step() -> None:
    cache, names = KeyAggCache(), tuple(key.compressed for key in KEYS)
    steps = ((secret("branch"), False), (secret("index"), False), (secret("tap"), True))
    by_hand = KeyAgg(KEYS)
    for scalar, xonly in steps:
        by_hand = by_hand.tweak(scalar, xonly=xonly)
    tweaked = cache.tweaked(names, steps)
    assert (tweaked.output, tweaked.aggregate, tweaked.tweaks) == (by_hand.output, by_hand.aggregate, by_hand.tweaks)
    assert cache.tweaked(names, steps) is tweaked
    assert cache.tweaked(names, steps[:2]).tweak(*steps[2][:1], xonly=True).output == by_hand.output
    for other in (steps[::-1], steps[:2], (*steps[:2], (steps[2][0], False))):
        assert cache.tweaked(names, other).output != by_hand.output
    assert cache.tweaked(names[::-1], steps).output != by_hand.output


def test_the_cache_holds_tweaked_keys_within_its_bound() -> None:
    cache, names = KeyAggCache(max_entries=3), tuple(key.compressed for key in KEYS)
    first = cache.tweaked(names, ((secret("1"), False),))
    for number in range(2, 6):
        cache.tweaked(names, ((secret(str(number)), False),))
    assert len(cache._held) == 3
    assert cache.tweaked(names, ((secret("1"), False),)) is not first


def test_the_cache_refuses_what_is_no_point() -> None:
    with pytest.raises(AuthenticationError):
        KeyAggCache().tweaked((KEYS[0].compressed, b"\2" + b"\xff" * 32), ())


def test_keys_from_strangers_are_parsed_in_order() -> None:
    assert keys_untrusted([key.compressed for key in KEYS]) == KEYS
    assert keys_untrusted([]) == ()


@pytest.mark.parametrize("bad", [b"", bytes(32), bytes(33), b"\4" + bytes(32), b"\2" + b"\xff" * 32])
def test_an_invalid_key_names_the_signer_and_the_contribution(bad: bytes) -> None:
    with pytest.raises(InvalidContributionError) as caught:
        keys_untrusted([KEYS[0].compressed, KEYS[1].compressed, bad, bad])
    error = caught.value
    assert (error.signer, error.contribution, error.pubkey) == (2, Contribution.PUBKEY, b"")
    assert error.action is Action.ABORT_SESSION
    got = bad.hex() or "nothing"
    assert str(error) == (f"invalid pubkey from signer 2: expected 33 bytes of a compressed secp256k1 point, got {got}")
