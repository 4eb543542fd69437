"""The MuSig2 half of the binding: raw calls on `backend`'s context, checked lengths, no rules of BIP-327.

Everything that `backend` says holds here. Handles may be shared between threads as long as nobody writes to them;
only a secret nonce is ever written to after it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from btclib_secp256k1 import ffi, lib

from .backend import CTX, Handle, exactly, probe, refused, verdict

SECRET_NONCE_BYTES: Final = 132
"""One secret nonce as libsecp256k1 keeps it in memory. It has no serialisation."""

NONCE_BYTES: Final = 66
"""A public or aggregate nonce: two points of 33 bytes."""

PARTIAL_BYTES: Final = 32
"""A partial signature: one scalar."""

probe(
    (
        "secp256k1_musig_aggnonce_parse", "secp256k1_musig_aggnonce_serialize", "secp256k1_musig_nonce_agg",
        "secp256k1_musig_nonce_gen", "secp256k1_musig_nonce_process", "secp256k1_musig_partial_sig_agg",
        "secp256k1_musig_partial_sig_parse", "secp256k1_musig_partial_sig_serialize",
        "secp256k1_musig_partial_sig_verify", "secp256k1_musig_partial_sign", "secp256k1_musig_pubkey_agg",
        "secp256k1_musig_pubkey_ec_tweak_add", "secp256k1_musig_pubkey_get", "secp256k1_musig_pubkey_xonly_tweak_add",
        "secp256k1_musig_pubnonce_parse", "secp256k1_musig_pubnonce_serialize",
    ),
    {"secp256k1_musig_secnonce": SECRET_NONCE_BYTES, "secp256k1_musig_keyagg_cache": 197},
)  # fmt: skip

_NULL: Final = ffi.NULL
_POINT_T: Final = ffi.typeof("secp256k1_pubkey *")
_POINTS_T: Final = ffi.typeof("secp256k1_pubkey *[]")
_KEYAGG_T: Final = ffi.typeof("secp256k1_musig_keyagg_cache *")
_SECRET_NONCE_T: Final = ffi.typeof("secp256k1_musig_secnonce *")
_NONCE_T: Final = ffi.typeof("secp256k1_musig_pubnonce *")
_NONCES_T: Final = ffi.typeof("secp256k1_musig_pubnonce *[]")
_AGGREGATE_T: Final = ffi.typeof("secp256k1_musig_aggnonce *")
_SESSION_T: Final = ffi.typeof("secp256k1_musig_session *")
_PARTIAL_T: Final = ffi.typeof("secp256k1_musig_partial_sig *")
_PARTIALS_T: Final = ffi.typeof("secp256k1_musig_partial_sig *[]")
_OUT_32_T: Final = ffi.typeof("unsigned char[32]")
_OUT_64_T: Final = ffi.typeof("unsigned char[64]")
_OUT_66_T: Final = ffi.typeof("unsigned char[66]")
_buffer: Final = ffi.buffer
_new: Final = ffi.new
_cast: Final = ffi.cast
_nonce_gen: Final = lib.secp256k1_musig_nonce_gen
_nonce_process: Final = lib.secp256k1_musig_nonce_process
_partial_sign: Final = lib.secp256k1_musig_partial_sign
_partial_verify: Final = lib.secp256k1_musig_partial_sig_verify


# --- key aggregation ------------------------------------------------------------------------------------------------


def keyagg(points: Sequence[Handle]) -> Handle:
    """Aggregate points in the order given. Raises BackendError when there are none."""
    context = _new(_KEYAGG_T)
    if lib.secp256k1_musig_pubkey_agg(CTX, _NULL, context, _new(_POINTS_T, points), len(points)) != 1:
        raise refused("key aggregation")
    return context


def keyagg_tweak(context: Handle, tweak32: bytes, *, xonly: bool) -> Handle:
    """Return a tweaked copy. Raises BackendError when the tweak is not below the group order, or nothing is left."""
    exactly(tweak32, 32, "tweak")
    tweaked = _new(_KEYAGG_T, context[0])
    add = lib.secp256k1_musig_pubkey_xonly_tweak_add if xonly else lib.secp256k1_musig_pubkey_ec_tweak_add
    if add(CTX, _NULL, tweaked, tweak32) != 1:
        raise refused("tweak")
    return tweaked


def keyagg_point(context: Handle) -> Handle:
    """Return the aggregate point with its tweaks."""
    point = _new(_POINT_T)
    if lib.secp256k1_musig_pubkey_get(CTX, point, context) != 1:
        raise refused("aggregate key")
    return point


# --- nonces ---------------------------------------------------------------------------------------------------------


def secret_nonce_at(memory: Handle, offset: int) -> Handle:
    """Return the secret nonce that lies at `offset` of a view; `SECRET_NONCE_BYTES` must fit."""
    return _cast(_SECRET_NONCE_T, memory + offset)


def nonce_gen(
    secret_nonce: Handle,
    random32: Handle,
    secret: Handle,
    point: Handle,
    message32: bytes,
    keyagg: Handle,
    extra32: bytes,
) -> Handle:
    """Fill `secret_nonce` and return the public nonce. `random32` is zeroed in place.

    Raises: BackendError when the secret key is not valid (a wiped one is zero), or `random32` is zero.
    """
    exactly(message32, 32, "message")
    exactly(extra32, 32, "extra input")
    nonce = _new(_NONCE_T)
    if _nonce_gen(CTX, secret_nonce, nonce, random32, secret, point, message32, keyagg, extra32) != 1:
        raise refused("nonce generation")
    return nonce


def nonce_parse(nonce66: bytes) -> Handle:
    """Parse a public nonce. Raises BackendError when it is not two compressed points."""
    exactly(nonce66, NONCE_BYTES, "public nonce")
    nonce = _new(_NONCE_T)
    if lib.secp256k1_musig_pubnonce_parse(CTX, nonce, nonce66) != 1:
        raise refused("public nonce")
    return nonce


def nonce_serialize(nonce: Handle) -> bytes:
    """Return the 66 bytes of a public nonce."""
    out = _new(_OUT_66_T)
    if lib.secp256k1_musig_pubnonce_serialize(CTX, out, nonce) != 1:
        raise refused("public nonce")
    return bytes(_buffer(out))


def nonce_agg(nonces: Sequence[Handle]) -> Handle:
    """Sum public nonces. Raises BackendError when there are none. A sum may be infinity, which is not an error."""
    aggregate = _new(_AGGREGATE_T)
    if lib.secp256k1_musig_nonce_agg(CTX, aggregate, _new(_NONCES_T, nonces), len(nonces)) != 1:
        raise refused("nonce aggregation")
    return aggregate


def aggregate_parse(aggregate66: bytes) -> Handle:
    """Parse an aggregate nonce, of which each half may be 33 zero bytes. Raises BackendError for anything else."""
    exactly(aggregate66, NONCE_BYTES, "aggregate nonce")
    aggregate = _new(_AGGREGATE_T)
    if lib.secp256k1_musig_aggnonce_parse(CTX, aggregate, aggregate66) != 1:
        raise refused("aggregate nonce")
    return aggregate


def aggregate_serialize(aggregate: Handle) -> bytes:
    """Return the 66 bytes of an aggregate nonce."""
    out = _new(_OUT_66_T)
    if lib.secp256k1_musig_aggnonce_serialize(CTX, out, aggregate) != 1:
        raise refused("aggregate nonce")
    return bytes(_buffer(out))


# --- signatures -----------------------------------------------------------------------------------------------------


def session(aggregate: Handle, message32: bytes, keyagg: Handle) -> Handle:
    """Compute the values that all signatures of one message share."""
    exactly(message32, 32, "message")
    values = _new(_SESSION_T)
    if _nonce_process(CTX, values, aggregate, message32, keyagg) != 1:
        raise refused("session")
    return values


def partial_sign(secret_nonce: Handle, keypair: Handle, keyagg: Handle, session: Handle) -> Handle:
    """Sign, and zero `secret_nonce` before anything can fail.

    It checks neither its own result nor that the key is one of `keyagg`'s.
    Raises: BackendError when the nonce is zero or was made for another key, or the key pair is zero.
    """
    partial = _new(_PARTIAL_T)
    if _partial_sign(CTX, partial, secret_nonce, keypair, keyagg, session) != 1:
        raise refused("partial signing")
    return partial


def partial_parse(partial32: bytes) -> Handle:
    """Parse a partial signature. Raises BackendError when it is not 32 bytes or not below the group order."""
    exactly(partial32, PARTIAL_BYTES, "partial signature")
    partial = _new(_PARTIAL_T)
    if lib.secp256k1_musig_partial_sig_parse(CTX, partial, partial32) != 1:
        raise refused("partial signature")
    return partial


def partial_serialize(partial: Handle) -> bytes:
    """Return the 32 bytes of a partial signature."""
    out = _new(_OUT_32_T)
    if lib.secp256k1_musig_partial_sig_serialize(CTX, out, partial) != 1:
        raise refused("partial signature")
    return bytes(_buffer(out))


def partial_verify(partial: Handle, nonce: Handle, point: Handle, keyagg: Handle, session: Handle) -> bool:
    """Return whether a partial signature holds for the signer with that nonce and that point, one of `keyagg`'s."""
    return verdict(_partial_verify(CTX, partial, nonce, point, keyagg, session))


def partial_agg(session: Handle, partials: Sequence[Handle]) -> bytes:
    """Return the 64-byte sum, which need not verify. Raises BackendError when there are no partial signatures."""
    out = _new(_OUT_64_T)
    if lib.secp256k1_musig_partial_sig_agg(CTX, out, session, _new(_PARTIALS_T, partials), len(partials)) != 1:
        raise refused("partial signature aggregation")
    return bytes(_buffer(out))
