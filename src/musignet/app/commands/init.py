"""`musignet init`."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from ...bitcoin.walletkey import WalletKey, new_words
from ...chain import Chain
from ...net.folder import DataFolder
from .. import passphrase
from ..chain.url import check_url
from ..config import Config
from ..making import Passphrases, check_empty, make
from ..places import CONFIG_FILE
from .common import Command, Failure, address, data_option, fd, json_option, label, say, show

__all__ = ["init"]

_CHAINS = {chain.name.lower(): chain for chain in Chain}
_WORDS_BYTES = 32
_CHECKED = 2
_TRIES = 3


@click.command(cls=Command, example="musignet init --name alice --listen 0.0.0.0:8737")
@data_option
@json_option
@click.option("--name", type=label, help="How others see this node.")
@click.option("--network", type=click.Choice(list(_CHAINS)), default="mainnet", show_default=True)
@click.option("--listen", type=address, metavar="HOST:PORT", help="Where others reach this node.")
@click.option("--chain", "backend", default="", metavar="URL", help="Where its coins are looked up; docs/chain.md.")
@click.option("--restore", is_flag=True, help="Take the wallet from the words of an earlier one.")
@click.option("--xprv", is_flag=True, help="Take the wallet from a master key that begins xprv or tprv.")
@click.option("--no-wallet", is_flag=True, help="No wallet key: a node that signs nothing.")
@click.option("--secret-fd", type=fd, metavar="N", help="Read the words or the xprv from file descriptor N.")
@click.option("--passphrase-fd", type=fd, metavar="N", help="Read the identity's new passphrase from there.")
@click.option("--wallet-passphrase-fd", type=fd, metavar="N", help="Read the wallet's new passphrase from there.")
@click.option("--keyring", is_flag=True, help="Put the identity's passphrase into the keyring of the system, too.")
@click.option("--insecure-no-passphrase", is_flag=True, help="Do not encrypt the keys. For tests; said at each start.")
def init(
    data: Path,
    as_json: bool,
    name: str | None,
    network: str,
    listen: tuple[str, int] | None,
    backend: str,
    restore: bool,
    xprv: bool,
    no_wallet: bool,
    secret_fd: int | None,
    passphrase_fd: int | None,
    wallet_passphrase_fd: int | None,
    keyring: bool,
    insecure_no_passphrase: bool,
) -> None:
    """Make the data folder: configuration, identity, wallet key.

    A new wallet's words are shown once; write them down, for they alone restore it. Nothing that is there already is
    ever replaced. The two passphrases must differ: the identity's starts the node, the wallet's also approves.
    """
    if restore + xprv + no_wallet > 1:
        raise click.UsageError("--restore, --xprv and --no-wallet exclude each other")
    host, port = listen or (Config().listen_host, Config().listen_port)
    config = Config(
        label=name or "", network=_CHAINS[network], listen_host=host, listen_port=port, chain_backend=backend
    )
    if backend:
        check_url(backend)
    folder = DataFolder.lock(data)
    try:
        check_empty(folder)
        wallet = None if no_wallet else _wallet(restore, xprv, secret_fd, as_json, insecure_no_passphrase)
        phrases = Passphrases(None, None)
        if not insecure_no_passphrase:
            first = _new("the identity", passphrase_fd)
            phrases = Passphrases(first, None if no_wallet else _new("the wallet", wallet_passphrase_fd, first))
        if phrases.identity is not None:
            click.echo("encrypting, so that each guess at a passphrase takes a second: a few seconds", err=True)
        identity = make(folder, config, wallet, phrases)
        if keyring and phrases.identity is not None:
            passphrase.to_keyring(str(data), phrases.identity)
    except click.Abort as prompt:
        prompt.args = ("nothing was made; if words were shown, they are no wallet",)
        raise
    finally:
        folder.close()
    facts = {"data": str(data), "key": identity.pubkey_hex, "wallet": wallet is not None}
    show(as_json, facts, lambda: _told(data, network, identity.pubkey_hex))


def _new(what: str, fd: int | None, other: str = "") -> str:
    """Return a new passphrase; one that is typed is another one than `other`."""
    if fd is not None:
        return passphrase.from_fd(fd)
    while (typed := passphrase.ask_new(what)) == other and other:
        click.echo(f"that is the passphrase of the identity; choose another one for {what}", err=True)
    return typed


def _wallet(restore: bool, xprv: bool, fd: int | None, as_json: bool, insecure: bool) -> WalletKey:
    if restore or xprv:
        what = "The words of the wallet" if restore else "The master key (xprv or tprv)"
        given = passphrase.from_fd(fd) if fd is not None else click.prompt(what, hide_input=True, err=True)
        return WalletKey.from_words(given) if restore else WalletKey.from_xprv(given)
    if as_json:
        raise Failure(
            "a new wallet's words are for a person's eyes", hint="with --json: --restore, --xprv, --no-wallet"
        )
    words = new_words(secrets.token_bytes(_WORDS_BYTES))
    _show_words(words.split(), check=not insecure)
    return WalletKey.from_words(words)


def _show_words(words: list[str], *, check: bool) -> None:
    """Show the words, then see that two of them were written down. Raises Failure when they were not."""
    say("These words are the wallet. Write them down, in this order; they are shown this once:")
    say()
    for at in range(0, len(words), 4):
        say("  ".join(f"{at + n + 1:2}. {word:10}" for n, word in enumerate(words[at : at + 4])))
    say()
    if not check:
        return
    click.prompt("Enter once they are written down", default="", show_default=False, prompt_suffix=" ", err=True)
    click.clear()
    for at in sorted(secrets.SystemRandom().sample(range(len(words)), _CHECKED)):
        _check_word(at + 1, words[at])


def _check_word(number: int, word: str) -> None:
    for left in reversed(range(_TRIES)):
        if click.prompt(f"Word {number}", err=True).strip().lower() == word:
            return
        if left:
            click.echo(f"that is another word; look at number {number} on your paper", err=True)
    raise Failure("that is another word; nothing was made", hint="run musignet init again, for new words")


def _told(data: Path, network: str, key: str) -> None:
    coins = ", with real coins: this version is not reviewed yet" if _CHAINS[network] is Chain.MAINNET else ""
    say(f"made {data} for {network}{coins}; this node's key is {key}")
    say(f"settings are in {data / CONFIG_FILE}; start it with: musignet run --data {data}")
