"""Links through a hole, on this machine's loopback: offers and answers are handed over in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

pytest.importorskip("aioice", reason="needs the extra `nat`")
pytest.importorskip("aioquic", reason="needs the extra `nat`")

from aioice import stun
from endpoints import Recorder, aio, all_of, passed, turns

from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, ConnectionError, PeerNotFound, SerializationError, Timeout
from musignet.limits import (
    ICE_ATTEMPTS_MAX,
    ICE_EARLY_DATAGRAMS_MAX,
    ICE_PAIRS_MAX,
    ICE_PER_HOST_MAX,
    KIB,
    MIB,
    QUIC_WINDOW_BYTES,
    Limits,
)
from musignet.net.nat import Servers, TurnServer
from musignet.net.transport import Transport
from musignet.net.transport.ice import Hole
from musignet.net.transport.punched import PunchedTransport, _machine, _own, _QuicLink
from musignet.node.addresses import Path, Rank
from musignet.wire.candidates import Candidate, Kind, Role, Signal
from musignet.wire.messages import CloseCode, Priority
from support.keys import ALICE, BOB, CAROL

HERE = ("127.0.0.1/8",)
"""Loopback is no address of ours to `_machine`: a test says that it is."""
SHORT = Limits(ice_gather_s=0.2, ice_answer_s=2.0, ice_checks_s=0.3, quic_handshake_s=0.3, ice_offers_pause_s=0.05,
               stop_timeout_s=0.2, ice_close_s=0.2)  # fmt: skip
PATIENT = replace(SHORT, ice_answer_s=5.0, ice_checks_s=5.0, quic_handshake_s=5.0)
"""For what comes about: on a busy machine a path that opens takes longer than the time of one that never does."""


class Switchboard:
    """Hands offers and answers over, in the next turn of the loop. `misroute` sends one peer's to another."""

    def __init__(self) -> None:
        self.ends: dict[str, End] = {}
        self.passed: list[tuple[str, str, Signal]] = []
        self.misroute: dict[str, str] = {}
        self.silent = False
        self.alter: Callable[[Signal], Signal] = lambda signal: signal

    def send(self, source: str, to: str, data: bytes) -> None:
        signal = self.alter(Signal.parse_untrusted(data))
        self.passed.append((source, to, signal))
        end = self.ends.get(self.misroute.get(to, to))
        if end is None:
            raise PeerNotFound("no link to that peer")
        if not self.silent:
            source = self.misroute.get(source, source)
            asyncio.get_running_loop().call_soon(end.transport.signalled, source, signal.encode())


class End:
    """A transport, its sink, and its place at the switchboard."""

    def __init__(self, board: Switchboard, identity: Identity, limits: Limits, **options: Any) -> None:
        self.sink = Recorder()
        self.key = identity.pubkey_hex
        self.transport = PunchedTransport(
            identity, self.sink, signal=lambda to, data: board.send(self.key, to, data), limits=limits,
            **{"interfaces": HERE, **options},
        )  # fmt: skip
        board.ends[self.key] = self

    @property
    def link(self) -> _QuicLink:
        return cast(_QuicLink, self.sink.connections[-1])

    def free(self) -> bool:
        mine = self.transport
        slots = mine.slots
        counts = (len(slots.inbound), slots.outbound, len(slots.half_open), slots.prefixes)
        return (
            counts == (0, 0, 0, 0)
            and mine._budget.held_bytes == 0
            and not (mine._asked or mine._answering or mine._burials)
        )


@asynccontextmanager
async def ends(*identities: Identity, limits: Limits = PATIENT, **options: Any) -> AsyncIterator[tuple[Any, ...]]:
    """Return a switchboard and started transports. Afterwards all are stopped, and have given everything back."""
    board = Switchboard()
    made = [End(board, who, limits, **options) for who in identities]
    for end in made:
        await end.transport.start()
    try:
        yield (board, *made)
    finally:
        await all_of(*(end.transport.stop() for end in made))
    await turns()
    for end in made:
        assert end.free()


@asynccontextmanager
async def linked(limits: Limits = PATIENT, **options: Any) -> AsyncIterator[tuple[End, End]]:
    async with ends(ALICE, BOB, limits=limits, **options) as (_, alice, bob):
        await alice.transport.connect(bob.key)
        await bob.sink.hears("connected")
        yield alice, bob


# --- a link like any other --------------------------------------------------------------------------------------------


@aio
async def test_both_ends_hear_the_life_of_a_link_in_order() -> None:
    async with linked() as (alice, bob):
        near, far = alice.link, bob.link
        assert isinstance(alice.transport, Transport)
        assert (near.outbound, far.outbound) == (True, False)
        assert (near.peer.compressed, far.peer.compressed) == (BOB.pubkey, ALICE.pubkey)
        assert near.transcript == far.transcript != b""
        assert near.address.startswith("127.0.0.1:")
        assert near.path == far.path == Path(Rank.PUNCHED, "ice")
        assert alice.transport.connected_peers() == [bob.key]
        await alice.transport.send(bob.key, b"one")
        await alice.transport.send(bob.key, b"two")
        assert await bob.transport.broadcast(b"back") == 1
        await bob.sink.hears("received", 2)
        far.acknowledge(b"i" * 16)
        far.flush()
        await alice.sink.hears("acknowledged")
        await alice.sink.hears("received")
        await alice.transport.disconnect(bob.key)
        await bob.sink.hears("closed")
        await alice.sink.hears("closed")
        assert bob.sink.words == ["connected", "received", "received", "closed"]
        assert (alice.sink.errors, bob.sink.errors) == ([None], [None])
        assert bob.sink.goodbyes[0] is not None
        assert bob.sink.envelopes == [b"one", b"two"]


@aio
async def test_behind_a_clogged_reader_little_is_handed_on_and_the_urgent_overtakes() -> None:
    async with linked() as (alice, bob):
        bob.link.pause_reading()
        for _ in range(6):
            alice.link.send(bytes(MIB))
            alice.link.flush()
        await alice.sink.until(lambda: alice.link._clogged)
        await passed(0.3)
        stream = alice.link._stream
        assert stream is not None
        assert stream._unsent() <= 2 * alice.transport.limits.write_chunk_bytes
        assert bob.link._stream is not None
        assert len(bob.link._stream._unread) <= QUIC_WINDOW_BYTES
        alice.link.send(b"urgent", Priority.ROUND_2)
        bob.link.resume_reading()
        await bob.sink.hears("received", 7)
        assert bob.sink.envelopes.index(b"urgent") < 3


@aio
async def test_stopping_says_goodbye_and_gives_everything_back() -> None:
    async with linked() as (alice, bob):
        await alice.transport.stop()
        await bob.sink.hears("closed")
        assert [end and end.code for end in bob.sink.goodbyes] == [CloseCode.GOING_AWAY]


@aio
async def test_a_path_that_ends_under_a_link_is_a_connection_error() -> None:
    async with linked() as (alice, bob):
        hole = alice.link._hole
        assert hole is not None
        await hole.close()
        await alice.sink.hears("closed")
        assert isinstance(alice.sink.errors[0], ConnectionError)
        bob.link.close()


@aio
async def test_both_may_offer_at_once() -> None:
    async with ends(ALICE, BOB) as (_, alice, bob):
        await asyncio.gather(alice.transport.connect(bob.key), bob.transport.connect(alice.key))
        await alice.sink.hears("connected", 2)
        await bob.sink.hears("connected", 2)


# --- what does not become a link --------------------------------------------------------------------------------------


@aio
async def test_an_offer_that_nobody_answers_ends_in_time() -> None:
    async with ends(ALICE, BOB, limits=replace(SHORT, ice_answer_s=0.1)) as (board, alice, bob):
        board.silent = True
        with pytest.raises(Timeout, match="no answer to our offer"):
            await alice.transport.connect(bob.key)


@aio
async def test_without_a_link_for_the_offer_there_is_no_dial() -> None:
    async with ends(ALICE) as (_, alice):
        with pytest.raises(PeerNotFound):
            await alice.transport.connect(BOB.pubkey_hex)


@aio
async def test_a_refusal_ends_the_dial_at_once() -> None:
    async with ends(ALICE, BOB, limits=replace(PATIENT, ice_offers_pause_s=60, ice_answer_s=60)) as (_, alice, bob):
        await alice.transport.connect(bob.key)
        with pytest.raises(ConnectionError, match="does not want to be reached"):
            await alice.transport.connect(bob.key)
        assert "every 60 s" in str(bob.sink.refusals[0])


@aio
async def test_no_path_ends_in_time_on_both_sides() -> None:
    def elsewhere(signal: Signal) -> Signal:
        return replace_candidates(signal, Candidate.of(Kind.HOST, "192.168.77.1", 4000))

    async with ends(ALICE, BOB, limits=SHORT) as (board, alice, bob):
        board.alter = elsewhere
        with pytest.raises((Timeout, ConnectionError), match="no path opened"):
            await alice.transport.connect(bob.key)
        await bob.sink.hears("refused")
        assert "no path opened" in str(bob.sink.refusals[0])


@aio
async def test_another_key_at_the_end_of_the_hole_is_no_link() -> None:
    async with ends(ALICE, BOB) as (board, alice, bob):
        board.misroute = {CAROL.pubkey_hex: bob.key, bob.key: CAROL.pubkey_hex}  # bob poses as carol
        board.ends[CAROL.pubkey_hex] = alice
        with pytest.raises(AuthenticationError):
            await alice.transport.connect(CAROL.pubkey_hex)
        assert not bob.sink.connections
        assert not alice.sink.connections


@aio
async def test_an_offer_of_one_peer_carries_no_link_of_another() -> None:
    async with ends(ALICE, BOB) as (board, alice, bob):
        board.misroute = {alice.key: CAROL.pubkey_hex}  # the offer is said to be carol's
        board.ends[CAROL.pubkey_hex] = alice
        await all_of(alice.transport.connect(bob.key))  # open for as long as act three is on its way
        await bob.sink.hears("refused")
        assert not bob.sink.connections
        assert "another key" in str(bob.sink.refusals[0])


@aio
async def test_a_cancelled_dial_leaks_nothing_at_whatever_turn() -> None:
    async with ends(ALICE, BOB, limits=replace(SHORT, ice_offers_pause_s=0)) as (_, alice, bob):
        for count in (0, 1, 2, 3, 5, 8, 13, 21, 34):
            dial = asyncio.create_task(alice.transport.connect(bob.key))
            await turns(count)
            dial.cancel()
            await all_of(dial)
            while bob.transport._answering:
                await passed(0.01)


@aio
async def test_stopping_while_dialling_ends_the_dial() -> None:
    async with ends(ALICE, BOB, limits=replace(SHORT, ice_answer_s=60)) as (board, alice, bob):
        board.silent = True
        dial = asyncio.create_task(alice.transport.connect(bob.key))
        while not board.passed:
            await turns(1)
        await alice.transport.stop()
        assert isinstance((await all_of(dial))[0], Exception)


@aio
async def test_only_so_many_offers_are_answered_at_once() -> None:
    async with ends(BOB, limits=replace(SHORT, ice_checks_s=60)) as (board, bob):
        offer = Signal(Role.OFFER, bytes(16), "abcd", "p" * 22, (Candidate.of(Kind.HOST, "127.0.0.1", 4000),))
        strangers = [Identity.generate().pubkey_hex for _ in range(ICE_ATTEMPTS_MAX + 3)]
        for stranger in strangers:
            board.ends[stranger] = bob
            bob.transport.signalled(stranger, offer.encode())
        assert len(bob.transport._answering) == ICE_ATTEMPTS_MAX
        assert [str(error).count("too many offers") for error in bob.sink.refusals] == [1, 1, 1]
        board.silent = True


@aio
async def test_an_answer_to_nothing_is_dropped_and_junk_is_the_senders_fault() -> None:
    async with ends(BOB) as (_, bob):
        answer = Signal(Role.ANSWER, bytes(16), "abcd", "p" * 22, ())
        bob.transport.signalled(ALICE.pubkey_hex, answer.encode())
        with pytest.raises(SerializationError):
            bob.transport.signalled(ALICE.pubkey_hex, b"junk")
        assert not bob.sink.heard


# --- servers that do not help -----------------------------------------------------------------------------------------


@aio
async def test_servers_that_stall_cost_the_time_of_gathering_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(tcp.getsockname())  # the one port, for both
        place = udp.getsockname()
        servers = Servers(stun=(place,), turn=(TurnServer(*place, "u", "p"),))
        async with (
            asyncio.timeout(3),
            linked(replace(PATIENT, ice_turn_tcp_after_s=0.05), servers=servers) as (near, far),
        ):
            assert not near.link.relayed
            await near.transport.send(far.key, b"through")
            await far.sink.hears("received")
        udp.setblocking(False)
        assert udp.recv(2000)
        tcp.settimeout(1)
        with tcp.accept()[0] as tried:
            assert tried.recv(2000)  # where UDP says nothing, TCP was tried


@aio
async def test_a_server_that_is_not_there_or_has_no_address_is_left_out() -> None:
    servers = Servers(stun=(("127.0.0.1", 9), ("no.such.host.invalid", 3478)), turn=(TurnServer("127.0.0.1", 9),))
    async with linked(servers=servers) as (near, _):
        assert not near.link.relayed


# --- candidates that point at third parties ---------------------------------------------------------------------------


def replace_candidates(signal: Signal, *candidates: Candidate) -> Signal:
    return Signal(signal.role, signal.attempt, signal.name, signal.password, candidates)


def victims(count: int, host: str = "127.0.0.1") -> list[socket.socket]:
    made = []
    for _ in range(count):
        one = socket.socket(type=socket.SOCK_DGRAM)
        one.bind((host, 0))
        one.setblocking(False)
        made.append(one)
    return made


def heard(one: socket.socket) -> int:
    count = 0
    with one:
        while True:
            try:
                one.recv(2000)
            except BlockingIOError:
                return count
            count += 1


async def _aimed(alice: End, targets: list[socket.socket]) -> None:
    """Let an offer name `targets`, and wait until the checks are over."""
    candidates = tuple(Candidate.of(Kind.SRFLX, *target.getsockname()) for target in targets)
    offer = Signal(Role.OFFER, bytes(16), "abcd", "p" * 22, candidates)
    alice.transport.signalled(BOB.pubkey_hex, offer.encode())
    await alice.sink.hears("refused")


@aio
async def test_a_third_party_hears_a_handful_of_checks_however_often_it_is_named() -> None:
    targets = victims(16)
    async with ends(ALICE, BOB, limits=SHORT) as (board, alice, _):
        board.silent = True
        await _aimed(alice, targets)
    counts = [heard(target) for target in targets]
    assert counts.count(0) == len(targets) - ICE_PER_HOST_MAX
    assert 0 < sum(counts) <= 2 * ICE_PER_HOST_MAX  # one check each within 0.3 s, and one repeated


@aio
async def test_nobody_in_a_private_place_that_is_not_ours_hears_anything() -> None:
    targets = victims(4, "127.0.0.2")
    async with ends(ALICE, BOB, limits=SHORT, interfaces=("127.0.0.1/32",)) as (board, alice, _):
        board.silent = True
        await _aimed(alice, targets)
    assert [heard(target) for target in targets] == [0, 0, 0, 0]


def _check(hole: Hole, source: socket.socket, to: Any, *, password: str, priority: int | None = 1) -> None:
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{hole.local_username}:abcd"
    if priority is not None:
        request.attributes["PRIORITY"] = priority
    request.attributes["ICE-CONTROLLING"] = 1
    request.add_message_integrity(password.encode())
    source.sendto(bytes(request), to)


async def _hole(networks: tuple[str, ...] = HERE) -> tuple[Hole, Candidate]:
    sockets, ours = _own(networks)
    hole = Hole(False, Servers(), sockets, ours, SHORT)
    (candidate,) = await hole.gather()
    return hole, candidate


@aio
async def test_checks_from_ever_new_addresses_teach_a_bounded_number() -> None:
    hole, candidate = await _hole()
    to = ("127.0.0.1", candidate.port)
    strangers = victims(40) + [one for n in range(2, 30) for one in victims(4, f"127.0.0.{n}")]
    punch = asyncio.create_task(hole.punch(Signal(Role.OFFER, bytes(16), "abcd", "p" * 22, ())))
    await turns()
    for stranger in strangers:
        _check(hole, stranger, to, password=hole.local_password)
        await turns(2)
    assert sum(one.host == "127.0.0.1" for one in hole._remote_candidates) == ICE_PER_HOST_MAX
    assert len(hole._check_list) == ICE_PAIRS_MAX
    assert len(hole._remote_candidates) == ICE_PAIRS_MAX
    await all_of(punch)
    await hole.close()
    for stranger in strangers:
        stranger.close()


@aio
async def test_a_check_without_the_password_or_without_its_parts_teaches_nothing() -> None:
    hole, candidate = await _hole()
    (stranger,) = victims(1)
    punch = asyncio.create_task(hole.punch(Signal(Role.OFFER, bytes(16), "abcd", "p" * 22, ())))
    await turns()
    _check(hole, stranger, ("127.0.0.1", candidate.port), password="q" * 22)
    _check(hole, stranger, ("127.0.0.1", candidate.port), password=hole.local_password, priority=None)
    for junk in (b"", b"\0" * 19, b"\0\1\0\0!\x12\xa4B" + bytes(12), b"\0\1\xff\xff!\x12\xa4B" + bytes(40)):
        stranger.sendto(junk, ("127.0.0.1", candidate.port))
    await passed(0.05)
    assert not hole._remote_candidates
    await all_of(punch)
    await hole.close()
    stranger.close()


@aio
async def test_strangers_datagrams_reach_no_stream_and_early_ones_are_few() -> None:
    hole, candidate = await _hole()
    (stranger,) = victims(1)
    to = ("127.0.0.1", candidate.port)
    stranger.sendto(b"\xc0 not QUIC", to)
    await passed(0.05)
    assert hole._early == []
    for _ in range(2 * ICE_EARLY_DATAGRAMS_MAX):
        hole.data_received(bytes(1200), 1)
    assert len(hole._early) == ICE_EARLY_DATAGRAMS_MAX
    await hole.close()
    stranger.close()


# --- our own addresses ------------------------------------------------------------------------------------------------


def test_loopback_is_no_address_of_this_machine_to_others() -> None:
    assert not [one for one in _machine() if one.startswith(("127.", "::1", "169.254.", "fe80:"))]


@aio
async def test_a_machine_without_a_network_says_so() -> None:
    async with ends(ALICE, BOB, interfaces=()) as (_, alice, bob):
        with pytest.raises(ConnectionError, match="no address to punch from"):
            await alice.transport.connect(bob.key)


@aio
async def test_an_offer_names_a_bounded_number_of_own_addresses() -> None:
    many = tuple(f"127.0.0.{n}/8" for n in range(1, 30))
    async with linked(interfaces=many) as (near, far):
        await near.transport.send(far.key, bytes(KIB))
        await far.sink.hears("received")
        hole = near.link._hole
        assert hole is not None
        assert len({one.host for one in hole.local_candidates}) == 4
