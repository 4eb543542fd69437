"""The only binding to libsecp256k1: one context of our own, raw calls, checked lengths.

On a default context libsecp256k1 *aborts the process* when an argument breaks a precondition. Ours has an
illegal-argument callback that records the reason for the calling thread; each function here turns a refusal
into a `BackendError` with that reason. Nothing above this module sees a C type: handles are opaque.

A context is only read after it was randomised once, at import, so calls may run on several threads; each
releases the GIL.
"""

from __future__ import annotations

import secrets
import threading
from typing import Any, Final, TypeAlias

from btclib_secp256k1 import ffi, lib

Handle: TypeAlias = Any
"""An opaque C object: a parsed point or a key pair. Made and read only by this module."""

SIGNATURE_BYTES: Final = 64
SECRET_BYTES: Final = 32
POINT_BYTES: Final = 33
KEYPAIR_BYTES: Final = 96

_NEEDED = (
    "secp256k1_context_create", "secp256k1_context_randomize", "secp256k1_context_set_illegal_callback",
    "secp256k1_ec_pubkey_create", "secp256k1_ec_pubkey_parse", "secp256k1_ec_pubkey_serialize", "secp256k1_ecdh",
    "secp256k1_keypair_create", "secp256k1_keypair_pub", "secp256k1_schnorrsig_sign32",
    "secp256k1_schnorrsig_verify", "secp256k1_xonly_pubkey_from_pubkey", "secp256k1_xonly_pubkey_parse",
    "secp256k1_ec_pubkey_tweak_add", "secp256k1_xonly_pubkey_tweak_add", "secp256k1_musig_pubkey_agg",
    "secp256k1_musig_pubkey_get",
)  # fmt: skip


class BackendError(Exception):
    """libsecp256k1 refused, or was about to be misused. Never leaves `crypto`: callers there give it a meaning."""


def _probe() -> None:
    """Fail at import, not in the middle of a signature, when a release moved a symbol or a struct."""
    missing = [name for name in _NEEDED if not hasattr(lib, name)]
    if missing:
        raise ImportError(f"btclib-secp256k1 lacks {', '.join(missing)}; install the range in pyproject.toml")
    for ctype, size in (("secp256k1_keypair", KEYPAIR_BYTES), ("secp256k1_pubkey", 64), ("secp256k1_xonly_pubkey", 64)):
        if ffi.sizeof(ctype) != size:
            raise ImportError(f"btclib-secp256k1: {ctype} has {ffi.sizeof(ctype)} bytes, expected {size}")


_probe()


class _Refusal(threading.local):
    reason: str = ""


_refusal = _Refusal()


@ffi.callback("void(*)(const char *, void *)")  # type: ignore[untyped-decorator]
def _on_illegal(reason: Handle, _data: Handle) -> None:
    _refusal.reason = ffi.string(reason).decode("ascii", "replace")


_CTX: Final = lib.secp256k1_context_create(1)  # SECP256K1_CONTEXT_NONE
lib.secp256k1_context_set_illegal_callback(_CTX, _on_illegal, ffi.NULL)
if lib.secp256k1_context_randomize(_CTX, secrets.token_bytes(32)) != 1:
    raise ImportError("libsecp256k1 refused to randomise its context")

_NULL: Final = ffi.NULL
_SIG_T: Final = ffi.typeof("unsigned char[64]")
_HASH_T: Final = ffi.typeof("unsigned char[32]")
_POINT_T: Final = ffi.typeof("unsigned char[33]")
_PUBKEY_T: Final = ffi.typeof("secp256k1_pubkey *")
_XONLY_T: Final = ffi.typeof("secp256k1_xonly_pubkey *")
_buffer: Final = ffi.buffer
_new: Final = ffi.new
_sign32: Final = lib.secp256k1_schnorrsig_sign32
_schnorr_verify: Final = lib.secp256k1_schnorrsig_verify
_ecdh: Final = lib.secp256k1_ecdh


def _refused(call: str) -> BackendError:
    reason, _refusal.reason = _refusal.reason, ""
    return BackendError(f"{call}: {reason or 'invalid input'}")


def _exactly(data: bytes | bytearray, size: int, name: str) -> None:
    if len(data) != size:
        raise BackendError(f"{name}: expected {size} bytes, got {len(data)}")


# --- secrets in memory of their own (see `secret.SecretBuffer`) ------------------------------------------------------


def view(memory: object) -> Handle:
    """Return a C view of a writable Python buffer. It keeps the buffer alive."""
    return ffi.from_buffer("unsigned char[]", memory, require_writable=True)


def address(handle: Handle) -> int:
    """Return the memory address of a view."""
    return int(ffi.cast("uintptr_t", handle))


def secret_copy(secret32: bytes | bytearray) -> Handle:
    """Return a copy of 32 secret bytes that `secret_zero` can wipe. Raises BackendError for another length."""
    _exactly(secret32, SECRET_BYTES, "secret key")
    return _new(_HASH_T, bytes(secret32))


def secret_zero(secret: Handle) -> None:
    """Overwrite a `secret_copy` with zeros."""
    ffi.memmove(secret, bytes(SECRET_BYTES), SECRET_BYTES)


def keypair_at(memory: Handle, offset: int) -> Handle:
    """Return the key pair at `offset` of a view; `KEYPAIR_BYTES` must fit. The caller keeps the view alive."""
    return ffi.cast("secp256k1_keypair *", memory + offset)


def keypair_create(keypair: Handle, secret: Handle) -> None:
    """Fill `keypair` from 32 secret bytes. Raises BackendError when they are 0 or not below the group order."""
    if lib.secp256k1_keypair_create(_CTX, keypair, secret) != 1:
        raise _refused("secret key")


# --- points ---------------------------------------------------------------------------------------------------------


def point_parse(point33: bytes) -> Handle:
    """Parse a compressed point. Raises BackendError when it is not 33 bytes, not on the curve, or hybrid."""
    _exactly(point33, POINT_BYTES, "public key")
    point = _new(_PUBKEY_T)
    if lib.secp256k1_ec_pubkey_parse(_CTX, point, point33, POINT_BYTES) != 1:
        raise _refused("public key")
    return point


def point_of_secret(secret32: Handle) -> Handle:
    """Return the point of a secret key. Raises BackendError when it is 0 or not below the group order."""
    point = _new(_PUBKEY_T)
    if lib.secp256k1_ec_pubkey_create(_CTX, point, secret32) != 1:
        raise _refused("secret key")
    return point


def point_of_keypair(keypair: Handle) -> Handle:
    """Return the point of a filled key pair."""
    point = _new(_PUBKEY_T)
    if lib.secp256k1_keypair_pub(_CTX, point, keypair) != 1:
        raise _refused("key pair")
    return point


def point_serialize(point: Handle) -> bytes:
    """Return the 33-byte compressed form."""
    out, size = _new(_POINT_T), _new("size_t *", POINT_BYTES)
    if lib.secp256k1_ec_pubkey_serialize(_CTX, out, size, point, 258) != 1:  # SECP256K1_EC_COMPRESSED
        raise _refused("public key")
    return bytes(_buffer(out))


def xonly_of(point: Handle) -> Handle:
    """Return the x-only form of a point, for BIP-340."""
    xonly = _new(_XONLY_T)
    if lib.secp256k1_xonly_pubkey_from_pubkey(_CTX, xonly, _NULL, point) != 1:
        raise _refused("public key")
    return xonly


def xonly_parse(x32: bytes) -> Handle:
    """Parse a BIP-340 public key. Raises BackendError when it is not 32 bytes or no point has that x."""
    _exactly(x32, 32, "x-only public key")
    xonly = _new(_XONLY_T)
    if lib.secp256k1_xonly_pubkey_parse(_CTX, xonly, x32) != 1:
        raise _refused("x-only public key")
    return xonly


# --- public tweaks and key aggregation (MERGE: crypto.musig2 may replace `aggregate`; nothing else depends on it) -----


def point_tweak(point33: bytes, tweak32: bytes) -> bytes:
    """Return point + tweak*G, 33 bytes: BIP-32 CKDpub and BIP-327 plain tweaks.

    Raises: BackendError when the point is invalid, the tweak not below the group order, or the sum infinity.
    """
    _exactly(tweak32, 32, "tweak")
    point = point_parse(point33)
    if lib.secp256k1_ec_pubkey_tweak_add(_CTX, point, tweak32) != 1:
        raise _refused("tweak")
    return point_serialize(point)


def xonly_tweak(x32: bytes, tweak32: bytes) -> bytes:
    """Return lift_x(x) + tweak*G, 33 bytes with its parity: the TapTweak of BIP-341.

    Raises: BackendError as `point_tweak` does.
    """
    _exactly(tweak32, 32, "tweak")
    out = _new(_PUBKEY_T)
    if lib.secp256k1_xonly_pubkey_tweak_add(_CTX, out, xonly_parse(x32), tweak32) != 1:
        raise _refused("tweak")
    return point_serialize(out)


def aggregate(points: tuple[bytes, ...]) -> bytes:
    """Return the 33-byte plain aggregate of compressed points in the given order: BIP-327 KeyAgg, no KeySort.

    Raises: BackendError when there is none, or one is not a point.
    """
    if not points:
        raise BackendError("key aggregation: expected at least one key")
    parsed = [point_parse(point) for point in points]
    cache, out = _new("secp256k1_musig_keyagg_cache *"), _new(_PUBKEY_T)
    if lib.secp256k1_musig_pubkey_agg(_CTX, _NULL, cache, _new("secp256k1_pubkey *[]", parsed), len(parsed)) != 1:
        raise _refused("key aggregation")
    if lib.secp256k1_musig_pubkey_get(_CTX, out, cache) != 1:
        raise _refused("key aggregation")
    return point_serialize(out)


# --- operations -----------------------------------------------------------------------------------------------------


def ecdh(secret32: Handle, point: Handle) -> bytes:
    """Return SHA256 of the compressed shared point, as BOLT 8 defines it. 32 bytes."""
    out = _new(_HASH_T)
    # libsecp256k1 reports an unparsed point to the callback alone, and goes on with it.
    if _ecdh(_CTX, out, point, secret32, _NULL, _NULL) != 1 or _refusal.reason:
        raise _refused("ECDH")
    return bytes(_buffer(out))


def schnorr_sign(keypair: Handle, digest32: bytes, aux32: bytes | None) -> bytes:
    """Return a 64-byte BIP-340 signature of a 32-byte digest. Without `aux32` it is deterministic."""
    _exactly(digest32, 32, "digest")
    if aux32 is not None:
        _exactly(aux32, 32, "auxiliary randomness")
    out = _new(_SIG_T)
    if _sign32(_CTX, out, digest32, keypair, _NULL if aux32 is None else aux32) != 1:
        raise _refused("signing")
    return bytes(_buffer(out))


def schnorr_verify(xonly: Handle, message: bytes, signature: bytes) -> bool:
    """Return whether a BIP-340 signature over `message` (any length) holds. A wrong length is simply False."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    if _schnorr_verify(_CTX, signature, message, len(message), xonly) == 1:
        return True
    _refusal.reason = ""  # an unparsed handle is simply False too; its reason is not the next refusal's
    return False
