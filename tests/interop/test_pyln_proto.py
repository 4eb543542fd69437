"""The channel against an independent implementation of BOLT 8: `pyln-proto`, in an environment of its own.

Its dependency installs a module named `coincurve`, and it is lax about the MACs of acts one and two: so it gets its own
virtual environment, and only the positive path is tested. The environment is made once, in MUSIGNET_INTEROP_VENV or the
user's cache folder. Where it cannot be made the tests skip with the reason; in CI they fail.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from musignet.crypto.keys import Identity
from musignet.wire.channel import EnvelopeReceived, Established, SecureChannel
from support.keys import ALICE, BOB, secret

pytestmark = pytest.mark.driver

REQUIREMENT = "pyln-proto>=24"
PEER = Path(__file__).with_name("pyln_peer.py")
INSTALL_TIMEOUT_S = 300
TIMEOUT_S = 20.0

ROUNDS, FROM_US, FROM_PEER = 100, 17, 9
"""1,700 frames one way and 900 the other: three rotations, and one."""


def _folder() -> Path:
    given = os.environ.get("MUSIGNET_INTEROP_VENV")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Path(given) if given else Path(cache) / "musignet" / f"interop-pyln-{version}"


def _run(*command: str | Path, timeout_s: float) -> str:
    """Return what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter that has `pyln-proto`."""
    folder = _folder()
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    probe = (found, "-c", "import pyln.proto.wire")
    if not found.exists() or _run(*probe, timeout_s=TIMEOUT_S):
        failure = (
            _run(sys.executable, "-m", "venv", "--clear", folder, timeout_s=INSTALL_TIMEOUT_S)
            or _run(found, "-m", "pip", "install", "--quiet", REQUIREMENT, timeout_s=INSTALL_TIMEOUT_S)
            or _run(*probe, timeout_s=TIMEOUT_S)
        )
        if failure:
            reason = f"cannot install {REQUIREMENT}: {failure.splitlines()[-1]}"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


class Stream:
    """Our channel on a blocking socket."""

    def __init__(self, stream: socket.socket, channel: SecureChannel) -> None:
        self.stream = stream
        self.channel = channel

    def flush(self) -> None:
        """Write everything the channel has."""
        while self.channel.pending:
            for piece in self.channel.data_to_send():
                self.stream.sendall(piece)

    def event(self) -> object:
        """Return the next event, reading as much as it takes."""
        while not (events := self.channel.next_events(1)):
            self.flush()  # an act that held is answered without an event
            data = self.stream.recv(4096)
            if not data:
                raise AssertionError("the other side hung up")
            self.channel.receive_data(data)
        (event,) = events  # nobody acknowledges here
        return event


def _channel(they: str, theirs: Identity) -> SecureChannel:
    """Return our side: the responder where they dial."""
    if they == "initiator":
        return SecureChannel.responder(ALICE, secret("ephemeral"), prologue=b"lightning")
    return SecureChannel.initiator(ALICE, theirs.public, secret("ephemeral"), prologue=b"lightning")


@pytest.mark.parametrize("they", ["initiator", "responder"])
def test_2600_messages_of_unequal_directions(python: Path, they: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        arguments = (server.getsockname()[1], they, secret("bob").hex(), ALICE.pubkey_hex, ROUNDS, FROM_US, FROM_PEER)
        with subprocess.Popen(
            [python, PEER, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as peer:
            stream, _ = server.accept()
            try:
                with stream:
                    stream.settimeout(TIMEOUT_S)
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sent = _talk(Stream(stream, _channel(they, BOB)))
                told, errors = peer.communicate(timeout=TIMEOUT_S)
            finally:
                peer.kill()
    assert peer.returncode == 0, errors
    assert told.split() == [ALICE.pubkey_hex, sent]


def _talk(us: Stream) -> str:
    """Send and receive every round; return the SHA-256 of the frames we sent."""
    us.flush()
    established = us.event()
    assert isinstance(established, Established)
    assert established.peer == BOB.public
    frames, sent, received = sha256(), 0, 0
    for _ in range(ROUNDS):
        for _ in range(FROM_US):
            message = b"musignet %d " % sent + bytes(sent % 900)
            us.channel.send(message)
            frames.update(b"\x03\x00" + message)
            sent += 1
        us.flush()
        for _ in range(FROM_PEER):
            assert us.event() == EnvelopeReceived(b"pyln %d " % received + bytes(received % 700))
            received += 1
    assert (sent, received) == (1700, 900)
    return frames.hexdigest()
