"""The part of `NetworkService` for peers that no link reaches: sealed bundles, on a stick or as QR codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from secrets import token_bytes
from typing import NamedTuple

from ..crypto.keys import Identity
from ..errors import AuthenticationError, LocalError, PeerNotFound, SerializationError
from ..limits import SEALED_TTL_S
from ..node.peers import PeerRecord
from ..text import short_key, who
from ..wire.envelope import Message
from ..wire.messages import Chain, MessageType
from ..wire.sealed import Bundle, open_untrusted, seal
from .driver import Driver
from .transport.carried import CarriedLink
from .transport.link import numbers

__all__ = ["Carried", "Mailing", "ToCarry"]

_ROUNDS_MAX = 4
"""How often the keyholder is waited for before a bundle is made: an approval, nonces, partial signatures, and one to
see that nothing more comes."""


class ToCarry(NamedTuple):
    """A bundle for a peer."""

    sealed: bytes
    messages: int
    acknowledged: int
    """Messages of theirs that it says are here."""
    left: int
    """Messages that did not fit, and wait for the next one."""


class Carried(NamedTuple):
    """What a bundle brought."""

    peer: bytes
    """The key that sealed it."""
    messages: Mapping[str, int]
    """How many of which type, those included that were here already."""
    acknowledged: int
    fault: str
    """The rule that the peer broke with one of them, if any: nothing behind it was taken."""


async def _at_once() -> None:
    """The keyholder is in this process: it has answered already."""


class Mailing:
    """What `NetworkService` can do once it runs, for peers that are not connected."""

    _chain: Chain
    _piles: dict[bytes, CarriedLink]

    @property
    def identity(self) -> Identity:
        """Who this node is."""
        raise NotImplementedError

    @property
    def _running(self) -> Driver:
        raise NotImplementedError

    def _find(self, peer: str) -> PeerRecord:
        raise NotImplementedError

    async def export_mail(
        self, peer: str, *, expires_in_s: float = SEALED_TTL_S, settled: Callable[[], Awaitable[None]] = _at_once
    ) -> ToCarry:
        """Return what waits for a peer, sealed: durable messages, and whatever open ceremonies have to say to it.

        It is carried again in each bundle until one of theirs acknowledges it. From the first bundle on the peer's part
        in ceremonies counts as carried, until it connects: nobody waits for it with a clock, and nonces are made whose
        time to live the keyholder's policy says (`nonces_wait_h`).

        Args:   settled - returns once the keyholder has answered what it was asked, where it is not in this process.
        Raises: PeerNotFound; LocalError when the peer is connected, or nobody has confirmed its key.
        """
        driver, link = self._running, self._pile(self._find(peer))
        driver.mail_moved(link)
        before = None
        for _ in range(_ROUNDS_MAX):
            await settled()
            if (here := link.envelopes()) == before:
                break
            before = here
        envelopes, left = link.envelopes()
        bundle = Bundle(self._chain, int((driver.now() + expires_in_s) * 1000), tuple(link.acks), envelopes)
        sealed = seal(self.identity, link.peer, bundle, token_bytes(32))
        return ToCarry(sealed, len(envelopes) - 1, len(link.acks), left)

    def import_mail(self, sealed: bytes) -> Carried:
        """Take a bundle that a peer exported. Each message goes through the checks of a link, and once to its handler.

        Raises: SerializationError, AuthenticationError (not for us, altered, or from nobody we know), InvalidMessage
                (expired, or another network), LocalError when the peer is connected.
        """
        driver = self._running
        sender, bundle = open_untrusted(self.identity, sealed)
        bundle.require(self._chain, driver.now())
        try:
            record = self._find(sender.hex())
        except PeerNotFound:
            raise AuthenticationError(
                "a bundle of somebody who is not a peer", got=f"key {short_key(sender)}", hint="pair with them first"
            ) from None
        link = self._pile(record)
        ids = b"".join(bundle.acknowledged)
        link.acknowledged(ids)
        driver.received(link, list(bundle.envelopes), ids)
        fault = link.fault
        if link.open:
            driver.mail_moved(link)
        return Carried(sender, _counted(bundle.envelopes), len(bundle.acknowledged), fault)

    def _pile(self, record: PeerRecord) -> CarriedLink:
        """Return the peer's pile, a new one where there is none. Raises LocalError."""
        name = who(record.info.id, record.key)
        if record.live:
            raise LocalError(f"{name} is connected: nothing needs to be carried", hint="it goes over the link")
        link = self._piles.get(record.key)
        if link is None or not link.open:
            link = self._piles[record.key] = CarriedLink(next(numbers), record.public)
            self._running.connected(link)
            if not link.open:
                raise LocalError(f"nobody has confirmed the key of {name} yet", hint="finish the pairing first")
        return link


def _counted(envelopes: tuple[bytes, ...]) -> Mapping[str, int]:
    """Return how many there are of each type, announcements aside. Unverified: for people to read."""
    found: Counter[str] = Counter()
    for envelope in envelopes:
        try:
            kind = Message.from_bytes(envelope).type
        except SerializationError:
            continue
        if kind != MessageType.PEER_ANNOUNCEMENT:
            found[MessageType(kind).name.lower() if kind in MessageType._value2member_map_ else f"type {kind}"] += 1
    return found
