"""Proofs of consent: each for one thing, made by one key."""

from __future__ import annotations

import pytest

from musignet.crypto.keys import ApproverKey
from musignet.errors import AuthenticationError, LocalError
from musignet.signing.approver import Approver, prove_consent, prove_group
from musignet.signing.policy import ask_always
from musignet.signing.records import consent_digest
from musignet.signing.verbs import Approve, Approved, Asked, Refused
from support.ceremony import identity, keyholder, perform, proposal
from support.keys import secret

KEY = ApproverKey.from_secret(secret("approver"))
APPROVER = Approver(KEY.pubkey[1:])
SESSION, DIGEST = bytes(32), bytes(range(32))


def test_a_proof_holds_for_what_it_names_and_nothing_else() -> None:
    proof = prove_consent(KEY, SESSION, DIGEST)
    assert len(proof) == 64
    assert APPROVER.consented(SESSION, DIGEST, proof)
    assert not APPROVER.consented(DIGEST, SESSION, proof)
    assert not APPROVER.consented(SESSION, SESSION, proof)
    assert not APPROVER.pinned(SESSION, proof)
    group = prove_group(KEY, DIGEST)
    assert APPROVER.pinned(DIGEST, group)
    assert not APPROVER.pinned(SESSION, group)
    assert not APPROVER.consented(SESSION, DIGEST, group)


@pytest.mark.parametrize("proof", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_other_bytes_are_no_proof(proof: bytes) -> None:
    assert not APPROVER.consented(SESSION, DIGEST, proof)
    assert not APPROVER.pinned(DIGEST, proof)


def test_every_bit_of_a_proof_counts() -> None:
    proof = prove_consent(KEY, SESSION, DIGEST)
    for at in range(64):
        assert not APPROVER.consented(SESSION, DIGEST, proof[:at] + bytes((proof[at] ^ 1,)) + proof[at + 1 :])
    assert not APPROVER.consented(SESSION, DIGEST, proof + b"\0")


def test_another_key_consents_to_nothing() -> None:
    proof = prove_consent(ApproverKey.from_secret(secret("mallory")), SESSION, DIGEST)
    assert not APPROVER.consented(SESSION, DIGEST, proof)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), b"\xff" * 32, KEY.pubkey])
def test_what_is_no_key_is_refused(public: bytes) -> None:
    with pytest.raises(AuthenticationError):
        Approver(public)


def test_a_wiped_key_proves_nothing() -> None:
    key = ApproverKey.from_secret(secret("gone"))
    key.wipe()
    with pytest.raises(LocalError):
        prove_consent(key, SESSION, DIGEST)


def test_a_keyholder_believes_its_approver_and_not_the_node() -> None:
    from_node = identity("alice")  # the node holds this key, and it says nothing to the keyholder
    holder = keyholder("alice", policy=ask_always, verifier=APPROVER.consented)
    verb = proposal("bob")
    (asked,) = perform(holder, Approve(verb))
    assert isinstance(asked, Asked)
    forged = from_node.sign(bytes(32))
    (refused,) = perform(holder, Approve(verb, forged))
    assert isinstance(refused, Refused)
    (approved,) = perform(holder, Approve(verb, prove_consent(KEY, verb.session, consent_digest(asked.digest, ()))))
    assert isinstance(approved, Approved)
