"""`musignet sessions`, `show`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...text import safe
from ..client import path
from .common import Command, connect, data_option, json_option, say, show

__all__ = ["describe", "matched", "sessions", "show_", "told"]


@click.command(cls=Command, example="musignet sessions --open")
@data_option
@json_option
@click.option("--open", "only_open", is_flag=True, help="Only those that have not ended.")
def sessions(data: Path, as_json: bool, only_open: bool) -> None:
    """List signing sessions, the newest first."""
    found = connect(data).get("/v1/sessions", open="true" if only_open else None)
    show(as_json, found, lambda: _lines(found))


def _lines(found: list[dict[str, Any]]) -> None:
    if not found:
        say("no sessions; begin one: musignet propose GROUP FILE.psbt")
    for one in found:
        say(f"{one['id'][:8]}  {safe(one['group_name']):16} {describe(one)}")


def describe(one: dict[str, Any]) -> str:
    """Return where a session stands, for a person."""
    if one["error"]:
        return f"{one['state']}: {one['error']}"
    names = [safe(name) for name in one["waiting_for"]]
    if one["signer_wants"] not in ("", "nothing"):
        short = one.get("id", one.get("session", ""))[:8]
        return f"waits for the {one['signer_wants']} of YOUR SIGNER: musignet export {short} --psbt"
    if one["asked"]:
        return f"waits for YOU: musignet approve {one.get('id', one.get('session', ''))[:8]}"
    return f"{one['state']}, waits for {', '.join(names)}" if names else str(one["state"])


@click.command("show", cls=Command, example="musignet show 1f3a")
@data_option
@json_option
@click.argument("session", metavar="ID")
def show_(data: Path, as_json: bool, session: str) -> None:
    """Show what a session would do: every output, the fee, every warning.

    ID may be its first digits. The review is made here, from the signed proposal and the group file.
    """
    from ..judged import judge

    client = connect(data)
    detail = client.get(path("v1", "sessions", session))
    judged = judge(client, detail)
    facts = {**detail, "review": judged.facts()}
    show(as_json, facts, lambda: told(detail, facts["review"]["lines"]))


def matched(replaces: Sequence[str], named: Sequence[str]) -> list[str]:
    """Return those sessions, of the ones that a yes gives up, whose first digits a person named."""
    return [one for one in replaces if any(digits and one.startswith(digits.lower()) for digits in named)]


def told(detail: dict[str, Any], lines: list[str]) -> None:
    """Print a session with its review."""
    one = detail["session"]
    say(f"Session {one['id']}")
    say(f"Group {safe(one['group_name'])}, proposed by {safe(one['proposer'])}; {describe(one)}")
    left_s = one["expires_at_s"] - time.time()
    if not one["ended"]:
        say(f"Expires in {left_s / 60:.0f} min" if left_s > 0 else "Expired")
    say()
    for line in lines:
        say(line)
    for rival in one["replaces"]:
        say(
            f"! Its coins are those of session {rival[:8]}, and your signature for it has left. A yes gives it up;"
            " the others may finish it all the same, and only one of the two can get into a block."
        )
    if detail["proved"]:
        say(f"PROVED: {safe(detail['proved'], 200)}")
    if detail["suspects"]:
        say(f"Waited for, which proves nothing: {', '.join(map(safe, detail['suspects']))}")
    if detail["txid"]:
        say(f"Transaction {detail['txid']}: musignet export {one['id'][:8]} --tx")
