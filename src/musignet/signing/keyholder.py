"""The keyholder: the small pure machine that has the wallet key, the secret nonces and the last word.

    Approve ------> Store(ApprovalGiven) ---- Stored ---> Approved
    MakeNonces ---> Store(NoncesOut) -------- Stored ---> NoncesMade
    MakePartials -> Store(SlotsBurned) ------ Stored ---> (sign) Store(PartialsOut) -- Stored ---> PartialsMade

It trusts nothing that the node says: it reads the signed messages itself, reviews the PSBT itself, and recomputes what
was approved before it signs. After a restart it is made again from its journal: no nonce survives, each stored
partial signature does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..bitcoin.bip32 import Xpub, derive
from ..crypto.keys import SigningKey
from ..crypto.musig2 import PublicNonce as Points
from ..crypto.musig2 import SigningSession
from ..crypto.schnorr import TaggedHash
from ..crypto.secret_nonces import SecretNonces
from ..errors import InvalidMessage, LocalError, NetworkError
from . import journal, rounds
from .approvals import Approvals, Place, Verifier
from .evidence import signing_transcript
from .holding import Attempt, Holding, SecretAttempt
from .records import (
    PartialSignature,
    PublicNonce,
    encode,
    payload_hash,
)
from .states import Event, State
from .verbs import (
    MakeNonces,
    MakePartials,
    PartialsMade,
    Refused,
)

__all__ = ["Account", "Keyholder", "Verifier"]

_extra = TaggedHash("musignet/nonce-extra")
_drawn = TaggedHash("musignet/drawn")
"""The last draw is remembered by this: what nonces are made of is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Place):
    """Whose keyholder it is: our place in the group, and our key."""

    key: SigningKey
    """The secret of our key in the descriptor."""


class Keyholder(Approvals):
    """See the module. `handle` raises nothing: what cannot be done is answered with `Refused`.

    Args:
        account: whose it is.
        draw:    returns n fresh random bytes, from the operating system each time.
        records: the journal, in the order it was written.

    Raises: InvalidMessage when the key is not ours in the descriptor; SerializationError when the journal is damaged.
    """

    def __init__(self, account: Account, draw: Callable[[int], bytes], records: Iterable[bytes] = ()) -> None:
        account.group.require(account.identity)
        if account.key.pubkey != account.group.wallet_key(account.identity):
            raise InvalidMessage("the key is not the one that the descriptor has for us", got=repr(account.key))
        self.account = account
        self._last_draw = b""
        self._counter = 0
        super().__init__(account, draw, records)

    def _lose(self, holding: Holding) -> Attempt | None:
        """Forget the secret nonces, and the keys they were for."""
        lost = super()._lose(holding)
        if isinstance(lost, SecretAttempt):
            lost.secrets.wipe()
        holding.forget_keys()
        return lost

    # --- make nonces --------------------------------------------------------------------------------------------------

    def _make_nonces(self, verb: MakeNonces) -> None:
        holding = self._next_attempt(verb)
        attempt = SecretAttempt(verb.attempt, self.epoch, self._now, secrets=SecretNonces(len(holding.slots)))
        holding.live = attempt
        self._remember(holding)
        try:
            made = tuple(self._nonce(holding, attempt, at) for at in range(len(holding.slots)))
        except NetworkError:
            self._lose(holding)
            raise
        nonces = b"".join([one.encoded for one in made])
        holding.slots.parsed[self.account.identity] = (nonces, made)
        attempt.payload = encode(PublicNonce(verb.attempt, self.epoch, nonces))
        self._store(
            journal.NoncesOut(verb.session, verb.attempt, self.epoch, payload_hash(attempt.payload)),
            lambda: self._nonces_stored(holding, attempt),
        )

    def _nonce(self, holding: Holding, attempt: SecretAttempt, at: int) -> Points:
        """Make one secret nonce: fresh randomness, and an extra input that never repeats (THREATS.md K8)."""
        self._counter += 1
        extra = _extra(
            holding.session,
            attempt.epoch,
            attempt.number.to_bytes(4, "little"),
            self._counter.to_bytes(8, "little"),
            int(self._now * 1000).to_bytes(8, "little"),
            at.to_bytes(4, "little"),
        )
        context = holding.slots[at]
        return attempt.secrets.generate(
            at,
            self._random(),
            key=self._key(holding, at),
            keyagg=context.keyagg,
            message=context.slot.message,
            extra=extra,
        )

    def _random(self) -> bytes:
        drawn = self._draw(32)
        last, self._last_draw = self._last_draw, _drawn(drawn)
        if last == self._last_draw:
            raise LocalError("two draws of randomness are equal", hint="do not go on with this source")
        return drawn

    def _key(self, holding: Holding, at: int) -> SigningKey:
        """Return our own key in a slot, derived below our key in the descriptor."""
        point, path = rounds.own_key(holding.slots[at], self.account.identity)
        if not path:
            return self.account.key
        top = self._group.wallet.descriptor.members[self._group.positions[self.account.identity]].key
        assert isinstance(top, Xpub)
        key = holding.keys.get(point)
        if key is None:
            steps = derive(top.point, top.chaincode, path)
            key = holding.keys[point] = self.account.key.child(step.tweak for step in steps)
        return key

    # --- make partials ------------------------------------------------------------------------------------------------

    def _make_partials(self, verb: MakePartials) -> None:
        holding = self._holding(verb.session)
        if verb.attempt in holding.partials:
            self._out.append(PartialsMade(verb.session, verb.attempt, holding.partials[verb.attempt]))
            return
        attempt = holding.live
        if not isinstance(attempt, SecretAttempt) or attempt.number != verb.attempt:
            raise LocalError("no nonces for this attempt", got=f"attempt {verb.attempt}", hint="begin the next one")
        if attempt.state is not State.NONCES_OUT:
            raise LocalError("these nonces are used already", got=attempt.state.value)
        transcript, sessions = signing_transcript(self._group, self.account.identity, holding, attempt, verb.nonces)
        attempt.advance(Event.PARTIALS_ASKED)
        self._store(
            journal.SlotsBurned(verb.session, attempt.number, attempt.epoch, transcript),
            lambda: self._sign(holding, attempt, transcript, sessions),
        )

    def _sign(
        self, holding: Holding, attempt: SecretAttempt, transcript: bytes, sessions: tuple[SigningSession, ...]
    ) -> None:
        """The burn record is on disk: take the secret nonces and sign, once."""
        if attempt.state is not State.BURNING:
            return
        try:
            self._holding(holding.session)
            self._require_unchanged(holding)
            keys = [self._key(holding, at) for at in range(len(sessions))]
            partials = b"".join(attempt.secrets.partial_sign(at, keys[at], one) for at, one in enumerate(sessions))
        except NetworkError as error:
            self._lose(holding)
            self._out.append(Refused(holding.session, MakePartials, error.with_traceback(None)))
            return
        attempt.advance(Event.STORED)
        attempt.secrets.wipe()
        holding.forget_keys()
        payload = encode(PartialSignature(attempt.number, attempt.epoch, transcript, partials))
        entry = journal.PartialsOut(holding.session, attempt.number, payload)
        self._store(entry, lambda: self._partials_stored(holding, attempt, payload))
