"""A real router (miniupnpd) forwards a port to a node behind it, and forgets it when the node is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.netlab import INTERNET, INTERNET_TOO, Lab, reason_against

pytest.importorskip("miniupnpc", reason="needs the extra `nat`")

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(bool(why := reason_against("miniupnpd")), reason=why or "a lab can be built"),
]

NODE = """
import asyncio, sys
from musignet.net.portmap import PortMapper, ways

async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "0.0.0.0", 0)
    mapper = PortMapper(ways(sys.argv[1]))
    mapping = await mapper.start(server.sockets[0].getsockname()[1])
    print(mapping.way, mapping.host, mapping.port, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await mapper.stop()
    print("stopped", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"


def reached(lab: Lab, host: str, port: str) -> bool:
    """Return whether somebody on the internet gets through."""
    command = [*lab.inside("pub"), sys.executable, "-c", DIAL, host, port]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("word", "way"), [("natpmp", "NAT-PMP"), ("upnp", "UPnP"), ("auto", "NAT-PMP")])
def test_the_internet_reaches_a_node_through_its_router_until_it_stops(word: str, way: str) -> None:
    with Lab(("cone", "cone")) as lab:
        lab.start_miniupnpd()
        command = [*lab.inside("A"), sys.executable, "-c", NODE, word]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdin is not None
            assert node.stdout is not None
            by, *place = node.stdout.readline().split()
            assert (by, place[0]) == (way, "11.0.113.10")
            assert reached(lab, *place)
            node.stdin.write("\n")
            node.stdin.flush()
            assert node.stdout.readline() == "stopped\n"
            assert not reached(lab, *place)
            node.stdin.write("\n")
            node.stdin.flush()
        assert node.returncode == 0


def test_a_router_that_speaks_neither_is_a_typed_error() -> None:
    with Lab(("cone", "cone")) as lab:
        command = [*lab.inside("A"), sys.executable, "-c", NODE, "auto"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode
    assert "UPnP" in done.stderr.splitlines()[-1]
    assert "musignet.errors." in done.stderr.splitlines()[-1]


def test_the_doctor_tells_the_servers_the_kind_of_nat_and_the_router(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        f"[nat]\npunch = true\nstun = ['{INTERNET}:3478', '{INTERNET_TOO}:3478']\nturn = ['{INTERNET}:3478']\n"
        "turn_username = 'u'\nturn_password = 'p'\nmap_port = 'auto'\n"
    )
    with Lab(("symmetric", "cone")) as lab:
        lab.start_turn()
        lab.start_miniupnpd()
        command = [*lab.inside("A"), sys.executable, "-m", "musignet", "doctor", "--data", str(tmp_path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    asked = ("STUN", "TURN", "NAT", "port by NAT-PMP", "port by UPnP")
    found = [one for one in json.loads(done.stdout) if one["layer"] in asked]
    ok = [("STUN", "ok"), ("STUN", "ok"), ("NAT", "note"), ("TURN", "ok"), ("TURN", "ok")]
    assert [(one["layer"], one["verdict"]) for one in found] == [*ok, (asked[3], "ok"), (asked[4], "ok")]
    assert sum("11.0.113.10" in one["text"] for one in found) == 4
