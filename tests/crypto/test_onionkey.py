"""The onion service's key: of the identity, the same each time, and in the form that Tor takes."""

from __future__ import annotations

import copy
import pickle

import pytest

from musignet.crypto.keys import Identity
from musignet.crypto.onionkey import OnionKey
from musignet.errors import LocalError
from musignet.wire.onion import onion_host
from support.keys import ALICE, BOB, secret
from support.tor_control import service_id

# RFC 8032, section 7.1, TEST 1: the seed and its public key.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_the_published_vector() -> None:
    assert OnionKey(SEED).public.hex() == PUBLIC


@pytest.mark.parametrize("key", [OnionKey(SEED), OnionKey.of(ALICE)])
def test_what_tor_makes_of_it_is_the_name_that_we_expect(key: OnionKey) -> None:
    expanded = key.expanded()
    assert len(expanded) == 64
    assert f"{service_id(expanded)}.onion" == onion_host(key.public), "a second implementation of the curve"


def test_one_identity_one_address() -> None:
    again = Identity.from_secret(secret("alice"))
    assert OnionKey.of(again).public == OnionKey.of(ALICE).public != OnionKey.of(BOB).public


def test_a_wiped_identity_has_none() -> None:
    gone = Identity.from_secret(secret("gone"))
    gone.wipe()
    with pytest.raises(LocalError, match="wiped"):
        OnionKey.of(gone)


def test_it_is_not_shown_or_copied() -> None:
    key = OnionKey(SEED)
    assert repr(key) == "<OnionKey>"
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            take(key)
