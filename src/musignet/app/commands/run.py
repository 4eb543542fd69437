"""`musignet run` and `musignet stop`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ...crypto.keys import Identity
from ...net.folder import DataFolder
from .. import background, config, passphrase
from ..keyholder.hardening import closed
from ..logs import set_up
from ..opening import open_identity
from ..places import LOG_FILE
from .common import Command, Exit, Failure, connect, data_option, fd, json_option, meanwhile, run_async, say, show

__all__ = ["run", "stop"]

_STOP_S = 20.0


@click.command(cls=Command, example="musignet run --data ~/.musignet")
@data_option
@click.option("--passphrase-fd", type=fd, metavar="N", help="Read the identity's passphrase from file descriptor N.")
@click.option("--wallet-passphrase-fd", type=fd, metavar="N", help="The keyholder reads the wallet's from there.")
@click.option("--keyring", is_flag=True, help="Take the identity's passphrase from the keyring of the system.")
@click.option("--only-tor", is_flag=True, help="Nothing leaves but to the proxy that [proxy] socks5 names.")
@click.option("--background", "away", is_flag=True, help="Give the terminal back once it runs; it logs to node.log.")
@click.option("--ready-fd", type=int, hidden=True)
def run(
    data: Path,
    passphrase_fd: int | None,
    wallet_passphrase_fd: int | None,
    keyring: bool,
    only_tor: bool,
    away: bool,
    ready_fd: int | None,
) -> None:
    """Run this node until it is told to stop.

    Ctrl-C, SIGTERM, musignet stop or a terminal that closes end it: what is on the wire is finished first. Nothing is
    signed without your approval.
    """
    if away:
        _in_background(data, passphrase_fd, wallet_passphrase_fd, keyring, only_tor)
        return
    closed()
    settings = config.load(data)
    if only_tor:
        settings = replace(settings, only_tor=True)
    if ready_fd is not None and not settings.log_file:
        settings = replace(settings, log_file=str(data / LOG_FILE))
    folder = DataFolder.lock(data)
    log = set_up(settings)
    try:
        identity, insecure = open_identity(data, lambda opens: _opened(opens, data, passphrase_fd, keyring))
        serve, wallet_keys = _node()
        keys = wallet_keys(data, wallet_passphrase_fd)
        for what, exposed in (("identity", insecure), ("wallet", keys.insecure)):
            if exposed:
                click.echo(f"INSECURE: the {what} key is not encrypted (--insecure-no-passphrase)", err=True)
        run_async(serve(folder, settings, identity, keys, _Teller(ready_fd)), logged=True)
    finally:
        folder.close()
        log.close()


class _Teller:
    """Prints what the node says. Its first line is that it runs: then a node in the background leaves the terminal."""

    def __init__(self, ready_fd: int | None) -> None:
        self._ready_fd = ready_fd

    def __call__(self, line: str) -> None:
        try:
            say(line)
        except OSError:  # the terminal is closed
            background.silence()
        if self._ready_fd is not None:
            ready_fd, self._ready_fd = self._ready_fd, None
            background.detach(ready_fd)


def _in_background(
    data: Path, passphrase_fd: int | None, wallet_passphrase_fd: int | None, keyring: bool, only_tor: bool
) -> None:
    fds = {"--passphrase-fd": passphrase_fd, "--wallet-passphrase-fd": wallet_passphrase_fd}
    given = {name: fd for name, fd in fds.items() if fd is not None}
    flags = {"--keyring": keyring, "--only-tor": only_tor}
    arguments = ["run", "--data", str(data), *(name for name, given in flags.items() if given)]
    arguments += [word for name, fd in given.items() for word in (name, str(fd))]
    code = background.start(arguments, tuple(given.values()))
    if code is not None:
        raise SystemExit(code)
    say(f"it runs in the background and logs to {data / LOG_FILE}; musignet stop ends it")


@click.command(cls=Command, example="musignet stop")
@data_option
@json_option
def stop(data: Path, as_json: bool) -> None:
    """Stop the running node.

    It finishes what is on the wire first, and forgets every key.
    """
    pid = connect(data).get("/v1/status")["pid"]
    with suppress(ProcessLookupError):  # it was stopping already
        os.kill(pid, signal.SIGTERM)
    meanwhile(as_json, "it finishes what is on the wire")
    if not background.ended(pid, _STOP_S):
        raise Failure(
            f"the node still runs after {_STOP_S:.0f} s", Exit.TIMEOUT, kind="Timeout", hint="look at its log"
        )
    show(as_json, {"pid": pid}, lambda: say("stopped"))


def _node() -> Any:
    """The server's libraries are an extra: programs that use MuSigNet as a library do without."""
    try:
        from ..run import serve, wallet_keys
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise Failure('a node needs its API: pip install "musignet[node]"') from None
    return serve, wallet_keys


def _opened(opens: Callable[[str], Identity], data: Path, fd: int | None, keyring: bool) -> Identity:
    if fd is not None:
        return opens(passphrase.from_fd(fd))
    if keyring:
        return opens(passphrase.from_keyring(str(data)))
    if not sys.stdin.isatty():
        raise Failure("no terminal to ask for the passphrase at", hint="give it with --passphrase-fd N")
    return passphrase.ask_until(f"the identity in {data}", opens)
