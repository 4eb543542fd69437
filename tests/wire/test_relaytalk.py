"""What relays say. Invariant: any text is a message or raises ReceiveError, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.errors import ReceiveError
from musignet.wire.relaytalk import (
    LETTERS,
    LIVES,
    Accepted,
    Challenged,
    Delivered,
    Ended,
    Noticed,
    StoredEnd,
    parse_untrusted,
    publish,
    subscribe,
)

EVENT = {
    "id": "1" * 64, "pubkey": "2" * 64, "created_at": 5, "kind": 21_059, "tags": [["p", "3" * 64]], "content": "c",
    "sig": "4" * 128,
}  # fmt: skip

SAID = [
    (["OK", "1" * 64, True, ""], Accepted("1" * 64, True, "")),
    (["OK", "1" * 64, False], Accepted("1" * 64, False, "")),
    (["EOSE", "inbox"], StoredEnd("inbox")),
    (["CLOSED", "inbox", "auth-required: x"], Ended("inbox", "auth-required: x")),
    (["NOTICE", "slow \u0000 down"], Noticed("slow \x00 down")),
    (["AUTH", "challenge"], Challenged("challenge")),
]


@pytest.mark.parametrize(("said", "meant"), SAID, ids=[type(row[1]).__name__ for row in SAID])
def test_each_message_is_understood(said: Any, meant: object) -> None:
    assert parse_untrusted(json.dumps(said)) == meant


def test_an_event_arrives_as_it_was_sent() -> None:
    said = parse_untrusted(json.dumps(["EVENT", "inbox", EVENT]))
    assert isinstance(said, Delivered)
    assert json.loads(publish(said.event)) == ["EVENT", EVENT]


def event(**fields: Any) -> str:
    return json.dumps(["EVENT", "inbox", {**EVENT, **fields}])


REFUSED = {
    "nothing": "",
    "no JSON": "hello",
    "no array": '{"a":1}',
    "an empty array": "[]",
    "an unknown word": '["HELLO"]',
    "a number for a word": "[1]",
    "too few": '["EVENT","inbox"]',
    "too many": '["NOTICE","a","b"]',
    "cut": '["NOTICE","a',
    "two at once": '["NOTICE","a"]["NOTICE","b"]',
    "a lone surrogate": '["NOTICE","\\ud800"]',
    "a lone surrogate's other half": '["NOTICE","\\udc00x"]',
    "deep arrays": "[" * 60_000,
    "deep arrays, closed": "[" * 30_000 + "]" * 30_000,
    "deep objects": '["EVENT","inbox",' + '{"id":' * 12_000,
    "deep tags": event(tags=[[[[["p"]]]]]),
    "a deep unknown field": '["EVENT","inbox",{"x":' + "[" * 60_000,
    "an unknown field": event(extra=1),
    "a field missing": '["EVENT","inbox",{"id":"' + "1" * 64 + '"}]',
    "a short id": event(id="1" * 63),
    "an id in capitals": event(id="A" * 64),
    "a long signature": event(sig="4" * 130),
    "a kind beyond its range": event(kind=65_536),
    "a negative time": event(created_at=-1),
    "a time beyond its range": event(created_at=2**53),
    "a time with a fraction": event(created_at=1.5),
    "a time of many digits": '["NOTICE",' + "9" * 5_000 + "]",
    "an exponent without end": '["OK","x",1e999999,""]',
    "not a number": '["OK","x",NaN,""]',
    "a flag that is a number": '["OK","x",1,""]',
    "too many tags": event(tags=[["p"]] * 17),
    "too many values": event(tags=[["p"] * 9]),
    "a long sentence": json.dumps(["NOTICE", "x" * 4_097]),
    "a long name": json.dumps(["EOSE", "x" * 65]),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ReceiveError, match="not a relay's message"):
        parse_untrusted(text)


def test_binary_data_is_refused() -> None:
    with pytest.raises(ReceiveError, match="binary"):
        parse_untrusted(b'["NOTICE","a"]')


@given(st.one_of(st.text(max_size=200), st.text('[]{}",:0123456789EVNTOK\\u', max_size=80)))
def test_any_text_is_a_message_or_a_receive_error(text: str) -> None:
    try:
        parse_untrusted(text)
    except ReceiveError:
        pass


def test_we_ask_for_our_inboxes_and_no_more_than_we_can_take() -> None:
    """Of what passes live, relays store some for minutes: it must not take the place of letters."""
    inboxes = ["1" * 64, "2" * 64]
    assert json.loads(subscribe(LETTERS, inboxes)) == [
        "REQ", "letters", {"kinds": [1059], "#p": inboxes, "limit": 200}
    ]  # fmt: skip
    assert json.loads(subscribe(LIVES, inboxes)) == ["REQ", "live", {"kinds": [21_059], "#p": inboxes, "limit": 1}]
