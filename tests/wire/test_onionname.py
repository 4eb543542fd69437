"""Names of onion services: found out by their end, and refused with one letter wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.errors import TransportError
from musignet.wire.onion import check_onion, is_onion, onion_host

# rend-spec-v3, section 6 "Encoding onion addresses" [ONIONADDRESS].
PUBLISHED = (
    "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
    "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
    "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd.onion",
)


@pytest.mark.parametrize("host", PUBLISHED)
def test_the_published_names_are_right_and_one_letter_is_not(host: str) -> None:
    check_onion(host)
    check_onion(host.upper())
    check_onion(f"www.{host}")
    for place in range(56):
        letter = "a" if host[place] != "a" else "b"
        with pytest.raises(TransportError, match="is no onion address: expected 56 letters"):
            check_onion(host[:place] + letter + host[place + 1 :])


@given(st.binary(min_size=32, max_size=32))
def test_each_key_has_a_name_that_is_right(pubkey: bytes) -> None:
    host = onion_host(pubkey)
    assert len(host) == 62
    assert is_onion(host)
    check_onion(host)


@pytest.mark.parametrize(
    "host", [".onion", "a.onion", "expyuzz4wqqyqhjn.onion", "é" * 56 + ".onion", "1" * 56 + ".onion"]
)
def test_what_is_none_is_refused(host: str) -> None:
    with pytest.raises(TransportError, match="is no onion address"):
        check_onion(host)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("a.onion", True),
        ("A.ONION", True),
        ("a.onion.", True),
        ("a\u3002onion", True),  # a name lookup takes these for a full stop and letters
        ("a\uff0eonion", True),
        ("a.\uff4fnion", True),
        ("onion.example", False),
        ("notonion", False),
        ("127.0.0.1", False),
        ("", False),
    ],
)
def test_only_what_a_lookup_would_take_for_an_onion_service_is_one(host: str, told: bool) -> None:
    assert is_onion(host) is told


@given(st.text(max_size=80))
def test_any_text_is_answered(host: str) -> None:
    is_onion(host)
    try:
        check_onion(host)
    except TransportError:
        pass
