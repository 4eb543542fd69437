"""The third implementation is judged by BIP-327's vectors before it judges ours.

All cases of key aggregation, nonce aggregation, signing, verifying, tweaks and signature aggregation, valid and not,
and the first of nonce generation. Deterministic signing and sorting are not written there.
"""

from __future__ import annotations

from typing import Any

import pytest

from musignet.crypto.keyagg import keys_untrusted
from support.bip import table
from support.plain_musig2 import Aggregate, Session, aggregate_nonces, make_nonce, verify

Case = dict[str, Any]


def _vector(name: str) -> Case:
    loaded: Case = table(f"bip327/{name}_vectors.json")
    return loaded


def _picked(vector: Case, name: str, indices: list[int]) -> list[bytes]:
    return [bytes.fromhex(vector[name][index]) for index in indices]


def _group(vector: Case, case: Case) -> Aggregate:
    tweaks = _picked(vector, "tweaks", case.get("tweak_indices", []))
    return Aggregate(
        _picked(vector, "pubkeys", case["key_indices"]), zip(tweaks, case.get("is_xonly", []), strict=True)
    )


def _message(vector: Case, case: Case) -> bytes:
    return bytes.fromhex(vector["msg"] if "msg" in vector else vector["msgs"][case["msg_index"]])


def _secret_nonce(text: str) -> tuple[int, int]:
    return int(text[:64], 16), int(text[64:128], 16)


def _sign(vector: Case, case: Case) -> bytes:
    aggregate = vector["aggnonce"] if "aggnonce" in vector else vector["aggnonces"][case["aggnonce_index"]]
    secret_nonce = vector["secnonce"] if "secnonce" in vector else vector["secnonces"][case.get("secnonce_index", 0)]
    session = Session(_group(vector, case), bytes.fromhex(aggregate), _message(vector, case))
    return session.sign(_secret_nonce(secret_nonce), bytes.fromhex(vector["sk"]))


def test_keys() -> None:
    vector = _vector("key_agg")
    for case in vector["valid_test_cases"]:
        assert _group(vector, case).output.xonly.hex().upper() == case["expected"]
    for case in vector["error_test_cases"]:
        with pytest.raises(ValueError, match=r"no point|beyond the order|to infinity"):
            _group(vector, case)


def test_nonces() -> None:
    case = _vector("nonce_gen")["test_cases"][0]
    given = (bytes.fromhex(case[name]) for name in ("rand_", "sk", "aggpk", "msg", "extra_in"))
    secret_nonce, nonce = make_nonce(*given)
    assert secret_nonce == _secret_nonce(case["expected_secnonce"])
    assert nonce.hex().upper() == case["expected_pubnonce"]
    vector = _vector("nonce_agg")
    for case in vector["valid_test_cases"]:
        assert aggregate_nonces(_picked(vector, "pnonces", case["pnonce_indices"])).hex().upper() == case["expected"]
    for case in vector["error_test_cases"]:
        with pytest.raises(ValueError, match="no point"):
            aggregate_nonces(_picked(vector, "pnonces", case["pnonce_indices"]))


@pytest.mark.parametrize("name", ["sign_verify", "tweak"])
def test_partial_signatures(name: str) -> None:
    vector = _vector(name)
    for case in vector["valid_test_cases"]:
        partial = _sign(vector, case)
        assert partial.hex().upper() == case["expected"]
        nonces, signer = _picked(vector, "pnonces", case["nonce_indices"]), case["signer_index"]
        session = Session(_group(vector, case), aggregate_nonces(nonces), _message(vector, case))
        assert session.holds(partial, nonces[signer], session.group.keys[signer])
    for case in vector.get("sign_error_test_cases", []) + vector.get("error_test_cases", []):
        with pytest.raises(ValueError, match=r"no point|not ours|beyond the order"):
            _sign(vector, case)


def test_partial_signatures_that_fail() -> None:
    vector = _vector("sign_verify")
    for case in vector["verify_fail_test_cases"]:
        nonces, signer = _picked(vector, "pnonces", case["nonce_indices"]), case["signer_index"]
        session = Session(_group(vector, case), aggregate_nonces(nonces), _message(vector, case))
        assert not session.holds(bytes.fromhex(case["sig"]), nonces[signer], session.group.keys[signer])
    for case in vector["verify_error_test_cases"]:
        with pytest.raises(ValueError, match="no point"):
            _group(vector, case), aggregate_nonces(_picked(vector, "pnonces", case["nonce_indices"]))


def test_signatures() -> None:
    vector = _vector("sig_agg")
    message = bytes.fromhex(vector["msg"])
    for case in vector["valid_test_cases"]:
        assert aggregate_nonces(_picked(vector, "pnonces", case["nonce_indices"])).hex().upper() == case["aggnonce"]
        session = Session(_group(vector, case), bytes.fromhex(case["aggnonce"]), message)
        signature = session.finish(_picked(vector, "psigs", case["psig_indices"]))
        assert signature.hex().upper() == case["expected"]
        assert verify(signature, session.group.output.xonly, message)
        assert keys_untrusted([session.group.output.encoded])[0].verify(message, signature)
        assert not verify(signature[:-1] + bytes((signature[-1] ^ 1,)), session.group.output.xonly, message)
    for case in vector["error_test_cases"]:
        session = Session(_group(vector, case), bytes.fromhex(case["aggnonce"]), message)
        with pytest.raises(ValueError, match="beyond the order"):
            session.finish(_picked(vector, "psigs", case["psig_indices"]))
