"""What must hold wherever cosigners sign, checked at each step from outside: from effects, disks and the wire.

Nothing here asks a machine what it thinks of itself: what was approved is computed again from the stored proposal, what
was signed from the messages that were given to the keyholder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from .. import limits
from ..bitcoin.finalise import verify_signature
from ..bitcoin.group import Known
from ..bitcoin.transaction import Outpoint
from ..crypto.musig2 import SigningSession
from ..errors import PeerError
from ..signing import journal, rounds
from ..signing.blame import verify_blame
from ..signing.effects import End, Outcome
from ..signing.group import SigningGroup
from ..signing.proposal import Proposal
from ..signing.records import (
    AggregateNonces,
    Approval,
    AttemptBegin,
    PartialSignature,
    PublicNonce,
    Topology,
    decode_untrusted,
    nonce_root,
    payload_hash,
    split,
    star_transcript_hash,
    transcript_hash,
)
from ..signing.verbs import MakeNonces, MakePartials, NoncesMade, PartialsMade
from ..wire.envelope import Message, VerifiedMessage
from ..wire.messages import MessageType
from .cosigners import Cosigner
from .invariants import Invariants
from .tape import Tape

__all__ = ["CeremonyInvariants"]

COMPLETION = b"\x02"
"""The kind of a record of a node's journal that has a completion, before its session."""


@dataclass(frozen=True)
class _Case:
    """A session as its stored proposal has it, by our own computation."""

    digest: bytes
    slots: rounds.Slots
    outpoints: tuple[Outpoint, ...]
    topology: Topology


@dataclass(frozen=True)
class _Made:
    """Nonces that left a keyholder, and the memory that they lived in."""

    payload: bytes
    memory: int


class CeremonyInvariants(Invariants):
    """See the module. The first line of a method says which invariant it keeps."""

    def __init__(self, seed: int, group: SigningGroup, tape: Tape) -> None:
        super().__init__(seed)
        self._group, self._tape = group, tape
        self._cases: dict[bytes, _Case] = {}
        self._made: dict[tuple[bytes, bytes, int, bytes], _Made] = {}
        self._asked: dict[tuple[str, bytes, int], tuple[VerifiedMessage, ...]] = {}
        self._last_approvals: dict[tuple[str, bytes, int], tuple[VerifiedMessage, ...]] = {}
        self._signed: dict[bytes, tuple[bytes, bytes]] = {}
        self._copied: dict[bytes, bytes] = {}
        self._spent: dict[tuple[bytes, Outpoint], bytes] = {}
        self._txids: dict[bytes, bytes] = {}

    # --- the keyholder ------------------------------------------------------------------------------------------------

    def verb(self, actor: Cosigner, verb: object) -> None:
        """A keyholder is asked. What it is given is what it has to answer for."""
        if isinstance(verb, MakePartials):
            self._asked.setdefault((repr(actor), verb.session, verb.attempt), verb.nonces)
        elif isinstance(verb, MakeNonces):
            self._last_approvals[repr(actor), verb.session, verb.attempt] = verb.approvals

    def stored(self, actor: Cosigner, record: bytes) -> None:
        """A signature is made for what was approved, after its burn record, and no secret nonce makes two."""
        entry = journal.read(record)
        if isinstance(entry, journal.ApprovalGiven):
            if entry.digest != self._case(entry).digest:
                self._break(actor, "the approval is for another digest than that of its proposal")
        elif isinstance(entry, journal.NoncesOut | journal.SlotsBurned | journal.PartialsOut):
            self._once(actor, entry)
        if isinstance(entry, journal.PartialsOut):
            read = _partial(entry.payload)
            self._burned(actor, entry, read)
            self._one_signature(actor, entry, read)
            self._what_was_approved(actor, entry, read)
            self._tape.counts["signed"] += 1

    def _once(self, actor: Cosigner, entry: journal.NoncesOut | journal.SlotsBurned | journal.PartialsOut) -> None:
        """A disk has each step of an attempt once, whatever was restarted."""
        for one in _entries(actor):
            if isinstance(one, type(entry)) and (one.session, one.attempt) == (entry.session, entry.attempt):
                self._break(actor, f"a second {type(entry).__name__} of one attempt")

    def _burned(self, actor: Cosigner, entry: journal.PartialsOut, read: PartialSignature) -> None:
        burned = [one for one in _entries(actor) if isinstance(one, journal.SlotsBurned)]
        mine = journal.SlotsBurned(entry.session, entry.attempt, read.epoch, read.transcript)
        if mine not in burned:
            self._break(actor, "it signs before its burn record is on disk")

    def _one_signature(self, actor: Cosigner, entry: journal.PartialsOut, read: PartialSignature) -> None:
        made = self._made.get((actor.key, entry.session, entry.attempt, read.epoch))
        if made is None:
            self._break(actor, "it signs with nonces that it never showed")
        if made.memory != actor.memory:
            self._break(actor, "a secret nonce outlives a restart, a resume or a copy")
        for nonce, partial in self._pairs(entry.session, made, read):
            signed = self._signed.setdefault(nonce, (read.transcript, partial))
            if signed != (read.transcript, partial):
                self._break(actor, "a secret nonce signs twice")
            if self._copied.get(nonce, partial) != partial:
                self._tape.counts["exposed"] += 1

    def copy_signed(self, actor: Cosigner, payload: bytes, session: bytes) -> None:
        """A copy of live memory that nobody noticed signed, too: counted apart (THREATS.md V1)."""
        read = _partial(payload)
        made = self._made[actor.key, session, read.attempt, read.epoch]
        self._copied.update(self._pairs(session, made, read))

    def _pairs(self, session: bytes, made: _Made, read: PartialSignature) -> Iterator[tuple[bytes, bytes]]:
        nonce = decode_untrusted(MessageType.PUBLIC_NONCE, made.payload)
        assert isinstance(nonce, PublicNonce)
        slots = len(self._cases[session].slots)
        nonces = split(nonce.nonces, limits.PUBLIC_NONCE_BYTES, slots)
        return zip(nonces, split(read.partials, limits.PARTIAL_BYTES, slots), strict=True)

    def _what_was_approved(self, actor: Cosigner, entry: journal.PartialsOut, read: PartialSignature) -> None:
        """Compute again, from the stored approval and the nonces that were given, what was signed."""
        approvals = [
            one for one in _entries(actor) if isinstance(one, journal.ApprovalGiven) and one.session == entry.session
        ]
        if not approvals:
            self._break(actor, "a partial signature without an approval on disk")
        case = self._case(approvals[0])
        made = self._made[actor.key, entry.session, entry.attempt, read.epoch]
        right, sessions = self._computed(actor, case, entry, made)
        if right != read.transcript:
            self._break(actor, "it signs another transcript than that of what was approved and said")
        own = decode_untrusted(MessageType.PUBLIC_NONCE, made.payload)
        assert isinstance(own, PublicNonce)
        points = rounds.parse_nonces(case.slots, actor.key, own.nonces)
        partials = split(read.partials, limits.PARTIAL_BYTES, len(case.slots))
        for at, session in enumerate(sessions):
            signer = case.slots[at].order.index(actor.key)
            if not session.partial_verify(signer, points[at], partials[at]):
                self._break(actor, "a partial signature that is not over what was approved")

    def _computed(
        self, actor: Cosigner, case: _Case, entry: journal.PartialsOut, made: _Made
    ) -> tuple[bytes, tuple[SigningSession, ...]]:
        """Return the transcript, and what each slot signs, from the messages that the keyholder was given."""
        about = (self._group, entry.session, entry.attempt, case.digest)
        given = self._asked[repr(actor), entry.session, entry.attempt]
        first = decode_untrusted(int(given[0].type), given[0].payload)
        if isinstance(first, AggregateNonces):
            sessions = rounds.aggregate_sessions(case.slots, first.aggregates)
            return star_transcript_hash(*about, first.root, first.aggregates), sessions
        payloads = {one.sender_key: one.payload for one in given} | {actor.key: made.payload}
        signed, points = {}, {}
        for identity, payload in payloads.items():
            nonce = decode_untrusted(MessageType.PUBLIC_NONCE, payload)
            assert isinstance(nonce, PublicNonce)
            signed[identity] = (nonce.epoch, payload)
            points[identity] = rounds.parse_nonces(case.slots, identity, nonce.nonces)
        sessions = rounds.signing_sessions(case.slots, points)
        if case.topology is Topology.MESH:
            return transcript_hash(*about, signed), sessions
        root = nonce_root(self._group, signed)
        return star_transcript_hash(*about, root, rounds.encoded_aggregates(sessions)), sessions

    def replied(self, actor: Cosigner, reply: object) -> None:
        """Nonces and partial signatures leave a keyholder only after the record of them is on disk."""
        if isinstance(reply, NoncesMade):
            self._nonces_made(actor, reply)
        elif isinstance(reply, PartialsMade):
            self._partials_made(actor, reply)

    def _nonces_made(self, actor: Cosigner, reply: NoncesMade) -> None:
        self._on_disk(actor, MessageType.PUBLIC_NONCE, reply.session, reply.payload)
        self._all_approved(actor, reply)
        key = (actor.key, reply.session, reply.attempt, reply.epoch)
        made = self._made.setdefault(key, _Made(reply.payload, actor.memory))
        if made.payload != reply.payload:
            self._break(actor, "two nonce payloads for one attempt and boot epoch")

    def _partials_made(self, actor: Cosigner, reply: PartialsMade) -> None:
        self._on_disk(actor, MessageType.PARTIAL_SIGNATURE, reply.session, reply.payload)
        approved = [one for one in _entries(actor) if isinstance(one, journal.ApprovalGiven)]
        if reply.session not in [one.session for one in approved]:
            self._break(actor, "a partial signature leaves without an approval on disk")
        for outpoint in self._cases[reply.session].outpoints:
            spender = self._spent.setdefault((actor.key, outpoint), reply.session)
            if spender != reply.session and not actor.restored:
                self._break(actor, "two transactions that spend one coin are signed")
        self._tape.counts["partials"] += 1

    def _all_approved(self, actor: Cosigner, reply: NoncesMade) -> None:
        """Nonces are made only for a digest that everybody approved."""
        case = self._cases[reply.session]
        for message in self._last_approvals[repr(actor), reply.session, reply.attempt]:
            read = decode_untrusted(int(message.type), message.payload)
            assert isinstance(read, Approval | AttemptBegin)
            if read.digest != case.digest:
                self._break(actor, "it goes on although a cosigner approved something else")

    # --- the wire -----------------------------------------------------------------------------------------------------

    def leaves(self, actor: Cosigner, message: Message) -> None:
        """A nonce, a partial signature and a completion go on the wire only after their record is on disk."""
        self._on_disk(actor, message.type, message.session, message.payload)

    def _on_disk(self, actor: Cosigner, kind: int, session: bytes, payload: bytes) -> None:
        if kind == MessageType.TRANSACTION_COMPLETE:
            if not any(record.startswith(COMPLETION + session) for record in actor.node_disk.synced):
                self._break(actor, "a completion leaves before it is on disk")
        elif kind == MessageType.PUBLIC_NONCE:
            hashed = payload_hash(payload)
            if hashed not in [one.payload_hash for one in _entries(actor) if isinstance(one, journal.NoncesOut)]:
                self._break(actor, "nonces leave before they are on disk")
        elif kind == MessageType.PARTIAL_SIGNATURE and payload not in [
            one.payload for one in _entries(actor) if isinstance(one, journal.PartialsOut)
        ]:
            self._break(actor, "a partial signature leaves that is not on disk")

    # --- how it ends --------------------------------------------------------------------------------------------------

    def outcome(self, actor: Cosigner, outcome: Outcome, liars: set[bytes]) -> None:
        """No honest node is proved at fault, every completion verifies, and all of one session are one transaction."""
        verdict = outcome.verdict
        if verdict is not None:
            if verdict.accused not in liars:
                self._break(actor, f"an honest node is blamed: {verdict}")
            try:
                proved = verify_blame(outcome.blame, self._group)
            except PeerError as error:
                self._break(actor, f"a blame that proves nothing: {error}")
            if proved != verdict:
                self._break(actor, "a blame record that proves another thing")
        if outcome.end is End.COMPLETED:
            self._completed(actor, outcome)

    def _completed(self, actor: Cosigner, outcome: Outcome) -> None:
        case = self._cases[outcome.session]
        if len(outcome.signatures) != len(case.slots) or not all(
            verify_signature(one.slot, mine) for one, mine in zip(case.slots, outcome.signatures, strict=True)
        ):
            self._break(actor, "a completion that does not verify")
        if outcome.transaction is None:
            self._break(actor, "a completion without its transaction")
        elif self._txids.setdefault(outcome.session, outcome.transaction.txid) != outcome.transaction.txid:
            self._break(actor, "two transactions for one session")

    def sessions_bounded(self, actor: Cosigner) -> None:
        """Every bound of a node's sessions, and no session is open after its deadline."""
        if actor.node is None:
            return
        for sessions in actor.node.ceremonies._groups.values():
            if len([one for one in sessions if one.outcome is None]) > limits.SESSIONS_PER_GROUP_MAX:
                self._break(actor, "too many open sessions")
            if any(one.attempt > limits.ATTEMPTS_MAX for one in sessions):
                self._break(actor, "too many attempts")
            if any(len(said) > limits.EARLY_MESSAGES_MAX for said in sessions._early.values()):
                self._break(actor, "too many early messages")

    def still_open(self, actor: Cosigner, now: float) -> None:
        """Every session ends by its deadline."""
        if actor.node is None:
            self._break(actor, "is still down in the end")
        for sessions in actor.node.ceremonies._groups.values():
            for one in sessions:
                if not one.settled and one.proposal.expires_at + 1 < now:
                    self._break(actor, f"a session is still open after its deadline: {one.state.value}")

    def false_proof(self, actor: Cosigner) -> NoReturn:
        """Nobody is told that their disk is old, whose is not."""
        self._break(actor, "its disk is called old, and is not")

    def none_open(self, actor: Cosigner) -> None:
        """Once a disk is proved old, nothing that came from it is open."""
        for sessions in actor.node.ceremonies._groups.values() if actor.node is not None else ():
            for one in sessions:
                if one.outcome is None and one.id in _proposed(actor):
                    self._break(actor, "a session from an old disk is still open")

    def none_approved(self, actor: Cosigner) -> None:
        """A moment later, no approval that came from it is left, but those of what is completed."""
        wiped = {one.session for one in _entries(actor) if isinstance(one, journal.ApprovalWiped)}
        done = {record[1:33] for record in actor.node_disk.synced if record[:1] == COMPLETION}
        given = {one.session for one in _entries(actor) if isinstance(one, journal.ApprovalGiven)}
        if given & _proposed(actor) - wiped - done:
            self._break(actor, "an approval from an old disk is not revoked")

    def must_complete(self, actor: Cosigner, session: bytes, ends: list[End]) -> None:
        """A session completes if everybody is honest, up and connected from some moment on."""
        if End.COMPLETED not in ends:
            self._break(actor, f"session {session.hex()[:8]} of honest nodes did not complete: {ends}")

    def _case(self, approval: journal.ApprovalGiven) -> _Case:
        case = self._cases.get(approval.session)
        if case is None:
            proposal = Proposal.open_untrusted(Message.from_bytes(approval.proposal).verify(), self._group)
            review = proposal.review(self._group, Known(), 0.0)
            slots = rounds.contexts(self._group, review.slots)
            coins = tuple(txin.outpoint for txin in proposal.psbt.tx.inputs)
            digest = proposal.digest(self._group, review)
            case = self._cases[approval.session] = _Case(digest, slots, coins, proposal.record.topology)
        return case


def _entries(actor: Cosigner) -> list[journal.Entry]:
    return [journal.read(record) for record in actor.holder_disk.synced]


def _proposed(actor: Cosigner) -> set[bytes]:
    """Return the sessions that a machine has begun with."""
    return {Message.from_bytes(record[1:]).session for record in actor.began_with if record[:1] == b"\x00"}


def _partial(payload: bytes) -> PartialSignature:
    read = decode_untrusted(MessageType.PARTIAL_SIGNATURE, payload)
    assert isinstance(read, PartialSignature)
    return read
