"""Uniform Resources (BCR-2020-005): bytes as one text, or as an endless sequence of parts for animated QR codes.

A sequence has its first `n` parts plain, and then mixtures of them without an end (the fountain of BCR-2024-001):
whoever has seen about as many different parts as there are, in any order and whichever are missing, has it all.

    ur:bytes/<bytewords>                    one part: a CBOR byte string, and its CRC-32
    ur:bytes/<number>-<count>/<bytewords>   one of many: CBOR [number, count, length, CRC-32 of all, data], and a CRC-32
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final
from zlib import crc32

from .. import limits
from ..errors import SerializationError

__all__ = ["Part", "UrDecoder", "decode_single_untrusted", "encode", "parts"]

_SCHEME: Final = "ur:"
_TYPE: Final = "bytes"
_CRC: Final = 4
_CODES: Final = (
    "aeadaoaxaaahamatayasbkbdbnbtbabsbebybgbwbbbzcmchcscfcycwcecackctcxclcpcndkdadsdidedtdrdndwdpdmdldyeh"
    "eyeoeeecenemetesftfrfnfsfmfhfzfpfwfxfyfefgflfdgagegrgsgtglgwgdgygmgughgohfhghdhkhthphhhlhyhehnhsidia"
    "ieihiyioisinimjejzjnjtjljojsjpjkjykpkoktkskkknkgkekikblblalylflslrlplnltloldlelulklgmnmymhmemomumwmd"
    "mtmsmknlnyndnsntnnnenboyoeotoxonolospdptpkpypspmplpepfpaprqdqzrerprlrorhrdrkrfryrnrsrtsesasrssskswst"
    "spsosgsbsfsntotktitttdtetytltbtstptatnuyuoutueurvtvyvovlvevwvavdvswlwdwmwpwewywswtwnwzwfwkykynylyayt"
    "zszoztzczezm"
)
"""The bytewords (BCR-2020-012) of 0 to 255, by their first and last letter."""
_BYTES: Final = {_CODES[2 * number : 2 * number + 2]: number for number in range(256)}
_MASK: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a sequence, as it was read."""

    number: int
    """From 1. Above `count` it is a mixture."""
    count: int
    length: int
    """Of the whole, in bytes."""
    checksum: int
    """CRC-32 of the whole."""
    data: bytes

    @property
    def of(self) -> tuple[int, int, int, int]:
        """What all parts of one sequence share."""
        return self.count, self.length, self.checksum, len(self.data)


# --- text -------------------------------------------------------------------------------------------------------------


def encode(data: bytes) -> str:
    """Return the bytes as one text."""
    return f"{_SCHEME}{_TYPE}/{_words(_cbor_bytes(data))}"


def decode_single_untrusted(text: str) -> bytes:
    """Return the bytes in what `encode` made. Raises SerializationError."""
    fields = _fields(text)
    if len(fields) != 1:
        raise SerializationError("not a UR of one part", got=text[:40])
    return _only_bytes(_unwords(fields[0]))


def parts(data: bytes, size: int) -> Iterator[str]:
    """Yield the parts of a sequence without an end, each with at most `size` bytes of it; one text if that will do."""
    message = _cbor_bytes(data)
    count = -(-len(message) // size)
    if count == 1:
        while True:
            yield encode(data)
    length = -(-len(message) // count)
    pieces = [message[at : at + length].ljust(length, b"\x00") for at in range(0, count * length, length)]
    checksum, number = crc32(message), 0
    while True:
        number += 1
        mixed = bytes(length)
        for index in _chosen(number, count, checksum):
            mixed = _xor(mixed, pieces[index])
        head = b"\x85" + b"".join(_cbor_int(0, one) for one in (number, count, len(message), checksum))
        yield f"{_SCHEME}{_TYPE}/{number}-{count}/{_words(head + _cbor_bytes(mixed))}"


def _read_untrusted(text: str) -> Part | bytes:
    """Return a part, or the whole where the text is of one part. Raises SerializationError."""
    fields = _fields(text)
    body = _unwords(fields[-1])
    if len(fields) == 1:
        return _only_bytes(body)
    at, numbers = 1, [0] * 4
    if body[:1] != b"\x85":
        raise SerializationError("not a part of a UR", expected="CBOR of five fields")
    for place in range(4):
        numbers[place], at = _cbor_head(body, at, 0)
    size, at = _cbor_head(body, at, 2)
    number, count, length, checksum = numbers
    part = Part(number, count, length, checksum, body[at:])
    return _checked(part, fields[0], size)


def _checked(part: Part, name: str, length: int) -> Part:
    """Return a part whose numbers go together. Raises SerializationError."""
    fits = length == len(part.data) and part.count * length >= part.length > (part.count - 1) * length
    named = name == f"{part.number}-{part.count}"
    if not fits or not named or not (1 <= part.number < 2**32 and 2 <= part.count <= limits.UR_PARTS_MAX):
        raise SerializationError("not a part of a UR", got=ascii(name[:20]))
    if part.length > limits.SEALED_MAX_BYTES + 5:
        raise SerializationError("a UR that is too large", expected=f"at most {limits.SEALED_MAX_BYTES} bytes")
    return part


def _fields(text: str) -> list[str]:
    """Return what is behind scheme and type."""
    text = text.strip().lower()
    if len(text) > limits.UR_LINE_MAX_CHARS or not text.startswith(f"{_SCHEME}{_TYPE}/"):
        raise SerializationError("not a UR of bytes", expected="ur:bytes/...", got=ascii(text[:20]))
    fields = text.split("/")[1:]
    if len(fields) > 2:
        raise SerializationError("not a UR of bytes", got=ascii(text[:20]))
    return fields


def _words(data: bytes) -> str:
    checked = data + crc32(data).to_bytes(_CRC, "big")
    return "".join(_CODES[2 * byte : 2 * byte + 2] for byte in checked)


def _unwords(text: str) -> bytes:
    try:
        data = bytes(_BYTES[text[at : at + 2]] for at in range(0, len(text), 2))
    except KeyError:
        raise SerializationError("not bytewords", got=ascii(text[:20])) from None
    body, check = data[:-_CRC], data[-_CRC:]
    if len(data) <= _CRC or crc32(body).to_bytes(_CRC, "big") != check:
        raise SerializationError("damaged bytewords", expected="their checksum")
    return body


# --- CBOR, as much of it as there is in a UR --------------------------------------------------------------------------


def _cbor_int(kind: int, number: int) -> bytes:
    if number < 24:
        return bytes((kind << 5 | number,))
    size = next(size for size in (1, 2, 4) if number < 1 << 8 * size)
    return bytes((kind << 5 | 23 + (1, 2, 4).index(size) + 1,)) + number.to_bytes(size, "big")


def _cbor_bytes(data: bytes) -> bytes:
    return _cbor_int(2, len(data)) + data


def _cbor_head(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """Return the number in a head of this kind, in its shortest form, and where it ends. Raises SerializationError."""
    first = data[at] if at < len(data) else 0xFF
    small = first & 0x1F
    size = {24: 1, 25: 2, 26: 4}.get(small, 0)
    number = int.from_bytes(data[at + 1 : at + 1 + size], "big") if size else small
    end = at + 1 + size
    if first >> 5 != kind or end > len(data) or _cbor_int(kind, number) != data[at:end]:
        raise SerializationError("not the CBOR of a UR")
    return number, end


def _only_bytes(data: bytes) -> bytes:
    length, at = _cbor_head(data, 0, 2)
    if len(data) - at != length:
        raise SerializationError("not the CBOR of a UR", expected=f"{length} bytes", got=len(data) - at)
    return data[at:]


# --- the fountain -----------------------------------------------------------------------------------------------------


class _Random:
    """xoshiro256**, seeded by a SHA-256: both sides draw the same."""

    def __init__(self, seed: bytes) -> None:
        digest = sha256(seed).digest()
        self._state = [int.from_bytes(digest[at : at + 8], "big") for at in range(0, 32, 8)]

    def next(self) -> int:
        a, b, c, d = self._state
        drawn = _turned(b * 5 & _MASK, 7) * 9 & _MASK
        c, d = c ^ a, d ^ b
        self._state = [a ^ d, b ^ c, c ^ (b << 17 & _MASK), _turned(d, 45)]
        return drawn

    def share(self) -> float:
        """Return a number from 0 to below 1."""
        return self.next() / 2**64

    def below(self, count: int) -> int:
        return int(self.share() * count)


def _turned(number: int, left: int) -> int:
    return (number << left | number >> 64 - left) & _MASK


@lru_cache(maxsize=8)
def _degrees(count: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return Walker's tables for drawing i with a share in proportion to 1 / (i + 1)."""
    total = sum(1 / (index + 1) for index in range(count))
    shares = [count / (index + 1) / total for index in range(count)]
    small = [index for index in reversed(range(count)) if shares[index] < 1]
    large = [index for index in reversed(range(count)) if shares[index] >= 1]
    kept, others = [1.0] * count, [0] * count
    while small and large:
        less, more = small.pop(), large.pop()
        kept[less], others[less] = shares[less], more
        shares[more] += shares[less] - 1
        (small if shares[more] < 1 else large).append(more)
    return tuple(kept), tuple(others)


@lru_cache(maxsize=limits.UR_PARTS_MAX)
def _chosen(number: int, count: int, checksum: int) -> frozenset[int]:
    """Return which pieces, from 0, are in a part."""
    if number <= count:
        return frozenset((number - 1,))
    random = _Random(number.to_bytes(4, "big") + checksum.to_bytes(4, "big"))
    kept, others = _degrees(count)
    drawn, share = int(count * random.share()), random.share()
    degree = 1 + (drawn if share < kept[drawn] else others[drawn])
    left = list(range(count))
    return frozenset(left.pop(random.below(len(left))) for _ in range(degree))


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


class _Sequence:
    """The parts of one sequence that are here, as linear equations over its pieces: any `count` independent ones do."""

    def __init__(self, first: Part) -> None:
        self._first = first
        self._rows: dict[int, tuple[int, int]] = {}
        """By the lowest piece in it: which pieces, as bits, and what they are together."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, part: Part) -> None:
        chosen = sum(1 << index for index in _chosen(part.number, part.count, part.checksum))
        data = int.from_bytes(part.data, "big")
        while chosen:
            lowest = (chosen & -chosen).bit_length() - 1
            if lowest not in self._rows:
                self._rows[lowest] = (chosen, data)
                return
            row = self._rows[lowest]
            chosen, data = chosen ^ row[0], data ^ row[1]

    def whole(self) -> bytes | None:
        """Return the message, once there is enough. Raises SerializationError when its checksum is wrong."""
        if len(self._rows) < self._first.count:
            return None
        message = b"".join(piece.to_bytes(len(self._first.data), "big") for piece in self._pieces())
        rest = message[self._first.length :]
        message = message[: self._first.length]
        if any(rest) or crc32(message) != self._first.checksum:
            raise SerializationError("the parts of a UR do not fit together", hint="scan them again from the beginning")
        return _only_bytes(message)

    def _pieces(self) -> list[int]:
        """Solve the equations, from the last piece to the first."""
        pieces = [0] * self._first.count
        for index in reversed(range(self._first.count)):
            chosen, data = self._rows[index]
            chosen ^= 1 << index
            while chosen:
                higher = chosen.bit_length() - 1
                data ^= pieces[higher]
                chosen ^= 1 << higher
            pieces[index] = data
        return pieces


class UrDecoder:
    """Collects parts in any order, repeated, with others missing, and parts of other sequences between them."""

    def __init__(self) -> None:
        self._sequences: dict[tuple[int, int, int, int], _Sequence] = {}

    def add_untrusted(self, text: str) -> bytes | None:
        """Take one part. Returns the bytes as soon as they are complete.

        Raises: SerializationError for a text that is no part, which may be passed over; for parts that do not fit
                together, which are forgotten then.
        """
        read = _read_untrusted(text)
        if isinstance(read, bytes):
            return read
        sequence = self._sequences.get(read.of)
        if sequence is None:
            if len(self._sequences) >= limits.UR_SEQUENCES_MAX:
                del self._sequences[next(iter(self._sequences))]
            sequence = self._sequences[read.of] = _Sequence(read)
        sequence.add(read)
        try:
            return sequence.whole()
        except SerializationError:
            del self._sequences[read.of]
            raise

    @property
    def progress(self) -> tuple[int, int]:
        """Return how many pieces of the sequence that is nearest to its end are here, and of how many."""
        here = ((len(one), key[0]) for key, one in self._sequences.items())
        return max(here, key=lambda one: one[0] / one[1], default=(0, 0))
