"""What is signed: one slot for each input and musig key, and the digest of the transaction that approvals name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..chain import Chain
from ..crypto.schnorr import TaggedHash
from .descriptor import Participant
from .taproot import Tweak
from .transaction import Transaction, TxOut, compact_size, with_size

__all__ = ["SigningSlot", "transaction_digest"]

_slot_hash = TaggedHash("musignet/slot")
_transaction_hash = TaggedHash("musignet/transaction")


@dataclass(frozen=True, slots=True)
class SigningSlot:
    """One signature that the group makes together. Everything in it was computed here, nothing came from a peer."""

    input_index: int
    branch: int
    index: int
    participants: tuple[Participant, ...]
    """In aggregation order, with the path that each cosigner derives its own key by."""
    aggregate: bytes
    """33 bytes, untweaked."""
    tweaks: tuple[Tweak, ...]
    """In order: the steps of BIP-328 (plain), then the TapTweak (x-only)."""
    signing_key: bytes
    """33 bytes with parity: the aggregate after all tweaks. Its x coordinate is in the script that is spent."""
    leaf_hash: bytes | None
    """None for the key path."""
    sighash_type: int
    message: bytes
    """The 32 bytes that are signed."""

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The participants' keys in aggregation order."""
        return tuple(one.pubkey for one in self.participants)

    def commitment(self) -> bytes:
        """Return 32 bytes that stand for (input, signing key, tweaks, leaf, sighash): what an approval covers (X15)."""
        return _slot_hash(
            self.input_index.to_bytes(4, "little"),
            self.aggregate,
            compact_size(len(self.tweaks)),
            *(bytes((tweak.xonly,)) + tweak.value for tweak in self.tweaks),
            self.signing_key,
            with_size(self.leaf_hash or b""),
            bytes((self.sighash_type,)),
            self.message,
        )


def transaction_digest(chain: Chain, tx: Transaction, spent: Sequence[TxOut]) -> bytes:
    """Return 32 bytes that stand for the network, the unsigned transaction and every output it spends (X15).

    Nothing else has a part in it: nonces, signatures, hints and unknown fields may change without a new approval.
    """
    return _transaction_hash(
        bytes((chain,)),
        with_size(tx.to_bytes()),
        *(txin.outpoint.to_bytes() + out.to_bytes() for txin, out in zip(tx.inputs, spent, strict=True)),
    )
