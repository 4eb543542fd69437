"""`musignet regtest`: a chain to play on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from ..chain.amounts import parse_amount
from ..ending import ends
from ..regtest_client import ask
from .common import Command, Failure, address, json_option, say, show

__all__ = ["regtest"]

_F = TypeVar("_F", bound=Callable[..., Any])
_URL = "http://127.0.0.1:3002"


@click.group(invoke_without_command=True, epilog="\b\nExample: musignet regtest --esplora 127.0.0.1:3002")
@click.option(
    "--esplora", type=address, metavar="HOST:PORT", default="127.0.0.1:3002", show_default=True,
    help="Where it listens: on this machine only. Port 0 picks a free one.",
)  # fmt: skip
@click.pass_context
def regtest(context: click.Context, esplora: tuple[str, int]) -> None:
    """Keep a chain to play on, with coins that are worth nothing.

    Bitcoin Core's consensus code keeps it, and it is served as an Esplora server would; a transaction that is sent is
    in a block at once. It runs until Ctrl-C, and then it is gone. Needs the extra named demo.
    """
    if context.invoked_subcommand is None:
        with _run.make_context("regtest", [esplora[0], str(esplora[1])], parent=context) as inner:
            _run.invoke(inner)  # its errors become sentences there


@click.command(cls=Command, example="musignet regtest --esplora 127.0.0.1:3002", hidden=True)
@click.argument("host")
@click.argument("port", type=int)
def _run(host: str, port: int) -> None:
    try:
        from ..regtest_server import serve
    except ModuleNotFoundError as error:
        if error.name != "pbk":
            raise
        raise Failure(
            'the chain needs Bitcoin Core\'s kernel: pip install "musignet[demo]" (Python below 3.14)'
        ) from None
    stop = threading.Event()
    for number in (signal.SIGINT, *ends()):
        signal.signal(number, lambda *_: stop.set())
    with TemporaryDirectory(prefix="musignet-regtest-") as folder, serve(Path(folder) / "chain", host, port) as url:
        say(f'a regtest chain at {url}; in [chain] of config.toml: backend = "esplora+{url}"')
        say(f"coins: musignet regtest fund ADDRESS 1btc --url {url}; blocks: musignet regtest mine; stop: Ctrl-C")
        stop.wait()


def _url_option(command: _F) -> _F:
    return click.option("--url", default=_URL, show_default=True, help="Where the chain is.")(command)


@regtest.command(cls=Command, example="musignet regtest fund bcrt1p... 1btc")
@_url_option
@json_option
@click.argument("address")
@click.argument("amount")
def fund(url: str, as_json: bool, address: str, amount: str) -> None:
    """Pay coins of the chain to an address, in a block.

    AMOUNT is 25000sat or 0.01btc; a whole number alone is satoshi.
    """
    paid = ask(url, "/regtest/fund", {"address": address, "amount_sat": parse_amount(amount)})
    show(as_json, paid, lambda: say(f"coin {paid.get('txid')}:{paid.get('vout')} in block {paid.get('height')}"))


@regtest.command(cls=Command, example="musignet regtest mine 6")
@_url_option
@json_option
@click.argument("blocks", type=click.IntRange(1, 1_000), default=1)
def mine(url: str, as_json: bool, blocks: int) -> None:
    """Mine empty blocks on the regtest chain."""
    done = ask(url, "/regtest/mine", {"blocks": blocks})
    show(as_json, done, lambda: say(f"the chain has {done.get('height')} blocks now"))
