"""What `musignet doctor` says about proxies and Tor; and that it keeps quiet where only Tor is allowed."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from app.nodes import cli, make_data
from musignet.app import tordoctor
from musignet.app.config import Config
from musignet.app.doctor import Finding, Verdict
from musignet.app.tordoctor import examine_tor
from support.socks import FakeTor, scripted
from support.tor_control import FakeControl

pytestmark = pytest.mark.driver

REFUSES = (3, b"\5\0", 10, b"\5\1\0\1" + bytes(6))
CONNECTS = (3, b"\5\0", 10, b"\5\0\0\1" + bytes(6))


def verdicts(findings: list[Finding]) -> list[tuple[str, Verdict]]:
    return [(one.layer, one.verdict) for one in findings]


def with_proxy(port: int, **settings: object) -> Config:
    return replace(Config(), proxy_socks5=f"127.0.0.1:{port}", **settings)  # type: ignore[arg-type]


def test_where_nothing_is_set_nothing_is_said() -> None:
    assert asyncio.run(examine_tor(Config())) == []


def test_a_proxy_that_works() -> None:
    async def main() -> None:
        async with FakeTor({}).running() as tor:
            (found,) = await examine_tor(with_proxy(tor.port))
        assert found == Finding(
            "proxy", Verdict.OK, f"127.0.0.1:{tor.port} is a SOCKS5 proxy, and looks for onion services"
        )
        (asked,) = tor.asked
        assert asked.host.endswith(".onion"), "no place that somebody knows"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("steps", "verdict", "words"),
    [
        ((3, b"HTTP/1.1 400 Bad\r\n"), Verdict.BLOCKED, "does not answer as a SOCKS5 proxy does"),
        (REFUSES, Verdict.NOTE, "does not connect us"),
        (CONNECTS, Verdict.NOTE, "connects to what is not there"),
        ((None,), Verdict.NOTE, "no answer within 0.2 s"),
    ],
)
def test_a_proxy_that_does_not(
    steps: tuple[bytes | int | None, ...], verdict: Verdict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tordoctor, "TOR_ANSWER_S", 0.2 if None in steps else 5.0)

    async def main() -> None:
        async with scripted(*(10 + 62 - 3 if step == 10 else step for step in steps)) as port:
            (found,) = await examine_tor(with_proxy(port))
        assert found.verdict is verdict
        assert words in found.text
        assert found.hint
        assert found.hint not in found.text

    asyncio.run(main())


def test_no_proxy_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        (found,) = asyncio.run(examine_tor(with_proxy(taken.getsockname()[1])))
    assert (found.verdict, found.hint) == (Verdict.BLOCKED, "is Tor running? its SocksPort is 9050, or 9150")


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        (None, Verdict.OK, "is ready"),
        (b"250-status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=45 TAG=x\r\n250 OK\r\n", Verdict.NOTE, "at 45 %"),
        (b"552 Unrecognized key\r\n", Verdict.BLOCKED, "Tor does not say how far it is"),
    ],
)
def test_the_control_port(answer: bytes | None, verdict: Verdict, words: str, tmp_path: Path) -> None:
    async def main() -> None:
        tor = FakeControl(tmp_path / "cookie", answers={} if answer is None else {"GETINFO": answer})
        async with tor.running():
            (found,) = await examine_tor(Config(onion_service="kept", onion_control=tor.place))
        assert (found.layer, found.verdict) == ("onion service", verdict)
        assert words in found.text
        assert tor.services == {}, "nothing is published"

    asyncio.run(main())


def test_settings_that_cannot_hold() -> None:
    config = Config(only_tor=True, onion_service="off")
    assert verdicts(asyncio.run(examine_tor(config))) == [("settings", Verdict.BLOCKED)]

    async def main() -> None:
        async with FakeTor({}).running() as tor:
            found = await examine_tor(
                with_proxy(tor.port, only_tor=True, chain_backend="esplora+https://a.example/api")
            )
        assert verdicts(found) == [("proxy", Verdict.OK), ("settings", Verdict.BLOCKED)]
        assert "[chain] backend" in found[1].text

    asyncio.run(main())


def test_with_only_tor_the_doctor_asks_nobody_else(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        settings = {"only_tor": True, "discovery_interfaces": ("lan",), "nat_map_port": "auto"}
        data = make_data(tmp_path / "data", "alice", proxy_socks5=f"127.0.0.1:{port}", **settings)
        done = cli(data, "doctor", "--json")
    assert done.returncode == 1
    assert [one["layer"] for one in json.loads(done.stdout)] == ["the network", "proxy", "the node"]
