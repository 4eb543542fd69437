"""SOCKS5: real proxies, a stand-in for Tor's, and hostile ones. Every end is typed, and in time."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from endpoints import CARRIERS, Carrier, Recorder, aio, turns

from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, ConnectionError, LocalError, NetworkError, TransportError
from musignet.limits import Limits
from musignet.net.transport import TcpTransport
from musignet.net.transport.proxy import Proxy
from musignet.net.transport.proxyerrors import BeyondProxy, ProxyFault, ProxyRefused, ProxyTimeout, ProxyUnreachable
from musignet.net.transport.route import DIRECT, ProxyNeeded, Route
from musignet.net.transport.tls import TlsTransport
from musignet.node.addresses import Path, Rank
from musignet.wire.onion import onion_host
from support.keys import ALICE, BOB, CAROL
from support.socks import FakeTor, microsocks, scripted

pytestmark = pytest.mark.driver

needs_microsocks = pytest.mark.skipif(shutil.which("microsocks") is None, reason="needs Debian's microsocks")

BOBS = onion_host(bytes(range(32)))
CAROLS = onion_host(bytes(range(1, 33)))
PATIENCE_S = 5.0
"""More than any of these may take."""


@pytest.fixture(params=["tcp", "tcp on uvloop"])
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]()


@pytest.fixture
def no_lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Whoever asks for a name fails, and is written down. uvloop asks by itself: `tests/app/test_only_tor.py`."""
    asked: list[object] = []
    real = socket.getaddrinfo

    def numbers_only(host: str, *args: Any, **kwargs: Any) -> Any:
        with suppress(ValueError):
            ip_address(host)
            return real(host, *args, **kwargs)
        asked.append(host)
        raise socket.gaierror("no name is looked up here")

    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)
    yield asked
    assert asked == []


def dialler(proxy: Proxy | None, identity: Identity = ALICE, *, everything: bool = False) -> TcpTransport:
    return TcpTransport(identity, Recorder(), "", route=Route(proxy, everything))


async def listener(identity: Identity) -> TcpTransport:
    transport = TcpTransport(identity, Recorder(), "127.0.0.1")
    await transport.start()
    return transport


async def refusal(proxy: Proxy, host: str = "host.example", port: int = 1) -> NetworkError:
    """Return what a connection ends with; in time."""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(NetworkError) as caught:
            await proxy.open_socket(host, port)
    return caught.value


# --- what works -------------------------------------------------------------------------------------------------------


@aio
async def test_an_onion_service_is_reached_by_its_name_and_each_peer_by_a_path_of_its_own(
    carrier: Carrier, no_lookups: list[object]
) -> None:
    bob, carol = await listener(BOB), await listener(CAROL)
    async with FakeTor({BOBS: bob.port, CAROLS: carol.port}).running() as tor:
        alice = dialler(Proxy("127.0.0.1", tor.port))
        await alice.start()
        for identity, host in ((BOB, BOBS), (CAROL, CAROLS), (BOB, BOBS)):
            link = await alice.connect(identity.pubkey_hex, host, 8737)
            assert link.address == f"{host}:8737"
            assert link.path == Path(Rank.PROXIED, "tcp")
        await alice.stop()
    await bob.stop()
    await carol.stop()
    assert [one.host for one in tor.asked] == [BOBS, CAROLS, BOBS]
    logins = [one.login for one in tor.asked]
    assert logins[0] == logins[2] != logins[1], "a path for each peer"
    assert not any(BOB.pubkey_hex[2:18] in part for login in logins for part in login), "the proxy learns no key"


@aio
async def test_two_runs_share_no_path(carrier: Carrier) -> None:
    async with FakeTor({}).running() as tor:
        for _ in range(2):
            with pytest.raises(BeyondProxy):
                await Proxy("127.0.0.1", tor.port).open_socket("host.example", 1, isolation=BOB.pubkey)
    first, second = tor.asked
    assert first.login != second.login


@aio
async def test_with_everything_through_it_no_host_is_dialled_straight(carrier: Carrier) -> None:
    bob = await listener(BOB)
    async with FakeTor({"bob.example": bob.port}).running() as tor:
        alice = dialler(Proxy("127.0.0.1", tor.port), everything=True)
        await alice.start()
        with pytest.raises(BeyondProxy):
            await alice.connect(BOB.pubkey_hex, "127.0.0.1", bob.port)
        with pytest.raises(BeyondProxy):
            await alice.connect(BOB.pubkey_hex, "::1", bob.port)
        await alice.connect(BOB.pubkey_hex, "bob.example", 8737)
        await alice.stop()
    await bob.stop()
    assert [one.host for one in tor.asked] == ["127.0.0.1", "::1", "bob.example"]


@aio
async def test_without_that_only_onion_services_go_through_it(carrier: Carrier) -> None:
    bob = await listener(BOB)
    async with FakeTor({}).running() as tor:
        alice = dialler(Proxy("127.0.0.1", tor.port))
        await alice.start()
        link = await alice.connect(BOB.pubkey_hex, "127.0.0.1", bob.port)
        assert link.path == Path(Rank.LAN, "tcp")
        await alice.stop()
    await bob.stop()
    assert tor.asked == []


@pytest.mark.parametrize("fronted", [False, True])
@aio
async def test_whoever_comes_from_this_machine_comes_through_the_onion_service_where_there_is_one(
    carrier: Carrier, fronted: bool
) -> None:
    sink = Recorder()
    bob = TcpTransport(BOB, sink, "127.0.0.1", route=Route(fronted=fronted))
    await bob.start()
    alice = dialler(None)
    await alice.start()
    await alice.connect(BOB.pubkey_hex, "127.0.0.1", bob.port)
    await sink.hears("connected")
    assert sink.connections[0].path.rank is (Rank.PROXIED if fronted else Rank.LAN)
    await alice.stop()
    await bob.stop()


@aio
async def test_tls_goes_the_same_way(carrier: Carrier, no_lookups: list[object]) -> None:
    bob = TlsTransport(BOB, Recorder(), "127.0.0.1")
    await bob.start()
    async with FakeTor({BOBS: bob.port}).running() as tor:
        alice = TlsTransport(ALICE, Recorder(), route=Route(Proxy("127.0.0.1", tor.port)))
        await alice.start()
        link = await alice.connect(BOB.pubkey_hex, BOBS, 8738)
        assert link.path == Path(Rank.PROXIED, "tls")
        with pytest.raises(BeyondProxy):
            await alice.connect(CAROL.pubkey_hex, CAROLS, 8738)
        await alice.stop()
    await bob.stop()
    assert len({one.login for one in tor.asked}) == 2


@aio
async def test_a_relay_is_reached_the_same_way(carrier: Carrier, no_lookups: list[object]) -> None:
    pytest.importorskip("websockets", reason="relays are an extra")
    relay = pytest.importorskip("musignet.net.transport.relay")
    async with scripted(None) as port, FakeTor({BOBS: port}).running() as tor:
        route = Route(Proxy("127.0.0.1", tor.port))
        alice = relay.RelayTransport(ALICE, Recorder(), relays=(f"ws://{BOBS}",), route=route)
        await alice.start()
        while not tor.asked:
            await turns(1)
        await alice.stop()
    assert [(one.host, one.port) for one in tor.asked] == [(BOBS, 80)]


@needs_microsocks
@aio
async def test_over_microsocks_to_a_node(carrier: Carrier) -> None:
    bob = await listener(BOB)
    with microsocks() as port:
        alice = dialler(Proxy("127.0.0.1", port), everything=True)
        await alice.start()
        await alice.connect(BOB.pubkey_hex, "127.0.0.1", bob.port)
        await alice.connect(BOB.pubkey_hex, "localhost", bob.port)  # looked up there
        with pytest.raises(AuthenticationError, match="closed during the handshake"):
            await alice.connect(CAROL.pubkey_hex, "127.0.0.1", bob.port)
        await alice.stop()
    await bob.stop()


@needs_microsocks
@aio
async def test_microsocks_with_a_login(carrier: Carrier) -> None:
    bob = await listener(BOB)
    with microsocks("-u", "alice", "-P", "correct horse") as port:
        sock = await Proxy("127.0.0.1", port, "alice", "correct horse").open_socket("127.0.0.1", bob.port)
        sock.close()
        for wrong in (Proxy("127.0.0.1", port, "alice", "wrong"), Proxy("127.0.0.1", port)):
            error = await refusal(wrong, "127.0.0.1", bob.port)
            assert isinstance(error, ProxyRefused)
            assert "does not let us in" in str(error)
    await bob.stop()


@needs_microsocks
@aio
async def test_microsocks_and_a_host_that_is_not_there(carrier: Carrier) -> None:
    with microsocks() as port, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        error = await refusal(Proxy("127.0.0.1", port), "127.0.0.1", taken.getsockname()[1])
    assert isinstance(error, BeyondProxy)
    assert "cannot be reached through the proxy" in str(error)


# --- what does not ----------------------------------------------------------------------------------------------------


@aio
async def test_an_onion_service_without_a_proxy_is_looked_up_nowhere(
    carrier: Carrier, no_lookups: list[object]
) -> None:
    alice = dialler(None)
    await alice.start()
    with pytest.raises(ProxyNeeded, match=r"is an onion service; run Tor, and set socks5"):
        await alice.connect(BOB.pubkey_hex, BOBS, 8737)
    with pytest.raises(TransportError, match="is no onion address"):
        await alice.connect(BOB.pubkey_hex, f"a{BOBS}", 8737)
    assert (alice.slots.outbound, len(alice._dials)) == (0, 0), "no slot is lost"
    await alice.stop()


@aio
async def test_where_no_proxy_listens_nothing_is_tried_without_it(carrier: Carrier) -> None:
    bob = await listener(BOB)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        alice = dialler(Proxy("127.0.0.1", port), everything=True)
        await alice.start()
        with pytest.raises(ProxyUnreachable, match=f"no proxy at 127.0.0.1:{port}: got Connect"):
            await alice.connect(BOB.pubkey_hex, "127.0.0.1", bob.port)
        assert alice.slots.outbound == 0
        await alice.stop()
    await bob.stop()
    assert "connected" not in bob.sink.words  # type: ignore[attr-defined]


GREETED: tuple[bytes | int, ...] = (3, b"\5\0")
"""It lets anybody in. What follows answers the request, which is 10 bytes and more."""
SUCCEEDED = bytes((5, 0, 0, 1, 127, 0, 0, 1, 0, 1))

HOSTILE: dict[str, tuple[tuple[bytes | int | None, ...], type[NetworkError], str]] = {
    "hangs up at once": ((), ProxyFault, "closed unexpectedly|reset|Broken pipe"),
    "hangs up after the greeting": ((3,), ProxyFault, "closed unexpectedly"),
    "hangs up within its first answer": ((3, b"\5"), ProxyFault, "closed unexpectedly"),
    "hangs up after the request": ((*GREETED, 10), ProxyFault, "closed unexpectedly"),
    "hangs up within its second answer": ((*GREETED, 10, SUCCEEDED[:7]), ProxyFault, "closed unexpectedly"),
    "an HTTP server": ((3, b"HTTP/1.1 400 Bad Request\r\n\r\n"), ProxyFault, "version"),
    "SOCKS4": ((3, b"\0\x5a"), ProxyFault, "version"),
    "a TLS alert": ((3, b"\x15\3\1\0\2\2\x46"), ProxyFault, "version"),
    "wants what we do not have": ((3, b"\5\1"), ProxyFault, "method"),
    "an unknown method": ((3, b"\5\x80"), ProxyFault, "method"),
    "lets nobody in": ((3, b"\5\xff"), ProxyRefused, "does not let us in"),
    "a login that was not offered": ((3, b"\5\2"), ProxyFault, "method"),
    "garbage instead of an answer": ((*GREETED, 10, b"\xde\xad\xbe\xef" * 8), ProxyFault, "version"),
    "a reserved byte": ((*GREETED, 10, b"\5\0\7\1" + bytes(6)), ProxyFault, "reserved"),
    "an address of no kind": ((*GREETED, 10, b"\5\0\0\2" + bytes(6)), ProxyFault, "address type"),
    "a name that is no text": ((*GREETED, 10, b"\5\0\0\3\2\xff\xfe\0\1"), ProxyFault, "decode"),
    "a name that is cut": ((*GREETED, 10, b"\5\0\0\3\xff" + bytes(9)), ProxyFault, "closed unexpectedly"),
    "an unknown refusal": ((*GREETED, 10, b"\5\x42" + SUCCEEDED[2:]), ProxyFault, "reply code"),
    "a general failure": ((*GREETED, 10, b"\5\1" + SUCCEEDED[2:]), ProxyRefused, "General SOCKS server failure"),
    "by its rules": ((*GREETED, 10, b"\5\2" + SUCCEEDED[2:]), ProxyRefused, "not allowed"),
    "no network": ((*GREETED, 10, b"\5\3" + SUCCEEDED[2:]), BeyondProxy, "Network unreachable"),
    "no such host": ((*GREETED, 10, b"\5\4" + SUCCEEDED[2:]), BeyondProxy, "Host unreachable"),
    "the host refuses": ((*GREETED, 10, b"\5\5" + SUCCEEDED[2:]), BeyondProxy, "refused"),
    "the path timed out": ((*GREETED, 10, b"\5\6" + SUCCEEDED[2:]), BeyondProxy, "TTL"),
    "no such command": ((*GREETED, 10, b"\5\7" + SUCCEEDED[2:]), ProxyRefused, "not supported"),
    "no such kind of address": ((*GREETED, 10, b"\5\x08" + SUCCEEDED[2:]), ProxyRefused, "not supported"),
    "Tor: no such onion service": ((*GREETED, 10, b"\5\xf0" + SUCCEEDED[2:]), BeyondProxy, "cannot be reached"),
    "Tor: the wrong version of one": ((*GREETED, 10, b"\5\xf6" + SUCCEEDED[2:]), BeyondProxy, "cannot be reached"),
    "stalls at once": ((None,), ProxyTimeout, "within 0.1 s"),
    "stalls within its first answer": ((3, b"\5", None), ProxyTimeout, "within 0.1 s"),
    "stalls after the request": ((*GREETED, 10, None), ProxyTimeout, "within 0.1 s"),
    "stalls within its second answer": ((*GREETED, 10, SUCCEEDED[:9], None), ProxyTimeout, "within 0.1 s"),
}


@pytest.mark.parametrize(("steps", "kind", "words"), HOSTILE.values(), ids=HOSTILE)
@aio
async def test_a_hostile_proxy_gets_a_typed_end_in_time(
    carrier: Carrier, steps: tuple[bytes | int | None, ...], kind: type[NetworkError], words: str
) -> None:
    async with scripted(*steps) as port:
        error = await refusal(Proxy("127.0.0.1", port, timeout_s=0.1 if None in steps else PATIENCE_S))
    reset = not steps and isinstance(error, ProxyUnreachable)  # so quick that it was never there
    assert type(error) is kind or reset, error
    assert re.search(words, str(error)), error
    assert isinstance(error, ConnectionError | TimeoutError), "what a dial may raise"


LOGIN: dict[str, tuple[tuple[bytes | int | None, ...], type[NetworkError], str]] = {
    "a wrong login": ((4, b"\5\2", 14, b"\1\1"), ProxyRefused, "does not let us in"),
    "another version of it": ((4, b"\5\2", 14, b"\5\0"), ProxyFault, "authentication response"),
    "hangs up": ((4, b"\5\2", 14), ProxyFault, "closed unexpectedly"),
    "stalls": ((4, b"\5\2", 14, b"\1", None), ProxyTimeout, "within 0.1 s"),
}


@pytest.mark.parametrize(("steps", "kind", "words"), LOGIN.values(), ids=LOGIN)
@aio
async def test_a_hostile_login(
    carrier: Carrier, steps: tuple[bytes | int | None, ...], kind: type[NetworkError], words: str
) -> None:
    async with scripted(*steps) as port:
        error = await refusal(Proxy("127.0.0.1", port, "alice", "secret", timeout_s=0.1 if None in steps else 5))
    assert type(error) is kind, error
    assert words in str(error)
    assert "secret" not in str(error)


@aio
async def test_bytes_that_follow_the_answer_are_the_far_ends(carrier: Carrier) -> None:
    """Not one more is read than belongs to the proxy: the first bytes of the peer may come with them."""
    async with scripted(*GREETED, 10, SUCCEEDED + b"hello", None) as port:
        sock = await Proxy("127.0.0.1", port).open_socket("host.example", 1)
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"hello"
        sock.close()


@aio
async def test_a_dial_that_is_given_up_leaves_no_socket_and_no_slot(carrier: Carrier) -> None:
    async with scripted(*GREETED, 10, None) as port:
        alice = dialler(Proxy("127.0.0.1", port), everything=True)
        await alice.start()
        dial = asyncio.ensure_future(alice.connect(BOB.pubkey_hex, "bob.example", 1))
        while not alice._dials:
            await turns(1)
        await turns(20)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial
        assert alice.slots.outbound == 0
        await alice.stop()


@aio
async def test_a_stop_ends_a_dial_through_a_proxy_that_stalls(carrier: Carrier) -> None:
    async with scripted(3, None) as port:
        alice = dialler(Proxy("127.0.0.1", port), everything=True)
        await alice.start()
        dial = asyncio.ensure_future(alice.connect(BOB.pubkey_hex, "bob.example", 1))
        while not alice._dials:
            await turns(1)
        async with asyncio.timeout(PATIENCE_S):
            await alice.stop()
            with pytest.raises(TransportError, match="stopped while it dialled"):
                await dial


def test_through_a_proxy_a_dial_has_more_time() -> None:
    limits = replace(Limits(), dial_timeout_s=1.0, proxy_dial_timeout_s=7.0)
    proxy = Proxy("127.0.0.1", 9050)
    transport = TcpTransport(ALICE, Recorder(), "", limits=limits, route=Route(proxy))
    assert transport._dial_timeout_s("192.0.2.7") == 1.0
    assert transport._dial_timeout_s(BOBS) == 8.0, "its own, and the link's"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a" * 256,
        "a..b",
        "a" * 64 + ".example",
        "b\u00fccher.example",
        "a b\n.example",
        "1.2.3",
        "1.2.3.04",
        "1.2.3.256",
    ],
)
@aio
async def test_a_host_that_cannot_be_said_is_said_to_nobody(carrier: Carrier, host: str) -> None:
    async with FakeTor({}).running() as tor:
        assert isinstance(await refusal(Proxy("127.0.0.1", tor.port), host), TransportError)
    assert tor.asked == []


@pytest.mark.parametrize("port", [-1, 0, 65_536])
@aio
async def test_a_port_that_is_none(carrier: Carrier, port: int) -> None:
    async with FakeTor({}).running() as tor:
        assert isinstance(await refusal(Proxy("127.0.0.1", tor.port), "host.example", port), TransportError)
    assert tor.asked == []


@pytest.mark.parametrize("host", ["localhost", "tor.example", "", "127.0.0.1.example"])
def test_a_proxy_has_an_address_and_no_name(host: str) -> None:
    with pytest.raises(LocalError, match="expected an IP address, no name"):
        Proxy(host, 9050)


@pytest.mark.parametrize(("username", "password"), [("a", ""), ("", "b"), ("a" * 256, "b"), ("\u00e9", "b")])
def test_a_login_that_cannot_be_said(username: str, password: str) -> None:
    with pytest.raises(LocalError, match="not a login for SOCKS5"):
        Proxy("127.0.0.1", 9050, username, password)


def test_everything_through_no_proxy_is_refused() -> None:
    with pytest.raises(LocalError, match="set socks5 in"):
        Route(None, everything=True)
    assert DIRECT.through("192.0.2.7") is None


def test_a_proxy_prints_without_its_login() -> None:
    assert "secret" not in repr(Proxy("::1", 9050, "alice", "secret"))
    assert Proxy("::1", 9050).name == "[::1]:9050"
