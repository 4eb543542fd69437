"""Proving both identities inside an open TLS 1.3 stream: three acts, which give what XK gives.

TLS encrypts, and its throw-away certificate names nobody. Inside it:

    act 1  dialler     version, nonce (32), tag (16)         the tag shows knowledge of the dialled key, not our own
    act 2  listener    version, challenge (32), signature    the identity vouches for the certificate
    act 3  dialler     version, key (33), signature          over everything, once the listener is proved

Each proof covers the SHA-256 of the listener's certificate as its maker saw it (RFC 5929 "tls-server-end-point"), so
that whoever ends TLS in the middle can relay none of them. Who does not know the listener's key gets no byte from it;
who does not hold it learns nothing of the dialler. Pure: bytes in, bytes out, randomness as an argument.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey, TaggedHash
from .noise import HandshakeError, Keys, act_untrusted, point_untrusted

__all__ = ["ACT_ONE_BYTES", "ACT_THREE_BYTES", "ACT_TWO_BYTES", "Framer", "Initiator", "Responder"]

ACT_ONE_BYTES: Final = 49
ACT_TWO_BYTES: Final = 97
ACT_THREE_BYTES: Final = 98

_VERSION: Final = b"\0"
_NONCE_BYTES: Final = 32
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 33
_LENGTH_BYTES: Final = 2

_knows: Final = TaggedHash("musignet/tls-knows")
_server: Final = TaggedHash("musignet/tls-server")
_client: Final = TaggedHash("musignet/tls-client")
_whole: Final = TaggedHash("musignet/tls")


class Framer:
    """One direction of an open channel inside TLS: packets of a two-byte length and a body. TLS encrypts them."""

    __slots__ = ()

    def seal(self, plaintext: bytes) -> tuple[bytes, bytes]:
        """Return a packet in two pieces, to be sent one after the other. `plaintext` has at most 65,535 bytes."""
        return len(plaintext).to_bytes(_LENGTH_BYTES, "big"), plaintext

    def open_untrusted(self, data: bytes | bytearray, at: int) -> tuple[bytes, int] | None:
        """Return the body of the packet that begins at `at`, and where the next one does; None: it is not whole yet."""
        begin = at + _LENGTH_BYTES
        end = begin + int.from_bytes(data[at:begin], "big")
        return None if len(data) < end or len(data) < begin else (bytes(data[begin:end]), end)


class _Proofs:
    """What both sides share: our identity, our 32 random bytes, and the hash of the certificate that we saw."""

    __slots__ = ("_certificate_hash", "_identity", "_random")

    def __init__(self, identity: Identity, random: bytes, certificate_hash: bytes) -> None:
        self._identity = identity
        self._random = random
        self._certificate_hash = certificate_hash

    def wipe(self) -> None:
        """Nothing here is secret: the random bytes are sent as they are."""

    def _tag(self, server: bytes, nonce: bytes) -> bytes:
        return _knows(server, self._certificate_hash, nonce)[:_TAG_BYTES]

    def _server_digest(self, server: bytes, nonce: bytes, challenge: bytes) -> bytes:
        return _server(server, self._certificate_hash, nonce, challenge)

    def _client_digest(self, server: bytes, client: bytes, nonce: bytes, challenge: bytes) -> bytes:
        return _client(server, client, self._certificate_hash, nonce, challenge)

    def _keys(self, peer: PublicKey, *everything: bytes) -> Keys:
        return Keys(Framer(), Framer(), peer, _whole(*everything, self._certificate_hash))


class Initiator(_Proofs):
    """The side that dials: `act_one()`, then `act_three(act two)`.

    Args: `random` is 32 fresh random bytes, `responder` the key of whoever is dialled, `certificate_hash` the SHA-256
    of the certificate that the other end of this stream showed.
    """

    __slots__ = ("_responder",)

    act_two_bytes = ACT_TWO_BYTES

    def __init__(self, identity: Identity, responder: PublicKey, random: bytes, certificate_hash: bytes) -> None:
        super().__init__(identity, random, certificate_hash)
        self._responder = responder

    def act_one(self) -> bytes:
        """Return the 49 bytes of act one. Shows nothing of who we are, and the dialled key to nobody who lacks it."""
        return _VERSION + self._random + self._tag(self._responder.compressed, self._random)

    def act_three(self, act_two: bytes) -> tuple[bytes, Keys]:
        """Check act two; return the 98 bytes of act three and the open channel.

        Raises: HandshakeError when the holder of the dialled key does not vouch for this stream's certificate.
        """
        data = act_untrusted(2, act_two, ACT_TWO_BYTES)
        challenge, signature = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        server, own = self._responder.compressed, self._identity.pubkey
        if not self._responder.verify(self._server_digest(server, self._random, challenge), signature):
            raise HandshakeError("ACT2_BAD_SIGNATURE")
        proof = self._identity.sign(self._client_digest(server, own, self._random, challenge))
        keys = self._keys(self._responder, server, own, self._random, challenge)
        return _VERSION + own + proof, keys


class Responder(_Proofs):
    """The side that was dialled: `act_two(act one)`, then `finish(act three)`.

    Args: `random` is 32 fresh random bytes, `certificate_hash` the SHA-256 of our own certificate.
    """

    __slots__ = ("_nonce",)

    act_one_bytes = ACT_ONE_BYTES
    act_three_bytes = ACT_THREE_BYTES

    def __init__(self, identity: Identity, random: bytes, certificate_hash: bytes) -> None:
        super().__init__(identity, random, certificate_hash)
        self._nonce = b""

    def act_two(self, act_one: bytes) -> bytes:
        """Check act one; return the 97 bytes of act two.

        Raises: HandshakeError when it was not made for our key and certificate. Nothing is sent back then.
        """
        data = act_untrusted(1, act_one, ACT_ONE_BYTES)
        nonce, tag = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        own = self._identity.pubkey
        if not compare_digest(self._tag(own, nonce), tag):
            raise HandshakeError("ACT1_BAD_TAG")
        self._nonce = nonce
        return _VERSION + self._random + self._identity.sign(self._server_digest(own, nonce, self._random))

    def finish(self, act_three: bytes) -> Keys:
        """Check act three and return the open channel; `peer` is the dialler's key, which it proved to hold.

        Raises: HandshakeError for 98 bytes that continue no handshake of ours.
        """
        data = act_untrusted(3, act_three, ACT_THREE_BYTES)
        if not self._nonce:
            raise HandshakeError("ACT3_BEFORE_ACT1")
        key, signature = data[:_KEY_BYTES], data[_KEY_BYTES:]
        peer = point_untrusted(key, "ACT3_BAD_PUBKEY")
        own = self._identity.pubkey
        if not peer.verify(self._client_digest(own, key, self._nonce, self._random), signature):
            raise HandshakeError("ACT3_BAD_SIGNATURE")
        return self._keys(peer, own, key, self._nonce, self._random)
