"""The identity key: what is one, how it prints, and that no copy of it survives."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest

from musignet.crypto.keys import Ephemeral, Identity
from musignet.errors import AuthenticationError, LocalError
from support.keys import ALICE, BOB, CAROL, GROUP_ORDER, secret

DIGEST = secret("a digest")


@pytest.mark.parametrize("scalar", [0, GROUP_ORDER, GROUP_ORDER + 1, 2**256 - 1])
def test_a_number_outside_the_group_is_no_key(scalar: int) -> None:
    with pytest.raises(
        AuthenticationError, match=r"^not a secret key: expected 32 bytes, neither 0 nor the group order"
    ):
        Identity.from_secret(scalar.to_bytes(32, "big"))
    with pytest.raises(AuthenticationError, match=r"^not a secret key"):
        Ephemeral(scalar.to_bytes(32, "big"))


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_another_length_is_no_key(size: int) -> None:
    with pytest.raises(AuthenticationError, match=f"expected 32 bytes, got {size} bytes"):
        Identity.from_secret(b"\1" * size)
    with pytest.raises(AuthenticationError, match=f"expected 32 bytes, got {size}"):
        Ephemeral(b"\1" * size)


def test_a_refused_secret_is_wiped() -> None:
    buffer = Identity.buffer()
    buffer.load(b"\xff" * 32)
    with pytest.raises(AuthenticationError):
        Identity(buffer)
    assert bytes(buffer.view[0:32]) == bytes(32)


@pytest.mark.parametrize(
    ("scalar", "pubkey_hex"),
    [
        (1, "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
        (GROUP_ORDER - 1, "0379be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
    ],
)
def test_the_public_key_is_the_compressed_point(scalar: int, pubkey_hex: str) -> None:
    for kind in (bytes, bytearray, memoryview):
        identity = Identity.from_secret(kind(scalar.to_bytes(32, "big")))
        assert identity.pubkey_hex == identity.pubkey.hex() == identity.public.compressed.hex() == pubkey_hex
    assert Ephemeral(scalar.to_bytes(32, "big")).pubkey.hex() == pubkey_hex


def test_generate_draws_another_key_each_time() -> None:
    first, second = Identity.generate(), Identity.generate()
    assert first.pubkey != second.pubkey
    assert first.public.verify(DIGEST, first.sign(DIGEST))


def test_generate_draws_again_when_it_drew_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [bytes(32), b"\xff" * 32, secret("third")]
    monkeypatch.setattr("musignet.crypto.keys.secrets.token_bytes", lambda size: draws.pop(0)[:size])
    assert Identity.generate().pubkey == Identity.from_secret(secret("third")).pubkey
    assert draws == []


def test_a_key_prints_as_its_public_key_only() -> None:
    identity, ephemeral = Identity.from_secret(secret("printed")), Ephemeral(secret("printed"))
    short = identity.pubkey_hex[2:10]
    assert repr(identity) == str(identity) == f"<Identity {short}>"
    assert repr(ephemeral) == str(ephemeral) == f"<Ephemeral {short}>"


@pytest.mark.parametrize(
    "take",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda it: it.__reduce__(), lambda it: it.__reduce_ex__(2)],
    ids=["copy", "deepcopy", "pickle", "reduce", "reduce_ex"],
)
def test_an_identity_is_never_copied_or_pickled(take: object) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        take(ALICE)  # type: ignore[operator]


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_an_ephemeral_is_never_copied_or_pickled(take: object) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        take(Ephemeral(secret("e")))  # type: ignore[operator]


def test_both_sides_of_ecdh_agree_and_a_third_does_not() -> None:
    assert ALICE.ecdh(BOB.public) == BOB.ecdh(ALICE.public) == Ephemeral(secret("alice")).ecdh(BOB.public)
    assert ALICE.ecdh(BOB.public) != ALICE.ecdh(CAROL.public)


def test_a_wiped_identity_refuses_everything_that_needs_the_secret() -> None:
    identity = Identity.from_secret(secret("wiped"))
    assert identity.secret_for_storage() == secret("wiped")
    identity.wipe()
    identity.wipe()
    for use in (lambda: identity.sign(DIGEST), lambda: identity.ecdh(BOB.public), identity.secret_for_storage):
        with pytest.raises(LocalError, match=f"{identity!r}.*holds no secret"):
            use()
    assert identity.public == Identity.from_secret(secret("wiped")).public, "who it was stays known"


def test_a_wiped_ephemeral_refuses() -> None:
    ephemeral = Ephemeral(secret("wiped"))
    ephemeral.wipe()
    with pytest.raises(LocalError, match="Ephemeral"):
        ephemeral.ecdh(BOB.public)


def test_a_digest_of_another_length_is_a_callers_fault() -> None:
    for digest in (b"", DIGEST[1:], DIGEST + b"x"):
        with pytest.raises(LocalError, match=f"digest: expected 32 bytes, got {len(digest)}"):
            ALICE.sign(digest)
    with pytest.raises(LocalError, match="auxiliary randomness: expected 32 bytes, got 0"):
        ALICE.sign(DIGEST, b"")


FORK = """
import os
from musignet.crypto.keys import Identity
from musignet.crypto.secret import DEGRADED
from musignet.errors import LocalError

identity = Identity.from_secret(b"\\1" * 32)
reader, writer = os.pipe()
if os.fork() == 0:
    told = []
    for use in (lambda: identity.sign(bytes(32)), lambda: identity.ecdh(identity.public), identity.secret_for_storage):
        try:
            use()
            told.append("used")
        except LocalError:
            told.append("refused")
    os.write(writer, " ".join(told).encode())
    os._exit(0)
os.close(writer)
print(os.read(reader, 100).decode())
print("parent", identity.public.verify(bytes(32), identity.sign(bytes(32))))
print("degraded" if "MADV_WIPEONFORK" in DEGRADED else "protected")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_holds_no_secret_and_the_parent_still_does() -> None:
    """In an interpreter of its own: a fork of the test process would inherit whatever other tests left running."""
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=True)
    child, parent, protection = run.stdout.splitlines()
    assert parent == "parent True"
    if protection == "degraded":
        pytest.skip("this platform has no MADV_WIPEONFORK; musignet.crypto.secret.DEGRADED says so")
    assert child == "refused refused refused"
