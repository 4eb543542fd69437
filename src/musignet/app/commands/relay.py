"""`musignet relay`: a relay of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from .common import Command, Failure, address, run_async, say

__all__ = ["relay"]


@click.command(cls=Command, example="musignet relay --listen 0.0.0.0:7447 --data ~/.musignet-relay")
@click.option(
    "--listen", type=address, metavar="HOST:PORT", default="127.0.0.1:7447", show_default=True,
    help="Where it listens; HOST is an IP address. Port 0 picks a free one.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=Path("~/.musignet-relay"), show_default=True,
    help="Where it keeps what waits for its readers.",
)  # fmt: skip
def relay(listen: tuple[str, int], data: Path) -> None:
    """Keep a relay, where cosigners reach each other and leave messages for who is away.

    It passes on gift wraps and nothing else, shows an inbox to its owner only, and stores what says when it expires. It
    runs until Ctrl-C or SIGTERM. Put a web server with TLS in front of it, and name it in [relays] of config.toml as
    wss://HOST. Needs the extra named relay.
    """
    try:
        from ..relay import serve
    except ModuleNotFoundError as error:
        if error.name != "nostr_sdk":
            raise
        raise Failure('a relay needs a library: pip install "musignet[relay]"') from None
    run_async(serve(data.expanduser(), *listen, say), logged=True)
