"""What a route is, who may use it, and how a refusal looks. No server in here."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from msgspec import Struct

from ...errors import (
    AuthenticationError,
    ConnectionError,
    InvalidMessage,
    IoError,
    LocalError,
    NetworkError,
    PeerNotFound,
    SerializationError,
    Timeout,
    TransportError,
)
from ..daemon import Daemon
from ..sessions import NotFound

__all__ = [
    "MAY",
    "Call",
    "Capability",
    "Endpoint",
    "Forbidden",
    "Problem",
    "Role",
    "TooLarge",
    "Unauthorised",
    "from_base64",
    "status_of",
]


class Capability(Enum):
    """What a route needs."""

    READ = "read"
    PROPOSE = "propose"
    APPROVE = "approve"
    """To answer for the person: yes, which needs the approver's proof besides, or no."""
    ADMIN = "admin"


class Role(Enum):
    """Who is asking."""

    OWNER = "owner"
    """The user of this node, on the Unix socket."""
    ADMIN = "admin"
    WALLET = "wallet"
    WATCH = "watch"


MAY: Final[Mapping[Role, frozenset[Capability]]] = {
    Role.OWNER: frozenset(Capability),
    Role.ADMIN: frozenset(Capability),
    Role.WALLET: frozenset({Capability.READ, Capability.PROPOSE}),
    Role.WATCH: frozenset({Capability.READ}),
}
"""The role matrix (THREATS.md Z4, Z5). No role makes a proof of consent unnecessary."""


class Unauthorised(NetworkError):
    """Nobody we know: no token, a wrong one, or a request that a browser was tricked into."""


class Forbidden(NetworkError):
    """A role that may not do this."""


class TooLarge(NetworkError):
    """A body beyond its bound."""


_STATUS: Final[tuple[tuple[type[NetworkError], int], ...]] = (
    (NotFound, 404),
    (PeerNotFound, 404),
    (Unauthorised, 401),
    (Forbidden, 403),
    (TooLarge, 413),
    (SerializationError, 400),
    (AuthenticationError, 403),
    (InvalidMessage, 422),
    (Timeout, 504),
    (IoError, 503),
    (ConnectionError, 502),
    (TransportError, 409),
    (LocalError, 409),
    (NetworkError, 500),
)


def status_of(error: NetworkError) -> int:
    """Return the HTTP code for an error: the first line of the table that fits."""
    return next(code for kind, code in _STATUS if isinstance(error, kind))


class Problem(Struct, frozen=True):
    """Every answer that is not what was asked for."""

    error: str
    """One sentence for a person."""
    kind: str
    """The name of the error, for a program."""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: its role may do this, and its body is of the endpoint's type."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route. `call` does the work; what it raises becomes a `Problem`."""

    method: str
    path: str
    needs: Capability
    summary: str
    call: Callable[[Daemon, Call], Awaitable[object]]
    body: type[Struct] | None = None
    answer: Any = None
    """The type of the answer; None for `null`."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Names of query parameters, and what each is for."""
    stream: bool = False
    """Whether the answer is a stream of server-sent events: then `call` returns an iterator of them."""


def from_base64(text: str, refusal: NetworkError) -> bytes:
    """Return the bytes in a text; what is not base64 is answered with this refusal."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; so is what is said of a text beyond ASCII
        raise refusal from None
