"""`musignet watch`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from ...errors import Timeout
from ...text import safe
from ..client import Client, path
from .common import Command, connect, data_option, json_option, say, show
from .sessions import describe

__all__ = ["watch"]


@click.command(cls=Command, example="musignet watch 1f3a --timeout 600")
@data_option
@json_option
@click.argument("session", metavar="[ID]", required=False)
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up after so long: exit code 4.")
def watch(data: Path, as_json: bool, session: str | None, timeout: float | None) -> None:
    """Show live how sessions go, and who is waited for.

    With an ID it ends when that session does: code 0 for a finished transaction, 1 for any other end. Without, it
    shows everything until Ctrl-C, peers too.
    """
    client = connect(data)
    events = client.events(timeout)
    if session is None:
        for event in events:
            show(as_json, event, partial(_line, event))
    else:
        _follow(client, session, events, as_json, timeout)


def _follow(
    client: Client, session: str, events: Iterator[dict[str, Any]], as_json: bool, timeout: float | None
) -> None:
    """Print one session's steps until it has ended."""
    deadline = None if timeout is None else time.monotonic() + timeout
    shown = client.get(path("v1", "sessions", session))["session"]
    found = {**shown, "session": shown["id"]}
    last = ""
    while True:
        line = describe(found)
        if line != last:
            show(as_json, found, partial(say, f"{found['session'][:8]}  {line}"))
        if found["ended"]:
            raise SystemExit(0 if found["state"] == "completed" else 1)
        last = line
        found = _next(client, events, shown["id"])
        if deadline is not None and time.monotonic() > deadline:
            raise Timeout("the session has not ended in time", hint=line)


def _next(client: Client, events: Iterator[dict[str, Any]], session: str) -> dict[str, Any]:
    for event in events:
        if event["event"] == "missed":
            shown = client.get(path("v1", "sessions", session))["session"]
            return {**shown, "session": shown["id"]}
        if event["event"] == "session" and event["session"] == session:
            return event
    raise Timeout("the node stopped", hint="start it again: the session goes on by itself")


def _line(event: dict[str, Any]) -> None:
    at = time.strftime("%H:%M:%S")
    if event["event"] == "session":
        say(f"{at}  session {event['session'][:8]}: {describe(event)}")
    elif event["event"] == "broadcast":
        what = f"passed on as {event['txid']}" if event["txid"] else f"not passed on yet: {safe(event['error'], 400)}"
        say(f"{at}  session {event['session'][:8]}: {what}")
    elif event["event"] == "peer":
        say(f"{at}  {safe(event['label'])} is {event['state']}")
    elif event["event"] == "fault":
        say(f"{at}  fault of {safe(event['label'])}: {event['error']}")
    else:
        say(f"{at}  {safe(event['event'])}")
