"""All signers of one ceremony in this process: sessions and keyholders as they are, and bytes between them.

Each message is signed by its sender and goes through a gate at each receiver, as on a link. Journals are lists.
"""

from __future__ import annotations

import gc
from collections import deque
from secrets import token_bytes
from time import process_time
from typing import Any, NamedTuple

from musignet.bitcoin import bip32
from musignet.bitcoin.group import Known
from musignet.bitcoin.review import Review
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Outcome, Publish, Save, Saved, SendToGroup
from musignet.signing.group import SigningGroup
from musignet.signing.keyholder import Account, Keyholder
from musignet.signing.policy import Answer, Yes
from musignet.signing.records import Topology, TransactionProposal, encode, session_id
from musignet.signing.verbs import Store, Stored
from musignet.wire.envelope import Gate, Message, VerifiedMessage
from musignet.wire.messages import MessageType

from ..sides import BenchError
from .wallet import Spend, identity, signing_group, signing_key

__all__ = ["Times", "World", "account", "yes"]

_NOW = 1_800_000_000.0
_ROUNDS = (MessageType.PUBLIC_NONCE, MessageType.AGGREGATE_NONCE, MessageType.PARTIAL_SIGNATURE)


def yes(_: Review) -> Answer:
    """The policy of everybody who is not asked."""
    return Yes()


def account(number: int, group: SigningGroup, known: Known | None = None) -> Account:
    """Return a signer's account."""
    return Account(
        group=group, identity=identity(number).pubkey, key=signing_key(number), known=known or Known(), policy=yes
    )


class Times(NamedTuple):
    """Seconds for everybody together, and the bytes of envelopes, each counted once."""

    review: float
    """From the proposal until everybody has everybody's approval."""
    rounds: float
    """From there until everybody has the final transaction and nothing is left to hear."""
    round_bytes: int
    """Of both rounds."""
    all_bytes: int
    """Of everything from the first nonce on: completions, too."""

    @property
    def whole(self) -> float:
        return self.review + self.rounds


class _Member:
    """One signer: the node's sessions, the keyholder, and a gate for each other signer."""

    def __init__(self, world: World, number: int, group: SigningGroup, spend: Spend) -> None:
        self._world, self.number = world, number
        self.group, self.identity = group, identity(number)
        self.keyholder = Keyholder(account(number, group, spend.known), token_bytes)
        self.sessions = Sessions(group, self.identity.pubkey, known=spend.known)
        self.gates: dict[int, Gate] = {}
        self.outcome: Outcome | None = None
        self._sequence = 0

    def gate(self, sender: int) -> Gate:
        found = self.gates.get(sender)
        if found is None:
            key, own, chain = identity(sender).public, self.identity.pubkey, self.group.wallet.chain
            found = self.gates[sender] = Gate(key, own, chain, groups={self.group.id})
        return found

    def say(self, kind: MessageType, session: bytes, payload: bytes) -> bytes:
        self._sequence += 1
        message = Message(kind, str(self.number), payload, session=session)
        signed = message.sign(
            self.identity, to=self.group.id, seq=self._sequence, sent_at_ms=int(_NOW * 1000),
            epoch=self.keyholder.epoch, chain=self.group.wallet.chain,
        )  # fmt: skip
        return signed.to_bytes()

    def take(self, event: Any) -> None:
        self._perform(self.sessions.handle(event, _NOW))

    def _perform(self, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, SendToGroup):
                raw = self.say(effect.kind, effect.session, effect.payload)
                self._world.send(self, effect.kind, raw, effect.to)
            elif isinstance(effect, Save):
                self.take(Saved(effect.session, effect.number))
            elif isinstance(effect, Publish):
                if isinstance(effect.news, Outcome):
                    self.outcome = effect.news
            else:
                self._ask(effect)

    def _ask(self, verb: Any) -> None:
        for effect in self.keyholder.handle(verb, _NOW):
            if isinstance(effect, Store):
                self._ask(Stored(effect.number))
            else:
                self.take(effect)


def _forget_derivations() -> None:
    bip32._child.cache_clear()


class World:
    """One ceremony. Use it once: nothing in it is warm before `run`. In star everybody has one group object."""

    def __init__(self, signers: int, made: Spend, *, star: bool = False) -> None:
        self._spend = made
        shared = signing_group(signers) if star else None
        self.members = [_Member(self, number, shared or signing_group(signers), made) for number in range(signers)]
        self._by_key = {member.identity.pubkey: member for member in self.members}
        self._links: deque[tuple[_Member, int, bytes]] = deque()
        self._held: list[tuple[_Member, VerifiedMessage]] = []
        self._holding, self._topology = True, Topology.STAR if star else Topology.MESH
        self._bytes = {"rounds": 0, "all": 0}

    def run(self) -> Times:
        """Run it. Raises BenchError when somebody does not end with the transaction."""
        if self._topology is Topology.MESH:
            return self._run()
        gc.collect()
        gc.freeze()  # what was made beforehand for a thousand nodes is not searched again and again while they run
        try:
            return self._run()
        finally:
            gc.unfreeze()

    def _run(self) -> Times:
        proposer = self.members[0]
        group = proposer.group.id
        record = TransactionProposal(
            group, token_bytes(32), int((_NOW + 3600) * 1000), self._spend.psbt, "", self._topology
        )
        session = session_id(proposer.identity.pubkey, record)
        proposal = proposer.say(MessageType.TRANSACTION_PROPOSAL, session, encode(record))
        _forget_derivations()
        begun = process_time()
        proposer.take(Message.from_bytes(proposal).verify())
        self._carry()
        approved = process_time()
        self._holding = False
        for member, message in self._held:
            member.take(message)
        self._carry()
        done = process_time()
        ends = {member.outcome.end if member.outcome else None for member in self.members}
        if ends != {End.COMPLETED}:
            raise BenchError(f"the ceremony did not complete: {ends}")
        return Times(approved - begun, done - approved, self._bytes["rounds"], self._bytes["all"])

    def send(self, sender: _Member, kind: MessageType, raw: bytes, to: bytes | None) -> None:
        """Put a message on its way to every other signer, or to one of them."""
        if kind in _ROUNDS:
            self._bytes["rounds"] += len(raw)
        if not self._holding:
            self._bytes["all"] += len(raw)
        receivers = self.members if to is None else (self._by_key[to],)
        self._links.extend((member, sender.number, raw) for member in receivers if member is not sender)

    def _carry(self) -> None:
        """Deliver until nothing is on its way. Approvals are opened at once, and given to the node by `run`."""
        while self._links:
            member, sender, raw = self._links.popleft()
            message = member.gate(sender).open_untrusted(raw)
            if message.type == MessageType.TRANSACTION_PROPOSAL and self._topology is Topology.MESH:
                _forget_derivations()  # in a process of its own, nobody else derived anything for this signer
            if self._holding and message.type == MessageType.APPROVAL:
                self._held.append((member, message))
            else:
                member.take(message)
