"""The sockets of the API: who may connect at all, and with which token."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...errors import IoError, LocalError
from ...limits import API_CONNECTIONS_MAX, API_HEAD_MAX_BYTES, API_IDLE_S
from ..daemon import Daemon
from ..places import API_SOCKET
from .route import Role, Unauthorised
from .server import make_app

__all__ = ["Api", "Gatekeeper", "make_tokens", "own_hosts", "peer_uid", "tcp_socket", "token_file"]

_TOKEN_BYTES: Final = 32
_TOKEN_ROLES: Final = (Role.ADMIN, Role.WALLET, Role.WATCH)
_UCRED: Final = struct.Struct("3i")
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("=II")


def peer_uid(connected: socket.socket) -> int | None:
    """Return the user id of the process at the other end of a Unix socket, by the kernel; None where it cannot say."""
    if hasattr(socket, "SO_PEERCRED"):
        data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(data)[1])
    if sys.platform == "darwin":
        data = connected.getsockopt(0, _LOCAL_PEERCRED, 76)
        return int(_XUCRED.unpack_from(data)[1])
    return None


class _Bounded(H11Protocol):
    """HTTP for so many at once, and for nobody who asks for nothing."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > API_CONNECTIONS_MAX:
            transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._due is not None:
            self._due.cancel()

    def _wait(self) -> None:
        self._due = self.loop.call_later(API_IDLE_S, self._look, self.cycle)

    def _look(self, before: Any) -> None:
        """Hang up unless something was asked since, or is being answered."""
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.abort()
        else:
            self._wait()


class _OwnersOnly(_Bounded):
    """HTTP for the user of this node; every other process is hung up on before it has said anything."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if peer_uid(transport.get_extra_info("socket")) != os.geteuid():
            transport.abort()


class _Server(uvicorn.Server):
    """uvicorn inside a process that has signal handlers of its own."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the node."""
        yield


class Api:
    """The API of one daemon on its sockets, from `start` to `stop`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._path = daemon.folder.path / API_SOCKET
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0
        """The TCP port, where there is one."""

    async def start(self) -> None:
        """Serve. Raises IoError when a socket cannot be had."""
        config = self._daemon.config
        self._serve(self._unix_socket(), make_app(self._daemon, lambda _: Role.OWNER), _OwnersOnly)
        if config.api_tcp_port:
            tokens = make_tokens(self._daemon.folder.path)
            listening = tcp_socket(config.api_tcp_port)
            self.port = config.api_tcp_port
            self._serve(listening, make_app(self._daemon, Gatekeeper(tokens, self.port)), _Bounded)
        if config.metrics_port:
            metrics = _metrics(self._daemon, config.metrics_port)
            self._serve(tcp_socket(config.metrics_port), metrics, _Bounded)
        for server in self._servers:
            await server.ready.wait()

    async def stop(self) -> None:
        """Let requests finish, and close. The daemon ended its event streams before."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks)
        self._path.unlink(missing_ok=True)

    def _serve(self, listening: socket.socket, app: Any, protocol: type[asyncio.Protocol]) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=API_HEAD_MAX_BYTES,
            timeout_keep_alive=int(API_IDLE_S),
            timeout_graceful_shutdown=2,
        )
        server = _Server(config)
        self._servers.append(server)
        self._tasks.append(asyncio.get_running_loop().create_task(server.serve(sockets=[listening])))

    def _unix_socket(self) -> socket.socket:
        """Return the socket of mode 600. What a killed node has left there is ours to remove: the folder is locked."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._path.unlink(missing_ok=True)
            listening.bind(str(self._path))
        except OSError as error:
            listening.close()
            hint = "a socket's path is at most 100 characters: choose a shorter data folder"
            raise IoError(f"cannot listen on {self._path}: {error}", hint=hint) from error
        finally:
            os.umask(before)
        return listening


def _metrics(daemon: Daemon, port: int) -> Any:
    """Return the application for metrics. Raises LocalError without its extra."""
    try:
        from ..metrics import application
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        hint = 'pip install "musignet[metrics]", or set port = 0 in [metrics]'
        raise LocalError("metrics need an extra", hint=hint) from None
    return application(daemon, own_hosts(port))


def own_hosts(port: int) -> frozenset[str]:
    """Return what a Host header may say: anything else comes from a browser that was told our address as its own."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost"))


def tcp_socket(port: int) -> socket.socket:
    """Return a socket on loopback, and nowhere else. Raises IoError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # two may bind it, and only the first of them listens
    except OSError as error:
        listening.close()
        hint = "another program may have this port; see [api] and [metrics] in config.toml"
        raise IoError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}", hint=hint) from error
    return listening


# --- tokens -------------------------------------------------------------------------------------------------------


def token_file(folder: Path, role: Role) -> Path:
    """Return where the token of a role is."""
    return folder / f"api-{role.value}.token"


def make_tokens(folder: Path) -> dict[Role, str]:
    """Return the token of each role: 64 hex digits, in a file of mode 600 that is made where there is none.

    Raises: IoError for a file that is not a token, or that others may read.
    """
    return {role: _token(token_file(folder, role)) for role in _TOKEN_ROLES}


def _token(path: Path) -> str:
    try:
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(_TOKEN_BYTES) + "\n")
        if os.stat(path).st_mode & 0o077:
            raise IoError(f"token {path}", expected="mode 600, for nobody else", hint=f"chmod 600 {path}")
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, IoError):
            raise
        raise IoError(f"{error}: token {path}", hint="delete it; a new one is made at the next start") from error
    if len(token) != 2 * _TOKEN_BYTES or set(token) - set("0123456789abcdef"):
        raise IoError(f"token {path}", expected="64 hex digits", hint="delete it; a new one is made at the next start")
    return token


class Gatekeeper:
    """Says who is asking over TCP."""

    def __init__(self, tokens: dict[Role, str], port: int) -> None:
        self._tokens = tokens
        self._hosts = own_hosts(port)

    def __call__(self, request: Request) -> Role:
        """Return the role of a request. Raises Unauthorised: for its Host, its Origin, or its token."""
        if request.headers.getlist("host") not in [[host] for host in self._hosts]:
            raise Unauthorised("a foreign Host header", expected=" or ".join(sorted(self._hosts)))
        if "origin" in request.headers:
            raise Unauthorised("the API is not for web pages", hint="send no Origin header")
        shown = request.headers.get("authorization", "")
        given = shown.removeprefix("Bearer ").encode()
        found = [role for role, token in self._tokens.items() if hmac.compare_digest(token.encode(), given)]
        if not found or not shown.startswith("Bearer "):
            hint = "Authorization: Bearer TOKEN, with one of the files api-*.token of the data folder"
            raise Unauthorised("no token, or a wrong one", hint=hint)
        return found[0]
