"""The log: nothing in it moves a cursor or forges a line, no peer floods it, and it does not fill the disk."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.app import logs
from musignet.app.config import Config
from musignet.app.logs import PerPeer, set_up
from musignet.errors import IoError
from musignet.limits import LOG_FILE_MAX_BYTES, LOG_FILES, LOG_LINE_MAX_CHARS, LOG_SOURCES_MAX

LINE = re.compile(r"^[\x20-\x7e]*$")
EVIL = "bob\n2026-01-01 INFO forged\x1b[2J\u202eolleh\u200b\u2028\x9b31m"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers, root.level = before, level


@pytest.mark.parametrize("form", ["console", "json"])
def test_every_line_is_one_line_of_printable_ascii(root: logging.Logger, tmp_path: Path, form: str) -> None:
    path = tmp_path / "log"
    set_up(Config(log_file=str(path), log_format=form))
    root.warning("%s is gone", EVIL)
    root.warning(EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        root.exception("a callback failed")
    root.info("x" * 10_000)
    root.debug("not shown")
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert LINE.match(line)
        assert len(line) <= LOG_LINE_MAX_CHARS + 200
        if form == "json":
            assert json.loads(line).keys() == {"time", "level", "from", "text"}
    assert "Traceback" in lines[2]
    assert ("warning" if form == "json" else "WARNING") in lines[0]


@given(st.text(), st.text())
def test_whatever_a_peer_is_called(text: str, name: str) -> None:
    record = logging.LogRecord("musignet", 30, "", 0, "%s says %s", (name, text), None)
    for formatter in (logs._Console(), logs._Json()):
        assert LINE.match(formatter.format(record))


def record(peer: str) -> logging.LogRecord:
    return logging.LogRecord("musignet", 30, "", 0, "fault of %s", (peer,), None)


def test_one_peer_has_its_lines_a_second_and_the_others_theirs() -> None:
    now = 100.0
    kept = PerPeer(10, lambda: now)
    assert [kept.filter(record("liar")) for _ in range(1000)].count(True) == 10
    assert kept.filter(record("bob"))
    assert kept.filter(logging.LogRecord("musignet", 30, "", 0, "about nobody", (), None))
    now = 101.0
    after = record("liar")
    assert kept.filter(after)
    assert after.getMessage() == "fault of liar (990 lines left out)"
    plain = record("bob")
    assert kept.filter(plain)
    assert plain.getMessage() == "fault of bob"


def test_peers_that_are_counted_are_bounded() -> None:
    kept = PerPeer(1, lambda: 0.0)
    for number in range(2 * LOG_SOURCES_MAX):
        kept.filter(record(str(number)))
    assert len(kept._seen) == LOG_SOURCES_MAX


def test_files_are_rotated_and_old_ones_dropped(
    root: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (LOG_FILES, LOG_FILE_MAX_BYTES) == (5, 10 * 1024 * 1024)
    monkeypatch.setattr(logs, "LOG_FILE_MAX_BYTES", 1000)
    set_up(Config(log_file=str(tmp_path / "log"), log_lines_per_s=10_000))
    for number in range(500):
        root.info("line %d of a long log", number)
    files = list(tmp_path.iterdir())
    assert len(files) == LOG_FILES
    assert sum(one.stat().st_size for one in files) <= 5 * 1000


def test_a_file_that_cannot_be_had_is_a_sentence(root: logging.Logger, tmp_path: Path) -> None:
    with pytest.raises(IoError, match=r"log file .*check file in"):
        set_up(Config(log_file=str(tmp_path / "no" / "log")))


def test_without_a_file_it_goes_to_standard_error(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(Config())
    root.error("something")
    assert capsys.readouterr().err.endswith("ERROR something\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_a_full_disk_is_no_traceback_on_the_screen(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    handler = set_up(Config(log_file="/dev/full"))
    root.warning("a line")
    handler.close()
    assert capfd.readouterr().err == ""
