"""The carriers of a node beside TCP, as it is configured. Their libraries are extras."""

from __future__ import annotations

from ..errors import LocalError
from ..net.transport.carriers import MakeCarriers
from ..net.transport.route import DIRECT, Route
from .config import Config
from .natting import punching

__all__ = ["carriers"]


def carriers(config: Config, route: Route = DIRECT) -> list[MakeCarriers]:
    """Return what makes them. Relays are reached by the route; nothing else goes through a proxy.

    Raises: LocalError where the library of one that is configured is missing."""
    return [*_relays(config, route), *punching(config)]


def _relays(config: Config, route: Route) -> list[MakeCarriers]:
    try:
        from ..net.transport.relay import over_relays
    except ModuleNotFoundError as error:
        if error.name != "websockets":
            raise
        if config.relays:
            raise LocalError("[relays] in config.toml needs a library", hint='pip install "musignet[relay]"') from None
        return []
    return [over_relays(*config.relays, route=route)]
