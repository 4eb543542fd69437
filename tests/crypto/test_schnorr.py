"""BIP-340: the published vectors, tagged hashes, and what is a public key."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.crypto import backend
from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey, TaggedHash
from musignet.errors import AuthenticationError
from support.keys import ALICE, BOB
from support.vectors import bip340

ROWS = range(19)
SIGNING_ROWS = [0, 1, 2, 3]
"""Rows 4 to 14 have no secret key. Rows 15 to 18 sign messages of 0, 1, 17 and 100 bytes: everything we sign is a
32-byte tagged hash, so `backend.schnorr_sign` takes nothing else; those rows are verified only."""

FIELD = 2**256 - 2**32 - 977
G_X = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
G_Y = "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"


def test_the_vectors_have_exactly_these_rows() -> None:
    assert [int(row["index"]) for row in bip340()] == list(ROWS)
    signable = [int(row["index"]) for row in bip340() if row["secret key"] and len(row["message"]) == 64]
    assert signable == SIGNING_ROWS


def _holds(row: dict[str, str]) -> bool:
    try:
        xonly = backend.xonly_parse(bytes.fromhex(row["public key"]))
    except backend.BackendError:
        return False
    return backend.schnorr_verify(xonly, bytes.fromhex(row["message"]), bytes.fromhex(row["signature"]))


@pytest.mark.parametrize("index", ROWS)
def test_bip340_vectors_verify_as_published(index: int) -> None:
    row = bip340()[index]
    assert _holds(row) is (row["verification result"] == "TRUE"), row["comment"]


@pytest.mark.parametrize("index", ROWS)
def test_bip340_vectors_verify_the_same_under_a_compressed_key(index: int) -> None:
    row = bip340()[index]
    expected = row["verification result"] == "TRUE"
    for parity in (b"\x02", b"\x03"):
        try:
            key = PublicKey(parity + bytes.fromhex(row["public key"]))
        except AuthenticationError:
            assert not expected
        else:
            assert key.verify(bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])) is expected


@pytest.mark.parametrize("index", SIGNING_ROWS)
def test_bip340_vectors_sign_as_published(index: int) -> None:
    row = {name: value.lower() for name, value in bip340()[index].items()}
    identity = Identity.from_secret(bytes.fromhex(row["secret key"]))
    assert identity.pubkey_hex[2:] == row["public key"]
    digest, aux = bytes.fromhex(row["message"]), bytes.fromhex(row["aux_rand"])
    assert identity.sign(digest, aux).hex() == row["signature"]


def test_signing_without_aux_is_signing_with_zero_aux_never_with_fresh_randomness() -> None:
    digest = sha256(b"x").digest()
    assert ALICE.sign(digest) == ALICE.sign(digest)
    assert ALICE.sign(digest) != ALICE.sign(digest, b"\1" * 32)
    assert ALICE.public.verify(digest, ALICE.sign(digest, b"\1" * 32))


def test_every_single_bit_of_digest_and_signature_counts() -> None:
    digest = sha256(b"x").digest()
    signature = ALICE.sign(digest)
    assert ALICE.public.verify(digest, signature)
    assert not BOB.public.verify(digest, signature)
    for bit in range(8 * 32):
        assert not ALICE.public.verify(_flipped(digest, bit), signature)
    for bit in range(8 * 64):
        assert not ALICE.public.verify(digest, _flipped(signature, bit))


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_simply_false(size: int) -> None:
    digest = sha256(b"x").digest()
    signature = ALICE.sign(digest)
    assert ALICE.public.verify(digest, (signature * 2)[:size]) is False


def _flipped(data: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(data))


# --- tagged hashes ----------------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.lists(st.binary(max_size=100), max_size=4))
def test_a_tagged_hash_is_the_definition_of_bip340(tag: str, parts: list[bytes]) -> None:
    half = sha256(tag.encode()).digest()
    tagged = TaggedHash(tag)
    assert tagged.tag == tag
    assert tagged(*parts) == sha256(half + half + b"".join(parts)).digest()
    assert tagged(*map(memoryview, parts)) == tagged(*parts), "calling it twice changes nothing"


def test_the_challenge_hash_makes_the_equation_of_bip340_hold() -> None:
    """s*G = R + e*P, checked with our own tagged hash as the challenge and the backend's point arithmetic by ECDH."""
    digest = sha256(b"challenge").digest()
    one = Identity.from_secret((1).to_bytes(32, "big"))  # k*G for any k, as a public key: the identity with secret k
    signature = one.sign(digest, bytes(32))
    x_of_r, s = signature[:32], int.from_bytes(signature[32:], "big")
    challenge = int.from_bytes(TaggedHash("BIP0340/challenge")(x_of_r, one.pubkey[1:], digest), "big")
    order = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
    nonce = (s - challenge) % order  # P is G itself and has an even y, so d = 1
    assert Identity.from_secret(nonce.to_bytes(32, "big")).pubkey == b"\x02" + x_of_r


# --- public keys ------------------------------------------------------------------------------------------------------

REFUSED = {
    "empty": "",
    "infinity": "00",
    "infinity, padded": "00" * 33,
    "32 bytes, x-only": G_X,
    "34 bytes": "02" + G_X + "00",
    "uncompressed": "04" + G_X + G_Y,
    "hybrid, even": "06" + G_X + G_Y,
    "hybrid, odd": "07" + G_X + G_Y,
    "hybrid prefix on 33 bytes": "06" + G_X,
    "uncompressed prefix on 33 bytes": "04" + G_X,
    "unknown prefix": "05" + G_X,
    "x = p": "02" + f"{FIELD:064x}",
    "x = p + 1": "02" + f"{FIELD + 1:064x}",
    "x = 2^256 - 1": "03" + "ff" * 32,
    "x on the twist": "02" + f"{5:064x}",
    "x = 0": "02" + "00" * 32,
}


@pytest.mark.parametrize("encoded", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_compressed_point_is_refused(encoded: str) -> None:
    with pytest.raises(
        AuthenticationError, match=r"^not a public key: expected 33 bytes .*, got ([0-9a-f.]+|nothing)\Z"
    ):
        PublicKey(bytes.fromhex(encoded))
    with pytest.raises(AuthenticationError, match=r"^not a public key"):
        PublicKey.from_hex(encoded)


@pytest.mark.parametrize("encoded", ["02" + G_X, "03" + G_X, f"02{1:064x}"])
def test_a_compressed_point_parses_to_itself(encoded: str) -> None:
    key = PublicKey.from_hex(encoded)
    assert key.compressed.hex() == encoded
    assert backend.point_serialize(key.point).hex() == encoded
    assert key == PublicKey(bytes.fromhex(encoded.upper()))
    assert hash(key) == hash(PublicKey(bytes.fromhex(encoded)))
    assert repr(key) == f"PublicKey({encoded})"


def test_the_two_points_of_one_x_are_two_keys() -> None:
    assert PublicKey.from_hex("02" + G_X) != PublicKey.from_hex("03" + G_X)
    assert PublicKey.from_hex("02" + G_X) != "02" + G_X


@pytest.mark.parametrize("text", ["zz", "0", "02" + G_X[:-1], "\u0660" * 66, "\x1b[2J"])
def test_what_is_not_hex_is_refused_and_shown_safely(text: str) -> None:
    with pytest.raises(AuthenticationError, match=r"^not a public key: expected 66 hex digits, got [\x20-\x7e]+\Z"):
        PublicKey.from_hex(text)


@given(st.binary(max_size=70))
def test_any_bytes_are_a_point_or_an_authentication_error(data: bytes) -> None:
    try:
        key = PublicKey(data)
    except AuthenticationError:
        return
    assert backend.point_serialize(key.point) == data
