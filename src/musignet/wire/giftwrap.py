"""Gift wraps (NIP-59), as they carry links and mail: an event from a one-time key to an inbox, its size in steps. Pure.

    payload -> length, payload, zeros -> base64 -> NIP-44 to the inbox -> event of kind 21059 or 1059

Ours for the same reasons as `crypto.nip44`, and for the seal: what NIP-59 calls so is the Noise channel inside, which
proves both sides and forgets its keys; `Sealed` mail has its own. A relay learns the name of an inbox, the time, and
one of four sizes.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from .. import limits
from ..crypto import nip44
from ..crypto.relaykey import RelayKey
from ..crypto.schnorr import PublicKey
from ..errors import AuthenticationError, ReceiveError, SerializationError
from ..text import safe

__all__ = [
    "AUTH",
    "LIVE",
    "MAIL",
    "PAYLOAD_MAX_BYTES",
    "Event",
    "auth_event",
    "check_untrusted",
    "open_untrusted",
    "wrap",
]

LIVE: Final = 21_059
"""An ephemeral gift wrap: relays pass it on and do not store it."""
MAIL: Final = 1059
"""A gift wrap that relays store until it expires."""
AUTH: Final = 22_242
"""Says to a relay that an inbox is ours (NIP-42)."""

_LENGTH_BYTES: Final = 2
_CAPACITIES: Final = tuple(chars // 4 * 3 - _LENGTH_BYTES for chars in limits.RELAY_TEXTS)
PAYLOAD_MAX_BYTES: Final = _CAPACITIES[-1]

_Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
_Seconds = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Tag = Annotated[tuple[str, ...], Meta(max_length=8)]


class Event(Struct, frozen=True, forbid_unknown_fields=True):
    """An event of NIP-01. Its form is right; nothing else is said by that."""

    id: _Hex32
    pubkey: _Hex32
    created_at: _Seconds
    kind: Annotated[int, Meta(ge=0, le=65_535)]
    tags: Annotated[tuple[_Tag, ...], Meta(max_length=16)]
    content: str
    sig: Annotated[str, Meta(pattern="^[0-9a-f]{128}\\Z")]


def wrap(kind: int, payload: bytes, inbox: bytes, *, now_s: int, expires_s: int, secret: bytes, nonce: bytes) -> Event:
    """Return the event that carries a payload to an inbox.

    Args:
        kind:    `LIVE` or `MAIL`.
        payload: at most `PAYLOAD_MAX_BYTES`.
        inbox:   32 bytes (`crypto.relaykey.inbox_of`).
        now_s, expires_s: seconds since 1970. They tell a relay when to forget it, and nobody else anything.
        secret, nonce: 32 fresh random bytes each.

    Raises: SerializationError when the payload is too long, AuthenticationError when the inbox is no key.
    """
    step = bisect_left(_CAPACITIES, len(payload))
    if step == len(_CAPACITIES):
        raise SerializationError(
            "too much for one event", expected=f"at most {PAYLOAD_MAX_BYTES} bytes", got=f"{len(payload)} bytes"
        )
    key = RelayKey.one_time(secret)
    padded = len(payload).to_bytes(_LENGTH_BYTES) + payload + bytes(_CAPACITIES[step] - len(payload))
    conversation = nip44.conversation_key(key.shared_x(inbox))
    content = nip44.encrypt(conversation, base64.b64encode(padded), nonce)
    return _signed(key, kind, (("p", inbox.hex()), ("expiration", str(expires_s))), content, now_s)


def auth_event(key: RelayKey, relay: str, challenge: str, now_s: int) -> Event:
    """Return the answer to a relay's challenge: `key` is ours (NIP-42).

    Raises: ReceiveError for a challenge that relays do not make.
    """
    plain = challenge.isascii() and challenge.isprintable() and not set(challenge) & {'"', "\\"}
    if not plain or len(challenge) > limits.RELAY_CHALLENGE_MAX_CHARS:
        raise ReceiveError("not a challenge", expected="a short word", got=safe(challenge, 40), peer=relay)
    return _signed(key, AUTH, (("relay", relay), ("challenge", challenge)), "", now_s)


def check_untrusted(event: Event, inboxes: Mapping[str, RelayKey]) -> RelayKey:
    """Check all that an honest relay has checked before it hands out an event, before anything is decrypted.

    Args:    inboxes — our keys, by the names that were subscribed to.
    Returns: the key that opens it.
    Raises:  ReceiveError: this relay does not do what it says. SerializationError: not one of our events, which is
             nobody's fault.
    """
    inbox = next((inboxes[tag[1]] for tag in event.tags if tag[:1] == ("p",) and tag[1:2] and tag[1] in inboxes), None)
    if inbox is None or event.kind not in (LIVE, MAIL):
        raise ReceiveError("an event that was not asked for")
    if len(event.tags) != 2 or event.tags[0] != ("p", inbox.xonly.hex()) or not _plain(event):
        raise SerializationError("not an event of this kind of node")
    digest = _digest(event.pubkey, event.created_at, event.kind, event.tags, event.content)
    if digest.hex() != event.id:
        raise ReceiveError("an event with a wrong id")
    try:
        right = PublicKey(b"\x02" + bytes.fromhex(event.pubkey)).verify(digest, bytes.fromhex(event.sig))
    except AuthenticationError:
        right = False
    if not right:
        raise ReceiveError("an event with a wrong signature")
    return inbox


def open_untrusted(event: Event, inbox: RelayKey) -> bytes:
    """Return the payload of a checked event. Raises SerializationError: whoever sent it is not one of us."""
    try:
        conversation = nip44.conversation_key(inbox.shared_x(bytes.fromhex(event.pubkey)))
        text = nip44.decrypt_untrusted(conversation, event.content)
        padded = base64.b64decode(text, validate=True)
    except (AuthenticationError, binascii.Error, ValueError):
        raise SerializationError("not a gift wrap for this inbox") from None
    size = int.from_bytes(padded[:_LENGTH_BYTES])
    if len(text) not in limits.RELAY_TEXTS or size > len(padded) - _LENGTH_BYTES:
        raise SerializationError("not the padding of this kind of node")
    return padded[_LENGTH_BYTES : _LENGTH_BYTES + size]


def _signed(key: RelayKey, kind: int, tags: tuple[tuple[str, ...], ...], content: str, now_s: int) -> Event:
    pubkey = key.xonly.hex()
    digest = _digest(pubkey, now_s, kind, tags, content)
    return Event(digest.hex(), pubkey, now_s, kind, tags, content, key.sign(digest).hex())


def _digest(pubkey: str, created_at: int, kind: int, tags: Any, content: str) -> bytes:
    """The id of an event (NIP-01). The texts are plain: none of them has a character that is escaped."""
    return sha256(msgspec.json.encode((0, pubkey, created_at, kind, tags, content))).digest()


def _plain(event: Event) -> bool:
    """Whether the id can be computed without NIP-01's own rules of escaping: ours always can."""
    expiration = event.tags[1]
    return (
        event.content.isascii()
        and event.content.isprintable()
        and not set(event.content) & {'"', "\\"}
        and expiration[:1] == ("expiration",)
        and len(expiration) == 2
        and expiration[1].isascii()
        and expiration[1].isdecimal()
    )
