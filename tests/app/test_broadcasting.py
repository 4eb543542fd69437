"""What is finished is passed on by itself: until it is taken, whatever the backend says before, and not for ever."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.nodes import RunningNode, make_data
from musignet.app.chain.base import BroadcastRefused
from musignet.app.chain.broadcasting import Broadcasting
from musignet.errors import ConnectionError, LocalError, NetworkError

RAW, TXID = b"a transaction", bytes(range(32))
DOWN, SPENT = ConnectionError("nobody answers"), BroadcastRefused("missing-inputs")


@dataclass
class _Chain:
    """A backend that answers with these, one after the other, and then takes what it is given."""

    answers: list[NetworkError]
    taken: list[bytes] = field(default_factory=list)
    busy: int = 0

    @property
    def backend(self) -> _Chain:
        return self

    def broadcast(self, raw: bytes) -> bytes:
        self.busy += 1
        assert self.busy == 1, "one after the other"
        try:
            if self.answers:
                raise self.answers.pop(0)
            self.taken.append(raw)
            return TXID
        finally:
            self.busy -= 1


class _Entry:
    """A complete session."""

    def __init__(self, number: int = 0, *, expires_in_s: float = 60.0, finished: bool = True) -> None:
        self.id = bytes((number,)) * 32
        self.raw = RAW
        self.expires_at = time.time() + expires_in_s
        self._finished = finished

    def proposal(self) -> _Entry:
        return self

    def transaction(self) -> _Entry:
        if not self._finished:
            raise LocalError("inputs of strangers are not signed yet")
        return self


def passed_on(chain: _Chain, *entries: _Entry, twice: bool = False) -> list[tuple[bytes, str, str]]:
    """Return what is told of these until nothing more is tried."""
    told: list[tuple[bytes, str, str]] = []

    async def main() -> None:
        unknown: Any = (chain, *entries)
        made = Broadcasting(unknown[0], lambda *said: told.append(said), pause=(0.001, 0.002))
        for entry in unknown[1:] * (2 if twice else 1):
            made.finished(entry)
        async with asyncio.timeout(10):
            await asyncio.gather(*made._tasks)
        await made.stop()

    asyncio.run(main())
    return told


def test_it_is_tried_until_it_is_taken_and_each_reason_is_said_once() -> None:
    chain = _Chain([DOWN, DOWN, DOWN, SPENT, SPENT])
    told = passed_on(chain, _Entry())
    assert [(txid, error.partition(":")[0]) for _, txid, error in told] == [
        ("", "nobody answers"), ("", "the transaction was not accepted"), (TXID[::-1].hex(), ""),
    ]  # fmt: skip
    assert chain.taken == [RAW]


def test_a_session_that_is_told_again_is_passed_on_once_and_several_wait_for_each_other() -> None:
    chain = _Chain([DOWN])
    told = passed_on(chain, _Entry(1), _Entry(2), _Entry(3), twice=True)
    assert {session[0] for session, txid, _ in told if txid} == {1, 2, 3}
    assert len(chain.taken) == 3


@pytest.mark.parametrize("entry", [_Entry(expires_in_s=-1), _Entry(finished=False)], ids=["expired", "not finished"])
def test_what_has_expired_or_is_not_finished_is_passed_on_to_nobody(entry: _Entry) -> None:
    chain = _Chain([])
    assert (passed_on(chain, entry), chain.taken) == ([], [])


def test_a_backend_that_is_down_is_asked_until_the_proposal_expires_and_no_longer() -> None:
    chain = _Chain([DOWN] * 10_000)
    assert len(passed_on(chain, _Entry(expires_in_s=0.1))) == 1
    assert chain.answers


def test_stopping_ends_the_tries() -> None:
    async def main() -> None:
        tried = asyncio.Event()
        unknown: Any = (_Chain([DOWN]), _Entry())
        made = Broadcasting(unknown[0], lambda *_: tried.set(), pause=(60.0, 60.0))
        made.finished(unknown[1])
        async with asyncio.timeout(5):
            await tried.wait()
            await made.stop()

    asyncio.run(main())


def test_without_a_backend_a_node_that_shall_pass_on_does_not_start(tmp_path: Path) -> None:
    make_data(tmp_path / "alice", "alice", chain_broadcast=True)
    with RunningNode(tmp_path / "alice", "alice") as node:
        node.expect(r"Error: \[chain\] broadcast passes on to nobody; name a backend")
        assert node.process.wait(10) == 1
