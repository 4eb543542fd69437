"""`musignet run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ...net.folder import DataFolder
from .. import config, passphrase
from ..logs import set_up
from ..run import open_identity
from .common import Command, Failure, data_option, run_async, say

__all__ = ["run"]


@click.command(cls=Command, example="musignet run --data ~/.musignet")
@data_option
@click.option("--passphrase-fd", type=int, metavar="N", help="Read the identity's passphrase from file descriptor N.")
@click.option("--wallet-passphrase-fd", type=int, metavar="N", help="The keyholder reads the wallet's from there.")
@click.option("--keyring", is_flag=True, help="Take the identity's passphrase from the keyring of the system.")
def run(data: Path, passphrase_fd: int | None, wallet_passphrase_fd: int | None, keyring: bool) -> None:
    """Run this node until it is told to stop.

    Ctrl-C or SIGTERM stop it: what is on the wire is finished first. Nothing is signed without your approval.
    """
    settings = config.load(data)
    folder = DataFolder.lock(data)
    log = set_up(settings)
    try:
        serve, wallet_keys = _node()
        identity, insecure = open_identity(data, lambda: _passphrase(data, passphrase_fd, keyring))
        keys = wallet_keys(data, wallet_passphrase_fd)
        for what, exposed in (("identity", insecure), ("wallet", keys.insecure)):
            if exposed:
                click.echo(f"INSECURE: the {what} key is not encrypted (--insecure-no-passphrase)", err=True)
        run_async(serve(folder, settings, identity, keys, say), logged=True)
    finally:
        folder.close()
        log.close()


def _node() -> Any:
    """The server's libraries are an extra: programs that use MuSigNet as a library do without."""
    try:
        from ..run import serve, wallet_keys
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise Failure('a node needs its API: pip install "musignet[node]"') from None
    return serve, wallet_keys


def _passphrase(data: Path, fd: int | None, keyring: bool) -> str:
    if fd is not None:
        return passphrase.from_fd(fd)
    if keyring:
        return passphrase.from_keyring(str(data))
    if not sys.stdin.isatty():
        raise Failure("no terminal to ask for the passphrase at", hint="give it with --passphrase-fd N")
    return passphrase.ask(f"the identity in {data}")
