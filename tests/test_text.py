"""Text that came from somebody else cannot move a cursor, hide a word or forge a line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.limits import LABEL_MAX_CHARS
from musignet.text import name_fault, safe, short_key, who

PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")
ANY_TEXT = st.text() | st.text(st.characters(codec=None)) | st.text(st.characters(max_codepoint=0xFF))
KEY = bytes.fromhex("021f3a09cc") + bytes(28)


@given(ANY_TEXT, st.integers(min_value=3, max_value=300))
def test_safe_is_printable_bounded_and_idempotent(text: str, limit: int) -> None:
    shown = safe(text, limit)
    assert PRINTABLE.match(shown)
    assert len(shown) <= limit
    assert safe(shown, limit) == shown


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=LABEL_MAX_CHARS))
def test_safe_leaves_printable_ascii_as_it_is(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\tc\0", r"a\x0ab\x0d\x09c\x00"),
        ("\x7f\x80\x9b", r"\x7f\x80\x9b"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("\u200bzero\ufeff", r"\u200bzero\ufeff"),
        ("caf\u00e9 \U0001f511", r"caf\xe9 \U0001f511"),
        ("\ud800", r"\ud800"),
        (b"\xff", r"b'\xff'"),
        (None, "None"),
        (12, "12"),
    ],
)
def test_safe_escapes_as_a_python_literal_does(text: object, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a" * 64, "a" * 64),
        ("a" * 65, "a" * 61 + "..."),
        ("\n" * 16, r"\x0a" * 16),
        ("\n" * 17, r"\x0a" * 15 + r"\..."),
    ],
)
def test_a_text_that_is_cut_ends_in_dots(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert len(shown) == LABEL_MAX_CHARS


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (KEY, "1f3a09cc"),
        (KEY.hex(), "1f3a09cc"),
        (b"", "no key"),
        ("", "no key"),
        ("02\n", r"\x0a"),
        (b"\x02", "no key"),
    ],
)
def test_short_key(key: bytes | str, shown: str) -> None:
    assert short_key(key) == shown


def test_who_names_a_peer_by_label_and_short_key() -> None:
    assert who("bob", KEY) == "bob (1f3a09cc)"
    assert who("", KEY) == "key 1f3a09cc"
    assert who("b\x1bb" + "x" * 100, KEY).endswith("... (1f3a09cc)")


@given(ANY_TEXT, st.binary(max_size=40) | ANY_TEXT)
def test_who_is_printable(label: str, key: bytes | str) -> None:
    assert PRINTABLE.match(who(label, key))


@pytest.mark.parametrize(
    "name", ["alice", "Savings 2026", "M\u00fcller", "\u9322\u5305", "a" * LABEL_MAX_CHARS, "x.y-z"]
)
def test_names_that_people_give(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "a" * (LABEL_MAX_CHARS + 1), "../up", "a/b", "a\\b", ".hidden", "-rf", "a  b", " a", "a\n", "\x1b[2J",
        "a\0", "\u202eevil", "a\u200bb", "a\u2028b", "\ud800", "\ue000", "a\u00a0\u00a0b", "\u2066x",
    ],
)  # fmt: skip
def test_names_that_are_refused(name: str) -> None:
    assert name_fault(name)
