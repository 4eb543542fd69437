"""The signed envelope: 64-byte BIP-340 signature, then the body as one msgpack array.

    Message ----sign----> SignedMessage ----verify----> VerifiedMessage
                 bytes ---from_bytes--^  `-- Gate.open_untrusted --^   (what drivers use: every check, in order)

The signature is over the tagged hash of *the received body bytes*, never of a re-encoding. The message id is that
hash, truncated. Only this module makes a `VerifiedMessage`, and only after the signature held.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from .. import limits
from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey, TaggedHash
from ..errors import AuthenticationError, InvalidMessage, SerializationError
from ..text import safe, who
from .codec import Codec, Record
from .messages import (
    BootEpoch,
    Chain,
    Code,
    Label,
    MessageType,
    Millis,
    Sequence,
    SessionId,
    payload_cap_bytes,
    payload_decode_untrusted,
    payload_encode,
)

__all__ = ["ENVELOPE_VERSION", "Body", "Gate", "Message", "SignedMessage", "VerifiedMessage"]

ENVELOPE_VERSION: Final = 0
"""THREATS.md T9: version 0 only, and nothing older or weaker to fall back to."""

NO_EPOCH: Final = bytes(limits.BOOT_EPOCH_BYTES)
"""The boot epoch of a message that was signed outside a running node."""

_SIG: Final = 64
_digest = TaggedHash("musignet/envelope")


class Body(Record, frozen=True):
    """The signed part. The order of the fields is the wire format."""

    version: Annotated[int, Meta(ge=0, le=255)]
    chain: Annotated[int, Meta(ge=0, le=255)]
    type: Code
    sender_key: Annotated[bytes, Meta(min_length=33, max_length=33)]
    recipient: Annotated[bytes, Meta(max_length=33)]
    """Empty: whoever the sender is linked to. 33 bytes: a node's key. 32 bytes: a group's id."""
    session: SessionId
    epoch: BootEpoch
    seq: Sequence
    sent_at_ms: Millis
    label: Label
    payload: bytes


_codec = Codec(Body)


class Message:
    """What a caller wants to say: a type, the sender's label, and a payload. Not signed yet, and never changed.

    Args:
        type:    a `MessageType`.
        sender:  the sender's label, at most 64 characters. Shown to people; the signing key is who it is from.
        payload: bytes, or the record that the type carries (`Ping`, `Error`, ...).
        session: empty, or the 32-byte id of the signing session it belongs to.

    Raises: SerializationError when a part is out of bounds, or the record is not this type's.
    """

    __slots__ = ("payload", "sender", "session", "type")

    def __init__(
        self, type: int, sender: str, payload: bytes | bytearray | memoryview | Record = b"", *, session: bytes = b""
    ) -> None:
        self.type: int = _KINDS.get(type, type)
        self.sender = sender
        self.payload = payload_encode(type, payload) if isinstance(payload, Record) else bytes(payload)
        self.session = session
        cap = payload_cap_bytes(type)
        if len(self.payload) > cap:
            raise SerializationError(
                f"{_kind_name(type)} payload too large",
                expected=f"at most {cap} bytes",
                got=f"{len(self.payload)} bytes",
            )

    @property
    def content(self) -> Record | bytes:
        """The payload as the record of its type, or as bytes where the type has none.

        Raises: SerializationError when a typed payload is not canonical.
        """
        return payload_decode_untrusted(self.type, self.payload)

    def sign(
        self,
        identity: Identity,
        *,
        to: bytes | str | None = None,
        seq: int = 0,
        sent_at_ms: int = 0,
        epoch: bytes = NO_EPOCH,
        chain: Chain = Chain.MAINNET,
    ) -> SignedMessage:
        """Return the signed message. This one stays as it is.

        Args:
            to:         a 33-byte key or 32-byte group id, as bytes or hex; None for whoever the sender is linked to.
            seq:        the sender's counter in this boot epoch (8 bytes, drawn at each start).
            sent_at_ms: milliseconds since 1970.

        Raises: SerializationError when a part is out of bounds; LocalError when the identity was wiped.
        """
        body = Body(
            ENVELOPE_VERSION,
            chain,
            self.type,
            identity.public.compressed,
            _recipient(to),
            self.session,
            epoch,
            seq,
            sent_at_ms,
            self.sender,
            self.payload,
        )
        encoded = _codec.check(body)
        digest = _digest(encoded)
        return SignedMessage(body, identity.sign(digest) + encoded, digest)

    def verify(self) -> VerifiedMessage:
        """Return the verified message. Raises AuthenticationError: this one was never signed."""
        raise AuthenticationError("this message is not signed", hint="sign(identity) returns the signed one")

    def to_bytes(self) -> bytes:
        """Return the envelope. Raises SerializationError: only a signed message has one."""
        raise SerializationError(
            "this message is not signed", hint="sign(identity) returns the signed one, which has bytes"
        )

    @staticmethod
    def from_bytes(data: bytes) -> SignedMessage:
        """Parse an envelope. Nothing is verified yet: call `verify`, or give it to a `Gate`.

        Raises: SerializationError for anything that is not one canonical envelope of at most 4 MiB.
        """
        return SignedMessage(*_parse_untrusted(bytes(data)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_kind_name(self.type)} from {safe(self.sender)!r}, {len(self.payload)} bytes>"


class SignedMessage(Message):
    """A message with a signature that nobody has checked yet."""

    __slots__ = ("body", "digest", "id", "raw")

    body: Body
    raw: bytes
    digest: bytes
    id: bytes
    """The message id: 16 bytes of the digest of the body."""

    def __init__(self, body: Body, raw: bytes, digest: bytes) -> None:
        self.body = body
        self.raw = raw
        self.digest = digest
        self.id = digest[: limits.MESSAGE_ID_BYTES]
        self.type = _KINDS.get(body.type, body.type)
        self.sender = body.label
        self.payload = body.payload
        self.session = body.session

    @property
    def sender_key(self) -> bytes:
        """The key it says it was signed with: 33 bytes."""
        return self.body.sender_key

    def to_bytes(self) -> bytes:
        """Return the envelope: signature, then body."""
        return self.raw

    def verify(self) -> VerifiedMessage:
        """Check the signature under the sender key in the body. It says nothing about *whose* key that is.

        Returns: the verified message.
        Raises:  AuthenticationError when the key is no key or the signature does not hold.
        """
        key = PublicKey(self.body.sender_key)
        if not key.verify(self.digest, self.raw[:_SIG]):
            raise AuthenticationError("signature does not verify", peer=who(self.sender, self.body.sender_key))
        return VerifiedMessage(self.body, self.raw, self.digest, _PROOF)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignedMessage) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.digest)


class VerifiedMessage(SignedMessage):
    """A message whose signature held under `sender_key`. Only this module can make one."""

    __slots__ = ()

    def __init__(self, body: Body, raw: bytes, digest: bytes, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("a VerifiedMessage comes from SignedMessage.verify or Gate.open_untrusted")
        super().__init__(body, raw, digest)


class Gate:
    """Every check between the bytes of one peer's link and a `VerifiedMessage`, cheapest first.

    Args:
        peer:  the key the channel was authenticated with. The sender must be this key.
        own:   our own key. A message to another node is refused, and so is one of our own sent back (T8).
        chain: our Bitcoin network.
        label: how the peer is called in error texts.
        groups: ids of the groups we are in; a set that may change later.
    """

    __slots__ = ("_chain", "_groups", "_own", "_peer", "_peer_key", "label")

    def __init__(
        self,
        peer: PublicKey,
        own: bytes,
        chain: Chain,
        *,
        label: str = "",
        groups: frozenset[bytes] | set[bytes] = frozenset(),
    ) -> None:
        self._peer = peer
        self._peer_key = peer.compressed
        self._own = own
        self._chain = int(chain)
        self._groups = groups
        self.label = label

    def open_untrusted(self, data: bytes) -> VerifiedMessage:
        """Return the message in an envelope from this peer.

        Raises:
            SerializationError:  not one canonical envelope.
            InvalidMessage:      another version, Bitcoin network or recipient, a payload over its cap, or an
                                 unknown even type.
            AuthenticationError: another sender than the channel's key, or a signature that does not hold.
        """
        try:
            body, raw, digest = _parse_untrusted(data)
        except SerializationError as error:
            raise SerializationError(f"undecodable message: {error}", peer=self._name) from None
        if (
            body.sender_key != self._peer_key
            or body.version != ENVELOPE_VERSION
            or body.chain != self._chain
            or (body.recipient and body.recipient != self._own and body.recipient not in self._groups)
            or len(body.payload) > payload_cap_bytes(body.type)
            or (body.type not in _KINDS and body.type % 2 == 0)
        ):
            raise self._objection(body)
        if not self._peer.verify(digest, raw[:_SIG]):
            raise AuthenticationError(
                "signature does not verify", peer=self._name, hint="the link is closed; nothing of it was used"
            )
        return VerifiedMessage(body, raw, digest, _PROOF)

    @property
    def _name(self) -> str:
        return who(self.label, self._peer_key)

    def _objection(self, body: Body) -> InvalidMessage | AuthenticationError:
        """Say which of the checks of `open_untrusted` failed first."""
        if body.version != ENVELOPE_VERSION:
            return InvalidMessage(
                "wrong envelope version", peer=self._name, expected=ENVELOPE_VERSION, got=body.version
            )
        if body.sender_key == self._own:
            return AuthenticationError(
                "our own message came back", peer=self._name, hint="a reflection; the link is closed"
            )
        if body.sender_key != self._peer_key:
            return AuthenticationError(
                "sender is not the channel's key",
                peer=self._name,
                expected=self._peer_key.hex(),
                got=body.sender_key.hex(),
            )
        if body.chain != self._chain:
            return InvalidMessage(
                "wrong Bitcoin network", peer=self._name, expected=_chain_name(self._chain), got=_chain_name(body.chain)
            )
        if body.recipient and body.recipient != self._own and body.recipient not in self._groups:
            return InvalidMessage(
                "wrong recipient", peer=self._name, expected=self._own.hex(), got=body.recipient.hex()
            )
        cap = payload_cap_bytes(body.type)
        if len(body.payload) > cap:
            return InvalidMessage(
                f"{_kind_name(body.type)} payload too large",
                peer=self._name,
                expected=f"at most {cap} bytes",
                got=f"{len(body.payload)} bytes",
            )
        return InvalidMessage(
            "unknown message type", peer=self._name, expected="a known type, or an odd one to ignore", got=body.type
        )


_PROOF: Final = object()
_KINDS: Final[dict[int, MessageType]] = {int(kind): kind for kind in MessageType}


def _kind_name(kind: int) -> str:
    return _KINDS[kind].name if kind in _KINDS else f"type {kind}"


def _chain_name(chain: int) -> str:
    return Chain(chain).name.lower() if chain in Chain._value2member_map_ else f"number {chain}"


def _recipient(to: bytes | str | None) -> bytes:
    try:
        key = b"" if to is None else bytes.fromhex(to) if isinstance(to, str) else bytes(to)
    except ValueError:
        raise SerializationError(
            "not a recipient", expected="a key or group id as bytes or hex", got=safe(to)
        ) from None
    if len(key) not in (0, 32, 33):
        raise SerializationError(
            "not a recipient", expected="a 33-byte key or a 32-byte group id", got=f"{len(key)} bytes"
        )
    return key


def _parse_untrusted(data: bytes) -> tuple[Body, bytes, bytes]:
    if not _SIG < len(data) <= limits.MESSAGE_MAX_BYTES:
        raise SerializationError(
            "not a message", expected=f"{_SIG + 1} to {limits.MESSAGE_MAX_BYTES} bytes", got=f"{len(data)} bytes"
        )
    encoded = data[_SIG:]  # a copy: comparing bytes with a memoryview goes byte by byte
    return _codec.decode_untrusted(encoded), data, _digest(encoded)
