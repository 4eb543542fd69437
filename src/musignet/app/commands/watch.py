"""`musignet watch`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from ...errors import Timeout
from ...text import safe, short_key
from ..client import Client, path
from .common import Command, connect, data_option, json_option, meanwhile, say, show
from .sessions import describe

__all__ = ["watch"]

_Event: TypeAlias = dict[str, Any]


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
    deadline = None if timeout is None else time.monotonic() + timeout
    events = client.events(timeout)
    try:
        if session is None:
            _everything(client, events, as_json)
        else:
            _follow(client, session, events, as_json)
    except Timeout:
        if deadline is None or time.monotonic() < deadline:
            raise
        raise Timeout(f"{timeout:g} s are over", hint="without --timeout it goes on") from None


def _everything(client: Client, events: Iterator[_Event], as_json: bool) -> None:
    """Print what is open, then what happens, until the node stops."""
    open_now: list[_Event] = [] if as_json else [_event(one) for one in client.get("/v1/sessions", open="true")]
    meanwhile(as_json, "what is open, then what happens; Ctrl-C ends it")
    last = ""
    for event in chain(reversed(open_now), events):
        line = _told(event)
        if as_json or line != last:
            show(as_json, event, partial(say, f"{time.strftime('%H:%M:%S')}  {line}"))
        last = line
    raise _stopped()


def _follow(client: Client, session: str, events: Iterator[_Event], as_json: bool) -> None:
    """Print one session's steps until it has ended."""
    found = _now(client, session)
    last = ""
    while True:
        line = describe(found)
        if line != last:
            show(as_json, found, partial(say, f"{found['session'][:8]}  {line}"))
        if found["ended"]:
            raise SystemExit(0 if found["state"] == "completed" else 1)
        last = line
        found = _next(client, events, found["session"])


def _now(client: Client, session: str) -> _Event:
    return _event(client.get(path("v1", "sessions", session))["session"])


def _event(session: _Event) -> _Event:
    return {**session, "event": "session", "session": session["id"]}


def _next(client: Client, events: Iterator[_Event], session: str) -> _Event:
    for event in events:
        if event["event"] == "missed":
            return _now(client, session)
        if event["event"] == "session" and event["session"] == session:
            return event
    raise _stopped()


def _stopped() -> Timeout:
    return Timeout("the node stopped", hint="start it again: sessions go on by themselves")


def _told(event: _Event) -> str:
    known = _SHOWN.get(event["event"])
    return known(event) if known else safe(event["event"])


def _broadcast(event: _Event) -> str:
    what = f"passed on as {event['txid']}" if event["txid"] else f"not passed on yet: {safe(event['error'], 400)}"
    return f"session {event['session'][:8]}: {what}"


def _founding(event: _Event) -> str:
    waiting = ", ".join(map(safe, event["waiting_for"]))
    return f"founding {event['founding'][:8]}: {event['step']}" + (f": {waiting}" if waiting else "")


def _sighting(event: _Event) -> str:
    return f"{safe(event['label'])} is {'' if event['here'] else 'no longer '}on the local network"


_SHOWN: Final[dict[str, Callable[[_Event], str]]] = {
    "session": lambda event: f"session {event['session'][:8]}: {describe(event)}",
    "broadcast": _broadcast,
    "peer": lambda event: f"{safe(event['label'])} is {event['state']}",
    "fault": lambda event: f"fault of {safe(event['label'])}: {event['error']}",
    "group": lambda event: f"group {safe(event['name'])} is here",
    "founding": _founding,
    "pairing": lambda event: f"pairing with {short_key(event['key'])}: {event['step']}",
    "sighting": _sighting,
    "missed": lambda _: "some of it was missed: musignet sessions and musignet peers have all",
}
"""Each kind of event, for a person."""
