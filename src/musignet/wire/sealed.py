"""A bundle of signed envelopes, sealed to one node: what a stick, a QR code or a relay carries when there is no link.

    version | one-time key, 33 bytes | sender's key, sealed, 49 bytes | bundle, padded and sealed

It is one message of Noise_X_secp256k1_ChaChaPoly_SHA256 (Noise "One-Way Handshake Patterns"), with the ECDH and the
nonces of BOLT 8: from a one-time key, so that only the recipient can open it, and from the sender's own key, so that
nobody else can have sealed it. Who sent it is inside. The size says only which step the content fits into.

Each envelope in it is judged by the recipient's `Gate` as from a link. Nothing here keeps a bundle from being carried
twice, or away: the windows of the node, and acknowledgements in the bundles that come back, are for that.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from .. import limits
from ..chain import Chain
from ..crypto.aead import TAG_BYTES, Aead, AeadError, hkdf2
from ..crypto.keys import Ephemeral, Identity
from ..crypto.schnorr import PublicKey
from ..errors import AuthenticationError, InvalidMessage, SerializationError
from ..limits import KIB
from .codec import Codec, Record
from .messages import Millis

__all__ = ["Bundle", "Opened", "open_untrusted", "seal", "sealed_bytes"]

_VERSION: Final = 0
_PROLOGUE: Final = b"musignet/sealed"
_CHAIN: Final = sha256(b"Noise_X_secp256k1_ChaChaPoly_SHA256").digest()
_POINT: Final = 33
_NONCE_0: Final = bytes(12)
_LENGTH: Final = 4
_STEPS: Final = (1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB)
_OVERHEAD: Final = 1 + _POINT + (_POINT + TAG_BYTES) + _LENGTH + TAG_BYTES

_Id = Annotated[bytes, Meta(min_length=limits.MESSAGE_ID_BYTES, max_length=limits.MESSAGE_ID_BYTES)]
_Envelope = Annotated[bytes, Meta(min_length=1, max_length=limits.MESSAGE_MAX_BYTES)]


class Bundle(Record, frozen=True):
    """What is sealed. The order of the fields is the format."""

    chain: Annotated[int, Meta(ge=0, le=255)]
    expires_at_ms: Millis
    acknowledged: Annotated[tuple[_Id, ...], Meta(max_length=limits.SEALED_IDS_MAX)]
    """Ids of messages of the recipient's that the sender has: they need not be carried again."""
    envelopes: Annotated[tuple[_Envelope, ...], Meta(max_length=limits.SEALED_ENVELOPES_MAX)]
    """Signed messages of the sender's, in the order in which they were said."""

    def require(self, chain: Chain, now: float) -> None:
        """Raise InvalidMessage unless it is for this network and `now` (seconds since 1970) is before its end."""
        if self.chain != chain:
            raise InvalidMessage(
                "a sealed bundle for another Bitcoin network",
                expected=chain.name.lower(),
                got=Chain(self.chain).name.lower() if self.chain in Chain._value2member_map_ else self.chain,
                hint="both nodes belong on one network: see `chain` in config.toml",
            )
        if now * 1000 >= self.expires_at_ms:
            raise InvalidMessage(
                "the sealed bundle has expired", hint="have it exported again, and look at the clocks of both machines"
            )


class Opened(NamedTuple):
    """A bundle, and the key that sealed it."""

    sender: bytes
    bundle: Bundle


_codec = Codec(Bundle)


def sealed_bytes(content: int) -> int:
    """Return the size of a sealed bundle whose encoding has `content` bytes: the next of 1, 4, 16, 64 KiB, 128 KiB …"""
    whole = content + _OVERHEAD
    return next((step for step in _STEPS if whole <= step), -(-whole // _STEPS[-1]) * _STEPS[-1])


def seal(identity: Identity, recipient: PublicKey, bundle: Bundle, ephemeral: bytes) -> bytes:
    """Return the bundle sealed by `identity` to the holder of `recipient`'s secret key.

    Args:   ephemeral - 32 fresh random bytes, for this call alone.
    Raises: SerializationError when a part is out of bounds, or all of it is too large; LocalError when the identity
            was wiped.
    """
    content = _codec.check(bundle)
    size = sealed_bytes(len(content))
    if size > limits.SEALED_MAX_BYTES:
        raise SerializationError(
            "too much for one sealed bundle", expected=f"at most {limits.SEALED_MAX_BYTES} bytes", got=size
        )
    padded = len(content).to_bytes(_LENGTH, "big") + content
    padded += bytes(size - _OVERHEAD - len(content))
    once = Ephemeral(ephemeral)
    state = _State(recipient.compressed)
    state.mix_hash(once.pubkey)
    state.mix_key(once.ecdh(recipient))
    once.wipe()
    sender = state.encrypt(identity.pubkey)
    state.mix_key(identity.ecdh(recipient))
    return bytes((_VERSION,)) + once.pubkey + sender + state.encrypt(padded)


def open_untrusted(identity: Identity, data: bytes) -> Opened:
    """Return what was sealed to `identity`, and by whom. Whether it still counts is `Bundle.require`'s to say.

    Raises: SerializationError for what is no sealed bundle, of a newer version, or not canonical inside;
            AuthenticationError when it is for somebody else or was altered: it cannot be told which.
    """
    if not _STEPS[0] <= len(data) <= limits.SEALED_MAX_BYTES or sealed_bytes(len(data) - _OVERHEAD) != len(data):
        raise SerializationError("not a sealed bundle", expected="1, 4, 16 or 64 KiB, or a multiple", got=len(data))
    if data[0] != _VERSION:
        raise SerializationError(
            "not a sealed bundle of this version", expected=_VERSION, got=data[0], hint="install the newest MuSigNet"
        )
    once, at = data[1 : 1 + _POINT], 1 + _POINT
    state = _State(identity.pubkey)
    try:
        state.mix_hash(once)
        state.mix_key(identity.ecdh(PublicKey(once)))
        sender = PublicKey(state.decrypt(data[at : at + _POINT + TAG_BYTES]))
        state.mix_key(identity.ecdh(sender))
        padded = state.decrypt(data[at + _POINT + TAG_BYTES :])
    except (AeadError, AuthenticationError):
        raise AuthenticationError(
            "not sealed to this node, or altered, it cannot be told which",
            hint="ask for one that is exported to this node's key",
        ) from None
    return Opened(sender.compressed, _unpadded(padded))


def _unpadded(padded: bytes) -> Bundle:
    end = _LENGTH + int.from_bytes(padded[:_LENGTH], "big")
    if end > len(padded) or any(padded[end:]) or sealed_bytes(end - _LENGTH) != len(padded) - _LENGTH + _OVERHEAD:
        raise SerializationError("not a sealed bundle", expected="zeros up to the next step", got="other padding")
    return _codec.decode_untrusted(padded[_LENGTH:end])


class _State:
    """Noise's symmetric state, keys used once each."""

    __slots__ = ("_chain", "_hash", "_key")

    def __init__(self, recipient: bytes) -> None:
        self._chain = _CHAIN
        self._hash = sha256(sha256(_CHAIN + _PROLOGUE).digest() + recipient).digest()
        self._key = b""

    def mix_hash(self, data: bytes) -> None:
        self._hash = sha256(self._hash + data).digest()

    def mix_key(self, shared: bytes) -> None:
        self._chain, self._key = hkdf2(self._chain, shared)

    def encrypt(self, plain: bytes) -> bytes:
        sealed = Aead(self._key).encrypt(_NONCE_0, plain, self._hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        plain = Aead(self._key).decrypt(_NONCE_0, sealed, self._hash)
        self.mix_hash(sealed)
        return plain
