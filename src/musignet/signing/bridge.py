"""The bridge: our key in a group is in another signer of BIP-373, and a PSBT goes there and back for each round.

    Approve ------> Asked.         PSBT out, back with our nonces: Store(ApprovalGiven) -- Stored ---> Approved
    MakeNonces ---> Store(NoncesLent) -- Stored ---> NoncesMade      with the nonces that came, or once they come
    MakePartials -> Store(SlotsBurned) - Stored ---> PSBT out with all nonces, back with our partial signatures:
                                     Store(PartialsOut) - Stored ---> PartialsMade

It stands where the keyholder stands and holds no secret: the secret nonces are in the signer's memory, for as long as
the signer keeps them. What comes back is believed in nothing: only our own nonces and partial signatures may have been
added, nonces serve one attempt ever, partial signatures are verified. Whoever brings a PSBT with our nonces says yes
for the person who saw it at the signer; the last word is the signer's anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from .. import limits
from ..bitcoin.fields import In
from ..bitcoin.musig_fields import add_nonces, add_partials, check_contributions, describe, merge, nonces, partials
from ..bitcoin.psbt import Psbt
from ..crypto.musig2 import SigningSession
from ..errors import InvalidMessage, LocalError
from ..text import short_key
from . import journal, rounds
from .approvals import Approvals, Place
from .evidence import signing_transcript
from .holding import Attempt, Holding
from .proposal import Proposal
from .records import PartialSignature, PublicNonce, Topology, decode_untrusted, encode, split
from .states import Event, State
from .verbs import Approve, KeyholderEffect, MakeNonces, MakePartials, PartialsMade, Wipe

__all__ = ["Bridge", "Wants"]


class Wants(Enum):
    """What the PSBT of a session is to come back with."""

    NONCES = "nonces"
    """Our public nonces. Before the approval that is a person's yes."""
    PARTIALS = "partial signatures"
    NOTHING = "nothing"
    """It waits for the other cosigners, or it is done."""


@dataclass(slots=True, eq=False)
class _Errand:
    """What goes to the signer and back in one session."""

    wanted: int = 0
    """The attempt that waits for nonces; 0 for none."""
    ahead: bytes = b""
    """Nonces that came before their attempt."""
    lent: bytes = b""
    """The nonces of the attempt that is under way."""
    others: dict[bytes, bytes] = field(default_factory=dict)
    """Identity key to nonces, once everybody's are here."""
    transcript: bytes = b""
    sessions: tuple[SigningSession, ...] = ()
    """What each slot signs; empty until it is on disk that these nonces go with that transcript."""
    partials: bytes = b""
    """Ours, once they came."""


class Bridge(Approvals):
    """See the module. `handle` raises nothing; `export` and `import_untrusted` raise for whoever calls them.

    Args: as for `Keyholder`, with a place instead of an account.
    """

    def __init__(self, place: Place, draw: Callable[[int], bytes], records: Iterable[bytes] = ()) -> None:
        self._shown: dict[bytes, Holding] = {}
        """Reviewed, and not approved yet."""
        self._errands: dict[bytes, _Errand] = {}
        self._used: set[bytes] = set()
        """Every nonce that was ever lent."""
        super().__init__(place, draw, records)

    # --- to the signer, and back --------------------------------------------------------------------------------------

    def wants(self, session: bytes) -> Wants:
        """Return what the PSBT of a session is to come back with."""
        errand = self._errands.get(session, _Errand())
        holding = self._held.get(session)
        if holding is None:
            return Wants.NONCES if session in self._shown else Wants.NOTHING
        if holding.state is not State.APPROVED or holding.attempt in holding.partials:
            return Wants.NOTHING
        if errand.sessions:
            return Wants.NOTHING if errand.partials else Wants.PARTIALS
        return Wants.NONCES if not holding.live and not errand.ahead else Wants.NOTHING

    def export(self, session: bytes) -> bytes:
        """Return the PSBT for the signer: with participants and derivations (0x1a), and all nonces once they are here.

        Partial signatures of others are not in it: no signer needs them, and some finish a PSBT that has all others'.

        Raises: LocalError for a session that is not known here.
        """
        return self._psbt(self._find(session)).serialize()

    def import_untrusted(
        self, session: bytes, data: bytes, now: float, replaces: frozenset[bytes] = frozenset()
    ) -> list[KeyholderEffect]:
        """Take what `export` wrote, back from the signer. Returns effects as `handle` does.

        Args:   replaces - the sessions whose coins a person gives up with the first nonces (`Asked.replaces`).
        Raises: LocalError when nothing is wanted now, or its coins are another session's; RuleBroken for what is no
                PSBT, or has contributions of others than the group; MergeConflict when anything but our own
                contribution was changed; InvalidMessage when it is missing, no good, or was used before. Nothing is
                changed then.
        """
        self._now, self._out = now, []
        self._forget_old()
        holding = self._find(session)
        wants = self.wants(session)
        again = bool(self._errands.get(session, _Errand()).ahead)  # newer nonces take the place of unused ones
        if wants is Wants.NOTHING and not again:
            raise LocalError("nothing is wanted from the signer now", hint="musignet show says who is waited for")
        merged = self._merged(holding, Psbt.parse_untrusted(data), again=again)
        if wants is not Wants.PARTIALS:
            self._nonces_came(holding, self._own_nonces(holding, merged), replaces)
        else:
            self._partials_came(holding, self._own_partials(holding, merged))
        return self._out

    def _find(self, session: bytes) -> Holding:
        holding = self._held.get(session) or self._shown.get(session)
        if holding is None:
            raise LocalError("no such session at the bridge", got=session.hex()[:16], hint="it may have ended")
        return holding

    def _psbt(self, holding: Holding, *, again: bool = False) -> Psbt:
        """Return what the signer is given; `again`: without nonces of ours that no attempt has taken."""
        review = holding.review
        inputs = {at: one.ours for at, one in enumerate(review.inputs) if one.ours is not None}
        outputs = {at: one.change for at, one in enumerate(review.outputs) if one.change is not None}
        psbt = describe(_blank(holding.proposal.psbt), self._group.wallet, inputs, outputs)
        errand = self._errands.get(holding.session, _Errand())
        own = self.place.identity
        given = {own: errand.lent or (b"" if again else errand.ahead), **errand.others}
        for identity, raw in given.items():
            for context, one in _per_slot(holding, raw, limits.PUBLIC_NONCE_BYTES):
                psbt = add_nonces(psbt, context.slot, {_key(context, identity): one})
        for context, one in _per_slot(holding, errand.partials, limits.PARTIAL_BYTES):
            psbt = add_partials(psbt, context.slot, {_key(context, own): one})
        return psbt

    def _merged(self, holding: Holding, theirs: Psbt, *, again: bool) -> Psbt:
        """Return what came back. Raises MergeConflict, RuleBroken: it was changed, or says more than our own part."""
        fixed = {_key(one, identity) for one in holding.slots for identity in self._group.others(self.place.identity)}
        merged = merge(self._psbt(holding, again=again), theirs, fixed, whose="another cosigner")
        for at, one in enumerate(holding.review.inputs):
            if one.ours is not None:
                check_contributions(merged.inputs[at], one.ours)
        return merged

    # --- nonces -------------------------------------------------------------------------------------------------------

    def _own_nonces(self, holding: Holding, merged: Psbt) -> bytes:
        """Return our nonces, one for each slot. Raises InvalidMessage."""
        found = []
        for context in holding.slots:
            key = _key(context, self.place.identity)
            if key in partials(merged, context.slot):
                raise InvalidMessage("a partial signature before the nonces of the others", got=_where(context, key))
            if key not in (here := nonces(merged, context.slot)):
                raise InvalidMessage(
                    "the signer added no nonce", expected=f"a public nonce of {_where(context, key)}",
                    hint="is it the signer of this key, and does it know BIP-373?",
                )  # fmt: skip
            found.append(here[key])
        if len(set(found)) < len(found) or self._spoken_for(holding, found):
            raise InvalidMessage("nonces that were used before", hint="have the signer make new ones, for this PSBT")
        raw = b"".join(found)
        rounds.parse_nonces(holding.slots, self.place.identity, raw)
        return raw

    def _spoken_for(self, holding: Holding, found: list[bytes]) -> bool:
        """Return whether one of these nonces was lent, or waits to be lent in another session."""
        waiting = (errand.ahead for session, errand in self._errands.items() if session != holding.session)
        return any(not taken.isdisjoint(found) for taken in (self._used, *map(_each_nonce, waiting)))

    def _nonces_came(self, holding: Holding, raw: bytes, replaces: frozenset[bytes]) -> None:
        if holding.session not in self._held:
            holding.proposal.require_time(self._now)
            if rivals := self._rivals(holding, replaces) - replaces:
                raise LocalError(
                    "its coins are another session's, and our partial signature for that one has left",
                    got=f"session {min(rivals).hex()[:8]}", hint="to give that one up: musignet import --replace",
                )  # fmt: skip
            del self._shown[holding.session]
            self._give(holding, replaces)
        errand = self._errand(holding)
        errand.ahead = raw
        if errand.wanted:
            self._lend(holding, errand)

    def _make_nonces(self, verb: MakeNonces) -> None:
        holding = self._next_attempt(verb)
        errand = self._errand(holding)
        errand.wanted = verb.attempt
        if errand.ahead:
            self._lend(holding, errand)

    def _lend(self, holding: Holding, errand: _Errand) -> None:
        """Begin the attempt that waits, with the nonces that came. They are never taken again."""
        raw, errand.ahead = errand.ahead, b""
        attempt = Attempt(errand.wanted, self.epoch, self._now)
        errand.wanted, errand.lent = 0, raw
        holding.live = attempt
        self._remember(holding)
        self._used |= _each_nonce(raw)
        attempt.payload = encode(PublicNonce(attempt.number, attempt.epoch, raw))
        self._store(
            journal.NoncesLent(holding.session, attempt.number, attempt.epoch, raw),
            lambda: self._nonces_stored(holding, attempt),
        )

    # --- partial signatures -------------------------------------------------------------------------------------------

    def _make_partials(self, verb: MakePartials) -> None:
        holding = self._holding(verb.session)
        if verb.attempt in holding.partials:
            self._out.append(PartialsMade(verb.session, verb.attempt, holding.partials[verb.attempt]))
            return
        attempt = holding.live
        if attempt is None or attempt.number != verb.attempt or attempt.state is not State.NONCES_OUT:
            raise LocalError("no nonces for this attempt", got=f"attempt {verb.attempt}", hint="begin the next one")
        transcript, sessions = signing_transcript(self._group, self.place.identity, holding, attempt, verb.nonces)
        others = {}
        for message in verb.nonces:
            read = decode_untrusted(message.type, message.payload)
            assert isinstance(read, PublicNonce)
            others[message.sender_key] = read.nonces
        attempt.advance(Event.PARTIALS_ASKED)

        def on_disk() -> None:
            if attempt.state is State.BURNING:
                errand = self._errand(holding)
                errand.others, errand.transcript, errand.sessions = others, transcript, sessions

        self._store(journal.SlotsBurned(verb.session, attempt.number, attempt.epoch, transcript), on_disk)

    def _own_partials(self, holding: Holding, merged: Psbt) -> bytes:
        """Return our partial signatures, one for each slot, each verified. Raises InvalidMessage."""
        errand, own, found = self._errand(holding), self.place.identity, []
        points = rounds.parse_nonces(holding.slots, own, errand.lent)
        for context, session, point in zip(holding.slots, errand.sessions, points, strict=True):
            key = _key(context, own)
            partial = partials(merged, context.slot).get(key)
            if partial is None:
                raise InvalidMessage(
                    "the signer added no partial signature", expected=f"one of {_where(context, key)}",
                    hint="it signs only with the nonces that it made for this PSBT, and only once",
                )  # fmt: skip
            if not session.partial_verify(context.places[own], point, partial):
                raise InvalidMessage(
                    "a partial signature that does not verify", got=_where(context, key),
                    hint="export it again; the signer signed with other nonces, or something else",
                )  # fmt: skip
            found.append(partial)
        return b"".join(found)

    def _partials_came(self, holding: Holding, raw: bytes) -> None:
        attempt = holding.live
        assert attempt is not None
        self._require_unchanged(holding)
        attempt.advance(Event.STORED)
        errand = self._errand(holding)
        errand.partials = raw
        payload = encode(PartialSignature(attempt.number, attempt.epoch, errand.transcript, raw))
        self._store(
            journal.PartialsOut(holding.session, attempt.number, payload),
            lambda: self._partials_stored(holding, attempt, payload),
        )

    # --- approvals, and the end ---------------------------------------------------------------------------------------

    def _judge(self, proposal: Proposal) -> Holding:
        holding = super()._judge(proposal)
        if holding.topology is not Topology.MESH:
            raise LocalError("another signer takes part in a mesh alone", hint="propose it again, as a mesh")
        return holding

    @property
    def _has_person(self) -> bool:
        return True

    def _needs_person(self, holding: Holding, verb: Approve, rivals: frozenset[bytes]) -> bool:
        """The person says yes at the signer, by what comes back from there."""
        needed = super()._needs_person(holding, verb, rivals)
        if needed:
            self._shown = dict(list(self._shown.items())[1 - limits.SESSIONS_PER_GROUP_MAX :])
            self._shown[holding.session] = holding
        return needed

    def _wipe(self, verb: Wipe) -> None:
        self._shown.pop(verb.session, None)
        super()._wipe(verb)

    def _lose(self, holding: Holding) -> Attempt | None:
        """What was exported of this attempt is of no use any more. Nonces that came ahead of the next one are."""
        ahead = self._errands.pop(holding.session, _Errand()).ahead
        if ahead:
            self._errand(holding).ahead = ahead
        return super()._lose(holding)

    def _forget_old(self) -> None:
        super()._forget_old()
        self._shown = {key: one for key, one in self._shown.items() if self._now < one.proposal.expires_at}
        self._errands = {key: one for key, one in self._errands.items() if key in self._held}

    def _errand(self, holding: Holding) -> _Errand:
        return self._errands.setdefault(holding.session, _Errand())

    def _replay(self, entry: journal.Entry) -> None:
        super()._replay(entry)
        if isinstance(entry, journal.NoncesLent):
            self._used |= _each_nonce(entry.nonces)


def _each_nonce(raw: bytes) -> set[bytes]:
    size = limits.PUBLIC_NONCE_BYTES
    return {raw[at : at + size] for at in range(0, len(raw), size)}


def _key(context: rounds.SlotContext, identity: bytes) -> bytes:
    """Return the public key of a member in a slot."""
    return rounds.own_key(context, identity)[0]


def _where(context: rounds.SlotContext, key: bytes) -> str:
    return f"key {short_key(key)} for input {context.slot.input_index}"


def _per_slot(holding: Holding, raw: bytes, size: int) -> Iterable[tuple[rounds.SlotContext, bytes]]:
    return zip(holding.slots, split(raw, size, len(holding.slots)), strict=True) if raw else ()


def _blank(psbt: Psbt) -> Psbt:
    """Return a proposal's PSBT without what somebody put into it as a nonce or a partial signature."""
    for at, one in enumerate(psbt.inputs):
        psbt = psbt.with_input(at, one.without(In.MUSIG2_PUB_NONCE, In.MUSIG2_PARTIAL_SIG))
    return psbt
