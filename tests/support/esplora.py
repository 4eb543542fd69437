"""Esplora for the tests that need it: they skip where it or its client is not installed, but fail there in CI."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server

import pytest

from .kernel import RegtestChain

__all__ = ["BdkBackend", "Electrum", "Esplora", "RegtestChain", "answering", "hung"]

try:
    from musignet.app.chain.bdk import BdkBackend, Electrum, Esplora
except ModuleNotFoundError as error:
    if error.name != "bdkpython" or (os.environ.get("CI") and sys.version_info < (3, 14)):
        raise
    pytest.skip("no bdkpython: install the extra named chain (Python below 3.14)", allow_module_level=True)


@contextmanager
def hung() -> Iterator[int]:
    """Yield the port of a server that takes every connection and never says a word."""
    with create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


@contextmanager
def answering(respond: Callable[[str, str], tuple[int, bytes]]) -> Iterator[str]:
    """Yield the URL of an HTTP server that answers each (method, path) with a status and a body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, body = respond(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
