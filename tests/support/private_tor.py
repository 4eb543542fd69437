"""A Tor network of its own on loopback: real `tor` processes, three of them authorities. Ready after about a minute.

Nothing of it speaks to anybody else: every address is 127.0.0.1, and the authorities are these.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PrivateTor", "private_tor"]

_AUTHORITIES, _RELAYS = 3, 5
_BOOTSTRAP_S = 300.0
_COMMON = """
TestingTorNetwork 1
DataDirectory {data}
Nickname {name}
PidFile {data}/pid
Log notice file {data}/log
SafeLogging 0
ShutdownWaitLength 0
DisableDebuggerAttachment 0
Address 127.0.0.1
ServerDNSDetectHijacking 0
ServerDNSTestAddresses
EnforceDistinctSubnets 0
AssumeReachable 1
PathsNeededToBuildCircuits 0.25
TestingDirConnectionMaxStall 30
"""
_RELAY = """
SocksPort 0
OrPort 127.0.0.1:{orport}
DirPort 127.0.0.1:{dirport}
ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept 127.0.0.0/8:*
ContactInfo nobody@example.com
"""
_AUTHORITY = """
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
V3AuthVotingInterval 20
V3AuthVoteDelay 4
V3AuthDistDelay 4
TestingV3AuthInitialVotingInterval 20
TestingV3AuthInitialVoteDelay 4
TestingV3AuthInitialDistDelay 4
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
AuthDirMaxServersPerAddr 0
"""
_CLIENT = """
SocksPort 127.0.0.1:{socks}
HTTPTunnelPort 127.0.0.1:{http}
ControlPort 127.0.0.1:{control}
CookieAuthentication 1
ClientRejectInternalAddresses 0
Log notice stdout
"""


def _free_ports(count: int) -> list[int]:
    with_sockets = [socket.socket() for _ in range(count)]
    try:
        for one in with_sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in with_sockets]
    finally:
        for one in with_sockets:
            one.close()


@dataclass
class PrivateTor:
    """The network. A client of it listens at these ports."""

    path: Path
    socks: int = 0
    http: int = 0
    control: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start everything; return when the client has a path."""
        names = [*(f"auth{number}" for number in range(_AUTHORITIES)), *(f"relay{number}" for number in range(_RELAYS))]
        ports = _free_ports(2 * len(names) + 3)
        places = {name: (ports[2 * at], ports[2 * at + 1]) for at, name in enumerate(names)}
        self.socks, self.http, self.control = ports[-3:]
        authorities = [self._authority(name, *places[name]) for name in names[:_AUTHORITIES]]
        for name in names:
            orport, dirport = places[name]
            text = _RELAY.format(orport=orport, dirport=dirport)
            self._run(name, text + (_AUTHORITY if name.startswith("auth") else ""), authorities)
        self._run("client", _CLIENT.format(socks=self.socks, http=self.http, control=self.control), authorities)
        self._wait(self.processes[-1], b"Bootstrapped 100%")

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _authority(self, name: str, orport: int, dirport: int) -> str:
        """Make an authority's keys; return the line by which others know it."""
        keys = self.path / name / "keys"
        keys.mkdir(parents=True, mode=0o700)
        (self.path / name).chmod(0o700)
        subprocess.run(
            ["tor-gencert", "--create-identity-key", "-m", "12", "-a", f"127.0.0.1:{dirport}", "--passphrase-fd", "0"],
            cwd=keys, input=b"x\n", check=True, capture_output=True,
        )  # fmt: skip
        found = re.search(r"^fingerprint (\w+)", (keys / "authority_certificate").read_text(), re.MULTILINE)
        assert found is not None
        known = subprocess.run(
            ["tor", "--ignore-missing-torrc", "-f", "/nonexistent", "--list-fingerprint", "--orport", "1",
             "--dirserver", f"x 127.0.0.1:1 {'f' * 40}", "--datadirectory", str(self.path / name), "--nickname", name,
             "--quiet"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        fingerprint = "".join(known.strip().splitlines()[-1].split()[1:])
        return f"DirAuthority {name} orport={orport} no-v2 v3ident={found[1]} 127.0.0.1:{dirport} {fingerprint}"

    def _run(self, name: str, text: str, authorities: Sequence[str]) -> None:
        data = self.path / name
        data.mkdir(exist_ok=True, mode=0o700)
        torrc = data / "torrc"
        torrc.write_text("\n".join((_COMMON.format(data=data, name=name), text, *authorities, "")))
        command = ["tor", "-f", str(torrc), "--defaults-torrc", "/nonexistent", "--ignore-missing-torrc"]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0))

    def _wait(self, process: subprocess.Popen[bytes], words: bytes) -> None:
        """Wait until it has said so on its standard output."""
        assert process.stdout is not None
        deadline, seen = time.monotonic() + _BOOTSTRAP_S, b""
        while words not in seen:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(process.stdout.fileno(), 65_536) if ready else b""
            assert data, seen.decode("utf-8", "replace")
            seen += data


@contextmanager
def private_tor(path: Path) -> Iterator[PrivateTor]:
    """Run a network in an empty folder."""
    tor = PrivateTor(path)
    try:
        tor.start()
        yield tor
    finally:
        tor.stop()
