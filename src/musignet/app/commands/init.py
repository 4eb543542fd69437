"""`musignet init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ...chain import Chain
from ...crypto.keys import Identity
from ...errors import IoError
from ...net.folder import DataFolder
from ...net.keystore import save_identity
from .. import passphrase
from ..config import CONFIG_FILE, Config, template
from .common import Command, Failure, address, data_option, json_option, label, say, show

__all__ = ["init"]

_CHAINS = {chain.name.lower(): chain for chain in Chain}


@click.command(cls=Command, example="musignet init --name alice --listen 0.0.0.0:8737")
@data_option
@json_option
@click.option("--name", type=label, default="", help="How others see this node.")
@click.option("--network", type=click.Choice(list(_CHAINS)), default="mainnet", show_default=True)
@click.option("--listen", type=address, metavar="HOST:PORT", help="Where others reach this node.")
@click.option("--passphrase-fd", type=int, metavar="N", help="Read the new passphrase from file descriptor N.")
@click.option("--insecure-no-passphrase", is_flag=True, help="Do not encrypt the keys. For tests; said at each start.")
def init(
    data: Path,
    as_json: bool,
    name: str,
    network: str,
    listen: tuple[str, int] | None,
    passphrase_fd: int | None,
    insecure_no_passphrase: bool,
) -> None:
    """Make the data folder: configuration, identity, wallet key.

    Nothing that is there already is ever replaced.
    """
    folder = DataFolder.lock(data)
    try:
        for file in (CONFIG_FILE, "identity.key"):
            if (data / file).exists():
                raise Failure(f"{data / file} is there already", hint="musignet run")
        identity = Identity.generate()
        save_identity(
            identity,
            data / "identity.key",
            None if insecure_no_passphrase else _new(passphrase_fd),
            insecure_no_passphrase=insecure_no_passphrase,
        )
        host, port = listen or (Config().listen_host, Config().listen_port)
        _write(
            data / CONFIG_FILE,
            template(Config(label=name, network=_CHAINS[network], listen_host=host, listen_port=port)),
        )
    finally:
        folder.close()
    facts = {"data": str(data), "key": identity.pubkey_hex}
    show(as_json, facts, lambda: _told(data, identity))


def _new(fd: int | None) -> str:
    return passphrase.ask_new("the identity") if fd is None else passphrase.from_fd(fd)


def _write(path: Path, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise IoError(f"{error.strerror}: {path}", hint="check the folder and who owns it") from error


def _told(data: Path, identity: Identity) -> None:
    say(f"made {data}: this node's key is {identity.pubkey_hex}")
    say(f"settings are in {data / CONFIG_FILE}; start it with: musignet run --data {data}")
