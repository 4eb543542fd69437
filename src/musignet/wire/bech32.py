"""Bech32m (BIP-350) for any human-readable part and bytes: text that people copy, and that shows when it is damaged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import SerializationError

__all__ = ["CHECKSUM_CHARS", "decode_untrusted", "encode", "unchecked_untrusted"]

CHECKSUM_CHARS: Final = 6

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {char: value for value, char in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CONSTANT: Final = 0x2BC830A3
_LOW_25: Final = (1 << 25) - 1


def encode(hrp: str, data: bytes) -> str:
    """Return `data` as lower-case text that begins with `hrp`, which is lower-case itself."""
    values = _regroup(data, 8, 5)
    rest = _remainder([*_spread(hrp), *values, *(0,) * CHECKSUM_CHARS]) ^ _CONSTANT
    check = (rest >> 5 * (CHECKSUM_CHARS - 1 - place) & 31 for place in range(CHECKSUM_CHARS))
    return f"{hrp}1{''.join(_ALPHABET[value] for value in (*values, *check))}"


def decode_untrusted(hrp: str, text: str) -> bytes:
    """Return the bytes in `text`, all upper or all lower case.

    Raises: SerializationError for another human-readable part, a character that has no place, or a wrong checksum.
    """
    values = _values_untrusted(hrp, text)
    if _remainder([*_spread(hrp), *values]) != _CONSTANT:
        raise SerializationError("wrong checksum", hint="a character is wrong, missing or too many")
    data = values[:-CHECKSUM_CHARS]
    decoded = bytes(_regroup(data, 5, 8))
    if _regroup(decoded, 8, 5) != list(data):
        raise SerializationError("wrong padding", expected="zeros")
    return decoded


def unchecked_untrusted(hrp: str, text: str) -> bytes:
    """Return what the bytes in `text` seem to be, the checksum not looked at: only good for saying what is wrong."""
    return bytes(_regroup(_values_untrusted(hrp, text), 5, 8))


def _values_untrusted(hrp: str, text: str) -> list[int]:
    if text != text.lower() and text != text.upper():
        raise SerializationError("upper and lower case mixed", expected="one of them")
    begin, mark, rest = text.lower().rpartition("1")
    if not mark or begin != hrp:
        raise SerializationError("another kind of text", expected=f"{hrp}1...", got=text[: len(hrp) + 1])
    odd = next((char for char in rest if char not in _VALUES), None)
    if odd is not None or not rest.isascii():
        raise SerializationError("a character that has no place in it", got=odd)
    if len(rest) < CHECKSUM_CHARS:
        raise SerializationError("too short to have a checksum")
    return [_VALUES[char] for char in rest]


def _spread(hrp: str) -> list[int]:
    return [*(ord(char) >> 5 for char in hrp), 0, *(ord(char) & 31 for char in hrp)]


def _remainder(values: Iterable[int]) -> int:
    """The remainder of BIP-173's code, over GF(32)."""
    state = 1
    for value in values:
        top, state = state >> 25, (state & _LOW_25) << 5 ^ value
        for bit, constant in enumerate(_GENERATOR):
            state ^= constant if top >> bit & 1 else 0
    return state


def _regroup(values: Iterable[int], width: int, wanted: int) -> list[int]:
    """Return the same bits in groups of another width. To wider groups, the bits that fill none are left out."""
    state = bits = 0
    groups: list[int] = []
    for value in values:
        state, bits = state << width | value, bits + width
        while bits >= wanted:
            bits -= wanted
            groups.append(state >> bits)
            state &= (1 << bits) - 1
    if bits and wanted < width:
        groups.append(state << wanted - bits)
    return groups
