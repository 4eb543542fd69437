"""Whatever members say of a session, in whatever order: `handle` raises nothing, and it ends once, by its expiry."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from musignet.errors import LocalError
from musignet.limits import ATTEMPTS_MAX
from musignet.signing import records
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import Outcome, Publish, Save, Saved
from musignet.signing.records import (
    AggregateNonces,
    AggregateShown,
    Approval,
    AttemptBegin,
    AttemptFailed,
    AttemptGone,
    ListWanted,
    NonceList,
    PartialSignature,
    PublicNonce,
    Topology,
    TransactionComplete,
    encode,
)
from musignet.signing.session import Present, SessionInput
from musignet.signing.verbs import (
    Approve,
    Approved,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    StatusIs,
    Wiped,
    Woken,
)
from musignet.wire.codec import Record
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.ceremony import NOW, identity, proposal, say, signing_group
from support.wallet import MEMBERS

EVERYBODY = [identity(name).pubkey for name in MEMBERS]
EPOCHS = (b"epoch 1.", b"epoch 2.")
POINTS = [identity(one).pubkey + identity(other).pubkey for one, other in ("xy", "yx", "xx")]
ONE = bytes(31) + b"\x01"
PROPOSALS = {topology: proposal(topology=topology, inputs=1) for topology in Topology}
EVENTS, SEEDS, BLOCK = 80, 240, 20


class Member:
    """One member's session, whose keyholder and disk answer mostly, and whose peers say anything."""

    def __init__(self, seed: int, topology: Topology) -> None:
        self.draw = Random(seed)
        self.proposal = PROPOSALS[topology]
        self.id = self.proposal.session
        self.now = NOW
        self.said: list[VerifiedMessage] = []
        self.ends: list[Outcome] = []
        self.sessions = Sessions(signing_group(), identity(MEMBERS[seed % 3]).pubkey, by_hand=seed % 5 == 0)
        restarted = seed % 2
        if restarted:
            self.perform(self.sessions.resume([b"\0" + self.proposal.to_bytes()], NOW))
        else:
            self.do(self.proposal)
        self.session = self.sessions[self.id]
        if restarted:
            attempt = self.draw.choice((0, 1, ATTEMPTS_MAX - 1, ATTEMPTS_MAX))
            partials = self.draw.choice((b"", encode(PartialSignature(1, EPOCHS[0], bytes(32), ONE))))
            self.do(StatusIs(self.id, self.session.digest, attempt, partials if attempt else b"", EPOCHS[0], False))

    def do(self, event: SessionInput) -> None:
        self.perform(self.sessions.handle(event, self.now))

    def perform(self, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.news, Outcome):
                self.ends.append(effect.news)
            elif isinstance(effect, Save):
                self.do(Saved(effect.session, effect.number))
            elif isinstance(effect, Approve) and self.draw.random() < 0.9:
                self.do(Approved(self.id, self.sessions[self.id].digest))
            elif isinstance(effect, MakeNonces) and self.draw.random() < 0.9:
                made = PublicNonce(effect.attempt, EPOCHS[0], POINTS[0])
                self.do(NoncesMade(self.id, effect.attempt, EPOCHS[0], encode(made)))
            elif isinstance(effect, MakePartials) and self.draw.random() < 0.9:
                signed = PartialSignature(effect.attempt, EPOCHS[0], self._transcript(effect.attempt), ONE)
                self.do(PartialsMade(self.id, effect.attempt, encode(signed)))

    def _transcript(self, attempt: int) -> bytes:
        return self.session._at(attempt).transcript or bytes(32)

    def message(self) -> VerifiedMessage:
        """Something that a member may say, now and then of another type than it is, or cut."""
        record = self.draw.choice(self._records())
        kind, payload = records._KINDS[type(record)], encode(record)
        if self.draw.random() < 0.03:
            kind = self.draw.choice(list(records._KINDS.values()))
        if self.draw.random() < 0.03:
            payload = payload[:-1]
        made = say(self.draw.choice(MEMBERS), MessageType(kind), self.id, payload)
        self.said.append(made)
        return made

    def _records(self) -> list[Record]:
        draw, current = self.draw, self.session.attempt
        attempt = draw.choice((1, 2, max(1, current), max(1, current), min(current + 1, ATTEMPTS_MAX), ATTEMPTS_MAX))
        epoch, points, digest = draw.choice(EPOCHS), draw.choice(POINTS), self.session.digest
        some = tuple(draw.sample(EVERYBODY, draw.randint(0, 2)))
        envelopes = tuple(one.to_bytes() for one in draw.sample(self.said, min(2, len(self.said))))
        nonce = PublicNonce(attempt, epoch, points)
        return [
            Approval(digest, draw.choice((0, attempt)), draw.random() < 0.1),
            Approval(digest),
            nonce,
            nonce,
            PartialSignature(attempt, epoch, draw.choice((bytes(32), self._transcript(attempt))), ONE),
            PartialSignature(attempt, epoch, self._transcript(attempt), draw.choice((b"\xff" * 32, ONE * 3))),
            TransactionComplete(bytes(64) * draw.choice((1, 2))),
            AttemptGone(draw.choice((0, attempt)), epoch),
            AttemptFailed(attempt, some, some[:1]),
            AttemptBegin(attempt, digest),
            AggregateNonces(attempt, epoch, bytes(32), draw.choice((points, bytes(66)))),
            ListWanted(attempt),
            AggregateShown(envelopes[0] if envelopes else b""),
            NonceList(attempt, draw.choice((b"?", encode(nonce))), envelopes),
        ]

    def event(self) -> SessionInput:
        kind = self.draw.random()
        if kind < 0.75:
            return self.draw.choice(self.said) if self.said and kind < 0.1 else self.message()
        if kind < 0.88:
            self.now += self.draw.choice((0.1, 5.0, 60.0))
            return Woken()
        if kind < 0.96:
            here, by_mail = (frozenset(self.draw.sample(EVERYBODY, self.draw.randint(0, 3))) for _ in range(2))
            return Present(here, by_mail - here)
        lost = AttemptLost(self.id, self.session.attempt, EPOCHS[0])
        return self.draw.choice((lost, lost, Wiped(self.id, False), Refused(self.id, MakeNonces, LocalError("no"))))


@pytest.mark.parametrize("topology", Topology)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_nothing_is_raised_and_it_ends_once(first: int, topology: Topology) -> None:
    for seed in range(first, first + BLOCK):
        member = Member(seed, topology)
        for _ in range(EVENTS):
            member.do(member.event())
        while (due := member.sessions.next_deadline()) is not None:
            member.now = due
            member.do(Woken())
        assert member.session.outcome is not None
        assert len(member.ends) == 1
        assert member.now <= NOW + 3600
