"""A second msgpack encoder, written from the format's specification, that can also choose longer forms than it should.

Every value has a list of encodings, the shortest first. Ours must accept the first and refuse all others.
"""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["Value", "forms", "shortest"]

Value: TypeAlias = "int | str | bytes | list[Value]"


def _sized(sizes: tuple[tuple[int, int], ...], count: int) -> list[bytes]:
    """Return the heads of a length-prefixed value for each (marker, bytes of length) that can hold `count`."""
    return [bytes((marker,)) + count.to_bytes(width, "big") for marker, width in sizes if count < 256**width]


def _int_forms(number: int) -> list[bytes]:
    if number < 0:
        raise ValueError("no field of ours is negative")
    shortest = [bytes((number,))] if number < 0x80 else []
    unsigned = _sized(((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)), number)
    signed = [
        bytes((marker,)) + number.to_bytes(width, "big")
        for marker, width in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8))
        if number < 256**width // 2
    ]
    return shortest + unsigned + signed


def forms(value: Value) -> list[bytes]:
    """Return every encoding of an integer or of bytes; of a text or an array, with its elements at their shortest."""
    if isinstance(value, int):
        return _int_forms(value)
    if isinstance(value, bytes):
        return [head + value for head in _sized(((0xC4, 1), (0xC5, 2), (0xC6, 4)), len(value))]
    if isinstance(value, str):
        raw = value.encode("utf-8")
        fix = [bytes((0xA0 | len(raw),)) + raw] if len(raw) < 32 else []
        return fix + [head + raw for head in _sized(((0xD9, 1), (0xDA, 2), (0xDB, 4)), len(raw))]
    body = b"".join(map(shortest, value))
    fix = [bytes((0x90 | len(value),)) + body] if len(value) < 16 else []
    return fix + [head + body for head in _sized(((0xDC, 2), (0xDD, 4)), len(value))]


def shortest(value: Value) -> bytes:
    """Return the canonical encoding."""
    return forms(value)[0]
