"""Cosigners in one process: what the MuSig2 tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from musignet.crypto import backend, musig_backend
from musignet.crypto.keyagg import KeyAgg
from musignet.crypto.keys import SigningKey
from musignet.crypto.musig2 import PublicNonce, SigningSession, nonce_agg
from musignet.crypto.secret_nonces import SecretNonces
from support.keys import secret

__all__ = ["DIGEST", "Cosigners", "generate", "load_secret_nonce", "partials", "signing_key", "slot_bytes"]

DIGEST = secret("the digest to sign")

_STRIDE = musig_backend.SECRET_NONCE_BYTES + 32
_MAGIC_BYTES = 4


def signing_key(name: str) -> SigningKey:
    """Return the same key for the same name."""
    return SigningKey.from_secret(secret(f"wallet {name}"))


def generate(
    nonces: SecretNonces,
    key: SigningKey,
    keyagg: KeyAgg,
    message: bytes = DIGEST,
    *,
    slot: int = 0,
    name: str = "nonce",
) -> PublicNonce:
    """Fill a slot with a nonce that is different for each name."""
    random, extra = secret(f"random {name}"), secret(f"extra {name}")
    return nonces.generate(slot, random, key=key, keyagg=keyagg, message=message, extra=extra)


@dataclass(frozen=True)
class Cosigners:
    """A group after round 1: every nonce is there, nobody has signed."""

    keys: tuple[SigningKey, ...]
    secret_nonces: tuple[SecretNonces, ...]
    nonces: tuple[PublicNonce, ...]
    session: SigningSession

    @classmethod
    def meet(cls, keys: Sequence[SigningKey], keyagg: KeyAgg | None = None, message: bytes = DIGEST) -> Cosigners:
        """Let the owners of `keys` go through round 1."""
        group = keyagg or KeyAgg([key.public for key in keys])
        held = tuple(SecretNonces(1) for _ in keys)
        nonces = tuple(
            generate(own, key, group, message, name=str(signer))
            for signer, (own, key) in enumerate(zip(held, keys, strict=True))
        )
        return cls(tuple(keys), held, nonces, SigningSession(nonce_agg(nonces), message, group))


def partials(group: Cosigners) -> list[bytes]:
    """Let everybody sign."""
    signers = zip(group.secret_nonces, group.keys, strict=True)
    return [own.partial_sign(0, key, group.session) for own, key in signers]


def slot_bytes(nonces: SecretNonces, slot: int = 0) -> bytes:
    """Return what lies in a slot's memory: the secret nonce and the room for its randomness."""
    return bytes(backend.ffi.buffer(nonces._memory.view))[slot * _STRIDE : (slot + 1) * _STRIDE]


def load_secret_nonce(nonces: SecretNonces, slot: int, secret_nonce: bytes, nonce: PublicNonce | None = None) -> None:
    """Overwrite a ready slot with the 97 bytes of a vector: k1, k2 and a public key, and its public half if given."""
    point: Any = backend.point_parse(secret_nonce[64:])
    nonces._memory.load(secret_nonce[:64] + bytes(backend.ffi.buffer(point)), slot * _STRIDE + _MAGIC_BYTES)
    if nonce is not None:
        nonces._ready[slot] = nonces._ready[slot]._replace(nonce=nonce)
