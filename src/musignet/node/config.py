"""What the owner of a node decides about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..limits import Limits
from ..wire.messages import Chain

__all__ = ["NodeConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """`label` is how others may show this node; `addresses` is where it says it can be dialled (`host:port`).

    `disk` says that the driver performs `Store`: then messages are kept and handled as `outbox` and `arrivals` tell.
    """

    label: str = ""
    chain: Chain = Chain.MAINNET
    addresses: tuple[str, ...] = ()
    disk: bool = False
    limits: Limits = field(default_factory=Limits)
