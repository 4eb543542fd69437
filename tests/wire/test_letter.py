"""Letters in parts: any order, repeats, foreign parts, and a bound on what is held."""

from __future__ import annotations

import random

import pytest

from musignet import limits
from musignet.errors import SerializationError
from musignet.wire.giftwrap import PAYLOAD_MAX_BYTES
from musignet.wire.letter import Reassembly, split

SIZES = [1, PAYLOAD_MAX_BYTES - 20, PAYLOAD_MAX_BYTES - 19, 3 * PAYLOAD_MAX_BYTES, limits.LETTER_MAX_BYTES]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_parts_in_any_order_with_repeats_make_the_letter_once(size: int, seed: int) -> None:
    source = random.Random(seed)
    sealed = source.randbytes(size)
    parts = split(sealed, bytes(16))
    assert all(len(part) <= PAYLOAD_MAX_BYTES for part in parts)
    source.shuffle(parts)
    reassembly = Reassembly()
    got = [reassembly.take_untrusted(part) for part in (*parts[:-1], *parts[:-1], parts[-1])]
    assert [one for one in got if one is not None] == [sealed]
    assert reassembly.held_bytes == 0


def test_parts_of_two_letters_do_not_mix() -> None:
    one, other = (split(bytes((byte,)) * 2 * PAYLOAD_MAX_BYTES, bytes((byte,)) * 16) for byte in (1, 2))
    reassembly = Reassembly()
    got = [reassembly.take_untrusted(part) for pair in zip(one, other, strict=True) for part in pair]
    assert [letter[:1] for letter in got if letter is not None] == [b"\1", b"\2"]


@pytest.mark.parametrize(
    "part",
    [b"", bytes(20), *(bytes(16) + head + b"x" for head in (b"\0\1\0\1", b"\0\0\0\0", b"\0\0\xff\xff", b"\0\0\0\2"))],
    ids=["nothing", "head alone", "beyond the last", "of none", "of too many", "short in the middle"],
)  # fmt: skip
def test_what_is_no_part_is_refused(part: bytes) -> None:
    with pytest.raises(SerializationError):
        Reassembly().take_untrusted(part)


def test_strangers_parts_push_out_the_oldest_and_no_more_is_held() -> None:
    reassembly = Reassembly()
    for number in range(400):
        (first, *_) = split(bytes(2 * PAYLOAD_MAX_BYTES), number.to_bytes(16))
        assert reassembly.take_untrusted(first) is None
        assert reassembly.held_bytes <= limits.LETTERS_HELD_MAX_BYTES


def test_what_is_too_large_is_not_split() -> None:
    with pytest.raises(SerializationError):
        split(bytes(limits.LETTER_MAX_BYTES + 1), bytes(16))
