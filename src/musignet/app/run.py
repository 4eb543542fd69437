"""A node in a process of its own: what `musignet run` runs, from its first line to its exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..crypto.keys import Identity
from ..errors import LocalError
from ..net.folder import DataFolder
from ..net.keystore import load_identity
from ..node.peers import PeerState
from ..text import safe, who
from .api.serve import Api
from .config import Config
from .daemon import Daemon
from .keys import WalletKeys
from .places import API_SOCKET, IDENTITY_FILE

__all__ = ["is_open", "open_identity", "ready_line", "serve"]

logger = logging.getLogger("musignet")


def is_open(path: Path) -> bool:
    """Return whether a key file opens without a passphrase. Raises IoError, SerializationError."""
    with suppress(LocalError):  # it is encrypted, and there is no passphrase
        load_identity(path, None).wipe()
        return True
    return False


def open_identity(folder: Path, passphrase: Callable[[], str]) -> tuple[Identity, bool]:
    """Return the identity of a data folder, and whether its file is not encrypted. It takes a second.

    Raises: AuthenticationError for a wrong passphrase, IoError, SerializationError.
    """
    path = folder / IDENTITY_FILE
    if not path.exists():
        raise LocalError(f"no {path}", hint=f"make it: musignet init --data {folder}")
    if is_open(path):
        return load_identity(path, None), True
    return load_identity(path, passphrase()), False


async def serve(
    folder: DataFolder, config: Config, identity: Identity, keys: WalletKeys, tell: Callable[[str], None]
) -> int:
    """Run until SIGINT or SIGTERM, or until the keyholder is gone. Returns the exit code.

    Raises: what `Daemon` and `Api` raise at their start; everything is closed then.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    daemon = Daemon(folder, config, identity, keys)
    api = Api(daemon)
    try:
        await daemon.start()
        await api.start()
        tell(ready_line(daemon, api))
        code = await _until(stop, daemon)
    finally:
        await daemon.stop()
        await api.stop()
    tell("stopped")
    return code


async def _until(stop: asyncio.Event, daemon: Daemon) -> int:
    """Wait for the signal, or for the death of the keyholder."""
    asked, died = (asyncio.ensure_future(one) for one in (stop.wait(), daemon.keys.gone()))
    done, _ = await asyncio.wait((asked, died), return_when=asyncio.FIRST_COMPLETED)
    for task in (asked, died):
        task.cancel()
    await asyncio.gather(asked, died, return_exceptions=True)
    if asked in done:
        return 0
    logger.error("the keyholder is gone, nothing can be signed: the node stops; start it again")
    return 1


def ready_line(daemon: Daemon, api: Api) -> str:
    """Return what runs now, in one line for a person."""
    network = daemon.network
    where = f"listening on {network.host}:{network.port}" if network.host else "not listening"
    groups = ", ".join(safe(one.name) for one in daemon.groups) or "none"
    waits = [safe(one.info.id) for one in network.peers() if one.state is not PeerState.CONNECTED]
    parts = [
        f"{who(network.id, network.pubkey_hex)} on {daemon.config.network.name.lower()}",
        f"data in {safe(daemon.folder.path, 200)}",
        where,
        f"API on {safe(daemon.folder.path / API_SOCKET, 200)}" + (f" and 127.0.0.1:{api.port}" if api.port else ""),
        f"groups: {groups}",
        f"waits for {', '.join(waits)}" if waits else "nobody to wait for",
    ]
    return "; ".join(parts)
