"""What passes between this node and a peer, and what the node makes of it: for people, not for decisions."""

from __future__ import annotations

from dataclasses import dataclass

from ..node.conduct import Conduct
from ..node.peers import PeerRecord

__all__ = ["Traffic", "traffic_of"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one peer, in this run of the node.

    Attributes:
        bytes_in, bytes_out:            on the wire, encryption included.
        messages_in:                    whole messages that arrived.
        messages_per_s, bytes_per_s:    from it, over the last 5 to 10 seconds.
        held_s:                         how long reading from it was held back, because it was faster than it may be.
        share:                          of the usual rates, from 0.2 to 1: a bad score makes it less.
        score, why:                     from -100 to 20, and what it is made of; 0 and empty when nothing is known.
        refused_s:                      for how much longer it is not let in when it dials.
    """

    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_per_s: float
    bytes_per_s: float
    held_s: float
    share: float
    score: float
    why: str
    refused_s: float


def traffic_of(record: PeerRecord, conduct: Conduct, loop_time: float, now: float) -> Traffic:
    """Return the traffic of a peer. `loop_time` is the clock of its links, `now` seconds since 1970."""
    gauge, reputation = record.gauge, conduct.reputation
    messages_per_s, bytes_per_s = gauge.rate(loop_time)
    return Traffic(
        bytes_in=gauge.bytes_in,
        bytes_out=gauge.bytes_out,
        messages_in=gauge.messages_in,
        messages_per_s=messages_per_s,
        bytes_per_s=bytes_per_s,
        held_s=gauge.held_s,
        share=gauge.share,
        score=reputation.score(record.key, now),
        why=reputation.why(record.key),
        refused_s=conduct.refused_s(record, now),
    )
