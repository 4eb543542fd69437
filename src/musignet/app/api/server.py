"""The routes behind HTTP: Starlette for the routing, uvicorn for the sockets, and before both of them, who asks.

Over the Unix socket the kernel says who is asking (`SO_PEERCRED`), and only the user of this node is answered. Over
loopback TCP, which is off unless set, a token says it, and a Host that is not ours or an Origin is refused, so that no
web page can reach it through the browser (THREATS.md Z4).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ...errors import NetworkError, SerializationError
from ...limits import API_BODY_MAX_BYTES
from ..daemon import Daemon
from ..events import Event
from .route import MAY, Call, Endpoint, Forbidden, Problem, Role, TooLarge, status_of
from .table import ENDPOINTS

__all__ = ["Authorise", "make_app"]

logger = logging.getLogger("musignet")

Authorise = Callable[[Request], Role]
"""Who is asking. Raises Unauthorised."""

_JSON: Final = "application/json"


def make_app(daemon: Daemon, authorise: Authorise) -> Starlette:
    """Return the whole API as an ASGI application."""
    routes = [Route(one.path, _serve(daemon, one, authorise), methods=[one.method]) for one in ENDPOINTS]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False  # a route that is nearly one is none
    return app


def _serve(daemon: Daemon, endpoint: Endpoint, authorise: Authorise) -> Callable[[Request], Any]:
    async def serve(request: Request) -> Response:
        try:
            _require(endpoint, authorise(request))
            body = await _body(request, endpoint.body)
            answer = await endpoint.call(daemon, Call(request.path_params, request.query_params, body))
            if endpoint.stream:
                return StreamingResponse(_lines(answer), media_type="text/event-stream")  # type: ignore[arg-type]
        except NetworkError as error:
            return _problem(error)
        return Response(msgspec.json.encode(answer), media_type=_JSON)

    return serve


def _require(endpoint: Endpoint, role: Role) -> None:
    if endpoint.needs not in MAY[role]:
        raise Forbidden(f"a token of role {role.value} may not {endpoint.needs.value}", hint="use another token")


async def _body(request: Request, kind: type[msgspec.Struct] | None) -> Any:
    """Return the body, read no further than its bound and no other than its type."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > API_BODY_MAX_BYTES:
                raise TooLarge("the body is too large", expected=f"at most {API_BODY_MAX_BYTES} bytes")
    except ClientDisconnect:
        raise SerializationError("the client hung up before it had asked") from None
    if kind is None:
        return None
    try:
        return msgspec.json.decode(bytes(data), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SerializationError(f"the body is not what this route takes: {error}") from None


def _problem(error: NetworkError) -> Response:
    status = status_of(error)
    problem = Problem(str(error), type(error).__name__, error.hint)
    if status >= 500:
        logger.warning("the API answered with code %d: %s", status, error)
    return Response(msgspec.json.encode(problem), status, media_type=_JSON)


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(str(error.detail), "NoSuchRoute", "see /v1/openapi.json")
    return Response(msgspec.json.encode(problem), error.status_code, media_type=_JSON)


async def _lines(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    """Server-sent events: one line of JSON each; a comment where there was none for a while."""
    yield b": this is the event stream of a MuSigNet node\n\n"
    async for event in events:
        if event is None:
            yield b": nothing new\n\n"
        else:
            yield b"event: %s\ndata: %s\n\n" % (str(event["event"]).encode(), msgspec.json.encode(event))
