"""What a journal holds: its records, their digests, and the statements that change them (see `store`)."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from ..errors import LocalError
from ..limits import JOURNAL_BODY_MAX_BYTES, JOURNAL_KEY_MAX_BYTES, JOURNAL_PRUNE_MAX_RECORDS

__all__ = [
    "COLUMNS",
    "ID_MAX",
    "AlreadyStored",
    "Change",
    "Forget",
    "Head",
    "Kind",
    "Record",
    "Stored",
    "Transaction",
    "digest",
]

COLUMNS: Final = "id, kind, CAST(key AS BLOB), CAST(body AS BLOB), expires_ms, single"
ID_MAX: Final = 2**63 - 1
_MODULUS: Final = 2**256
_NUMBERS: Final = struct.Struct(">QIQBI")


class AlreadyStored(LocalError):
    """Another record has this kind and key. It stays; nothing of the refused ones was stored."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record: its number on disk and its name for people, and what the journal holds it to.

    Args:
        single:   a key is used once; the same record again is the same record, another body is refused.
        prunable: a record may be deleted after its expiry. Never for burned nonces.
    """

    code: int
    name: str
    single: bool = False
    prunable: bool = False


class Record(NamedTuple):
    """What is to be stored. `expires_ms`: since 1970; 0 for ever, and only that unless the kind is prunable."""

    kind: int
    key: bytes
    body: bytes
    expires_ms: int = 0


class Forget(NamedTuple):
    """The record under this key is to be deleted, whatever its expiry: of a kind that is single and prunable. One that
    is not there is no error."""

    kind: int
    key: bytes


Change: TypeAlias = Record | Forget


class Stored(NamedTuple):
    """A record of the journal. Ids rise in the order of appending; none is ever used twice."""

    id: int
    record: Record


class Head(NamedTuple):
    """What the whole journal must add up to."""

    last_id: int = 0
    records: int = 0
    total: int = 0

    def plus(self, id: int, digest: int) -> Head:
        return Head(id, self.records + 1, (self.total + digest) % _MODULUS)

    def minus(self, digest: int) -> Head:
        return Head(self.last_id, self.records - 1, (self.total - digest) % _MODULUS)


def digest(id: int, kind: int, key: bytes, body: bytes, expires_ms: int, single: int) -> int:
    numbers = _NUMBERS.pack(id, kind, expires_ms, single, len(key))
    return int.from_bytes(hashlib.sha256(numbers + key + body).digest())


class Transaction:
    """The statements between BEGIN and COMMIT, and what the journal will add up to after them."""

    def __init__(self, db: sqlite3.Connection, kinds: Mapping[int, Kind], head: Head) -> None:
        self._db = db
        self._kinds = kinds
        self._before = head
        self.head = head
        self.size = 0

    @property
    def changed(self) -> bool:
        return self.head != self._before

    def attempt(self, changes: Sequence[Change]) -> list[int] | LocalError:
        """Make all of these changes or none."""
        head = self.head
        self._db.execute("SAVEPOINT request")
        try:
            ids = [self._insert(one) if isinstance(one, Record) else self._forget(one) for one in changes]
        except LocalError as error:
            self._db.execute("ROLLBACK TO request")
            self._db.execute("RELEASE request")
            self.head = head
            return error
        self._db.execute("RELEASE request")
        return ids

    def prune(self, now_ms: int) -> int:
        codes = ",".join(str(code) for code, kind in self._kinds.items() if kind.prunable)
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM record WHERE expires_ms > 0 AND expires_ms <= ? AND kind IN ({codes})"
            " ORDER BY expires_ms, id LIMIT ?",
            (now_ms, JOURNAL_PRUNE_MAX_RECORDS),
        ).fetchall()
        for row in rows:
            self._db.execute("DELETE FROM record WHERE id = ?", (row[0],))
            self.head = self.head.minus(digest(*row))
        return len(rows)

    def _insert(self, record: Record) -> int:
        kind = self._kind(record)
        row = (self.head.last_id + 1, *record, int(kind.single))
        try:
            self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            return self._stored(record, kind)
        self.head = self.head.plus(row[0], digest(*row))
        self.size += len(record.key) + len(record.body)
        return row[0]

    def _forget(self, forget: Forget) -> int:
        """Delete a record. Returns the id it had; 0 where it is not there."""
        kind = self._kinds.get(forget.kind)
        if kind is None or not (kind.single and kind.prunable):
            expected = "a kind of single records that may be deleted"
            raise LocalError("record to forget", expected=expected, got=forget.kind)
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM record WHERE kind = ? AND key = ? AND single = 1", forget
        ).fetchall()
        for row in rows:
            self._db.execute("DELETE FROM record WHERE id = ?", (row[0],))
            self.head = self.head.minus(digest(*row))
        return int(rows[0][0]) if rows else 0

    def _stored(self, record: Record, kind: Kind) -> int:
        """Return the id of the record that has the key of this one, if it is the same."""
        found = self._db.execute(
            "SELECT id, body FROM record WHERE kind = ? AND key = ? AND single = 1", (record.kind, record.key)
        ).fetchall()
        if len(found) != 1:
            raise sqlite3.DatabaseError("the index of the records is damaged")
        id, body = found[0]
        if body != record.body:
            raise AlreadyStored(f"a second {kind.name} record under one key", got=record.key.hex())
        return int(id)

    def _kind(self, record: Record) -> Kind:
        kind = self._kinds.get(record.kind)
        if kind is None:
            raise LocalError("record for a journal", expected=f"kind {sorted(self._kinds)}", got=record.kind)
        for what, data, most in (
            ("key", record.key, JOURNAL_KEY_MAX_BYTES),
            ("body", record.body, JOURNAL_BODY_MAX_BYTES),
        ):
            if not isinstance(data, bytes) or len(data) > most:
                got = len(data) if isinstance(data, bytes) else type(data).__name__
                raise LocalError(f"{what} of a {kind.name} record", expected=f"at most {most} bytes", got=got)
        if not 0 <= record.expires_ms <= (ID_MAX if kind.prunable else 0):
            expected = "0 or milliseconds since 1970" if kind.prunable else "0, since it is kept for ever"
            raise LocalError(f"expiry of a {kind.name} record", expected=expected, got=record.expires_ms)
        return kind
