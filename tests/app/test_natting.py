"""What [nat] makes of a node: a carrier, an address in its announcements, a forwarded port in its invites."""

from __future__ import annotations

import asyncio
import sys

import pytest

from musignet.app.config import Config
from musignet.app.natting import Forwarding, announced, punching, servers
from musignet.errors import LocalError
from musignet.net import portmap
from musignet.net.mapping import Mapping
from musignet.net.nat import Servers, TurnServer

NAT = Config(
    nat_punch=True,
    nat_stun=("stun.example:3478",),
    nat_turn=("turn.example:3478", "tls://[2600::1]:5349"),
    nat_turn_username="u",
    nat_turn_password="very secret",
)


def test_nothing_is_on_and_nobody_is_named_unless_somebody_says_so() -> None:
    assert punching(Config()) == ()
    assert announced(Config()) == ()
    assert servers(Config()) == Servers()


def test_the_servers_are_those_of_the_file_and_the_password_is_shown_nowhere() -> None:
    found = servers(NAT)
    assert found.stun == (("stun.example", 3478),)
    assert found.turn == (
        TurnServer("turn.example", 3478, "u", "very secret"), TurnServer("2600::1", 5349, "u", "very secret", tls=True),
    )  # fmt: skip
    assert "very secret" not in repr((found, NAT))


def test_a_node_that_punches_says_so() -> None:
    pytest.importorskip("aioice", reason="needs the extra `nat`")
    pytest.importorskip("aioquic", reason="needs the extra `nat`")
    assert len(punching(NAT)) == 1
    assert announced(NAT) == ("ice:",)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "musignet.net.transport.punched", raising=False)
    monkeypatch.setitem(sys.modules, "ifaddr", None)
    with pytest.raises(LocalError, match=r"pip install 'musignet\[nat\]'"):
        punching(NAT)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_a_port_is_not_forwarded_to_where_nobody_listens(host: str) -> None:
    with pytest.raises(LocalError, match="forwards a port to nobody"):
        Forwarding("auto").start(host, 8737)


class _Way:
    name = "test"

    def __init__(self) -> None:
        self.unmapped = 0

    async def look(self) -> str:
        return "8.8.8.8"

    async def map(self, local_port: int, port: int, lease_s: int) -> Mapping:
        return Mapping(self.name, "8.8.8.8", port + 1, local_port, lease_s)

    async def unmap(self, mapping: Mapping) -> None:
        self.unmapped += 1


def test_the_forwarded_address_is_there_until_the_end() -> None:
    async def main() -> None:
        way = _Way()
        forwarding = Forwarding("off")
        forwarding.start("", 0)
        await forwarding.stop()
        forwarding = Forwarding("auto")
        forwarding._ways = (way,)
        assert forwarding.address == ""
        forwarding.start("0.0.0.0", 8737)
        for _ in range(5):
            await asyncio.sleep(0)
        assert forwarding.address == "8.8.8.8:8738"
        await forwarding.stop()
        assert (forwarding.address, way.unmapped) == ("", 1)

    asyncio.run(main())


def test_the_words_that_the_file_allows_are_those_that_are_known() -> None:
    assert [len(portmap.ways(word)) for word in ("off", "auto", "natpmp", "upnp")] == [0, 2, 1, 1]
