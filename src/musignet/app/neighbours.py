"""What a running node says of the local network: who is seen there, and what keeps others from being seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import LocalError, PeerNotFound
from ..limits import BEACON_AGE_MAX_S
from ..net.service import NetworkService
from ..node.sightings import Sighting, Unheard
from ..text import short_key
from .events import Events

__all__ = ["Neighbours"]

_OPEN_S: Final = BEACON_AGE_MAX_S
"""An open announcement counts for so long: two of its beacons."""


class Neighbours:
    """See the module. Give `seen` to the `Discover` of the service that `network` returns."""

    def __init__(self, events: Events, network: Callable[[], NetworkService]) -> None:
        self._events = events
        self._network = network

    def seen(self, sighting: Sighting, here: bool) -> None:
        """Tell whoever listens."""
        self._events.publish("sighting", **self.facts(sighting, here))

    def facts(self, sighting: Sighting, here: bool = True) -> dict[str, Any]:
        """Return what is known of one node, as the API says it."""
        key, now = sighting.beacon.key, time.time()
        label, state = self._of_the_book(key)
        return {
            "key": key.hex(),
            "label": label or sighting.label or short_key(key),
            "known": bool(label),
            "state": state,
            "host": sighting.host,
            "port": sighting.beacon.port,
            "ways": sorted(sighting.ways),
            "open": now - sighting.open_at < _OPEN_S,
            "guest": not sighting.member and not sighting.label,
            "seen_s_ago": max(0.0, now - sighting.last_at),
            "here": here,
        }

    def _of_the_book(self, key: bytes) -> tuple[str, str]:
        """Return how a confirmed peer is called here, and where it stands; empty for anybody else."""
        try:
            peer = self._network().peer(key.hex())
        except PeerNotFound:
            return "", ""
        return ("", "") if peer.provisional else (peer.info.id, peer.state.value)

    def report(self) -> dict[str, Any]:
        """Return everything there is to say."""
        try:
            discovery = self._network().finder.discovery
        except LocalError as error:
            return {
                "on": False, "why": str(error), "port": 0, "interfaces": [], "problems": {}, "ignored": {}, "nodes": [],
            }  # fmt: skip
        unheard = discovery.sightings.unheard
        return {
            "on": True,
            "why": "",
            "port": discovery.port,
            "interfaces": [one.name for one in discovery.interfaces()],
            "problems": discovery.problems,
            "ignored": {one.value: unheard[one] for one in Unheard if unheard[one] and one is not Unheard.OURS},
            "nodes": [self.facts(one) for one in discovery.seen()],
        }

    def look(self, for_s: float) -> None:
        """Take note of open announcements for a while. Raises LocalError where discovery is off."""
        self._network().finder.discovery.look(for_s)
