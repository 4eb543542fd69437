"""The one binding to libsecp256k1: a misuse raises `BackendError`, it never aborts the process."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from musignet.crypto import backend
from musignet.crypto.backend import BackendError
from support.keys import GROUP_ORDER, secret

MISUSES = '''
"""Each line misuses the binding in one way and prints what came of it; an abort would end the output."""
from btclib_secp256k1 import ffi
from musignet.crypto import backend
from musignet.crypto.keys import Ephemeral, Identity

SECRET, DIGEST = b"\\1" * 32, b"\\2" * 32
memory = bytearray(128)
whole = backend.view(memory)
empty_pair = backend.keypair_at(whole, 32)
empty_point, empty_xonly = ffi.new("secp256k1_pubkey *"), ffi.new("secp256k1_xonly_pubkey *")
full_of_ff = ffi.new("secp256k1_keypair *")
ffi.memmove(full_of_ff, b"\\xff" * 96, 96)
point = backend.point_of_secret(backend.secret_copy(SECRET))
zero = backend.secret_copy(SECRET)
backend.secret_zero(zero)
order = backend.secret_copy(bytes.fromhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"))

for name, misuse in {
    "sign with an empty pair": lambda: backend.schnorr_sign(empty_pair, DIGEST, None),
    "sign with a null pair": lambda: backend.schnorr_sign(ffi.NULL, DIGEST, None),
    "sign 31 bytes": lambda: backend.schnorr_sign(empty_pair, DIGEST[1:], None),
    "sign 0 bytes": lambda: backend.schnorr_sign(empty_pair, b"", None),
    "sign with 31 bytes of aux": lambda: backend.schnorr_sign(empty_pair, DIGEST, DIGEST[1:]),
    "point of an empty pair": lambda: backend.point_serialize(backend.point_of_keypair(empty_pair)),
    "pair of zero": lambda: backend.keypair_create(empty_pair, zero),
    "pair of the order": lambda: backend.keypair_create(empty_pair, order),
    "pair from null": lambda: backend.keypair_create(empty_pair, ffi.NULL),
    "point of zero": lambda: backend.point_of_secret(zero),
    "point of the order": lambda: backend.point_of_secret(order),
    "serialize an empty point": lambda: backend.point_serialize(empty_point),
    "x-only of an empty point": lambda: backend.xonly_of(empty_point),
    "x-only of null": lambda: backend.xonly_of(ffi.NULL),
    "ecdh with an empty point": lambda: backend.ecdh(backend.secret_copy(SECRET), empty_point),
    "ecdh with the order": lambda: backend.ecdh(order, point),
    "ecdh with zero": lambda: backend.ecdh(zero, point),
    "ecdh with null": lambda: backend.ecdh(ffi.NULL, point),
    "parse 32 bytes": lambda: backend.point_parse(DIGEST),
    "parse nothing": lambda: backend.point_parse(b""),
    "x-only of 33 bytes": lambda: backend.xonly_parse(b"\\2" + DIGEST),
    "x-only of x = 5": lambda: backend.xonly_parse(bytes(31) + b"\\5"),
    "copy 31 secret bytes": lambda: backend.secret_copy(SECRET[1:]),
}.items():
    try:
        print(name, "->", "no error", misuse())
    except backend.BackendError as error:
        print(name, "->", "BackendError", error)
print("verify under an empty key ->", backend.schnorr_verify(empty_xonly, DIGEST, bytes(64)))
print("verify under null ->", backend.schnorr_verify(ffi.NULL, DIGEST, bytes(64)))
identity = Identity.from_secret(SECRET)
identity.wipe()
try:
    identity.sign(DIGEST)
except Exception as error:
    print("wiped identity ->", type(error).__name__)
print("point of a pair of 0xff ->", type(backend.point_of_keypair(full_of_ff)).__name__)
print("still alive")
'''


def test_no_misuse_aborts_the_process() -> None:
    run = subprocess.run([sys.executable, "-c", MISUSES], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    *cases, verify_empty, verify_null, wiped, _pair, alive = run.stdout.splitlines()
    assert len(cases) == MISUSES.count("lambda:")
    assert [line for line in cases if "-> BackendError" not in line] == []
    assert verify_empty == "verify under an empty key -> False"
    assert verify_null == "verify under null -> False"
    assert wiped == "wiped identity -> LocalError"
    assert alive == "still alive"


def test_a_refusal_names_the_broken_precondition_once() -> None:
    """libsecp256k1 gives the reason to a callback; it must not stick to a later, unrelated refusal."""
    memory = backend.view(bytearray(96))  # a handle into it does not keep it alive
    empty = backend.keypair_at(memory, 0)
    with pytest.raises(BackendError, match=r"^signing: .+"):
        backend.schnorr_sign(empty, bytes(32), None)
    with pytest.raises(BackendError, match=r"^public key: invalid input$"):
        backend.point_parse(bytes(33))


def test_a_verification_under_a_garbage_key_leaves_no_reason_behind() -> None:
    pair = backend.view(bytearray(96))
    assert backend.schnorr_verify(backend.ffi.cast("secp256k1_xonly_pubkey *", pair), bytes(32), bytes(64)) is False
    with pytest.raises(BackendError, match=r"^public key: invalid input$"):
        backend.point_parse(bytes(33))


def test_the_reason_belongs_to_the_calling_thread() -> None:
    reasons = []

    def refuse() -> None:
        try:
            backend.point_parse(bytes(33))
        except BackendError as error:
            reasons.append(str(error))

    other = threading.Thread(target=refuse)
    backend._on_illegal(backend.ffi.new("char[]", b"ours"), backend.ffi.NULL)  # as libsecp256k1 does within a call
    other.start()
    other.join()
    assert reasons == ["public key: invalid input"]
    with pytest.raises(BackendError, match=r"^public key: ours$"):
        backend.point_parse(bytes(33))


@pytest.mark.parametrize("scalar", [1, 2, GROUP_ORDER - 1])
def test_ecdh_is_the_hash_of_the_shared_point_from_both_sides(scalar: int) -> None:
    ours, theirs = backend.secret_copy(scalar.to_bytes(32, "big")), backend.secret_copy(secret("theirs"))
    assert backend.ecdh(ours, backend.point_of_secret(theirs)) == backend.ecdh(theirs, backend.point_of_secret(ours))


def test_a_view_is_the_memory_itself() -> None:
    memory = bytearray(b"abc")
    view = backend.view(memory)
    view[0:1] = b"x"
    assert memory == b"xbc"
    assert backend.address(view) != backend.address(backend.view(bytearray(3)))
    with pytest.raises(BufferError):
        memory.append(0)


def test_secret_zero_overwrites_the_copy_and_not_the_original() -> None:
    original = bytearray(secret("x"))
    copy = backend.secret_copy(original)
    assert bytes(backend.ffi.buffer(copy)) == original
    backend.secret_zero(copy)
    assert bytes(backend.ffi.buffer(copy)) == bytes(32)
    assert original == secret("x")


@pytest.mark.parametrize(
    "use",
    [
        lambda: backend.xonly_of(_EMPTY_POINT),
        lambda: backend.point_serialize(_EMPTY_POINT),
        lambda: backend.ecdh(backend.secret_copy(secret("x")), _EMPTY_POINT),
        lambda: backend.point_of_keypair(backend.ffi.NULL),
        lambda: backend.xonly_parse(bytes(32)),
    ],
)
def test_an_unparsed_handle_is_refused(use: object) -> None:
    with pytest.raises(BackendError, match=r"^[\w -]+: .+"):
        use()  # type: ignore[operator]


_EMPTY_POINT = backend.ffi.new("secp256k1_pubkey *")


def test_a_library_with_a_missing_symbol_or_a_moved_struct_is_refused_at_import() -> None:
    with pytest.raises(ImportError, match="secp256k1_keypair has 96 bytes, expected 95"):
        backend.probe((), {"secp256k1_keypair": 95})
    with pytest.raises(ImportError, match="lacks secp256k1_none, secp256k1_such"):
        backend.probe(("secp256k1_ecdh", "secp256k1_none", "secp256k1_such"), {})
