"""Limits for tests that are not about rates: as fast as it goes."""

from __future__ import annotations

from typing import Final

from musignet.limits import Limits

__all__ = ["FREELY"]

_ENOUGH: Final = 10**12

FREELY: Final = Limits(
    peer_messages_per_s=_ENOUGH,
    peer_burst_messages=_ENOUGH,
    peer_bytes_per_s=_ENOUGH,
    peer_burst_bytes=_ENOUGH,
    total_messages_per_s=_ENOUGH,
    total_burst_messages=_ENOUGH,
    total_bytes_per_s=_ENOUGH,
    total_burst_bytes=_ENOUGH,
)
