"""`musignet status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import Command, connect, data_option, json_option, say, show

__all__ = ["status"]


@click.command(cls=Command, example="musignet status --json")
@data_option
@json_option
def status(data: Path, as_json: bool) -> None:
    """Show what the running node is doing."""
    found = connect(data).get("/v1/status")
    show(as_json, found, lambda: _lines(found))


def _lines(found: dict[str, Any]) -> None:
    say(f"{found['label']} on {found['network']}, MuSigNet {found['version']}")
    say(f"key      {found['key']}")
    say(f"data     {found['data']}")
    say(f"listens  {found['host']}:{found['port']}" if found["host"] else "listens  nowhere: it dials only")
    for onion in found["onions"]:
        say(f"onion    {onion}")
    say(f"peers    {found['connected']} of {found['peers']} connected")
    say(f"groups   {', '.join(found['groups']) or 'none'}")
    say(f"sessions {found['open_sessions']} open")
    for session in found["asked"]:
        say(f"WAITS FOR YOU: musignet approve {session[:8]}")
    if found["insecure"]:
        say("INSECURE: the wallet key is not encrypted")
