"""MuSig2 in integers: BIP-327 as its text has it, over nothing but `pow`, `%` and SHA-256. For tests alone.

The third opinion beside libsecp256k1 and `ecc`: it shares no code and no author's habits with either. Slow, and its
arithmetic takes a time that depends on the secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, reduce
from hashlib import sha256
from itertools import accumulate
from typing import NamedTuple

__all__ = ["Aggregate", "Point", "Session", "aggregate_nonces", "make_nonce", "point_of", "verify"]

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class Point(NamedTuple):
    """A point of y² = x³ + 7; `O` stands for the one at infinity."""

    x: int
    y: int

    def __neg__(self) -> Point:
        return self if self == O else Point(self.x, -self.y % P)

    def plus(self, other: Point) -> Point:
        if O in (self, other):
            return other if self == O else self
        if self == -other:
            return O
        rise, run = (3 * self.x**2, 2 * self.y) if self == other else (other.y - self.y, other.x - self.x)
        slope = rise * pow(run, -1, P) % P
        x = (slope**2 - self.x - other.x) % P
        return Point(x, (slope * (self.x - x) - self.y) % P)

    def times(self, scalar: int) -> Point:
        bits = reversed(f"{scalar % N:b}")
        return total(doubled for bit, doubled in zip(bits, _doublings(self), strict=False) if bit == "1")

    @property
    def odd(self) -> bool:
        return self.y % 2 == 1

    @property
    def xonly(self) -> bytes:
        return self.x.to_bytes(32, "big")

    @property
    def encoded(self) -> bytes:
        return bytes(33) if self == O else bytes((2 + self.odd,)) + self.xonly


@cache
def _doublings(point: Point) -> tuple[Point, ...]:
    return tuple(accumulate(range(255), lambda doubled, _: doubled.plus(doubled), initial=point))


O = Point(0, 0)  # noqa: E741 - what mathematicians call it
G = Point(
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def point_of(data: bytes, *, infinity: bool = False) -> Point:
    """Return the point that 33 bytes encode. Raises ValueError when they do not."""
    if infinity and data == bytes(33):
        return O
    x = int.from_bytes(data[1:], "big")
    square = x**3 + 7
    y = pow(square, (P + 1) // 4, P)
    if len(data) != 33 or data[0] not in (2, 3) or x >= P or (y * y - square) % P:
        raise ValueError(f"no point: {data.hex()}")
    return Point(x, y if y % 2 == data[0] % 2 else P - y)


def tagged(tag: str, *parts: bytes) -> bytes:
    prefix = sha256(tag.encode()).digest()
    return sha256(prefix * 2 + b"".join(parts)).digest()


def number(tag: str, *parts: bytes) -> int:
    return int.from_bytes(tagged(tag, *parts), "big") % N


def total(points: Iterable[Point]) -> Point:
    return reduce(Point.plus, points, O)


class Aggregate:
    """The key of a group and what tweaking made of it."""

    def __init__(self, keys: Sequence[bytes], tweaks: Iterable[tuple[bytes, bool]] = ()) -> None:
        self.keys = tuple(keys)
        self._listed = tagged("KeyAgg list", *keys)
        self._second = next((key for key in keys if key != keys[0]), bytes(33))
        self.output = total(point_of(key).times(self.share(key)) for key in keys)
        self.sign, self.added = 1, 0
        for tweak, xonly in tweaks:
            self._tweak(int.from_bytes(tweak, "big"), xonly)

    def share(self, key: bytes) -> int:
        """Return the coefficient of one key."""
        return 1 if key == self._second else number("KeyAgg coefficient", self._listed, key)

    def _tweak(self, tweak: int, xonly: bool) -> None:
        if tweak >= N:
            raise ValueError("a tweak beyond the order of the group")
        flip = -1 if xonly and self.output.odd else 1
        self.output = self.output.times(flip).plus(G.times(tweak))
        if self.output == O:
            raise ValueError("tweaked to infinity")
        self.sign, self.added = flip * self.sign, (tweak + flip * self.added) % N


def make_nonce(
    random: bytes, secret: bytes, output: bytes, message: bytes, extra: bytes
) -> tuple[tuple[int, int], bytes]:
    """Return a secret nonce and the public one, 66 bytes."""
    own = G.times(int.from_bytes(secret, "big")).encoded
    seed = bytes(a ^ b for a, b in zip(secret, tagged("MuSig/aux", random), strict=True))
    rest = (
        bytes((33,)) + own + bytes((len(output),)) + output,
        b"\x01" + len(message).to_bytes(8, "big") + message,
        len(extra).to_bytes(4, "big") + extra,
    )
    first, second = (number("MuSig/nonce", seed, *rest, bytes((at,))) for at in (0, 1))
    return (first, second), G.times(first).encoded + G.times(second).encoded


def aggregate_nonces(nonces: Sequence[bytes]) -> bytes:
    """Return the sum of public nonces. Raises ValueError when one of them is none."""
    return b"".join(total(point_of(one[at : at + 33]) for one in nonces).encoded for at in (0, 33))


class Session:
    """What everybody computes alike once the nonces are there."""

    def __init__(self, group: Aggregate, aggregate_nonce: bytes, message: bytes) -> None:
        self.group, output = group, group.output.xonly
        self._blind = number("MuSig/noncecoef", aggregate_nonce, output, message)
        self.nonce = self._combined(aggregate_nonce, infinity=True)
        if self.nonce == O:
            self.nonce = G
        self._challenge = number("BIP0340/challenge", self.nonce.xonly, output, message)
        self._flip = -1 if group.output.odd else 1

    def _combined(self, nonce: bytes, *, infinity: bool = False) -> Point:
        first, second = (point_of(nonce[at : at + 33], infinity=infinity) for at in (0, 33))
        return first.plus(second.times(self._blind))

    def _weight(self, key: bytes) -> int:
        return self._challenge * self.group.share(key) * self._flip * self.group.sign

    def sign(self, nonce: tuple[int, int], secret: bytes) -> bytes:
        """Return a partial signature, 32 bytes. Raises ValueError for a stranger's key or a nonce of zero."""
        own = int.from_bytes(secret, "big")
        key = G.times(own).encoded
        if key not in self.group.keys or 0 in nonce:
            raise ValueError("not ours to sign")
        masked = nonce[0] + self._blind * nonce[1]
        value = (-masked if self.nonce.odd else masked) + self._weight(key) * own
        return (value % N).to_bytes(32, "big")

    def holds(self, partial: bytes, nonce: bytes, key: bytes) -> bool:
        """Return whether a partial signature is right under its signer's public nonce and key."""
        value = int.from_bytes(partial, "big")
        effective = self._combined(nonce).times(-1 if self.nonce.odd else 1)
        return value < N and G.times(value) == effective.plus(point_of(key).times(self._weight(key)))

    def finish(self, partials: Iterable[bytes]) -> bytes:
        """Return the signature, 64 bytes. Raises ValueError when a partial one is no scalar."""
        values = [int.from_bytes(one, "big") for one in partials]
        if any(one >= N for one in values):
            raise ValueError("a partial signature beyond the order of the group")
        value = sum(values) + self._challenge * self._flip * self.group.added
        return self.nonce.xonly + (value % N).to_bytes(32, "big")


def verify(signature: bytes, output: bytes, message: bytes) -> bool:
    """Return whether a signature is valid under an x-only key, as BIP-340 has it."""
    challenge = number("BIP0340/challenge", signature[:32], output, message)
    value = int.from_bytes(signature[32:], "big")
    nonce = G.times(value).plus(point_of(b"\x02" + output).times(-challenge))
    return value < N and nonce != O and not nonce.odd and nonce.xonly == signature[:32]
