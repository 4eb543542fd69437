"""Every route of the API. A resource adds its `ENDPOINTS` here, and is served, described and documented."""

from __future__ import annotations

from typing import Final

from . import carrying, chain, discovery, events, foundings, groups, pairings, peers, sessions, status
from .openapi import describe
from .route import Call, Capability, Endpoint

__all__ = ["ENDPOINTS"]


async def _openapi(_daemon: object, _call: Call) -> object:
    return describe(ENDPOINTS)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *status.ENDPOINTS,
    *peers.ENDPOINTS,
    *pairings.ENDPOINTS,
    *discovery.ENDPOINTS,
    *groups.ENDPOINTS,
    *foundings.ENDPOINTS,
    *sessions.ENDPOINTS,
    *chain.ENDPOINTS,
    *carrying.ENDPOINTS,
    *events.ENDPOINTS,
    Endpoint(
        method="GET",
        path="/v1/openapi.json",
        needs=Capability.READ,
        summary="This API, as an OpenAPI 3.1 document",
        call=_openapi,
        answer=dict,
    ),
)
