"""`/v1/events`: what happens from now on, as server-sent events."""

from __future__ import annotations

from typing import Final

from ..daemon import Daemon
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS"]


async def _listen(daemon: Daemon, _: Call) -> object:
    return daemon.events.listen()


ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/events",
        needs=Capability.READ,
        summary=(
            "What happens from now on: `session`, `peer`, `group`, `pairing`, `founding`, `sighting`, `broadcast`, "
            "`fault`; `missed` when the reader was too slow"
        ),
        call=_listen,
        answer=str,
        stream=True,
    ),
)
