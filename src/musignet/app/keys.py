"""What a running node needs of whoever holds the wallet key. The node itself never sees the key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..chain import Chain
from ..errors import AuthenticationError, LocalError, NetworkError
from ..net.approver import load_approver
from ..net.holder import HolderProcess
from ..net.service import NetworkService
from ..signing.group import SigningGroup
from ..signing.groupfile import GroupFile
from ..signing.keyholder import Account

__all__ = ["KeysHere", "NoKeys", "WalletKeys", "WalletProcess"]

_NONE = "no wallet key in this data folder"
_ANOTHER = "musignet init makes a node with one, in another data folder"


class WalletKeys(Protocol):
    """The holder of one wallet key, for every group that it is pinned in."""

    @property
    def insecure(self) -> bool:
        """Whether the key is not encrypted: said at each start."""
        ...

    async def start(self, identity: bytes, chain: Chain) -> None:
        """Open the wallet key. Raises what the key file raises, and AuthenticationError when it is the identity."""
        ...

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Make the node a cosigner of a group. Raises LocalError when the group is not pinned there, IoError."""
        ...

    async def account(self, number: int) -> str:
        """Return the public key of an account, with its origin. Raises LocalError."""
        ...

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Return the proof that this account's key is held (`founding_records.prove_possession`). Raises LocalError."""
        ...

    async def check(self, group: bytes, proof: bytes) -> None:
        """Raise AuthenticationError unless `proof` shows that a person wants this group."""
        ...

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Cosign in the group of a group file from now on; returns when that is on disk. Twice is harmless.

        Raises: AuthenticationError for a proof that does not hold, LocalError without a key of ours in it, IoError.
        """
        ...

    async def settled(self) -> None:
        """Return once everything that was asked before is answered."""
        ...

    async def gone(self) -> NetworkError:
        """Return once the key cannot be used any more, though nobody asked for that: why."""
        ...

    async def stop(self) -> None:
        """Forget the key. Twice is harmless."""
        ...


class WalletProcess:
    """The keyholder in a process of its own: what `musignet run` uses.

    Args:
        folder:        the keyholder's own data folder.
        approver:      the file of its approver.
        passphrase_fd: where the keyholder reads its passphrase; at the terminal by default.
        encrypted:     whether its files have a passphrase.
    """

    def __init__(self, folder: Path, approver: Path, passphrase_fd: int | None, *, encrypted: bool) -> None:
        self._approver = approver
        self._holder = HolderProcess(folder, passphrase_fd=passphrase_fd, insecure_no_passphrase=not encrypted)
        self._pinned: set[bytes] = set()
        self.insecure = not encrypted

    async def start(self, identity: bytes, chain: Chain) -> None:
        """Start the process, and wait until it has its key: a person may have to type."""
        await self._holder.start(identity, chain)
        self._pinned = set(self._holder.ready.groups)

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Cosign with the keyholder. Raises LocalError when nobody pinned the group there."""
        if group.id not in self._pinned:
            hint = "import the group file again, with the passphrase of the wallet"
            raise LocalError("the keyholder does not know this group", got=f"group {group.id.hex()[:16]}", hint=hint)
        network.cosign_with(group, self._holder.of(group))

    async def account(self, number: int) -> str:
        """Ask the keyholder."""
        return await self._holder.account(number)

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Ask the keyholder."""
        return await self._holder.prove(number, statement)

    async def check(self, group: bytes, proof: bytes) -> None:
        """Check it with the approver's public half, before anybody else is told. The keyholder checks again."""
        if not load_approver(self._approver).approver().pinned(group, proof):
            raise AuthenticationError("the proof does not show that a person wants this group")

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Have the keyholder pin it."""
        group = GroupFile.parse_untrusted(data)
        await self._holder.pin_group(data, proof)
        self._pinned.add(group.group.id)

    async def settled(self) -> None:
        """It answers one thing after the other."""
        await self._holder.account(0)

    async def gone(self) -> NetworkError:
        """Wait for the process to end by itself."""
        return await self._holder.gone()

    async def stop(self) -> None:
        """Have it forget its secrets and end."""
        await self._holder.stop()


class NoKeys:
    """A node without a wallet key: it has links, and signs nothing."""

    insecure = False

    async def start(self, identity: bytes, chain: Chain) -> None:
        """Nothing to open."""

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Raise LocalError."""
        raise LocalError(_NONE, got=f"group {group.id.hex()[:16]}", hint=_ANOTHER)

    async def account(self, number: int) -> str:
        """Raise LocalError."""
        raise LocalError(_NONE, hint=_ANOTHER)

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Raise LocalError."""
        raise LocalError(_NONE, hint=_ANOTHER)

    async def check(self, group: bytes, proof: bytes) -> None:
        """Raise LocalError."""
        raise LocalError(_NONE, hint=_ANOTHER)

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Raise LocalError."""
        raise LocalError(_NONE, hint=_ANOTHER)

    async def settled(self) -> None:
        """Nothing is asked, or it is answered at once."""

    async def gone(self) -> NetworkError:
        """Never."""
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        """Nothing to forget."""


class KeysHere(NoKeys):
    """Wallet keys in the node's own process: for tests, and for programs that bring their own policy."""

    insecure = True

    def __init__(self, accounts: Mapping[bytes, Account]) -> None:
        self._accounts = dict(accounts)

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Cosign with the account of that group. Raises LocalError."""
        account = self._accounts.get(group.id)
        if account is None:
            super().cosign(network, group)
        else:
            network.cosign(account)
