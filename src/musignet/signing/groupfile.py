"""The group file: all that is public about one signing group, as JSON that people can read, keep and hand on.

With the seed of one device it restores that device's part of the wallet. It has no secret in it, but shows every
address.

    {"musignet_group": 1, "name": "savings", "network": "regtest", "descriptor": "tr(musig(...)/<0;1>/*)#...",
     "members": [{"label": "alice", "identity": "02...", "key": "tpub..."}, ...], "policy_version": 0}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from .. import limits
from ..bitcoin.descriptor import Descriptor
from ..bitcoin.group import Group
from ..chain import Chain
from ..errors import InvalidMessage
from ..text import name_fault
from . import strictjson
from .group import Member, SigningGroup

__all__ = ["GroupFile", "fingerprint"]

_EXPECTED: Final = "JSON as `musignet group export` writes it"
_CHAINS: Final = {chain.name.lower(): chain for chain in Chain}


class _Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    label: str
    identity: Annotated[str, Meta(pattern="^0[23][0-9a-f]{64}\\Z")]
    key: Annotated[str, Meta(max_length=limits.KEY_TEXT_MAX_CHARS)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The order of the fields is the order in the file."""

    musignet_group: Literal[1]
    name: str
    network: Literal["mainnet", "testnet4", "signet", "regtest"]
    descriptor: Annotated[str, Meta(max_length=limits.DESCRIPTOR_MAX_CHARS)]
    members: Annotated[tuple[_Member, ...], Meta(max_length=limits.GROUP_KEYS_MAX)]
    policy_version: int


@dataclass(frozen=True, slots=True, eq=False)
class GroupFile:
    """A group with the names that its people gave to it and to each other. Names authorise nothing.

    Raises: InvalidMessage for a name that cannot be, labels that are not one for each member, or one given twice.
    """

    name: str
    group: SigningGroup
    labels: Mapping[bytes, str]
    """Identity key to label, one for each member."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        for name in (self.name, *self.labels.values()):
            if fault := name_fault(name):
                raise InvalidMessage(f"not a name for a group or a member: {fault}", got=name)
        if set(self.labels) != set(self.group.identities):
            raise InvalidMessage("labels of a group", expected="one for each member")
        if len(set(self.labels.values())) != len(self.labels):
            raise InvalidMessage("two members of one group have the same label", hint="rename one of them")

    @property
    def fingerprint(self) -> str:
        """What people read to each other; see `fingerprint`."""
        return fingerprint(self.group.id)

    def encode(self) -> bytes:
        """Return the file. Equal groups give equal files, but for names and key origins."""
        group = self.group
        members = tuple(_Member(self.labels[one.identity], one.identity.hex(), one.key) for one in group.members)
        chain = group.wallet.chain.name.lower()
        file = _File(1, self.name, chain, str(group.wallet.descriptor), members, limits.POLICY_VERSION)  # type: ignore[arg-type]
        return strictjson.write(file)

    @classmethod
    def parse_untrusted(cls, data: bytes) -> GroupFile:
        """Return the group in the bytes of a file. The whole group is checked: descriptor, network, who is who.

        Raises: SerializationError when it is no group file of this version: another form, a key unknown or given
                twice. InvalidMessage, RuleBroken (another network's key) or AuthenticationError (an identity that is
                no key) when it has the form and says what cannot be.
        """
        file = strictjson.read_untrusted(data, _File, "group file", limits.GROUP_FILE_MAX_BYTES, _EXPECTED)
        if file.policy_version != limits.POLICY_VERSION:
            raise InvalidMessage(
                "a group of other rules", expected=f"policy version {limits.POLICY_VERSION}", got=file.policy_version,
                hint="install the version of MuSigNet that the others run",
            )  # fmt: skip
        wallet = Group(Descriptor.parse_untrusted(file.descriptor), _CHAINS[file.network])
        members = [Member(bytes.fromhex(one.identity), one.key) for one in file.members]
        labels = {bytes.fromhex(one.identity): one.label for one in file.members}
        return cls(file.name, SigningGroup(wallet, members), labels)


def fingerprint(group_id: bytes) -> str:
    """Return the short text by which people compare a group: `1f3a 09cc`.

    It shows a mix-up. It is no proof against members who search for a second group of the same fingerprint: each
    device compares whole ids by itself, and people compare the first address.
    """
    return f"{group_id.hex()[:4]} {group_id.hex()[4:8]}"
