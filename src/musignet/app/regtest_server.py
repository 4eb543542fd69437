"""`musignet regtest`: a chain to play on, served on this machine as an Esplora server is.

The stdlib's server is enough for a toy that listens on loopback only; nothing of a real wallet is behind it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from .. import limits
from ..errors import IoError, LocalError
from .esplora import Explorer
from .regtest import RegtestChain

__all__ = ["serve"]

_SIZE_MAX_CHARS = len(str(limits.REGTEST_BODY_MAX_BYTES))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], explorer: Explorer) -> None:
        self.explorer = explorer
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up, or was too slow, is not worth a traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = limits.CHAIN_CALL_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        self._respond(b"")

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        right = size.isascii() and size.isdecimal()
        if not right or len(size) > _SIZE_MAX_CHARS or int(size) > limits.REGTEST_BODY_MAX_BYTES:
            self.close_connection = True
            self.send_error(413 if right else 411)
            return
        self._respond(self.rfile.read(int(size)))

    def _respond(self, body: bytes) -> None:
        answer = self.server.explorer.answer(self.command, self.path, body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json" if answer.is_json else "text/plain")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: wallets ask dozens of times for one sync."""


@contextmanager
def serve(folder: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Keep a new chain and serve it; yields its URL. Everything ends with the `with` block.

    Args:   folder - new or empty, for the chain's block files.
    Raises: LocalError for an address that other machines reach; IoError when it cannot listen.
    """
    if not _is_loopback(host):
        raise LocalError("a chain to play on stays on this machine", expected="127.0.0.1", got=host)
    with RegtestChain(folder) as chain:
        try:
            server = _Server((host, port), Explorer(chain))
        except OSError as error:
            raise IoError(f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another port") from None
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="regtest esplora", daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            server.explorer.close()


def _is_loopback(host: str) -> bool:
    try:
        return IPv4Address(host).is_loopback
    except ValueError:
        return False
