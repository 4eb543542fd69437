"""Metrics for Prometheus, where they are asked for: numbers by names of a fixed list, on loopback (THREATS.md Z9).

No label is ever a peer's, a group's or a session's: metrics leave the machine, and who signs what with whom must not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.core import GaugeMetricFamily, Metric

from ..net.traffic import Traffic
from ..node.peers import PeerState
from ..signing.effects import End
from .daemon import Daemon

__all__ = ["NAMES", "Collector", "application"]

_STATES: Final = tuple(state.value for state in PeerState)
_ENDS: Final = tuple(end.value for end in End)

NAMES: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "musignet_peers": ("Peers of the book by state", "state", _STATES),
    "musignet_sessions_open": ("Signing sessions that have not ended", "", ()),
    "musignet_sessions_asked": ("Of those, how many wait for the person here", "", ()),
    "musignet_sessions_ended": ("Signing sessions on record by their end", "end", _ENDS),
    "musignet_bytes": ("Bytes on the wire with the peers of the book, since the start", "direction", ("in", "out")),
    "musignet_messages_in": ("Messages from the peers of the book, since the start", "", ()),
    "musignet_reading_held_seconds": (
        "How long reading from peers was held back by their rates, since the start",
        "",
        (),
    ),
    "musignet_peers_refused": ("Peers of the book that are not let in for now", "", ()),
    "musignet_connections_refused": ("Connections that did not become a link, since the start", "", ()),
    "musignet_groups": ("Groups that this node cosigns", "", ()),
    "musignet_event_streams": ("Readers of the event stream", "", ()),
}
"""Everything that may be told: name to its help, its label, and all values that the label can have."""


class Collector:
    """Reads a daemon when it is asked. Nothing is counted in advance."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        """Yield each metric of the list."""
        for name, (note, label, values) in NAMES.items():
            family = GaugeMetricFamily(name, note, labels=[label] if label else None)
            numbers = _READ[name](self._daemon)
            for value in values or ("",):
                family.add_metric([value] if label else [], numbers.get(value, 0))
            yield family


def _count(words: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _traffic(daemon: Daemon) -> Iterator[Traffic]:
    return (daemon.network.traffic(peer.pubkey_hex) for peer in daemon.network.peers())


_READ: Final[Mapping[str, Callable[[Daemon], dict[str, int]]]] = {
    "musignet_peers": lambda daemon: _count(peer.state.value for peer in daemon.network.peers()),
    "musignet_sessions_open": lambda daemon: {"": sum(one.end is None for one in daemon.sessions)},
    "musignet_sessions_asked": lambda daemon: {"": sum(one.asked for one in daemon.sessions)},
    "musignet_sessions_ended": lambda daemon: _count(one.end.value for one in daemon.sessions if one.end),
    "musignet_bytes": lambda daemon: {
        "in": sum(one.bytes_in for one in _traffic(daemon)),
        "out": sum(one.bytes_out for one in _traffic(daemon)),
    },
    "musignet_messages_in": lambda daemon: {"": sum(one.messages_in for one in _traffic(daemon))},
    "musignet_reading_held_seconds": lambda daemon: {"": sum(round(one.held_s) for one in _traffic(daemon))},
    "musignet_peers_refused": lambda daemon: {"": sum(one.refused_s > 0 for one in _traffic(daemon))},
    "musignet_connections_refused": lambda daemon: {"": daemon.network.refusals},
    "musignet_groups": lambda daemon: {"": sum(1 for _ in daemon.groups)},
    "musignet_event_streams": lambda daemon: {"": len(daemon.events)},
}


def application(daemon: Daemon, hosts: frozenset[str]) -> Callable[..., Awaitable[None]]:
    """Return the ASGI application that tells them, to those who ask for one of our own names (DNS rebinding)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(daemon))
    tell = make_asgi_app(registry, disable_compression=True)

    async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"] in [[one] for one in hosts]:
            await tell(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"a foreign Host header\n"})

    return serve
