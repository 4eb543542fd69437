"""What `musignet doctor` says about NATs: STUN and TURN servers, the kind of NAT, and the router's port forwarding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

from ..errors import LocalError, NetworkError
from ..net.mapping import Way
from ..net.nat import Servers
from ..net.portmap import ways
from ..node.addresses import address_text
from .config import Config
from .doctor import Finding, Verdict
from .natting import punching, servers

__all__ = ["examine_nat"]


async def examine_nat(config: Config) -> list[Finding]:
    """Ask what [nat] in config.toml names, and nobody else."""
    named = servers(config)
    out: list[Finding] = []
    if config.nat_punch:
        out += await _holes(config, named)
    else:
        hint = "peers behind another NAT are reached by a relay only: punch = true in [nat]"
        out.append(Finding("hole punching", Verdict.NOTE, "it is switched off", hint))
    asked = await asyncio.gather(*(_forwards(way) for way in ways(config.nat_map_port)))
    works = any(one.verdict is Verdict.OK for one in asked)
    return [*out, *(one for one in asked if one.verdict is Verdict.OK or not works)]


async def _holes(config: Config, named: Servers) -> list[Finding]:
    try:
        punching(config)
    except LocalError as error:
        return [Finding("hole punching", Verdict.BLOCKED, str(error), error.hint)]
    if not named.stun:
        hint = 'stun = ["HOST:PORT"] in [nat] names a server that tells; none is built in'
        return [Finding("STUN", Verdict.NOTE, "no server: this node does not know its address outside", hint)]
    return [*await _stun(config, named), *await _turn(config, named)]


async def _stun(config: Config, named: Servers) -> list[Finding]:
    from ..net.transport.probe import ask_stun

    answers = await ask_stun(named.stun, config.limits.ice_gather_s)
    out, seen = [], set()
    for server, answer in zip(named.stun, answers, strict=True):
        where = address_text(*server)
        if isinstance(answer, NetworkError):
            out.append(Finding("STUN", Verdict.BLOCKED, f"{where}: {answer}", "another server, or let UDP out"))
        else:
            seen.add(answer)
            out.append(Finding("STUN", Verdict.OK, f"{where} sees this machine as {address_text(*answer)}"))
    if len(seen) > 1:
        hint = "no hole is punched through it where the other side's is such a one, or strict: name a TURN server"
        out.append(Finding("NAT", Verdict.NOTE, "it shows each server another port (symmetric)", hint))
    return out


async def _turn(config: Config, named: Servers) -> list[Finding]:
    from ..net.transport.probe import ask_turn

    async def ask(number: int, by: str) -> Finding:
        server = named.turn[number]
        where = f"{address_text(server.host, server.port)} over {by.upper()}"
        try:
            lent = await ask_turn(server, by, config.limits)
        except NetworkError as error:
            return Finding("TURN", Verdict.BLOCKED, f"{where}: {error}", "are user name and password right?")
        return Finding("TURN", Verdict.OK, f"{where} lends {address_text(*lent)}")

    found = await asyncio.gather(*(ask(number, by) for number in range(len(named.turn)) for by in ("udp", "tcp")))
    return _noted(found)


def _noted(found: Sequence[Finding]) -> list[Finding]:
    """One way to a TURN server is enough: what fails beside it is worth a look, and blocks nothing."""
    if any(one.verdict is Verdict.OK for one in found):
        return [one if one.verdict is Verdict.OK else Finding(one.layer, Verdict.NOTE, one.text) for one in found]
    return list(found)


async def _forwards(way: Way) -> Finding:
    layer = f"port by {way.name}"
    try:
        host = await way.look()
    except NetworkError as error:
        return Finding(layer, Verdict.BLOCKED, str(error), error.hint or "switch it on in the router")
    if ip_address(host).is_global:
        return Finding(layer, Verdict.OK, f"the router at {host} forwards ports on request")
    hint = "hole punching or a relay may do"
    return Finding(layer, Verdict.BLOCKED, f"the router's own address, {host}, is not one of the internet", hint)
