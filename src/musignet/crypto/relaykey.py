"""Keys that relays see: none of them is an identity, and none lasts.

    Identity --inbox(period)--> RelayKey     a node's inbox of one period: what is addressed to it names this key
    one_time(32 random bytes) -> RelayKey    signs one event, and is forgotten

The inbox of a period is the identity plus a public tweak, so whoever knows a node's identity can address its inbox,
and nobody else can tell whose it is, or that two periods are one node's.
"""

from __future__ import annotations

from typing import Final, Self

from ..errors import AuthenticationError
from . import backend
from .keys import Identity, _Signer
from .schnorr import PublicKey, TaggedHash

__all__ = ["RelayKey", "inbox_of"]

_tweak = TaggedHash("musignet/inbox")
_EVEN: Final = b"\x02"


class RelayKey(_Signer):
    """A key pair that signs and opens events at relays. `xonly` (32 bytes) is its name there."""

    __slots__ = ()

    @classmethod
    def one_time(cls, secret: bytes) -> Self:
        """Return the key of 32 random bytes. Raises AuthenticationError (probability 2^-128)."""
        return cls.from_secret(secret)

    @classmethod
    def inbox(cls, identity: Identity, period: int) -> RelayKey:
        """Return the inbox key of an identity in a period. Raises AuthenticationError when the identity was wiped."""
        buffer = cls.buffer()
        backend.secret_move(buffer.view, identity.secret.view)
        try:
            backend.secret_tweak(buffer.view, _inbox_tweak(identity.pubkey, period))
        except backend.BackendError as error:
            buffer.wipe()
            raise AuthenticationError(f"no inbox of {identity!r}: {error}") from None
        return cls(buffer)

    @property
    def xonly(self) -> bytes:
        """The public key as relays name it: 32 bytes."""
        return self.pubkey[1:]

    def shared_x(self, xonly: bytes) -> bytes:
        """Return the x coordinate of the point shared with a key of 32 bytes (NIP-44 "Encryption"). Secret.

        Raises: AuthenticationError when no point has that x, or this key was wiped.
        """
        try:
            return backend.ecdh_x(self.secret.view, PublicKey(_EVEN + xonly).point)
        except backend.BackendError as error:
            raise AuthenticationError(f"cannot use {self!r}: {error}") from None


def inbox_of(identity: PublicKey, period: int) -> bytes:
    """Return the name of somebody's inbox in a period: 32 bytes, x-only."""
    return backend.point_tweak(identity.compressed, _inbox_tweak(identity.compressed, period))[1:]


def _inbox_tweak(identity: bytes, period: int) -> bytes:
    return _tweak(identity, period.to_bytes(8))
