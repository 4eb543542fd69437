"""The part of `NetworkService` by which a program signs together with others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from ..bitcoin.group import Known
from ..crypto.keys import Identity
from ..errors import LocalError, TransportError
from ..limits import SESSION_MAX_S, Limits
from ..node.inputs import CancelSession, ConsentToSession, HandsMoved, Input, Propose
from ..signing.approvals import Place
from ..signing.bridge import Wants
from ..signing.coordinator import Sessions
from ..signing.group import SigningGroup
from ..signing.keyholder import Account
from ..signing.records import Topology
from ..signing.verbs import Reply
from .bridge import BridgeHolder
from .cosigner import Holder, HolderHere
from .driver import Driver
from .folder import DataFolder

__all__ = ["Cosigning"]


class Cosigning:
    """What `NetworkService` can do once it runs with a data folder."""

    _driver: Driver | None
    _folder: DataFolder | None
    _limits: Limits

    @property
    def identity(self) -> Identity:
        """Who this node is."""
        raise NotImplementedError

    def cosign(self, account: Account, sessions: type[Sessions] = Sessions) -> None:
        """Be a cosigner of the account's group from now on, and go on with the sessions its journals have.

        How they go is told to `on_event` as `SessionNews`. The other members must be in the book. `sessions` is for
        the demo's liars.

        Raises: LocalError without `data_dir` (what was signed must survive a crash), or twice for one group; IoError
                when a journal is damaged or cannot be had: then nothing is signed.
        """
        made = sessions(account.group, account.identity, known=account.known, bounds=self._limits)
        folder = self._data_folder
        self._running.cosign(made, folder, lambda answer: HolderHere(account, folder, answer))

    def cosign_with(
        self, group: SigningGroup, holder: Callable[[Callable[[Reply], None]], Holder], known: Known | None = None
    ) -> None:
        """The same with a keyholder elsewhere: `HolderProcess.of(group)` where it is a process of its own.

        Args:   holder - makes who signs for the group, given where the answers are to go.
                known  - what our own wallet knows, the same as at the keyholder.
        Raises: as `cosign`; AuthenticationError when this node is no member.
        """
        group.require(self.identity.pubkey)
        made = Sessions(group, self.identity.pubkey, known=known or Known(), bounds=self._limits)
        self._running.cosign(made, self._data_folder, holder)

    def cosign_by_hand(self, group: SigningGroup, known: Known | None = None) -> None:
        """The same with the key in another signer of BIP-373: Bitcoin Core, a hardware wallet.

        Each round goes there as a PSBT (`export_psbt`) and comes back (`import_psbt`). The first that comes back is
        the approval. The group signs in a mesh.

        Raises: as `cosign_with`.
        """
        group.require(self.identity.pubkey)
        folder, known = self._data_folder, known or Known()
        place = Place(group=group, identity=self.identity.pubkey, known=known, nonce_ttl_s=SESSION_MAX_S)
        made = Sessions(group, self.identity.pubkey, known=known, bounds=self._limits, by_hand=True)
        self._running.cosign(made, folder, lambda answer: BridgeHolder(place, folder, answer))

    def signer_wants(self, session: bytes) -> Wants | None:
        """Return what a session waits for from the signer of `cosign_by_hand`; None in groups with a keyholder."""
        for group, holder in self._bridges():
            if session in self._running.cosigner(group).sessions:
                return holder.wants(session)
        return None

    def export_psbt(self, session: bytes) -> bytes:
        """Return the PSBT of a session for the signer of `cosign_by_hand`.

        Raises: LocalError for a session that is not open in such a group.
        """
        return self._bridge(session)[1].export(session)

    def import_psbt(self, session: bytes, data: bytes, *, replaces: frozenset[bytes] = frozenset()) -> Wants:
        """Take the PSBT back, and go on with what it brings. Returns what that was.

        `replaces` are ids of earlier sessions whose coins are given up with the first nonces (`Asked.replaces`).

        Raises: LocalError when nothing is wanted now, or the coins are another session's; MergeConflict, RuleBroken or
                InvalidMessage where anything but our own nonces or partial signatures was changed, or they are no good;
                IoError. Nothing is changed then.
        """
        group, holder = self._bridge(session)
        brought = holder.import_untrusted(session, data, replaces)
        self._running.feed(HandsMoved(group))
        return brought

    async def propose(
        self,
        group: bytes,
        psbt: bytes,
        *,
        expires_in_s: float = 3600.0,
        memo: str = "",
        topology: Topology = Topology.MESH,
    ) -> bytes:
        """Ask a group to sign a PSBT. Returns the id of the session, 32 bytes; the rest is told to `on_event`.

        `topology`: a mesh is the quickest, a star costs each signer the same in a group of any size.

        Raises: LocalError when this node is not in the group, SerializationError when the PSBT is too large.
        """
        expires_at = self._running.now() + expires_in_s
        session: bytes = await self._do(Propose, group, psbt, expires_at, memo, topology)
        return session

    async def consent(self, session: bytes, proof: bytes, *, replaces: frozenset[bytes] = frozenset()) -> None:
        """Tell the keyholder that a person approved a session. Raises InvalidMessage when there is none such.

        `replaces` are ids of earlier sessions for the same coins that are given up for this one, those of
        `Asked.replaces` at least; the person's proof is then over all of them (`signing.records.consent_digest`).
        """
        await self._do(ConsentToSession, session, proof, replaces)

    async def cancel_session(self, session: bytes, reason: str = "cancelled") -> None:
        """Leave a session; the others are told the reason. What has been signed stays signed.

        Raises: InvalidMessage when there is none such.
        """
        await self._do(CancelSession, session, reason)

    def sessions(self, group: bytes) -> Sessions:
        """Return the sessions of a group that are in memory: read them, and nothing more. Raises LocalError."""
        return self._running.cosigner(group).sessions

    def session_records(self, group: bytes) -> tuple[bytes, ...]:
        """Return what the node's journal had of a group when this node began to cosign. Raises LocalError."""
        return self._running.cosigner(group).records

    # --- inside ---------------------------------------------------------------------------------------------------

    def _bridges(self) -> Iterator[tuple[bytes, BridgeHolder]]:
        for one in self._running.cosigners():
            if isinstance(one.holder, BridgeHolder):
                yield one.sessions.group.id, one.holder

    def _bridge(self, session: bytes) -> tuple[bytes, BridgeHolder]:
        for group, holder in self._bridges():
            if session in self._running.cosigner(group).sessions:
                return group, holder
        raise LocalError(
            "no open session of a signer elsewhere", got=session.hex()[:16], hint="musignet sessions lists them"
        )

    @property
    def _data_folder(self) -> DataFolder:
        if self._folder is None:
            raise LocalError("a cosigner needs a data folder", hint="NetworkService(data_dir=...)")
        return self._folder

    @property
    def _running(self) -> Driver:
        if self._driver is None:
            raise TransportError("this service is not running", hint="await start() first")
        return self._driver

    async def _do(self, command: Callable[..., Input], *args: Any) -> Any:
        answer = self._running.submit(command, *args)
        return await answer if isinstance(answer, asyncio.Future) else answer
