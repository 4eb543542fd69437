"""Noise_XK_secp256k1_ChaChaPoly_SHA256 as BOLT 8 specifies it: three acts, then two rotating ciphers.

Pure: bytes in, bytes out, randomness as an argument. Every failure is an `AuthenticationError` whose text to
the outside is the same; `reason` holds BOLT 8's own name for it, for our log and the test vectors.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from struct import Struct
from typing import Final, Protocol
from weakref import ref

from ..crypto.aead import TAG_BYTES, Aead, AeadError, hkdf2
from ..crypto.keys import Ephemeral, Identity
from ..crypto.schnorr import PublicKey
from ..errors import AuthenticationError, ReceiveError
from ..limits import CIPHERS_AWAKE_MAX, ROTATE_AFTER_MESSAGES

__all__ = [
    "ACT_ONE_BYTES",
    "ACT_THREE_BYTES",
    "ACT_TWO_BYTES",
    "PROLOGUE",
    "BrokenFrame",
    "Cipher",
    "HandshakeError",
    "Initiator",
    "Keys",
    "PacketCipher",
    "Responder",
    "act_untrusted",
    "point_untrusted",
]

PROLOGUE: Final = b"musignet/1"
ACT_ONE_BYTES: Final = 50
ACT_TWO_BYTES: Final = 50
ACT_THREE_BYTES: Final = 66

_HEAD_BYTES: Final = 2 + TAG_BYTES
_nonce: Final = Struct("<4xQ").pack
"""BOLT 8: 32 zero bits, then the counter, little-endian."""
_NONCE_0: Final = _nonce(0)
_NONCE_1: Final = _nonce(1)
_CHAIN_0: Final = sha256(b"Noise_XK_secp256k1_ChaChaPoly_SHA256").digest()


class BrokenFrame(ReceiveError):
    """A frame that does not decrypt. Whoever sits on the path can cause it: it says nothing of the peer."""


class HandshakeError(AuthenticationError):
    """The handshake failed. `reason` is BOLT 8's name for it, such as `ACT2_BAD_TAG`; it is never sent."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            "the handshake failed", hint=f"wrong key, another protocol, or bytes changed on the way ({reason})"
        )


class Cipher:
    """One direction of an open channel: packets of an encrypted two-byte length and an encrypted body.

    The key rotates after 1,000 encryptions. A packet takes two, so that is always between packets. Its `Aead` is made
    when it is used, and given up when `CIPHERS_AWAKE_MAX` others were made since: an idle link has none.
    """

    __slots__ = ("__weakref__", "_chain", "_count", "_key", "_made", "_size")

    def __init__(self, chain: bytes, key: bytes) -> None:
        self._chain = chain
        self._key = key
        self._made: Aead | None = None
        self._count = 0
        self._size = 0
        """Of the packet whose length is open and whose body is not here; 0 between packets."""

    def _next_packet(self) -> tuple[Aead, bytes, bytes]:
        """Return the cipher of the next packet, and its two nonces."""
        count = self._count
        if count == ROTATE_AFTER_MESSAGES:
            self._chain, self._key = hkdf2(self._chain, self._key)
            self._made = None
            count = 0
        self._count = count + 2
        return self._made or self._wake(), _nonce(count), _nonce(count + 1)

    def _wake(self) -> Aead:
        """Make the `Aead` of the present key, and have the one that was made the longest ago given up."""
        made = self._made = Aead(self._key)
        _awake.append(ref(self))
        if len(_awake) > CIPHERS_AWAKE_MAX and (other := _awake.popleft()()) is not None:
            other._made = None
        return made

    def seal(self, plaintext: bytes) -> tuple[bytes, bytes]:
        """Return a packet in two pieces, to be sent one after the other. `plaintext` has at most 65,535 bytes."""
        aead, first, second = self._next_packet()
        return aead.encrypt(first, len(plaintext).to_bytes(2, "big"), None), aead.encrypt(second, plaintext, None)

    def open_untrusted(self, data: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
        """Open the packet that begins at `at`. A packet is asked for until it is whole, and then never again.

        Returns: its body, and where the next one begins; None: it is not whole yet.
        Raises:  AeadError when this is not what the peer sealed next.
        """
        size = self._size
        if size:
            if len(data) - at < size:
                return None
            aead, second = self._made or self._wake(), _nonce(self._count - 1)
        else:
            if len(data) - at < _HEAD_BYTES:
                return None
            aead, first, second = self._next_packet()
            length = int.from_bytes(aead.decrypt(first, data[at : at + _HEAD_BYTES], None), "big")
            size = _HEAD_BYTES + length + TAG_BYTES
            if len(data) - at < size:
                self._size = size
                return None
        self._size = 0
        return aead.decrypt(second, data[at + _HEAD_BYTES : at + size], None), at + size


_awake: Final[deque[ref[Cipher]]] = deque()
"""Those that have an `Aead`, in the order of making; one whose key rotated stands in it twice."""


class PacketCipher(Protocol):
    """What frames leave and arrive through: `Cipher` here, a plain framer where the stream itself is encrypted."""

    def seal(self, plaintext: bytes) -> tuple[bytes, bytes]: ...

    def open_untrusted(self, data: bytes | bytearray, at: int) -> tuple[bytes, int] | None: ...


class Keys:
    """What a finished handshake leaves: a cipher for each direction, the peer's static key, and the transcript hash.

    `transcript` (32 bytes) is the same on both sides and on no other connection: people compare words made from it.
    """

    __slots__ = ("peer", "receiving", "sending", "transcript")

    def __init__(self, sending: PacketCipher, receiving: PacketCipher, peer: PublicKey, transcript: bytes) -> None:
        self.sending = sending
        self.receiving = receiving
        self.peer = peer
        self.transcript = transcript


class _Handshake:
    """The symmetric state both sides share: chaining key, hash, our static key."""

    __slots__ = ("_chain", "_ephemeral", "_hash", "_identity", "_key")

    _ephemeral: Ephemeral | None

    def __init__(self, identity: Identity, prologue: bytes, responder_key: bytes) -> None:
        self._identity = identity
        self._chain = _CHAIN_0
        self._key = b""
        self._hash = sha256(sha256(_CHAIN_0 + prologue).digest() + responder_key).digest()

    def _mix_hash(self, data: bytes) -> None:
        self._hash = sha256(self._hash + data).digest()

    def _mix_key(self, shared: bytes) -> None:
        self._chain, self._key = hkdf2(self._chain, shared)

    def _seal(self, nonce: bytes, plaintext: bytes) -> bytes:
        sealed = Aead(self._key).encrypt(nonce, plaintext, self._hash)
        self._mix_hash(sealed)
        return sealed

    def _open(self, nonce: bytes, sealed: bytes, reason: str) -> bytes:
        try:
            plaintext = Aead(self._key).decrypt(nonce, sealed, self._hash)
        except AeadError:
            raise HandshakeError(reason) from None
        self._mix_hash(sealed)
        return plaintext

    def wipe(self) -> None:
        """Forget the ephemeral key. Called by whoever gives a handshake up; a finished one has done it."""
        if self._ephemeral is not None:
            self._ephemeral.wipe()

    def _split(self) -> tuple[bytes, bytes]:
        return hkdf2(self._chain, b"")


def act_untrusted(number: int, data: bytes, size: int) -> bytes:
    """Return an act without its version byte. Raises HandshakeError."""
    if len(data) != size:
        raise HandshakeError(f"ACT{number}_READ_FAILED")
    if data[0] != 0:
        raise HandshakeError(f"ACT{number}_BAD_VERSION {data[0]}")
    return data[1:]


def point_untrusted(data: bytes, reason: str) -> PublicKey:
    """Return a point of 33 bytes. Raises HandshakeError."""
    try:
        return PublicKey(data)
    except AuthenticationError:
        raise HandshakeError(reason) from None


class Initiator(_Handshake):
    """The side that dials: `act_one()`, then `act_three(act two)`.

    Args: `ephemeral` is 32 fresh random bytes, `responder` the static key of whoever is dialled.
    """

    __slots__ = ("_responder",)

    act_two_bytes = ACT_TWO_BYTES

    _ephemeral: Ephemeral

    def __init__(self, identity: Identity, responder: PublicKey, ephemeral: bytes, prologue: bytes = PROLOGUE) -> None:
        super().__init__(identity, prologue, responder.compressed)
        self._ephemeral = Ephemeral(ephemeral)
        self._responder = responder

    def act_one(self) -> bytes:
        """Return the 50 bytes of act one. Shows nothing of who we are."""
        self._mix_hash(self._ephemeral.pubkey)
        self._mix_key(self._ephemeral.ecdh(self._responder))
        return b"\0" + self._ephemeral.pubkey + self._seal(_NONCE_0, b"")

    def act_three(self, act_two: bytes) -> tuple[bytes, Keys]:
        """Check act two; return the 66 bytes of act three and the open channel.

        Raises: HandshakeError for 50 bytes that the holder of the dialled key did not make.
        """
        data = act_untrusted(2, act_two, ACT_TWO_BYTES)
        remote = point_untrusted(data[:33], "ACT2_BAD_PUBKEY")
        self._mix_hash(data[:33])
        self._mix_key(self._ephemeral.ecdh(remote))
        self._open(_NONCE_0, data[33:], "ACT2_BAD_TAG")
        static = self._seal(_NONCE_1, self._identity.pubkey)
        self._mix_key(self._identity.ecdh(remote))
        tag = self._seal(_NONCE_0, b"")
        sending, receiving = self._split()
        self._ephemeral.wipe()
        return b"\0" + static + tag, Keys(
            Cipher(self._chain, sending), Cipher(self._chain, receiving), self._responder, self._hash
        )


class Responder(_Handshake):
    """The side that was dialled: `act_two(act one)`, then `finish(act three)`.

    Args: `ephemeral` is 32 fresh random bytes.
    """

    __slots__ = ("_random",)

    act_one_bytes = ACT_ONE_BYTES
    act_three_bytes = ACT_THREE_BYTES

    def __init__(self, identity: Identity, ephemeral: bytes, prologue: bytes = PROLOGUE) -> None:
        super().__init__(identity, prologue, identity.pubkey)
        self._ephemeral = None
        self._random = ephemeral  # its point is computed only once act one held: refusing a forged one is cheaper

    def act_two(self, act_one: bytes) -> bytes:
        """Check act one; return the 50 bytes of act two.

        Raises: HandshakeError for 50 bytes that were not made for our key. Nothing is sent back then.
        """
        data = act_untrusted(1, act_one, ACT_ONE_BYTES)
        remote = point_untrusted(data[:33], "ACT1_BAD_PUBKEY")
        self._mix_hash(data[:33])
        self._mix_key(self._identity.ecdh(remote))
        self._open(_NONCE_0, data[33:], "ACT1_BAD_TAG")
        ephemeral = self._ephemeral = Ephemeral(self._random)
        self._mix_hash(ephemeral.pubkey)
        self._mix_key(ephemeral.ecdh(remote))
        return b"\0" + ephemeral.pubkey + self._seal(_NONCE_0, b"")

    def finish(self, act_three: bytes) -> Keys:
        """Check act three and return the open channel; `peer` is the dialler's static key, which it proved to hold.

        Raises: HandshakeError for 66 bytes that continue no handshake of ours.
        """
        data = act_untrusted(3, act_three, ACT_THREE_BYTES)
        if self._ephemeral is None:
            raise HandshakeError("ACT3_BEFORE_ACT1")
        static = self._open(_NONCE_1, data[:49], "ACT3_BAD_CIPHERTEXT")
        remote = point_untrusted(static, "ACT3_BAD_PUBKEY")
        self._mix_key(self._ephemeral.ecdh(remote))
        self._open(_NONCE_0, data[49:], "ACT3_BAD_TAG")
        receiving, sending = self._split()
        self._ephemeral.wipe()
        return Keys(Cipher(self._chain, sending), Cipher(self._chain, receiving), remote, self._hash)
