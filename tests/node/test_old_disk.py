"""A machine that comes back with an old copy of its disks, from every step of a session (THREATS.md K4).

Real nodes, keyholders and journals. Bob's disks are copied after each step, then he revokes his approval, or everybody
signs; then he comes back with the copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from pair import Side, World, info_of

from musignet.bitcoin.group import RECEIVE
from musignet.crypto.keys import Identity
from musignet.node.effects import AskKeyholder, Effect, OldDisk, Save, Send, SessionNews, Store
from musignet.node.inputs import CancelSession, JoinGroup, KeyholderReplied, Propose, Saved
from musignet.node.kept import Box
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Outcome, write_end
from musignet.signing.effects import Saved as RecordSaved
from musignet.signing.keyholder import Keyholder
from musignet.signing.records import Topology
from musignet.signing.states import State
from musignet.signing.verbs import Verb
from musignet.sim.disk import Disk
from musignet.wire.envelope import Message
from musignet.wire.messages import Abort, MessageType
from support.ceremony import NOW, account, drawer, identity, perform, signing_group
from support.wallet import MEMBERS, psbt, spend

GROUP = signing_group()
LATER_S = 3.0
"""Long enough for whatever was asked to be done, counted and announced."""

Copy: TypeAlias = tuple[Disk, list[bytes], list[bytes]]
"""Of the messages, the node's journal, and the keyholder's."""


@dataclass(eq=False, repr=False)
class Signer(Side):
    """One member: its messages, the node's journal, and the keyholder with its journal, which are always on disk."""

    node_disk: list[bytes] = field(default_factory=list)
    holder_disk: list[bytes] = field(default_factory=list)
    starts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sign()

    def sign(self) -> None:
        """Join the group with what is on disk."""
        self.starts += 1
        make = drawer((self.label, self.starts))
        self.holder = Keyholder(account(self.label, GROUP), make, list(self.holder_disk))
        sessions = Sessions(GROUP, self.key, bounds=self.limits)
        self.ask(lambda request: JoinGroup(request, sessions, tuple(self.node_disk)))

    def begin(self, *friends: Side) -> None:
        self.restart(*friends)
        self.sign()

    def copy(self) -> Copy:
        assert self.disk is not None
        return self.disk.copy(), list(self.node_disk), list(self.holder_disk)

    def outcomes(self) -> dict[bytes, Outcome]:
        told = [one.news for one in self.news(SessionNews)]
        return {one.session: one for one in told if isinstance(one, Outcome)}

    def open(self) -> list[bytes]:
        """Return the sessions that are open at the node."""
        sessions = self.node.ceremonies._groups[GROUP.id]
        return [one.id for one in sessions if one.outcome is None]

    def completed(self, session: bytes) -> bool:
        """Return whether the node's journal has its signatures."""
        return any(record[:33] == b"\x02" + session for record in self.node_disk)

    def approved(self) -> list[bytes]:
        """Return the sessions that the keyholder would sign."""
        return [one.session for one in self.holder._held.values() if one.state in (State.APPROVED, State.STORING)]


class Table(World):
    """A world whose sides are signers: keyholders answer, and journals are written, in their turn."""

    def join(self, name: str) -> Signer:
        who: Identity = identity(name)
        side = self.sides[who.pubkey] = Signer(who, name, self, disk=Disk())
        return side

    def perform(self, side: Side, effect: Effect) -> None:
        if isinstance(effect, AskKeyholder | Save):
            self.queue.append((side, effect))  # type: ignore[arg-type]
        else:
            super().perform(side, effect)

    def step(self) -> None:
        side, event = self.queue[0]
        if not isinstance(event, AskKeyholder | Save):
            super().step()
            return
        self.queue.popleft()
        assert isinstance(side, Signer)
        if isinstance(event, Save):
            side.node_disk.append(event.save.record)
            side.feed(Saved(event.group, RecordSaved(event.save.session, event.save.number)))
        else:
            verb: Verb = event.verb
            for reply in perform(side.holder, verb, self.now, side.holder_disk):
                side.feed(KeyholderReplied(GROUP.id, reply))  # type: ignore[arg-type]


def met() -> tuple[Table, list[Signer]]:
    """Return three members who are all connected."""
    table = Table(NOW)
    signers = [table.join(name) for name in MEMBERS]
    for one in signers:
        for other in signers:
            if other is not one:
                one.add(info_of(other.identity, other.label))
    for near, far in ((0, 1), (0, 2), (1, 2)):
        signers[near].dial(signers[far].key)
    table.run()
    return table, signers


def propose(table: Table, signer: Signer, topology: Topology, first_coin: int = 0) -> bytes:
    coins = ((RECEIVE, first_coin),)
    made = psbt(GROUP.wallet, *spend(GROUP.wallet, coins=coins, first_outpoint=first_coin)).serialize()
    request = signer.ask(lambda number: Propose(number, GROUP.id, made, table.now + 3600, "", topology))
    (reply,) = signer.replies(request)
    return reply.session


def begin_again(table: Table, bob: Signer, others: list[Signer], copy: Copy) -> None:
    """Bob's machine is gone; another one begins with the copy."""
    table.crash(bob)
    table.run()
    bob.disk, bob.node_disk, bob.holder_disk = copy
    bob.begin(*others)
    table.run()


def come_back(table: Table, bob: Signer, others: list[Signer], copy: Copy) -> None:
    """The same, and it meets the others."""
    begin_again(table, bob, others, copy)
    for other in others:
        bob.dial(other.key)
    table.wait(LATER_S)


def leave(table: Table, *signers: Signer) -> None:
    """Nobody hears of these any more."""
    for one in signers:
        table.crash(one)
        del table.sides[one.key]


def arrive(table: Table, signer: Signer, others: list[Signer]) -> None:
    """One who had left is there again, and dials the others."""
    table.sides[signer.key] = signer
    signer.begin(*others)
    for other in others:
        signer.dial(other.key)


def proposed(topology: Topology, steps: int) -> tuple[Table, list[Signer], bytes]:
    """Return members with a session that has come so far."""
    table, signers = met()
    session = propose(table, signers[0], topology)
    for _ in range(steps):
        if table.queue:
            table.step()
    return table, signers, session


def steps_of(topology: Topology) -> int:
    table, _, _ = proposed(topology, 0)
    count = 0
    while table.queue:
        table.step()
        count += 1
    return count


def count_of(disk: Disk | None) -> int:
    assert disk is not None
    return disk.restore().changes


EVERY_STEP = [(topology, step) for topology in Topology for step in range(steps_of(topology) + 1)]


@pytest.mark.parametrize("revoked", [True, False], ids=["revoked", "signed"])
@pytest.mark.parametrize(("topology", "step"), EVERY_STEP)
def test_from_every_step_nothing_old_stays_open_or_approved(topology: Topology, step: int, revoked: bool) -> None:
    table, signers, session = proposed(topology, step)
    alice, bob, carol = signers
    copy = bob.copy()
    if revoked:
        bob.ask(lambda request: CancelSession(request, session))
    table.wait(LATER_S)
    old = count_of(copy[0]) < count_of(bob.disk)
    assert old or session not in bob.outcomes()
    come_back(table, bob, [alice, carol], copy)
    assert len(bob.news(OldDisk)) == old
    assert bob.open() == []
    assert [one for one in bob.approved() if not bob.completed(one)] == []
    come_back(table, bob, [alice, carol], bob.copy())
    assert (bob.news(OldDisk), bob.open()) == ([], [])
    another = propose(table, alice, topology, first_coin=10)
    table.wait(LATER_S)
    assert [one.outcomes()[another].end for one in signers] == [End.COMPLETED] * 3


# --- one that is open, and was revoked since the copy -----------------------------------------------------------------


def without_carol() -> tuple[Table, list[Signer], bytes]:
    """Return members of whom carol has left, and a session that the others approved."""
    table, signers = met()
    leave(table, signers[2])
    table.run()
    session = propose(table, signers[0], Topology.MESH)
    table.wait(LATER_S)
    return table, signers, session


def revoked() -> tuple[Table, list[Signer], bytes, Copy]:
    """Return members without carol, a session that bob approved and then revoked, and his disks from in between."""
    table, signers, session = without_carol()
    bob = signers[1]
    copy = bob.copy()
    assert (bob.open(), bob.approved()) == ([session], [session])
    bob.ask(lambda request: CancelSession(request, session))
    table.wait(LATER_S)
    assert bob.approved() == []
    return table, signers, session, copy


def proving(bob: Signer) -> bool:
    return any(kept.box is Box.CHANGES and kept.envelope for one in bob.all(Store) for kept in one.puts)


def test_the_session_ends_in_a_word_of_its_own_and_the_others_are_told_why() -> None:
    table, (alice, bob, carol), session, copy = revoked()
    come_back(table, bob, [alice, carol], copy)
    outcome = bob.outcomes()[session]
    assert outcome.end is End.OLD_DISK
    assert "alice" in str(outcome.error)
    (news,) = bob.news(OldDisk)
    assert outcome.error is news.error
    assert bob.node_disk[-2] == write_end(session, End.OLD_DISK, b""), "the ends first, then that it was done"
    assert bob.node_disk[-1][0] == 3
    sent = [Message.from_bytes(one.data) for one in bob.all(Send)]
    (abort,) = [one.content for one in sent if one.type == MessageType.ABORT]
    assert isinstance(abort, Abort)
    assert "came back with an old disk" in abort.text
    come_back(table, bob, [alice, carol], bob.copy())
    assert bob.outcomes()[session].end is End.OLD_DISK
    assert bob.approved() == []


def test_a_crash_once_the_proof_is_on_disk_leaves_nothing_open_either() -> None:
    table, (alice, bob, carol), session, copy = revoked()
    begin_again(table, bob, [alice, carol], copy)
    bob.dial(alice.key)
    while not proving(bob):
        table.step()
    assert (bob.news(OldDisk), bob.open()) == ([], [session]), "nothing ends before the proof is on disk"
    table.crash(bob, writes=True)
    come_back(table, bob, [alice, carol], bob.copy())
    assert bob.news(OldDisk) == [], "it was counted past what was shown"
    assert bob.outcomes()[session].end is End.OLD_DISK
    assert (bob.open(), bob.approved()) == ([], [])


def test_a_group_that_is_joined_after_the_proof_has_its_sessions_ended_too() -> None:
    table, (alice, bob, carol), session, copy = revoked()
    table.crash(bob)
    table.run()
    bob.disk, bob.node_disk, bob.holder_disk = copy
    bob.restart(alice, carol)
    bob.dial(alice.key)
    table.wait(LATER_S)
    assert len(bob.news(OldDisk)) == 1
    bob.sign()
    table.wait(LATER_S)
    assert bob.outcomes()[session].end is End.OLD_DISK
    assert bob.approved() == []


def test_what_was_opened_since_this_start_goes_on_also_after_the_next_one() -> None:
    table, (alice, bob, carol), session, copy = revoked()
    begin_again(table, bob, [alice, carol], copy)
    fresh = propose(table, bob, Topology.MESH, first_coin=10)
    bob.dial(alice.key)
    table.wait(LATER_S)
    assert (len(bob.news(OldDisk)), bob.outcomes()[session].end) == (1, End.OLD_DISK)
    assert (bob.open(), bob.approved()) == ([fresh], [fresh])
    come_back(table, bob, [alice, carol], bob.copy())
    assert (bob.open(), bob.approved()) == ([fresh], [fresh])
    arrive(table, carol, [alice, bob])
    table.wait(LATER_S)
    assert bob.outcomes()[fresh].end is End.COMPLETED


def test_a_partial_signature_that_left_is_counted_though_the_session_is_never_completed() -> None:
    table, (alice, bob, carol), session = without_carol()
    assert count_of(bob.disk) == 1
    arrive(table, carol, [alice, bob])
    while MessageType.PARTIAL_SIGNATURE not in [Message.from_bytes(one.data).type for one in bob.all(Send)]:
        table.step()
    leave(table, alice, carol)
    table.wait(LATER_S)
    assert not bob.completed(session)
    assert count_of(bob.disk) == 2
