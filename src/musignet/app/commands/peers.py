"""`musignet peers`, `rename`, `forget`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ...text import safe, short_key
from ..client import path
from .common import Command, connect, data_option, json_option, label, say, show, size

__all__ = ["forget", "peers", "rename"]


@click.command(cls=Command, example="musignet peers --verbose")
@data_option
@json_option
@click.option("--verbose", is_flag=True, help="Keys, addresses, paths, traffic, scores, and why the last dial failed.")
def peers(data: Path, as_json: bool, verbose: bool) -> None:
    """List the peers of this node, and why one is not let in."""
    found = connect(data).get("/v1/peers")
    show(as_json, found, lambda: _lines(found, verbose))


def _lines(found: list[dict[str, Any]], verbose: bool) -> None:
    if not found:
        say("no peers yet; pair with one: musignet invite")
    for one in found:
        trip = "" if one["round_trip_s"] is None else f"{1000 * one['round_trip_s']:.1f} ms"
        seen = "not seen" if one["seen_s_ago"] is None else f"{one['seen_s_ago']:.0f} s ago"
        say(f"{safe(one['label']):16} {short_key(one['key'])}  {one['state']:12} {trip:>9}  {seen}")
        if verbose:
            where = ", ".join(one["addresses"]) or "no address: it dials us"
            say(f"    key {one['key']}, {safe(where, 400)}{'' if one['pinned'] else ', of a group only'}")
            if one["path"]:
                say(f"    reached {one['path']} at {safe(one['at'], 200)}")
            if one["left_at"]:
                say(f"    away: what it is told is left {safe(one['left_at'], 200)}")
            if one["better"]:
                say(f"    better: {safe(one['better'], 1000)}")
            if one["error"]:
                say(f"    {one['error']}")
            say(f"    {_traffic(one)}")
        if verbose or one["refused_s"]:
            for line in _opinion(one):
                say(f"    {line}")


def _traffic(one: dict[str, Any]) -> str:
    """Return what passed between us and a peer."""
    held = f", held back for {one['held_s']:.1f} s" if one["held_s"] else ""
    less = f", at {100 * one['share']:.0f} % of the usual rates" if one["share"] < 1 else ""
    return (
        f"in {size(one['bytes_in'])} in {one['messages_in']} messages, out {size(one['bytes_out'])}; "
        f"now {one['messages_per_s']:.1f} messages/s and {size(one['bytes_per_s'])}/s from it{held}{less}"
    )


def _opinion(one: dict[str, Any]) -> Iterator[str]:
    """Yield what is thought of a peer, and why."""
    if one["why"]:
        yield f"score {one['score']:+.0f}: {safe(one['why'], 400)}"
    if one["refused_s"]:
        yield f"not let in for {one['refused_s']:.0f} s more"


@click.command(cls=Command, example="musignet rename bob bobs-laptop")
@data_option
@json_option
@click.argument("peer")
@click.argument("name", type=label)
def rename(data: Path, as_json: bool, peer: str, name: str) -> None:
    """Give a peer another label.

    PEER is its label or its whole key. Labels are yours: nobody else is told.
    """
    found = connect(data).post(path("v1", "peers", peer, "rename"), {"label": name})
    show(as_json, found, lambda: say(f"{short_key(found['key'])} is called {safe(found['label'])} now"))


@click.command(cls=Command, example="musignet forget bob")
@data_option
@json_option
@click.argument("peer")
def forget(data: Path, as_json: bool, peer: str) -> None:
    """Hang up on a peer and take it out of the book.

    PEER is its label or its whole key. It can come back by pairing only.
    """
    connect(data).delete(path("v1", "peers", peer))
    show(as_json, None, lambda: say(f"{safe(peer)} is forgotten"))
