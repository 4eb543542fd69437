"""What can happen to a node. Past tense for what happened outside, imperative for what its owner asks."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..errors import NetworkError, PeerError
from ..signing.coordinator import Sessions
from ..signing.effects import Saved as RecordSaved
from ..signing.records import Topology
from ..signing.verbs import Reply as KeyholderReply
from ..wire.channel import CloseReceived
from ..wire.envelope import Message, SignedMessage, VerifiedMessage
from .addresses import UNKNOWN_PATH, Path
from .effects import Store
from .peers import Mail, PeerInfo

__all__ = [
    "Acknowledged",
    "AddPeer",
    "CancelSession",
    "ConnectFailed",
    "ConsentToSession",
    "Dial",
    "Drain",
    "ForgetPeer",
    "Handled",
    "HandsMoved",
    "HangUp",
    "Input",
    "JoinGroup",
    "KeyholderReplied",
    "MailMoved",
    "MessageReceived",
    "MessageRefused",
    "NetworkChanged",
    "PeerConnected",
    "PeerLost",
    "PeerSeen",
    "PlacesFailed",
    "Propose",
    "Restore",
    "Saved",
    "SaySignal",
    "SendMessage",
    "Stop",
    "Stored",
    "Woken",
]


class PeerConnected(Struct, frozen=True):
    """A channel is open and `key` (33 bytes) is proved. `link` is the driver's number for it, never used twice."""

    link: int
    key: bytes
    outbound: bool
    transcript: bytes = b""
    """32 bytes of the handshake that both sides know: what the words of a pairing are made from."""
    path: Path = UNKNOWN_PATH
    address: str = ""
    """Where the other side is, for people."""
    mail: Mail = Mail.NO


class MailMoved(Struct, frozen=True):
    """A mail link is about to be carried to the other side, or was: what waited for that goes on."""

    link: int


class HandsMoved(Struct, frozen=True):
    """Our signer of this group, which is elsewhere, was brought something: what waited for that goes on."""

    group: bytes


class PeerLost(Struct, frozen=True):
    """A link is gone: by the peer's goodbye, or for the reason in `error`; neither when this node closed it."""

    link: int
    error: NetworkError | None = None
    goodbye: CloseReceived | None = None


class ConnectFailed(Struct, frozen=True):
    """A `Connect` came to no open channel."""

    key: bytes
    error: NetworkError


class PlacesFailed(Struct, frozen=True):
    """A `Connect` came to an open channel, and before that to nothing at some of its addresses."""

    key: bytes
    error: NetworkError


class MessageReceived(Struct, frozen=True, gc=False):
    """A message from the peer of this link, its signature checked."""

    link: int
    message: VerifiedMessage


class MessageRefused(Struct, frozen=True):
    """Something from the peer of this link that the gate did not let through. Its action says what follows."""

    link: int
    error: PeerError


class Acknowledged(Struct, frozen=True, gc=False):
    """The peer of this link has these messages: ids of 16 bytes each, one after the other."""

    link: int
    ids: bytes


class SaySignal(Struct, frozen=True):
    """Tell a peer an offer or answer of hole punching, on whatever live link there is."""

    request: int
    key: bytes
    data: bytes


class NetworkChanged(Struct, frozen=True):
    """This machine slept, or has other addresses than before: links may be dead, and other paths open."""


class PeerSeen(Struct, frozen=True):
    """A peer was seen at this address on the local network: one more place to dial, until it is seen elsewhere."""

    key: bytes
    host: str
    port: int


class Woken(Struct, frozen=True):
    """The time that `next_deadline` named has come, or is past."""


class AddPeer(Struct, frozen=True):
    """Put a peer into the book, or renew its name and address.

    `provisional`: a key that no person has confirmed yet. It gets nothing but a pairing.
    `stranger`: it came by itself and was let in: it has no slot of its own.
    """

    request: int
    info: PeerInfo
    provisional: bool = False
    stranger: bool = False


class ForgetPeer(Struct, frozen=True):
    """Hang up, and take the peer out of the book."""

    request: int
    key: bytes


class Dial(Struct, frozen=True):
    """Connect to a peer of the book. Answered when it is connected, or when this attempt has failed.

    After a first success the node reconnects by itself, until `HangUp`. With `persist` it also does before, and a
    failed attempt is not an answer.
    """

    request: int
    key: bytes
    persist: bool = False


class HangUp(Struct, frozen=True):
    """Close every link to a peer and stop reconnecting."""

    request: int
    key: bytes


class SendMessage(Struct, frozen=True, gc=False):
    """Send to the peers in `keys` (None: everybody connected), signed once for all of them.

    Answered when all of it is accepted for sending, or, with `until_acked`, when every peer has acknowledged it.
    With `keep_s`, to one peer, it is accepted when it is on disk, also while the peer is not connected, and kept there
    until it is acknowledged, at most so many seconds.
    """

    request: int
    keys: tuple[bytes, ...] | None
    message: Message
    until_acked: bool = False
    keep_s: float = 0.0


class JoinGroup(Struct, frozen=True):
    """Be a cosigner of a group. `records` are what the node's journal has of it, in the order they were written."""

    request: int
    sessions: Sessions
    records: tuple[bytes, ...] = ()


class Propose(Struct, frozen=True):
    """Open a signing session for a PSBT. Answered at once with its id; the rest is published."""

    request: int
    group: bytes
    psbt: bytes
    expires_at: float
    memo: str = ""
    topology: Topology = Topology.MESH


class ConsentToSession(Struct, frozen=True):
    """A person approved a session, and `proof` shows it to the keyholder."""

    request: int
    session: bytes
    proof: bytes
    replaces: frozenset[bytes] = frozenset()
    """Earlier sessions that spend the same coins and are left for this one; the proof covers them."""


class CancelSession(Struct, frozen=True):
    """Leave a session. What has been signed stays signed; the others are told the reason."""

    request: int
    session: bytes
    reason: str = "cancelled"


class KeyholderReplied(Struct, frozen=True):
    """The keyholder of a group answered a verb, or lost an attempt by itself."""

    group: bytes
    reply: KeyholderReply


class Saved(Struct, frozen=True):
    """A record of a group's journal is on disk, and would survive a loss of power."""

    group: bytes
    saved: RecordSaved


class Restore(Struct, frozen=True):
    """What an earlier run left on disk, each in the order it was written. Before any link is there."""

    outgoing: tuple[tuple[bytes, SignedMessage, int], ...] = ()
    """For which peer, what, and when it expires: milliseconds since 1970."""
    arrived: tuple[tuple[bytes, VerifiedMessage], ...] = ()
    """From which peer, and what the application has not handled."""
    handled: tuple[tuple[bytes, bytes, int], ...] = ()
    """From which peer, the ids it has handled, and until when they are kept."""
    announced: tuple[tuple[bytes, SignedMessage], ...] = ()
    """From which peer, its newest announcement."""
    changes: int = 0
    """How many changes of our sessions were counted."""
    old: tuple[int, SignedMessage] | None = None
    """Our own announcement that proved our disk old, the last one, and how many changes were counted with it."""


class Stored(Struct, frozen=True):
    """The disk did what a `Store` asked for, and it would survive a loss of power; or it did not."""

    store: Store
    error: NetworkError | None = None


class Handled(Struct, frozen=True, gc=False):
    """The application has handled a message of this peer: its handlers have returned."""

    key: bytes
    message_id: bytes


class Drain(Struct, frozen=True):
    """Answered once every connected peer has acknowledged everything that is on its way to it."""

    request: int


class Stop(Struct, frozen=True):
    """Say goodbye on every link. Nothing is dialled or sent afterwards."""

    request: int


Input: TypeAlias = (
    PeerConnected
    | PeerLost
    | MailMoved
    | HandsMoved
    | ConnectFailed
    | PlacesFailed
    | MessageReceived
    | MessageRefused
    | Acknowledged
    | SaySignal
    | NetworkChanged
    | PeerSeen
    | Woken
    | AddPeer
    | ForgetPeer
    | Dial
    | HangUp
    | SendMessage
    | JoinGroup
    | Propose
    | ConsentToSession
    | CancelSession
    | KeyholderReplied
    | Saved
    | Restore
    | Stored
    | Handled
    | Drain
    | Stop
)
