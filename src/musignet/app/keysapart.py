"""The wallet key in a process of its own: `WalletKeys` over the keyholder that this node starts."""

from __future__ import annotations

import logging
from pathlib import Path

from ..chain import Chain
from ..errors import AuthenticationError, LocalError
from ..net.approver import load_approver
from ..net.holder import HolderProcess
from ..net.service import NetworkService
from ..signing.group import SigningGroup
from ..signing.groupfile import GroupFile
from .places import APPROVER_FILE, KEYHOLDER_FOLDER

__all__ = ["KeysApart"]

logger = logging.getLogger("musignet")


class KeysApart:
    """See the module.

    Args:
        data:          the node's data folder.
        identity:      the node's identity key, 33 bytes, which the wallet key must not be.
        passphrase_fd: where the keyholder reads the wallet's passphrase; it asks at the terminal otherwise.
        insecure:      the wallet key is not encrypted.
    """

    def __init__(
        self, data: Path, identity: bytes, chain: Chain, *, passphrase_fd: int | None = None, insecure: bool = False
    ) -> None:
        self.insecure = insecure
        self._identity, self._chain = identity, chain
        self._approver = load_approver(data / APPROVER_FILE).approver()
        self._process = HolderProcess(
            data / KEYHOLDER_FOLDER, passphrase_fd=passphrase_fd, insecure_no_passphrase=insecure
        )
        self._pinned: set[bytes] = set()

    async def start(self) -> None:
        """Start the keyholder, and wait until it has its keys. Raises what it says."""
        await self._process.start(self._identity, self._chain)
        self._pinned.update(self._process.ready.groups)

    def cosign(self, network: NetworkService, group: SigningGroup) -> None:
        """Make the node a cosigner. Raises LocalError when the group is not pinned at the keyholder, IoError."""
        if group.id not in self._pinned:
            hint = "confirm it again: musignet group import"
            raise LocalError("this group is not pinned at the keyholder", got=f"group {group.id.hex()[:16]}", hint=hint)
        network.cosign_with(group, self._process.of(group))

    async def account(self, number: int) -> str:
        """Return the public key of an account, with its origin. Raises LocalError, IoError."""
        return await self._process.account(number)

    async def prove(self, number: int, statement: bytes) -> bytes:
        """Return the proof that this account's key is held there. Raises LocalError, IoError."""
        return await self._process.prove(number, statement)

    async def check(self, group: bytes, proof: bytes) -> None:
        """Raise AuthenticationError unless `proof` shows that a person wants this group: as the keyholder will."""
        if not self._approver.pinned(group, proof):
            hint = "it takes the wallet's passphrase"
            raise AuthenticationError("no proof that a person wants this group", hint=hint)

    async def pin(self, data: bytes, proof: bytes) -> None:
        """Have the keyholder cosign in a group from now on. Raises AuthenticationError, LocalError, IoError."""
        await self._process.pin_group(data, proof)
        self._pinned.add(GroupFile.parse_untrusted(data).group.id)

    async def gone(self) -> None:
        """Return once the keyholder has ended though nobody asked for that."""
        error = await self._process.gone()
        logger.error("%s", error)

    async def stop(self) -> None:
        """End the keyholder."""
        await self._process.stop()
