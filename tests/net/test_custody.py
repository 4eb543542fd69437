"""A keyholder with its journal and clocks: secret nonces do not outlive a jump, and records come before answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from musignet import limits
from musignet.errors import IoError, SerializationError
from musignet.net import custody
from musignet.net.clock import readings
from musignet.net.cosigner import HolderHere
from musignet.net.custody import KEYHOLDER_KINDS, Custody, row
from musignet.net.folder import DataFolder
from musignet.net.store import Journal
from musignet.signing import journal
from musignet.signing.clockjump import Readings
from musignet.signing.records import Approval, PublicNonce, decode_untrusted
from musignet.signing.verbs import (
    Approve,
    Approved,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    Reply,
)
from musignet.wire.messages import MessageType
from support.ceremony import account, proposal, say, signing_group

NAMES = ("alice", "bob", "carol")
GROUP = signing_group()


class Clocks:
    """The real ones, until the machine sleeps."""

    def __init__(self) -> None:
        self.slept_s = 0.0
        self.at = 100.0

    def __call__(self) -> Readings:
        self.at += 0.001
        return Readings(1e9 + self.at + self.slept_s, self.at, self.at + self.slept_s)


class One:
    """One member's keyholder, with its last answer."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.clocks = Clocks()
        self.said: list[Reply] = []
        self.folder = DataFolder.lock(folder / name)
        self.custody = Custody(account(name, GROUP), self.folder, self.said.append, self.clocks)

    def close(self) -> None:
        self.custody.close()
        self.folder.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[dict[str, One]]:
    made = {name: One(name, tmp_path) for name in NAMES}
    yield made
    for one in made.values():
        one.close()


def nonces(three: dict[str, One], attempt: int = 1) -> tuple[bytes, tuple[object, ...]]:
    """Bring all to the point where alice can sign. Returns the session and what the others sent her."""
    verb = proposal("alice", expires_at=time.time() + 3600)
    sent = []
    for one in three.values():
        one.custody.ask(Approve(verb))
        assert isinstance(one.said[-1], Approved)
    digest = three["alice"].said[-1].digest  # type: ignore[union-attr]
    approvals = {name: say(name, MessageType.APPROVAL, verb.session, Approval(digest)) for name in NAMES}
    for one in three.values():
        others = tuple(approvals[name] for name in NAMES if name != one.name)
        one.custody.ask(MakeNonces(verb.session, attempt, others))
        made = one.said[-1]
        assert isinstance(made, NoncesMade)
        if one.name != "alice":
            sent.append(say(one.name, MessageType.PUBLIC_NONCE, verb.session, made.payload))
    return verb.session, tuple(sent)


def test_the_clocks_that_are_read_count_what_this_process_computes() -> None:
    before = readings()
    sum(range(100_000))
    assert before.busy < readings().busy


def test_it_signs_when_nothing_happened_to_the_machine(three: dict[str, One]) -> None:
    session, sent = nonces(three)
    alice = three["alice"]
    assert alice.custody.wait_s() == limits.CLOCK_TICK_S
    alice.custody.wake()
    alice.custody.ask(MakePartials(session, 1, sent))  # type: ignore[arg-type]
    assert isinstance(alice.said[-1], PartialsMade)


def test_each_nonce_has_a_draw_of_its_own_from_the_operating_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """THREATS.md K12: none is derived from another, from a key or from a counter."""
    assert custody.token_bytes is secrets.token_bytes
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(secrets.token_bytes(size))
        return drawn[-1]

    monkeypatch.setattr(custody, "token_bytes", draw)
    alice = request.getfixturevalue("three")["alice"]
    drawn.clear()
    nonces(request.getfixturevalue("three"))
    made = decode_untrusted(MessageType.PUBLIC_NONCE, alice.said[-1].payload)
    assert isinstance(made, PublicNonce)
    assert [len(one) for one in drawn].count(32) == len(NAMES) * len(made.nonces) // limits.PUBLIC_NONCE_BYTES
    assert len(set(drawn)) == len(drawn)


def test_a_jump_is_seen_immediately_before_signing(three: dict[str, One]) -> None:
    session, sent = nonces(three)
    alice = three["alice"]
    epoch = alice.custody.keyholder.epoch
    alice.clocks.slept_s = 3.0
    alice.custody.ask(MakePartials(session, 1, sent))  # type: ignore[arg-type]
    lost, refused = alice.said[-2:]
    assert (type(lost), type(refused)) == (AttemptLost, Refused)
    assert alice.custody.keyholder.epoch != epoch
    assert alice.custody.wait_s() is None


def test_a_jump_between_the_burn_record_and_the_signature_is_seen(three: dict[str, One]) -> None:
    """The disk may take its time, and the machine may sleep in it."""
    session, sent = nonces(three)
    alice = three["alice"]
    store = alice.custody._journal.append

    def slow(records: object) -> list[int]:
        alice.clocks.slept_s = 3.0
        return store(records)  # type: ignore[arg-type]

    alice.custody._journal.append = slow  # type: ignore[method-assign]
    alice.custody.ask(MakePartials(session, 1, sent))  # type: ignore[arg-type]
    assert not any(isinstance(one, PartialsMade) for one in alice.said)
    kinds = [one.record.kind for one in alice.custody._journal.replay()]
    assert kinds.count(2) == 1, "the attempt is burned"
    assert kinds.count(3) == 0, "nothing is signed"


def test_a_jump_is_seen_by_the_ticker_too(three: dict[str, One]) -> None:
    nonces(three)
    alice = three["alice"]
    alice.clocks.slept_s = 3.0
    alice.custody.wake()
    assert isinstance(alice.said[-1], AttemptLost)


def test_a_record_comes_before_the_answer_that_follows_from_it(three: dict[str, One]) -> None:
    alice = three["alice"]

    def full(_: object) -> list[int]:
        raise IoError("disk full")

    alice.custody._journal.append = full  # type: ignore[method-assign,assignment]
    with pytest.raises(IoError):
        alice.custody.ask(Approve(proposal("alice", expires_at=time.time() + 60)))
    assert not any(isinstance(one, Approved) for one in alice.said)


def test_a_journal_that_makes_no_sense_is_not_signed_with(tmp_path: Path) -> None:
    """Whole by its sums, and yet it cannot be: the journal is closed again, and can be looked at."""
    folder = DataFolder.lock(tmp_path / "d")
    name = f"keyholder-{GROUP.id.hex()[:16]}"
    with Journal.open(folder, name, KEYHOLDER_KINDS) as kept:
        gap = journal.write(journal.NoncesOut(bytes(32), 1, bytes(8), bytes(32)))
        kept.append([row(gap)])
    with pytest.raises(SerializationError, match="gap"):
        Custody(account("alice", GROUP), folder, print)
    Journal.open(folder, name, KEYHOLDER_KINDS).close()
    folder.close()


def test_in_the_nodes_process_the_ticker_runs_on_the_loop(tmp_path: Path) -> None:
    async def main() -> None:
        folder = DataFolder.lock(tmp_path / "d")
        said: list[Reply] = []
        lost = asyncio.Event()

        def answer(reply: Reply) -> None:
            said.append(reply)
            if isinstance(reply, AttemptLost):
                lost.set()

        holder = HolderHere(account("alice", GROUP), folder, answer)
        clocks = Clocks()
        holder.custody._clocks = clocks
        holder.custody._jumps._last = clocks()
        verb = proposal("alice", expires_at=time.time() + 3600)
        holder.ask(Approve(verb))
        assert isinstance(said[-1], Approved)
        approvals = tuple(
            say(name, MessageType.APPROVAL, verb.session, Approval(said[-1].digest)) for name in NAMES[1:]
        )
        holder.ask(MakeNonces(verb.session, 1, approvals))
        clocks.slept_s = 9.0
        await asyncio.wait_for(lost.wait(), 10)
        holder.close()
        folder.close()

    asyncio.run(main())


def test_a_ticker_whose_journal_fails_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        folder = DataFolder.lock(tmp_path / "d")
        holder = HolderHere(account("alice", GROUP), folder, print)

        def fail() -> None:
            raise IoError("disk gone")

        holder.custody.wake = fail  # type: ignore[method-assign]
        holder._wake()
        assert "disk gone" in caplog.text
        holder.close()
        folder.close()

    asyncio.run(main())
