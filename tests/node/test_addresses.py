"""Addresses: every form is read, written back the same, ranked; what is none is a typed error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.errors import LocalError
from musignet.limits import ADDRESS_MAX_CHARS
from musignet.node.addresses import (
    Address,
    Path,
    Rank,
    address_text,
    parse_address,
    path_by,
    promised,
    readable_untrusted,
)

READ = [
    ("192.0.2.7:8737", "tcp", "192.0.2.7", 8737, "192.0.2.7:8737"),
    ("tcp://192.0.2.7:8737", "tcp", "192.0.2.7", 8737, "192.0.2.7:8737"),
    ("TLS://bob.example:443", "tls", "bob.example", 443, "tls://bob.example:443"),
    ("[2001:db8::7]:08737", "tcp", "2001:db8::7", 8737, "[2001:db8::7]:8737"),
    ("tls://[fe80::1%eth0]:1", "tls", "fe80::1%eth0", 1, "tls://[fe80::1%eth0]:1"),
    ("ws://relay.example", "ws", "relay.example", 80, "ws://relay.example"),
    ("wss://relay.example:443/", "wss", "relay.example", 443, "wss://relay.example"),
    ("wss://relay.example:7000/in/box", "wss", "relay.example", 7000, "wss://relay.example:7000/in/box"),
    ("wss://[2001:db8::7]/x", "wss", "2001:db8::7", 443, "wss://[2001:db8::7]/x"),
    ("wss://[2001:db8::7]:90", "wss", "2001:db8::7", 90, "wss://[2001:db8::7]:90"),
    ("ice:", "ice", "", 0, "ice:"),
]


@pytest.mark.parametrize(("text", "carrier", "host", "port", "shown"), READ, ids=[one[0] for one in READ])
def test_every_form_is_read_and_written_back(text: str, carrier: str, host: str, port: int, shown: str) -> None:
    address = parse_address(text)
    assert address == Address(carrier, host, port, shown)
    assert parse_address(address.text) == address


NONE = [
    *("", ":", "host", "host:", ":1", "host:0", "host:65536", "host:x", "host:-1", "host:\u0661", "::1:80", "[::1]"),
    *("[host]:1", "[::1]x:1", "a b:1", "a\n:1", "a@b:1", "udp://host:1", "tls://host", "tls://host:1/path", "ice:x"),
    *("wss://", "wss:///path", "wss://host:0", "ws://host/a b", 'ws://host/"', "[fe80::1%\n]:1", "nul\0:9"),
    "h" * ADDRESS_MAX_CHARS + ":1",
]


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_address_is_a_typed_error(text: str) -> None:
    with pytest.raises(LocalError, match="not an address"):
        parse_address(text)


@given(st.text(max_size=40) | st.text(alphabet="[]:/%.0189abcdeftlswsi", max_size=30))
def test_any_text_is_an_address_or_a_typed_error(text: str) -> None:
    try:
        address = parse_address(text)
    except LocalError:
        return
    assert parse_address(address.text) == address


RANKS = [
    ("127.0.0.1:1", Rank.LAN),
    ("localhost:1", Rank.LAN),
    ("printer.local.:1", Rank.LAN),
    ("10.1.2.3:1", Rank.LAN),
    ("tls://192.168.0.9:1", Rank.LAN),
    ("172.31.255.255:1", Rank.LAN),
    ("172.32.0.1:1", Rank.DIRECT),
    ("169.254.1.1:1", Rank.LAN),
    ("[::1]:1", Rank.LAN),
    ("[fe80::1%eth0]:1", Rank.LAN),
    ("[fd00::1]:1", Rank.LAN),
    ("[::ffff:10.0.0.1]:1", Rank.LAN),
    ("[::ffff:192.0.2.7]:1", Rank.DIRECT),
    ("192.0.2.7:1", Rank.DIRECT),
    ("bob.example:1", Rank.DIRECT),
    ("ice:", Rank.PUNCHED),
    ("abc.onion:1", Rank.PROXIED),
    ("tls://abc.ONION:1", Rank.PROXIED),
    ("wss://127.0.0.1", Rank.RELAYED),
]


@pytest.mark.parametrize(("text", "rank"), RANKS)
def test_a_rank_tells_how_many_strangers_carry_the_link(text: str, rank: Rank) -> None:
    assert parse_address(text).rank is rank


def test_the_better_path_is_the_smaller_one() -> None:
    assert sorted(Rank) == [Rank.LAN, Rank.DIRECT, Rank.PUNCHED, Rank.PROXIED, Rank.RELAYED]
    assert promised(map(parse_address, ("wss://r", "ice:", "192.0.2.7:1"))) is Rank.DIRECT
    assert promised(()) is None


def test_people_read_a_path_as_words() -> None:
    assert str(path_by("tls", "10.0.0.1")) == "lan by tls"
    assert str(Path(Rank.RELAYED, "wss")) == "relayed by wss"


def test_a_peers_addresses_that_we_cannot_read_are_left_out_and_none_comes_twice() -> None:
    texts = ("quantum:1:2", "tcp://h:1", "h:1", "tls://h:1", "rubbish")
    assert [one.text for one in readable_untrusted(texts)] == ["h:1", "tls://h:1"]


def test_host_and_port_become_the_text_that_people_know() -> None:
    assert address_text("::1", 80) == "[::1]:80"
    assert address_text("h", 80, "tls") == "tls://h:80"
