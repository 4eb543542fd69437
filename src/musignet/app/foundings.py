"""Foundings in a running node: the machine of `signing.foundings` on top of the links, the keyholder and the events."""

from __future__ import annotations

import time
from functools import partial
from secrets import token_bytes
from typing import Final

from ..bitcoin.bip32 import HARDENED
from ..errors import InvalidMessage, LocalError, NetworkError, PeerError, PeerNotFound
from ..limits import FOUNDING_TTL_S
from ..net.peer import Peer
from ..node.effects import News, PeerUp
from ..signing.founding import Founded, Founding, FoundingEffect, Step, Tell
from ..signing.founding_records import Shape, encode
from ..signing.foundings import KINDS, Foundings
from ..signing.groupfile import GroupFile
from ..text import safe
from ..wire.envelope import Message, VerifiedMessage
from .desk import Desk, House
from .sessions import NotFound

__all__ = ["FoundingDesk"]

_OURS: Final = b""


class FoundingDesk:
    """See the module. It registers itself for the messages and the news of the daemon."""

    def __init__(self, daemon: House) -> None:
        self._daemon = daemon
        self._network = network = daemon.network
        self.machine: Final = Foundings(
            network.identity, daemon.config.network, network.id, label_of=self._label_of, has=self._has
        )
        self._proofs: dict[bytes, bytes] = {}
        self._pinned: set[bytes] = set()
        self.failed: dict[bytes, NetworkError] = {}
        """Foundings that everybody confirmed and that could not be pinned here, and why."""
        self._desk = Desk(self.machine.next_deadline, lambda: self._perform(self.machine.woken(time.time())))
        for kind in KINDS:
            daemon.handler.register(kind, self._heard)
        daemon.listeners.append(self._on_news)

    async def stop(self) -> None:
        """Do nothing more."""
        await self._desk.stop()

    # --- what a person does -------------------------------------------------------------------------------------------

    async def propose(self, name: str, peers: list[str], shape: Shape, ttl_s: float = FOUNDING_TTL_S) -> Founding:
        """Propose a group of this node and these peers, and take part in it.

        Raises: PeerNotFound, InvalidMessage for a name or members that cannot be, LocalError.
        """
        self._check_name(name)
        self._check_free()
        if self._network.id in peers:
            raise LocalError(f"{safe(self._network.id)} is this node itself", hint="name the other members only")
        await self._daemon.keys.account(self._next_account())  # without a wallet key nobody is asked
        keys = [bytes.fromhex(self._network.peer(one).pubkey_hex) for one in peers]
        if any(self._label_of(key) is None for key in keys):
            raise PeerNotFound("a member is not paired yet", hint="confirm the words first")
        founding, effects = self.machine.propose(name, keys, shape, token_bytes(32), time.time(), ttl_s)
        self._perform(effects)
        await self.join(founding.id)
        return founding

    async def join(self, founding: bytes) -> None:
        """Take part: our next account's key goes to the members. Raises LocalError."""
        found = self.machine.get(founding)
        self._check_name(found.proposal.content.name)
        self._check_free(found)
        number = self._next_account()
        key = await self._daemon.keys.account(number)
        possession = await self._daemon.keys.prove(number, found.statement(key))
        self._perform(found.join(key, possession))

    async def confirm(self, founding: bytes, proof: bytes) -> None:
        """A person compared the group with the others'. The proof is for the keyholder, once all have confirmed.

        Raises: LocalError before there is something to confirm; AuthenticationError for a proof that does not hold.
        """
        found = self.machine.get(founding)
        if found.group is None:
            raise LocalError("there is nothing to confirm", got=found.step.value)
        await self._daemon.keys.check(found.group.group.id, proof)
        self._proofs[founding] = proof
        self._perform(found.confirm())

    async def own_key(self) -> str:
        """Return the key, with its origin, that we bring into the next group. Raises LocalError where there is none."""
        return await self._daemon.keys.account(self._next_account())

    def refuse(self, founding: bytes) -> None:
        """A person says no. Raises LocalError."""
        self._perform(self.machine.get(founding).leave())

    async def import_group(self, data: bytes, proof: bytes, *, elsewhere: bool = False) -> GroupFile:
        """Be a member again, on a new device with the seed of the old one; `elsewhere`: our key is in another signer.

        Raises: what `GroupFile.parse_untrusted` raises; InvalidMessage for another network or a group without this
                node's identity; what the keyholder raises: for a wrong proof, or a group without its key.
        """
        group = GroupFile.parse_untrusted(data)
        if group.group.wallet.chain is not self._daemon.config.network:
            raise InvalidMessage(
                "a group on another Bitcoin network", expected=self._daemon.config.network.name.lower(),
                got=group.group.wallet.chain.name.lower(),
            )  # fmt: skip
        if self._network.identity.pubkey not in group.group:
            raise InvalidMessage(
                "this node is not a member of that group", got=f"identity {self._network.pubkey_hex[:10]}",
                hint="restore the device from its own seed: musignet init --restore",
            )  # fmt: skip
        self._check_name(group.name, group.group.id)
        if not elsewhere:
            await self._daemon.keys.pin(data, proof)
        self._daemon.add_group(group, elsewhere=elsewhere)
        return group

    # --- what happens -------------------------------------------------------------------------------------------------

    def _on_news(self, news: News) -> None:
        if isinstance(news, PeerUp) and self._label_of(news.key) is not None:
            self._perform(self.machine.peer_up(news.key))

    def _heard(self, message: Message, peer: Peer) -> None:
        if not isinstance(message, VerifiedMessage):
            return
        try:
            self._perform(self.machine.heard(message, time.time()))
        except PeerError as error:  # nothing of it was used
            self._daemon.events.publish("fault", key=peer.pubkey_hex, label=peer.info.id, error=str(error))
        if any(one.id == message.session for one in self.machine):
            self._tell(message.session)

    def _perform(self, effects: list[FoundingEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                for key in effect.to:
                    self._desk.do(partial(self._say, effect, key), key)
                continue
            if isinstance(effect, Founded):
                self._desk.do(partial(self._pin, effect), _OURS)
            self._tell(effect.founding)
        self._desk.arm()

    def _tell(self, founding: bytes) -> None:
        try:
            found = self.machine.get(founding)
        except LocalError:  # it took too long, and is forgotten
            self._daemon.events.publish("founding", founding=founding.hex(), step=Step.ENDED.value, waiting_for=[])
            return
        waiting = [self._label_of(key) or key.hex() for key in found.waiting_for]
        self._daemon.events.publish("founding", founding=founding.hex(), step=found.step.value, waiting_for=waiting)

    async def _say(self, effect: Tell, key: bytes) -> None:
        payload = encode(effect.kind, effect.record)
        message = Message(effect.kind, self._network.id, payload, session=effect.founding)
        await self._network.send_message_to(key.hex(), message, durable=False)

    async def _pin(self, effect: Founded) -> None:
        """Everybody confirmed. The keyholder first: a group that it does not have is none here."""
        try:
            await self._daemon.keys.pin(effect.group.encode(), self._proofs.pop(effect.founding))
            self._daemon.add_group(effect.group)
        except NetworkError as error:
            self.failed[effect.founding] = error
            raise
        finally:
            self._pinned.add(effect.founding)
            self._tell(effect.founding)

    def pinned(self, founding: bytes) -> bool:
        """Return whether a founding is done here, also on disk."""
        return founding in self._pinned and founding not in self.failed

    # --- inside -------------------------------------------------------------------------------------------------------

    def _label_of(self, key: bytes) -> str | None:
        try:
            peer = self._network.peer(key.hex())
        except LocalError:
            return None
        return None if peer.provisional else peer.info.id

    def _has(self, group: bytes, member: bytes) -> bool:
        try:
            return member in self._daemon.groups.get(group).group
        except NotFound:
            return False

    def _check_name(self, name: str, group: bytes = b"") -> None:
        if any(one.name == name and one.group.id != group for one in self._daemon.groups):
            raise LocalError(f"another group here is called {safe(name)}", hint="choose another name")

    def _check_free(self, but: Founding | None = None) -> None:
        """One at a time: two that are not pinned yet would have the same account of ours."""
        if any(one.has_our_key and not one.over for one in self.machine if one is not but):
            raise LocalError("another group is being founded", hint="finish or refuse that one first")

    def _next_account(self) -> int:
        """Return the first account number beyond those that our groups use: the same each time until one is pinned."""
        own = self._network.identity.pubkey
        used = [-1]
        for one in self._daemon.groups:
            origin = one.group.wallet.descriptor.members[one.group.positions[own]].origin
            if origin is not None and origin.path:
                used.append(origin.path[-1] - HARDENED)
        return max(used) + 1
