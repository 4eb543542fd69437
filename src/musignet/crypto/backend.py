"""The only binding to libsecp256k1: one context of our own, raw calls, checked lengths.

The calls for MuSig2 stand in `musig_backend`, on the same context and under the same rules.

On a default context libsecp256k1 *aborts the process* when an argument breaks a precondition. Ours has an
illegal-argument callback that records the reason for the calling thread; each function here turns a refusal
into a `BackendError` with that reason. Nothing above this module sees a C type: handles are opaque.

A context is only read after it was randomised once, at import, so calls may run on several threads; each
releases the GIL.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
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
    "secp256k1_ec_pubkey_tweak_add", "secp256k1_ec_seckey_tweak_add", "secp256k1_xonly_pubkey_tweak_add",
)  # fmt: skip


class BackendError(Exception):
    """libsecp256k1 refused, or was about to be misused. Never leaves `crypto`: callers there give it a meaning."""


def probe(functions: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Fail at import, not in the middle of a signature, when a release moved a symbol or a struct."""
    missing = [name for name in functions if not hasattr(lib, name)]
    if missing:
        raise ImportError(f"btclib-secp256k1 lacks {', '.join(missing)}; install the range in pyproject.toml")
    for ctype, size in sizes.items():
        if ffi.sizeof(ctype) != size:
            raise ImportError(f"btclib-secp256k1: {ctype} has {ffi.sizeof(ctype)} bytes, expected {size}")


probe(_NEEDED, {"secp256k1_keypair": KEYPAIR_BYTES, "secp256k1_pubkey": 64, "secp256k1_xonly_pubkey": 64})


class _Refusal(threading.local):
    reason: str = ""


_refusal = _Refusal()


@ffi.callback("void(*)(const char *, void *)")  # type: ignore[untyped-decorator]
def _on_illegal(reason: Handle, _data: Handle) -> None:
    _refusal.reason = ffi.string(reason).decode("ascii", "replace")


CTX: Final = lib.secp256k1_context_create(1)  # SECP256K1_CONTEXT_NONE
lib.secp256k1_context_set_illegal_callback(CTX, _on_illegal, ffi.NULL)
if lib.secp256k1_context_randomize(CTX, secrets.token_bytes(32)) != 1:
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


def refused(call: str) -> BackendError:
    """Return the error for a call that libsecp256k1 just refused on this thread, with its reason if it gave one."""
    reason, _refusal.reason = _refusal.reason, ""
    return BackendError(f"{call}: {reason or 'invalid input'}")


def verdict(result: int) -> bool:
    """Return whether a verification said yes. An unparsed handle is simply a no; its reason is not kept."""
    if result == 1:
        return True
    _refusal.reason = ""
    return False


def exactly(data: bytes | bytearray, size: int, name: str) -> None:
    """Raise BackendError unless `data` has `size` bytes: C reads as many, whatever it is given."""
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
    exactly(secret32, SECRET_BYTES, "secret key")
    return _new(_HASH_T, bytes(secret32))


def secret_zero(secret: Handle, size: int = SECRET_BYTES) -> None:
    """Overwrite `size` bytes of a `secret_copy`, or from an address in a view, with zeros."""
    ffi.memmove(secret, bytes(size), size)


def secret_load(target: Handle, secret: bytes | bytearray | memoryview | Handle) -> None:
    """Copy all bytes of a buffer to a view that has room for them, without a `bytes` in between."""
    ffi.memmove(target, secret, len(secret))


def secret_move(target: Handle, source: Handle) -> None:
    """Copy 32 secret bytes from one view to another, without a `bytes` in between."""
    ffi.memmove(target, source, SECRET_BYTES)


def secret_tweak(secret: Handle, tweak32: bytes) -> None:
    """Add a tweak to a secret key in place: BIP-32 CKDpriv for a step that is not hardened.

    Raises: BackendError when the tweak is not below the group order, or nothing is left; the secret is zero then.
    """
    exactly(tweak32, 32, "tweak")
    if lib.secp256k1_ec_seckey_tweak_add(CTX, secret, tweak32) != 1:
        raise refused("tweak")


def keypair_at(memory: Handle, offset: int) -> Handle:
    """Return the key pair at `offset` of a view; `KEYPAIR_BYTES` must fit. The caller keeps the view alive."""
    return ffi.cast("secp256k1_keypair *", memory + offset)


def keypair_create(keypair: Handle, secret: Handle) -> None:
    """Fill `keypair` from 32 secret bytes. Raises BackendError when they are 0 or not below the group order."""
    if lib.secp256k1_keypair_create(CTX, keypair, secret) != 1:
        raise refused("secret key")


# --- points ---------------------------------------------------------------------------------------------------------


def point_parse(point33: bytes) -> Handle:
    """Parse a compressed point. Raises BackendError when it is not 33 bytes, not on the curve, or hybrid."""
    exactly(point33, POINT_BYTES, "public key")
    point = _new(_PUBKEY_T)
    if lib.secp256k1_ec_pubkey_parse(CTX, point, point33, POINT_BYTES) != 1:
        raise refused("public key")
    return point


def point_of_secret(secret32: Handle) -> Handle:
    """Return the point of a secret key. Raises BackendError when it is 0 or not below the group order."""
    point = _new(_PUBKEY_T)
    if lib.secp256k1_ec_pubkey_create(CTX, point, secret32) != 1:
        raise refused("secret key")
    return point


def point_of_keypair(keypair: Handle) -> Handle:
    """Return the point of a filled key pair."""
    point = _new(_PUBKEY_T)
    if lib.secp256k1_keypair_pub(CTX, point, keypair) != 1:
        raise refused("key pair")
    return point


def point_serialize(point: Handle) -> bytes:
    """Return the 33-byte compressed form."""
    out, size = _new(_POINT_T), _new("size_t *", POINT_BYTES)
    if lib.secp256k1_ec_pubkey_serialize(CTX, out, size, point, 258) != 1:  # SECP256K1_EC_COMPRESSED
        raise refused("public key")
    return bytes(_buffer(out))


def xonly_of(point: Handle) -> Handle:
    """Return the x-only form of a point, for BIP-340."""
    xonly = _new(_XONLY_T)
    if lib.secp256k1_xonly_pubkey_from_pubkey(CTX, xonly, _NULL, point) != 1:
        raise refused("public key")
    return xonly


def xonly_parse(x32: bytes) -> Handle:
    """Parse a BIP-340 public key. Raises BackendError when it is not 32 bytes or no point has that x."""
    exactly(x32, 32, "x-only public key")
    xonly = _new(_XONLY_T)
    if lib.secp256k1_xonly_pubkey_parse(CTX, xonly, x32) != 1:
        raise refused("x-only public key")
    return xonly


# --- public tweaks --------------------------------------------------------------------------------------------------


def point_tweak(point33: bytes, tweak32: bytes) -> bytes:
    """Return point + tweak*G, 33 bytes: BIP-32 CKDpub and BIP-327 plain tweaks.

    Raises: BackendError when the point is invalid, the tweak not below the group order, or the sum infinity.
    """
    exactly(tweak32, 32, "tweak")
    point = point_parse(point33)
    if lib.secp256k1_ec_pubkey_tweak_add(CTX, point, tweak32) != 1:
        raise refused("tweak")
    return point_serialize(point)


def xonly_tweak(x32: bytes, tweak32: bytes) -> bytes:
    """Return lift_x(x) + tweak*G, 33 bytes with its parity: the TapTweak of BIP-341.

    Raises: BackendError as `point_tweak` does.
    """
    exactly(tweak32, 32, "tweak")
    out = _new(_PUBKEY_T)
    if lib.secp256k1_xonly_pubkey_tweak_add(CTX, out, xonly_parse(x32), tweak32) != 1:
        raise refused("tweak")
    return point_serialize(out)


# --- operations -----------------------------------------------------------------------------------------------------


def ecdh(secret32: Handle, point: Handle) -> bytes:
    """Return SHA256 of the compressed shared point, as BOLT 8 defines it. 32 bytes."""
    out = _new(_HASH_T)
    # libsecp256k1 reports an unparsed point to the callback alone, and goes on with it.
    if _ecdh(CTX, out, point, secret32, _NULL, _NULL) != 1 or _refusal.reason:
        raise refused("ECDH")
    return bytes(_buffer(out))


@ffi.callback("int(unsigned char *, const unsigned char *, const unsigned char *, void *)")  # type: ignore[untyped-decorator]
def _x_alone(out: Handle, x32: Handle, _y32: Handle, _data: Handle) -> int:
    ffi.memmove(out, x32, SECRET_BYTES)
    return 1


def ecdh_x(secret32: Handle, point: Handle) -> bytes:
    """Return the x coordinate of the shared point, unhashed, as NIP-44 wants it. 32 bytes."""
    out = _new(_HASH_T)
    if _ecdh(CTX, out, point, secret32, _x_alone, _NULL) != 1 or _refusal.reason:
        raise refused("ECDH")
    return bytes(_buffer(out))


def schnorr_sign(keypair: Handle, digest32: bytes, aux32: bytes | None) -> bytes:
    """Return a 64-byte BIP-340 signature of a 32-byte digest. Without `aux32` it is deterministic."""
    exactly(digest32, 32, "digest")
    if aux32 is not None:
        exactly(aux32, 32, "auxiliary randomness")
    out = _new(_SIG_T)
    if _sign32(CTX, out, digest32, keypair, _NULL if aux32 is None else aux32) != 1:
        raise refused("signing")
    return bytes(_buffer(out))


def schnorr_verify(xonly: Handle, message: bytes, signature: bytes) -> bool:
    """Return whether a BIP-340 signature over `message` (any length) holds. A wrong length is simply False."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    return verdict(_schnorr_verify(CTX, signature, message, len(message), xonly))
