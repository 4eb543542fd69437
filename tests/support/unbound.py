"""Rates without bounds, for tests and benchmarks that are about something else: the buckets are still counted."""

from __future__ import annotations

from typing import Final

from musignet.limits import Limits

__all__ = ["FREELY", "RATES"]

_ENOUGH: Final = 10**12

RATES: Final = {
    "peer_messages_per_s": _ENOUGH,
    "peer_burst_messages": _ENOUGH,
    "peer_bytes_per_s": _ENOUGH,
    "peer_burst_bytes": _ENOUGH,
    "total_messages_per_s": _ENOUGH,
    "total_burst_messages": _ENOUGH,
    "pace_messages_per_s": _ENOUGH,
    "pace_burst_messages": _ENOUGH,
    "total_bytes_per_s": _ENOUGH,
    "total_burst_bytes": _ENOUGH,
}
"""Of `musignet.Limits`: [bandwidth] without bounds."""

FREELY: Final = Limits(**RATES)
