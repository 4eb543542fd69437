"""Signers that get a PSBT and give it back, as seen from a test."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.review import review
from musignet.signing.group import SigningGroup

from .wallet import secrets_of

__all__ = ["BtclibSigner", "keys_in"]


def keys_in(data: bytes, group: SigningGroup, member: int) -> list[bytes]:
    """Return the secrets of one member's keys in all slots of a PSBT."""
    slots = review(Psbt.parse_untrusted(data), group.wallet).slots
    own = [(slot, one.pubkey) for slot in slots for one in slot.participants if one.member == member]
    return list(dict.fromkeys(secrets_of(group.wallet, slot)[key] for slot, key in own))


class BtclibSigner:
    """btclib-wallet in a process of its own."""

    def __init__(self, *secrets: bytes) -> None:
        program = Path(__file__).with_name("btclib_signer.py")
        command = [sys.executable, str(program), *(one.hex() for one in secrets)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, data: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(data).decode() + "\n")
        self._process.stdin.flush()
        return base64.b64decode(self._process.stdout.readline())

    def __enter__(self) -> BtclibSigner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate("")
