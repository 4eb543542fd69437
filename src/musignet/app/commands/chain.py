"""`musignet group sync`, `group balance`, `group send`, and `musignet broadcast`."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click

from ...errors import IoError
from ...limits import CHAIN_CALL_TIMEOUT_S, CHAIN_SYNC_TIMEOUT_S, FEE_TARGET_BLOCKS, FEE_TARGET_MAX_BLOCKS
from ..chain.amounts import parse_amount, parse_fee_rate
from ..client import Client, path
from .common import Command, data_option, json_option, meanwhile, say, show
from .sessions import describe

__all__ = ["balance", "broadcast", "send", "sync"]

_MAX = "max"
_ASKING = "asking the chain backend"
_SLOW_S = CHAIN_SYNC_TIMEOUT_S + 4 * CHAIN_CALL_TIMEOUT_S
"""A scan, a fee estimate and a broadcast, each to its own deadline: the node's sentence comes before ours."""


def _connect(data: Path) -> Client:
    return Client(data / "api.sock", _SLOW_S)


@click.command(cls=Command, example="musignet group sync savings")
@data_option
@json_option
@click.argument("group")
def sync(data: Path, as_json: bool, group: str) -> None:
    """Ask the chain backend for a group's coins.

    The backend is the one of [chain] in config.toml.
    """
    meanwhile(as_json, _ASKING)
    found = _connect(data).post(path("v1", "groups", group, "sync"))
    show(as_json, found, lambda: _lines(found, verbose=False))


@click.command(cls=Command, example="musignet group balance savings --verbose")
@data_option
@json_option
@click.option("--verbose", is_flag=True, help="Every coin too.")
@click.argument("group")
def balance(data: Path, as_json: bool, verbose: bool, group: str) -> None:
    """Show what the last sync found.

    Nobody is asked: musignet group sync does that.
    """
    found = _connect(data).get(path("v1", "groups", group, "wallet"))
    show(as_json, found, lambda: _lines(found, verbose))


def _lines(found: dict[str, Any], verbose: bool) -> None:
    say(f"{found['confirmed_sat']} sat confirmed at block {found['tip_height']} by {found['backend']}")
    if found["unconfirmed_sat"]:
        say(f"{found['unconfirmed_sat']} sat in no block yet")
    if found["immature_sat"]:
        say(f"{found['immature_sat']} sat mined, to be spent 100 blocks later")
    for one in found["coins"] if verbose else ():
        where = f"{one['branch']}/{one['index']}"
        say(f"    {one['amount_sat']:>14} sat  {one['outpoint']} at {where}, {one['confirmations']} confirmations")
    say(f"next address {found['next_address']} (0/{found['next_index']})")


@click.command(cls=Command, example="musignet group send savings bcrt1q... 25000sat --fee-rate 2 --memo rent")
@data_option
@json_option
@click.argument("group")
@click.argument("address")
@click.argument("amount")
@click.option("--fee-rate", metavar="SAT_PER_VB", help="Without it the chain backend is asked.")
@click.option(
    "--target", type=click.IntRange(1, FEE_TARGET_MAX_BLOCKS), default=FEE_TARGET_BLOCKS, show_default=True,
    metavar="BLOCKS", help="Within how many blocks it is to be confirmed, for that question.",
)  # fmt: skip
@click.option("--coin", "coins", multiple=True, metavar="TXID:N", help="Spend this coin; again for more of them.")
@click.option("--memo", default="", help="Words for the other cosigners.")
@click.option(
    "--psbt", "file", type=click.Path(path_type=Path), help="Write the PSBT to this file, and propose nothing."
)
def send(
    data: Path, as_json: bool, group: str, address: str, amount: str, fee_rate: str | None, target: int,
    coins: tuple[str, ...], memo: str, file: Path | None,
) -> None:  # fmt: skip
    """Sync, and ask a group to pay somebody.

    AMOUNT is 25000sat or 0.01btc; a whole number alone is satoshi, and a fraction needs its unit. `max` sends
    everything, or all of the coins that are named. Nothing is sent before everybody has approved and somebody
    broadcasts it.
    """
    payment = {
        "address": address,
        "amount_sat": None if amount == _MAX else parse_amount(amount),
        "fee_rate_sat_vb": None if fee_rate is None else parse_fee_rate(fee_rate),
        "target_blocks": target,
        "coins": list(coins),
    }
    meanwhile(as_json, _ASKING)
    client = _connect(data)
    made = client.post(path("v1", "groups", group, "psbt"), payment)
    if file is not None:
        _write(file, base64.b64decode(made["psbt"]))
        show(as_json, made, lambda: say(f"{file} is ready: musignet propose {group} {file}"))
        return
    found = client.post("/v1/sessions", {"group": group, "psbt": made["psbt"], "memo": memo})
    show(as_json, found, lambda: _proposed(found))


def _write(file: Path, psbt: bytes) -> None:
    try:
        file.write_bytes(psbt)
    except OSError as error:
        raise IoError(f"{error.strerror}: {file}", hint="check the path") from error


def _proposed(found: dict[str, Any]) -> None:
    say(f"session {found['id']}")
    say(describe(found))
    short = found["id"][:8]
    say(f"look at it and say yes: musignet approve {short}; when it is complete: musignet broadcast {short}")


@click.command(cls=Command, example="musignet broadcast 1f3a")
@data_option
@json_option
@click.argument("session", metavar="ID")
def broadcast(data: Path, as_json: bool, session: str) -> None:
    """Pass on the finished transaction of a session.

    Any of the cosigners can, and twice does no harm.
    """
    meanwhile(as_json, _ASKING)
    found = _connect(data).post(path("v1", "sessions", session, "broadcast"))
    show(as_json, found, lambda: say(f"transaction {found['txid']}"))
