"""Ceremonies and messages by files alone: nodes that no link ever joins, and bundles that are carried between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from services import cosigner

from musignet.crypto.schnorr import PublicKey
from musignet.errors import AuthenticationError, InvalidMessage, LocalError, PeerNotFound, SerializationError
from musignet.limits import KIB, NONCE_TTL_MAX_S
from musignet.net.mailing import Carried
from musignet.net.service import NetworkService
from musignet.net.transport import MemoryNetwork, MemoryTransport
from musignet.net.transport.carried import CarriedLink
from musignet.node.effects import Fault, News, SessionNews
from musignet.node.peers import PeerInfo
from musignet.signing.effects import End, Outcome, Progress
from musignet.signing.states import State
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, MessageType
from musignet.wire.sealed import Bundle, open_untrusted, seal
from support.ceremony import account, identity, signing_group
from support.wallet import MEMBERS, psbt

GROUP = signing_group()
ONCE = bytes(range(1, 33))
FAR = 4e12


class Away:
    """One member whose node has no network at all, or is on `plugged`."""

    def __init__(
        self, name: str, folder: Path, ttl_s: float = NONCE_TTL_MAX_S, *, plugged: MemoryNetwork | None = None
    ):
        self.name, self._folder, self._ttl_s = name, folder / name, ttl_s
        self._network = plugged
        self.heard: list[bytes] = []
        self.outcomes: list[Outcome] = []
        self.faults: list[Fault] = []
        self.moved = asyncio.Event()
        self.progress: Progress | None = None
        self._make()

    def _make(self) -> None:
        network, host = self._network or MemoryNetwork(), self.name if self._network else ""
        self.service = cosigner(self.name, network, self._folder.parent, self._told, host=host)

    def _heard(self, message: Message, _: object) -> None:
        self.heard.append(message.payload)
        self.handled.set()

    def _told(self, news: News) -> None:
        if isinstance(news, SessionNews) and isinstance(news.news, Outcome):
            self.outcomes.append(news.news)
        elif isinstance(news, SessionNews) and isinstance(news.news, Progress):
            self.progress = news.news
            self.moved.set()
        elif isinstance(news, Fault):
            self.faults.append(news)

    async def start(self) -> None:
        self.handled = asyncio.Event()
        await self.service.start(self._heard)
        for other in MEMBERS:
            if other != self.name:
                self.service.add_peer(PeerInfo(id=other, pubkey_hex=identity(other).pubkey_hex))
        self.service.cosign(account(self.name, GROUP, nonce_ttl_s=self._ttl_s))

    async def restart(self) -> None:
        await self.service.stop()
        self._make()
        await self.start()

    @property
    def ends(self) -> list[End]:
        return [one.end for one in self.outcomes]

    async def reaches(self, state: State, *waited_for: str) -> None:
        """Return once its session is in a state, and waits for these alone where any are named."""
        keys = {identity(name).pubkey for name in waited_for}
        while (
            self.progress is None or self.progress.state is not state or (keys and {*self.progress.waiting_for} != keys)
        ):
            self.moved.clear()
            await asyncio.wait_for(self.moved.wait(), 10)


def on(network: MemoryNetwork) -> partial[MemoryTransport]:
    return partial(MemoryTransport, network=network)


@asynccontextmanager
async def away(folder: Path, *names: str, ttl_s: float = NONCE_TTL_MAX_S) -> AsyncIterator[tuple[Away, ...]]:
    made = tuple(Away(name, folder, ttl_s) for name in names)
    for one in made:
        await one.start()
    try:
        yield made
    finally:
        for one in made:
            await one.service.stop()


async def carry(sender: Away, to: Away) -> Carried:
    """Take a bundle from one to the other, through a file."""
    file = sender._folder / f"for-{to.name}"
    file.write_bytes((await sender.service.export_mail(to.name)).sealed)
    return to.service.import_mail(file.read_bytes())


async def round(*everybody: Away) -> None:
    for sender in everybody:
        for to in everybody:
            if sender is not to:
                await carry(sender, to)


def chat(text: str) -> Message:
    return Message(MessageType.CHAT, "x", text.encode())


def test_a_ceremony_by_files_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with away(tmp_path, *MEMBERS) as everybody:
            session = await everybody[0].service.propose(GROUP.id, psbt().serialize())
            for _ in range(4):
                await round(*everybody)
            assert [one.ends for one in everybody] == [[End.COMPLETED]] * 3
            assert {one.outcomes[0].session for one in everybody} == {session}
            assert len({one.outcomes[0].transaction.raw for one in everybody if one.outcomes[0].transaction}) == 1
            assert not any(one.service._driver.node.book.get(identity(name).pubkey).live
                           for one in everybody for name in MEMBERS if name != one.name)  # fmt: skip

    asyncio.run(main())


def test_whoever_has_all_nonces_makes_theirs_and_signs_in_one_step(tmp_path: Path) -> None:
    """Two are online, and the third is fetched from a safe: one answer to each of them, and it can finish by itself."""

    async def main() -> None:
        network = MemoryNetwork()
        alice, bob = (Away(name, tmp_path, plugged=network) for name in ("alice", "bob"))
        carol = Away("carol", tmp_path)
        for one in (alice, bob, carol):
            await one.start()
        try:
            alice.service.add_peer(bob.service.info)
            await alice.service.connect_to_peer("bob")
            await alice.service.propose(GROUP.id, psbt().serialize())
            for one in (alice, bob):
                await one.reaches(State.APPROVING, "carol")
                await carry(one, carol)
            brought = [(await carry(carol, one)).messages for one in (alice, bob)]
            assert all({"approval", "public_nonce"} <= one.keys() for one in brought), brought
            for one in (alice, bob):
                await one.reaches(State.ROUND_2)
            brought = [(await carry(one, carol)).messages for one in (alice, bob)]
            assert all({"public_nonce", "partial_signature"} <= one.keys() for one in brought), brought
            assert carol.ends == [End.COMPLETED]
            assert alice.ends == bob.ends == []
            for one in (alice, bob):
                await carry(carol, one)
            assert alice.ends == bob.ends == [End.COMPLETED]
        finally:
            for one in (alice, bob, carol):
                await one.service.stop()

    asyncio.run(main())


def test_a_node_that_restarts_in_between_costs_another_attempt_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with away(tmp_path, *MEMBERS) as everybody:
            await everybody[0].service.propose(GROUP.id, psbt().serialize())
            await round(*everybody)
            await everybody[1].restart()
            for _ in range(5):
                await round(*everybody)
            assert [one.ends[-1] for one in everybody] == [End.COMPLETED] * 3

    asyncio.run(main())


def test_without_the_opt_in_nobody_signs_and_nobody_is_blamed(tmp_path: Path) -> None:
    async def main() -> None:
        async with away(tmp_path, *MEMBERS, ttl_s=1e-6) as everybody:
            await everybody[0].service.propose(GROUP.id, psbt().serialize())
            for _ in range(3):
                await round(*everybody)
            assert [one.ends for one in everybody] == [[]] * 3

    asyncio.run(main())


def test_a_durable_message_is_carried_until_it_is_acknowledged_and_handed_over_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with away(tmp_path, "alice", "bob") as (alice, bob):
            await alice.service.send_message_to("bob", chat("hello"))
            first = await alice.service.export_mail("bob")
            assert (first.messages, first.acknowledged, first.left) == (1, 0, 0)
            again = await alice.service.export_mail("bob")
            assert again.messages == 1
            for sealed in (first.sealed, again.sealed, first.sealed):
                brought = bob.service.import_mail(sealed)
                assert (brought.messages, brought.fault) == ({"chat": 1}, "")
            await bob.handled.wait()
            back = await bob.service.export_mail("alice")
            assert bob.heard == [b"hello"]
            assert alice.service.import_mail(back.sealed).acknowledged == 1
            assert (await alice.service.export_mail("bob")).messages == 0

    asyncio.run(main())


def test_what_waited_survives_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with away(tmp_path, "alice", "bob") as (alice, bob):
            await alice.service.send_message_to("bob", chat("hello"))
            await alice.restart()
            assert (await carry(alice, bob)).messages == {"chat": 1}

    asyncio.run(main())


def bundle(*envelopes: bytes, end_ms: float = FAR, chain: Chain = Chain.REGTEST) -> Bundle:
    return Bundle(chain, int(end_ms), (), envelopes)


def sealed(content: Bundle, sender: str = "alice", to: str = "bob") -> bytes:
    return seal(identity(sender), PublicKey(identity(to).pubkey), content, ONCE)


def signed(sender: str, text: str, to: str = "bob", seq: int = 1) -> bytes:
    return chat(text).sign(identity(sender), to=identity(to).pubkey, chain=Chain.REGTEST, seq=seq, epoch=b"e" * 8).raw


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", SerializationError, "not a sealed bundle"),
        (bytes(KIB), AuthenticationError, "not sealed to this node"),
        (sealed(bundle(), to="carol"), AuthenticationError, "not sealed to this node"),
        (sealed(bundle(), sender="mallory"), AuthenticationError, "not a peer"),
        (sealed(bundle(end_ms=1)), InvalidMessage, "expired"),
        (sealed(bundle(chain=Chain.MAINNET)), InvalidMessage, "another Bitcoin network"),
    ],
)
def test_what_is_no_bundle_for_us_is_refused(tmp_path: Path, data: bytes, error: type[Exception], text: str) -> None:
    async def main() -> None:
        async with away(tmp_path, "bob") as (bob,):
            with pytest.raises(error, match=text):
                bob.service.import_mail(data)
            assert bob.heard == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("envelope", "text"),
    [
        (signed("carol", "as from alice"), "sender is not the channel's key"),
        (signed("alice", "to carol", to="carol"), "wrong recipient"),
        (signed("alice", "hello")[:-1] + b"\x00", "does not verify"),
        (b"garbage", "undecodable"),
    ],
)
def test_each_message_in_it_goes_through_the_checks_of_a_link(tmp_path: Path, envelope: bytes, text: str) -> None:
    async def main() -> None:
        async with away(tmp_path, "alice", "bob") as (alice, bob):
            hello = open_untrusted(bob.service.identity, (await alice.service.export_mail("bob")).sealed).bundle
            brought = bob.service.import_mail(sealed(bundle(*hello.envelopes, envelope, signed("alice", "behind"))))
            assert text in brought.fault
            assert text in str(bob.faults[0].error)
            await bob.service.export_mail("alice")  # the next bundle goes on a new pile
            assert bob.heard == []

    asyncio.run(main())


def test_what_a_stranger_or_an_unconfirmed_peer_would_get_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with away(tmp_path, "alice") as (alice,):
            with pytest.raises(PeerNotFound):
                await alice.service.export_mail("mallory")
            info = PeerInfo(id="dave", pubkey_hex=identity("dave").pubkey_hex)
            alice.service.add_peer(info, provisional=True)
            with pytest.raises(LocalError, match="nobody has confirmed"):
                await alice.service.export_mail("dave")

    asyncio.run(main())


def test_to_a_connected_peer_nothing_is_carried_and_the_link_takes_over(tmp_path: Path) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        made = [
            NetworkService(name, host=name, identity=identity(name), chain=Chain.REGTEST, transport=on(network))
            for name in ("alice", "bob")
        ]
        alice, bob = made
        async with alice, bob:
            alice.add_peer(bob.info)
            bob.add_peer(alice.info)
            carried = (await bob.export_mail("alice")).sealed
            assert alice.import_mail(carried).fault == ""
            await alice.connect_to_peer("bob")
            assert len(await alice.connected_peers()) == 1
            with pytest.raises(LocalError, match="is connected"):
                await alice.export_mail("bob")
            with pytest.raises(LocalError, match="is connected"):
                alice.import_mail(carried)

    asyncio.run(main())


def test_what_does_not_fit_waits_for_the_next_bundle() -> None:
    link = CarriedLink(1, PublicKey(identity("bob").pubkey))
    link.send(signed("alice", "hello"))
    messages = [signed("alice", "x" * 60_000, seq=number) for number in range(40)]
    for one in messages:
        link.send(one)
    envelopes, left = link.envelopes()
    assert 10 < left < 30
    sealed(bundle(*envelopes))
    link.acknowledged(b"".join(Message.from_bytes(one).id for one in envelopes[1:]))
    rest, left = link.envelopes()
    assert (rest[0], left) == (envelopes[0], max(0, 40 - 2 * (len(envelopes) - 1)))
    assert (*envelopes[1:], *rest[1:]) == tuple(messages[: len(envelopes) + len(rest) - 2])


def test_acknowledgements_are_bounded() -> None:
    link = CarriedLink(1, PublicKey(identity("bob").pubkey))
    for number in range(5000):
        link.acknowledge(number.to_bytes(16, "big"))
    assert len(link.acks) == 4096
    assert list(link.acks)[-1] == (4999).to_bytes(16, "big")
