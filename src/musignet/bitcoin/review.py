"""`review`: what a PSBT would do, in the wallet's own words, or the rule that it breaks.

Nothing in a review comes from the proposer's summary: amounts, change, keys, tweaks and digests are recomputed from
the PSBT and the wallet's own descriptor.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from ..chain import Chain
from . import taproot
from .checks import CHECKS, Confirm, Draft, Notice, sighash_type
from .descriptor import Derived
from .group import CHANGE, Group, Known
from .psbt import Psbt
from .rules import Rule, RuleBroken
from .slots import SigningSlot, transaction_digest
from .transaction import Outpoint, Transaction, TxOut
from .weight import weight_wu

__all__ = ["Review", "ReviewedInput", "ReviewedOutput", "review"]


@dataclass(frozen=True, slots=True)
class ReviewedInput:
    """One input."""

    outpoint: Outpoint
    out: TxOut
    sequence: int
    ours: Derived | None
    """The address of ours that it spends from, or None where it is somebody else's."""
    verified: bool
    """Whether our own wallet knows this coin and says the same."""


@dataclass(frozen=True, slots=True)
class ReviewedOutput:
    """One output."""

    out: TxOut
    address: str | None
    """None where the script has no address."""
    change: Derived | None
    """Our change address, found by our own derivation; None for everything else, our receiving addresses included."""


@dataclass(frozen=True, slots=True)
class Review:
    """What a transaction does. Made by `review` alone, after every rule held."""

    chain: Chain
    tx: Transaction
    digest: bytes
    """32 bytes: what an approval is for (X15)."""
    inputs: tuple[ReviewedInput, ...]
    outputs: tuple[ReviewedOutput, ...]
    fee_sat: int
    weight_wu: int
    """When everybody has signed; an estimate where inputs of others are of unknown kind."""
    notices: tuple[Notice, ...]
    slots: tuple[SigningSlot, ...]
    """What the group signs: one for each input of ours."""
    memo: str
    """The proposer's words. Never trusted; `show.lines` shows them escaped, cut, and as what they are (X16)."""

    @property
    def vbytes(self) -> int:
        return -(-self.weight_wu // 4)

    @property
    def fee_rate_sat_vb(self) -> float:
        """For showing; rules compare whole satoshi."""
        return self.fee_sat / self.vbytes

    @property
    def sent_sat(self) -> int:
        """What goes to outputs that are not our change."""
        return sum(one.out.amount_sat for one in self.outputs if one.change is None)

    @property
    def last_change(self) -> int:
        """The highest index of our change addresses that it uses, spent from or paid to; -1 for none."""
        spent = [one.ours for one in self.inputs if one.ours is not None and one.ours.branch == CHANGE]
        paid = [one.change for one in self.outputs if one.change is not None]
        return max((one.index for one in (*spent, *paid)), default=-1)

    @property
    def confirm(self) -> frozenset[Confirm]:
        """What a person must do before this may be approved. Empty: a policy may answer by itself."""
        return frozenset(notice.confirm for notice in self.notices) - {Confirm.NOTHING}

    def require(self, digest: bytes) -> None:
        """Check that this is the transaction that was approved.

        Raises: RuleBroken (X15) when its digest is another one.
        """
        if not hmac.compare_digest(self.digest, digest):
            raise RuleBroken(
                Rule.X15, "not the transaction that was approved", expected=digest.hex(), got=self.digest.hex()
            )


def review(psbt: Psbt, group: Group, known: Known | None = None, memo: str = "") -> Review:
    """Return what `psbt` does, judged by this wallet alone.

    Args:   known - our coins, the addresses in use, and the tip of the chain, as far as we know them.
            memo  - what the proposer wrote beside it.
    Raises: RuleBroken naming the row of THREATS.md that it breaks; nothing must be signed then.
    """
    draft = Draft.of(psbt, group, known or Known())
    notices = tuple(notice for check in CHECKS for notice in check(draft))
    return Review(
        group.chain,
        psbt.tx,
        transaction_digest(group.chain, psbt.tx, draft.spent),
        _inputs(draft),
        _outputs(draft),
        draft.fee_sat,
        weight_wu(psbt, draft.spent),
        notices,
        _slots(draft),
        memo,
    )


def _inputs(draft: Draft) -> tuple[ReviewedInput, ...]:
    return tuple(
        ReviewedInput(txin.outpoint, out, txin.sequence, ours, draft.known.utxos.get(txin.outpoint) == out)
        for txin, out, ours in zip(draft.psbt.tx.inputs, draft.spent, draft.ours, strict=True)
    )


def _outputs(draft: Draft) -> tuple[ReviewedOutput, ...]:
    return tuple(
        ReviewedOutput(out, taproot.address(out.script, draft.group.chain), change)
        for out, change in zip(draft.psbt.tx.outputs, draft.change, strict=True)
    )


def _slots(draft: Draft) -> tuple[SigningSlot, ...]:
    ours = [(index, derived) for index, derived in enumerate(draft.ours) if derived is not None]
    wanted = [(index, sighash_type(draft, index)) for index, _ in ours]
    digests = taproot.key_path_digests(draft.psbt.tx, draft.spent, wanted)
    return tuple(
        SigningSlot(
            index, one.branch, one.index, one.participants, one.aggregate, one.tweaks, one.output, None, kind, digest
        )
        for (index, one), (_, kind), digest in zip(ours, wanted, digests, strict=True)
    )
