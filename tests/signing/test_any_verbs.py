"""Whatever a node asks of a keyholder, in whatever order, while the disk answers late and the process restarts."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from musignet.signing import journal
from musignet.signing.keyholder import Keyholder
from musignet.signing.policy import Ask, Yes
from musignet.signing.records import AggregateNonces, Approval, AttemptBegin, PublicNonce, Topology
from musignet.signing.states import State
from musignet.signing.verbs import (
    Approve,
    KeyholderInput,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Resumed,
    Status,
    Store,
    Stored,
    Wipe,
    Woken,
)
from musignet.wire.codec import Record
from musignet.wire.envelope import VerifiedMessage
from musignet.wire.messages import MessageType
from support.ceremony import NOW, account, drawer, identity, proposal, say, signing_group
from support.ceremony_world import watch_signatures
from support.wallet import MEMBERS

GROUP = signing_group()
OTHERS = tuple(name for name in MEMBERS if name != "bob")
POINTS = [identity(one).pubkey + identity(other).pubkey for one, other in ("xy", "yx", "xx")]
LASTING_S = (60, 3600, 86_400)
PROPOSALS = {
    topology: [
        proposal(random=bytes((at,)) * 32, inputs=1, topology=topology, first_coin=at % 2, expires_at=NOW + lasting)
        for at, lasting in enumerate(LASTING_S)
    ]
    for topology in Topology
}
EVENTS, SEEDS, BLOCK = 60, 120, 20


class Asked:
    """Bob's keyholder, its disk, and what is on its way there."""

    def __init__(self, seed: int) -> None:
        self.seed, self.draw = seed, Random(seed)
        self.topology = Topology(seed % 2)
        self.now, self.lives = NOW, 0
        self.disk: list[bytes] = []
        self.coming: list[Store] = []
        self.nonces: set[tuple[bytes, int]] = set()
        self.partials: dict[tuple[bytes, int], bytes] = {}
        self.boot()

    def boot(self) -> None:
        self.lives += 1
        self.coming.clear()
        policy = (lambda _: Yes()) if self.seed % 3 else lambda _: Ask()
        options = {"policy": policy, "verifier": lambda *_: self.draw.random() < 0.7, "nonce_ttl_s": 7200.0}
        self.holder = Keyholder(account("bob", GROUP, **options), drawer((self.seed, self.lives)), tuple(self.disk))

    def entries(self, kind: type) -> list[journal.Entry]:
        return [one for one in map(journal.read, self.disk) if isinstance(one, kind)]

    def do(self, event: KeyholderInput) -> None:
        for effect in self.holder.handle(event, self.now):
            if isinstance(effect, Store):
                self.coming.append(effect)
            elif isinstance(effect, NoncesMade):
                key = (effect.session, effect.attempt)
                assert key not in self.nonces, "one attempt has nonces once"
                assert key in {(one.session, one.attempt) for one in self.entries(journal.NoncesOut)}
                self.nonces.add(key)
            elif isinstance(effect, PartialsMade):
                key = (effect.session, effect.attempt)
                assert self.partials.setdefault(key, effect.payload) == effect.payload, "byte for byte"
                assert effect.payload in {one.payload for one in self.entries(journal.PartialsOut)}
                assert key in {(one.session, one.attempt) for one in self.entries(journal.SlotsBurned)}
                assert self.holder._held[effect.session].state is State.APPROVED
                assert self.now < self.holder._held[effect.session].proposal.expires_at

    def event(self) -> KeyholderInput | None:
        """Something to do; None: the process ends here, and begins anew."""
        draw, made = self.draw, self.draw.choice(PROPOSALS[self.topology])
        held = self.holder._held.get(made.session)
        attempt = max(1, held.attempt + draw.choice((0, 0, 1))) if held else 1
        collects = self.topology is Topology.MESH or GROUP.collector(attempt) == identity("bob").pubkey
        digest = held.digest if held and draw.random() < 0.95 else bytes(32)
        points, epoch = draw.choice(POINTS), b"another."
        approved = Approval(digest) if collects else AttemptBegin(attempt, digest)
        sent = PublicNonce(attempt, epoch, points) if collects else AggregateNonces(attempt, epoch, bytes(32), points)
        others = frozenset(one.session for one in PROPOSALS[self.topology]) - {made.session}
        choices: list[tuple[int, KeyholderInput | None]] = [
            (10, Approve(made, draw.choice((b"", b"proof")), draw.choice((frozenset(), others)))),
            (12, MakeNonces(made.session, attempt, self._said(made, approved, attempt))),
            (12, MakePartials(made.session, attempt, self._said(made, sent, attempt))),
            (2, Wipe(made.session)),
            (2, Status(made.session)),
            (1, Resumed()),
            (1, None),
            (2, Woken()),
        ]
        (event,) = draw.choices([one for _, one in choices], [weight for weight, _ in choices])
        if isinstance(event, Woken):
            self.now += draw.choice((1, 100, 3000))
        return event

    def _said(self, made: VerifiedMessage, record: Record, attempt: int) -> Sequence[VerifiedMessage]:
        kinds = {Approval: MessageType.APPROVAL, AttemptBegin: MessageType.ATTEMPT_BEGIN}
        kinds |= {PublicNonce: MessageType.PUBLIC_NONCE, AggregateNonces: MessageType.AGGREGATE_NONCE}
        said = tuple(say(name, kinds[type(record)], made.session, record) for name in OTHERS)
        if isinstance(record, Approval | PublicNonce):
            return said
        return tuple(one for one in said if one.sender_key == GROUP.collector(attempt)) or said[:1]


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_nothing_is_raised_and_what_leaves_is_on_disk(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    watch_signatures(monkeypatch)
    signed = 0
    for seed in range(first, first + BLOCK):
        asked = Asked(seed)
        for _ in range(EVENTS):
            event = asked.event()
            if event is None:
                asked.boot()
            else:
                asked.do(event)
            while asked.coming and asked.draw.random() < 0.8:
                store = asked.coming.pop(0)
                asked.disk.append(store.record)
                asked.do(Stored(store.number))
        signed += len(asked.partials)
    assert signed > BLOCK / 5
