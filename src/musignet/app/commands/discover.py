"""`musignet discover`: who is seen on the local network, live."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from ...errors import Timeout
from ...limits import LOOK_MAX_S
from ...text import safe, short_key
from ..client import Client
from .common import Command, Failure, connect, data_option, json_option, say, show
from .pairing import duration

__all__ = ["discover"]

_FIRST_S: Final = 5.0
"""Whoever is there has said so by then; nobody is a hint that something blocks."""
_AGAIN_S: Final = LOOK_MAX_S / 2
_Node = dict[str, Any]


@click.command(cls=Command, example="musignet discover --for 30s")
@data_option
@json_option
@click.option("--for", "for_s", type=duration, metavar="TIME", help="Look so long; until Ctrl-C unless given.")
def discover(data: Path, as_json: bool, for_s: float | None) -> None:
    """Show live which nodes are on the local network.

    Your peers are shown, and whoever is inviting somebody right now: ask that person for the invite, then musignet
    join INVITE. A name is only what the other side calls itself. Exit code 4: nobody was seen.
    """
    client = connect(data)
    until = None if for_s is None else time.monotonic() + for_s
    found = client.post("/v1/discovery/look", {"for_s": LOOK_MAX_S})
    if not found["on"]:
        raise Failure(found["why"])
    if not as_json:
        _say_where(found)
    if not _Looker(client, as_json).look(until):
        raise Timeout("nobody was seen on the local network", hint="`musignet doctor` says what blocks")


def _say_where(found: dict[str, Any]) -> None:
    where = ", ".join(safe(one) for one in found["interfaces"]) or "no interface with a private address"
    say(f"looking on {where}, UDP port {found['port']}; Ctrl-C ends it")
    for way, problem in found["problems"].items():
        say(f"    {safe(way, 80)}: {safe(problem, 200)}")


class _Looker:
    """Prints a line for each node whenever there is something new."""

    def __init__(self, client: Client, as_json: bool) -> None:
        self._client, self._as_json = client, as_json
        self._said: dict[str, str] = {}

    def look(self, until: float | None) -> bool:
        """Go on until then. Returns whether anybody was seen."""
        wait_s = _FIRST_S
        while (left_s := _left(until)) > 0:
            events = self._client.events(min(wait_s, left_s))
            for node in self._client.post("/v1/discovery/look", {"for_s": LOOK_MAX_S})["nodes"]:
                self._show(node)
            try:
                for event in events:
                    self._take(event)
                raise Failure("the node stopped", hint="start it again: musignet run")
            except Timeout:
                self._hint()
            wait_s = _AGAIN_S
        return bool(self._said)

    def _take(self, event: _Node) -> None:
        if event["event"] == "sighting":
            self._show(event)
        elif event["event"] == "peer":  # what it is to us has changed
            for node in self._client.get("/v1/discovery")["nodes"]:
                if node["key"] == event["key"]:
                    self._show(node)

    def _show(self, node: _Node) -> None:
        line = _describe(node)
        if self._said.get(node["key"]) != line:
            self._said[node["key"]] = line
            show(self._as_json, node, partial(say, f"{time.strftime('%H:%M:%S')}  {line}"))

    def _hint(self) -> None:
        if not self._said and not self._as_json:
            say("nobody yet. `musignet invite` at the other machine makes it show itself; `musignet doctor` helps")


def _left(until: float | None) -> float:
    return float("inf") if until is None else until - time.monotonic()


def _describe(node: _Node) -> str:
    """Return one node as a line."""
    who = f"{safe(node['label']):16} {short_key(node['key'])}"
    if not node["here"]:
        return f"{who}  is gone"
    where = f"[{node['host']}]" if ":" in node["host"] else node["host"]
    return f"{who}  {safe(where, 80)}:{node['port']}  {_what(node)}"


def _what(node: _Node) -> str:
    if node["known"]:
        return f"your peer, {node['state']}"
    if node["open"]:
        return "invites somebody: ask for the invite, then musignet join INVITE"
    return "has an invite of yours" if node["guest"] else "not known here"
