"""What a keyholder answers by itself: a plain callable from a review to yes, no, or ask a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..bitcoin.review import Review

__all__ = ["Answer", "Ask", "Day", "No", "Policy", "Yes", "ask_always", "stricter"]


class Day(NamedTuple):
    """What was approved within the last 24 hours and is or may be signed."""

    sat: int = 0
    """What went to others, fees included."""
    fee_sat: int = 0


@dataclass(frozen=True, slots=True)
class Yes:
    """Approve without a person. It never answers for one: what `Review.confirm` names is asked all the same."""


@dataclass(frozen=True, slots=True)
class No:
    """Refuse; a person's proof does not help."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Approve only with a person's proof."""


Answer: TypeAlias = Yes | No | Ask
Policy: TypeAlias = Callable[[Review], Answer]


def stricter(one: Answer, other: Answer) -> Answer:
    """Return the answer that allows less; the first where both allow the same."""
    return min(one, other, key=lambda answer: (No, Ask, Yes).index(type(answer)))


def ask_always(_: Review) -> Answer:
    """The default policy."""
    return Ask()
