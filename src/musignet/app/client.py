"""A client of the local API, over its Unix socket: what the commands use, and nothing else.

Only the standard library, so that a command is there before its reader has looked up.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from ..errors import ConnectionError, IoError, LocalError, NetworkError, Timeout
from ..limits import API_CLIENT_TIMEOUT_S, API_EVENT_LINE_MAX_BYTES
from .places import CONFIG_FILE

__all__ = ["ApiError", "Client", "NotRunning", "path", "to_start"]

_QUIET_S: Final = 60.0
"""The node says something at least every 15 s on an event stream."""


class NotRunning(ConnectionError):
    """No node answers on that data folder."""


class ApiError(NetworkError):
    """The node said no. `kind` is the name of its error, `status` the code of HTTP."""

    def __init__(self, text: str, kind: str, status: int, hint: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status
        self.hint = hint


class Client:
    """Requests to one node, a connection each."""

    def __init__(self, socket_path: Path, timeout_s: float = API_CLIENT_TIMEOUT_S) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s

    def get(self, route: str, **query: object) -> Any:
        """Return what a route has. Raises NotRunning, ApiError, Timeout."""
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        return self._json("GET", f"{route}?{asked}" if asked else route)

    def post(self, route: str, body: object = None) -> Any:
        """Ask for something to be done. Raises NotRunning, ApiError, Timeout."""
        return self._json("POST", route, {} if body is None else body)

    def delete(self, route: str) -> Any:
        """Ask for something to be taken away. Raises NotRunning, ApiError, Timeout."""
        return self._json("DELETE", route)

    def events(self, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Return what happens from now on, until the node stops: it listens when this returns.

        Raises: NotRunning, ApiError; Timeout, also after `timeout_s` in all.
        """
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            response = _check(_ask(connection, "GET", "/v1/events"))
        except BaseException:
            connection.close()
            raise
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        return _events(connection, response, deadline)

    def _json(self, method: str, route: str, body: object = None) -> Any:
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            response = _ask(connection, method, route, body)
            return json.loads(_check(response).read() or b"null")
        except TimeoutError as error:
            raise Timeout("the node did not answer in time", expected=f"{self._timeout_s:g} s at most") from error
        except NetworkError:
            raise
        except (http.client.HTTPException, OSError, ValueError) as error:  # in the middle of its answer
            raise _hung_up(error) from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def __del__(self) -> None:
        self.close()  # of events that nobody came to read

    def connect(self) -> None:
        """Connect to the socket. Raises NotRunning."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self.sock.close()
            folder = self._path.parent
            raise NotRunning(f"no node is running on {folder}", hint=to_start(folder)) from error
        except OSError as error:
            self.sock.close()
            raise IoError(f"{error}: {self._path}", hint="check the path and who owns it") from error


def _ask(connection: _UnixConnection, method: str, route: str, body: object = None) -> http.client.HTTPResponse:
    data = None if body is None else json.dumps(body).encode()
    try:
        connection.request(method, route, data, {"Content-Type": "application/json"} if data else {})
        return connection.getresponse()
    except TimeoutError:
        raise
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, NetworkError):
            raise
        raise _hung_up(error) from error


def _hung_up(error: Exception) -> NotRunning:
    return NotRunning(f"the node hung up: {error}", hint="it may be stopping; look at its log")


def _check(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if response.status >= 300:
        raise _error(response.status, response.read())
    return response


def _error(status: int, body: bytes) -> ApiError:
    try:
        facts = json.loads(body)
        return ApiError(facts["error"], facts["kind"], status, facts.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return ApiError(f"the node answered with code {status}", "Other", status)


def _events(
    connection: _UnixConnection, response: http.client.HTTPResponse, deadline: float | None
) -> Iterator[dict[str, Any]]:
    try:
        while line := _read_line(connection, response, deadline):
            if line.startswith(b"data: "):
                yield _event(line[6:])
    finally:
        connection.close()


def _event(line: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise _hung_up(error) from error
    return event


def _read_line(connection: _UnixConnection, response: http.client.HTTPResponse, deadline: float | None) -> bytes:
    left_s = _QUIET_S if deadline is None else min(_QUIET_S, deadline - time.monotonic())
    try:
        connection.sock.settimeout(max(left_s, 0.001))
        return response.readline(API_EVENT_LINE_MAX_BYTES)
    except TimeoutError as error:
        raise Timeout("nothing came in time", expected=f"a word within {max(left_s, 0.0):.0f} s") from error
    except (http.client.HTTPException, OSError) as error:
        raise _hung_up(error) from error


def to_start(folder: Path) -> str:
    """Return what to do where no node runs on a data folder."""
    command = "start it: musignet run" if (folder / CONFIG_FILE).exists() else "make it: musignet init"
    return f"{command} --data {folder}"


def path(*parts: str) -> str:
    """Return the path of a route, each part quoted: `path("v1", "peers", "a b")` is `/v1/peers/a%20b`.

    Raises: LocalError for an empty part, which would be another route.
    """
    if not all(part.strip() for part in parts):
        raise LocalError("a name is missing", expected="at least one character")
    return "/" + "/".join(quote(part, safe="") for part in parts)
