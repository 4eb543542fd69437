"""The MuSig2 half of the binding: a misuse raises `BackendError`, it never aborts the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from musignet.crypto import backend, musig_backend
from musignet.crypto.backend import BackendError
from support.keys import GROUP_ORDER, secret
from support.musig import DIGEST

POINT = backend.point_of_secret(backend.secret_copy(secret("point")))
KEYAGG = musig_backend.keyagg([POINT])


def _empty(name: str) -> Any:
    return backend.ffi.new(f"secp256k1_{name} *")


def _pair(name: str) -> Any:
    pair = _empty("keypair")
    backend.keypair_create(pair, backend.secret_copy(secret(name)))
    return pair


def _nonce_gen(
    random: bytes = secret("random"), key: bytes = secret("point"), message: bytes = DIGEST, extra: bytes = DIGEST
) -> tuple[Any, Any]:
    secret_nonce = _empty("musig_secnonce")
    nonce = musig_backend.nonce_gen(
        secret_nonce, backend.ffi.new("unsigned char[32]", random), backend.ffi.new("unsigned char[32]", key), POINT,
        message, KEYAGG, extra,
    )  # fmt: skip
    return secret_nonce, nonce


def _session() -> Any:
    return musig_backend.session(musig_backend.nonce_agg([_nonce_gen()[1]]), DIGEST, KEYAGG)


MISUSES: dict[str, Callable[[], object]] = {
    "aggregate nothing": lambda: musig_backend.keyagg([]),
    "aggregate an empty point": lambda: musig_backend.keyagg([_empty("pubkey")]),
    "aggregate null": lambda: musig_backend.keyagg([backend.ffi.NULL]),
    "tweak an empty context": lambda: musig_backend.keyagg_tweak(_empty("musig_keyagg_cache"), DIGEST, xonly=True),
    "tweak by 31 bytes": lambda: musig_backend.keyagg_tweak(KEYAGG, DIGEST[1:], xonly=False),
    "tweak by the order": lambda: musig_backend.keyagg_tweak(KEYAGG, GROUP_ORDER.to_bytes(32, "big"), xonly=False),
    "read an empty context": lambda: musig_backend.keyagg_point(_empty("musig_keyagg_cache")),
    "nonce from zero randomness": lambda: _nonce_gen(random=bytes(32)),
    "nonce for a wiped key": lambda: _nonce_gen(key=bytes(32)),
    "nonce for 31 bytes": lambda: _nonce_gen(message=DIGEST[1:]),
    "nonce with 33 extra bytes": lambda: _nonce_gen(extra=bytes(33)),
    "parse 65 bytes as a nonce": lambda: musig_backend.nonce_parse(bytes(65)),
    "parse zeros as a nonce": lambda: musig_backend.nonce_parse(bytes(66)),
    "serialize an empty nonce": lambda: musig_backend.nonce_serialize(_empty("musig_pubnonce")),
    "sum no nonces": lambda: musig_backend.nonce_agg([]),
    "sum an empty nonce": lambda: musig_backend.nonce_agg([_empty("musig_pubnonce")]),
    "parse 67 bytes as an aggregate": lambda: musig_backend.aggregate_parse(bytes(67)),
    "parse ones as an aggregate": lambda: musig_backend.aggregate_parse(b"\1" * 66),
    "serialize an empty aggregate": lambda: musig_backend.aggregate_serialize(_empty("musig_aggnonce")),
    "session of an empty aggregate": lambda: musig_backend.session(_empty("musig_aggnonce"), DIGEST, KEYAGG),
    "session for 0 bytes": lambda: musig_backend.session(_empty("musig_aggnonce"), b"", KEYAGG),
    "sign with an empty nonce": lambda: musig_backend.partial_sign(
        _empty("musig_secnonce"), _empty("keypair"), KEYAGG, _session()
    ),
    "sign with an empty pair": lambda: musig_backend.partial_sign(
        _nonce_gen()[0], _empty("keypair"), KEYAGG, _session()
    ),
    "sign with a null session": lambda: musig_backend.partial_sign(
        _nonce_gen()[0], _empty("keypair"), KEYAGG, backend.ffi.NULL
    ),
    "parse 31 bytes as a partial": lambda: musig_backend.partial_parse(bytes(31)),
    "parse the order as a partial": lambda: musig_backend.partial_parse(GROUP_ORDER.to_bytes(32, "big")),
    "serialize an empty partial": lambda: musig_backend.partial_serialize(_empty("musig_partial_sig")),
    "sum no partials": lambda: musig_backend.partial_agg(_session(), []),
    "sum for an empty session": lambda: musig_backend.partial_agg(
        _empty("musig_session"), [musig_backend.partial_parse(bytes(32))]
    ),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_no_misuse_aborts_the_process(misuse: Callable[[], object]) -> None:
    with pytest.raises(BackendError, match=r"^[\w -]+: .+"):
        misuse()


def test_a_nonce_signs_once_and_only_for_its_own_key() -> None:
    other, right = _pair("other"), _pair("point")
    spent, _ = _nonce_gen()
    with pytest.raises(BackendError, match=r"fe_equal"):
        musig_backend.partial_sign(spent, other, KEYAGG, _session())
    assert bytes(backend.ffi.buffer(spent)) == bytes(musig_backend.SECRET_NONCE_BYTES)
    fresh, nonce = _nonce_gen()
    session = musig_backend.session(musig_backend.nonce_agg([nonce]), DIGEST, KEYAGG)
    partial = musig_backend.partial_sign(fresh, right, KEYAGG, session)
    assert musig_backend.partial_verify(partial, nonce, POINT, KEYAGG, session)
    with pytest.raises(BackendError, match=r"secnonce"):
        musig_backend.partial_sign(fresh, right, KEYAGG, session)


def test_a_verification_with_an_empty_handle_is_false_and_leaves_no_reason_behind() -> None:
    partial, (_, nonce) = musig_backend.partial_parse(bytes(32)), _nonce_gen()
    assert musig_backend.partial_verify(partial, nonce, POINT, KEYAGG, _empty("musig_session")) is False
    with pytest.raises(BackendError, match=r"^public nonce: invalid input$"):
        musig_backend.nonce_parse(bytes(66))


def test_a_secret_nonce_lies_where_it_was_put() -> None:
    memory = backend.view(bytearray(200))
    at = musig_backend.secret_nonce_at(memory, 60)
    assert backend.address(at) == backend.address(memory) + 60


def test_one_signer_signs_alone_and_every_public_value_survives_its_serialisation() -> None:
    keyagg = musig_backend.keyagg_tweak(KEYAGG, DIGEST, xonly=True)
    secret_nonce, nonce = _nonce_gen()
    nonce = musig_backend.nonce_parse(musig_backend.nonce_serialize(nonce))
    aggregate = musig_backend.aggregate_parse(musig_backend.aggregate_serialize(musig_backend.nonce_agg([nonce])))
    session = musig_backend.session(aggregate, DIGEST, keyagg)
    partial = musig_backend.partial_sign(secret_nonce, _pair("point"), keyagg, session)
    partial = musig_backend.partial_parse(musig_backend.partial_serialize(partial))
    output = backend.xonly_of(musig_backend.keyagg_point(keyagg))
    assert backend.schnorr_verify(output, DIGEST, musig_backend.partial_agg(session, [partial]))
    assert not backend.schnorr_verify(backend.xonly_of(musig_backend.keyagg_point(KEYAGG)), DIGEST, bytes(64))
