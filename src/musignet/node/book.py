"""The peer book: who may connect to us, and under which names we know them."""

from __future__ import annotations

from collections.abc import Iterator

from ..crypto.schnorr import PublicKey
from ..errors import AuthenticationError, LocalError, PeerNotFound, TransportError
from ..limits import ADDRESSES_MAX, Limits
from ..text import safe, short_key, who
from .addresses import PORT_MAX, Rank, parse_address
from .peers import PeerInfo, PeerRecord
from .rates import Rates, Standing

__all__ = ["Book"]


class Book:
    """Peers by key, with their labels. Bounded; a label belongs to one key until that peer is forgotten."""

    __slots__ = ("_best_rank", "_by_hex", "_by_key", "_by_label", "_max", "_own", "_rates")

    def __init__(self, own: bytes, max_peers: int, rates: Rates | None = None, best_rank: Rank = Rank.LAN) -> None:
        self._own = own
        self._rates = rates or Rates(Limits())
        self._best_rank = best_rank
        self._max = max_peers
        self._by_key: dict[bytes, PeerRecord] = {}
        self._by_hex: dict[str, bytes] = {}
        self._by_label: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[PeerRecord]:
        return iter(self._by_key.values())

    def get(self, key: bytes) -> PeerRecord | None:
        """Return the peer with this 33-byte key, or None."""
        return self._by_key.get(key)

    def find(self, name: str) -> PeerRecord:
        """Return the peer with this label, or this key in hex.

        Raises: PeerNotFound.
        """
        key = self._by_hex.get(name) or self._by_label.get(name)
        record = self._by_key.get(key) if key is not None else None
        if record is None:
            known = ", ".join(safe(label) for label in list(self._by_label)[:8]) or "nobody"
            raise PeerNotFound(
                f"no peer {safe(name)!r} in the book", hint=f"it knows {known}; add_peer, or musignet invite, adds one"
            )
        return record

    def put(self, info: PeerInfo, *, provisional: bool = False, stranger: bool = False) -> PeerRecord:
        """Add a peer, or renew the name and address of one that is there. A confirmed one stays confirmed.

        A `stranger` has no slot of its own: nobody has put it here, it was let in when it came.

        Raises: AuthenticationError for a key that is none, is our own, or whose label belongs to another key;
        TransportError for an address that is none or one too many, or when the book is full.
        """
        _require_addresses(info)
        public = PublicKey.from_hex(info.pubkey_hex)
        key = public.compressed
        if key == self._own:
            raise AuthenticationError(f"{who(info.id, key)} is this node itself", hint="a peer needs a key of its own")
        self._refuse_taken(info.id, key)
        record = self._by_key.get(key)
        fresh = record is None
        if record is None:
            if len(self._by_key) >= self._max:
                raise TransportError(
                    "the peer book is full", expected=f"at most {self._max} peers", hint="forget one first"
                )
            gauge = self._rates.gauge(Standing.STRANGER)
            record = self._by_key[key] = PeerRecord(info, public, gauge, self._best_rank)
            self._by_hex[key.hex()] = key
        self._by_label.pop(record.info.id, None)
        self._by_label[info.id] = key
        record.info = info
        record.given_name = info.name
        record.provisional = provisional and (fresh or record.provisional)
        record.stranger = stranger and (fresh or record.stranger)
        if not (record.provisional or record.stranger):
            record.gauge.standing = Standing.COSIGNER
        record.look_up()
        return record

    def refuse_squatter(self, label: str, key: bytes) -> None:
        """Raise AuthenticationError when a key announces a label that belongs to another in the book (THREATS.md T10).

        A name that a person confirmed for this key is no squatter's, and a provisional key has none yet.
        """
        record = self._by_key.get(key)
        if record is None or not (record.provisional or record.given_name == label):
            self._refuse_taken(label, key)

    def _refuse_taken(self, label: str, key: bytes) -> None:
        owner = self._by_label.get(label)
        if owner is not None and owner != key:
            raise AuthenticationError(
                f"the label {safe(label)!r} belongs to another key",
                expected=f"key {short_key(owner)}",
                got=f"key {short_key(key)}",
                hint="somebody uses a name that is not theirs; or the peer has a new key: then forget the old one",
            )

    def remove(self, key: bytes) -> None:
        """Forget a peer. Nothing happens when it is not there."""
        record = self._by_key.pop(key, None)
        if record is not None:
            self._by_label.pop(record.info.id, None)
            del self._by_hex[key.hex()]


def _require_addresses(info: PeerInfo) -> None:
    if not 0 <= info.port <= PORT_MAX:
        raise TransportError(f"not a port of {safe(info.id)}", expected=f"0 to {PORT_MAX}", got=info.port)
    if len(info.addresses) > ADDRESSES_MAX:
        raise TransportError(
            f"too many addresses of {safe(info.id)}", expected=f"at most {ADDRESSES_MAX}", got=len(info.addresses)
        )
    for text in info.addresses:
        try:
            parse_address(text)
        except LocalError as error:
            raise TransportError(f"not an address of {safe(info.id)}", expected=error.expected, got=error.got) from None
