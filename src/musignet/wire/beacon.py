"""Beacons: the datagrams by which nodes of one local network find each other (THREATS.md U1 to U5).

    0   magic 4 | version 1 | kind 1 | chain 1
    7   sealed: tag 16 | nonce 12 | ChaCha20-Poly1305 of (statement 60 | signature 64)
        open:   statement 60 | label, at most 256 | signature 64

    statement: key 33 | boot epoch 8 | sequence 8 | sent at, ms 8 | port 2 | carriers 1

A sealed beacon is for an `Audience`: those who share a secret. Tag and key come from that secret and the hour, so that
others see 175 bytes that look the same from every node, and a tag that is another one every hour. An open beacon hides
nothing: a person has asked to be seen. The signature covers everything before it, the tag included, which
is one of an audience and an hour: a member cannot pass another member's beacon on to a second audience.

A beacon names no host. It says which port its key listens on, at the address that the datagram came from.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from .. import limits
from ..chain import Chain
from ..crypto.aead import Aead, AeadError
from ..crypto.keys import Identity
from ..crypto.schnorr import PublicKey, TaggedHash
from ..errors import AuthenticationError, SerializationError
from ..text import name_fault

__all__ = ["Audience", "Beacon", "Claim", "Datagram", "Listening", "announce", "hour_of", "seal"]

_MAGIC: Final = b"musB"
_VERSION: Final = 1
_SEALED: Final = 0
_OPEN: Final = 1
_HEAD_BYTES: Final = 7
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = limits.BEACON_NONCE_BYTES
_SIGNATURE_BYTES: Final = limits.SIGNATURE_BYTES
_statement = Struct(">33s8sQQHB")
_SEALED_AT: Final = _HEAD_BYTES + _TAG_BYTES + _NONCE_BYTES
_SEALED_BYTES: Final = _SEALED_AT + _statement.size + _SIGNATURE_BYTES + 16
_OPEN_LEAST_BYTES: Final = _HEAD_BYTES + _statement.size + 1 + _SIGNATURE_BYTES

_CHAINS: Final = frozenset(Chain)
_TCP: Final = 1
"""The first bit of `carriers`: Noise over TCP. What other bits mean is for later versions."""

_beacon_hash = TaggedHash("musignet/beacon")
_pair_hash = TaggedHash("musignet/beacon-pair")
_group_hash = TaggedHash("musignet/beacon-group")
_invite_hash = TaggedHash("musignet/beacon-invite")


def hour_of(now: float) -> int:
    """Return which hour since 1970 this is."""
    return int(now // limits.BEACON_HOUR_S)


@dataclass(frozen=True, slots=True)
class Beacon:
    """What a node says of itself."""

    key: bytes
    """33 bytes: its identity."""
    epoch: bytes
    seq: int
    """Rises with every beacon of one boot epoch."""
    sent_at_ms: int
    port: int
    """Where it listens, 1024 or above: no privileged service is ever dialled (THREATS.md U1)."""
    label: str = ""
    """In an open beacon. Shown, never trusted."""

    def encode(self) -> bytes:
        """Return the statement, 60 bytes. Raises SerializationError when a number does not fit."""
        if not limits.BEACON_PORT_MIN <= self.port <= 65_535:
            raise SerializationError("no port for a beacon", expected="1024 to 65535", got=self.port)
        try:
            return _statement.pack(self.key, self.epoch, self.seq, self.sent_at_ms, self.port, _TCP)
        except StructError as error:
            raise SerializationError(f"not a beacon: {error}") from None


class Audience:
    """Those who can read a beacon, and whose beacons are believed: the `members`, by their keys of 33 bytes.

    `secret`, 32 bytes, is what only they know. Make one with `pair`, `group` or `invite`. With `guests`, whoever knows
    the secret may speak, too: nothing is known of such a key but that.
    """

    __slots__ = ("_hour", "_ring", "_secret", "guests", "members")

    def __init__(self, secret: bytes, members: Iterable[bytes], *, guests: bool = False) -> None:
        self._secret = secret
        self.members: Final = frozenset(members)
        self.guests: Final = guests
        self._hour = -1
        self._ring = _Ring(b"", Aead(bytes(32)))

    @classmethod
    def pair(cls, identity: Identity, other: PublicKey) -> Audience:
        """Return the audience of two nodes. Only these two can compute the secret: ECDH of their identities."""
        return cls(_pair_hash(identity.ecdh(other)), (identity.pubkey, other.compressed))

    @classmethod
    def group(cls, description: bytes, members: Iterable[bytes]) -> Audience:
        """Return the audience of a group. `description` is all of what its members, and nobody else, know of it."""
        return cls(_group_hash(description), members)

    @classmethod
    def invite(cls, secret: bytes, inviter: bytes) -> Audience:
        """Return the audience of an invite: its maker, and whoever was given it and looks for them."""
        return cls(_invite_hash(secret), (inviter,), guests=True)

    def admits(self, key: bytes) -> bool:
        """Return whether this key may speak."""
        return self.guests or key in self.members

    def ring(self, hour: int) -> _Ring:
        """Return tag and key of an hour. The last answer is kept."""
        if hour != self._hour:
            self._hour, self._ring = hour, self._make(hour)
        return self._ring

    def _make(self, hour: int) -> _Ring:
        at = hour.to_bytes(8, "big")
        tag = hmac.digest(self._secret, b"tag" + at, "sha256")[:_TAG_BYTES]
        return _Ring(tag, Aead(hmac.digest(self._secret, b"key" + at, "sha256")))

    def __repr__(self) -> str:
        return f"<Audience of {len(self.members)}>"


class _Ring(NamedTuple):
    """What an audience recognises and reads beacons by, in one hour."""

    tag: bytes
    aead: Aead


class Listening:
    """The tags that are listened for, around one moment: a dictionary look-up tells noise from a beacon for us."""

    __slots__ = ("_audiences", "_by_tag", "_from", "_until")

    def __init__(self, audiences: Iterable[Audience]) -> None:
        self._audiences = tuple(audiences)
        self._from = self._until = 0.0
        self._by_tag: dict[bytes, tuple[Audience, Aead]] = {}

    def find(self, tag: bytes, now: float) -> tuple[Audience, Aead] | None:
        """Return who a tag is for, and the key; None when it is not for us."""
        if not self._from <= now < self._until:
            self._turn(now)
        return self._by_tag.get(tag)

    def _turn(self, now: float) -> None:
        """Make the table anew: a minute before and a minute after the full hour both hours count."""
        age_s, hour_s = limits.BEACON_AGE_MAX_S, limits.BEACON_HOUR_S
        first, last = hour_of(now - age_s), hour_of(now + age_s)
        self._from = max(first * hour_s + age_s, last * hour_s - age_s)
        self._until = min((first + 1) * hour_s + age_s, (last + 1) * hour_s - age_s)
        self._by_tag = {}
        for audience in self._audiences:
            for hour in {first, last}:
                tag, aead = audience.ring(hour)
                self._by_tag[tag] = audience, aead


@dataclass(frozen=True, slots=True)
class Claim:
    """A beacon whose signature nobody has looked at yet: look at everything else first, it is cheaper."""

    beacon: Beacon
    _digest: bytes
    _signature: bytes

    def verify(self) -> Beacon:
        """Return the beacon. Raises AuthenticationError when its key did not sign it."""
        if not PublicKey(self.beacon.key).verify(self._digest, self._signature):
            raise AuthenticationError("a beacon that its key did not sign")
        return self.beacon


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram that has the form of a beacon of this version. Nothing of it is believed yet."""

    chain: Chain
    tag: bytes
    """Empty in an open beacon."""
    _data: bytes

    @classmethod
    def parse_untrusted(cls, data: bytes) -> Datagram:
        """Return what arrived, by its length and its head alone. Raises SerializationError."""
        if not _OPEN_LEAST_BYTES <= len(data) <= limits.BEACON_MAX_BYTES or not data.startswith(_MAGIC):
            raise SerializationError("not a beacon")
        version, kind, chain = data[4:_HEAD_BYTES]
        if version != _VERSION or kind not in (_SEALED, _OPEN) or chain not in _CHAINS:
            raise SerializationError("a beacon of another version or network")
        if kind == _SEALED and len(data) != _SEALED_BYTES:
            raise SerializationError("a sealed beacon", expected=f"{_SEALED_BYTES} bytes", got=len(data))
        return cls(Chain(chain), data[_HEAD_BYTES : _HEAD_BYTES + _TAG_BYTES] if kind == _SEALED else b"", data)

    def unseal_untrusted(self, audience: Audience, aead: Aead) -> Claim:
        """Return what a sealed beacon claims, read with what `Listening.find` gave for its tag.

        Raises: SerializationError when it was made without the secret, or its key is no member's.
        """
        head, nonce = self._data[:_SEALED_AT], self._data[_SEALED_AT - _NONCE_BYTES : _SEALED_AT]
        try:
            text = aead.decrypt(nonce, self._data[_SEALED_AT:], head)
        except AeadError:
            raise SerializationError("a beacon that does not open") from None
        beacon = _read_untrusted(text[:-_SIGNATURE_BYTES])
        if not audience.admits(beacon.key):
            raise SerializationError("a beacon of somebody else's")
        digest = _beacon_hash(head[:-_NONCE_BYTES], text[:-_SIGNATURE_BYTES])
        return Claim(beacon, digest, text[-_SIGNATURE_BYTES:])

    def read_untrusted(self) -> Claim:
        """Return what an open beacon claims. Raises SerializationError."""
        body, signature = self._data[_HEAD_BYTES:-_SIGNATURE_BYTES], self._data[-_SIGNATURE_BYTES:]
        try:
            label = body[_statement.size :].decode("utf-8")
        except UnicodeDecodeError:
            raise SerializationError("not the label of a beacon") from None
        if name_fault(label):
            raise SerializationError("not the label of a beacon")
        digest = _beacon_hash(self._data[:_HEAD_BYTES], body)
        return Claim(_read_untrusted(body[: _statement.size], label), digest, signature)


def seal(beacon: Beacon, identity: Identity, chain: Chain, audience: Audience, nonce: bytes) -> bytes:
    """Return the datagram that only this audience can read. `nonce` is 12 fresh random bytes.

    Raises: SerializationError when a part is out of bounds, or the beacon is not a member's.
    """
    if not audience.admits(beacon.key):
        raise SerializationError("a beacon for an audience that its key is no member of")
    hour = hour_of(beacon.sent_at_ms / 1000)
    tag, aead = audience.ring(hour)
    text, head = beacon.encode(), _head(_SEALED, chain) + tag
    signature = identity.sign(_beacon_hash(head, text))
    return head + nonce + aead.encrypt(nonce, text + signature, head + nonce)


def announce(beacon: Beacon, identity: Identity, chain: Chain) -> bytes:
    """Return the datagram that everybody can read, label and all. Raises SerializationError, as `seal`."""
    if fault := name_fault(beacon.label):
        raise SerializationError(f"not a label for a beacon: {fault}")
    head, body = _head(_OPEN, chain), beacon.encode() + beacon.label.encode()
    return head + body + identity.sign(_beacon_hash(head, body))


def _head(kind: int, chain: Chain) -> bytes:
    return _MAGIC + bytes((_VERSION, kind, chain))


def _read_untrusted(data: bytes, label: str = "") -> Beacon:
    key, epoch, seq, sent_at_ms, port, carriers = _statement.unpack(data)
    if port < limits.BEACON_PORT_MIN or not carriers & _TCP or sent_at_ms > limits.SENT_AT_MAX_MS:
        raise SerializationError("a beacon out of bounds")
    return Beacon(key, epoch, seq, sent_at_ms, port, label)
