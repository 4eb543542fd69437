"""What people see of a peer: where it is, by which path it is reached, and what keeps from a better one."""

from __future__ import annotations

import re
from pathlib import Path as File
from typing import Any

import pytest

from musignet.app.api.peers import _better, _left_at
from musignet.app.commands.peers import _lines
from musignet.app.config import parse
from musignet.errors import ConnectionError, NetworkError, Timeout
from musignet.net.peer import Peer
from musignet.net.transport.carriers import Unreachable
from musignet.node.addresses import Path, Rank
from musignet.node.book import Book
from musignet.node.peers import Link, Mail, PeerInfo
from support.keys import ALICE, BOB

PLACES = ("10.0.0.9:8737", "tls://bob.example:443", "wss://relay.example")
SHOWN: dict[str, Any] = {
    "label": "bob", "key": BOB.pubkey_hex, "state": "connected", "pinned": True, "host": "10.0.0.9", "port": 8737,
    "addresses": list(PLACES), "path": "relayed by wss", "at": "relay.example:443", "better": "", "left_at": "",
    "round_trip_s": 0.1,
    "seen_s_ago": 1.0, "error": "", "bytes_in": 0, "bytes_out": 0, "messages_in": 0, "bytes_per_s": 0.0,
    "messages_per_s": 0.0, "held_s": 0.0, "share": 1.0, "score": 0.0, "why": "", "refused_s": 0.0,
}  # fmt: skip


def peer(
    path: Path | None, error: NetworkError | None = None, *, due: float | None = 60.0, mail: Mail = Mail.NO
) -> Peer:
    """Return a peer with these places, reached in this way; a better one is tried at `due`."""
    record = Book(ALICE.pubkey, max_peers=1).put(PeerInfo(id="bob", addresses=PLACES, pubkey_hex=BOB.pubkey_hex))
    record.path_error, record.better_at = error, due
    if path is not None:
        record.links.append(Link(1, record, True, 0.0, path=path, address="relay.example:443", mail=mail))
    unused: Any = None
    return Peer(unused, record)


RELAYED = Path(Rank.RELAYED, "wss")
LAN, TLS, _ = PLACES
REASONS = [
    (None, f"{LAN}: not tried since it is connected; {TLS}: not tried since it is connected"),
    (ConnectionError("refused"), f"{LAN}: refused; {TLS}: refused"),
    (Unreachable(BOB.pubkey_hex, {LAN: Timeout("silent"), "ice:": ConnectionError("no path")}),
     f"{LAN}: silent; {TLS}: not tried since it is connected"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "words"), REASONS, ids=["not tried", "one reason", "a reason each"])
def test_why_a_better_path_is_not_taken_and_when_it_is_tried_again(error: NetworkError | None, words: str) -> None:
    assert _better(peer(RELAYED, error), 48.0) == f"{words}; tried again in 12 s"
    assert _better(peer(RELAYED, error), 61.0) == f"{words}; tried again in 0 s"
    assert _better(peer(RELAYED, error, due=None), 0.0) == f"{words}; not tried from here: this node does not dial it"
    dialled = peer(RELAYED, error)
    dialled._record.dialling = True
    assert _better(dialled, 0.0) == f"{words}; being tried now"


def test_a_path_is_better_than_some_and_where_there_is_none_nothing_is_said() -> None:
    assert _better(peer(Path(Rank.DIRECT, "tls")), 0.0).startswith(f"{LAN}: not tried since it is connected; tried")
    assert _better(peer(Path(Rank.LAN, "tcp")), 0.0) == ""
    assert _better(peer(None), 0.0) == ""


def test_whoever_is_away_is_reached_by_no_path_and_it_says_where_things_are_left_for_it() -> None:
    for mail, left in ((Mail.NO, ""), (Mail.LETTERS, "at relay.example:443"), (Mail.ROUNDS, "by hand")):
        one = peer(RELAYED, mail=mail)
        assert _left_at(one) == left
        assert bool(_better(one, 0.0)) == (mail is Mail.NO)


def test_a_peer_without_a_link_has_no_path() -> None:
    assert (peer(None).path, peer(None).link_address, peer(None).better) == (None, "", ())


def test_the_list_says_path_places_and_reason_only_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    _lines([SHOWN | {"better": "10.0.0.9:8737: refused\x1b[2J"}], True)
    shown = capsys.readouterr().out
    for part in (", ".join(PLACES), "reached relayed by wss at relay.example:443", "better: 10.0.0.9:8737: refused"):
        assert part in shown
    assert "\x1b" not in shown
    _lines([SHOWN | {"path": "", "left_at": "at wss://relay.example"}], True)
    assert "\n    away: what it is told is left at wss://relay.example\n" in capsys.readouterr().out
    _lines([SHOWN], False)
    assert "relay" not in capsys.readouterr().out
    _lines([SHOWN | {"addresses": [], "path": "", "at": ""}], True)
    assert "no address: it dials us" in capsys.readouterr().out


HOWTO = (File(__file__).resolve().parents[2] / "docs" / "howto.md").read_text("utf-8")
HELD: dict[str, Any] = SHOWN | {
    "addresses": ["192.168.1.20:8737"], "path": "lan by tcp", "at": "192.168.1.20:8737", "round_trip_s": 0.0008,
    "seen_s_ago": 0.0, "bytes_in": 1_900_000, "messages_in": 1240, "bytes_out": 84_200, "messages_per_s": 20.0,
    "bytes_per_s": 31_000.0, "held_s": 41.5,
}  # fmt: skip
REFUSED: dict[str, Any] = SHOWN | {
    "state": "disconnected", "round_trip_s": None, "seen_s_ago": 240.0, "score": -79.0, "why": "2x invalid signatures",
    "refused_s": 58.0, "share": 0.2,
}  # fmt: skip


@pytest.mark.parametrize(("mark", "one", "verbose"), [("peers", HELD, True), ("refused", REFUSED, False)])
def test_the_how_to_shows_what_is_printed(
    mark: str, one: dict[str, Any], verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    block = rf"^<!-- {mark} -->\n```text\n\$ musignet peers[^\n]*\n(.*?)^```$"
    found = re.search(block, HOWTO, re.MULTILINE | re.DOTALL)
    assert found is not None
    _lines([one], verbose)
    assert capsys.readouterr().out == found[1]


def test_scores_are_shown_where_they_matter(capsys: pytest.CaptureFixture[str]) -> None:
    _lines([REFUSED | {"refused_s": 0.0}], False)
    assert "score" not in capsys.readouterr().out
    _lines([REFUSED], True)
    assert "at 20 % of the usual rates\n    score -79: 2x invalid signatures\n" in capsys.readouterr().out


def test_the_settings_of_the_how_to_are_read() -> None:
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", HOWTO, re.MULTILINE | re.DOTALL)
    limits = parse(settings).limits
    assert (limits.peer_messages_per_s, limits.total_send_bytes_per_s) == (20.0, 500_000)
