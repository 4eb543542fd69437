"""The pipe between node and keyholder: any bytes are a request, or refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.errors import (
    AuthenticationError,
    InvalidMessage,
    LocalError,
    NetworkError,
    SerializationError,
    Timeout,
)
from musignet.signing import pipe
from musignet.signing.policyfile import PolicyError
from musignet.signing.verbs import (
    Approve,
    Approved,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Status,
    StatusIs,
    Wipe,
    Wiped,
)
from support.ceremony import proposal

GROUP = bytes(range(32))
MESSAGE = proposal()
S = b"s" * 32
REQUESTS = [
    pipe.Hello(b"\x02" * 33, 3),
    pipe.AccountWanted(7),
    pipe.PinWanted(b"{}", b"p" * 64),
    Approve(MESSAGE, b"proof", frozenset({S})),
    MakeNonces(S, 2, (MESSAGE, MESSAGE)),
    MakePartials(S, 2, (MESSAGE,)),
    Wipe(S),
    Status(S),
    pipe.ProofWanted(7, S),
]
ANSWERS = [
    pipe.Ready("[00000000/87h/1h/0h]tpub", True, (S,)),
    pipe.AccountIs("tpub"),
    pipe.Pinned(),
    pipe.Failed("IoError", "no"),
    pipe.PersonAsked(S, S, frozenset({S})),
    pipe.VerbRefused(S, 3, "LocalError", "no"),
    Approved(S, S),
    NoncesMade(S, 1, bytes(8), b"n"),
    PartialsMade(S, 1, b"p"),
    Wiped(S, True),
    StatusIs(S, S, 1, b"", bytes(8), False),
    AttemptLost(S, 1, bytes(8)),
    pipe.ProofIs(b"p" * 64),
]


def plain(value: Any) -> Any:
    """Return what can be compared: signed messages as their bytes."""
    return msgspec.msgpack.decode(pipe._encode(value))


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_requests_and_answers_cross_whole_or_in_pieces(step: int) -> None:
    sent = b"".join(pipe.frame(one, GROUP) for one in (*REQUESTS, *ANSWERS))
    frames = pipe.Frames()
    bodies = [body for at in range(0, len(sent), step) for body in frames.feed_untrusted(sent[at : at + step])]
    assert len(bodies) == len(REQUESTS) + len(ANSWERS)
    requests = [pipe.read_request_untrusted(body) for body in bodies[: len(REQUESTS)]]
    answers = [pipe.read_answer_untrusted(body) for body in bodies[len(REQUESTS) :]]
    assert {group for group, _ in (*requests, *answers)} == {GROUP}
    assert [plain(one) for _, one in requests] == [plain(one) for one in REQUESTS]
    assert [one for _, one in answers] == ANSWERS
    assert [type(one) for _, one in requests] == [type(one) for one in REQUESTS]
    assert pipe.read_request_untrusted(pipe.frame(REQUESTS[0])[4:])[0] == pipe.NO_GROUP


def test_every_kind_is_tried() -> None:
    assert tuple(type(one) for one in REQUESTS) == pipe.REQUESTS
    assert tuple(type(one) for one in ANSWERS) == pipe.ANSWERS


@pytest.mark.parametrize("flip", [0, 63, 64, -1])
def test_a_signed_message_is_verified_again(flip: int) -> None:
    """The node says that it verified this: its word is not taken."""
    whole = pipe.frame(REQUESTS[3], GROUP)[4:]
    at = whole.index(MESSAGE.to_bytes()) + (flip if flip >= 0 else len(MESSAGE.to_bytes()) + flip)
    with pytest.raises((AuthenticationError, SerializationError, InvalidMessage)):
        pipe.read_request_untrusted(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])


def body(kind: int, value: object) -> bytes:
    return bytes((kind,)) + GROUP + msgspec.msgpack.encode(value)


REFUSED = [
    ("nothing", b""),
    ("a kind and no group", b"\x06" + bytes(31)),
    ("an unknown kind", body(len(pipe.REQUESTS), {"session": S})),
    ("a statement that is too short", body(8, {"number": 0, "statement": S[1:]})),
    ("no msgpack", b"\x06" + GROUP + b"\xc1"),
    ("nothing in it", b"\x06" + GROUP),
    ("more behind it", pipe.frame(Wipe(S), GROUP)[4:] + b"\0"),
    ("a field missing", body(6, {})),
    ("a number for bytes", body(6, {"session": 7})),
    ("text for a number", body(1, {"number": "7"})),
    ("a message that is text", body(3, {"proposal": "x"})),
    ("a message that is none", body(3, {"proposal": b"x"})),
    ("text that is none", body(1, {"number": 7}).replace(b"number", b"numbe\xff")),
]


@pytest.mark.parametrize("data", [data for _, data in REFUSED], ids=[name for name, _ in REFUSED])
def test_other_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(SerializationError):
        pipe.read_request_untrusted(data)


@given(st.binary(max_size=100), st.integers(0, 12))
def test_any_bytes_are_refused_in_a_sentence_or_read(data: bytes, kind: int) -> None:
    for read in (pipe.read_request_untrusted, pipe.read_answer_untrusted):
        try:
            read(bytes((kind,)) + GROUP + data)
        except NetworkError as error:
            said = str(error)
            assert said.isascii()


def test_a_frame_that_is_too_large_is_neither_sent_nor_taken() -> None:
    with pytest.raises(LocalError, match="too large for the keyholder"):
        pipe.frame(pipe.PinWanted(bytes(limits.PIPE_FRAME_MAX_BYTES), b""))
    with pytest.raises(SerializationError, match="too large"):
        pipe.Frames().feed_untrusted((limits.PIPE_FRAME_MAX_BYTES + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LocalError("no"), LocalError),
        (PolicyError("no"), LocalError),
        (Timeout("late"), Timeout),
        (AuthenticationError("who", hint="ask"), AuthenticationError),
        (RuleBroken(Rule.X15, "other"), InvalidMessage),
    ],
)
def test_an_error_crosses_as_its_kind_and_its_sentence(error: NetworkError, kind: type[NetworkError]) -> None:
    crossed = pipe.error_of(*pipe.described(error))
    assert (type(crossed), str(crossed)) == (kind, str(error))
    assert pipe.failed(error).kind == kind.__name__


@pytest.mark.parametrize("kind", ["", "Action", "Nonsense", "__doc__", "NetworkError"])
def test_an_error_of_unknown_kind_is_an_error_all_the_same(kind: str) -> None:
    error = pipe.error_of(kind, "no")
    assert isinstance(error, NetworkError)
    assert str(error) == "no"


def test_nothing_but_signed_messages_is_encoded_by_hand() -> None:
    with pytest.raises(NotImplementedError):
        pipe.frame(pipe.PinWanted(object(), b""))  # type: ignore[arg-type]
