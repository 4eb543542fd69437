"""The one error tree: its kinds, its families, its sentences."""

from __future__ import annotations

import builtins
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import errors
from musignet.errors import Action, LocalError, NetworkError, PeerError
from musignet.wire.noise import HandshakeError

KINDS: list[tuple[type[NetworkError], type[NetworkError], type[BaseException]]] = [
    # kind, its family, the builtin it also is
    (errors.IoError, NetworkError, OSError),
    (errors.SerializationError, PeerError, Exception),
    (errors.ConnectionError, NetworkError, builtins.ConnectionError),
    (errors.SendError, LocalError, Exception),
    (errors.ReceiveError, PeerError, Exception),
    (errors.InvalidMessage, PeerError, Exception),
    (errors.AuthenticationError, PeerError, Exception),
    (errors.PeerNotFound, LocalError, Exception),
    (errors.TransportError, NetworkError, Exception),
    (errors.Timeout, NetworkError, TimeoutError),
    (errors.Other, NetworkError, Exception),
]
IDS = [kind.__name__ for kind, _, _ in KINDS]
FAMILIES = {LocalError, PeerError}

PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")
ANYTHING = st.text() | st.text(st.characters(codec=None)) | st.binary() | st.integers() | st.none()


def test_the_specifications_eleven_kinds_are_the_leaves_of_the_tree() -> None:
    leaves = {name for name in errors.__all__ if name != "Action"} - {"NetworkError", "LocalError", "PeerError"}
    assert leaves == set(IDS)
    assert len(leaves) == 11


@pytest.mark.parametrize(("kind", "family", "builtin"), KINDS, ids=IDS)
def test_each_kind_has_its_family_and_its_builtin(
    kind: type[NetworkError], family: type[NetworkError], builtin: type[BaseException]
) -> None:
    assert issubclass(kind, family)
    assert issubclass(kind, builtin)
    assert {base for base in FAMILIES if issubclass(kind, base)} == FAMILIES & {family}
    assert issubclass(kind, OSError) == issubclass(builtin, OSError)


@pytest.mark.parametrize(("kind", "family", "builtin"), KINDS, ids=IDS)
def test_each_kind_is_caught_as_its_builtin_and_keeps_its_sentence(
    kind: type[NetworkError], family: type[NetworkError], builtin: type[BaseException]
) -> None:
    with pytest.raises(builtin) as caught:
        raise kind("no luck", expected="a", got="b", peer="bob (1f3a09cc)", hint="try again")
    error = caught.value
    assert isinstance(error, kind)
    assert str(error) == error.text == "no luck from bob (1f3a09cc): expected a, got b; try again"
    assert (error.expected, error.got, error.peer, error.hint) == ("a", "b", "bob (1f3a09cc)", "try again")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "what"),
        ({"peer": "bob"}, "what from bob"),
        ({"expected": 1}, "what: expected 1"),
        ({"expected": 1, "got": 2}, "what: expected 1, got 2"),
        ({"expected": 0, "got": 0}, "what: expected 0, got 0"),
        ({"got": 2}, "what: got 2"),
        ({"hint": "do"}, "what; do"),
        ({"peer": "bob", "got": "x", "hint": "do"}, "what from bob: got x; do"),
    ],
)
def test_a_sentence_says_each_part_that_is_known(parts: dict[str, object], sentence: str) -> None:
    assert str(NetworkError("what", **parts)) == sentence  # type: ignore[arg-type]


def test_a_peers_fault_closes_the_link_unless_it_says_otherwise() -> None:
    for kind in (errors.SerializationError, errors.ReceiveError, errors.InvalidMessage, errors.AuthenticationError):
        assert kind("x").action is kind.action is Action.CLOSE
        for action in Action:
            assert kind("x", action=action).action is action
        assert kind("x").action is Action.CLOSE, "an override is for one error, not for its kind"


def test_only_a_peers_fault_has_an_action() -> None:
    assert [kind.__name__ for kind, _, _ in KINDS if hasattr(kind, "action")] == [
        "SerializationError",
        "ReceiveError",
        "InvalidMessage",
        "AuthenticationError",
    ]


@given(ANYTHING, ANYTHING, ANYTHING, st.text(), st.text())
def test_every_sentence_is_printable_ascii(text: object, expected: object, got: object, peer: str, hint: str) -> None:
    for kind, _, _ in KINDS:
        error = kind(str(text), expected=expected, got=got, peer=peer, hint=hint)
        assert PRINTABLE.match(str(error))
        assert len(str(error)) <= 5 * 240 + 40
        assert PRINTABLE.match(repr(error))


@given(ANYTHING)
def test_an_error_inside_an_error_is_not_escaped_again(text: object) -> None:
    inner = errors.Other(str(text)[:40])
    assert str(errors.Other(str(inner))) == str(inner)


def test_a_handshake_error_is_an_authentication_error_with_a_reason_of_its_own() -> None:
    error = HandshakeError("ACT2_BAD_TAG")
    assert isinstance(error, errors.AuthenticationError)
    assert error.reason == "ACT2_BAD_TAG"
    assert error.action is Action.CLOSE
    assert "ACT2_BAD_TAG" in str(error)
