"""Secret nonces: made once, used once, never seen, whatever fails."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from musignet.crypto import musig_backend
from musignet.crypto.keyagg import KeyAgg
from musignet.crypto.keys import SigningKey
from musignet.crypto.musig2 import PublicNonce, SigningSession, nonce_agg
from musignet.crypto.secret_nonces import (
    NonceSpentError,
    SecretNonces,
    SelfCheckError,
    WrongKeyError,
    WrongSessionError,
)
from musignet.errors import LocalError
from musignet.limits import SLOTS_MAX
from support.keys import secret
from support.musig import DIGEST, Cosigners, generate, load_secret_nonce, partials, signing_key, slot_bytes

ALICE, BOB, CAROL = (signing_key(name) for name in ("alice", "bob", "carol"))
PAIR = KeyAgg([ALICE.public, BOB.public])
STRIDE = musig_backend.SECRET_NONCE_BYTES + 32
EMPTY = bytes(STRIDE)
NEXT_ATTEMPT = "nothing was signed; the next attempt has fresh nonces"


# --- made once ------------------------------------------------------------------------------------------------------


def test_generating_fills_one_slot_and_uses_up_the_randomness() -> None:
    nonces, random = SecretNonces(3), secret("random")
    before = bytes(bytearray(random))
    nonce = nonces.generate(1, random, key=ALICE, keyagg=PAIR, message=DIGEST, extra=DIGEST)
    assert slot_bytes(nonces, 0) == slot_bytes(nonces, 2) == EMPTY
    assert slot_bytes(nonces, 1)[: musig_backend.SECRET_NONCE_BYTES].count(0) < 100
    assert slot_bytes(nonces, 1)[musig_backend.SECRET_NONCE_BYTES :] == bytes(32)
    assert random == before, "libsecp256k1 zeroes its input in place, even inside a bytes object"
    assert PublicNonce.parse_untrusted(nonce.encoded, 0, ALICE.public) == nonce


@pytest.mark.parametrize("slot", [-1, 2, 99])
def test_a_slot_that_is_not_there_is_refused(slot: int) -> None:
    with pytest.raises(LocalError, match=f"^that slot is not empty: expected 0 to 1, each once, got {slot}$"):
        generate(SecretNonces(2), ALICE, PAIR, slot=slot)


def test_a_slot_is_filled_once() -> None:
    nonces = SecretNonces(1)
    generate(nonces, ALICE, PAIR)
    made = slot_bytes(nonces)
    with pytest.raises(LocalError, match=r"^that slot is not empty"):
        generate(nonces, ALICE, PAIR, name="again")
    assert slot_bytes(nonces) == made


@pytest.mark.parametrize("slots", [-1, 0, SLOTS_MAX + 1])
def test_the_number_of_slots_is_bounded(slots: int) -> None:
    with pytest.raises(LocalError, match=f"expected 1 to {SLOTS_MAX}, got {slots}$"):
        SecretNonces(slots)


def test_the_largest_attempt_fits() -> None:
    nonces = SecretNonces(SLOTS_MAX)
    generate(nonces, ALICE, PAIR, slot=SLOTS_MAX - 1)
    assert slot_bytes(nonces, SLOTS_MAX - 1) != EMPTY


REFUSED_INPUTS: dict[str, tuple[dict[str, object], str]] = {
    "no randomness": ({"random": b""}, "that is not randomness"),
    "31 random bytes": ({"random": DIGEST[1:]}, "that is not randomness"),
    "33 random bytes": ({"random": DIGEST + b"x"}, "that is not randomness"),
    "zero randomness": ({"random": bytes(32)}, "that is not randomness: expected 32 random bytes; do not go on"),
    "no message": ({"message": b""}, "message: expected 32 bytes, got 0"),
    "a long message": ({"message": bytes(33)}, "message: expected 32 bytes, got 33"),
    "no extra input": ({"extra": b""}, "extra input: expected 32 bytes, got 0"),
    "a long extra input": ({"extra": bytes(33)}, "extra input: expected 32 bytes, got 33"),
}


@pytest.mark.parametrize(("changed", "sentence"), REFUSED_INPUTS.values(), ids=REFUSED_INPUTS)
def test_a_refused_input_leaves_nothing_behind_and_spends_the_slot(changed: dict[str, object], sentence: str) -> None:
    nonces = SecretNonces(1)
    given = {"random": secret("random"), "key": ALICE, "keyagg": PAIR, "message": DIGEST, "extra": DIGEST} | changed
    with pytest.raises(LocalError, match=sentence):
        nonces.generate(0, given.pop("random"), **given)  # type: ignore[arg-type]
    assert slot_bytes(nonces) == EMPTY
    with pytest.raises(LocalError, match=r"^that slot is not empty"):
        generate(nonces, ALICE, PAIR)
    with pytest.raises(NonceSpentError):
        nonces.partial_sign(0, ALICE, _session())


def test_a_key_that_is_none_of_the_aggregates_gets_no_nonce() -> None:
    nonces = SecretNonces(1)
    with pytest.raises(WrongKeyError, match=f"^<SigningKey {CAROL.pubkey_hex[2:10]}> is none of the keys of <KeyAgg"):
        generate(nonces, CAROL, PAIR)
    assert slot_bytes(nonces) == EMPTY


def test_a_wiped_key_gets_no_nonce() -> None:
    nonces, key = SecretNonces(1), signing_key("alice")
    key.wipe()
    with pytest.raises(LocalError, match=r"^cannot make a nonce for <SigningKey"):
        generate(nonces, key, PAIR)
    assert slot_bytes(nonces) == EMPTY


def test_with_a_broken_random_source_every_other_input_still_makes_another_nonce() -> None:
    """THREATS.md K8. The same inputs must make the same nonce, or the comparison would show nothing."""
    base: dict[str, object] = {"key": ALICE, "keyagg": PAIR, "message": DIGEST, "extra": secret("extra")}
    changes: list[dict[str, object]] = [
        {},
        {"key": BOB},
        {"keyagg": PAIR.tweak(DIGEST, xonly=True)},
        {"keyagg": KeyAgg([BOB.public, ALICE.public])},
        {"message": secret("another digest")},
        {"extra": secret("another input")},
    ]
    constant = b"\7" * 32
    seen = [SecretNonces(1).generate(0, constant, **base | change).encoded for change in changes]  # type: ignore[arg-type]
    assert len(set(seen)) == len(changes)
    assert SecretNonces(1).generate(0, constant, **base).encoded == seen[0]  # type: ignore[arg-type]
    halves = [half for nonce in seen for half in (nonce[:33], nonce[33:])]
    assert len(set(halves)) == len(halves)


def test_the_randomness_makes_another_nonce_too() -> None:
    fixed: dict[str, object] = {"key": ALICE, "keyagg": PAIR, "message": DIGEST, "extra": DIGEST}
    first, second = (SecretNonces(1).generate(0, secret(name), **fixed) for name in ("one", "two"))  # type: ignore[arg-type]
    assert first != second


# --- used once ------------------------------------------------------------------------------------------------------


def _session(keyagg: KeyAgg = PAIR, message: bytes = DIGEST, *extra: PublicNonce) -> SigningSession:
    other = generate(SecretNonces(1), BOB, PAIR, name="somebody")
    return SigningSession(nonce_agg([other, *extra]), message, keyagg)


def test_a_nonce_signs_once() -> None:
    group = Cosigners.meet((ALICE, BOB))
    held = group.secret_nonces[0]
    partial = held.partial_sign(0, ALICE, group.session)
    assert group.session.partial_verify(0, group.nonces[0], partial)
    assert slot_bytes(held) == EMPTY
    for _ in range(2):
        with pytest.raises(
            NonceSpentError, match=r"^slot 0 holds no secret nonce; nothing was signed; the next attempt"
        ):
            held.partial_sign(0, ALICE, group.session)


@pytest.mark.parametrize("slot", [0, 1, -1, 7])
def test_an_empty_slot_signs_nothing(slot: int) -> None:
    with pytest.raises(NonceSpentError, match=f"^slot {slot} holds no secret nonce"):
        SecretNonces(2).partial_sign(slot, ALICE, _session())


def test_a_spent_slot_cannot_be_filled_again() -> None:
    group = Cosigners.meet((ALICE, BOB))
    partials(group)
    with pytest.raises(LocalError, match=r"^that slot is not empty"):
        generate(group.secret_nonces[0], ALICE, PAIR)


def test_slots_are_independent() -> None:
    nonces = SecretNonces(4)
    messages = [secret(f"input {slot}") for slot in range(4)]
    public = [
        generate(nonces, ALICE, PAIR, message, slot=slot, name=str(slot)) for slot, message in enumerate(messages)
    ]
    assert len(set(public)) == 4
    for slot in (2, 0, 3, 1):
        session = _session(PAIR, messages[slot], public[slot])
        untouched = {other: slot_bytes(nonces, other) for other in range(4) if other != slot}
        assert session.partial_verify(0, public[slot], nonces.partial_sign(slot, ALICE, session))
        assert slot_bytes(nonces, slot) == EMPTY
        assert {other: slot_bytes(nonces, other) for other in untouched} == untouched


MISUSES: dict[str, tuple[Callable[[PublicNonce], tuple[SigningKey, SigningSession]], type[LocalError], str]] = {
    "another member's key": (lambda own: (BOB, _session(PAIR, DIGEST, own)), WrongKeyError, "made for another key"),
    "a stranger's key": (lambda own: (CAROL, _session(PAIR, DIGEST, own)), WrongKeyError, "made for another key"),
    "a session without us": (
        lambda own: (ALICE, _session(KeyAgg([BOB.public, CAROL.public]), DIGEST, own)),
        WrongKeyError,
        "none of the keys of",
    ),
    "another message": (
        lambda own: (ALICE, _session(PAIR, secret("another digest"), own)),
        WrongSessionError,
        "made for another message",
    ),
    "another tweak": (
        lambda own: (ALICE, _session(PAIR.tweak(DIGEST, xonly=False), DIGEST, own)),
        WrongSessionError,
        "made for another aggregate key",
    ),
    "another order of keys": (
        lambda own: (ALICE, _session(KeyAgg([BOB.public, ALICE.public]), DIGEST, own)),
        WrongSessionError,
        "made for another aggregate key",
    ),
}


@pytest.mark.parametrize(("misuse", "kind", "sentence"), MISUSES.values(), ids=MISUSES)
def test_a_refused_signature_spends_the_nonce_all_the_same(
    misuse: Callable[[PublicNonce], tuple[SigningKey, SigningSession]], kind: type[LocalError], sentence: str
) -> None:
    nonces = SecretNonces(1)
    own = generate(nonces, ALICE, PAIR)
    with pytest.raises(kind, match=f"{sentence}.*; nothing was signed"):
        nonces.partial_sign(0, *misuse(own))
    assert slot_bytes(nonces) == EMPTY
    with pytest.raises(NonceSpentError):
        nonces.partial_sign(0, ALICE, _session(PAIR, DIGEST, own))


def test_a_wiped_key_signs_nothing_and_spends_the_nonce() -> None:
    nonces, key = SecretNonces(1), signing_key("alice")
    own = generate(nonces, key, PAIR)
    key.wipe()
    with pytest.raises(NonceSpentError, match=r"^the nonce or the key was wiped"):
        nonces.partial_sign(0, key, _session(PAIR, DIGEST, own))
    assert slot_bytes(nonces) == EMPTY


def test_a_signature_that_fails_its_own_check_does_not_leave() -> None:
    """A flipped bit of the secret nonce in memory: libsecp256k1 would sign, and the signature would be wrong."""
    nonces = SecretNonces(1)
    own = generate(nonces, ALICE, PAIR)
    flipped = bytearray(slot_bytes(nonces)[4:68])
    flipped[40] ^= 1
    load_secret_nonce(nonces, 0, bytes(flipped) + ALICE.pubkey)
    with pytest.raises(SelfCheckError, match=r"^our own partial signature does not verify"):
        nonces.partial_sign(0, ALICE, _session(PAIR, DIGEST, own))
    assert slot_bytes(nonces) == EMPTY


class Rendezvous(int):
    """A slot number that lets no thread look it up in a table before all threads are about to."""

    barrier: threading.Barrier

    def __hash__(self) -> int:
        self.barrier.wait()
        return super().__hash__()


def test_of_64_threads_exactly_one_gets_the_nonce() -> None:
    """THREATS.md K1. Looking first and taking then would let all of them through: they meet before each look-up.

    The others are turned away before libsecp256k1, which would find zeros, is even asked.
    """
    group = Cosigners.meet((ALICE, BOB))
    slot = Rendezvous(0)
    slot.barrier = threading.Barrier(64, timeout=30)
    signatures, refusals = _race(group, slot)
    assert group.session.partial_verify(0, group.nonces[0], *signatures)
    assert refusals == [f"slot 0 holds no secret nonce; {NEXT_ATTEMPT}"] * 63


def _race(group: Cosigners, slot: Rendezvous) -> tuple[list[bytes], list[str]]:
    signatures: list[bytes] = []
    refusals: list[str] = []

    def sign() -> None:
        try:
            signatures.append(group.secret_nonces[0].partial_sign(slot, ALICE, group.session))
        except NonceSpentError as error:
            refusals.append(str(error))

    racers = [threading.Thread(target=sign) for _ in range(slot.barrier.parties)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return signatures, refusals


# --- never seen -----------------------------------------------------------------------------------------------------


def test_wiping_ends_everything() -> None:
    nonces = SecretNonces(3)
    own = generate(nonces, ALICE, PAIR)
    for _ in range(2):
        nonces.wipe()
        assert slot_bytes(nonces) == EMPTY
    with pytest.raises(NonceSpentError, match=r"^slot 0 holds no secret nonce"):
        nonces.partial_sign(0, ALICE, _session(PAIR, DIGEST, own))
    with pytest.raises(LocalError, match=r"^that slot is not empty"):
        generate(nonces, ALICE, PAIR, slot=1)


def test_dropping_the_object_wipes_the_memory() -> None:
    nonces = SecretNonces(2)
    generate(nonces, ALICE, PAIR)
    generate(nonces, ALICE, PAIR, slot=1, name="second")
    view = nonces._memory.view
    assert any(view)
    del nonces
    gc.collect()
    assert not any(view)


@pytest.mark.parametrize(
    "take",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda it: it.__reduce__(), lambda it: it.__reduce_ex__(2)],
    ids=["copy", "deepcopy", "pickle", "reduce", "reduce_ex"],
)
@pytest.mark.parametrize("secret_object", [SecretNonces(1), ALICE], ids=["nonces", "key"])
def test_nothing_secret_is_copied_or_pickled(take: Callable[[object], object], secret_object: object) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        take(secret_object)


@pytest.mark.parametrize("read", [bytes, bytearray, memoryview, list, len, hex, vars], ids=lambda read: read.__name__)
def test_nonces_cannot_be_read(read: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        read(SecretNonces(1))


def test_nonces_print_as_their_number_and_equal_only_themselves() -> None:
    first, second = SecretNonces(2), SecretNonces(2)
    for nonces in (first, second):
        generate(nonces, ALICE, PAIR)
    assert repr(first) == str(first) == f"{first}" == "<SecretNonces: 2 slots>"
    assert first != second, "the same nonces, and still no comparison"


FORK = """
import os
from musignet.crypto.keyagg import KeyAgg
from musignet.crypto.keys import SigningKey
from musignet.crypto.musig2 import SigningSession, nonce_agg
from musignet.crypto.secret import DEGRADED
from musignet.crypto.secret_nonces import NonceSpentError, SecretNonces

key, digest = SigningKey.from_secret(b"\\1" * 32), b"\\2" * 32
keyagg, nonces = KeyAgg([key.public]), SecretNonces(1)
nonce = nonces.generate(0, b"\\3" * 32, key=key, keyagg=keyagg, message=digest, extra=digest)
session = SigningSession(nonce_agg([nonce]), digest, keyagg)
reader, writer = os.pipe()
if os.fork() == 0:
    told = "zeros" if not any(nonces._memory.view) else "secret"
    try:
        nonces.partial_sign(0, SigningKey.from_secret(b"\\1" * 32), session)
        told += " signed"
    except NonceSpentError as error:
        told += " " + str(error)
    os.write(writer, told.encode())
    os._exit(0)
os.close(writer)
print(os.read(reader, 500).decode())
print("parent", session.verify(session.complete([nonce], [nonces.partial_sign(0, key, session)])))
print("degraded" if "MADV_WIPEONFORK" in DEGRADED else "protected")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_finds_zeros_even_with_the_key_in_hand() -> None:
    """In an interpreter of its own: a fork of the test process would inherit whatever other tests left running."""
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=True)
    child, parent, protection = run.stdout.splitlines()
    assert parent == "parent True"
    if protection == "degraded":
        pytest.skip("this platform has no MADV_WIPEONFORK; musignet.crypto.secret.DEGRADED says so")
    assert child.startswith("zeros the nonce or the key was wiped, or left behind by a fork: ")
