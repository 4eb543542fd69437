"""What a node and a relay say to each other (NIP-01, NIP-42): JSON arrays. Strict and pure (THREATS.md R6)."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from .. import limits
from ..errors import ReceiveError
from .giftwrap import LIVE, MAIL, Event

__all__ = [
    "LETTERS",
    "LIVES",
    "SUBSCRIPTIONS",
    "Accepted",
    "Challenged",
    "Delivered",
    "Ended",
    "FromRelay",
    "Noticed",
    "StoredEnd",
    "auth",
    "parse_untrusted",
    "publish",
    "subscribe",
]

LETTERS: Final = "letters"
LIVES: Final = "live"
SUBSCRIPTIONS: Final = (LETTERS, LIVES)
"""What is stored, and what is passed on. Two, for many relays store for minutes what they only have to pass on, and
would hand out that in the place of letters."""

_Text = Annotated[str, Meta(max_length=4096)]
_Name = Annotated[str, Meta(max_length=64)]


class Delivered(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="EVENT"):
    """An event for a subscription."""

    subscription: _Name
    event: Event


class Accepted(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="OK"):
    """What became of an event that we published."""

    id: _Name
    taken: bool
    why: _Text = ""


class StoredEnd(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="EOSE"):
    """What was stored has been delivered. Nothing here waits for it."""

    subscription: _Name


class Ended(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="CLOSED"):
    """The relay ends a subscription."""

    subscription: _Name
    why: _Text = ""


class Noticed(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="NOTICE"):
    """A sentence for people."""

    text: _Text


class Challenged(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="AUTH"):
    """The relay wants to know whose inboxes are read."""

    challenge: _Text


FromRelay: TypeAlias = Delivered | Accepted | StoredEnd | Ended | Noticed | Challenged

_decoder: Final[msgspec.json.Decoder[FromRelay]] = msgspec.json.Decoder(FromRelay)
_encode: Final = msgspec.json.encode


def parse_untrusted(text: str | bytes) -> FromRelay:
    """Return what a relay says. Raises ReceiveError for anything that relays do not say, or not in this form."""
    if not isinstance(text, str):
        raise ReceiveError("not a relay's message", expected="text", got="binary data")
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ReceiveError("not a relay's message", got=str(error)) from None


def subscribe(subscription: str, inboxes: list[str]) -> str:
    """Return the request for what is addressed to these inboxes from now on, and for letters as far as they are stored.

    Args: subscription — one of `SUBSCRIPTIONS`; a second request takes the place of the first.
    """
    kind, most = (MAIL, limits.RELAY_SUBSCRIPTION_MAX) if subscription == LETTERS else (LIVE, 1)
    return _encode(("REQ", subscription, {"kinds": [kind], "#p": inboxes, "limit": most})).decode()


def publish(event: Event) -> str:
    """Return the request to pass an event on."""
    return _encode(("EVENT", event)).decode()


def auth(event: Event) -> str:
    """Return the answer to a challenge."""
    return _encode(("AUTH", event)).decode()
