"""The three kinds of long-lived key pair, no two of which are ever the same key (THREATS.md A4).

`Identity` is who a node is on the network; it never signs a transaction. `SigningKey` is a wallet's share in a
MuSig2 key; it signs nothing but partial signatures. `ApproverKey` says that a person consented. Each keeps its secret
where `SecretBuffer` keeps it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import NoReturn, Self

from ..errors import AuthenticationError, LocalError
from ..text import short_key
from . import backend
from .schnorr import PublicKey
from .secret import SecretBuffer

__all__ = ["ApproverKey", "Ephemeral", "Identity", "SigningKey"]

_PAIR_AT = backend.SECRET_BYTES
_WIPED_HINT = "a wiped identity, or one inherited by fork, holds no secret: load it again in this process"


class _KeyPair:
    """A secp256k1 key pair in protected memory, and its public key.

    It prints as its public key, and cannot be copied or pickled. In a forked child it is wiped: the child cannot
    sign with it. `pair` and `secret` are for `crypto` alone.
    """

    __slots__ = ("pair", "public", "secret")

    public: PublicKey

    def __init__(self, secret: SecretBuffer) -> None:
        """Take over a `buffer()` whose first 32 bytes are the secret key.

        Raises: AuthenticationError when they are zero or not below the group order.
        """
        self.secret = secret
        self.pair = backend.keypair_at(secret.view, _PAIR_AT)
        try:
            backend.keypair_create(self.pair, secret.view)
        except backend.BackendError:
            secret.wipe()
            raise AuthenticationError(
                "not a secret key", expected="32 bytes, neither 0 nor the group order or above"
            ) from None
        self.public = PublicKey(backend.point_serialize(backend.point_of_keypair(self.pair)))

    @staticmethod
    def buffer() -> SecretBuffer:
        """Return an empty buffer of the right size, to be filled and given to the constructor."""
        return SecretBuffer(backend.SECRET_BYTES + backend.KEYPAIR_BYTES)

    @classmethod
    def from_secret(cls, secret: bytes | bytearray | memoryview) -> Self:
        """Make a key pair from 32 secret bytes, which are copied.

        Raises: AuthenticationError when there are not 32, or they are not a valid secret key.
        """
        if len(secret) != backend.SECRET_BYTES:
            raise AuthenticationError("not a secret key", expected="32 bytes", got=f"{len(secret)} bytes")
        buffer = cls.buffer()
        buffer.load(secret)
        return cls(buffer)

    @property
    def pubkey(self) -> bytes:
        """The public key: 33 bytes, compressed."""
        return self.public.compressed

    @property
    def pubkey_hex(self) -> str:
        """The public key: 66 lower-case hex digits."""
        return self.public.compressed.hex()

    def wipe(self) -> None:
        """Forget the secret now. Whatever needs it raises LocalError from here on."""
        self.secret.wipe()

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret: it cannot be copied or pickled")

    __copy__ = __deepcopy__ = __reduce_ex__ = __reduce__ = _refuse

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {short_key(self.pubkey)}>"


class _Signer(_KeyPair):
    __slots__ = ()

    def sign(self, digest: bytes, aux: bytes | None = None) -> bytes:
        """Return the 64-byte BIP-340 signature of a 32-byte digest.

        Without `aux` (32 random bytes) it is deterministic, which BIP-340 allows: "Default Signing", auxiliary
        random data. The receiver verifies each signature, so it is not verified again here.
        """
        try:
            return backend.schnorr_sign(self.pair, digest, aux)
        except backend.BackendError as error:
            raise LocalError(f"cannot sign with {self!r}: {error}", hint=_WIPED_HINT) from None


class ApproverKey(_Signer):
    """The key that says yes for a person: it signs proofs of consent, and nothing else (`signing.approver`)."""

    __slots__ = ()


class Identity(_Signer):
    """A node's key pair. Its public key *is* the node; names are only labels.

    Make one with `generate`, or from 32 bytes with `from_secret`.
    """

    __slots__ = ()

    @classmethod
    def generate(cls) -> Identity:
        """Draw a fresh key from the operating system."""
        while True:
            try:
                return cls.from_secret(secrets.token_bytes(backend.SECRET_BYTES))
            except AuthenticationError:  # probability 2^-128
                continue

    def ecdh(self, other: PublicKey) -> bytes:
        """Return SHA256 of the compressed shared point (BOLT 8). 32 bytes, secret."""
        try:
            return backend.ecdh(self.secret.view, other.point)
        except backend.BackendError as error:
            raise LocalError(f"cannot use {self!r}: {error}", hint=_WIPED_HINT) from None

    def secret_for_storage(self) -> bytearray:
        """Return the 32 secret bytes for an encrypted key file. The caller overwrites them once they are written.

        Raises: LocalError when the identity was wiped: zeros must not replace a key file.
        """
        secret = bytearray(self.secret.view[0 : backend.SECRET_BYTES])
        if not any(secret):
            raise LocalError(f"cannot store {self!r}", hint=_WIPED_HINT)
        return secret


class SigningKey(_KeyPair):
    """A wallet's own key in a MuSig2 group: BIP-327 "Key Generation of an Individual Signer".

    It may be the child of another key (BIP-32), derived before it comes here. There is no way to tweak it afterwards:
    a secret nonce is bound to one public key (BIP-327 "Signing with Tweaked Individual Keys"). `SecretNonces` signs.
    """

    __slots__ = ()

    def child(self, tweaks: Iterable[bytes]) -> SigningKey:
        """Return the key below this one, by the 32-byte tweaks of its steps (BIP-32 I_L; none of them hardened).

        Raises: LocalError when the key was wiped, or there is no such child (1 in 2^127).
        """
        buffer = self.buffer()
        backend.secret_move(buffer.view, self.secret.view)
        try:
            for tweak in tweaks:
                backend.secret_tweak(buffer.view, tweak)
            return SigningKey(buffer)
        except (backend.BackendError, AuthenticationError) as error:
            buffer.wipe()
            raise LocalError(f"cannot derive from {self!r}: {error}", hint=_WIPED_HINT) from None


class Ephemeral:
    """A key pair for one handshake, wiped as soon as the handshake has used it.

    Args: `secret` is 32 fresh random bytes.
    Raises: AuthenticationError when they are no secret key (probability 2^-128 for random ones).
    """

    __slots__ = ("_secret", "pubkey")

    def __init__(self, secret: bytes) -> None:
        try:
            self._secret = backend.secret_copy(secret)
            self.pubkey = backend.point_serialize(backend.point_of_secret(self._secret))
        except backend.BackendError as error:
            raise AuthenticationError(f"not a secret key: {error}") from None

    def ecdh(self, other: PublicKey) -> bytes:
        """Return SHA256 of the compressed shared point (BOLT 8). 32 bytes, secret. Raises LocalError once wiped."""
        try:
            return backend.ecdh(self._secret, other.point)
        except backend.BackendError as error:
            raise LocalError(f"cannot use {self!r}: {error}", hint="it was wiped: it serves one handshake") from None

    def wipe(self) -> None:
        """Overwrite the secret."""
        backend.secret_zero(self._secret)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("an Ephemeral cannot be copied or pickled")

    __copy__ = __deepcopy__ = __reduce_ex__ = __reduce__ = _refuse

    def __repr__(self) -> str:
        return f"<Ephemeral {short_key(self.pubkey)}>"
