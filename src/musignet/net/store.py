"""The journals: what a node and its keyholder must still know after a crash. Disk before wire (DESIGN.md).

A journal is an append-only table of records in an SQLite database of its own. Two stand in one data folder, the
keyholder's and the node's. `append` returns when the records are on disk; a second record under the same key of a
`single` kind, with another body, is refused by the database itself: the last line of defence for burned nonces.

No secret is ever stored: no wallet key, no secret nonce, no passphrase (THREATS.md K4). Bodies are opaque here; those
who make them answer for that. The files are not encrypted: they tell who signs what with whom.

What the disk gives back is believed only as a whole. Each commit also writes the count of the records and the sum of
their digests; and after each commit the last id goes to a small file beside the database (`.last`, written, not
synced), which shows when the end of the journal is missing, where SQLite takes damage in its log for the end. A journal
that fails any check is not opened, and nothing is signed. The digests have no key: they find damage, not a forger. An
older copy of the whole folder passes; peers find that one (K4).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from ..errors import IoError, LocalError, NetworkError
from ..limits import JOURNAL_CHECKPOINT_BYTES, JOURNAL_PAGE_RECORDS
from .folder import DataFolder
from .lastid import REFUSED, LastId
from .records import COLUMNS, ID_MAX, AlreadyStored, Change, Forget, Head, Kind, Record, Stored, Transaction, digest

__all__ = ["AlreadyStored", "Change", "Forget", "Journal", "Kind", "Record", "Stored", "connect_sqlite"]

_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4D754A31  # "MuJ1"
_SCHEMA: Final = (
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), journal TEXT, last_id INTEGER, count INTEGER,"
    " total BLOB)",
    "CREATE TABLE record (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL,"
    " expires_ms INTEGER NOT NULL, single INTEGER NOT NULL)",
    "CREATE INDEX record_expiry ON record (expires_ms) WHERE expires_ms > 0",
    "CREATE UNIQUE INDEX record_single ON record (kind, key) WHERE single = 1",
)
_PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE",  # before the log is touched: then its index is memory of ours, no third file
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: a plain fsync leaves the data in the drive's cache
    "checkpoint_fullfsync = ON",
    "wal_autocheckpoint = 0",  # SQLite's own checkpoints swallow their errors
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "mmap_size = 0",
    "temp_store = MEMORY",
)
_COMMIT_BYTES: Final = 4 * 4096  # what a commit writes besides its records: head, table, index, one to spare


def connect_sqlite(path: Path) -> sqlite3.Connection:
    """Return a connection in autocommit mode. Threads may take turns with it (`Writer`), never at once."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


class Journal:
    """An open journal. Use `Journal.open`. One thread at a time.

    An append that raises IoError is not acknowledged; whether its records are there shows at the next start. After
    a full disk the journal goes on when there is room again (`usable`); after any other trouble it refuses all work,
    since what a disk says after a failed write or sync cannot be trusted: start the process again.
    """

    def __init__(
        self, path: Path, kinds: Mapping[int, Kind], db: sqlite3.Connection, last: LastId, checkpoint_bytes: int
    ) -> None:
        self._path = path
        self._kinds = kinds
        self._db = db
        self._last = last
        self._checkpoint_bytes = checkpoint_bytes
        self._head = Head()
        self._broken = ""
        self._unsettled_bytes = 0

    @classmethod
    def open(
        cls,
        folder: DataFolder,
        name: str,
        kinds: Sequence[Kind],
        *,
        connect: Callable[[Path], sqlite3.Connection] = connect_sqlite,
        checkpoint_bytes: int = JOURNAL_CHECKPOINT_BYTES,
    ) -> Journal:
        """Open the journal `name` of a folder that is locked, or begin it. Reads and checks every record.

        Raises: IoError when it is damaged, of a newer version, another journal, not private, or in use.
        """
        by_code = {kind.code: kind for kind in kinds}
        if len(by_code) != len(kinds):
            raise LocalError("kinds of a journal", expected="a number of its own for each")
        path = folder.path / f"{name}.db"
        with _refusing(path):
            folder.check_private()
            begun = folder.has(path.name)
            folder.has(f"{path.name}-wal")
            last = LastId(folder, f"{name}.last")
            if not begun:
                folder.create(path.name)
            journal = None
            try:
                journal = cls(path, by_code, connect(path), last, checkpoint_bytes)
                journal._start(folder, name)
            except BaseException:
                (journal or last).close()
                raise
        return journal

    @property
    def usable(self) -> bool:
        """Whether it still takes records."""
        return not self._broken

    @property
    def last_id(self) -> int:
        """The id of the last record on disk; 0 before the first."""
        return self._head.last_id

    def append(self, records: Sequence[Change]) -> list[int]:
        """Store all of these records or none, and return their ids when they are on disk. `Forget` takes one away.

        A record of a `single` kind that is there already, with the same body, gets the id it has.
        Raises: AlreadyStored; LocalError for records that cannot be; IoError, see the class.
        """
        outcome = self.append_many([records])[0]
        if isinstance(outcome, LocalError):
            raise outcome
        return outcome

    def append_many(self, requests: Sequence[Sequence[Change]]) -> list[list[int] | LocalError]:
        """Store many requests in one commit. Each is judged alone, as by `append`: its ids, or why it is refused."""
        with self._commit() as transaction:
            outcomes = [transaction.attempt(records) for records in requests]
        return outcomes

    def prune(self, now_ms: int) -> int:
        """Delete records of prunable kinds whose expiry is past. Return how many: at most
        `JOURNAL_PRUNE_MAX_RECORDS`, so call again when it was that many. Raises IoError."""
        with self._commit() as transaction:
            count = transaction.prune(now_ms)
        return count

    def replay(self) -> Iterator[Stored]:
        """Yield the records that are there now, in the order of their ids. Raises IoError."""
        at, end = 0, self._head.last_id
        while rows := self._page(at, end):
            for row in rows:
                yield Stored(row[0], Record(*row[1:5]))
            at = rows[-1][0]

    def close(self) -> None:
        """Close it. Records that were acknowledged are on disk whether or not this is called. Twice is harmless."""
        self._broken = self._broken or "closed"
        with suppress(sqlite3.Error):
            self._db.close()
        self._last.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- opening ------------------------------------------------------------------------------------------------------

    def _start(self, folder: DataFolder, name: str) -> None:
        for pragma in _PRAGMAS:
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        mode = self._value("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise IoError(f"journal {self._path}", expected="a disk that can hold a write-ahead log", got=mode)
        if self._last.id == 0 and self._is_blank():
            self._begin(name)
        self._check_form(name)
        self._check_records()
        self._checkpoint("TRUNCATE")
        self._check_usable()
        self._last.begin(self._head.last_id)
        folder.sync()

    def _value(self, sql: str) -> object:
        return self._db.execute(sql).fetchall()[0][0]

    def _is_blank(self) -> bool:
        """Whether nothing was ever committed: it is new, or its first start was cut short."""
        return (self._value("PRAGMA user_version"), self._value("SELECT count(*) FROM sqlite_schema")) == (0, 0)

    def _begin(self, name: str) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute("INSERT INTO head VALUES (1, ?, 0, 0, ?)", (name, bytes(32)))
        self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("COMMIT")

    def _check_form(self, name: str) -> None:
        version = self._value("PRAGMA user_version")
        if isinstance(version, int) and version > _VERSION and self._value("PRAGMA application_id") == _APPLICATION_ID:
            hint = "a newer MuSigNet wrote it; start that one"
            raise IoError(f"journal {self._path}", expected=f"version {_VERSION}", got=f"version {version}", hint=hint)
        form = (version, self._value("PRAGMA application_id"))
        schema = tuple(row[0] for row in self._db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall())
        if form != (_VERSION, _APPLICATION_ID) or schema != _SCHEMA:
            raise self._damaged("the form of a journal", "another one")
        told = self._value("PRAGMA integrity_check(1)")  # quick_check would not compare the index with the table
        if told != "ok":
            raise self._damaged("a sound database", told)
        names = [str(row[0]) for row in self._db.execute("SELECT journal FROM head").fetchall()]
        if names != [name]:
            got = f"the journal {names[0]}" if names else "nothing"
            raise IoError(f"journal {self._path}", expected=f"the journal {name}", got=got)

    def _check_records(self) -> None:
        last_id, count, total = self._db.execute("SELECT last_id, count, CAST(total AS BLOB) FROM head").fetchall()[0]
        head = Head(last_id, count, int.from_bytes(total))
        seen, at = Head(), 0
        while rows := self._page(at, ID_MAX):
            for row in rows:
                seen = seen.plus(row[0], self._row_digest(row))
            at = rows[-1][0]
        if (seen.records, seen.total) != (head.records, head.total) or seen.last_id > head.last_id:
            raise self._damaged(f"{head.records} records with their sum", f"{seen.records} that differ")
        if head.last_id < self._last.id:
            raise self._damaged(f"records up to number {self._last.id}", f"up to number {head.last_id}")
        self._head = head

    def _row_digest(self, row: Sequence[object]) -> int:
        kind = self._kinds.get(row[1]) if isinstance(row[1], int) else None
        if kind is None or row[5] != kind.single:
            raise self._damaged("records of the kinds it is opened with", f"kind {row[1]}, single {row[5]}")
        return digest(*row)  # type: ignore[arg-type]

    def _damaged(self, expected: str, got: object) -> IoError:
        return IoError(f"damaged journal {self._path}", expected=expected, got=got, hint=REFUSED)

    # --- working ------------------------------------------------------------------------------------------------------

    def _page(self, at: int, end: int) -> list[tuple[int, int, bytes, bytes, int, int]]:
        self._check_usable()
        try:
            return self._db.execute(
                f"SELECT {COLUMNS} FROM record WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
                (at, end, JOURNAL_PAGE_RECORDS),
            ).fetchall()
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _check_usable(self) -> None:
        if self._broken:
            raise IoError(f"journal {self._path} takes no more: {self._broken}", hint="start again")

    @contextmanager
    def _commit(self) -> Iterator[Transaction]:
        self._check_usable()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            transaction = Transaction(self._db, self._kinds, self._head)
            yield transaction
            if transaction.changed:
                head = transaction.head
                numbers = (head.last_id, head.records, head.total.to_bytes(32))
                self._db.execute("UPDATE head SET last_id = ?, count = ?, total = ?", numbers)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._trouble(error) from error
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._settle(transaction)

    def _settle(self, transaction: Transaction) -> None:
        """After a commit. It stands: trouble from here on is for the next call to tell."""
        self._head = transaction.head
        self._unsettled_bytes += transaction.size + _COMMIT_BYTES
        try:
            self._last.write(self._head.last_id)
        except OSError as error:
            self._broken = str(error)
        if self._unsettled_bytes >= self._checkpoint_bytes:
            self._checkpoint("PASSIVE")

    def _checkpoint(self, mode: str) -> None:
        """Copy the log into the database. A full disk leaves it to the next time."""
        try:
            self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            self._unsettled_bytes = 0
        except sqlite3.Error as error:
            self._trouble(error)

    def _trouble(self, error: sqlite3.Error) -> IoError:
        """Undo what is under way, and say what happened. Only a full disk is known to have left all as it was."""
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            full = False
        if full:
            return IoError(f"disk full: journal {self._path}", hint="make room; nothing acknowledged is lost")
        self._broken = str(error)
        return IoError(f"{error}: journal {self._path}", hint="nothing acknowledged is lost; start again")


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn all that a damaged or foreign file can raise while it is opened into an IoError."""
    try:
        yield
    except NetworkError:
        raise
    except (sqlite3.Error, OSError, ValueError, TypeError, OverflowError, struct.error) as error:
        raise IoError(f"journal {path}: {error}", hint=REFUSED) from error
