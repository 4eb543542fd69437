"""The other side of `test_pyln_proto`: runs in a virtual environment of its own, where `pyln-proto` is installed.

    python pyln_peer.py PORT ROLE OUR_SECRET PEER_KEY ROUNDS FROM_PEER FROM_US

Connects to 127.0.0.1:PORT and speaks BOLT 8 as `initiator` or `responder`. In each round it reads FROM_PEER frames,
then sends FROM_US of its own. At the end it prints the key it was told by the handshake and the SHA-256 of all it read.
"""

from __future__ import annotations

import socket
import sys
from hashlib import sha256

from pyln.proto.wire import LightningConnection, PrivateKey, PublicKey

TIMEOUT_S = 20.0


class WholeReads:
    """A socket whose `recv` waits for all it was asked for: `pyln-proto` takes a short read for the end."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self.send = stream.sendall

    def recv(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end of the stream."""
        data = b""
        while len(data) < size:
            piece = self._stream.recv(size - len(data))
            if not piece:
                break
            data += piece
        return data


def main(port: int, role: str, secret: bytes, peer: bytes, rounds: int, from_peer: int, from_us: int) -> None:
    """Connect, shake hands, talk, report."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    dials = role == "initiator"
    link = LightningConnection(WholeReads(stream), PublicKey(peer) if dials else None, PrivateKey(secret), dials)
    link.shake()
    read = sha256()
    sent = 0
    for _ in range(rounds):
        for _ in range(from_peer):
            read.update(link.read_message())
        for _ in range(from_us):
            link.send_message(b"\x03\x00pyln %d " % sent + bytes(sent % 700))  # a whole frame of the lowest priority
            sent += 1
    print(link.remote_pubkey.serializeCompressed().hex(), read.hexdigest())


if __name__ == "__main__":
    main(
        int(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4]), *map(int, sys.argv[5:8])
    )
