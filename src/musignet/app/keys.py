"""What a running node needs of whoever holds the wallet key. The node itself never sees the key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from ..errors import LocalError
from ..net.service import NetworkService
from ..signing.keyholder import Account

__all__ = ["KeysHere", "NoKeys", "WalletKeys"]


class WalletKeys(Protocol):
    """The holder of one wallet key, for every group that it is pinned in."""

    @property
    def insecure(self) -> bool:
        """Whether the key is not encrypted: said at each start."""
        ...

    async def start(self) -> None:
        """Open the wallet key. Raises what the key file raises."""
        ...

    def cosign(self, network: NetworkService, group: bytes) -> None:
        """Make the node a cosigner of a group. Raises LocalError when the group is not pinned there, IoError."""
        ...

    async def gone(self) -> None:
        """Return once the key cannot be used any more, though nobody asked for that."""
        ...

    async def stop(self) -> None:
        """Forget the key."""
        ...


class NoKeys:
    """A node without a wallet key: it has links, and signs nothing."""

    insecure = False

    async def start(self) -> None:
        """Nothing to open."""

    def cosign(self, network: NetworkService, group: bytes) -> None:
        """Raise LocalError."""
        raise LocalError("no wallet key in this data folder", hint="musignet init makes one")

    async def gone(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to forget."""


class KeysHere:
    """Wallet keys in the node's own process: for tests, and for programs that bring their own policy."""

    insecure = True

    def __init__(self, accounts: Mapping[bytes, Account]) -> None:
        self._accounts = dict(accounts)

    async def start(self) -> None:
        """Nothing to open."""

    def cosign(self, network: NetworkService, group: bytes) -> None:
        """Cosign with the account of that group. Raises LocalError."""
        account = self._accounts.get(group)
        if account is None:
            raise LocalError("no wallet key for this group", got=f"group {group.hex()[:16]}")
        network.cosign(account)

    async def gone(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to forget."""
