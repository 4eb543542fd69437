"""`musignet watch` as a person sees it: what is open, what happens, and the end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.nodes import cli
from app.terminal import Terminal
from app.test_spending import People
from musignet.app.api.events import ENDPOINTS
from musignet.app.commands.watch import _SHOWN, _told
from support.ceremony import identity

pytestmark = pytest.mark.driver

KEY = identity("mallory").pubkey_hex
FOUNDING = {"event": "founding", "founding": "ab" * 32}
BROADCAST = {"event": "broadcast", "session": "cd" * 32}


@pytest.fixture
def people(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[People]:
    with ExitStack() as stack:
        found = People(tmp_path, request.param)
        found.start(stack)
        yield found


@pytest.mark.parametrize("people", [{"bob": "bob says yes"}], indirect=True)
def test_it_shows_what_is_open_then_what_happens_until_the_node_stops(people: People) -> None:
    session = people.propose()[:8]
    data = people.data("alice")
    short = cli(data, "watch", session, "--timeout", "0.3")
    assert (short.returncode, short.stderr) == (4, "Error: 0.3 s are over; without --timeout it goes on\n")
    with Terminal("watch", "--data", str(data)) as all_of_it, Terminal("watch", session, "--data", str(data)) as one:
        all_of_it.expect("what is open, then what happens; Ctrl-C ends it")
        all_of_it.expect(rf"\d\d:\d\d:\d\d  session {session}: approving, waits for bob\n")
        one.expect(rf"{session}  approving, waits for bob\n")
        assert people.nodes["bob"].stop() == 0
        all_of_it.expect("bob is (dis|re)connect")
        assert people.nodes["alice"].stop() == 0
        for screen in (all_of_it, one):
            screen.expect("Error: the node stopped; start it again: sessions go on by themselves")
            assert screen.exit_code() == 4


@pytest.mark.parametrize("people", [{}], indirect=True)
def test_no_line_comes_twice(people: People) -> None:
    with Terminal("watch", "--data", str(people.data("alice"))) as screen:
        screen.expect("what happens")
        session = people.propose()[:8]
        screen.expect(f"session {session}: completed\n")
        assert people.nodes["carol"].stop() == 0
        screen.expect("carol is")
        screen.interrupt()
        assert screen.exit_code() == 130
    assert screen.seen.count("completed") == 1


EVENTS: list[tuple[dict[str, Any], str]] = [
    ({"event": "group", "name": "savings\x1b"}, r"group savings\x1b is here"),
    ({**FOUNDING, "step": "founded", "waiting_for": []}, "founding abababab: founded"),
    ({**FOUNDING, "step": "waiting", "waiting_for": ["bob", "\n"]}, r"founding abababab: waiting: bob, \x0a"),
    ({"event": "pairing", "key": KEY, "step": "paired"}, f"pairing with {KEY[2:10]}: paired"),
    ({"event": "sighting", "label": "mallory", "here": True}, "mallory is on the local network"),
    ({"event": "sighting", "label": "mallory", "here": False}, "mallory is no longer on the local network"),
    ({"event": "fault", "label": "bob", "error": "a lie"}, "fault of bob: a lie"),
    ({"event": "peer", "label": "bob", "state": "connected"}, "bob is connected"),
    ({**BROADCAST, "txid": "", "error": "no\n"}, r"session cdcdcdcd: not passed on yet: no\x0a"),
    ({**BROADCAST, "txid": "ef", "error": ""}, "session cdcdcdcd: passed on as ef"),
    ({"event": "missed"}, "some of it was missed: musignet sessions and musignet peers have all"),
    ({"event": "of a newer node"}, "of a newer node"),
]


@pytest.mark.parametrize(("event", "line"), EVENTS)
def test_each_event_is_a_sentence(event: dict[str, Any], line: str) -> None:
    assert _told(event) == line


def test_every_kind_of_event_has_its_words() -> None:
    assert set(re.findall("`(\\w+)`", ENDPOINTS[0].summary)) == set(_SHOWN)
