"""A person's yes to a group: what they compare, and the proof that they typed the wallet's passphrase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...signing.approver import prove_group
from ...signing.groupfile import GroupFile
from ...text import safe, short_key
from ..unlock import unlock
from .common import say

__all__ = ["describe_group", "prove"]


def describe_group(group: GroupFile, members: Sequence[dict[str, Any]] | None) -> None:
    """Print what the members compare: all of it is computed here, from the descriptor and the keys."""
    wallet = group.group.wallet
    here = {one["identity"] for one in members or () if one["here"]}
    say(f"group {safe(group.name)} on {wallet.chain.name.lower()}, {len(group.labels)} of {len(group.labels)} sign")
    for one in group.group.members:
        you = " (this device)" if one.identity.hex() in here else ""
        name = f"{safe(group.labels[one.identity])}{you}"
        say(f"    {name}: key {short_key(one.identity)}, {one.key[:12]}...{one.key[-8:]}")
    say()
    say(f"    fingerprint    {group.fingerprint}")
    say(f"    first address  {wallet.address(0, 0)}")
    say()
    say(f"descriptor {wallet.descriptor}")


def prove(data: Path, group: bytes, passphrase_fd: int | None) -> bytes:
    """Ask for the wallet's passphrase, and return the proof over a group's id. Raises AuthenticationError."""
    key = unlock(data, passphrase_fd)
    try:
        return prove_group(key, group)
    finally:
        key.wipe()
