"""`musignet`: the command line. Each command imports what it needs, so that `--help` is quick."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from ..errors import NetworkError
from ..limits import LABEL_MAX_CHARS

__all__ = ["main"]

_ADDRESS = "HOST:PORT"


def _label(value: str) -> str:
    """A name of at most 64 characters, with something to see in it."""
    if not value.strip() or len(value) > LABEL_MAX_CHARS or not value.isprintable():
        raise click.BadParameter(f"expected 1 to {LABEL_MAX_CHARS} printable characters, such as alice")
    return value


def _address(value: str) -> tuple[str, int]:
    """`HOST:PORT`, with IPv6 in brackets."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise click.BadParameter(f"expected {_ADDRESS}, such as 192.0.2.7:8001; got {value!a}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _key_at_address(value: str) -> tuple[str, str, int]:
    """`KEY@HOST:PORT`: who, and where."""
    key, at, address = value.partition("@")
    if not at or len(key) != 66 or set(key) - set("0123456789abcdef"):
        raise click.BadParameter(f"expected KEY@{_ADDRESS} with a key of 66 hex digits; got {value!a}")
    return (key, *_address(address))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="musignet")
@click.option("-v", "--verbose", is_flag=True, help="Log what the node does, to standard error.")
def main(verbose: bool) -> None:
    """MuSigNet: the cosigners of one Bitcoin wallet find each other, connect, and sign together."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.CRITICAL, format="%(asctime)s %(levelname)s %(message)s"
    )


@main.command(epilog="Example: musignet chat alice")
@click.argument("name", type=_label, metavar="NAME")
@click.option(
    "--listen",
    type=_address,
    metavar=_ADDRESS,
    default="127.0.0.1:0",
    show_default=True,
    help="Where others reach this node; port 0 picks a free one. For another machine: 0.0.0.0:8001.",
)
@click.option("--connect", type=_key_at_address, metavar=f"KEY@{_ADDRESS}", help="Whom to talk to, and where.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep this node's key in FILE, encrypted, and be the same node next time. Without it: a fresh key each time.",
)
def chat(name: str, listen: tuple[str, int], connect: tuple[str, str, int] | None, key_file: Path | None) -> None:
    """Talk to other nodes over encrypted links, every line signed.

    Run it on one machine, and it prints what to type on the other.
    """
    from .chat import Chat

    _run(Chat(name, _chat_identity(key_file), listen, connect).run())


def _chat_identity(key_file: Path | None) -> Any:
    """Load the key, or make it at the first use."""
    from ..crypto.keys import Identity
    from ..net.keystore import load_identity, save_identity

    if key_file is None:
        return Identity.generate()
    try:
        if key_file.exists():
            return load_identity(key_file, click.prompt(f"Passphrase of {key_file}", hide_input=True, err=True))
        click.echo(f"{key_file} does not exist: making a new key.", err=True)
        identity = Identity.generate()
        save_identity(
            identity, key_file, click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
        )
        return identity
    except NetworkError as error:
        raise click.ClickException(str(error)) from None


@main.command(epilog="Example: musignet demo --signers 2 --liar bad-partial")
@click.option("--signers", type=click.IntRange(2, 15), default=3, show_default=True, help="How many cosigners.")
@click.option("--inputs", type=click.IntRange(1, 250), default=2, show_default=True, help="How many coins are spent.")
@click.option(
    "--topology",
    type=click.Choice(["mesh", "star"]),
    default="mesh",
    show_default=True,
    help="Mesh: everybody sends to everybody. Star: everybody sends to one collector, whose turn passes on.",
)
@click.option(
    "--liar",
    type=click.Choice(["bad-partial", "equivocate", "silent"]),
    help="The last cosigner does this; the others name it, and nothing is signed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else.")
def demo(signers: int, inputs: int, topology: str, liar: str | None, as_json: bool) -> None:
    """Cosign a transaction: nodes in processes of their own, a chain kept by Bitcoin Core's consensus code.

    Nothing leaves this machine. Needs the extra named demo: pip install "musignet[demo]".
    """
    try:
        from .demo import Demo
    except ModuleNotFoundError as error:
        if error.name != "pbk":
            raise
        raise click.ClickException(
            'the demo needs Bitcoin Core\'s kernel: pip install "musignet[demo]" (Python below 3.14)'
        ) from None
    _run(Demo(signers, inputs, topology, liar or "", as_json).run())


def _run(work: Coroutine[Any, Any, int | None]) -> None:
    """Run a command to its end. Ctrl-C is a normal end, an error one sentence."""
    try:
        code = _runner()(work)
    except KeyboardInterrupt:
        code = 130
    except NetworkError as error:
        raise click.ClickException(str(error)) from None
    raise SystemExit(code or 0)


def _runner() -> Callable[[Coroutine[Any, Any, int | None]], int | None]:
    try:
        import uvloop
    except ImportError:  # where it does not exist, asyncio's own loop does the same
        return asyncio.run
    return uvloop.run
