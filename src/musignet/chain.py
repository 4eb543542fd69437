"""Which Bitcoin network a wallet lives on, and what its texts look like there."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Chain"]


class Chain(IntEnum):
    """A Bitcoin network. In every message and digest, so that none of one counts on another (THREATS.md X7)."""

    MAINNET = 0
    TESTNET4 = 1
    SIGNET = 2
    REGTEST = 3

    @property
    def hrp(self) -> str:
        """The human-readable part of its SegWit addresses (BIP-173)."""
        return {Chain.MAINNET: "bc", Chain.REGTEST: "bcrt"}.get(self, "tb")

    @property
    def xpub_version(self) -> bytes:
        """The four bytes in front of its extended public keys (BIP-32): `xpub`, or `tpub` on every test network."""
        return bytes.fromhex("0488b21e" if self is Chain.MAINNET else "043587cf")
