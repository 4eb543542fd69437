"""A real router (miniupnpd) forwards a port to a node behind it, and forgets it when the node is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.netlab import Lab, reason_against

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
