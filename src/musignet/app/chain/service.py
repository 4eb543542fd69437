"""The chain as the running node uses it: one backend, a wallet for each group, and no call that blocks the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

from ...bitcoin.group import Group
from ...chain import Chain
from ...errors import LocalError, NetworkError
from .base import BackendFault, ChainBackend
from .url import check_url, open_backend
from .wallet import GroupWallet
from .way import STRAIGHT, ChainWay

__all__ = ["ChainService", "on_a_thread"]

T = TypeVar("T")


class ChainService:
    """See the module.

    Args:   url   - of the backend, from the configuration; empty for none: then everything works with PSBT files.
            chain - the network of this node.
            way   - whether it is reached through a proxy.
    Raises: LocalError for a URL of no backend, Leak for one that cannot be reached by `way`.
            The backend itself is opened when it is first used.
    """

    def __init__(self, url: str, chain: Chain, way: ChainWay = STRAIGHT) -> None:
        if url:
            way.proxy_for(check_url(url))
        self._url, self._chain, self._way = url, chain, way
        self._backend: ChainBackend | None = None
        self._wallets: dict[bytes, GroupWallet] = {}

    @property
    def backend(self) -> ChainBackend:
        """Raises: LocalError where none is named, or without the extra."""
        if not self._url:
            raise LocalError(
                "this node has no chain backend",
                hint="set backend in [chain] of config.toml, such as esplora+http://127.0.0.1:3002; or use PSBT files",
            )
        if self._backend is None:
            self._backend = open_backend(self._url, self._chain, self._way)
        return self._backend

    def wallet(self, group_id: bytes, group: Group) -> GroupWallet:
        """Return the wallet of a group, the same one each time. Raises: as `backend`."""
        if group_id not in self._wallets:
            self._wallets[group_id] = GroupWallet(group, self.backend)
        return self._wallets[group_id]


async def on_a_thread(call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise its NetworkError.

    Not on asyncio's own pool: the loop waits for that at its end, and a node shall stop while a backend hangs.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not future.done():
            outcome()

    def run() -> None:
        failed = BackendFault("the call to the chain backend failed", hint="the log has the details; please report it")
        outcome: Callable[[], None] = partial(future.set_exception, failed)
        try:
            outcome = partial(future.set_result, call())
        except NetworkError as error:
            outcome = partial(future.set_exception, error)
        finally:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, outcome)

    Thread(target=run, name="chain", daemon=True).start()
    return await future
