"""What a node asks of its driver, which performs it in the order given. And what it tells its owner.

`gc=False` is for what holds bytes and numbers. An error holds frames, and a frame whatever went through it: what
carries one must be seen by the garbage collector, or both stay for ever.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..errors import NetworkError
from ..signing.effects import News as SigningNews
from ..signing.effects import Save as SaveRecord
from ..signing.verbs import Verb
from ..wire.envelope import VerifiedMessage
from ..wire.messages import CloseCode
from .addresses import Address
from .kept import Box, Kept

__all__ = [
    "Acknowledge",
    "AskKeyholder",
    "Connect",
    "Disconnect",
    "Effect",
    "Expired",
    "Fault",
    "MessageArrived",
    "News",
    "OldDisk",
    "PeerDown",
    "PeerUp",
    "Publish",
    "Reply",
    "Save",
    "Send",
    "SessionNews",
    "SignalHeard",
    "Store",
    "Undelivered",
]


class PeerUp(Struct, frozen=True):
    """A peer is connected: its key is proved and its announcement is here."""

    key: bytes


class PeerDown(Struct, frozen=True):
    """A peer is not connected any more. `retry_in_s` is None where the node will not dial again by itself."""

    key: bytes
    error: NetworkError | None
    retry_in_s: float | None


class MessageArrived(Struct, frozen=True, gc=False):
    """A message for the application: verified, and not seen before."""

    key: bytes
    message: VerifiedMessage


class Fault(Struct, frozen=True):
    """A peer did something wrong, or something that its owner should look at. One line in a log."""

    key: bytes
    error: NetworkError


class OldDisk(Struct, frozen=True):
    """This node came back with an old copy of its disk: this peer has shown what we signed since. Sessions that were
    open before this start are ended."""

    key: bytes
    error: NetworkError


class SessionNews(Struct, frozen=True):
    """How a signing session goes: `Asked` (a person must say yes), `Progress`, `Outcome`."""

    key: bytes
    """The group's id."""
    news: SigningNews


class Undelivered(Struct, frozen=True):
    """Messages to this peer were accepted, never acknowledged, and are given up."""

    key: bytes
    count: int
    error: NetworkError
    """Why."""


class Expired(Struct, frozen=True):
    """Messages to this peer, by id, were kept until their time was over: it never acknowledged them. They are gone."""

    key: bytes
    message_ids: tuple[bytes, ...]


News: TypeAlias = PeerUp | PeerDown | MessageArrived | Fault | Undelivered | Expired | OldDisk | SessionNews


class Connect(Struct, frozen=True):
    """Dial this key at the first of these addresses that answers. Ends in `PeerConnected` or `ConnectFailed`."""

    key: bytes
    addresses: tuple[Address, ...]
    """The best first."""


class Disconnect(Struct, frozen=True):
    """Close a link after what was sent on it has left. `code` None: without a word, as to a stranger."""

    link: int
    code: CloseCode | None
    text: str = ""


class Send(Struct, frozen=True, gc=False):
    """Send a signed envelope."""

    link: int
    data: bytes
    priority: int


class Acknowledge(Struct, frozen=True, gc=False):
    """Tell the peer that the message with this 16-byte id arrived."""

    link: int
    message_id: bytes


class SignalHeard(Struct, frozen=True):
    """A peer made an offer of hole punching, or answered ours. Well-formed, and no more is known of it."""

    key: bytes
    data: bytes


class AskKeyholder(Struct, frozen=True):
    """Give this verb to the keyholder of a group. Its answers come back as `KeyholderReplied`."""

    group: bytes
    verb: Verb


class Save(Struct, frozen=True):
    """Write a record to the node's journal, then say `Saved`. What waits for it leaves only after that."""

    group: bytes
    save: SaveRecord


class Store(Struct, frozen=True, gc=False):
    """Change what is on disk of the messages to and from a peer, all of it or nothing, then say `Stored`.

    In the order of these effects. What waits for it leaves only after that.
    """

    peer: bytes
    puts: tuple[Kept, ...]
    drops: tuple[tuple[Box, bytes], ...] = ()
    """From which box, which message. One that is not there is no error."""


class Reply(Struct, frozen=True):
    """The answer to the command that carried this request number: done, or why not.

    `peers` is how many peers a `SendMessage` went to, `session` the id of the session that a `Propose` opened.
    """

    request: int
    error: NetworkError | None = None
    peers: int = 0
    session: bytes = b""


class Publish(Struct, frozen=True):
    """Tell the owner."""

    news: News


Effect: TypeAlias = (
    Connect | Disconnect | Send | Acknowledge | SignalHeard | AskKeyholder | Save | Store | Reply | Publish
)
