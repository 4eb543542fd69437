"""NIP-44 against a second implementation, in Rust, and what is refused."""

from __future__ import annotations

import base64
import hmac

import nostr_sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet.crypto import nip44
from musignet.crypto.nip44 import conversation_key, decrypt_untrusted, encrypt, padded_size
from musignet.crypto.relaykey import RelayKey
from musignet.errors import SerializationError
from support.keys import secret

A, B = RelayKey.one_time(secret("a")), RelayKey.one_time(secret("b"))
KEY = conversation_key(A.shared_x(B.xonly))
NONCE = secret("nonce")
OTHER = tuple(nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(secret(name))) for name in "ab")


def theirs(text: str) -> str:
    return nostr_sdk.nip44_encrypt(OTHER[0].secret_key(), OTHER[1].public_key(), text, nostr_sdk.Nip44Version.V2)


def test_both_sides_derive_one_key() -> None:
    assert conversation_key(B.shared_x(A.xonly)) == KEY
    assert OTHER[0].public_key().to_hex() == A.xonly.hex()


def test_the_first_vector_of_the_specification() -> None:
    one, two = (RelayKey.one_time(number.to_bytes(32)) for number in (1, 2))
    key = conversation_key(one.shared_x(two.xonly))
    assert key.hex() == "c41c775356fd92eadc63ff5a0dc1da211b268cbea22316767095b2871ea1412d"
    payload = (
        "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABee0G5VSK0/9YypIObAtDKfYE"
        "AjD35uVkHyB0F4DwrcNaCXlCWZKaArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb"
    )
    assert encrypt(key, b"a", (1).to_bytes(32)) == payload
    assert decrypt_untrusted(key, payload) == b"a"


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=700)


@settings(max_examples=50)
@given(TEXTS, st.binary(min_size=32, max_size=32))
def test_each_implementation_reads_the_other(text: str, nonce: bytes) -> None:
    ours = encrypt(KEY, text.encode(), nonce)
    assert nostr_sdk.nip44_decrypt(OTHER[1].secret_key(), OTHER[0].public_key(), ours) == text
    assert decrypt_untrusted(KEY, theirs(text)).decode() == text


@pytest.mark.parametrize("size", [1, 31, 32, 33, 256, 257, 320, 321, 40_960, 65_000])
def test_the_padding_is_the_other_implementations(size: int) -> None:
    text = "x" * size
    assert len(encrypt(KEY, text.encode(), NONCE)) == len(theirs(text))
    assert len(encrypt(KEY, text.encode(), NONCE)) == -(-(67 + padded_size(size)) // 3) * 4


def test_a_text_has_a_length_and_a_nonce_of_32_bytes() -> None:
    for text, nonce in ((b"", NONCE), (bytes(65_536), NONCE), (b"x", NONCE[1:])):
        with pytest.raises(SerializationError):
            encrypt(KEY, text, nonce)


def _altered(at: int) -> str:
    data = bytearray(base64.b64decode(encrypt(KEY, b"text", NONCE)))
    data[at] ^= 1
    return base64.b64encode(data).decode()


def _padded(length: int, plain: bytes) -> str:
    """A payload with a right MAC and a padding of the caller's."""
    keys = nip44._message_keys(KEY, NONCE)
    sealed = NONCE + nip44._chacha(keys[0], length.to_bytes(2) + plain)
    return base64.b64encode(b"\x02" + sealed + hmac.digest(keys[1], sealed, "sha256")).decode()


REFUSED = {
    "nothing": "",
    "another encoding": "#" + "A" * 140,
    "too short": "Ag" * 60,
    "too long": "Ag" * 50_000,
    "not base64": "!" * 132,
    "not ASCII": "é" * 132,
    "base64 with a line break": encrypt(KEY, b"text", NONCE)[:60] + "\n" + encrypt(KEY, b"text", NONCE)[60:],
    "another version": _altered(0),
    "another nonce": _altered(1),
    "another text": _altered(40),
    "another MAC": _altered(-1),
    "an empty text": _padded(0, bytes(32)),
    "a text longer than its padding": _padded(33, bytes(32)),
    "more padding than due": _padded(4, bytes(64)),
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused(payload: str) -> None:
    with pytest.raises(SerializationError, match="not a NIP-44 payload"):
        decrypt_untrusted(KEY, payload)


@given(st.text(max_size=300))
def test_any_text_is_a_payload_or_a_serialization_error(payload: str) -> None:
    with pytest.raises(SerializationError):
        decrypt_untrusted(KEY, payload)
