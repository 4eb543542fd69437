"""What `musignet doctor` says about the relays of [relays]: whether each lets us in, passes on, and keeps letters."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from ..errors import NetworkError
from ..limits import RELAY_PROBE_S, RELAYS_MAX
from ..net.transport.route import Route
from ..text import safe
from .config import Config
from .doctor import Finding, Verdict, of_error
from .proxies import route_of

__all__ = ["examine_relays"]

_LAYER: Final = "relay"
_ANOTHER: Final = "another one in [relays] will do"


async def examine_relays(config: Config, within_s: float = RELAY_PROBE_S) -> list[Finding]:
    """Ask each relay that [relays] in config.toml names, and nobody else. Relays learn no name of ours by that.

    `within_s`: what each of its answers may take, three at most.
    """
    if not config.relays:
        hint = 'urls = ["wss://..."] in [relays], two or more; a group behind routers meets there'
        return [Finding(_LAYER, Verdict.NOTE, "none is named: who is away is left nothing", hint)]
    try:
        from ..net.transport import relayprobe  # noqa: F401  (its library is an extra)

        route = route_of(config)
    except ModuleNotFoundError as error:
        return [Finding(_LAYER, Verdict.BLOCKED, f"[relays] needs {error.name}", "pip install 'musignet[relay]'")]
    except NetworkError as error:
        return [of_error(_LAYER, error)]
    found = await asyncio.gather(*(_look(url, config, route, within_s) for url in config.relays))
    if any(one.verdict is not Verdict.BLOCKED for one in found):
        found = [_spared(one) for one in found]
    return [*found, *_too_few(config)]


async def _look(url: str, config: Config, route: Route, within_s: float) -> Finding:
    from ..net.transport.relayprobe import ask_relay

    where = safe(url, 120)
    try:
        look = await ask_relay(url, config.limits.dial_timeout_s, route, within_s)
    except NetworkError as error:
        return of_error(_LAYER, error, f"it does not do what links need: {_ANOTHER}", where=where)
    does = f"{where} passes on what is said, after {1000 * look.passes_s:.0f} ms"
    if not look.keeps:
        why = f": {safe(look.complaint, 160)}" if look.complaint else ""
        hint = f"for cosigners who are away {_ANOTHER}, beside it"
        return Finding(_LAYER, Verdict.NOTE, f"{does}, but keeps no letters{why}", hint)
    return Finding(_LAYER, Verdict.OK, f"{does}, and keeps letters")


def _spared(one: Finding) -> Finding:
    """One relay is enough: what fails beside it is worth a look, and blocks nothing."""
    return replace(one, verdict=Verdict.NOTE) if one.verdict is Verdict.BLOCKED else one


def _too_few(config: Config) -> list[Finding]:
    if len(config.relays) > 1:
        return []
    hint = f"two or more, at most {RELAYS_MAX}: what one forgets, or does not pass on, the other does"
    return [Finding(_LAYER, Verdict.NOTE, "only one is named", hint)]
