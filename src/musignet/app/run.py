"""A node in a process of its own: what `musignet run` runs, from its first line to its exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from ..crypto.keys import Identity
from ..net.folder import DataFolder
from ..node.peers import PeerState
from ..text import safe, who
from .api.serve import Api
from .config import Config
from .daemon import Daemon
from .ending import ends
from .keys import NoKeys, WalletKeys, WalletProcess
from .opening import encrypted
from .places import API_SOCKET, APPROVER_FILE, KEYHOLDER_FOLDER, WALLET_FILE

__all__ = ["ready_line", "serve", "wallet_keys"]

logger = logging.getLogger("musignet")


async def serve(
    folder: DataFolder, config: Config, identity: Identity, keys: WalletKeys, tell: Callable[[str], None]
) -> int:
    """Run until it is told to end (`ending`), or until the keyholder is gone. Returns the exit code: that of a signal
    which came before everything ran, and then nothing is told.

    Raises: what `Daemon` and `Api` raise at their start; everything is closed then.
    """
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, *ends()):
        asyncio.get_running_loop().add_signal_handler(number, _end, stop, number)
    daemon = Daemon(folder, config, identity, keys)
    api = Api(daemon)
    try:
        if not await _started(stop, daemon, api):
            return 128 + stop.result()
        tell(ready_line(daemon, api))
        code = await _until(stop, daemon)
    finally:
        await daemon.stop()
        await api.stop()
    tell("stopped")
    return code


def _end(stop: asyncio.Future[int], number: int) -> None:
    if not stop.done():
        stop.set_result(number)


def wallet_keys(data: Path, passphrase_fd: int | None) -> WalletKeys:
    """Return who holds the wallet key of a data folder: the keyholder's process, or nobody."""
    path = data / WALLET_FILE
    if not path.exists():
        return NoKeys()
    return WalletProcess(data / KEYHOLDER_FOLDER, data / APPROVER_FILE, passphrase_fd, encrypted=encrypted(path))


async def _started(stop: asyncio.Future[int], daemon: Daemon, api: Api) -> bool:
    """Start, unless the signal comes first: somebody may be asked for a passphrase that they do not have."""

    async def start() -> None:
        await daemon.start()
        await api.start()

    starting = asyncio.ensure_future(start())
    await asyncio.wait((stop, starting), return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        starting.result()
        return True
    starting.cancel()  # and a keyholder that the same Ctrl-C has ended is no fault
    await asyncio.gather(starting, return_exceptions=True)
    return False


async def _until(stop: asyncio.Future[int], daemon: Daemon) -> int:
    """Wait for the signal, or for the death of the keyholder."""
    died = asyncio.ensure_future(daemon.keys.gone())
    await asyncio.wait((stop, died), return_when=asyncio.FIRST_COMPLETED)
    died.cancel()
    await asyncio.gather(died, return_exceptions=True)
    if stop.done():
        return 0
    logger.error("nothing can be signed, the node stops: %s", died.result())
    return 1


def _through(config: Config) -> list[str]:
    reach = "nothing leaves but to" if config.only_tor else "dials everybody through"
    return [f"{reach} the proxy at {config.proxy_socks5}"] if config.proxy_everything else []


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
        *_through(daemon.config),
        *(f"onion service {one}" for one in daemon.onions),
        f"API on {safe(daemon.folder.path / API_SOCKET, 200)}" + (f" and 127.0.0.1:{api.port}" if api.port else ""),
        f"groups: {groups}",
        f"waits for {', '.join(waits)}" if waits else "nobody to wait for",
    ]
    return "; ".join(parts)
