"""Metrics: names and labels of a fixed list, on loopback, and nothing of who or what."""

from __future__ import annotations

import asyncio
import http.client
import re
from pathlib import Path

import pytest

from app.test_api import free_port, running
from musignet.app.metrics import NAMES
from musignet.node.peers import PeerInfo
from support.ceremony import identity
from support.wallet import psbt

pytestmark = pytest.mark.driver

_LINE = re.compile(r'^(\w+)(?:{(\w+)="([^"]*)"})? (\d+)\.0$')


def get(port: int, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics", headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_metrics_are_numbers_under_names_of_the_list(tmp_path: Path) -> None:
    port = free_port()

    async def main() -> str:
        async with running(tmp_path / "a", metrics_port=port) as (daemon, _):
            daemon.pin(PeerInfo(id="secret dave", pubkey_hex=identity("dave").pubkey_hex))
            (group,) = daemon.groups
            session = await daemon.propose(group, psbt().serialize(), "secret memo", 60)
            code, text = await asyncio.to_thread(get, port)
            assert code == 200
            assert session.id.hex()[:8] not in text
            foreign, _ = await asyncio.to_thread(get, port, f"evil.example:{port}")
            assert foreign == 401
            return text

    text = asyncio.run(main())
    told = [_LINE.match(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(told)
    found = {(one[1], one[2] or "", one[3] or ""): int(one[4]) for one in told if one}
    listed = {(name, label, value) for name, (_, label, values) in NAMES.items() for value in values or ("",)}
    assert found.keys() == listed
    assert found["musignet_peers", "state", "disconnected"] == 3
    assert found["musignet_sessions_open", "", ""] == 1
    assert found["musignet_groups", "", ""] == 1
    for word in ("secret", "dave", "bob", "savings", "memo", identity("bob").pubkey_hex[2:10]):
        assert word not in text


def test_without_a_port_there_are_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / "a") as (_, api):
            assert len(api._servers) == 1

    asyncio.run(main())
