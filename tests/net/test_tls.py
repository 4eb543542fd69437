"""What is TLS's own: who stands between, older versions, silence before the handshake, and what can be seen.

Everything else about links over TLS is in the conformance suite.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from cryptography import x509
from endpoints import CARRIERS, RawEnd, Recorder, _RawTcp, _RawTls, aio, all_of, turns

from musignet.errors import AuthenticationError, Timeout
from musignet.limits import TLS_HANDSHAKE_COST_S, Limits
from musignet.net.transport import TcpTransport, TlsTransport
from musignet.net.transport.certificate import client_context, listener_context
from musignet.net.transport.route import Route
from musignet.net.transport.selfsigned import certificate
from musignet.node.addresses import Path, Rank
from musignet.wire.noise import HandshakeError
from musignet.wire.tlsauth import ACT_ONE_BYTES, ACT_THREE_BYTES, ACT_TWO_BYTES, Initiator, Responder
from support.keys import ALICE, BOB, CAROL, secret

HOST = "127.0.0.1"
SHORT = Limits(act_one_timeout_s=0.3, handshake_timeout_s=0.3, stop_timeout_s=0.3)


@pytest.fixture(params=["tls", "tls on uvloop"])
def carrier(request: pytest.FixtureRequest) -> Any:
    return CARRIERS[request.param]()


async def listening(identity: Any = BOB, limits: Limits | None = None) -> TlsTransport:
    bob = TlsTransport(identity, Recorder(), HOST, limits=limits)
    await bob.start()
    return bob


async def dialling(limits: Limits | None = None) -> TlsTransport:
    alice = TlsTransport(ALICE, Recorder(), limits=limits)
    await alice.start()
    return alice


def heard(transport: TlsTransport) -> Recorder:
    sink: Any = transport.sink
    return sink  # type: ignore[no-any-return]


async def raw_tcp(port: int) -> _RawTcp:
    return (await asyncio.get_running_loop().create_connection(_RawTcp, HOST, port))[1]


# --- somebody between -------------------------------------------------------------------------------------------------


class Between:
    """Ends TLS with a certificate of its own, dials the true listener, and passes on what `relay` makes of each act."""

    def __init__(self, carrier: Any, target: TlsTransport) -> None:
        self.carrier = carrier
        self.target = target
        self.seen: list[tuple[bytes, bytes]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def listen(self, work: Callable[[RawEnd, RawEnd], Any]) -> int:
        async def run(near: RawEnd) -> None:
            far = await self.carrier.raw_dial(self.target)
            with suppress(TimeoutError):
                await work(near, far)
            self.seen.append((bytes(near.received), bytes(far.received)))
            near.close()
            far.close()

        return await self.carrier.raw_listen(  # type: ignore[no-any-return]
            lambda near: self.tasks.append(asyncio.ensure_future(run(near)))
        )


@aio
async def test_a_swapped_certificate_is_refused_though_every_byte_is_passed_on(carrier: Any) -> None:
    bob, alice = await listening(), await dialling()
    between = Between(carrier, bob)

    async def relay(near: RawEnd, far: RawEnd) -> None:
        await near.until(lambda: len(near.received) == ACT_ONE_BYTES)
        far.send(bytes(near.received))
        await far.until(lambda: far.received or far.ended)
        near.send(bytes(far.received))

    port = await between.listen(relay)
    with pytest.raises(AuthenticationError):
        await alice.connect(BOB.pubkey_hex, HOST, port)
    await asyncio.gather(*between.tasks)
    assert between.seen[0][1] == b"", "Bob answers nothing: this act one is for another certificate"
    assert isinstance(heard(bob).refusals[0], HandshakeError)
    assert heard(bob).words == ["refused"]
    await all_of(bob.stop(), alice.stop())


@aio
async def test_a_relayed_challenge_is_refused(carrier: Any) -> None:
    """Carol stands between. She makes an act one of her own to get Bob's signature, and shows it to Alice."""
    bob, alice = await listening(), await dialling()
    between = Between(carrier, bob)

    async def relay(near: RawEnd, far: RawEnd) -> None:
        far.send(carrier.initiator(CAROL, BOB.public, secret("n"), far).act_one())
        await far.until(lambda: len(far.received) == ACT_TWO_BYTES)
        await near.until(lambda: len(near.received) == ACT_ONE_BYTES)
        near.send(bytes(far.received))
        await near.closed()

    port = await between.listen(relay)
    with pytest.raises(HandshakeError, match="ACT2_BAD_SIGNATURE"):
        await alice.connect(BOB.pubkey_hex, HOST, port)
    await asyncio.gather(*between.tasks)
    assert len(between.seen[0][0]) == ACT_ONE_BYTES, "Alice has shown nothing of herself"
    await all_of(bob.stop(), alice.stop())


@aio
async def test_a_dialler_cannot_be_passed_on_to_another_listener(carrier: Any) -> None:
    """Alice dials Carol, who poses her Bob's challenge and passes the proof on to him."""
    bob, alice = await listening(), await dialling()
    between = Between(carrier, bob)

    async def relay(near: RawEnd, far: RawEnd) -> None:
        await near.until(lambda: len(near.received) == ACT_ONE_BYTES)
        far.send(carrier.initiator(CAROL, BOB.public, near.received[1:33], far).act_one())
        await far.until(lambda: len(far.received) == ACT_TWO_BYTES)
        carol = Responder(CAROL, bytes(far.received[1:33]), carrier.certificate_hash)
        near.send(carol.act_two(near.take()))
        await near.until(lambda: len(near.received) == ACT_THREE_BYTES)
        far.send(bytes(near.received))
        await far.closed()

    port = await between.listen(relay)
    await alice.connect(CAROL.pubkey_hex, HOST, port)
    await asyncio.gather(*between.tasks)
    assert heard(bob).words == ["refused"]
    assert "ACT3_BAD_SIGNATURE" in str(heard(bob).refusals[0])
    await all_of(bob.stop(), alice.stop())


# --- older versions, and what is no TLS -------------------------------------------------------------------------------


@aio
async def test_a_dialler_of_an_older_version_is_refused(carrier: Any) -> None:
    bob = await listening()
    context = client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    end = _RawTls(await raw_tcp(bob.port), context, listens=False)
    await end.closed()
    assert not end.ready
    await heard(bob).hears("refused")
    assert isinstance(heard(bob).refusals[0], AuthenticationError)
    await bob.stop()


@aio
async def test_a_listener_of_an_older_version_is_refused(carrier: Any) -> None:
    context = listener_context()[0]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ends: list[_RawTls] = []
    port = await super(type(carrier), carrier).raw_listen(lambda end: ends.append(_RawTls(end, context, listens=True)))
    alice = await dialling()
    with pytest.raises(AuthenticationError, match="closed during the handshake"):
        await alice.connect(BOB.pubkey_hex, HOST, port)
    assert not ends[0].ready
    assert alice.slots.outbound == 0
    await alice.stop()


@aio
async def test_noise_and_tls_refuse_each_other(carrier: Any) -> None:
    """Plaintext and downgrades do not exist: each port speaks one thing."""
    limits = Limits(act_one_timeout_s=1)
    tls, noise = await listening(limits=limits), TcpTransport(BOB, Recorder(), HOST, limits=limits)
    await noise.start()
    by_tls, by_noise = await dialling(limits), TcpTransport(ALICE, Recorder(), limits=limits)
    await by_noise.start()
    for dialler, listener in ((by_tls, noise), (by_noise, tls)):
        with pytest.raises((AuthenticationError, Timeout)):
            await dialler.connect(BOB.pubkey_hex, HOST, listener.port)
    assert "connected" not in heard(tls).words + heard(noise).words
    await all_of(tls.stop(), noise.stop(), by_tls.stop(), by_noise.stop())


# --- silence inside TLS -----------------------------------------------------------------------------------------------

HELLO = bytes.fromhex("1603010200010001fc0303")
"""How a ClientHello begins."""


@pytest.mark.parametrize("said", [b"", HELLO[:1], HELLO], ids=["nothing", "a byte", "half a hello"])
@aio
async def test_whoever_stalls_inside_tls_has_the_time_of_act_one_and_its_slot(carrier: Any, said: bytes) -> None:
    bob = await listening(limits=SHORT)
    end = await raw_tcp(bob.port)
    end.send(said)
    lobby = bob._listener.lobby
    while not (len(lobby) == 1 if not said else bob.slots.half_open):
        await turns(1)
    assert (len(bob.slots.inbound) + len(lobby), bob.slots.prefixes + lobby.prefixes) == (1, 1)
    await heard(bob).hears("refused")
    await end.closed()
    assert isinstance(heard(bob).refusals[0], Timeout)
    assert "within 0.3 s" in str(heard(bob).refusals[0])
    assert (len(bob.slots.inbound), len(bob.slots.half_open), bob.slots.prefixes, len(lobby)) == (0, 0, 0, 0)
    assert end.received == b""
    await bob.stop()


@aio
async def test_a_stalled_dialler_fills_its_prefix_and_no_more(carrier: Any) -> None:
    bob = await listening(limits=Limits(half_open_per_prefix=2, act_one_timeout_s=60, handshake_timeout_s=60))
    ends = [await raw_tcp(bob.port) for _ in range(3)]
    await ends[2].closed()
    assert (len(bob._listener.lobby), heard(bob).words) == (2, ["refused"])
    async with asyncio.timeout(2):
        await bob.stop()  # and it waits for nobody's hello
    for end in ends:
        await end.closed()


@aio
async def test_what_tls_itself_costs_is_counted_before_it_is_spent(carrier: Any) -> None:
    """A byte is enough to begin TLS: without this, whoever sends one takes half-open slots as fast as it connects."""
    limits = Limits(
        handshakes_share=1e-9, handshakes_burst_s=2 * TLS_HANDSHAKE_COST_S, half_open_per_prefix=16,
        prefix_burst_handshakes=16, act_one_timeout_s=60,
    )  # fmt: skip
    bob = await listening(limits=limits)
    for _ in range(8):
        (await raw_tcp(bob.port)).send(HELLO[:1])
    while len(bob._listener.lobby) + len(bob.slots.half_open) < 8:
        await turns(1)
    await turns()
    assert 1 <= len(bob.slots.half_open) <= 2
    assert bob._listener.lobby.anybody_spoke
    await bob.stop()


@aio
async def test_a_listener_that_stalls_inside_tls_is_a_timeout(carrier: Any) -> None:
    accepted: list[RawEnd] = []
    port = await super(type(carrier), carrier).raw_listen(accepted.append)
    alice = await dialling(SHORT)
    with pytest.raises(Timeout, match=r"no handshake with .* within 0\.3 s"):
        await alice.connect(BOB.pubkey_hex, HOST, port)
    await accepted[0].closed()
    assert alice.slots.outbound == 0
    await alice.stop()


# --- what can be seen -------------------------------------------------------------------------------------------------

FAILING: dict[str, Callable[[Initiator], bytes]] = {
    "another key": lambda _: Initiator(ALICE, CAROL.public, secret("n"), secret("c")).act_one(),
    "another certificate": lambda _: Initiator(ALICE, BOB.public, secret("n"), secret("c")).act_one(),
    "another version": lambda initiator: b"\1" + initiator.act_one()[1:],
    "HTTP": lambda _: b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n",
}


@aio
async def test_failures_look_alike_from_outside_and_say_nothing(carrier: Any) -> None:
    bob = await listening()
    seen = set()
    for count, make in enumerate(FAILING.values(), start=1):
        end = await carrier.raw_dial(bob)
        below = len(end.below.take())
        end.send(make(carrier.initiator(ALICE, BOB.public, secret("n"), end)))
        await end.closed()
        await heard(bob).hears("refused", count)
        seen.add((bytes(end.received), below, bytes(end.below.received)))
    assert seen == {(b"", 0, b"")}, "not even TLS says goodbye"
    assert len({str(error).partition("(")[0] for error in heard(bob).refusals}) == 1
    await bob.stop()


def test_a_certificate_names_nobody_and_not_the_time() -> None:
    (_, one), (_, other) = certificate(), certificate()
    made = [x509.load_der_x509_certificate(der) for der in (one, other)]
    assert one != other
    for each in made:
        assert (len(each.subject), len(each.issuer), len(each.extensions)) == (0, 0, 0)
    assert made[0].not_valid_before_utc == made[1].not_valid_before_utc
    assert made[0].serial_number != made[1].serial_number


def test_contexts_have_tls_1_3_only_and_no_tickets() -> None:
    listener, _ = listener_context()
    for context in (listener, client_context()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert listener.num_tickets == 0, "a resumed session would show no certificate"


def test_where_there_is_no_memory_file_the_key_is_read_from_a_folder_that_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    listener_context()
    assert list(tmp_path.iterdir()) == []


@aio
async def test_a_link_says_that_it_goes_by_tls_and_the_names_dialled_are_not_sent(carrier: Any) -> None:
    bob, alice = await listening(), await dialling()
    names: list[str | None] = []
    assert bob._listens_with is not None
    bob._listens_with.sni_callback = lambda stream, name, context: names.append(name)
    link = await alice.connect(BOB.pubkey_hex, "localhost", bob.port)
    await heard(bob).hears("connected")
    assert link.path == heard(bob).connections[0].path == Path(Rank.LAN, "tls")
    stream: Any = heard(bob).connections[0]
    assert names == [None]
    assert stream._stream.get_extra_info("ssl_object").version() == "TLSv1.3"
    await all_of(alice.stop(), bob.stop())


@aio
async def test_a_dial_by_tls_takes_the_way_out_that_it_is_told(carrier: Any) -> None:
    """Through a proxy, too: nothing is dialled or looked up here."""
    asked: list[tuple[str, int, bytes]] = []

    class Proxy:
        async def open_socket(self, host: str, port: int, *, isolation: bytes = b"") -> socket.socket:
            asked.append((host, port, isolation))
            made = socket.create_connection((HOST, bob.port))
            made.setblocking(False)
            return made

    bob = await listening()
    alice = TlsTransport(ALICE, Recorder(), route=Route(Proxy(), everything=True))
    await alice.start()
    link = await alice.connect(BOB.pubkey_hex, "bob.invalid", 443)
    assert asked == [("bob.invalid", 443, BOB.pubkey)]
    assert link.path == Path(Rank.PROXIED, "tls")
    await all_of(alice.stop(), bob.stop())
