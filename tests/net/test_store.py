"""The journals: what is acknowledged is there, in order and whole, or the journal does not open."""

from __future__ import annotations

import errno
import importlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from musignet.errors import IoError, LocalError
from musignet.limits import JOURNAL_BODY_MAX_BYTES, JOURNAL_KEY_MAX_BYTES, JOURNAL_PRUNE_MAX_RECORDS
from musignet.net.folder import DataFolder
from musignet.net.store import AlreadyStored, Journal, Kind, Record, Stored, connect_sqlite
from support.journals import BURN, KINDS, MESSAGE, NOTE, contents, expected, record

TESTS = Path(__file__).resolve().parents[1]
WRITER = TESTS / "support" / "journal_writer.py"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    with closing(DataFolder.lock(tmp_path / "data")) as held:
        yield held


@pytest.fixture
def journal(folder: DataFolder) -> Iterator[Journal]:
    with Journal.open(folder, "node", KINDS) as opened:
        yield opened


def reopened(folder: DataFolder) -> list[Stored]:
    with Journal.open(folder, "node", KINDS) as opened:
        return list(opened.replay())


# --- records --------------------------------------------------------------------------------------------------------


def test_what_was_appended_comes_back_in_order_now_and_after_a_restart(folder: DataFolder, journal: Journal) -> None:
    records = [Record(NOTE.code, b"k", bytes([n]) * n, n * 1000) for n in range(40)]
    assert journal.append(records[:3]) == [1, 2, 3]
    assert [journal.append([one]) for one in records[3:]] == [[n] for n in range(4, 41)]
    there = [Stored(n, one) for n, one in enumerate(records, 1)]
    assert list(journal.replay()) == there
    journal.close()
    assert reopened(folder) == there


def test_a_replay_shows_what_was_there_when_it_began(journal: Journal) -> None:
    journal.append([record(1)])
    seen = []
    for stored in journal.replay():
        journal.append([record(2)])
        seen.append(stored)
    assert seen == expected(1)
    assert journal.last_id == 2


def test_two_journals_live_in_one_folder(folder: DataFolder, journal: Journal) -> None:
    with Journal.open(folder, "keyholder", KINDS) as other:
        assert (journal.append([record(1)]), other.append([record(1), record(2)])) == ([1], [1, 2])
    assert len(list(journal.replay())) == 1


def test_nothing_to_append_is_nothing(journal: Journal) -> None:
    assert (journal.append([]), journal.append_many([]), journal.last_id) == ([], [], 0)


# --- one record under one key -----------------------------------------------------------------------------------------


def test_a_second_burn_of_one_nonce_with_another_body_is_refused(folder: DataFolder, journal: Journal) -> None:
    journal.append([Record(BURN.code, b"nonce", b"transcript")])
    for _ in range(2):
        with pytest.raises(AlreadyStored, match="a second burn record under one key: got 6e6f6e6365"):
            journal.append([record(7), Record(BURN.code, b"nonce", b"another")])
        journal.close()
        journal = Journal.open(folder, "node", KINDS)
    assert [stored.record.body for stored in journal.replay()] == [b"transcript"]
    journal.close()


def test_the_same_record_again_is_the_record_that_is_there(journal: Journal) -> None:
    first, second = Record(BURN.code, b"a", b"1"), Record(BURN.code, b"b", b"1")
    assert journal.append([first, second, first]) == [1, 2, 1]
    assert journal.append([second, first]) == [2, 1]
    assert len(list(journal.replay())) == 2


def test_keys_of_other_kinds_do_not_collide(journal: Journal) -> None:
    kinds = (BURN, MESSAGE, NOTE, NOTE)
    assert journal.append([Record(kind.code, b"k", bytes([n])) for n, kind in enumerate(kinds)]) == [1, 2, 3, 4]


def test_the_database_itself_refuses_a_second_burn(folder: DataFolder, journal: Journal) -> None:
    journal.append([record(1)])
    journal.close()
    with closing(sqlite3.connect(folder.path / "node.db")) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO record SELECT 2, kind, key, x'00', expires_ms, single FROM record")


def test_requests_of_one_commit_are_judged_alone(folder: DataFolder, journal: Journal) -> None:
    good, bad = Record(BURN.code, b"a", b"1"), Record(BURN.code, b"a", b"2")
    outcomes = journal.append_many([[good], [Record(NOTE.code, b"", b""), bad], [good], [Record(9, b"", b"")], []])
    assert [outcomes[i] for i in (0, 2, 4)] == [[1], [1], []]
    assert isinstance(outcomes[1], AlreadyStored)
    assert isinstance(outcomes[3], LocalError)
    assert journal.append([record(2)]) == [2]
    journal.close()
    assert reopened(folder) == [Stored(1, good), Stored(2, record(2))]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Record(9, b"", b""), r"expected kind \[1, 2, 3\], got 9"),
        (Record(1, bytes(JOURNAL_KEY_MAX_BYTES + 1), b""), "key of a burn record: expected at most 128 bytes, got 129"),
        (Record(1, b"", bytes(JOURNAL_BODY_MAX_BYTES + 1)), "body of a burn record"),
        (Record(1, "text", b""), "key of a burn record: expected at most 128 bytes, got str"),  # type: ignore[arg-type]
        (Record(1, b"", b"", 1), "expiry of a burn record: expected 0, since it is kept for ever, got 1"),
        (Record(2, b"", b"", -1), "expiry of a message record: expected 0 or milliseconds"),
        (Record(2, b"", b"", 2**63), "expiry of a message record"),
    ],
)
def test_a_record_that_cannot_be_is_refused_and_nothing_of_its_request_stored(
    journal: Journal, bad: Record, told: str
) -> None:
    with pytest.raises(LocalError, match=told):
        journal.append([record(1), bad])
    assert list(journal.replay()) == []
    assert journal.usable


def test_what_is_no_record_leaves_the_journal_as_it_was(journal: Journal) -> None:
    with pytest.raises(TypeError):
        journal.append([record(1), Record(2, b"", b"", "soon")])  # type: ignore[arg-type]
    assert journal.append([record(1)]) == [1]


def test_the_bounds_are_inside(journal: Journal) -> None:
    largest = Record(2, bytes(JOURNAL_KEY_MAX_BYTES), bytes(JOURNAL_BODY_MAX_BYTES), 2**63 - 1)
    journal.append([largest])
    assert [stored.record for stored in journal.replay()] == [largest]


# --- pruning --------------------------------------------------------------------------------------------------------


def test_what_is_past_its_expiry_is_pruned_and_burns_never(folder: DataFolder, journal: Journal) -> None:
    kept = [record(1), Record(2, b"a", b"", 0), Record(3, b"b", b"", 1001)]
    journal.append([*kept, Record(2, b"c", b"", 1000), Record(3, b"d", b"", 1)])
    assert (journal.prune(0), journal.prune(1000), journal.prune(1000)) == (0, 2, 0)
    assert [stored.record for stored in journal.replay()] == kept
    assert journal.append([Record(2, b"c", b"again", 5000)]) == [6]
    journal.close()
    assert [stored.id for stored in reopened(folder)] == [1, 2, 3, 6]


def test_a_kind_that_is_kept_for_ever_by_now_is_not_pruned(folder: DataFolder, journal: Journal) -> None:
    journal.append([Record(3, b"", b"", 1), Record(2, b"", b"", 1)])
    journal.close()
    with Journal.open(folder, "node", [BURN, MESSAGE, Kind(3, "note")]) as again:
        assert (again.prune(1), [stored.id for stored in again.replay()]) == (1, [1])


def test_an_id_is_never_used_again(folder: DataFolder, journal: Journal) -> None:
    journal.append([Record(3, b"", b"", 1)])
    journal.prune(1)
    journal.close()
    with Journal.open(folder, "node", KINDS) as again:
        assert (list(again.replay()), again.append([record(2)])) == ([], [2])


def test_one_commit_prunes_so_many_and_no_more(journal: Journal) -> None:
    journal.append([Record(3, b"", b"", 1)] * (JOURNAL_PRUNE_MAX_RECORDS + 5))
    assert [journal.prune(1) for _ in range(3)] == [JOURNAL_PRUNE_MAX_RECORDS, 5, 0]


# --- who may open it --------------------------------------------------------------------------------------------------


def test_the_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = DataFolder.lock(tmp_path / "data")
        with Journal.open(folder, "node", KINDS) as journal:
            journal.append([record(1)])
            modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    finally:
        os.umask(before)
    folder.close()
    assert modes == dict.fromkeys(("lock", "node.db", "node.db-wal", "node.last"), 0o600)
    assert folder.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", "node.db", "node.db-wal", "node.last"])
def test_what_others_could_read_or_write_is_refused(folder: DataFolder, name: str) -> None:
    Journal.open(folder, "node", KINDS).close()
    path = folder.path / name
    if name.endswith("wal"):
        path.write_bytes(b"")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode | 0o100)
        with pytest.raises(IoError, match=r"for nobody else, got mode .*; chmod"):
            Journal.open(folder, "node", KINDS)
    path.chmod(0o700 if not name else 0o600)
    assert reopened(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["", "node.db", "node.last"])
def test_what_belongs_to_somebody_else_is_refused(folder: DataFolder, name: str) -> None:
    Journal.open(folder, "node", KINDS).close()
    os.chown(folder.path / name, 12345, -1)
    with pytest.raises(IoError, match="expected owner 0, got owner 12345"):
        Journal.open(folder, "node", KINDS)


@pytest.mark.parametrize("name", ["node.db", "node.last"])
def test_a_link_or_a_folder_in_the_place_of_a_file_is_refused(folder: DataFolder, tmp_path: Path, name: str) -> None:
    (folder.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IoError, match="expected a regular file, got l"):
        Journal.open(folder, "node", KINDS)
    (folder.path / name).unlink()
    (folder.path / name).mkdir()
    with pytest.raises(IoError, match="expected a regular file, got d"):
        Journal.open(folder, "node", KINDS)
    assert not (tmp_path / "elsewhere").exists()


def test_a_second_lock_is_refused_until_the_first_is_gone(folder: DataFolder) -> None:
    with pytest.raises(IoError, match="another node runs on"):
        DataFolder.lock(folder.path)
    folder.close()
    folder.close()
    DataFolder.lock(folder.path).close()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IoError, match=r"data folder .*file"):
        DataFolder.lock(tmp_path / "file")


def test_the_database_is_locked_too(folder: DataFolder, journal: Journal) -> None:
    journal.append([record(1)])
    with closing(sqlite3.connect(folder.path / "node.db", timeout=0)) as db:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            db.execute("SELECT * FROM record").fetchall()


def start_writer(folder: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join((str(TESTS), str(TESTS.parent / "src")))
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, str(WRITER), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed_after(process: subprocess.Popen[str], lines: int) -> int:
    """Read so many lines, kill -9, and return the last id that was acknowledged."""
    assert process.stdout is not None
    ids = [int(process.stdout.readline()) for _ in range(lines)]
    process.kill()
    ids.extend(int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n"))
    process.stdout.close()
    process.wait()
    return max(ids, default=0)


@pytest.mark.driver
def test_a_second_process_is_refused(tmp_path: Path) -> None:
    process = start_writer(tmp_path / "data")
    try:
        with pytest.raises(IoError, match="another node runs on"):
            DataFolder.lock(tmp_path / "data")
    finally:
        killed_after(process, 0)
    DataFolder.lock(tmp_path / "data").close()


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.driver
def test_kill_9_loses_nothing_acknowledged_and_tears_nothing(tmp_path: Path) -> None:
    draw = random.Random(9)
    for _ in range(50):
        acknowledged = killed_after(start_writer(tmp_path / "data"), draw.randrange(60))
        there = contents(tmp_path / "data")
        assert len(there) >= acknowledged
        assert there == expected(len(there))


def test_a_power_cut_loses_nothing_acknowledged_and_tears_nothing(tmp_path: Path) -> None:
    pytest.importorskip("apsw", reason="apsw, the disk that forgets, is not installed")
    power = importlib.import_module("support.power")
    recorder = power.Recorder()
    folder = power.Folder.lock(tmp_path / "data")
    folder.ops = recorder.ops
    for last in (60, 90):
        with Journal.open(folder, "node", KINDS, connect=power.ApswConnection, checkpoint_bytes=150_000) as journal:
            while journal.last_id < last:
                journal.append([record(journal.last_id + 1 + i) for i in range(1 + journal.last_id % 3)])
                witness = (folder.path / "node.last").read_bytes()
                recorder.ops.append(power.Op("ack", offset=journal.last_id, data=witness))
    folder.close()
    assert sum(op.what == "sync" and op.file == "node.db" for op in recorder.ops) > 5  # it was checkpointed
    draw = random.Random(12)
    for seed in range(250):
        cut = draw.randrange(len(recorder.ops) + 1) if seed > 50 else seed
        acks = [op for op in recorder.ops[:cut] if op.what == "ack"]
        image = power.disk_after_cut(recorder.ops[:cut], random.Random(seed))
        if acks:
            image["node.last"] = acks[-1].data
        (tmp_path / "image").mkdir(mode=0o700)
        for name, data in image.items():
            (tmp_path / "image" / name).touch(mode=0o600)
            (tmp_path / "image" / name).write_bytes(data)
        there = contents(tmp_path / "image")
        assert len(there) >= (acks[-1].offset if acks else 0), f"seed {seed}, cut {cut}"
        assert there == expected(len(there)), f"seed {seed}, cut {cut}"
        shutil.rmtree(tmp_path / "image")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a crash leaves it: 60 records, some in the database and some in its log alone."""
    path = tmp_path_factory.mktemp("crashed")
    folder = DataFolder.lock(path / "data")
    with Journal.open(folder, "node", KINDS) as journal:
        journal.append([record(number) for number in range(1, 31)])
    with Journal.open(folder, "node", KINDS) as journal:
        for number in range(31, 61):
            journal.append([record(number)])
        shutil.copytree(path / "data", path / "copy")
    folder.close()
    assert contents(shutil.copytree(path / "copy", path / "check")) == expected(60)
    return path / "copy"


@pytest.mark.parametrize("name", ["node.db", "node.db-wal", "node.last"])
def test_damage_is_refused_or_changes_nothing(crashed: Path, tmp_path: Path, name: str) -> None:
    draw = random.Random(name)
    data = (crashed / name).read_bytes()
    refused = 0
    for place in range(min(len(data), 160)):
        at = place if place < 60 else draw.randrange(len(data))
        shutil.copytree(crashed, tmp_path / "data")
        with open(tmp_path / "data" / name, "r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ draw.randrange(1, 256)]))
        try:
            there = contents(tmp_path / "data")
        except IoError:
            refused += 1
        else:
            assert there == expected(60), f"byte {at}"
        shutil.rmtree(tmp_path / "data")
    assert refused >= (16 if name == "node.last" else 40)


@pytest.mark.parametrize("name", ["node.db", "node.db-wal"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_shortened_file_is_refused(crashed: Path, tmp_path: Path, name: str, share: float) -> None:
    shutil.copytree(crashed, tmp_path / "data")
    os.truncate(tmp_path / "data" / name, int((crashed / name).stat().st_size * share))
    with pytest.raises(IoError, match="nothing is signed until the journal opens"):
        contents(tmp_path / "data")


def test_a_log_that_is_gone_is_noticed(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path / "data")
    (tmp_path / "data" / "node.db-wal").unlink()
    with pytest.raises(IoError, match="expected records up to number 60, got up to number 30; keep a copy"):
        contents(tmp_path / "data")


def test_a_last_id_that_lags_behind_or_never_was_written_is_no_damage(crashed: Path, tmp_path: Path) -> None:
    for content in (None, b"", bytes(16)):
        shutil.copytree(crashed, tmp_path / "data")
        (tmp_path / "data" / "node.last").unlink()
        if content is not None:
            (tmp_path / "data" / "node.last").touch(0o600)
            (tmp_path / "data" / "node.last").write_bytes(content)
        assert contents(tmp_path / "data") == expected(60)
        shutil.rmtree(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE record SET body = x'00' WHERE id = 3", "expected 5 records with their sum, got 5 that differ"),
        ("UPDATE record SET id = 99 WHERE id = 3", "5 that differ"),
        ("DELETE FROM record WHERE id = 3", "expected 5 records with their sum, got 4"),
        ("DELETE FROM record", "got 0"),
        ("UPDATE head SET last_id = 4", "5 that differ"),
        ("UPDATE head SET last_id = 'x'", "not supported between"),
        ("DELETE FROM head", "expected the journal node, got nothing"),
        ("UPDATE record SET single = 0 WHERE id = 3", "the kinds it is opened with, got kind 1, single 0"),
        ("UPDATE record SET kind = 9 WHERE id = 3", "got kind 9"),
        ("UPDATE record SET kind = 'x' WHERE id = 3", "got kind x"),
        ("DROP INDEX record_single", "expected the form of a journal"),
        ("PRAGMA application_id = 1", "expected the form of a journal"),
        ("PRAGMA user_version = 0", "expected the form of a journal"),
        ("PRAGMA user_version = 2", "expected version 1, got version 2; a newer MuSigNet wrote it"),
        ("UPDATE head SET journal = 'keyholder'", "expected the journal node, got the journal keyholder"),
    ],
)
def test_a_changed_database_is_refused(folder: DataFolder, journal: Journal, change: str, told: str) -> None:
    journal.append([record(number) for number in range(1, 6)])
    journal.close()
    with closing(sqlite3.connect(folder.path / "node.db", isolation_level=None)) as db:
        db.execute(change)
    for _ in range(2):
        with pytest.raises(IoError, match=told):
            Journal.open(folder, "node", KINDS)


def test_an_index_that_disagrees_with_its_table_is_refused(folder: DataFolder, journal: Journal) -> None:
    journal.append([record(number) for number in range(1, 6)])
    journal.close()
    with closing(sqlite3.connect(folder.path / "node.db", isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")  # the index as it would be without the third record
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'single = 1', 'id <> 3') WHERE name = 'record_single'")
    with closing(sqlite3.connect(folder.path / "node.db", isolation_level=None)) as db:
        db.execute("REINDEX record_single")
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'id <> 3', 'single = 1') WHERE name = 'record_single'")
    with pytest.raises(IoError, match=r"expected a sound database, got .* missing from index record_single"):
        Journal.open(folder, "node", KINDS)


def test_kinds_that_lost_their_promise_are_refused(folder: DataFolder, journal: Journal) -> None:
    journal.append([record(1)])
    journal.close()
    with pytest.raises(IoError, match="kind 1, single 1"):
        Journal.open(folder, "node", [Kind(1, "burn")])
    with pytest.raises(LocalError, match="a number of its own for each"):
        Journal.open(folder, "node", [BURN, Kind(1, "other")])


def test_a_database_that_cannot_hold_a_log_is_refused(folder: DataFolder) -> None:
    with pytest.raises(IoError, match="a write-ahead log, got memory"):
        Journal.open(folder, "node", KINDS, connect=lambda path: sqlite3.connect(":memory:", isolation_level=None))


# --- trouble with the disk --------------------------------------------------------------------------------------------


def filled(journal: Journal) -> IoError:
    """Append until the disk refuses, and return how it did."""
    body = bytes(20_000)
    for number in range(1000):
        try:
            journal.append([Record(NOTE.code, number.to_bytes(4), body)])
        except IoError as error:
            return error
    raise AssertionError("the disk is never full")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(path)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_loses_nothing_and_the_journal_goes_on_when_there_is_room(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(300_000))
    folder = DataFolder.lock(small_disk)
    with Journal.open(folder, "node", KINDS) as journal:
        error = filled(journal)
        acknowledged = journal.last_id
        assert "disk full" in str(error)
        assert "make room; nothing acknowledged is lost" in str(error)
        assert acknowledged > 5
        assert journal.usable
        assert [stored.id for stored in journal.replay()] == list(range(1, acknowledged + 1))
    assert len(reopened(folder)) == acknowledged  # on a disk that is still full
    with Journal.open(folder, "node", KINDS) as journal:
        (small_disk / "ballast").unlink()
        assert journal.append([record(1)]) == [acknowledged + 1]
    assert len(reopened(folder)) == acknowledged + 1
    folder.close()


def test_after_any_other_trouble_the_journal_says_that_it_stopped(folder: DataFolder, journal: Journal) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        error = filled(journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    acknowledged = journal.last_id
    assert acknowledged > 5
    assert "nothing acknowledged is lost" in str(error)
    assert not journal.usable
    for work in (lambda: journal.append([record(1)]), lambda: list(journal.replay()), lambda: journal.prune(0)):
        with pytest.raises(IoError, match=r"takes no more: .*; start again"):
            work()
    journal.close()
    there = reopened(folder)
    assert [stored.id for stored in there[:acknowledged]] == list(range(1, acknowledged + 1))


class Failing:
    """A real connection that fails at the statement that begins with `at`, once it is armed."""

    def __init__(self, error: sqlite3.Error) -> None:
        self.db: sqlite3.Connection
        self.error = error
        self.at = ("never",)

    def __call__(self, path: Path) -> Any:
        self.db = connect_sqlite(path)
        return self

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if sql.startswith(self.at):
            raise self.error
        return self.db.execute(sql, values)

    def close(self) -> None:
        self.db.close()
        raise self.error


def failing(folder: DataFolder, code: int = sqlite3.SQLITE_IOERR) -> tuple[Journal, Failing]:
    error = sqlite3.OperationalError("made up")
    error.sqlite_errorcode = code
    db = Failing(error)
    return Journal.open(folder, "node", KINDS, connect=db, checkpoint_bytes=0), db


def test_a_full_disk_that_cannot_even_be_rolled_back_stops_the_journal(folder: DataFolder) -> None:
    journal, db = failing(folder, sqlite3.SQLITE_FULL)
    db.at = ("INSERT", "ROLLBACK")
    with pytest.raises(IoError, match="made up"):
        journal.append([record(1)])
    assert not journal.usable
    journal.close()
    assert reopened(folder) == []


def test_a_checkpoint_that_fails_refuses_the_next_append_not_the_one_that_is_on_disk(folder: DataFolder) -> None:
    journal, db = failing(folder)
    db.at = ("PRAGMA wal_checkpoint",)
    assert journal.append([record(1)]) == [1]
    assert not journal.usable
    journal.close()
    assert reopened(folder) == expected(1)


def test_a_read_that_fails_is_an_io_error(folder: DataFolder) -> None:
    journal, db = failing(folder)
    db.at = ("SELECT",)
    with pytest.raises(IoError, match="made up: journal"):
        list(journal.replay())
    journal.close()


def test_an_index_that_refuses_what_it_cannot_show_stops_the_journal(folder: DataFolder) -> None:
    journal, db = failing(folder)
    db.db.execute("INSERT INTO record VALUES (1, 3, x'', x'', 0, 0)")  # behind its back: the next id is taken
    with pytest.raises(IoError, match="the index of the records is damaged"):
        journal.append([record(1)])
    assert not journal.usable
    journal.close()


def test_a_last_id_that_cannot_be_written_stops_the_journal_after_the_append(
    folder: DataFolder, journal: Journal
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal.append([record(number) for number in range(1, 61)])
    journal.close()
    with Journal.open(folder, "node", KINDS) as stopped:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            assert stopped.append([]) == []
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not stopped.usable
        with pytest.raises(IoError, match=os.strerror(errno.EFBIG)):
            stopped.append([])


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(IoError, match="takes no more: closed"):
        journal.append([])
