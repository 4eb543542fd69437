"""Tor's control protocol: whole, byte by byte, with trailing junk; and everything that is none of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.errors import NetworkError
from musignet.limits import TOR_REPLY_MAX_BYTES, TOR_REPLY_MAX_LINES
from musignet.wire.torcontrol import (
    Challenge,
    Offered,
    Replies,
    Reply,
    TorFault,
    add_onion,
    authenticate,
    bootstrapped,
    challenge,
    cookie_proof,
    del_onion,
    quoted,
)

INFO = (
    b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/tor/a \\"b\\" \\\\c"\r\n'
    b'250-VERSION Tor="0.4.9.11"\r\n250 OK\r\n'
)
SAMPLES: dict[str, tuple[bytes, list[Reply]]] = {
    "one line": (b"250 OK\r\n", [Reply(250, ("OK",))]),
    "a refusal": (b"515 Bad authentication\r\n", [Reply(515, ("Bad authentication",))]),
    "several lines": (b"250-ServiceID=abc\r\n250 OK\r\n", [Reply(250, ("ServiceID=abc", "OK"))]),
    "two at once": (b"250 OK\r\n552 no\r\n", [Reply(250, ("OK",)), Reply(552, ("no",))]),
    "nothing said": (b"250 \r\n", [Reply(250, ("",))]),
    "an event before it": (b"650 HS_DESC UPLOADED\r\n250 OK\r\n", [Reply(250, ("OK",))]),
    "an event of two lines": (b"650-A\r\n650 B\r\n250 OK\r\n", [Reply(250, ("OK",))]),
}


@pytest.mark.parametrize(("data", "replies"), SAMPLES.values(), ids=SAMPLES)
def test_replies_whole_byte_by_byte_and_with_more_behind(data: bytes, replies: list[Reply]) -> None:
    assert list(Replies().receive_untrusted(data)) == replies
    reader = Replies()
    assert [one for at in range(len(data)) for one in reader.receive_untrusted(data[at : at + 1])] == replies
    assert list(Replies().receive_untrusted(data + b"250-more")) == replies


GARBAGE: dict[str, bytes] = {
    "no code": b"OK\r\n",
    "two digits": b"25 OK\r\n",
    "another mark": b"250=OK\r\n",
    "a block of data": b"250+info=\r\n",
    "a code of none": b"150 OK\r\n",
    "a control character": b"250 O\x1bK\r\n",
    "no ASCII": b"250 \xc3\xbc\r\n",
    "two codes": b"250-A\r\n251 B\r\n",
    "an empty line": b"\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n",
    "a line without an end": b"250 " + b"a" * TOR_REPLY_MAX_BYTES,
    "a reply without an end": b"250-a\r\n" * (TOR_REPLY_MAX_LINES + 1),
    "long lines without an end": (b"250-" + b"a" * 1020 + b"\r\n") * 17,
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(TorFault):
        list(Replies().receive_untrusted(data))


def test_the_bound_is_for_each_reply() -> None:
    reader = Replies()
    for _ in range(40):
        assert len(list(reader.receive_untrusted(b"250-" + b"a" * 1000 + b"\r\n250 OK\r\n"))) == 1


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_replies_or_a_fault(pieces: list[bytes]) -> None:
    reader = Replies()
    try:
        for one in pieces:
            list(reader.receive_untrusted(one))
    except TorFault:
        pass


def test_the_ways_in() -> None:
    (reply,) = Replies().receive_untrusted(INFO)
    assert Offered.of(reply) == (frozenset(("COOKIE", "SAFECOOKIE")), '/run/tor/a "b" \\c')
    assert Offered.of(Reply(250, ("AUTH METHODS=HASHEDPASSWORD", "OK"))).cookie_file == ""


@pytest.mark.parametrize("line", ["", "OK", "AUTH METHODS=", "AUTH METHODS=cookie"])
def test_no_way_in(line: str) -> None:
    with pytest.raises(TorFault, match="no way in"):
        Offered.of(Reply(250, (line,)))


@pytest.mark.parametrize("rest", [' COOKIEFILE="a\\n"', " B C", " COOKIEFILE=a", ' COOKIEFILE="a'])
def test_a_cookie_file_that_is_not_understood_is_none(rest: str) -> None:
    assert Offered.of(Reply(250, (f"AUTH METHODS=COOKIE{rest}",))).cookie_file == ""


COOKIE, NONCE = bytes(range(32)), bytes(range(32, 64))
SERVER_HASH = "77c91a6e02739b2037a16c93bc9f65c44f86da82f4a79b05002b4f117abe0cce"
PROOF = "3b279a9290ac0b8c1d316282115f171c9663c3d218cc420a2cd05a67891c298f"
"""RFC 2104 by hand over cookie, our nonce and Tor's (32 bytes of 0x55), under the two constants of control-spec."""


def test_both_sides_prove_that_they_have_the_cookie() -> None:
    line = f"AUTHCHALLENGE SERVERHASH={SERVER_HASH.upper()} SERVERNONCE={'55' * 32}"
    assert cookie_proof(COOKIE, NONCE, Challenge.of(Reply(250, (line,)))).hex() == PROOF


def test_what_is_no_challenge() -> None:
    for lines in (("AUTHCHALLENGE SERVERHASH=00 SERVERNONCE=00",), ("OK",), ("AUTHCHALLENGE",)):
        with pytest.raises(TorFault, match="no answer to a challenge"):
            Challenge.of(Reply(250, lines))
    with pytest.raises(TorFault):
        Challenge.of(Reply(512, ("Wrong number of arguments",)))


def test_whoever_does_not_have_the_cookie_gets_no_proof() -> None:
    with pytest.raises(TorFault, match="does not have Tor's cookie"):
        cookie_proof(COOKIE, NONCE, Challenge(bytes(32), bytes(32)))


def test_commands_are_one_line_each() -> None:
    assert challenge(NONCE) == f"AUTHCHALLENGE SAFECOOKIE {NONCE.hex()}"
    assert authenticate(b"\xab" * 2) == "AUTHENTICATE abab"
    assert authenticate('a "b" \\') == 'AUTHENTICATE "a \\"b\\" \\\\"'
    assert del_onion("abc.onion") == "DEL_ONION abc"
    assert add_onion(bytes(64), 8737, "127.0.0.1:1", 8) == (
        f"ADD_ONION ED25519-V3:{'A' * 86}== Flags=MaxStreamsCloseCircuit MaxStreams=8 Port=8737,127.0.0.1:1"
    )
    for text in ("a\r\nQUIT", "\u00e9", "\0"):
        with pytest.raises(NetworkError, match="printable ASCII"):
            quoted(text)


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ('status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"', 100),
        ("status/bootstrap-phase=WARN BOOTSTRAP PROGRESS=5", 5),
    ],
)
def test_how_far_tor_is(line: str, percent: int) -> None:
    assert bootstrapped(Reply(250, (line, "OK"))) == percent


@pytest.mark.parametrize(
    "reply",
    [
        Reply(250, ("OK",)),
        Reply(552, ("status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=1",)),
        Reply(250, ("status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=101",)),
    ],
)
def test_no_word_on_it(reply: Reply) -> None:
    with pytest.raises(TorFault, match="no word"):
        bootstrapped(reply)
