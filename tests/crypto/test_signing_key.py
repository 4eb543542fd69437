"""A wallet's signing key: its own type, so that the node's identity is never put in its place (THREATS.md A4)."""

from __future__ import annotations

import pytest

from musignet.crypto.keys import Identity, SigningKey
from musignet.errors import AuthenticationError
from support.keys import GROUP_ORDER, secret


def test_it_is_no_identity_and_offers_none_of_its_uses() -> None:
    key = SigningKey.from_secret(secret("wallet"))
    assert not isinstance(key, Identity)
    assert not isinstance(Identity.from_secret(secret("wallet")), SigningKey)
    for use in ("sign", "ecdh", "secret_for_storage", "generate", "tweak"):
        assert not hasattr(key, use)


def test_it_has_the_public_key_of_its_secret_and_prints_as_that() -> None:
    key, identity = SigningKey.from_secret(secret("wallet")), Identity.from_secret(secret("wallet"))
    assert (key.public, key.pubkey, key.pubkey_hex) == (identity.public, identity.pubkey, identity.pubkey_hex)
    assert repr(key) == str(key) == f"<SigningKey {key.pubkey_hex[2:10]}>"


@pytest.mark.parametrize("scalar", [0, GROUP_ORDER])
def test_a_number_outside_the_group_is_no_key_and_is_wiped(scalar: int) -> None:
    buffer = SigningKey.buffer()
    buffer.load(scalar.to_bytes(32, "big"))
    with pytest.raises(AuthenticationError, match=r"^not a secret key"):
        SigningKey(buffer)
    assert not any(buffer.view)


def test_wiping_zeroes_its_memory() -> None:
    key = SigningKey.from_secret(secret("wallet"))
    assert any(key.secret.view)
    key.wipe()
    assert not any(key.secret.view)
