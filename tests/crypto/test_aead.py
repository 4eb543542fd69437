"""HKDF and Argon2id against a second implementation or a published value; AEAD only where we lean on it."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.crypto.aead import TAG_BYTES, Aead, AeadError, argon2id, hkdf2


@given(st.binary(min_size=1, max_size=80), st.binary(max_size=80))
def test_hkdf2_is_hkdf_sha256_with_empty_info(salt: bytes, material: bytes) -> None:
    """As RFC 5869 says it, step by step."""
    extracted = hmac.digest(salt, material, "sha256")
    first = hmac.digest(extracted, b"\x01", "sha256")
    assert hkdf2(salt, material) == (first, hmac.digest(extracted, first + b"\x02", "sha256"))


def test_hkdf2_returns_two_keys_of_32_bytes() -> None:
    assert [len(key) for key in hkdf2(bytes(32), b"")] == [32, 32]


@pytest.mark.parametrize(
    ("memory_kib", "key"),
    [  # Argon2 reference implementation, test.c: Argon2id, version 0x13, t=2, p=1, "password", "somesalt"
        (256, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
        (65536, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"),
    ],
)
def test_argon2id_gives_the_reference_values(memory_kib: int, key: str) -> None:
    assert argon2id(b"password", b"somesalt", memory_kib=memory_kib, passes=2, lanes=1).hex() == key


def test_argon2id_depends_on_each_parameter() -> None:
    variants = [(64, 1, 1), (64, 2, 1), (128, 1, 1), (64, 1, 2)]
    assert len({argon2id(b"p", bytes(16), memory_kib=m, passes=t, lanes=p) for m, t, p in variants}) == len(variants)


def test_a_sealed_text_grows_by_the_tag_and_opens_only_with_its_own_nonce_and_data() -> None:
    aead, nonce = Aead(bytes(32)), bytes(12)
    sealed = aead.encrypt(nonce, b"text", b"data")
    assert len(sealed) == 4 + TAG_BYTES
    assert aead.decrypt(nonce, sealed, b"data") == b"text"
    for other_nonce, other_data in ((b"\1" + nonce[1:], b"data"), (nonce, b"datb")):
        with pytest.raises(AeadError):
            aead.decrypt(other_nonce, sealed, other_data)
