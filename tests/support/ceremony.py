"""Cosigners with an identity and a wallet key each, and the signed messages they would send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256

from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import RECEIVE, Group
from musignet.bitcoin.review import Review
from musignet.chain import Chain
from musignet.crypto.keys import Identity, SigningKey
from musignet.signing.group import Member, SigningGroup
from musignet.signing.keyholder import Account, Keyholder
from musignet.signing.policy import Answer, Yes
from musignet.signing.records import Topology, TransactionProposal, encode, session_id
from musignet.signing.verbs import KeyholderEffect, KeyholderInput, Store, Stored
from musignet.wire.codec import Record
from musignet.wire.envelope import Message, VerifiedMessage
from musignet.wire.messages import MessageType

from .keys import secret
from .wallet import MEMBERS, descriptor_text, psbt, spend, xpub

__all__ = ["NOW", "account", "drawer", "identity", "keyholder", "perform", "proposal", "say", "signing_group", "yes"]

NOW = 1_800_000_000.0


@cache
def identity(name: str) -> Identity:
    return Identity.from_secret(secret(f"identity {name}"))


@cache
def signing_group(shape: str = "aggregate", names: Sequence[str] = MEMBERS) -> SigningGroup:
    wallet = Group(Descriptor.parse_untrusted(descriptor_text(shape, names=names)), Chain.REGTEST)
    return SigningGroup(wallet, [Member(identity(name).pubkey, str(xpub(name))) for name in names])


def yes(_: Review) -> Answer:
    return Yes()


def drawer(seed: object) -> Callable[[int], bytes]:
    """Return a source of bytes that never repeats and is the same for each seed."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return sha256(f"{seed} {count}".encode()).digest()[:size]

    return draw


def account(name: str, group: SigningGroup, **options: object) -> Account:
    key = SigningKey.from_secret(secret(name))
    return Account(group=group, identity=identity(name).pubkey, key=key, **({"policy": yes} | options))


def keyholder(
    name: str, group: SigningGroup | None = None, records: Sequence[bytes] = (), **options: object
) -> Keyholder:
    return Keyholder(account(name, group or signing_group(), **options), drawer((name, len(records))), records)


def say(
    name: str,
    kind: MessageType,
    session: bytes,
    payload: Record | bytes,
    group: SigningGroup | None = None,
    seq: int = 0,
) -> VerifiedMessage:
    """Return a signed message to the group, as it arrives."""
    group = group or signing_group()
    data = payload if isinstance(payload, bytes) else encode(payload)
    message = Message(kind, name, data, session=session)
    return message.sign(identity(name), to=group.id, chain=group.wallet.chain, seq=seq).verify()


def proposal(
    name: str = "alice",
    group: SigningGroup | None = None,
    *,
    inputs: int = 2,
    random: bytes = b"\x07" * 32,
    expires_at: float = NOW + 3600,
    memo: str = "rent",
    locktime: int = 0,
    topology: Topology = Topology.MESH,
    change_index: int = 3,
    first_coin: int = 0,
) -> VerifiedMessage:
    group = group or signing_group()
    coins = [(RECEIVE, number) for number in range(first_coin, first_coin + inputs)]
    tx, spent = spend(
        group.wallet, coins=coins, locktime=locktime, change_index=change_index, first_outpoint=first_coin
    )
    made = psbt(group.wallet, tx, spent).serialize()
    record = TransactionProposal(group.id, random, int(expires_at * 1000), made, memo, topology)
    return say(name, MessageType.TRANSACTION_PROPOSAL, session_id(identity(name).pubkey, record), record, group)


def perform(
    holder: Keyholder, event: KeyholderInput, now: float = NOW, disk: list[bytes] | None = None
) -> list[KeyholderEffect]:
    """Feed one input, and each `Stored` that follows from it. Returns everything that is not a `Store`."""
    queue, replies = holder.handle(event, now), []
    while queue:
        effect = queue.pop(0)
        if isinstance(effect, Store):
            if disk is not None:
                disk.append(effect.record)
            queue += holder.handle(Stored(effect.number), now)
        else:
            replies.append(effect)
    return replies
