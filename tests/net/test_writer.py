"""The writer: what waits shares a commit, and each future tells of its own records."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from musignet.errors import IoError, LocalError
from musignet.limits import JOURNAL_GROUP_MAX_RECORDS, JOURNAL_WAITING_MAX_RECORDS
from musignet.net.folder import DataFolder
from musignet.net.store import AlreadyStored, Journal, Record
from musignet.net.writer import Writer
from support.journals import BURN, KINDS, NOTE, expected, record


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(DataFolder.lock(tmp_path / "data")) as folder, Journal.open(folder, "node", KINDS) as opened:
        yield opened


def run(journal: Journal, body: Callable[[Writer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        writer = Writer(journal)
        await body(writer)
        await writer.close()
        await writer.close()

    asyncio.run(main())


def test_what_waits_shares_a_commit_in_the_order_of_the_calls(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        futures = [writer.append([record(number)]) for number in range(1, 201)]
        assert await asyncio.gather(*futures) == [[number] for number in range(1, 201)]
        assert writer.commits == 1
        assert await writer.append([record(201)]) == [201]
        assert writer.commits == 2

    run(journal, body)
    assert list(journal.replay()) == expected(201)


def test_a_future_is_done_only_when_its_records_are_on_disk(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        for number in range(1, 50):
            future = writer.append([record(number)])
            future.add_done_callback(lambda _, number=number: seen.append(journal.last_id >= number))  # type: ignore[misc]
            await future

    seen: list[bool] = []
    run(journal, body)
    assert seen == [True] * 49


def test_a_refused_request_is_refused_alone(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        good = writer.append([Record(BURN.code, b"n", b"1")])
        bad = writer.append([Record(BURN.code, b"n", b"2")])
        other = writer.append([record(2)])
        with pytest.raises(AlreadyStored):
            await bad
        assert (await good, await other) == ([1], [2])

    run(journal, body)


def test_a_commit_has_a_largest_size_and_one_request_any(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        note = Record(NOTE.code, b"", b"")
        sizes = (JOURNAL_GROUP_MAX_RECORDS + 1, JOURNAL_GROUP_MAX_RECORDS - 1, 1, 1)
        await asyncio.gather(*(writer.append([note] * size) for size in sizes))
        assert writer.commits == 3

    run(journal, body)


def test_too_much_waiting_is_refused_at_once(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        note = Record(NOTE.code, b"", b"")
        first = writer.append([note] * (JOURNAL_WAITING_MAX_RECORDS + 1))
        with pytest.raises(LocalError, match="too much waits for the disk"):
            writer.append([note])
        await first
        await writer.append([note])

    run(journal, body)


def test_a_cancelled_future_takes_nothing_back(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        writer.append([record(1)]).cancel()
        assert await writer.append([record(2)]) == [2]

    run(journal, body)
    assert list(journal.replay()) == expected(2)


def test_closing_stores_what_waits_and_takes_no_more(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        future = writer.append([record(1)])
        await writer.close()
        assert future.result() == [1]
        with pytest.raises(LocalError, match="closed"):
            writer.append([record(2)])

    run(journal, body)


def test_trouble_with_the_disk_reaches_everybody_who_waits(journal: Journal) -> None:
    async def body(writer: Writer) -> None:
        journal.close()
        futures = [writer.append([record(number)]) for number in (1, 2)]
        for outcome in await asyncio.gather(*futures, return_exceptions=True):
            assert isinstance(outcome, IoError)
            assert not isinstance(outcome, sqlite3.Error)

    run(journal, body)
