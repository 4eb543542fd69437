"""BIP-327 signing, the public half: nonces, sessions, partial signatures and who is at fault.

    PublicNonce x n --nonce_agg--> AggregateNonce --SigningSession(.., message, keyagg)--> SigningSession
    SecretNonces.partial_sign(slot, key, session) x n --> session.complete(nonces, partials) --> BIP-340 signature

The secret half is `secret_nonces`. A partial signature proves nothing about who sent it; only the signed message
around it does (THREATS.md rule 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import LocalError
from ..text import safe
from . import backend, musig_backend
from .keyagg import Contribution, InvalidContributionError, KeyAgg
from .schnorr import PublicKey

__all__ = ["AggregateNonce", "PublicNonce", "SigningSession", "nonce_agg"]

_SHOWN_MAX_CHARS = 140


def _shown(data: bytes) -> str:
    return safe(data.hex(), _SHOWN_MAX_CHARS) or "nothing"


@dataclass(frozen=True, slots=True)
class PublicNonce:
    """What a signer sends in round 1: two points. `encoded` is 66 bytes; `handle` is for `crypto` alone."""

    encoded: bytes
    handle: backend.Handle = field(repr=False, compare=False)

    @classmethod
    def parse_untrusted(cls, data: bytes, signer: int, key: PublicKey) -> PublicNonce:
        """Parse the nonce that `signer`, the owner of `key`, contributed.

        Raises: InvalidContributionError naming them when it is not 66 bytes of two compressed points.
        """
        try:
            return cls(data, musig_backend.nonce_parse(data))
        except backend.BackendError:
            expected = "66 bytes of two compressed points"
            raise InvalidContributionError(
                Contribution.PUBNONCE, signer, key.compressed, expected=expected, got=_shown(data)
            ) from None


@dataclass(frozen=True, slots=True)
class AggregateNonce:
    """The sum of all public nonces. `encoded` is 66 bytes, each half a point or 33 zeros for infinity.

    Infinity is no error: a signer who caused it is named when their partial signature fails (BIP-327 "Dealing with
    Infinity in Nonce Aggregation").
    """

    encoded: bytes
    handle: backend.Handle = field(repr=False, compare=False)

    @classmethod
    def parse_untrusted(cls, data: bytes) -> AggregateNonce:
        """Parse what a collector sent. Raises InvalidContributionError that blames the aggregator, no signer."""
        try:
            return cls(data, musig_backend.aggregate_parse(data))
        except backend.BackendError:
            expected = "66 bytes, each half a compressed point or zero"
            raise InvalidContributionError(
                Contribution.AGGNONCE, None, b"", expected=expected, got=_shown(data)
            ) from None


def nonce_agg(nonces: Sequence[PublicNonce]) -> AggregateNonce:
    """Sum the signers' nonces, in any order: BIP-327 "Nonce Aggregation". Raises LocalError when there are none."""
    try:
        handle = musig_backend.nonce_agg([nonce.handle for nonce in nonces])
    except backend.BackendError as error:
        raise LocalError(f"cannot aggregate {len(nonces)} nonces: {error}", expected="1 or more") from None
    return AggregateNonce(musig_backend.aggregate_serialize(handle), handle)


class SigningSession:
    """One message under one aggregate key and one aggregate nonce: BIP-327 "Session Context". It never changes.

    Attributes: `aggregate_nonce`, `message` (32 bytes), `keyagg`; `values` is for `crypto` alone.
    """

    __slots__ = ("aggregate_nonce", "keyagg", "message", "values")

    def __init__(self, aggregate_nonce: AggregateNonce, message: bytes, keyagg: KeyAgg) -> None:
        """Compute what all partial signatures share. Raises LocalError when the message is not 32 bytes."""
        self.aggregate_nonce = aggregate_nonce
        self.message = message
        self.keyagg = keyagg
        try:
            self.values = musig_backend.session(aggregate_nonce.handle, message, keyagg.context)
        except backend.BackendError as error:
            raise LocalError(f"cannot begin a session: {error}", hint="sign a 32-byte digest") from None

    def partial_verify(self, signer: int, nonce: PublicNonce, partial: bytes) -> bool:
        """Return whether the partial signature of `signer` holds: BIP-327 "Partial Signature Verification".

        Args:   signer, index in `keyagg.keys`; the nonce that signer sent in round 1; 32 bytes from them in round 2.
        Raises: LocalError when there is no such signer. Never for bad bytes: those are simply False.

        False proves `signer` at fault only if they signed for this very session and its nonces were summed honestly.
        """
        if not 0 <= signer < len(self.keyagg.keys):
            raise LocalError("no such signer", expected=f"0 to {len(self.keyagg.keys) - 1}", got=signer)
        try:
            parsed = musig_backend.partial_parse(partial)
        except backend.BackendError:
            return False
        point = self.keyagg.keys[signer].point
        return musig_backend.partial_verify(parsed, nonce.handle, point, self.keyagg.context, self.values)

    def partial_agg(self, partials: Sequence[bytes]) -> bytes:
        """Return the 64-byte sum of all signers' partial signatures: BIP-327 "Partial Signature Aggregation".

        It need not verify; `complete` makes sure. Raises: LocalError unless there is one for each key;
        InvalidContributionError naming the first signer whose is not 32 bytes below the group order.
        """
        self._one_each(partials, "partial signatures")
        parsed = [self._parse(signer, partial) for signer, partial in enumerate(partials)]
        return musig_backend.partial_agg(self.values, parsed)

    def verify(self, signature: bytes) -> bool:
        """Return whether 64 bytes are a BIP-340 signature of the message under the output key."""
        return self.keyagg.output.verify(self.message, signature)

    def complete(self, nonces: Sequence[PublicNonce], partials: Sequence[bytes]) -> bytes:
        """Return the final signature, verified under the output key, or name who prevented it.

        The sum is verified first: when it holds, one verification did for all signers. Only when it does not is each
        partial signature verified, until the first that fails.

        Args:   nonces and partials, one for each of `keyagg.keys` and in their order.
        Raises: InvalidContributionError naming one signer (`PSIG`), or nobody (`AGGNONCE`) when every partial
                signature holds but the aggregate nonce is not the sum of `nonces`;
                LocalError when something is missing.
        """
        self._one_each(nonces, "public nonces")
        signature = self.partial_agg(partials)
        if self.verify(signature):
            return signature
        for signer, (nonce, partial) in enumerate(zip(nonces, partials, strict=True)):
            if not self.partial_verify(signer, nonce, partial):
                raise self._blame(signer, "a partial signature for this session that verifies")
        raise InvalidContributionError(
            Contribution.AGGNONCE, None, b"", expected="the sum of the signers' nonces", got="another one"
        )

    def _one_each(self, contributions: Sequence[object], name: str) -> None:
        if len(contributions) != len(self.keyagg.keys):
            raise LocalError(
                f"not one of the {name} for each signer", expected=len(self.keyagg.keys), got=len(contributions)
            )

    def _parse(self, signer: int, partial: bytes) -> backend.Handle:
        try:
            return musig_backend.partial_parse(partial)
        except backend.BackendError:
            raise self._blame(signer, "32 bytes below the group order") from None

    def _blame(self, signer: int, expected: str) -> InvalidContributionError:
        return InvalidContributionError(
            Contribution.PSIG, signer, self.keyagg.keys[signer].compressed, expected=expected
        )

    def __repr__(self) -> str:
        return f"<SigningSession of {self.keyagg!r}>"
