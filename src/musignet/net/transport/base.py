"""What a carrier is, and what it tells whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from ...crypto.schnorr import PublicKey
from ...errors import NetworkError
from ...node.addresses import Address, Path
from ...node.peers import Mail
from ...node.rates import Gauge
from ...wire.channel import CloseReceived
from ...wire.messages import CloseCode, Priority

__all__ = ["Connection", "Dials", "MailSink", "SignalSink", "Sink", "Transport"]


class Connection(Protocol):
    """One open link: the peer has proved its key, and everything on it is encrypted."""

    @property
    def number(self) -> int:
        """Unique in this process for as long as it runs."""
        ...

    @property
    def peer(self) -> PublicKey:
        """The key that the other side proved to hold."""
        ...

    @property
    def outbound(self) -> bool:
        """Whether this side dialled."""
        ...

    @property
    def address(self) -> str:
        """Where the other side is, as `host:port`. Said by the network, not proved."""
        ...

    @property
    def path(self) -> Path:
        """By which carrier it goes, and how good that is."""
        ...

    @property
    def mail(self) -> Mail:
        """Whether the other side reads it only when it comes by."""
        ...

    @property
    def transcript(self) -> bytes:
        """32 bytes that both sides of this link know, and no other link has."""
        ...

    def send(self, envelope: bytes, priority: int = Priority.BULK) -> None:
        """Queue an envelope. It leaves with the next `flush`. On a link that is gone it is dropped."""
        ...

    def acknowledge(self, message_id: bytes) -> None:
        """Queue an acknowledgement. It leaves with the next `flush`."""
        ...

    def flush(self) -> None:
        """Write what is queued, as far as the connection takes it. The rest follows by itself."""
        ...

    def close(self, code: CloseCode | None = CloseCode.DONE, text: str = "") -> None:
        """Close after what is queued has left, with a close notice unless `code` is None. The sink hears `closed`."""
        ...

    def pause_reading(self) -> None:
        """Take nothing more from the network until `resume_reading`."""
        ...

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""
        ...


class Sink(Protocol):
    """Who a transport reports to, given at its construction. Called from the event loop."""

    def connected(self, connection: Connection) -> None:
        """A link is open. The sink may close it at once."""
        ...

    def gauge(self, key: bytes) -> Gauge:
        """Return what counts and bounds this peer. It says who the peer is to this node; `UNKNOWN` for anybody else."""
        ...

    def received(self, connection: Connection, envelopes: list[bytes], ids: bytes) -> None:
        """What one read brought: whole envelopes, in order, and the 16-byte ids of messages that the peer has."""
        ...

    def closed(self, connection: Connection, error: NetworkError | None, goodbye: CloseReceived | None) -> None:
        """A link that was `connected` is gone. Called once; nothing follows."""
        ...

    def refused(self, address: str, error: NetworkError) -> None:
        """Somebody at `address` did not become a link: a failed handshake, or no slot. At most one log line is due."""
        ...


@runtime_checkable
class MailSink(Sink, Protocol):
    """Who a carrier of mail links reports to."""

    def mail_moved(self, connection: Connection) -> None:
        """A mail link is about to be carried to the other side, or was."""
        ...


class SignalSink(Sink, Protocol):
    """Who a carrier by hole punching reports to: its offers and answers travel over the links that are there."""

    def say_signal(self, peer: str, data: bytes) -> None:
        """Tell a peer an offer or answer. Raises PeerNotFound when there is no link to it."""
        ...

    def hear_signals(self, hear: Callable[[str, bytes], None]) -> None:
        """Call `hear` with each offer or answer: who signed it, and its bytes, well-formed."""
        ...


@runtime_checkable
class Transport(Protocol):
    """A carrier. A peer is named by its 33-byte key in lower-case hex. All carriers pass one conformance suite."""

    async def start(self) -> None:
        """Begin to listen. Raises TransportError when it runs already, IoError when the address cannot be had."""
        ...

    async def connect(self, peer: str, host: str, port: int) -> Connection:
        """Dial, and prove both keys.

        Returns: the open link, after the sink heard `connected`.
        Raises:  ConnectionError, Timeout, AuthenticationError (closed during the handshake, or another key), and
                 TransportError when it is not running or has no slot.
        """
        ...

    async def disconnect(self, peer: str) -> None:
        """Close every link to a peer with a goodbye. Nothing happens when there is none."""
        ...

    async def send(self, peer: str, envelope: bytes) -> None:
        """Send an envelope on the newest link to a peer.

        Raises: PeerNotFound when there is none, SendError when it is too large.
        """
        ...

    async def broadcast(self, envelope: bytes) -> int:
        """Send an envelope to every connected peer. Returns to how many."""
        ...

    def is_connected(self, peer: str) -> bool:
        """Return whether there is a link to this peer."""
        ...

    def connected_peers(self) -> list[str]:
        """Return the peers with a link, by key."""
        ...

    async def stop(self) -> None:
        """Close everything, with a goodbye. Doing it twice is harmless."""
        ...


@runtime_checkable
class ReadsInboxes(Protocol):
    """A carrier whose links open where somebody else listens."""

    def read_at(self, relays: Iterable[str]) -> None:
        """Read our inbox there, too, beside what it was made with. It takes the place of what was said before.

        Raises: LocalError for what is no relay.
        """
        ...


@runtime_checkable
class Dials(Protocol):
    """A carrier whose addresses say more than host and port. `Carriers` calls this in place of `connect`."""

    async def dial(self, peer: str, address: Address) -> Connection:
        """As `Transport.connect`."""
        ...
