"""ZeroMQ with CURVE, blocking calls, the same signature per message, both keys checked (ZAP)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import zmq
import zmq.utils.z85

from ..stats import percentile
from .common import DIGEST, SIGNATURE_BYTES, identity, payload, resident_kib

_HELLO_BYTES = 100
_MAX_SOCKETS = 4096
_PATIENCE_MS = 20_000


def _curve(name: str) -> tuple[bytes, bytes]:
    """Return a side's public and secret CURVE key, the same in every process."""
    secret = zmq.utils.z85.encode(sha256(f"curve {name}".encode()).digest())
    return zmq.curve_public(secret), secret


class Far:
    """Answers on a thread of its own, which blocks in ZeroMQ."""

    def __init__(self, folder: Path) -> None:
        self._key = identity("far")
        self._peer = identity("near").public
        self._context = zmq.Context()
        self._context.max_sockets = _MAX_SOCKETS

    async def open(self, links: int) -> int:
        # Exactly one link is served by a plain DEALER, which spares the routing frame; otherwise a ROUTER is needed.
        socket = self._context.socket(zmq.DEALER if links == 1 else zmq.ROUTER)
        socket.curve_publickey, socket.curve_secretkey = _curve("far")
        socket.curve_server = True
        zap = self._context.socket(zmq.REP)
        zap.bind("inproc://zeromq.zap.01")
        port = int(socket.bind_to_random_port("tcp://127.0.0.1"))
        threading.Thread(target=_authenticate, args=(zap,), daemon=True).start()
        threading.Thread(target=self._answer if links == 1 else self._route, args=(socket,), daemon=True).start()
        return port

    def _answer(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            answer = self._taken(socket.recv())
            if answer:
                socket.send(answer)

    def _route(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            route, frame = socket.recv_multipart()
            answer = self._taken(frame)
            if answer:
                socket.send_multipart((route, answer))

    def _taken(self, frame: bytes) -> bytes:
        body = frame[SIGNATURE_BYTES:]
        if not self._peer.verify(DIGEST(body), frame[:SIGNATURE_BYTES]):
            raise ValueError("a signature does not verify")
        return self._key.sign(DIGEST(body)) + body if body[0] else b""

    async def resident_kib(self) -> float:
        return resident_kib()


def _authenticate(zap: zmq.Socket[bytes]) -> None:
    """Let in the near side's key and no other (ZeroMQ RFC 27)."""
    near = zmq.utils.z85.decode(_curve("near")[0])
    while True:
        version, request, *_, key = zap.recv_multipart()
        status = b"200" if key == near else b"400"
        zap.send_multipart((version, request, status, b"", b"", b""))


class Near:
    """Connects and measures. Its calls block the loop, which has nothing else to do."""

    def __init__(self, folder: Path) -> None:
        self._key = identity("near")
        self._peer = identity("far").public
        self._context = zmq.Context()
        self._context.max_sockets = _MAX_SOCKETS
        self._port = 0
        self._sockets: list[zmq.Socket[bytes]] = []

    def _begin(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvtimeo = _PATIENCE_MS  # a lost answer fails the run, it does not hang it
        socket.curve_publickey, socket.curve_secretkey = _curve("near")
        socket.curve_serverkey = _curve("far")[0]
        socket.connect(f"tcp://127.0.0.1:{self._port}")
        self._send(socket, payload(_HELLO_BYTES, answer=True))
        return socket

    def _connect(self) -> zmq.Socket[bytes]:
        """Connect, say a signed hello, and wait for the far side's."""
        socket = self._begin()
        self._receive(socket)
        return socket

    def _sign(self, body: bytes) -> bytes:
        return self._key.sign(DIGEST(body)) + body

    def _send(self, socket: zmq.Socket[bytes], body: bytes) -> None:
        socket.send(self._sign(body))

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        frame = socket.recv()
        if not self._peer.verify(DIGEST(frame[SIGNATURE_BYTES:]), frame[:SIGNATURE_BYTES]):
            raise ValueError("a signature does not verify")

    async def open(self, address: int, links: int) -> None:
        self._port = address
        self._sockets = [self._connect() for _ in range(links)]

    async def round_trips(self, count: int, size: int) -> dict[str, float]:
        socket, body, times = self._sockets[0], payload(size, answer=True), []
        for _ in range(count):
            begun = perf_counter()
            self._send(socket, body)
            self._receive(socket)
            times.append((perf_counter() - begun) * 1e6)
        return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}

    async def one_way(self, count: int, size: int) -> float:
        socket, body = self._sockets[0], payload(size, answer=False)
        begun = perf_counter()
        for _ in range(count - 1):
            self._send(socket, body)
        self._send(socket, payload(size, answer=True))
        self._receive(socket)
        return perf_counter() - begun

    async def broadcasts(self, count: int, size: int) -> float:
        body, times = payload(size, answer=True), []
        for _ in range(count):
            begun = perf_counter()
            frame = self._sign(body)
            for socket in self._sockets:
                socket.send(frame)
            for socket in self._sockets:
                self._receive(socket)
            times.append((perf_counter() - begun) * 1e3)
        return percentile(times, 0.5)

    async def dials(self, count: int) -> float:
        times = []
        for _ in range(count):
            begun = perf_counter()
            socket = self._connect()
            times.append((perf_counter() - begun) * 1e3)
            socket.close()
        return percentile(times, 0.5)

    async def connects(self, count: int, in_flight: int) -> float:
        begun = perf_counter()
        for socket in self._opened(count, in_flight):
            socket.close()
        return perf_counter() - begun

    async def hold(self, count: int, in_flight: int) -> None:
        self._sockets += self._opened(count, in_flight)

    def _opened(self, count: int, in_flight: int) -> Iterator[zmq.Socket[bytes]]:
        """Yield `count` authenticated sockets, `in_flight` of them being connected at a time."""
        poller = zmq.Poller()
        for begun in range(count):
            if begun >= in_flight:
                yield self._next(poller)
            poller.register(self._begin(), zmq.POLLIN)
        for _ in range(min(count, in_flight)):
            yield self._next(poller)

    def _next(self, poller: zmq.Poller) -> zmq.Socket[bytes]:
        ready = poller.poll(_PATIENCE_MS)
        if not ready:
            raise TimeoutError("no answer to a hello")
        socket: zmq.Socket[bytes] = ready[0][0]
        poller.unregister(socket)
        self._receive(socket)
        return socket
