"""A whole ceremony in one process, with our own floors alone: cosigners that get and give the bytes of a PSBT."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.group import Group, Known
from musignet.bitcoin.musig_fields import add_nonces, add_partials, merge, nonces, partials
from musignet.bitcoin.psbt import Psbt
from musignet.bitcoin.review import Review, review
from musignet.bitcoin.slots import SigningSlot
from musignet.chain import Chain
from musignet.crypto.keyagg import KeyAgg, keys_untrusted
from musignet.crypto.keys import SigningKey
from musignet.crypto.musig2 import PublicNonce, SigningSession, nonce_agg
from musignet.crypto.secret_nonces import SecretNonces

from .keys import secret
from .wallet import MEMBERS, descriptor_text, secrets_of

__all__ = ["Cosigner", "cosign", "wallet_of"]


def wallet_of(size: int, shape: str) -> Group:
    """Return a regtest wallet of the first two or three members."""
    return Group(Descriptor.parse_untrusted(descriptor_text(shape, names=MEMBERS[:size])), Chain.REGTEST)


def aggregate(slot: SigningSlot) -> KeyAgg:
    keys = KeyAgg(keys_untrusted(slot.keys))
    for tweak in slot.tweaks:
        keys = keys.tweak(tweak.value, xonly=tweak.xonly)
    assert keys.output.compressed == slot.signing_key
    return keys


def session(psbt: Psbt, slot: SigningSlot) -> tuple[SigningSession, tuple[PublicNonce, ...]]:
    """Return the session of a slot whose nonces are all in the PSBT."""
    keys = aggregate(slot)
    listed = zip(keys.keys, nonces(psbt, slot).values(), strict=True)
    parsed = tuple(PublicNonce.parse_untrusted(data, signer, key) for signer, (key, data) in enumerate(listed))
    return SigningSession(nonce_agg(parsed), slot.message, keys), parsed


class Cosigner:
    """One member. It reviews what it is given, and keeps its secret nonces between the rounds."""

    def __init__(self, wallet: Group, member: int, known: Known, salt: str = "") -> None:
        self._wallet, self._member, self._known, self._salt = wallet, member, known, salt

    def _key(self, slot: SigningSlot) -> SigningKey:
        own = next(one.pubkey for one in slot.participants if one.member == self._member)
        return SigningKey.from_secret(secrets_of(self._wallet, slot)[own])

    def round_one(self, data: bytes) -> bytes:
        """Return the PSBT with our nonces."""
        psbt = Psbt.parse_untrusted(data)
        self._review = review(psbt, self._wallet, self._known)
        self._keys = [self._key(slot) for slot in self._review.slots]
        self._nonces = SecretNonces(len(self._review.slots))
        for number, (slot, key) in enumerate(zip(self._review.slots, self._keys, strict=True)):
            random, extra = (
                secret(f"{what}{self._salt} {number} of {slot.message.hex()}") for what in ("random", "extra")
            )
            made = self._nonces.generate(
                number, random, key=key, keyagg=aggregate(slot), message=slot.message, extra=extra
            )
            psbt = add_nonces(psbt, slot, {key.pubkey: made.encoded})
        self._psbt = psbt
        return psbt.serialize()

    def round_two(self, data: bytes) -> bytes:
        """Return the PSBT, which has everybody's nonces, with our partial signatures."""
        psbt = merge(self._psbt, Psbt.parse_untrusted(data), {key.pubkey for key in self._keys})
        for number, (slot, key) in enumerate(zip(self._review.slots, self._keys, strict=True)):
            partial = self._nonces.partial_sign(number, key, session(psbt, slot)[0])
            psbt = add_partials(psbt, slot, {key.pubkey: partial})
        return psbt.serialize()


def cosign(wallet: Group, data: bytes, known: Known) -> tuple[Psbt, Review, dict[int, bytes]]:
    """Return the PSBT with everybody's parts, its review, and the aggregate signature of each input."""
    members = [Cosigner(wallet, member, known) for member in range(len(wallet.descriptor.members))]
    with_nonces = merged([member.round_one(data) for member in members])
    psbt = Psbt.parse_untrusted(merged([member.round_two(with_nonces) for member in members]))
    done = review(psbt, wallet, known)
    signatures = {}
    for slot in done.slots:
        common, public = session(psbt, slot)
        signatures[slot.input_index] = common.complete(public, list(partials(psbt, slot).values()))
    return psbt, done, signatures


def merged(parts: Sequence[bytes]) -> bytes:
    return reduce(merge, map(Psbt.parse_untrusted, parts)).serialize()
