"""Extended public keys (BIP-32), and the synthetic ones of aggregate keys (BIP-328). Public derivation only."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from .. import limits
from ..chain import Chain
from ..crypto import backend
from ..crypto.keyagg import KeyAggCache
from ..errors import InvalidMessage, NetworkError
from . import wally

__all__ = ["HARDENED", "KeyOrigin", "Step", "Xpub", "aggregate", "derive", "synthetic"]

HARDENED: Final = 1 << 31
_SYNTHETIC_CHAINCODE: Final = bytes.fromhex("868087ca02a6f974c4598924c36b57762d32cb45717167e300622c7167e38965")
_VERSIONS: Final = {chain.xpub_version for chain in Chain}
_PRIVATE_VERSIONS: Final = {bytes.fromhex("0488ade4"), bytes.fromhex("04358394")}


class KeyOrigin(NamedTuple):
    """Where a key comes from: the first four bytes of its master key's hash, and the path from there."""

    fingerprint: bytes
    path: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the form in PSBTs and BIP-174."""
        return self.fingerprint + b"".join(step.to_bytes(4, "little") for step in self.path)

    @classmethod
    def from_bytes(cls, data: bytes) -> KeyOrigin:
        """Read the form in PSBTs: 4 bytes and a multiple of 4."""
        return cls(data[:4], tuple(int.from_bytes(data[at : at + 4], "little") for at in range(4, len(data), 4)))


@dataclass(frozen=True, slots=True)
class Xpub:
    """An extended public key: what BIP-32 serialises in 78 bytes."""

    version: bytes
    point: bytes
    """33 bytes, compressed; on the curve."""
    chaincode: bytes
    depth: int = 0
    parent: bytes = bytes(4)
    number: int = 0

    @classmethod
    def parse_untrusted(cls, text: str) -> Xpub:
        """Return the key that an `xpub` or `tpub` text holds.

        Raises: InvalidMessage for anything else, a private key above all.
        """
        try:
            raw = wally.base58check_decode(text)
        except wally.WallyError:
            raise InvalidMessage("not an extended public key", expected="xpub or tpub", got=text[:8]) from None
        if raw[:4] in _PRIVATE_VERSIONS:
            raise InvalidMessage("a private key where a public one belongs", hint="move its funds: it was shown")
        if raw[:4] not in _VERSIONS:
            raise InvalidMessage("not an extended public key", expected="xpub or tpub", got=text[:8])
        xpub = cls(raw[:4], raw[45:], raw[13:45], raw[4], raw[5:9], int.from_bytes(raw[9:13], "big"))
        if not is_point(xpub.point) or (xpub.depth == 0 and (any(xpub.parent) or xpub.number)):
            raise InvalidMessage("an impossible extended public key", got=text[:20])
        return xpub

    @property
    def fingerprint(self) -> bytes:
        """The four bytes that name it as a parent: BIP-32 "Key identifiers"."""
        return wally.hash160(self.point)[:4]

    def __str__(self) -> str:
        raw = (self.version, bytes((self.depth,)), self.parent, self.number.to_bytes(4, "big"), self.chaincode)
        return wally.base58check_encode(b"".join(raw) + self.point)


class Step(NamedTuple):
    """One public derivation: the tweak that BIP-32 calls I_L, and the child that it leads to."""

    tweak: bytes
    point: bytes
    chaincode: bytes


def is_point(point33: bytes) -> bool:
    """Return whether these are 33 bytes of a compressed point of the curve."""
    try:
        backend.point_parse(point33)
    except backend.BackendError:
        return False
    return True


@lru_cache(maxsize=limits.DERIVATION_CACHE_MAX)
def _child(point: bytes, chaincode: bytes, number: int) -> Step:
    digest = hmac.digest(chaincode, point + number.to_bytes(4, "big"), "sha512")
    return Step(digest[:32], backend.point_tweak(point, digest[:32]), digest[32:])


def derive(point: bytes, chaincode: bytes, path: tuple[int, ...]) -> tuple[Step, ...]:
    """Return one step for each number of `path` (BIP-32 CKDpub).

    Raises: InvalidMessage for a hardened number, and where BIP-32 says that a child does not exist (1 in 2^127).
    """
    steps: list[Step] = []
    for number in path:
        if not 0 <= number < HARDENED:
            raise InvalidMessage("a hardened step below a public key", expected="0 to 2147483647", got=number)
        try:
            steps.append(_child(point, chaincode, number))
        except backend.BackendError:
            raise InvalidMessage("this child key does not exist", got=number) from None
        point, chaincode = steps[-1].point, steps[-1].chaincode
    return tuple(steps)


def aggregate(points: tuple[bytes, ...], cache: KeyAggCache | None = None) -> bytes:
    """Return the 33-byte plain aggregate of the points in this order (BIP-327 KeyAgg). Nothing is sorted.

    Raises: InvalidMessage when one of them is not a point.
    """
    try:
        return (cache or KeyAggCache()).aggregate_points(points).aggregate
    except NetworkError as error:
        raise InvalidMessage(f"these keys cannot be aggregated: {error}") from None


def synthetic(aggregate_key: bytes, chain: Chain) -> Xpub:
    """Return the extended key below which children of an aggregate key are derived (BIP-328)."""
    return Xpub(chain.xpub_version, aggregate_key, _SYNTHETIC_CHAINCODE)
