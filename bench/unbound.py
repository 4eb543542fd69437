"""The rates that a benchmark overrides: it measures how fast the code is, not how fast a peer may speak."""

from __future__ import annotations

__all__ = ["RATES"]

_ENOUGH = 10**12

RATES = {
    "peer_messages_per_s": _ENOUGH,
    "peer_burst_messages": _ENOUGH,
    "peer_bytes_per_s": _ENOUGH,
    "peer_burst_bytes": _ENOUGH,
    "total_messages_per_s": _ENOUGH,
    "total_burst_messages": _ENOUGH,
    "total_bytes_per_s": _ENOUGH,
    "total_burst_bytes": _ENOUGH,
}
"""Of `musignet.Limits`: [bandwidth] without bounds. The buckets are still there and still counted."""
