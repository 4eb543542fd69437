"""A signing group: one wallet, and which node holds which of its keys (THREATS.md P10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from .. import limits
from ..bitcoin.bip32 import Xpub
from ..bitcoin.descriptor import KeyExpression
from ..bitcoin.group import Group
from ..bitcoin.transaction import with_size
from ..crypto.schnorr import PublicKey, TaggedHash
from ..errors import AuthenticationError, InvalidMessage
from ..text import short_key

__all__ = ["Member", "SigningGroup"]

_group_hash = TaggedHash("musignet/group")


class Member(NamedTuple):
    """One cosigner."""

    identity: bytes
    """33 bytes: who they are on the network."""
    key: str
    """Their key in the descriptor, without origin and path: `xpub`, `tpub`, or 66 hex digits."""


class SigningGroup:
    """The wallet and its cosigners, the same at each of them whatever the order they were written in.

    Attributes:
        id:        32 bytes that stand for descriptor, network, policy version and who is who.
        wallet:    the descriptor with its network and bounds.
        members:   in the order of their identity keys.
        identities: those keys, in the order of `members`, which is the order of transcripts.
        positions: identity key to the position of its wallet key in the descriptor; `by_position` is the other way.

    Raises: InvalidMessage unless each key of the descriptor belongs to exactly one member, each with an identity of
            their own that is no wallet key (THREATS.md A4).
    """

    __slots__ = ("_points", "by_position", "id", "identities", "members", "positions", "wallet")

    def __init__(self, wallet: Group, members: Iterable[Member]) -> None:
        self.wallet: Final = wallet
        self.members: Final = tuple(sorted(members))
        keys = [_key_text(one) for one in wallet.descriptor.members]
        points = [_point(one) for one in wallet.descriptor.members]
        identities = {_identity(member)[1:] for member in self.members}  # x alone: k and -k are one person's
        if sorted(member.key for member in self.members) != sorted(keys):
            raise InvalidMessage("not the cosigners of this wallet", expected="one for each key of the descriptor")
        if len(identities) != len(self.members) or identities & {point[1:] for point in points}:
            raise InvalidMessage(
                "not the cosigners of this wallet", expected="an identity each, none of them a key of the wallet"
            )
        self.positions: Final = {member.identity: keys.index(member.key) for member in self.members}
        self.by_position: Final = {position: identity for identity, position in self.positions.items()}
        self._points = {member.identity: points[keys.index(member.key)] for member in self.members}
        self.identities: Final = tuple(member.identity for member in self.members)
        self.id: Final = self._hash()

    def _hash(self) -> bytes:
        return _group_hash(
            with_size(self.wallet.descriptor.canonical().encode()),
            bytes((self.wallet.chain, limits.POLICY_VERSION)),
            *(member.identity + with_size(member.key.encode()) for member in self.members),
        )

    def others(self, identity: bytes) -> tuple[bytes, ...]:
        """Return the identity keys of everybody else, in the order of `members`."""
        return tuple(one for one in self.identities if one != identity)

    def collector(self, attempt: int) -> bytes:
        """Return whose turn it is to collect, in star: everybody's, one after the other. `attempt` counts from 1."""
        return self.identities[(attempt - 1) % len(self.identities)]

    def wallet_key(self, identity: bytes) -> bytes:
        """Return the 33-byte key that a member has in the descriptor."""
        return self._points[identity]

    def __contains__(self, identity: object) -> bool:
        return identity in self.positions

    def require(self, identity: bytes) -> None:
        """Raise AuthenticationError when this identity key is no member's."""
        if identity not in self.positions:
            raise AuthenticationError("not a cosigner of this group", got=f"key {short_key(identity)}")


def _key_text(one: KeyExpression) -> str:
    return str(one.key) if isinstance(one.key, Xpub) else one.key.hex()


def _point(one: KeyExpression) -> bytes:
    return one.key.point if isinstance(one.key, Xpub) else one.key


def _identity(member: Member) -> bytes:
    return PublicKey(member.identity).compressed
