"""`musignet doctor`: what blocks, layer by layer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from ...limits import PORT_MAPPING_S, RELAY_PROBE_S
from .. import config
from ..client import Client, NotRunning, to_start
from ..doctor import Finding, Verdict, examine, of_the_node
from ..natdoctor import examine_nat
from ..places import CONFIG_FILE
from ..relaydoctor import examine_relays
from ..tordoctor import TOR_ANSWER_S, examine_tor, not_tried
from .common import Command, Exit, connect, data_option, json_option, say, show

__all__ = ["doctor"]

_SAID_AFTER_S: Final = 1.0


@click.command(cls=Command, example="musignet doctor")
@data_option
@json_option
def doctor(data: Path, as_json: bool) -> None:
    """Test whether peers can find and reach this node, and say what blocks.

    Interfaces, the UDP port, broadcast and multicast heard by this machine itself, where it listens, firewalls and the
    clock; the relays of [relays] and, while the node runs, of its groups; STUN and TURN servers and the router's port
    forwarding, where [nat] asks for them; the proxy and Tor's control port; and what the running node has met. It works
    without a running node, too. With only-tor the proxy alone is asked. All at once, within half a minute; what takes
    longer than a second says so on standard error. Exit code 1: something blocks.
    """
    import asyncio

    settings = config.load(data) if (data / CONFIG_FILE).exists() else config.Config()
    client = connect(data)
    status = _status(client)
    if settings.only_tor or (status is not None and status["only_tor"]):
        settings = replace(settings, only_tor=True)
    elif status is not None:
        of_groups = (url for group in client.get("/v1/groups") for url in group["relays"])
        settings = replace(settings, relays=tuple(dict.fromkeys((*settings.relays, *of_groups))))
    findings = asyncio.run(_examined(_layers(settings, 0 if status is None else status["port"]), as_json))
    last = _running(client, status, data)
    findings += last
    show(as_json, [_facts(one) for one in findings], lambda: _lines(last))
    if any(one.verdict is Verdict.BLOCKED for one in findings):
        raise SystemExit(Exit.REFUSED)


class _Layer(NamedTuple):
    """What is tested together."""

    what: str
    most_s: float
    test: Callable[[], Awaitable[list[Finding]]]


def _layers(settings: config.Config, port: int) -> list[_Layer]:
    bounds = settings.limits
    tor = _Layer("the proxy and Tor", TOR_ANSWER_S + 5, partial(examine_tor, settings))
    if settings.only_tor:
        return [_Layer("the network", 1.0, _only_tor), tor]
    relays_s = bounds.dial_timeout_s + 3 * RELAY_PROBE_S + (bounds.proxy_dial_timeout_s if settings.proxy_socks5 else 0)
    return [
        _Layer("the local network", 10.0, partial(examine, settings, port)),
        _Layer("relays", relays_s, partial(examine_relays, settings)),
        _Layer("NATs", PORT_MAPPING_S + bounds.ice_gather_s + bounds.ice_close_s, partial(examine_nat, settings)),
        tor,
    ]


async def _only_tor() -> list[Finding]:
    return [not_tried()]


async def _examined(layers: list[_Layer], as_json: bool) -> list[Finding]:
    """Test all layers at once, and show what each found, in their order, as soon as it is known."""
    import asyncio

    tests = [asyncio.ensure_future(_bounded(one)) for one in layers]
    found: list[Finding] = []
    for layer, test in zip(layers, tests, strict=True):
        done, _ = await asyncio.wait((test,), timeout=_SAID_AFTER_S)
        if not done:
            click.echo(f"waiting for {layer.what}, {layer.most_s:.0f} s at most ...", err=True)
        found += (mine := await test)
        if not as_json:
            _lines(mine)
    return found


async def _bounded(layer: _Layer) -> list[Finding]:
    """Every question has an end of its own. This is the end of what they are together."""
    import asyncio

    try:
        async with asyncio.timeout(layer.most_s):
            return await layer.test()
    except TimeoutError:
        hint = "run it again; where it stays so, please report it"
        return [Finding(layer.what, Verdict.BLOCKED, f"the test did not end within {layer.most_s:.0f} s", hint)]


def _status(client: Client) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get("/v1/status")
    except NotRunning:
        return None
    return found


def _running(client: Client, status: dict[str, Any] | None, data: Path) -> list[Finding]:
    if status is None:
        return [Finding("the node", Verdict.NOTE, "it does not run", to_start(data))]
    return [*of_the_node(client.get("/v1/discovery"), status["peers"])]


def _facts(one: Finding) -> dict[str, str]:
    return {**asdict(one), "verdict": one.verdict.value}


def _lines(findings: list[Finding]) -> None:
    for one in findings:
        say(f"{one.verdict.value:8} {one.layer}: {one.text}")
        if one.hint:
            say(f"{'':8} -> {one.hint}")
