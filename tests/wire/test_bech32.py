"""Bech32m: BIP-350's vectors, and bytes there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.errors import SerializationError
from musignet.wire import bech32

VALID = (  # BIP-350 "Test vectors for Bech32m"
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
)
INVALID = (
    "qyrz8wqd2c9m",  # no separator
    "1qyrz8wqd2c9m",  # nothing before it
    "y1b0jsk6g",  # a character that is none
    "lt1igcx5c0",
    "in1muywd",  # a checksum too short
    "mm1crxm3i",  # a character that is none, in the checksum
    "au1s5cgom",
    "M1VUXWEZ",  # checksum made with the upper-case part
    "16plkw9",  # nothing before it
)


def part(text: str) -> str:
    return text.lower().rpartition("1")[0]


@pytest.mark.parametrize("text", VALID)
def test_the_vectors_hold(text: str) -> None:
    assert bech32.encode(part(text), bech32.decode_untrusted(part(text), text)) == text.lower()


def test_bits_that_fill_no_byte_must_be_zero() -> None:
    text = bech32.encode("x", b"\0")  # eight bits in two characters of five
    values = [*bech32._spread("x"), 0, 1]
    rest = bech32._remainder([*values, *(0,) * 6]) ^ bech32._CONSTANT
    check = "".join(bech32._ALPHABET[rest >> 5 * (5 - place) & 31] for place in range(6))
    assert text.startswith("x1qq")
    with pytest.raises(SerializationError, match="padding"):
        bech32.decode_untrusted("x", f"x1qp{check}")


@pytest.mark.parametrize("text", INVALID)
def test_the_bad_vectors_are_refused(text: str) -> None:
    with pytest.raises(SerializationError):
        bech32.decode_untrusted(part(text) or "x", text)


@given(st.binary(max_size=200))
def test_there_and_back(data: bytes) -> None:
    text = bech32.encode("musig", data)
    assert bech32.decode_untrusted("musig", text) == data
    assert bech32.decode_untrusted("musig", text.upper()) == data


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, "musig1" + text):
        try:
            bech32.decode_untrusted("musig", candidate)
        except SerializationError:
            pass
