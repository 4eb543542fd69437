"""Peers as the node knows them: what people say of them, their state, and what is on its way to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..crypto.schnorr import PublicKey
from ..errors import NetworkError
from ..text import who
from .addresses import HOLE, UNKNOWN_PATH, Address, Path, Rank, address_text, readable_untrusted
from .rates import Gauge
from .window import Window

__all__ = ["Delivery", "Link", "Mail", "Outgoing", "PeerInfo", "PeerRecord", "PeerState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """How to find and recognise a peer.

    `pubkey_hex` (66 hex digits, a compressed key) *is* the peer. `id` and `name` are labels chosen by people: shown,
    used to look a peer up in one's own book, never trusted. `host` and `port` are where it is dialled over TCP;
    `addresses` are further places, at most 8, as `node.addresses` reads them. Without any (port 0 and none) it is not
    dialled from here and will come by itself.
    """

    id: str
    name: str = ""
    host: str = ""
    port: int = 0
    pubkey_hex: str
    addresses: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[Address, ...]:
        """Every address that it is dialled at, the best first. What is none is left out."""
        found = readable_untrusted(self.addresses)
        if self.host and self.port:
            first = Address("tcp", self.host, self.port, address_text(self.host, self.port))
            found = (first, *(one for one in found if one.text != first.text))
        return tuple(sorted(found, key=lambda one: one.rank))


class PeerState(Enum):
    """Where a peer of the book stands."""

    DISCONNECTED = "disconnected"
    """Not connected, and not dialled by this node."""
    CONNECTING = "connecting"
    """Being dialled, or in the handshake."""
    CONNECTED = "connected"
    """Its key is proved and its announcement is here."""
    RECONNECTING = "reconnecting"
    """Lost; this node dials again by itself after a pause."""


class Mail(Enum):
    """Whether a link is carried by hand or left somewhere, and what may go that way.

    The other side of such a link reads when it comes by. Nobody waits for it with a clock, no ping asks whether it is
    there, and a live link takes its place.
    """

    NO = "no"
    """A live link."""
    LETTERS = "letters"
    """What waits for the other side is left for it: messages, proposals, approvals. Rounds wait until it is here."""
    ROUNDS = "rounds"
    """The rounds of a ceremony, too: files, a stick, QR codes."""


class Delivery:
    """One `SendMessage`: to how many peers, and for how many of them it still waits before it is answered."""

    __slots__ = ("missing", "peers", "request", "until_acked")

    def __init__(self, request: int, peers: int, until_acked: bool) -> None:
        self.request = request
        self.peers = peers
        self.missing = peers
        self.until_acked = until_acked


class Outgoing:
    """One signed message for one peer, kept until that peer acknowledged it."""

    __slots__ = ("data", "delivery", "expires_ms", "faults", "link", "message_id", "of_a_round", "priority", "ready")

    def __init__(self, message_id: bytes, data: bytes, priority: int, delivery: Delivery) -> None:
        self.message_id = message_id
        self.data = data
        self.priority = priority
        self.delivery = delivery
        self.link = 0
        self.expires_ms = 0
        """When it is dropped from the disk, where it is kept there: milliseconds since 1970."""
        self.of_a_round = False
        """Whether it is of an attempt of a ceremony, which is over when its peer is gone."""
        self.ready = True
        """False while it is on its way to the disk: nothing leaves before."""
        self.faults = 0
        """Links that the peer closed for a fault while this was the oldest message it had not acknowledged."""


class Link:
    """One open channel to a peer. It counts as connected once the peer's announcement is here."""

    __slots__ = (
        "address",
        "epoch",
        "floods",
        "heard_at",
        "look_at",
        "mail",
        "number",
        "outbound",
        "path",
        "peer",
        "ping",
        "ping_at",
        "pinged_at",
        "probed_at",
        "proved",
        "since",
        "transcript",
    )

    def __init__(
        self,
        number: int,
        peer: PeerRecord,
        outbound: bool,
        now: float,
        transcript: bytes = b"",
        path: Path = UNKNOWN_PATH,
        address: str = "",
        mail: Mail = Mail.NO,
    ) -> None:
        self.transcript = transcript
        self.path = path
        self.address = address
        self.mail = mail
        self.number = number
        self.peer = peer
        self.outbound = outbound
        self.since = now
        self.heard_at = now
        self.epoch = b""
        """The peer's boot epoch; empty until it has announced itself."""
        self.floods = peer.gauge.floods
        """How many of its floods had been noted before."""
        self.look_at = 0.0
        """When its next timer comes."""
        self.ping_at = 0.0
        self.ping = -1
        """The token of the ping that waits for its pong; -1 when none does."""
        self.pinged_at = 0.0
        self.probed_at = 0.0
        """When it was last asked because it might be dead; 0 where it never was."""
        self.proved = True
        """Whether the answer to that is here."""


class PeerRecord:
    """Everything the node holds about one peer of the book."""

    __slots__ = (
        "_best_rank",
        "abandoned",
        "attempts",
        "better_at",
        "better_tried_at",
        "better_tries",
        "dialling",
        "dials",
        "gauge",
        "given_name",
        "heard_at",
        "info",
        "key",
        "last_error",
        "links",
        "parked",
        "path_error",
        "patient",
        "places",
        "provisional",
        "public",
        "punches",
        "redial_at",
        "round_trip_s",
        "seen",
        "stranger",
        "unacked",
        "unacked_bytes",
        "wanted",
        "windows",
    )

    def __init__(self, info: PeerInfo, public: PublicKey, gauge: Gauge, best_rank: Rank = Rank.LAN) -> None:
        self.info = info
        self.given_name = info.name
        """The name that its owner here gave it, or confirmed; empty: `info` has the one it announced last."""
        self._best_rank = best_rank
        self.gauge = gauge
        """What passes on its links, how fast it may, and where it stands."""
        self.places: tuple[Address, ...] = ()
        """Where it is dialled, the best first."""
        self.punches = False
        """Whether both sides announced that they punch holes."""
        self.seen: Address | None = None
        """Where it was seen on the local network, last."""
        self.public = public
        self.key = public.compressed
        self.links: list[Link] = []
        """Announced links, the one to send on last. More than one only while a simultaneous dial is being settled."""
        self.provisional = False
        """No person has confirmed this key yet: it may speak of a pairing, and of nothing else."""
        self.stranger = False
        """It came by itself and was let in; nobody has put it into the book."""
        self.wanted = False
        """Whether the node dials again by itself."""
        self.dialling = False
        self.abandoned = False
        """Its owner hung up on the dial that is under way: the link that comes of it is closed."""
        self.dials: list[int] = []
        """Requests that the end of the dial under way answers, however it ends."""
        self.patient: list[int] = []
        """Requests that only a link answers, or the owner's change of mind."""
        self.attempts = 0
        self.redial_at: float | None = None
        self.better_at: float | None = None
        """When a better path than the present one is tried next."""
        self.better_tried_at = 0.0
        """When one was tried last; 0 where none ever was."""
        self.better_tries = 0
        """How often, since the pauses between began anew."""
        self.path_error: NetworkError | None = None
        """Why the last try of a better path came to nothing."""
        self.unacked: dict[bytes, Outgoing] = {}
        self.unacked_bytes = 0
        self.parked: list[Outgoing] = []
        """Signed, and waiting for the disk, for a link, or for room in `unacked`. A list, which costs an idle peer 56
        bytes, and not a deque with its 760: taking 10,000 from the front of one costs 14 ms in all."""
        self.windows: dict[bytes, Window] = {}
        """One per boot epoch, the newest last."""
        self.round_trip_s: float | None = None
        self.heard_at: float | None = None
        self.last_error: NetworkError | None = None

    def look_up(self) -> None:
        """Set `places` anew: what they follow from has changed. No hole is punched to a key that nobody confirmed."""
        known, seen = self.info.places, self.seen
        if self.punches and not self.provisional and HOLE not in known:
            known = tuple(sorted((*known, HOLE), key=lambda one: one.rank))
            if HOLE not in self.places:
                self.better_tries = 0  # of this one there were none
        self.places = known if seen is None else (seen, *(one for one in known if one.text != seen.text))

    @property
    def better(self) -> tuple[Address, ...]:
        """Addresses that promise a better path than the links that are up."""
        if not self.links:
            return ()
        rank = min(link.path.rank for link in self.links)
        return tuple(one for one in self.places if max(one.rank, self._best_rank) < rank)

    @property
    def name(self) -> str:
        """How the peer is called in a sentence."""
        return who(self.info.id, self.key)

    @property
    def live(self) -> bool:
        """Whether it is connected now; mail is no connection."""
        return bool(self.links) and self.links[-1].mail is Mail.NO

    @property
    def state(self) -> PeerState:
        """Derived from what is going on, so it cannot disagree with it."""
        if self.live:
            return PeerState.CONNECTED
        if self.dialling and not self.abandoned:
            return PeerState.CONNECTING
        return PeerState.RECONNECTING if self.redial_at is not None else PeerState.DISCONNECTED
