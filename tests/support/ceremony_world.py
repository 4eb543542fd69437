"""Cosigners on an in-memory network with fake disks, all drawn from one seed: crashes, losses, repeats, and liars.

Every honest party is a real `Sessions` and a real `Keyholder`; the world only carries bytes, keeps what was stored, and
checks after each step what must never be broken.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from musignet import limits
from musignet.bitcoin.finalise import verify_signature
from musignet.bitcoin.group import Known
from musignet.crypto import backend, musig_backend
from musignet.crypto.keys import Identity
from musignet.signing import journal
from musignet.signing.blame import Kind as BlameKind
from musignet.signing.blame import accuse, verify_blame
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, Outcome, Publish, Save, Saved, SendToGroup
from musignet.signing.keyholder import Keyholder
from musignet.signing.proposal import Proposal
from musignet.signing.records import (
    AggregateNonces,
    AttemptBegin,
    AttemptFailed,
    PartialSignature,
    PublicNonce,
    Topology,
    TransactionComplete,
    decode_untrusted,
    encode,
    payload_hash,
)
from musignet.signing.session import Present
from musignet.signing.verbs import NoncesMade, PartialsMade, Resumed, Store, Stored, Woken
from musignet.wire.envelope import Message, VerifiedMessage
from musignet.wire.messages import MessageType

from .ceremony import NOW, account, drawer, identity, proposal, signing_group
from .wallet import MEMBERS

__all__ = ["LIARS", "STAR_LIARS", "Broken", "Party", "World", "watch_signatures"]

BOUNDS = limits.Limits(phase_timeout_s=2.0, reapprove_s=2.0, silent_attempts_max=8)
LASTS_S = 110.0
TICK_S = 0.5


class Broken(AssertionError):
    """An invariant does not hold."""


def require(held: bool, what: str) -> None:
    if not held:
        raise Broken(what)


_signed: dict[bytes, bytes] = {}


def watch_signatures(patch: pytest.MonkeyPatch) -> None:
    """Look at every secret nonce as it reaches libsecp256k1: none may come twice in a whole run."""
    honest = musig_backend.partial_sign
    _signed.clear()

    def partial_sign(nonce: object, pair: object, context: object, values: object) -> object:
        raw = bytes(backend.ffi.buffer(nonce, musig_backend.SECRET_NONCE_BYTES))
        require(raw not in _signed, "a secret nonce signs twice")
        _signed[raw] = b""
        return honest(nonce, pair, context, values)

    patch.setattr(musig_backend, "partial_sign", partial_sign)


# --- liars: what becomes of a payload on its way to one recipient -----------------------------------------------------

Lie = Callable[["World", MessageType, bytes, str], "list[tuple[MessageType, bytes]]"]


def _truth(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    return [(kind, payload)]


def _unfinished(kind: MessageType, payload: bytes) -> list[tuple[MessageType, bytes]]:
    """A liar could finish the transaction with the others' partials; these do not say so."""
    return [] if kind == MessageType.TRANSACTION_COMPLETE else [(kind, payload)]


def _bad_partial(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    read = decode_untrusted(kind, payload) if kind == MessageType.PARTIAL_SIGNATURE else None
    if isinstance(read, PartialSignature):
        bad = read.partials[:-1] + bytes((read.partials[-1] ^ 1,))
        payload = encode(PartialSignature(read.attempt, read.epoch, read.transcript, bad))
    return _unfinished(kind, payload)


def _two_nonces(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    read = decode_untrusted(kind, payload) if kind == MessageType.PUBLIC_NONCE else None
    if isinstance(read, PublicNonce) and to == world.names[-1]:
        other = identity("x").pubkey + identity("y").pubkey + read.nonces[66:]
        payload = encode(PublicNonce(read.attempt, read.epoch, other))
    return [(kind, payload)]


def _silent(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    talks = kind in (MessageType.TRANSACTION_PROPOSAL, MessageType.APPROVAL)
    return [(kind, payload)] if talks else []


def _last_mover(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    hidden = (MessageType.PARTIAL_SIGNATURE, MessageType.TRANSACTION_COMPLETE)
    return [] if kind in hidden else [(kind, payload)]


def _wrong_completion(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    if kind == MessageType.PARTIAL_SIGNATURE:
        return [(MessageType.TRANSACTION_COMPLETE, encode(TransactionComplete(bytes(64 * world.inputs))))]
    return _unfinished(kind, payload)


def _strips_nonces(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    read = decode_untrusted(kind, payload) if kind == MessageType.PUBLIC_NONCE else None
    if isinstance(read, PublicNonce):
        payload = encode(PublicNonce(read.attempt, read.epoch, read.nonces[66:] or bytes(66)))
    return [(kind, payload)]


def _wrong_transcript(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    read = decode_untrusted(kind, payload) if kind == MessageType.PARTIAL_SIGNATURE else None
    if isinstance(read, PartialSignature):
        payload = encode(PartialSignature(read.attempt, read.epoch, bytes(32), read.partials))
    return _unfinished(kind, payload)


def _changed_proposal(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    if kind == MessageType.TRANSACTION_PROPOSAL and to == world.names[-1]:
        payload = proposal(world.names[0], world.group, inputs=world.inputs, memo="changed").payload
    return [(kind, payload)]


LIARS: dict[str, Lie] = {
    "bad partial": _bad_partial,
    "two nonces": _two_nonces,
    "silent": _silent,
    "last mover": _last_mover,
    "wrong completion": _wrong_completion,
    "nonce stripper": _strips_nonces,
    "wrong transcript": _wrong_transcript,
    "changed proposal": _changed_proposal,
    "replayer": _truth,
}


# --- liars of a star: most of what they do, they do when it is their turn to collect ----------------------------------


def _two_to_the_collector(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    read = decode_untrusted(kind, payload) if kind == MessageType.PUBLIC_NONCE else None
    if isinstance(read, PublicNonce):
        other = encode(PublicNonce(read.attempt, read.epoch, identity("x").pubkey * 2 + read.nonces[66:]))
        return [(kind, payload), (kind, other)]
    return _silent_collector(world, kind, payload, to)


def _silent_collector(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    hidden = (MessageType.ATTEMPT_BEGIN, MessageType.ATTEMPT_FAILED, MessageType.TRANSACTION_COMPLETE)
    return [] if kind in hidden else [(kind, payload)]


def _withholds_completion(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    return _unfinished(kind, payload)


def _aggregate(payload: bytes, **changes: bytes) -> bytes:
    read = decode_untrusted(MessageType.AGGREGATE_NONCE, payload)
    assert isinstance(read, AggregateNonces)
    fields = {"attempt": read.attempt, "epoch": read.epoch, "root": read.root, "aggregates": read.aggregates}
    return encode(AggregateNonces(**(fields | changes)))


def _wrong_sum(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    if kind == MessageType.AGGREGATE_NONCE:
        payload = _aggregate(payload, aggregates=identity("x").pubkey * 2 * world.inputs)
    return _unfinished(kind, payload)


def _wrong_root(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    if kind == MessageType.AGGREGATE_NONCE:
        payload = _aggregate(payload, root=bytes(32))
    return _unfinished(kind, payload)


def _two_aggregates(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    """Each signer is sent another one: whoever compares them has the proof. The list is kept back."""
    if kind == MessageType.AGGREGATE_NONCE:
        payload = _aggregate(payload, root=bytes((world.names.index(to),)) * 32)
    return [] if kind == MessageType.NONCE_LIST else _unfinished(kind, payload)


def _no_points(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    if kind == MessageType.AGGREGATE_NONCE:
        payload = _aggregate(payload, aggregates=b"\x05" * 66 * world.inputs)
    return _unfinished(kind, payload)


def _false_silence(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    """When it is its turn: an honest signer is said to be silent."""
    if kind == MessageType.ATTEMPT_BEGIN:
        read = decode_untrusted(kind, payload)
        assert isinstance(read, AttemptBegin)
        named = world.parties[world.names[-1]].key.pubkey
        return [(MessageType.ATTEMPT_FAILED, encode(AttemptFailed(read.attempt, (named,), ())))]
    hidden = (MessageType.AGGREGATE_NONCE, MessageType.ATTEMPT_FAILED, MessageType.TRANSACTION_COMPLETE)
    return [] if kind in hidden else [(kind, payload)]


def _false_blame(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    """Says of each honest signer's partial signature that it is bad, by an aggregate they did not sign for."""
    partials = [one for one in world._heard if one.type == MessageType.PARTIAL_SIGNATURE]
    if kind != MessageType.AGGREGATE_NONCE or not partials:
        return _unfinished(kind, payload)
    nonces = {one.sender_key: one for one in world._heard if one.type == MessageType.PUBLIC_NONCE}
    read = Proposal.open_untrusted(world.proposal, world.group)
    records = [
        accuse(blamed, read, (one, nonces[one.sender_key]), (payload,))
        for one in partials
        for blamed in (BlameKind.BAD_PARTIAL, BlameKind.EQUIVOCATION)
    ]
    return [(kind, payload), *((MessageType.BLAME, record) for record in records)]


def _other_digest(world: World, kind: MessageType, payload: bytes, to: str) -> list[tuple[MessageType, bytes]]:
    if kind == MessageType.ATTEMPT_BEGIN:
        read = decode_untrusted(kind, payload)
        assert isinstance(read, AttemptBegin)
        payload = encode(AttemptBegin(read.attempt, bytes(32)))
    return _unfinished(kind, payload)


STAR_LIARS: dict[str, Lie] = {
    "two nonces to the collector": _two_to_the_collector,
    "silent collector": _silent_collector,
    "withholds the completion": _withholds_completion,
    "wrong sum": _wrong_sum,
    "wrong root": _wrong_root,
    "two aggregates": _two_aggregates,
    "no points": _no_points,
    "false silence": _false_silence,
    "false blame": _false_blame,
    "other digest": _other_digest,
}


@dataclass
class Party:
    """One cosigner: two machines, two disks, and how often it was started."""

    name: str
    key: Identity
    lie: str = ""
    life: int = 0
    up: bool = True
    disk: list[bytes] = field(default_factory=list)
    holder_disk: list[bytes] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    free_at: dict[str, float] = field(default_factory=dict)


class World:
    """One run. `run` returns once every honest party has an outcome, or fails."""

    def __init__(
        self,
        seed: int,
        names: Sequence[str] = MEMBERS,
        *,
        shape: str = "aggregate",
        inputs: int = 2,
        crashes: int = 0,
        loss: float = 0.0,
        liar: tuple[str, str] | None = None,
        cuts: int = 0,
        topology: Topology = Topology.MESH,
        bounds: limits.Limits = BOUNDS,
        away: Sequence[tuple[str, float, float]] = (),
    ) -> None:
        """`away` are (who, from, until) in seconds from the start; `cuts` lose one link each for a while."""
        self.rng = random.Random(seed)
        _signed.clear()  # one seed draws the same entropy in every run
        self._bounds = bounds
        self.seed, self.names, self.inputs, self.loss = seed, tuple(names), inputs, loss
        self.group = signing_group(shape, self.names)
        self.proposal = proposal(names[0], self.group, inputs=inputs, expires_at=NOW + LASTS_S, topology=topology)
        read = Proposal.open_untrusted(self.proposal, self.group)
        reviewed = read.review(self.group, Known(), NOW)
        self.slots, self.digest = reviewed.slots, read.digest(self.group, reviewed)
        self.now = NOW
        self.counts: Counter[str] = Counter()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._sequence = 0
        self._heard: list[VerifiedMessage] = []
        self._lost: Counter[frozenset[str]] = Counter()
        self.parties = {name: Party(name, identity(name)) for name in self.names}
        if liar is not None:
            self.parties[liar[0]].lie = liar[1]
        for party in self.parties.values():
            self._boot(party)
            self._tick(party)
        for who, first, last in away:
            for other in self.names:
                if other != who:
                    self._cut(who, other, first, last)
        for _ in range(cuts):
            first = self.rng.random() * self.rng.choice((0.3, 10.0))
            self._cut(*self.rng.sample(self.names, 2), first, first + self.rng.random() * 30)
        self._quiet_at = NOW + (20.0 if crashes or loss else 0.0)
        for _ in range(crashes):
            party = self.parties[self.rng.choice(self.names)]
            self._at(self.rng.choice((0.02, 0.2, 1.0, 4.0)) * self.rng.random(), lambda party=party: self._crash(party))
        self._at(0, lambda: self._perform(self.parties[names[0]], self._open()))

    @property
    def honest(self) -> list[Party]:
        return [party for party in self.parties.values() if not party.lie]

    def _open(self) -> list[object]:
        party = self.parties[self.names[0]]
        return self.sessions[party.name].handle(self.proposal, self.now) if party.up else []

    def run(self) -> World:
        end = NOW + LASTS_S + 2 * TICK_S
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do = heapq.heappop(self._queue)
            do()
            if all(party.outcomes and party.up for party in self.honest) and self.now > NOW + 8:
                break
        self._check_end()
        return self

    # --- time, machines, disks ----------------------------------------------------------------------------------------

    def _at(self, delay: float, do: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (self.now + delay, self._number, do))

    def _boot(self, party: Party) -> None:
        party.life += 1
        party.up = True
        party.free_at.clear()
        draw = drawer((self.seed, party.name, party.life))
        self.__dict__.setdefault("holders", {})[party.name] = Keyholder(
            account(party.name, self.group), draw, party.holder_disk
        )
        sessions = Sessions(self.group, party.key.pubkey, bounds=self._bounds)
        self.__dict__.setdefault("sessions", {})[party.name] = sessions

    def _crash(self, party: Party) -> None:
        if self.rng.random() < 0.2 and party.up:
            self.counts["resume"] += 1
            self._perform_holder(party, self.holders[party.name].handle(Resumed(), self.now))
            return
        if party.up:
            self.counts["crash"] += 1
            party.up = False
            party.life += 1
            self._at(self.rng.random() * 3, lambda: self._restart(party))

    def _restart(self, party: Party) -> None:
        self._boot(party)
        if not party.disk and party.name == self.names[0]:
            self._perform(party, self._open())  # its owner proposes again what was never stored
        self._perform(party, self._tell_present(party.name))
        self._perform(party, self.sessions[party.name].resume(tuple(party.disk), self.now))

    def _tick(self, party: Party) -> None:
        if party.up:
            self._perform_holder(party, self.holders[party.name].handle(Woken(), self.now))
            self._perform(party, self.sessions[party.name].handle(Woken(), self.now))
        self._at(TICK_S, lambda: self._tick(party))

    def _write(self, party: Party, disk: str, record: bytes, acknowledge: Callable[[], None]) -> None:
        """Write in order; a crash may fall before the write, or between it and its acknowledgement."""
        life = party.life
        at = max(party.free_at.get(disk, 0.0), self.now) + self.rng.random() * 0.01
        party.free_at[disk] = at + 1e-6

        def write() -> None:
            if party.life == life:
                getattr(party, disk).append(record)
                self._at(self.rng.random() * 0.005, lambda: acknowledge() if party.life == life else None)

        self._at(at - self.now, write)

    def _perform(self, party: Party, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, SendToGroup):
                self._send(party, effect)
            elif isinstance(effect, Save):
                saved = Saved(effect.session, effect.number)
                self._write(party, "disk", effect.record, lambda saved=saved: self._feed(party, saved))
            elif isinstance(effect, Publish):
                if isinstance(effect.news, Outcome):
                    party.outcomes.append(effect.news)
                    self._check_outcome(party, effect.news)
            else:
                self._ask(party, effect)

    def _ask(self, party: Party, verb: object) -> None:
        life = party.life

        def ask() -> None:
            if party.life == life:
                self._perform_holder(party, self.holders[party.name].handle(verb, self.now))

        self._at(1e-6, ask)
        if self.rng.random() < 0.2:  # a node that asks twice gets no second signature
            self._at(self.rng.random() * 3, ask)

    def _perform_holder(self, party: Party, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, Store):
                number = effect.number
                self._write(
                    party, "holder_disk", effect.record, lambda number=number: self._holder_stored(party, number)
                )
            else:
                self._check_reply(party, effect)
                self._feed(party, effect)

    def _holder_stored(self, party: Party, number: int) -> None:
        self._perform_holder(party, self.holders[party.name].handle(Stored(number), self.now))

    def _feed(self, party: Party, event: object) -> None:
        self._perform(party, self.sessions[party.name].handle(event, self.now))

    # --- links --------------------------------------------------------------------------------------------------------

    def _cut(self, one: str, other: str, first: float, last: float) -> None:
        """Take the link between two away for a while. Messages on it are lost."""

        def change(by: int) -> None:
            self._lost[frozenset((one, other))] += by
            for name in (one, other):
                if self.parties[name].up:
                    self._perform(self.parties[name], self._tell_present(name))

        self._at(first, lambda: change(1))
        self._at(last, lambda: change(-1))

    def _linked(self, one: str, other: str) -> bool:
        return not self._lost[frozenset((one, other))]

    def _tell_present(self, name: str) -> list[object]:
        here = frozenset(self.parties[other].key.pubkey for other in self.names if self._linked(name, other))
        return self.sessions[name].handle(Present(here), self.now)

    # --- network ------------------------------------------------------------------------------------------------------

    def _send(self, party: Party, effect: SendToGroup) -> None:
        if effect.kind == MessageType.TRANSACTION_COMPLETE:
            require(any(record[:1] == b"\x02" for record in party.disk), "a completion leaves before it is on disk")
        for other in self.parties.values():
            if other is party or effect.to not in (None, other.key.pubkey):
                continue
            for kind, payload in (LIARS | STAR_LIARS).get(party.lie, _truth)(
                self, effect.kind, effect.payload, other.name
            ):
                if self._linked(party.name, other.name):
                    self._deliver(other, self._sign(party, kind, effect.session, payload))

    def _sign(self, party: Party, kind: MessageType, session: bytes, payload: bytes) -> VerifiedMessage:
        self._sequence += 1
        message = Message(kind, party.name, payload, session=session)
        signed = message.sign(party.key, to=self.group.id, seq=self._sequence, chain=self.group.wallet.chain)
        return signed.verify()

    def _deliver(self, to: Party, message: VerifiedMessage) -> None:
        self._heard.append(message)
        lossy = self.now < self._quiet_at
        copies = 0 if lossy and self.rng.random() < self.loss else 1 + (self.rng.random() < 0.1)
        if any(party.lie == "replayer" for party in self.parties.values()):
            old = self.rng.choice(self._heard)
            self._at(self.rng.random() * 3, lambda: self._arrive(to, old))
        for _ in range(copies):
            slow = self.rng.random() < 0.05
            self._at(self.rng.random() * (0.8 if slow else 0.05), lambda: self._arrive(to, message))

    def _arrive(self, to: Party, message: VerifiedMessage) -> None:
        if to.up:
            self._feed(to, message)
        elif self.rng.random() < 0.5:
            self._at(1.0, lambda: self._arrive(to, message))

    # --- what must never be broken ------------------------------------------------------------------------------------

    def _check_reply(self, party: Party, effect: object) -> None:
        entries = [journal.read(record) for record in party.holder_disk]
        if isinstance(effect, NoncesMade):
            hashed = payload_hash(effect.payload)
            require(
                any(isinstance(one, journal.NoncesOut) and one.payload_hash == hashed for one in entries),
                "nonces leave before they are on disk",
            )
        elif isinstance(effect, PartialsMade):
            self._check_partials(effect, entries)

    def _check_partials(self, effect: PartialsMade, entries: Sequence[object]) -> None:
        self.counts["partials"] += 1
        given = [one for one in entries if isinstance(one, journal.ApprovalGiven) and one.session == effect.session]
        require(bool(given) and given[0].digest == self.digest, "a partial without a durable approval of what it signs")
        require(not any(isinstance(one, journal.ApprovalWiped) for one in entries), "a partial after a wipe")
        stored = [
            one.payload for one in entries if isinstance(one, journal.PartialsOut) and one.attempt == effect.attempt
        ]
        require(stored == [effect.payload], "a partial leaves that is not the one on disk")
        burned = [one for one in entries if isinstance(one, journal.SlotsBurned) and one.attempt == effect.attempt]
        read = decode_untrusted(MessageType.PARTIAL_SIGNATURE, effect.payload)
        assert isinstance(read, PartialSignature)
        require([one.transcript for one in burned] == [read.transcript], "a partial without its one burn record")

    def _check_outcome(self, party: Party, outcome: Outcome) -> None:
        self.counts[outcome.end.name] += 1
        liars = {one.key.pubkey for one in self.parties.values() if one.lie}
        if outcome.verdict is not None:
            require(bool(outcome.blame), "a verdict without its proof")
            require(outcome.verdict.accused in liars, f"an honest node is blamed: {outcome.verdict}")
            require(
                verify_blame(outcome.blame, self.group) == outcome.verdict, "a blame record that proves another thing"
            )
        if outcome.end is End.COMPLETED:
            pairs = zip(self.slots, outcome.signatures, strict=True)
            require(all(verify_signature(slot, one) for slot, one in pairs), "a completion that does not verify")
            require(outcome.transaction is not None, "a completion without its transaction")

    def _check_end(self) -> None:
        for party in self.honest:
            require(bool(party.outcomes or not party.disk), f"{party.name} has no outcome at the deadline")
        txids = {one.transaction.txid for party in self.honest for one in party.outcomes if one.transaction}
        require(len(txids) <= 1, "two transactions for one session")
        if len(self.honest) == len(self.names):
            ends = {party.name: party.outcomes[-1].end for party in self.honest}
            require(set(ends.values()) == {End.COMPLETED}, f"everybody is honest, and it ended {ends}")
