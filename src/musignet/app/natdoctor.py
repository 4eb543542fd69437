"""What `musignet doctor` says about NATs: STUN and TURN servers, the kind of NAT, and the router's port forwarding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from ..errors import LocalError, NetworkError
from ..net.mapping import Way
from ..net.nat import Servers, TurnServer
from ..net.portmap import ways
from ..node.addresses import address_text
from .config import Config
from .doctor import Finding, Verdict, of_error
from .natting import punching, servers

__all__ = ["examine_nat"]

_UNAUTHORISED: Final = "401"
_CERTIFICATE: Final = "certificate verify failed"


async def examine_nat(config: Config) -> list[Finding]:
    """Ask what [nat] in config.toml names, and nobody else."""
    holes, ports = await asyncio.gather(_holes(config), _ports(config))
    return [*holes, *ports]


async def _ports(config: Config) -> list[Finding]:
    asked = await asyncio.gather(*(_forwards(way) for way in ways(config.nat_map_port)))
    return [one for one in asked if one.verdict is Verdict.OK or not _works(asked)]


async def _holes(config: Config) -> list[Finding]:
    if not config.nat_punch:
        hint = "peers behind another NAT are reached by a relay only: punch = true in [nat]"
        return [Finding("hole punching", Verdict.NOTE, "it is switched off", hint)]
    try:
        punching(config)
    except LocalError as error:
        return [of_error("hole punching", error)]
    named = servers(config)
    stun, udp, *streams = await asyncio.gather(
        _stun(config, named), *(_turn(config, named, by) for by in ("udp", "tcp", "tls"))
    )
    rest = [one for found in streams for one in found]
    return [*stun, *_noted([*udp, *rest]), *_no_udp([*stun, *udp], rest)]


async def _stun(config: Config, named: Servers) -> list[Finding]:
    if not named.stun:
        hint = 'stun = ["HOST:PORT"] in [nat] names a server that tells; none is built in'
        return [Finding("STUN", Verdict.NOTE, "no server: this node does not know its address outside", hint)]
    from ..net.transport.probe import ask_stun

    answers = await ask_stun(named.stun, config.limits.ice_gather_s)
    out, seen = [], set()
    for server, answer in zip(named.stun, answers, strict=True):
        where = address_text(*server)
        if isinstance(answer, NetworkError):
            out.append(of_error("STUN", answer, "is the name right? another server does as well", where=where))
        else:
            seen.add(answer)
            out.append(Finding("STUN", Verdict.OK, f"{where} sees this machine as {address_text(*answer)}"))
    if len(seen) > 1:
        hint = "no hole is punched through it where the other side's is such a one, or strict: name a TURN server"
        out.append(Finding("NAT", Verdict.NOTE, "it shows each server another port (symmetric)", hint))
    return out


async def _turn(config: Config, named: Servers, by: str) -> list[Finding]:
    async def ask(server: TurnServer) -> Finding:
        from ..net.transport.probe import ask_turn

        where = f"{address_text(server.host, server.port)} over {by.upper()}"
        try:
            lent = await ask_turn(server, by, config.limits)
        except NetworkError as error:
            return of_error("TURN", error, _turn_hint(error, by), where=where)
        return Finding("TURN", Verdict.OK, f"{where} lends {address_text(*lent)}")

    return await asyncio.gather(*(ask(server) for server in named.turn if by in server.ways))


def _turn_hint(error: NetworkError, by: str) -> str:
    if _UNAUTHORISED in str(error):
        return "turn_username and turn_password in [nat] are not what the server knows"
    if _CERTIFICATE in str(error):
        return "the certificate must be for this name, from an authority that this machine knows"
    return f"is the address right, is the server up, and does this network let {by.upper()} out?"


def _noted(found: Sequence[Finding]) -> list[Finding]:
    """One way to a TURN server is enough: what fails beside it is worth a look, and blocks nothing."""
    if not _works(found):
        return list(found)
    return [one if one.verdict is Verdict.OK else replace(one, verdict=Verdict.NOTE) for one in found]


def _no_udp(udp: Sequence[Finding], tcp: Sequence[Finding]) -> list[Finding]:
    """Whether everything that goes over UDP is silent, and something that does not is there."""
    if not _works(tcp) or _works(udp) or not any(one.verdict is Verdict.BLOCKED for one in udp):
        return []
    hint = "no hole can be punched from here: peers are reached by way of TURN over TCP or TLS; let UDP out for more"
    return [Finding("UDP", Verdict.NOTE, "nothing that goes over UDP is answered, and TCP is", hint)]


def _works(found: Sequence[Finding]) -> bool:
    return any(one.verdict is Verdict.OK for one in found)


async def _forwards(way: Way) -> Finding:
    layer = f"port by {way.name}"
    try:
        host = await way.look()
    except NetworkError as error:
        return of_error(layer, error, "switch it on in the router")
    if ip_address(host).is_global:
        return Finding(layer, Verdict.OK, f"the router at {host} forwards ports on request")
    hint = "hole punching or a relay may do"
    return Finding(layer, Verdict.BLOCKED, f"the router's own address, {host}, is not one of the internet", hint)
