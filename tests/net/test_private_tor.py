"""Over real Tor: a whole network of it on loopback. Opt-in, for it takes minutes: MUSIGNET_TOR=1; Debian's `tor`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator

import pytest
from endpoints import Signal

from musignet.chain import Chain
from musignet.crypto.onionkey import OnionKey
from musignet.net.onion import OnionService, TorControl
from musignet.net.peer import Peer
from musignet.net.service import NetworkService
from musignet.net.transport.proxy import Proxy
from musignet.net.transport.proxyerrors import BeyondProxy
from musignet.net.transport.route import Route
from musignet.node.addresses import Path, Rank
from musignet.node.peers import PeerInfo
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from musignet.wire.onion import onion_host
from musignet.wire.torcontrol import bootstrapped
from support.keys import ALICE, BOB, CAROL
from support.private_tor import PrivateTor, private_tor

pytestmark = [
    pytest.mark.driver,
    pytest.mark.skipif(os.environ.get("MUSIGNET_TOR") != "1", reason="slow: MUSIGNET_TOR=1 runs a Tor network here"),
    pytest.mark.skipif(not (shutil.which("tor") and shutil.which("tor-gencert")), reason="needs Debian's tor"),
]

FOUND_S = 240.0
"""What a new onion service may take until it is found."""


@pytest.fixture(scope="module")
def tor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateTor]:
    with private_tor(tmp_path_factory.mktemp("tor")) as network:
        yield network


def control(tor: PrivateTor) -> TorControl:
    return TorControl(f"127.0.0.1:{tor.control}")


async def logins(tor: PrivateTor) -> set[str]:
    """Return the logins that Tor has circuits for; as any program would ask, in a form that `TorControl` refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", tor.control)
    cookie = (tor.path / "client" / "control_auth_cookie").read_bytes()
    writer.write(f"AUTHENTICATE {cookie.hex()}\r\nGETINFO circuit-status\r\nQUIT\r\n".encode())
    said = (await reader.read(-1)).decode()
    writer.close()
    return set(re.findall(r'SOCKS_USERNAME="(\w+)"', said))


def test_two_nodes_meet_through_onion_services_and_speak(tor: PrivateTor) -> None:
    async def main() -> None:
        route = Route(Proxy("127.0.0.1", tor.socks), everything=True, fronted=True)
        heard, signal = [], Signal()

        def on_message(message: Message, peer: Peer) -> None:
            heard.append((peer.info.id, message.payload))
            signal.poke()

        alice = NetworkService("alice", identity=ALICE, route=route)
        others = {
            name: NetworkService(name, identity=key, route=route, handler=on_message)
            for name, key in (("bob", BOB), ("carol", CAROL))
        }
        async with alice, others["bob"], others["carol"]:
            onions = []
            for name, key in (("bob", BOB), ("carol", CAROL)):
                node = others[name]
                node.add_peer(PeerInfo(id="alice", pubkey_hex=ALICE.pubkey_hex))
                onion = OnionService(lambda: control(tor), OnionKey.of(key), f"127.0.0.1:{node.port}")
                await onion.start()
                onions.append(onion)
                alice.add_peer(PeerInfo(id=name, addresses=(onion.address,), pubkey_hex=key.pubkey_hex))
            for name in others:
                peer = await alice.connect_to_peer(name, timeout_s=FOUND_S, persist=True)
                assert peer.path == Path(Rank.PROXIED, "tcp")
                await peer.send(Message(MessageType.CHAT, "alice", b"through six relays"), wait_ack=True)
            await signal.until(lambda: len(heard) == 2)
            assert {peer.path for peer in others["bob"].peers()} == {Path(Rank.PROXIED, "tcp")}
            print("round trips:", [round(peer.round_trip_s or 0, 3) for peer in alice.peers()])
            assert len(await logins(tor)) == 2, "a path for each peer"
            for onion in onions:
                await onion.stop()

    asyncio.run(main())


def test_a_service_that_was_never_there_is_beyond_the_proxy(tor: PrivateTor) -> None:
    async def main() -> None:
        with pytest.raises(BeyondProxy):
            await Proxy("127.0.0.1", tor.socks).open_socket(
                onion_host(OnionKey(bytes(32)).public), 8737, isolation=b"x"
            )

    asyncio.run(main())


def test_how_far_it_is(tor: PrivateTor) -> None:
    async def main() -> None:
        connection = control(tor)
        await connection.connect()
        assert bootstrapped(await connection.ask("say", "GETINFO status/bootstrap-phase")) == 100
        await connection.close()

    asyncio.run(main())


def test_a_chain_backend_is_asked_through_it(tor: PrivateTor, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By Esplora's client through the HTTP tunnel, by Electrum's through SOCKS5."""
    bdk_server = pytest.importorskip("musignet.app.chain.bdk", reason="needs bdkpython")
    chains = pytest.importorskip("support.esplora")
    electrum = pytest.importorskip("support.electrum")
    regtest = pytest.importorskip("musignet.app.regtest_server")
    expected = bdk_server.GENESIS[Chain.REGTEST]
    with regtest.serve(tmp_path_factory.mktemp("served") / "chain") as url:
        assert str(bdk_server.Esplora(url, f"127.0.0.1:{tor.http}").genesis()) == expected
    with chains.RegtestChain(tmp_path_factory.mktemp("chain")) as chain:
        with electrum.serving(electrum.FakeElectrum(chain)) as url:
            assert str(bdk_server.Electrum(url, f"127.0.0.1:{tor.socks}").genesis()) == expected
