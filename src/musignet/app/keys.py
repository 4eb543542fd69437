"""What a running node needs of whoever holds the wallet key. The node itself never sees the key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from ..errors import LocalError
from ..net.service import NetworkService
from ..signing.group import SigningGroup
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

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Make the node a cosigner of a group. Raises LocalError when the group is not pinned there, IoError."""
        ...

    async def account(self, number: int) -> str:
        """Return the public key of an account, with its origin. Raises LocalError."""
        ...

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Return the proof that this account's key is held here (`prove_possession`). Raises LocalError."""
        ...

    async def check(self, group: bytes, proof: bytes) -> None:
        """Raise AuthenticationError unless `proof` shows that a person wants this group."""
        ...

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Cosign in the group of a group file from now on; returns when that is on disk. Twice is harmless.

        Raises: AuthenticationError for a proof that does not hold, LocalError without a key of ours in it, IoError.
        """
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

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Raise LocalError."""
        raise _none()

    async def account(self, number: int) -> str:
        """Raise LocalError."""
        raise _none()

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Raise LocalError."""
        raise _none()

    async def check(self, group: bytes, proof: bytes) -> None:
        """Raise LocalError."""
        raise _none()

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Raise LocalError."""
        raise _none()

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

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Cosign with the account of that group. Raises LocalError."""
        account = self._accounts.get(group.id)
        if account is None:
            raise LocalError("no wallet key for this group", got=f"group {group.id.hex()[:16]}")
        network.cosign(account)

    async def account(self, number: int) -> str:
        """Raise LocalError: these accounts have no master key."""
        raise _none()

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Raise LocalError."""
        raise _none()

    async def check(self, group: bytes, proof: bytes) -> None:
        """Raise LocalError."""
        raise _none()

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Raise LocalError."""
        raise _none()

    async def gone(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Nothing to forget."""


def _none() -> LocalError:
    return LocalError("no wallet key in this data folder", hint="musignet init makes one")
