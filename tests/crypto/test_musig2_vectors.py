"""BIP-327's published vectors, as far as libsecp256k1's interface goes.

Left out, and why:

- messages that are not 32 bytes (sign_verify: valid 4 and 5; nonce_gen: 1 and 2; det_sign: valid 2): libsecp256k1 signs
  digests only, and so does Bitcoin;
- nonce_gen 3, without a secret key, aggregate key, message and extra input: here all four are always given;
- nonce_gen's expected secret nonces: there is no way to read one; the public nonce is a function of it;
- det_sign as a way to sign: libsecp256k1 has no deterministic signing, and a keyholder that runs throughout a ceremony
  needs none. Its expected partial signatures are verified here, and its error cases judged.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from musignet.crypto import backend
from musignet.crypto.keyagg import InvalidContributionError, KeyAgg, key_sort, keys_untrusted
from musignet.crypto.keys import SigningKey
from musignet.crypto.musig2 import AggregateNonce, PublicNonce, SigningSession, nonce_agg
from musignet.crypto.schnorr import PublicKey
from musignet.crypto.secret_nonces import NonceSpentError, SecretNonces, WrongKeyError
from musignet.errors import LocalError
from support import vectors
from support.musig import generate, load_secret_nonce

Case = dict[str, Any]


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(vectors.text(f"bip327/{name}_vectors.json"))
    return loaded


def _picked(vector: Case, name: str, indices: list[int]) -> list[bytes]:
    return [bytes.fromhex(vector[name][index]) for index in indices]


def _keyagg(vector: Case, case: Case) -> KeyAgg:
    """Return the aggregate of a case with its tweaks, which stand in it or are numbered."""
    keyagg = KeyAgg(keys_untrusted(_picked(vector, "pubkeys", case["key_indices"])))
    scalars = case.get("tweaks") or [vector["tweaks"][index] for index in case.get("tweak_indices", [])]
    for scalar, xonly in zip(scalars, case.get("is_xonly", []), strict=True):
        keyagg = keyagg.tweak(bytes.fromhex(scalar), xonly=xonly)
    return keyagg


def _nonces(vector: Case, indices: list[int], keys: tuple[PublicKey, ...]) -> list[PublicNonce]:
    return [
        PublicNonce.parse_untrusted(data, signer, keys[signer])
        for signer, data in enumerate(_picked(vector, "pnonces", indices))
    ]


def _ready(keyagg: KeyAgg, key: SigningKey, message: bytes, secret_nonce: str, nonce: PublicNonce) -> SecretNonces:
    """Return one slot that holds the vector's secret nonce."""
    nonces = SecretNonces(1)
    generate(nonces, key, keyagg, message)
    load_secret_nonce(nonces, 0, bytes.fromhex(secret_nonce), nonce)
    return nonces


def _expect(error: Case, caught: InvalidContributionError) -> None:
    assert (caught.signer, caught.contribution.value) == (error["signer"], error["contrib"])


def test_key_sort() -> None:
    vector = _load("key_sort")
    keys = keys_untrusted([bytes.fromhex(key) for key in vector["pubkeys"]])
    assert [key.compressed.hex().upper() for key in key_sort(keys)] == vector["sorted_pubkeys"]


def test_key_agg(subtests: pytest.Subtests) -> None:
    vector = _load("key_agg")
    for number, case in enumerate(vector["valid_test_cases"]):
        with subtests.test(f"valid {number}"):
            assert _keyagg(vector, case).xonly.hex().upper() == case["expected"]


def test_key_agg_errors(subtests: pytest.Subtests) -> None:
    vector = _load("key_agg")
    for case in vector["error_test_cases"]:
        with subtests.test(case["comment"]):
            if case["error"]["type"] == "value":
                with pytest.raises(LocalError, match=r"^cannot tweak the aggregate key"):
                    _keyagg(vector, case)
            else:
                with pytest.raises(InvalidContributionError) as caught:
                    _keyagg(vector, case)
                _expect(case["error"], caught.value)


def test_nonce_agg(subtests: pytest.Subtests) -> None:
    vector = _load("nonce_agg")
    keys = (SigningKey.from_secret(b"\1" * 32).public,) * 2
    for number, case in enumerate(vector["valid_test_cases"]):
        with subtests.test(f"valid {number}"):
            aggregate = nonce_agg(_nonces(vector, case["pnonce_indices"], keys))
            assert aggregate.encoded.hex().upper() == case["expected"]
            assert AggregateNonce.parse_untrusted(aggregate.encoded) == aggregate
    for case in vector["error_test_cases"]:
        with subtests.test(case["comment"]):
            with pytest.raises(InvalidContributionError) as caught:
                _nonces(vector, case["pnonce_indices"], keys)
            _expect(case["error"], caught.value)
            assert caught.value.pubkey == keys[0].compressed


def test_nonce_gen() -> None:
    """The vector gives an aggregate key of which no group is known, so it is written into libsecp256k1's context."""
    case = _load("nonce_gen")["test_cases"][0]
    random, secret, message, extra = (bytes.fromhex(case[name]) for name in ("rand_", "sk", "msg", "extra_in"))
    key = SigningKey.from_secret(secret)
    assert key.pubkey_hex.upper() == case["pk"]
    keyagg = KeyAgg([key.public])
    context = backend.ffi.buffer(keyagg.context)
    magic_bytes, point_bytes = 4, 64
    point = backend.point_parse(b"\2" + bytes.fromhex(case["aggpk"]))
    context[magic_bytes : magic_bytes + point_bytes] = bytes(backend.ffi.buffer(point))
    nonce = SecretNonces(1).generate(0, random, key=key, keyagg=keyagg, message=message, extra=extra)
    assert nonce.encoded.hex().upper() == case["expected_pubnonce"]


def _is_digest(message: str) -> bool:
    return len(message) == 64


def test_sign_and_verify(subtests: pytest.Subtests) -> None:
    vector = _load("sign_verify")
    key = SigningKey.from_secret(bytes.fromhex(vector["sk"]))
    done = 0
    for case in (case for case in vector["valid_test_cases"] if _is_digest(vector["msgs"][case["msg_index"]])):
        with subtests.test(case.get("comment", f"signer {case['signer_index']}")):
            message, keyagg = bytes.fromhex(vector["msgs"][case["msg_index"]]), _keyagg(vector, case)
            nonces, signer = _nonces(vector, case["nonce_indices"], keyagg.keys), case["signer_index"]
            session = SigningSession(nonce_agg(nonces), message, keyagg)
            assert session.aggregate_nonce.encoded.hex().upper() == vector["aggnonces"][case["aggnonce_index"]]
            held = _ready(keyagg, key, message, vector["secnonces"][0], nonces[signer])
            partial = held.partial_sign(0, key, session)
            assert partial.hex().upper() == case["expected"]
            assert session.partial_verify(signer, nonces[signer], partial)
            done += 1
    assert done == 4


def test_sign_errors(subtests: pytest.Subtests) -> None:
    vector = _load("sign_verify")
    key = SigningKey.from_secret(bytes.fromhex(vector["sk"]))
    stranger, *contributions, reused = vector["sign_error_test_cases"]
    message = bytes.fromhex(vector["msgs"][0])
    with subtests.test(stranger["comment"]), pytest.raises(WrongKeyError, match="none of the keys"):
        generate(SecretNonces(1), key, _keyagg(vector, stranger), message)
    for case in contributions:
        with subtests.test(case["comment"]):
            with pytest.raises(InvalidContributionError) as caught:
                _begin(vector, case, message)
            _expect(case["error"], caught.value)
    with subtests.test(reused["comment"]):
        session = _begin(vector, reused, message)
        own = _nonces(vector, [0], (key.public,))[0]
        held = _ready(session.keyagg, key, message, vector["secnonces"][reused["secnonce_index"]], own)
        with pytest.raises(NonceSpentError):
            held.partial_sign(0, key, session)


def _begin(vector: Case, case: Case, message: bytes) -> SigningSession:
    keyagg = _keyagg(vector, case)
    aggregate = AggregateNonce.parse_untrusted(bytes.fromhex(vector["aggnonces"][case["aggnonce_index"]]))
    return SigningSession(aggregate, message, keyagg)


def test_partial_signatures_that_fail(subtests: pytest.Subtests) -> None:
    vector = _load("sign_verify")
    for case in vector["verify_fail_test_cases"]:
        with subtests.test(case["comment"]):
            keyagg, signer = _keyagg(vector, case), case["signer_index"]
            nonces = _nonces(vector, case["nonce_indices"], keyagg.keys)
            session = SigningSession(nonce_agg(nonces), bytes.fromhex(vector["msgs"][case["msg_index"]]), keyagg)
            assert session.partial_verify(signer, nonces[signer], bytes.fromhex(case["sig"])) is False


def test_verification_errors(subtests: pytest.Subtests) -> None:
    vector = _load("sign_verify")
    for case in vector["verify_error_test_cases"]:
        with subtests.test(case["comment"]):
            with pytest.raises(InvalidContributionError) as caught:
                _nonces(vector, case["nonce_indices"], _keyagg(vector, case).keys)
            _expect(case["error"], caught.value)


def test_tweaks(subtests: pytest.Subtests) -> None:
    vector = _load("tweak")
    key, message = SigningKey.from_secret(bytes.fromhex(vector["sk"])), bytes.fromhex(vector["msg"])
    for case in vector["valid_test_cases"]:
        with subtests.test(case["comment"]):
            keyagg, signer = _keyagg(vector, case), case["signer_index"]
            nonces = _nonces(vector, case["nonce_indices"], keyagg.keys)
            session = SigningSession(nonce_agg(nonces), message, keyagg)
            assert session.aggregate_nonce.encoded.hex().upper() == vector["aggnonce"]
            held = _ready(keyagg, key, message, vector["secnonce"], nonces[signer])
            assert held.partial_sign(0, key, session).hex().upper() == case["expected"]
    for case in vector["error_test_cases"]:
        with subtests.test(case["comment"]), pytest.raises(LocalError, match=r"^cannot tweak the aggregate key"):
            _keyagg(vector, case)


def test_signature_aggregation(subtests: pytest.Subtests) -> None:
    vector = _load("sig_agg")
    for number, case in enumerate(vector["valid_test_cases"]):
        with subtests.test(f"valid {number}"):
            session, nonces, partials = _round_2(vector, case)
            assert nonce_agg(nonces) == session.aggregate_nonce
            signature = session.partial_agg(partials)
            assert signature.hex().upper() == case["expected"]
            assert session.complete(nonces, partials) == signature
    for case in vector["error_test_cases"]:
        with subtests.test(case["comment"]):
            session, nonces, partials = _round_2(vector, case)
            with pytest.raises(InvalidContributionError) as caught:
                session.complete(nonces, partials)
            _expect(case["error"], caught.value)


def _round_2(vector: Case, case: Case) -> tuple[SigningSession, list[PublicNonce], list[bytes]]:
    keyagg = _keyagg(vector, case)
    aggregate = AggregateNonce.parse_untrusted(bytes.fromhex(case["aggnonce"]))
    session = SigningSession(aggregate, bytes.fromhex(vector["msg"]), keyagg)
    nonces = _nonces(vector, case["nonce_indices"], keyagg.keys)
    return session, nonces, _picked(vector, "psigs", case["psig_indices"])


def test_what_a_deterministic_signer_sends_verifies(subtests: pytest.Subtests) -> None:
    vector = _load("det_sign")
    cases = [case for case in vector["valid_test_cases"] if _is_digest(vector["msgs"][case["msg_index"]])]
    assert len(cases) == 3
    for number, case in enumerate(cases):
        with subtests.test(f"valid {number}"):
            keyagg, signer = _keyagg(vector, case), case["signer_index"]
            own, partial = (bytes.fromhex(part) for part in case["expected"])
            nonce = PublicNonce.parse_untrusted(own, signer, keyagg.keys[signer])
            others = PublicNonce.parse_untrusted(bytes.fromhex(case["aggothernonce"]), 0, keyagg.keys[0])
            session = SigningSession(nonce_agg([nonce, others]), bytes.fromhex(vector["msgs"][0]), keyagg)
            assert session.partial_verify(signer, nonce, partial)


def test_what_a_deterministic_signer_refuses(subtests: pytest.Subtests) -> None:
    vector = _load("det_sign")
    key = SigningKey.from_secret(bytes.fromhex(vector["sk"]))
    pubkey, stranger, *aggregates, tweak = vector["error_test_cases"]
    with subtests.test(pubkey["comment"]):
        with pytest.raises(InvalidContributionError) as caught:
            _keyagg(vector, pubkey)
        _expect(pubkey["error"], caught.value)
    with subtests.test(stranger["comment"]):
        assert key.public not in _keyagg(vector, stranger)
    for case in aggregates:  # "the others' nonces, summed" must be two points, as if one signer had sent it
        with subtests.test(case["comment"]), pytest.raises(InvalidContributionError):
            PublicNonce.parse_untrusted(bytes.fromhex(case["aggothernonce"]), 0, key.public)
    with subtests.test(tweak["comment"]), pytest.raises(LocalError, match=r"^cannot tweak the aggregate key"):
        _keyagg(vector, tweak)
