"""`musignet invite` and `join`: two people, two screens, six words."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from ...errors import NetworkError, Timeout
from ...limits import API_JOIN_TIMEOUT_S
from ...node.addresses import parse_address
from ...text import safe, short_key
from ...wire.invite import Invite
from ..client import ApiError, Client, path
from ..qr import show_qr
from .common import Command, Exit, Failure, connect, data_option, json_option, label, meanwhile, place, say, show, sure

__all__ = ["duration", "invite", "join"]

_COMPARE_S = 600.0
_DIGITS = 9
"""Of a duration: thirty years of seconds."""
_Found = dict[str, Any]


def _words_option(command: Any) -> Any:
    return click.option(
        "--yes-words",
        metavar='"W1 ... W6"',
        help="For scripts: confirm if these are the six words, refuse otherwise; - reads them from standard input.",
    )(command)


def _label_option(command: Any) -> Any:
    return click.option("--label", "name", type=label, help="What to call the other side; its own name unless given.")(
        command
    )


def duration(value: str) -> float:
    """Seconds, or with a unit: 90, 10m, 24h."""
    factor = {"s": 1, "m": 60, "h": 3600}.get(value[-1:].lower())
    number = value[:-1] if factor else value
    if not (number.isascii() and number.isdecimal() and len(number) <= _DIGITS) or not int(number):
        raise click.BadParameter("expected a time such as 90, 10m or 24h")
    return float(int(number) * (factor or 1))


@click.command(cls=Command, example="musignet invite --expires-in 30m --address 192.0.2.7:8737")
@data_option
@json_option
@_label_option
@click.option("--expires-in", type=duration, default="10m", metavar="TIME", help="Such as 90, 10m (the default), 24h.")
@click.option(
    "--address", "addresses", multiple=True, type=place, metavar="ADDRESS", help="Where they reach this node."
)
@click.option("--lan", is_flag=True, help="Name no address: they find this node on the local network, or not at all.")
@click.option(
    "--announce/--no-announce",
    default=True,
    help="Show key and name to the local network meanwhile, 10 minutes at most.",
)
@click.option("--qr/--no-qr", default=True, help="A QR code of the invite too.")
@_words_option
def invite(
    data: Path,
    as_json: bool,
    name: str | None,
    expires_in: float,
    addresses: tuple[str, ...],
    lan: bool,
    announce: bool,
    qr: bool,
    yes_words: str | None,
) -> None:
    """Invite somebody: one word for them, then six words to compare.

    The command waits until they have joined with it, and both of you have confirmed that both screens show the same
    six words. Nothing is trusted before that. When the command ends, so does the invite.

    On the local network, join finds this node by the invite, whatever its address, and musignet discover shows it.
    """
    if lan and addresses:
        raise click.UsageError("--lan and --address exclude each other")
    client = connect(data)
    events = client.events(expires_in)
    made = client.post("/v1/invites", _asked(expires_in, addresses, lan, announce))
    try:
        show(as_json, made, lambda: _invited(made, qr, expires_in))
        _Talk(client, as_json, name, yes_words).follow(events, invite=made["id"])
    except Timeout:
        raise Failure("nobody joined in time", Exit.TIMEOUT, kind="Timeout", hint="make a new invite") from None
    finally:
        _quietly(client, path("v1", "invites", made["id"]))


def _asked(expires_in: float, addresses: tuple[str, ...], lan: bool, announce: bool) -> _Found:
    return {"expires_in_s": expires_in, "addresses": list(addresses), "lan": lan, "openly": announce}


def _invited(made: _Found, qr: bool, expires_in: float) -> None:
    say("Give this to the other person, and to nobody else; at their machine: musignet join INVITE")
    say()
    say(made["invite"])
    say()
    if qr and sys.stdout.isatty() and show_qr(made["invite"]):
        say()
    _warn(Invite.parse_untrusted(made["invite"]).addresses)
    most = f"{expires_in / 60:.0f} minutes" if expires_in > 90 else f"{expires_in:.0f} seconds"
    say(f"waiting for them, {most} at most; Ctrl-C withdraws it")


def _warn(addresses: tuple[str, ...]) -> None:
    """Say so where nobody at another machine could dial it, unless they find it on the local network."""
    if not addresses:
        say("It names no address: they find this node on the local network, if discovery works there")
    elif all(one.host.startswith("127.") or one.host in ("::1", "localhost") for one in map(parse_address, addresses)):
        where = f"names {safe(addresses[0], 80)}, which is this machine only"
        say(f"NOTE: it {where}. For another machine: [listen] host in config.toml, or --address HOST:PORT")


@click.command(cls=Command, example="musignet join musig1qqqsyqcyq5rqwzqf...")
@data_option
@json_option
@_label_option
@click.argument("invite", metavar="INVITE")
@_words_option
def join(data: Path, as_json: bool, name: str | None, invite: str, yes_words: str | None) -> None:
    """Answer an invite: then six words to compare.

    It dials whoever made it. Both screens show six words; confirm only if they are the same, read aloud over a
    channel where you know the other's voice.
    """
    Invite.parse_untrusted(invite)  # nobody is looked for with half a word
    client = connect(data, API_JOIN_TIMEOUT_S)
    events = client.events(_COMPARE_S)
    meanwhile(as_json, "looking for whoever made it")
    found = client.post("/v1/pairings", {"invite": invite})
    try:
        _Talk(client, as_json, name, yes_words).follow(events, key=found["key"])
    except BaseException:
        _quietly(client, path("v1", "pairings", found["key"]))
        raise


def _quietly(client: Client, route: str) -> None:
    """Take away what may be gone already, also when the node is."""
    try:
        client.delete(route)
    except NetworkError:
        pass


class _Talk:
    """Follows one pairing and asks the person."""

    def __init__(self, client: Client, as_json: bool, name: str | None, yes_words: str | None) -> None:
        self._client, self._as_json = client, as_json
        self._name, self._yes_words = name, yes_words
        self._asked = ""
        self._ended: set[str] = set()

    def follow(self, events: Iterator[_Found], **wanted: str) -> None:
        """Go on until it is paired. Raises Failure when it comes to nothing, Timeout."""
        while True:
            for one in self._client.get("/v1/pairings"):
                if all(one[field] == value for field, value in wanted.items()) and self._look(one, "key" in wanted):
                    return
            _wait(events)

    def _look(self, one: _Found, only: bool) -> bool:
        """Do what the state of a pairing asks for. Returns whether it is done."""
        if one["paired"]:
            show(self._as_json, one, partial(_paired, one, self._name))
            return True
        if one["error"]:
            self._over(one, only)
        elif one["words"] and one["words"] != self._asked:
            self._ask(one)
        return False

    def _over(self, one: _Found, only: bool) -> None:
        if only:
            raise Failure(one["error"], kind="AuthenticationError")
        if one["key"] not in self._ended:
            self._ended.add(one["key"])
            if not self._as_json:
                say(f"{one['error']}; the invite is still open")

    def _ask(self, one: _Found) -> None:
        self._asked = one["words"]
        show(self._as_json, one, partial(_compare, one))
        name = self._name or ""
        if not self._same(one["words"]):
            self._client.post(path("v1", "pairings", one["key"], "refuse"))
            raise Failure(
                "not paired: the words were not confirmed", kind="AuthenticationError",
                hint="if they differed, somebody is between you",
            )  # fmt: skip
        if one["taken"] and not name:
            name = self._other_name(one)
        try:
            self._client.post(path("v1", "pairings", one["key"], "confirm"), {"words": one["words"], "label": name})
        except ApiError as error:
            now = self._client.get(path("v1", "pairings", one["key"]))
            if now["words"] == one["words"] and not now["over"]:
                raise
            self._asked = ""  # the link was made anew while the person looked: other words, and again
            if not (self._as_json or now["over"]):  # when it is over, that is said with its reason
                say(str(error))
            return
        if not self._as_json:
            say("confirmed here; waiting for the other side")

    def _same(self, words: str) -> bool:
        if self._yes_words is not None:
            given = sys.stdin.readline() if self._yes_words == "-" else self._yes_words
            return " ".join(given.lower().split()) == words
        return sure("Do both screens show these six words?", err=self._as_json)

    def _other_name(self, one: _Found) -> str:
        if self._yes_words is not None or self._as_json:
            raise Failure(f"the name {safe(one['name'])} is taken by another key", hint="give this one --label NAME")
        say(f"The name {safe(one['name'])} belongs to another key here.")
        chosen: str = click.prompt("What shall this one be called?", value_proc=label)
        return chosen


def _compare(one: _Found) -> None:
    say(f"{safe(one['name'])} (key {short_key(one['key'])}) is here. Compare these words with the other screen:")
    say()
    say("    " + one["words"])
    say()


def _paired(one: _Found, name: str | None) -> None:
    say(f"paired with {safe(name or one['name'])} (key {short_key(one['key'])})")


def _wait(events: Iterator[_Found]) -> None:
    """Return when something happened to a pairing."""
    for event in events:
        if event["event"] in ("pairing", "missed"):
            return
    raise Timeout("the node stopped", hint=f"start it again; it is {time.strftime('%H:%M')}")
