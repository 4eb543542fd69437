"""One node in a network namespace of its own, where every packet is seen: `unshare -n python only_tor_world.py DIR`.

Its peers are an onion service, an IP address and a name, its chain backend is a name, and it is asked to join somebody
at an IP address. It prints one JSON object: what left by the default route, whom it spoke to on this machine, and what
the proxy was asked for. With `all` behind DIR, the same node runs without only-tor.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.nodes import GROUP_FILE, RunningNode, cli, make_data
from musignet.app.client import ApiError, Client
from musignet.app.places import API_SOCKET
from musignet.chain import Chain
from musignet.errors import NetworkError
from musignet.node.peers import PeerInfo
from musignet.wire.invite import Invite
from musignet.wire.onion import onion_host
from support.ceremony import identity

__all__ = ["BACKEND", "BOBS", "STRAIGHT", "FakeTorProcess", "alice", "asked_for_more"]

BOBS = onion_host(bytes(range(32)))
STRAIGHT = ("203.0.113.77", "carol.example", "198.51.100.9", "10.77.0.9", "relay.example")
"""Where others are: an address, a name, the address in an invite, one next door, and a relay."""
BACKEND = "electrum.example"
_ALICE = PeerInfo(id="alice", pubkey_hex=identity("alice").pubkey_hex)
_TALKATIVE = {
    "chain_backend": f"electrum+ssl://{BACKEND}:50002",
    "listen_host": "0.0.0.0",
    "discovery_interfaces": ("lan",),
    "nat_punch": True,
    "nat_stun": ("203.0.113.50:3478",),
    "nat_map_port": "auto",
}
"""Everything by which a node speaks to others of itself."""
_HERE = Path(__file__).with_name("here.py")
_LOOP = ("uvloop",) if find_spec("uvloop") else ()
"""What `musignet run` uses."""
_SOCKS = Path(__file__).resolve().parents[1] / "support" / "socks.py"
_OUTGOING = 4
"""PACKET_OUTGOING of linux/if_packet.h."""
_ALL_PROTOCOLS, _IPV4, _ARP = 0x0003, 0x0800, 0x0806
_TCP, _UDP, _SYN = 6, 17, 2
_WAIT_S = 30.0


class FakeTorProcess:
    """`support/socks.py` as a process; `asked` are the hosts, in order."""

    def __init__(self, *names: str) -> None:
        command = [sys.executable, str(_SOCKS), "0", *names]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._lines = self.process.stdout
        self.port: int = json.loads(self._lines.readline())["port"]
        os.set_blocking(self._lines.fileno(), False)
        self._text = ""

    @property
    def asked(self) -> list[str]:
        self._text += self._lines.read() or ""
        return [json.loads(line)[0] for line in self._text.splitlines() if line.endswith("]")]

    def __enter__(self) -> FakeTorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self._lines.close()
        self.process.wait()


def alice(path: Path, proxy: FakeTorProcess, straight: Sequence[str] = STRAIGHT, **settings: Any) -> Path:
    """Make the data folder of a node with something to do in every direction."""
    bob, carol = (identity(name).pubkey_hex for name in ("bob", "carol"))
    peers = [
        PeerInfo(id="bob", addresses=(f"{BOBS}:8737", f"{straight[3]}:8737"), pubkey_hex=bob),
        PeerInfo(id="carol", host=straight[0], port=8737, pubkey_hex=carol),
        PeerInfo(id="dave", host=straight[1], port=8737, pubkey_hex=identity("dave").pubkey_hex),
    ]
    settings = {**_TALKATIVE, "relays": (f"wss://{straight[4]}",), **settings}
    return make_data(
        path, "alice", peers=peers, groups=[GROUP_FILE], proxy_socks5=f"127.0.0.1:{proxy.port}", **settings
    )


def asked_for_more(data: Path, straight: Sequence[str] = STRAIGHT) -> None:
    """Have a running node join somebody, invite somebody, and look at the chain. Where it fails, it was tried."""
    client = Client(data / API_SOCKET, _WAIT_S)
    invite = Invite.make(
        identity("erin").pubkey, "erin", (f"{straight[2]}:8737",),
        chain=Chain.REGTEST, expires_at=time.time() + 60, secret=bytes(16),
    )  # fmt: skip
    for path, body in (
        ("/v1/pairings", {"invite": invite.text()}),
        ("/v1/invites", {"expires_in_s": 60, "addresses": []}),
        (f"/v1/groups/{GROUP_FILE.group.id.hex()}/sync", {}),
    ):
        try:
            client.post(path, body)
        except (ApiError, NetworkError) as error:
            print(path, error, file=sys.stderr)


def _captured(capture: socket.socket) -> list[tuple[str, str]]:
    """Return (interface, what) of every packet since the capture began."""
    seen = []
    capture.setblocking(False)
    while True:
        try:
            packet, (interface, protocol, kind, *_) = capture.recvfrom(2048)
        except BlockingIOError:
            return seen
        if kind == _OUTGOING:
            seen.append((interface, _described(protocol, packet)))


def _described(protocol: int, packet: bytes) -> str:
    if protocol == _ARP:
        return f"ARP {socket.inet_ntoa(packet[24:28])}"
    if protocol != _IPV4:
        return f"protocol {protocol:04x}"
    head = (packet[0] & 15) * 4
    to = f"{socket.inet_ntoa(packet[16:20])}:{int.from_bytes(packet[head + 2 : head + 4], 'big')}"
    if packet[9] == _TCP:
        return f"SYN {to}" if packet[head + 13] == _SYN else "TCP"
    return f"UDP {to}" if packet[9] == _UDP else f"IP {packet[9]} {to}"


def _namespace() -> None:
    """A machine with a default route, and nobody at its end."""
    for line in (
        "link set lo up",
        "link add wan type veth peer name beyond",
        "addr add 10.77.0.1/24 broadcast 10.77.0.255 dev wan",
        "link set beyond up",
        "link set wan up",
        "neigh add 10.77.0.254 lladdr 02:00:00:00:00:01 dev wan",
        "route add default via 10.77.0.254",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    for path in Path("/proc/sys/net/ipv6/conf").glob("*/disable_ipv6"):  # the kernel itself talks there
        path.write_text("1")


def _run(path: Path, only_tor: bool) -> dict[str, Any]:
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
    with ExitStack() as stack:
        bob = stack.enter_context(RunningNode(make_data(path / "bob", "bob", peers=[_ALICE]), "bob"))
        tor = stack.enter_context(FakeTorProcess(f"{BOBS}={bob.port}"))
        data = alice(path / "alice", tor, only_tor=only_tor)
        _captured(capture)
        node = RunningNode(data, command=[sys.executable, str(_HERE), str(data), "alice", *_LOOP])
        ready = stack.enter_context(node).ready()
        asked_for_more(data)
        deadline = time.monotonic() + _WAIT_S
        while not (bobs := _connected(data, "bob")):
            assert time.monotonic() < deadline, (tor.asked, node.seen)
        packets = _captured(capture)
        stopped = node.stop()
        return {
            "ready": ready,
            "left": sorted({what for interface, what in packets if interface != "lo"}),
            "here": sorted({what for interface, what in packets if interface == "lo" and what != "TCP"}),
            "asked": sorted(set(tor.asked)),
            "proxy": tor.port,
            "bob": bob.port,
            "path": [bobs["path"], bobs["better"]],
            "stopped": stopped,
        }


def _connected(data: Path, label: str) -> dict[str, Any]:
    peers = json.loads(cli(data, "peers", "--json").stdout)
    return next((one for one in peers if one["label"] == label and one["state"] == "connected"), {})


if __name__ == "__main__":
    _namespace()
    print(json.dumps(_run(Path(sys.argv[1]), "all" not in sys.argv[2:])))
