"""What the owner of a node decides about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..limits import Limits
from ..wire.messages import Chain
from .addresses import Rank

__all__ = ["NodeConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """`label` is how others may show this node; `addresses` is where it says it can be dialled (`host:port`).

    `disk` says that the driver performs `Store`: then messages are kept and handled as `outbox` and `arrivals` tell.
    `best_rank` is the best path that there is: with everything through a proxy, no address promises more.
    """

    label: str = ""
    chain: Chain = Chain.MAINNET
    addresses: tuple[str, ...] = ()
    disk: bool = False
    best_rank: Rank = Rank.LAN
    limits: Limits = field(default_factory=Limits)
