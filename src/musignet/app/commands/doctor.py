"""`musignet doctor`: what blocks, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from .. import config
from ..client import Client, NotRunning
from ..doctor import Finding, Verdict, examine, of_the_node
from ..natdoctor import examine_nat
from ..places import CONFIG_FILE
from ..tordoctor import examine_tor, not_tried
from .common import Command, Exit, connect, data_option, json_option, meanwhile, say, show

__all__ = ["doctor"]


@click.command(cls=Command, example="musignet doctor")
@data_option
@json_option
def doctor(data: Path, as_json: bool) -> None:
    """Test whether peers can find and reach this node, and say what blocks.

    Interfaces, the UDP port, broadcast and multicast heard by this machine itself, where it listens, firewalls and the
    clock; STUN and TURN servers and the router's port forwarding, where [nat] asks for them; the proxy and Tor's
    control port; and what the running node has met. It works without a running node, too. With only-tor
    the proxy alone is asked. Exit code 1: something blocks.
    """
    import asyncio

    meanwhile(as_json, "testing; it takes some seconds")
    settings = config.load(data) if (data / CONFIG_FILE).exists() else config.Config()
    client = connect(data)
    status = _status(client)
    port = settings.listen_port if status is None else status["port"]
    if settings.only_tor or (status is not None and status["only_tor"]):
        settings = replace(settings, only_tor=True)
        findings = [not_tried()]
    else:
        findings = asyncio.run(examine(settings, 0 if status is None else port))
        findings += asyncio.run(examine_nat(settings))
    findings += asyncio.run(examine_tor(settings))
    findings += _running(client, status, data)
    show(as_json, [_facts(one) for one in findings], lambda: _lines(findings))
    if any(one.verdict is Verdict.BLOCKED for one in findings):
        raise SystemExit(Exit.REFUSED)


def _status(client: Client) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get("/v1/status")
    except NotRunning:
        return None
    return found


def _running(client: Client, status: dict[str, Any] | None, data: Path) -> list[Finding]:
    if status is None:
        return [Finding("the node", Verdict.NOTE, "it does not run", f"start it: musignet run --data {data}")]
    return [*of_the_node(client.get("/v1/discovery"), status["peers"])]


def _facts(one: Finding) -> dict[str, str]:
    return {**asdict(one), "verdict": one.verdict.value}


def _lines(findings: list[Finding]) -> None:
    for one in findings:
        say(f"{one.verdict.value:8} {one.layer}: {one.text}")
        if one.hint:
            say(f"{'':8} -> {one.hint}")
