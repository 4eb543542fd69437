"""From signatures to a transaction that may leave: verified first, finished twice, equal or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..crypto import backend
from ..errors import AuthenticationError, LocalError
from . import wally
from .fields import In, Out
from .psbt import Psbt
from .review import Review
from .rules import Rule, RuleBroken
from .slots import SigningSlot, transaction_digest
from .taproot import SIGHASH_DEFAULT
from .transaction import with_size

__all__ = ["FinalTransaction", "finalise", "verify_signature"]

_IN_NEEDED: Final = (
    *(
        In.NON_WITNESS_UTXO,
        In.WITNESS_UTXO,
        In.SIGHASH_TYPE,
        In.TAP_KEY_SIG,
        In.FINAL_SCRIPTSIG,
        In.FINAL_SCRIPTWITNESS,
    ),
    *(In.PREVIOUS_TXID, In.OUTPUT_INDEX, In.SEQUENCE, In.TIME_LOCKTIME, In.HEIGHT_LOCKTIME),
)
_OUT_NEEDED: Final = (Out.AMOUNT, Out.SCRIPT)


@dataclass(frozen=True, slots=True)
class FinalTransaction:
    """A finished transaction: what is broadcast."""

    raw: bytes
    txid: bytes
    """32 bytes in hashing order."""

    @property
    def txid_hex(self) -> str:
        """As explorers show it."""
        return self.txid[::-1].hex()


def verify_signature(slot: SigningSlot, signature: bytes) -> bool:
    """Return whether 64 bytes are a BIP-340 signature under the output key for our own sighash."""
    return backend.schnorr_verify(backend.xonly_parse(slot.signing_key[1:]), slot.message, signature)


def finalise(psbt: Psbt, review: Review, signatures: Mapping[int, bytes]) -> FinalTransaction:
    """Return the finished transaction. What others signed on their own inputs is taken as it is.

    Args:   review     - of this PSBT, by ourselves.
            signatures - position of each input of ours to its 64-byte aggregate signature.
    Raises: LocalError when a signature is missing, or an input of somebody else is not final;
            AuthenticationError when a signature does not hold: it says nothing about whose part is wrong;
            RuleBroken (X15) when the review is of another transaction, (X12) when libwally finishes it otherwise.
    """
    _check_same(psbt, review)
    psbt = _bare(psbt)
    for slot in review.slots:
        signature = signatures.get(slot.input_index)
        if signature is None:
            raise LocalError(f"no signature for input {slot.input_index + 1}")
        if not verify_signature(slot, signature):
            raise AuthenticationError(f"the signature of input {slot.input_index + 1} does not hold")
        suffix = b"" if slot.sighash_type == SIGHASH_DEFAULT else bytes((slot.sighash_type,))
        fields = psbt.inputs[slot.input_index].with_field(In.TAP_KEY_SIG, b"", signature + suffix)
        psbt = psbt.with_input(slot.input_index, fields)
    raw, txid = _finish(psbt)
    try:
        second = wally.finish(psbt.understood().serialize())
    except wally.WallyError:
        second = b""
    if raw != second:
        raise RuleBroken(Rule.X12, "two implementations finish the transaction otherwise", hint="report this PSBT")
    return FinalTransaction(raw, txid)


def _bare(psbt: Psbt) -> Psbt:
    """Return what finishing needs, without what signers needed: of 1,000 signers, that is most of a PSBT."""
    return replace(
        psbt,
        inputs=tuple(one.picked(_IN_NEEDED) for one in psbt.inputs),
        outputs=tuple(one.picked(_OUT_NEEDED) for one in psbt.outputs),
    )


def _check_same(psbt: Psbt, review: Review) -> None:
    spent = [out for out in psbt.spent if out is not None]
    if len(spent) != len(psbt.inputs):
        raise RuleBroken(Rule.X1, "an input does not say what it spends", expected="a witness UTXO", got="none")
    review.require(transaction_digest(review.chain, psbt.tx, spent))


def _finish(psbt: Psbt) -> tuple[bytes, bytes]:
    """Return the raw transaction and its id: our key-path signatures, and what others have finished."""
    witnesses: list[bytes] = []
    script_sigs: list[bytes] = []
    for index, one in enumerate(psbt.inputs):
        signature, witness, script_sig = (
            one.get(kind) for kind in (In.TAP_KEY_SIG, In.FINAL_SCRIPTWITNESS, In.FINAL_SCRIPTSIG)
        )
        if signature is not None:
            witness = b"\x01" + with_size(signature)
        if witness is None and script_sig is None:
            raise LocalError(f"input {index + 1} is not signed by its owner yet")
        witnesses.append(witness or b"\x00")
        script_sigs.append(script_sig or b"")
    return psbt.tx.to_bytes(witnesses, script_sigs), psbt.tx.txid(script_sigs)
