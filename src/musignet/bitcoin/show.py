"""A review as lines for a person: printable ASCII only, nothing left out, nothing of a stranger unmarked (X2, X16)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..text import safe
from .checks import Confirm, Notice
from .review import Review, ReviewedInput, ReviewedOutput

__all__ = ["bitcoin", "grouped", "lines"]

_SCRIPT_SHOWN_CHARS: Final = 80
_SAT_PER_BITCOIN: Final = 100_000_000


def bitcoin(amount_sat: int) -> str:
    """Return an amount as `0.01500000 BTC`."""
    whole, part = divmod(amount_sat, _SAT_PER_BITCOIN)
    return f"{whole}.{part:08d} BTC"


def grouped(address: str) -> str:
    """Return an address in groups of four characters, so that a person can compare it."""
    return " ".join(address[at : at + 4] for at in range(0, len(address), 4))


def lines(review: Review) -> tuple[str, ...]:
    """Return the whole review, one line each: every input, every output, the fee, every notice."""
    return tuple(safe(line, max(len(line), 1)) for line in _lines(review))


def _lines(review: Review) -> Iterator[str]:
    total = sum(one.out.amount_sat for one in review.inputs)
    ours = sum(one.ours is not None for one in review.inputs)
    yield f"A transaction on {review.chain.name.lower()}, version {review.tx.version}, {review.vbytes} vbytes"
    yield f"Spends {len(review.inputs)} inputs, {ours} of them ours, {bitcoin(total)} in all:"
    for number, spent in enumerate(review.inputs, 1):
        yield f"  {number}. {bitcoin(spent.out.amount_sat)} of {spent.outpoint}, {_whose(spent)}"
    paid = sum(out.amount_sat for out in review.tx.outputs)
    yield f"Pays {len(review.outputs)} outputs, {bitcoin(paid)} in all, {bitcoin(review.sent_sat)} of it to others:"
    for number, output in enumerate(review.outputs, 1):
        yield f"  {number}. {bitcoin(output.out.amount_sat)} {_whereto(output)}"
    yield f"Fee {review.fee_sat} sat, {review.fee_rate_sat_vb:.1f} sat/vB"
    if review.tx.locktime:
        yield f"Lock time {review.tx.locktime}"
    for notice in review.notices:
        yield _notice(notice)
    if review.memo:
        yield f'The proposer wrote (nobody checked it): "{safe(review.memo)}"'


def _whose(spent: ReviewedInput) -> str:
    if spent.ours is None:
        return "not ours"
    return f"ours at {spent.ours.branch}/{spent.ours.index}{'' if spent.verified else ', amount not verified'}"


def _whereto(output: ReviewedOutput) -> str:
    where = (
        grouped(output.address) if output.address else f"script {safe(output.out.script.hex(), _SCRIPT_SHOWN_CHARS)}"
    )
    if output.change is None:
        return f"to {where}"
    return f"back to us, change {output.change.branch}/{output.change.index}: {where}"


def _notice(notice: Notice) -> str:
    wanted = "" if notice.confirm is Confirm.NOTHING else f" [{notice.confirm.value}]"
    return f"! {notice.text}{wanted} (rule {notice.rule.name})"
