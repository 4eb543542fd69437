"""Medians, spreads and ratios of alternating rounds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["percentile", "ratios", "spread"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie: the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, min and max."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratios(values: Sequence[float], floor: Sequence[float]) -> dict[str, float]:
    """Return the spread of the ratios round by round: what disturbed a whole round cancels out."""
    return spread([value / under for value, under in zip(values, floor, strict=True)])
