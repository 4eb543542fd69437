"""Foundings: two and three members, queues between them, and members who lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet import limits
from musignet.chain import Chain
from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, InvalidMessage, LocalError, NetworkError, PeerError, PeerNotFound
from musignet.signing import founding as module
from musignet.signing import founding_records as records
from musignet.signing.founding import (
    AskToConfirm,
    AskToJoin,
    Founded,
    Founding,
    FoundingEffect,
    FoundingEnded,
    Step,
    Tell,
    descriptor_of,
)
from musignet.signing.founding_records import (
    EndCode,
    FoundingEnd,
    FoundingKey,
    FoundingView,
    Proposal,
    Shape,
    SignedProposal,
    encode,
    possession_digest,
    possession_statement,
    propose,
)
from musignet.signing.foundings import Foundings
from musignet.signing.groupfile import GroupFile
from musignet.wire.codec import Record
from musignet.wire.envelope import Message, VerifiedMessage
from musignet.wire.messages import MessageType
from support.keys import ALICE, BOB, CAROL, GROUP_ORDER, secret
from support.wallet import xpub

NOW = 1_800_000_000.0
IDENTITIES = {"alice": ALICE, "bob": BOB, "carol": CAROL}
Change = Callable[["Member", bytes, Record], Iterable[Record]]


def account(name: str) -> tuple[Identity, str]:
    """Return the secret of an account, and its text with an origin."""
    return Identity.from_secret(secret(f"wallet {name}")), f"[d34db33f/87h/1h/0h]{xpub(f'wallet {name}')}"


class Member:
    """One member's device: what it was told to ask, and what it pinned."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.identity = world, name, IDENTITIES[name]
        self.key = self.identity.pubkey
        self.account = account(name)
        self.pinned: list[GroupFile] = []
        self.errors: list[NetworkError] = []
        self.refused: list[PeerError] = []
        self.asked: list[type] = []
        self.confirming: list[GroupFile] = []
        self.lie: Change = lambda member, to, record: (record,)
        self.restart()

    def restart(self) -> None:
        self.foundings = Foundings(
            self.identity, Chain.REGTEST, self.name, label_of=self.world.label_of,
            has=lambda group, member: any(one.group.id == group and member in one.group for one in self.pinned),
        )  # fmt: skip

    @property
    def one(self) -> Founding:
        (founding,) = self.foundings
        return founding

    def do(self, effects: list[FoundingEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                for to in effect.to:
                    for record in self.lie(self, to, effect.record):
                        self.world.send(self, to, effect.founding, kind_of(record), record)
            elif isinstance(effect, Founded):
                self.pinned.append(effect.group)
            elif isinstance(effect, FoundingEnded):
                self.errors.append(effect.error)
            else:
                self.asked.append(type(effect))
                if isinstance(effect, AskToConfirm):
                    self.confirming.append(effect.group)

    def possession(self, founding: bytes, text: str, by: Identity | None = None) -> bytes:
        return (by or self.account[0]).sign(possession_digest(possession_statement(founding, self.key, text)))

    def key_record(self, name: str, **changes: Any) -> FoundingKey:
        """Return a key of ours for the founding under way: another account's, proved or not."""
        signer, text = account(name)
        text = changes.get("text", text)
        proof = self.possession(self.one.id, text, changes.get("by", signer))
        return FoundingKey(self.one.proposal.signed, text, changes.get("proof", proof))

    def join(self, founding: Founding | None = None) -> None:
        founding = founding or self.one
        self.do(founding.join(self.account[1], self.possession(founding.id, self.account[1])))


class World:
    def __init__(self, *names: str) -> None:
        self.now = NOW
        self.labels = {IDENTITIES[name].pubkey: name for name in names}
        self.members = {name: Member(self, name) for name in names}
        self.by_key = {member.key: member for member in self.members.values()}
        self.queue: deque[tuple[Member, VerifiedMessage]] = deque()
        self.down: set[frozenset[bytes]] = set()
        self.seen: list[VerifiedMessage] = []

    def label_of(self, key: bytes) -> str | None:
        return self.labels.get(key)

    def send(self, sender: Member, to: bytes, session: bytes, kind: MessageType, record: Record) -> None:
        if frozenset((sender.key, to)) not in self.down:
            message = Message(kind, sender.name, encode(kind, record), session=session)
            self.queue.append((self.by_key[to], message.sign(sender.identity, chain=Chain.REGTEST).verify()))

    def deliver(self, member: Member, message: VerifiedMessage) -> None:
        self.seen.append(message)
        try:
            member.do(member.foundings.heard(message, self.now))
        except PeerError as error:
            member.refused.append(error)

    def run(self, steps: int = 10_000) -> None:
        while self.queue and steps:
            steps -= 1
            self.deliver(*self.queue.popleft())

    def up(self, a: Member, b: Member) -> None:
        self.down.discard(frozenset((a.key, b.key)))
        a.do(a.foundings.peer_up(b.key))
        b.do(b.foundings.peer_up(a.key))

    def __iter__(self) -> Any:
        return iter(self.members.values())


def kind_of(record: Record) -> MessageType:
    return {
        SignedProposal: MessageType.FOUNDING_PROPOSAL,
        FoundingKey: MessageType.FOUNDING_KEY,
        FoundingView: MessageType.FOUNDING_VIEW,
        FoundingEnd: MessageType.FOUNDING_END,
    }[type(record)]


def proposed(*names: str, shape: Shape = Shape.AGGREGATE, lie: Change | None = None) -> World:
    """Return a world in which the first member has proposed a group of all."""
    world = World(*(names or ("alice", "bob", "carol")))
    first, *others = world
    if lie is not None:
        first.lie = lie
    founding, effects = first.foundings.propose(
        "savings", [one.key for one in others], shape, sha256(b"random").digest(), world.now, 3600.0
    )
    assert founding is first.one
    first.do(effects)
    world.run()
    return world


def joined(*names: str, shape: Shape = Shape.AGGREGATE) -> World:
    world = proposed(*names, shape=shape)
    for member in world:
        member.join()
    world.run()
    return world


def steps(world: World) -> set[Step]:
    return {member.one.step for member in world}


# --- honest members ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("alice", "bob"), ("carol", "alice", "bob")])
@pytest.mark.parametrize("shape", Shape)
def test_everybody_computes_the_same_group_and_pins_it_once_all_have_confirmed(
    names: tuple[str, ...], shape: Shape
) -> None:
    world = proposed(*names, shape=shape)
    assert steps(world) == {Step.ASKED}
    for member in world:
        assert member.asked == [AskToJoin]
        member.join()
    assert {member.one.step for member in world} == {Step.COLLECTING}
    world.run()
    assert steps(world) == {Step.CONFIRMING}
    (group,) = {member.confirming[0].group.id for member in world}
    for member in world:
        assert not member.pinned
        member.do(member.one.confirm())
    world.run()
    assert steps(world) == {Step.FOUNDED}
    files = {member.pinned[0].encode() for member in world}
    assert len(files) == 1, "one file, byte for byte"
    read = GroupFile.parse_untrusted(files.pop())
    assert read.group.id == group
    assert set(read.labels.values()) == set(names)
    assert (")/<0;1>/*)" in str(read.group.wallet.descriptor)) is (shape is Shape.AGGREGATE)
    assert read.group.wallet.address(0, 0).startswith("bcrt1p")


def test_the_descriptor_is_the_same_whatever_the_order_and_the_origins() -> None:
    texts = [account(name)[1] for name in IDENTITIES]
    assert len({str(descriptor_of(order, Shape.EACH)) for order in (texts, texts[::-1])}) == 1


def test_who_is_waited_for_is_named() -> None:
    world = proposed()
    alice, bob, carol = world
    assert set(alice.one.waiting_for) == {BOB.pubkey, CAROL.pubkey}
    alice.join()
    bob.join()
    world.run()
    assert alice.one.waiting_for == (CAROL.pubkey,)
    carol.lie = lambda member, to, record: (
        () if isinstance(record, FoundingView) and not record.confirmed else (record,)
    )
    carol.join()
    world.run()
    assert alice.one.step is Step.COMPARING
    assert alice.one.waiting_for == (CAROL.pubkey,)
    world.up(alice, carol)
    carol.lie = lambda member, to, record: (record,)
    world.up(alice, carol)
    world.run()
    assert set(alice.one.waiting_for) == {BOB.pubkey, CAROL.pubkey}
    alice.do(alice.one.confirm())
    assert alice.one.step is Step.CONFIRMED
    world.now += 3600
    alice.do(alice.foundings.woken(world.now))
    assert "bob" in str(alice.errors[0])
    assert "carol" in str(alice.errors[0])
    assert not list(alice.foundings)
    assert alice.foundings.next_deadline() is None


def test_a_person_says_no() -> None:
    for late in (False, True):
        world = joined() if late else proposed()
        alice, bob, carol = world
        bob.do(bob.one.leave())
        world.run()
        assert steps(world) == {Step.ENDED}
        assert "bob" in str(alice.errors[0])
        assert "does not take part" in str(carol.errors[0])
        assert bob.one.leave() == []
        with pytest.raises(LocalError):
            alice.join()
        with pytest.raises(LocalError, match="nothing to confirm"):
            alice.one.confirm()


@pytest.mark.parametrize("when", ["proposal", "keys", "confirmations"])
def test_a_link_that_was_down_delays_and_loses_nothing(when: str) -> None:
    world = World("alice", "bob", "carol")
    alice, bob, carol = world
    pair = frozenset((ALICE.pubkey, CAROL.pubkey))
    if when == "proposal":
        world.down.add(pair)
    alice.do(alice.foundings.propose("savings", [BOB.pubkey, CAROL.pubkey], Shape.EACH, bytes(32), NOW, 60.0)[1])
    world.run()
    if when == "proposal":
        assert carol.asked == []
        alice.join()
        bob.join()
        world.run()
        assert carol.asked == [AskToJoin], "bob's key brings the proposal along"
    if when == "keys":
        world.down.add(pair)
    for member in world:
        if member.one.step is Step.ASKED:
            member.join()
    world.run()
    if when != "confirmations":
        assert alice.one.step is not Step.CONFIRMING
        world.up(alice, carol)
        world.run()
    assert steps(world) == {Step.CONFIRMING}
    if when == "confirmations":
        world.down.add(pair)
    for member in world:
        member.do(member.one.confirm())
    world.run()
    if when == "confirmations":
        assert bob.pinned
        assert not alice.pinned
        world.up(alice, carol)
        world.run()
    assert all(len(member.pinned) == 1 for member in world)


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("when", ["asked", "joined", "confirming"])
def test_a_member_who_restarts_in_the_middle_is_asked_again_and_it_goes_on(who: str, when: str) -> None:
    world = proposed() if when == "asked" else joined()
    if when == "joined":
        world = proposed()
        for member in world:
            if member.name != "carol":
                member.join()
        world.run()
    restarted = world.members[who]
    restarted.restart()
    for member in world:
        if member is not restarted:
            if member.one.step is Step.ASKED:
                member.join()
            world.up(member, restarted)
    world.run()
    restarted.join()
    world.run()
    assert steps(world) == {Step.CONFIRMING}
    for member in world:
        member.do(member.one.confirm())
    world.run()
    assert {member.pinned[0].group.id for member in world} == {world.members["carol"].pinned[0].group.id}


def test_who_has_it_already_and_forgot_the_founding_still_answers() -> None:
    """Alice founded it, restarted, and bob's device waits for her confirmation that was lost."""
    world = joined("alice", "bob")
    alice, bob = world
    bob.do(bob.one.confirm())
    world.run()
    alice.lie = lambda member, to, record: ()
    alice.do(alice.one.confirm())
    assert alice.pinned
    alice.lie = lambda member, to, record: (record,)
    alice.restart()
    assert not bob.pinned
    bob.do(bob.foundings.peer_up(alice.key)[1:])
    world.run()
    assert bob.pinned
    assert not list(alice.foundings)


def test_nobody_who_has_no_such_group_answers_for_it() -> None:
    world = joined("alice", "bob")
    alice, bob = world
    view = FoundingView(alice.confirming[0].group.id, (), False)
    alice.restart()
    world.send(bob, alice.key, alice_session := bytes(32), MessageType.FOUNDING_VIEW, view)
    world.run()
    assert not world.queue
    assert alice_session not in [one.id for one in alice.foundings]


# --- members who lie --------------------------------------------------------------------------------------------------


def test_another_key_to_each_is_found_before_anybody_is_asked_to_confirm() -> None:
    world = proposed()
    alice, bob, carol = world

    def two_keys(member: Member, to: bytes, record: Record) -> Iterable[Record]:
        if isinstance(record, FoundingKey) and to == carol.key:
            return (member.key_record("mallory"),)
        return (record,)

    bob.lie = two_keys
    for member in world:
        member.join()
    world.run()
    assert alice.one.step is carol.one.step is Step.ENDED
    assert not alice.confirming
    assert not carol.confirming
    texts = [str(error) for member in (alice, carol) for error in member.errors]
    assert all("bob" in text for text in texts)
    assert any("sent two, or" in text or "another key than the one sent" in text for text in texts)


def test_two_keys_to_one_are_found_at_once() -> None:
    world = proposed("alice", "bob")
    alice, bob = world
    bob.lie = lambda member, to, record: (
        (record, member.key_record("mallory")) if isinstance(record, FoundingKey) else (record,)
    )
    bob.join()
    world.run()
    assert "bob" in str(alice.errors[0])
    assert "two different keys" in str(alice.errors[0])


def test_another_name_to_each_founds_neither() -> None:
    """Each founding needs everybody's yes to the very same proposal: name, members, shape."""
    world = proposed()
    alice, bob, carol = world
    seats = {one.key: one.name for one in world}
    other = propose(
        ALICE, Chain.REGTEST, "spending", seats, shape=Shape.AGGREGATE, random=bytes(32), expires_at=NOW + 60
    )
    carol.restart()
    world.send(alice, carol.key, other.id, MessageType.FOUNDING_PROPOSAL, other.signed)
    world.run()
    assert carol.one.proposal.content.name == "spending"
    carol.join()
    bob.join()
    alice.join()
    world.run()
    names = {one.proposal.content.name for one in carol.foundings}
    assert names == {"savings", "spending"} == {one.proposal.content.name for one in bob.foundings}
    assert not any(member.confirming for member in world)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (lambda bob: bob.key_record("bob", by=BOB), "proof of possession"),
        (lambda bob: bob.key_record("alice", by=account("bob")[0]), "proof of possession"),
        (lambda bob: bob.key_record("bob", proof=bytes(64)), "proof of possession"),
        (lambda bob: bob.key_record("bob", text=str(xpub("wallet bob"))), "with its origin"),
        (lambda bob: bob.key_record("bob", text=account("bob")[1] + "/3"), "with its origin"),
        (lambda bob: bob.key_record("bob", text=BOB.pubkey_hex), "with its origin"),
        (lambda bob: bob.key_record("bob", text="no key"), "not a key"),
        (lambda bob: bob.key_record("bob", text="a),b(\u202e"), "not a key"),
        (lambda bob: bob.key_record("bob", text=account("bob")[1].replace("87h", "87'")), "with its origin"),
    ],
)
def test_a_key_without_its_proof_ends_it(record: Callable[[Member], Record], reason: str) -> None:
    world = proposed()
    alice, bob, _ = world
    bob.lie = lambda member, to, said: (record(member),) if isinstance(said, FoundingKey) else (said,)
    bob.join()
    world.run()
    assert reason in str(alice.errors[0])
    assert "bob" in str(alice.errors[0])
    assert alice.one.step is Step.ENDED


def test_a_proof_made_for_another_founding_or_member_does_not_hold() -> None:
    world = proposed("alice", "bob")
    alice, bob = world
    text = bob.account[1]
    for stated in (
        possession_statement(bytes(32), bob.key, text),
        possession_statement(bob.one.id, alice.key, text),
        possession_statement(bob.one.id, bob.key, account("carol")[1]),
    ):
        record = FoundingKey(bob.one.proposal.signed, text, bob.account[0].sign(possession_digest(stated)))
        assert "proof of possession" in str(ended(Founding(ALICE.pubkey, alice.one.proposal, alice.one.labels).heard(
            bob.key, record
        )))  # fmt: skip


def ended(effects: list[FoundingEffect]) -> NetworkError:
    (error,) = [one.error for one in effects if isinstance(one, FoundingEnded)]
    return error


@pytest.mark.parametrize("twin", ["the same key", "its negation", "the member's identity"])
def test_keys_that_make_no_group_are_refused(twin: str) -> None:
    world = proposed("alice", "bob")
    alice, bob = world
    if twin == "the same key":
        bob.account = alice.account
    elif twin == "its negation":
        negated = (GROUP_ORDER - int.from_bytes(secret("wallet alice"), "big")).to_bytes(32, "big")
        signer = Identity.from_secret(negated)
        bob.account = (signer, f"[d34db33f/87h/1h/0h]{replace(xpub('x'), point=signer.pubkey)}")
    else:
        bob.account = (BOB, f"[d34db33f/87h/1h/0h]{replace(xpub('x'), point=BOB.pubkey)}")
    for member in world:
        member.join()
    world.run()
    assert alice.one.step is bob.one.step is Step.ENDED
    assert "make no group" in str(alice.errors[0])
    assert not alice.confirming


def test_a_key_of_another_network_is_refused() -> None:
    world = proposed("alice", "bob")
    bob = world.members["bob"]
    bob.account = (bob.account[0], f"[d34db33f/87h/0h/0h]{xpub('wallet bob', Chain.MAINNET)}")
    for member in world:
        member.join()
    world.run()
    assert "another network" in str(world.members["alice"].errors[0])


def test_a_member_who_swaps_an_identity_is_in_no_founding() -> None:
    """Only a member's own signed message counts as theirs, and only members are heard."""
    world = proposed("alice", "bob")
    alice, bob = world
    world.by_key[CAROL.pubkey] = carol = Member(world, "carol")
    world.labels[CAROL.pubkey] = "carol"
    for record in (alice.key_record("alice"), bob.key_record("bob")):
        world.send(carol, alice.key, alice.one.id, MessageType.FOUNDING_KEY, record)
    world.send(carol, alice.key, alice.one.id, MessageType.FOUNDING_END, FoundingEnd(EndCode.DECLINED, ""))
    world.run()
    assert len(alice.refused) == 2
    assert alice.one.step is Step.ASKED


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda view, world: view_of(view, group=bytes(32)), "computed another group from the same keys"),
        (lambda view, world: view_of(view, group=bytes(32), keys=()), "computed another group"),
        (lambda view, world: swapped(view, world, "bob"), "another key than the one sent to this device"),
        (lambda view, world: swapped(view, world, "alice"), "this device sent another key than it did"),
        (lambda view, world: swapped(view, world, "carol"), "sent two, or"),
    ],
)
def test_a_view_that_differs_names_who(change: Callable[[FoundingView, World], FoundingView], text: str) -> None:
    world = proposed()
    alice, bob, carol = world
    bob.lie = lambda member, to, record: (change(record, world),) if isinstance(record, FoundingView) else (record,)
    for member in world:
        member.join()
    world.run()
    assert text in " ".join(str(error) for error in alice.errors)
    assert "bob" in str(alice.errors[0])
    assert not carol.pinned


def view_of(view: FoundingView, **changes: Any) -> FoundingView:
    fields = {"group": view.group, "keys": view.keys, "confirmed": view.confirmed} | changes
    return FoundingView(**fields)


def swapped(view: FoundingView, world: World, name: str) -> FoundingView:
    order = sorted(world.labels)
    keys = [bytes(32) if world.labels[key] == name else one for key, one in zip(order, view.keys, strict=True)]
    return view_of(view, group=bytes(32), keys=tuple(keys))


def test_a_confirmation_of_another_group_than_the_view_before_ends_it() -> None:
    world = joined("alice", "bob")
    alice, bob = world
    alice.do(alice.one.heard(bob.key, view_of(alice.one._views[bob.key], group=bytes(32), confirmed=True)))
    assert "two different groups" in str(alice.errors[0])


def test_nothing_said_afterwards_unpins_it() -> None:
    world = joined("alice", "bob")
    alice, bob = world
    for member in world:
        member.do(member.one.confirm())
    world.run()
    for record in (
        FoundingEnd(EndCode.CANCELLED, ""),
        bob.key_record("mallory"),
        FoundingView(bytes(32), (), True),
        alice.one._views[bob.key],
    ):
        alice.do(alice.one.heard(bob.key, record))
    assert alice.one.step is Step.FOUNDED
    assert len(alice.pinned) == 1
    assert alice.one.waiting_for == ()


def test_a_person_is_asked_to_confirm_once() -> None:
    world = joined()
    _, bob, carol = world
    for member in (bob, carol):
        member.do(member.one.confirm())
    world.run()
    assert [member.asked for member in world] == [[AskToJoin, AskToConfirm]] * 3


def test_a_confirmation_is_not_taken_back() -> None:
    world = joined("alice", "bob")
    alice, bob = world
    bob.do(bob.one.confirm())
    world.run()
    alice.do(alice.one.heard(bob.key, view_of(alice.one._views[bob.key], confirmed=False)))
    alice.do(alice.one.confirm())
    assert alice.pinned


def test_replayed_messages_open_nothing_again() -> None:
    world = joined("alice", "bob")
    alice, bob = world
    world.now += 3600
    for member in world:
        member.do(member.foundings.woken(world.now))
        member.asked.clear()
    for message in list(world.seen):
        for member in world:
            if message.sender_key != member.key:
                world.deliver(member, message)
    assert not list(alice.foundings)
    assert not alice.asked
    assert not bob.asked
    assert any("expired" in str(error) for error in alice.refused)


# --- proposals --------------------------------------------------------------------------------------------------------


def signed(**changes: Any) -> SignedProposal:
    """Return a proposal by alice, its content changed and signed again."""
    seats = {ALICE.pubkey: "alice", BOB.pubkey: "bob"}
    made = propose(ALICE, Chain.REGTEST, "x", seats, shape=Shape.EACH, random=bytes(32), expires_at=NOW + 60)
    content = msgspec.structs.replace(made.content, **changes)
    body = records._body_codec.encode(content)
    digest = records._proposal(bytes((Chain.REGTEST,)), body)
    return SignedProposal(Chain.REGTEST, ALICE.pubkey, body, ALICE.sign(digest))


def seat(identity: Identity, label: str) -> records.Seat:
    return records.Seat(identity.pubkey, label)


@pytest.mark.parametrize(
    "name", ["", "a/b", "../../etc", "a\x1b[2J", "\u202egnivas", "x\0", "x\u200b", " x", "a\\b", "con\n", ".ssh"]
)
def test_a_name_that_cannot_be_shown_is_refused_on_both_sides(name: str) -> None:
    world = World("alice", "bob")
    alice, bob = world
    with pytest.raises(InvalidMessage, match="cannot be shown"):
        alice.foundings.propose(name, [bob.key], Shape.EACH, bytes(32), NOW, 60.0)
    for bad in (signed(name=name), signed(members=tuple(sorted((seat(ALICE, "alice"), seat(BOB, name)), key=key_of)))):
        with pytest.raises(InvalidMessage, match="cannot be shown"):
            Proposal.open_untrusted(bad, Chain.REGTEST)


def key_of(one: records.Seat) -> bytes:
    return one.identity


BOTH = tuple(sorted((seat(ALICE, "alice"), seat(BOB, "bob")), key=key_of))


@pytest.mark.parametrize(
    "members",
    [
        BOTH[::-1],
        (BOTH[0], BOTH[0]),
        tuple(sorted((seat(BOB, "bob"), seat(CAROL, "carol")), key=key_of)),
        tuple(sorted((*BOTH, records.Seat(bytes((5 - ALICE.pubkey[0],)) + ALICE.pubkey[1:], "twin")), key=key_of)),
    ],
)
def test_members_that_make_no_group_are_refused(members: tuple[records.Seat, ...]) -> None:
    with pytest.raises(InvalidMessage, match="different keys in order"):
        Proposal.open_untrusted(signed(members=members), Chain.REGTEST)


def test_a_proposal_is_for_one_network_and_by_its_proposer() -> None:
    good = signed()
    assert Proposal.open_untrusted(good, Chain.REGTEST).expires_at == NOW + 60
    with pytest.raises(InvalidMessage, match="another Bitcoin network"):
        Proposal.open_untrusted(good, Chain.SIGNET)
    for changed in (
        msgspec.structs.replace(good, proposer=BOB.pubkey),
        msgspec.structs.replace(good, signature=bytes(64)),
        msgspec.structs.replace(good, body=good.body + b"\0"),
    ):
        with pytest.raises(AuthenticationError, match="does not verify"):
            Proposal.open_untrusted(changed, Chain.REGTEST)


def test_what_cannot_be_proposed() -> None:
    world = World("alice", "bob")
    alice, bob = world

    def propose_to(*keys: bytes, ttl_s: float = 60.0) -> None:
        alice.foundings.propose("x", list(keys), Shape.EACH, bytes(32), NOW, ttl_s)

    for ttl_s in (0, limits.FOUNDING_MAX_S + 1):
        with pytest.raises(LocalError, match="no time"):
            propose_to(bob.key, ttl_s=ttl_s)
    with pytest.raises(PeerNotFound, match="not paired"):
        propose_to(CAROL.pubkey)
    with pytest.raises(InvalidMessage, match="2 to 15"):
        propose_to()
    world.labels[BOB.pubkey] = "alice"
    with pytest.raises(InvalidMessage, match="of one name"):
        propose_to(bob.key)


@pytest.mark.parametrize(
    "why", ["without us", "strangers", "expired", "too far", "one name", "another id", "not a member"]
)
def test_a_proposal_that_asks_nobody(why: str) -> None:
    world = World("alice", "bob")
    alice, bob = world
    proposal = Proposal.open_untrusted(signed(), Chain.REGTEST)
    session = proposal.id
    if why == "without us":
        content = {"members": tuple(sorted((seat(ALICE, "alice"), seat(CAROL, "carol")), key=key_of))}
        proposal = Proposal.open_untrusted(signed(**content), Chain.REGTEST)
        session = proposal.id
    elif why == "strangers":
        content = {"members": tuple(sorted((*BOTH, seat(CAROL, "carol")), key=key_of))}
        proposal = Proposal.open_untrusted(signed(**content), Chain.REGTEST)
        session = proposal.id
    elif why == "expired":
        world.now += 61
    elif why == "too far":
        world.now -= 2 * limits.FOUNDING_MAX_S
    elif why == "one name":
        world.labels[ALICE.pubkey] = "bob"
    elif why == "another id":
        session = bytes(32)
    sender = alice
    if why == "not a member":
        world.by_key[CAROL.pubkey] = sender = Member(world, "carol")
    world.send(sender, bob.key, session, MessageType.FOUNDING_PROPOSAL, proposal.signed)
    world.run()
    assert len(bob.refused) == 1
    assert not bob.asked
    assert not list(bob.foundings)


def test_a_founding_that_somebody_refused_is_not_asked_about_again() -> None:
    world = proposed("alice", "bob")
    alice, bob = world
    bob.do(bob.one.leave())
    world.run()
    bob.asked.clear()
    for message in list(world.seen):
        if message.sender_key == alice.key:
            world.deliver(bob, message)
    world.up(alice, bob)
    world.run()
    assert not bob.asked
    assert bob.one.step is Step.ENDED


def test_proposals_are_bounded_by_proposer_and_in_all() -> None:
    world = World("alice", "bob")
    alice, bob = world
    for number in range(limits.FOUNDINGS_PER_PROPOSER_MAX + 1):
        alice.do(alice.foundings.propose("x", [bob.key], Shape.EACH, bytes((number,)) * 32, NOW, 60.0)[1])
    world.run()
    assert len(list(bob.foundings)) == limits.FOUNDINGS_PER_PROPOSER_MAX
    assert "too many" in str(bob.refused[0])
    with pytest.raises(LocalError, match="no founding"):
        bob.foundings.get(bytes(32))
    assert bob.foundings.get(next(iter(bob.foundings)).id)


def test_nobody_fills_memory_by_proposing_and_leaving() -> None:
    world = World("alice", "bob")
    alice, bob = world
    for number in range(limits.FOUNDINGS_FAILED_PER_PROPOSER_MAX + 2):
        founding, effects = alice.foundings.propose("x", [bob.key], Shape.EACH, bytes((number,)) * 32, NOW, 60.0)
        alice.do([*effects, *founding.leave()])
        world.run()
    assert len(list(bob.foundings)) == limits.FOUNDINGS_FAILED_PER_PROPOSER_MAX
    assert len(bob.asked) <= limits.FOUNDINGS_FAILED_PER_PROPOSER_MAX
    bob.foundings.woken(NOW + 60.0)
    assert not list(bob.foundings)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_order_all_pin_one_group_or_nobody_does(data: st.DataObject) -> None:
    """Joins, confirmations, messages, broken links and restarts in any order; then everything is let through."""
    world = proposed()
    events = ["step", "join", "confirm", "restart", "cut", "up"]
    for _ in range(data.draw(st.integers(0, 25))):
        event = data.draw(st.sampled_from(events))
        member = data.draw(st.sampled_from(list(world)))
        act(world, member, event, data)
    for _ in range(4):
        for one in world:
            for other in world:
                if one.key < other.key:
                    world.up(one, other)
        world.run()
        for member in world:
            act(world, member, "join", data)
        world.run()
        for member in world:
            act(world, member, "confirm", data)
        world.run()
    if any(list(member.foundings) for member in world):  # else all have restarted, and nobody remembers it
        assert [len(member.pinned) for member in world] == [1, 1, 1]
        assert len({member.pinned[0].encode() for member in world}) == 1


def act(world: World, member: Member, event: str, data: st.DataObject) -> None:
    foundings = list(member.foundings)
    if event == "step":
        world.run(1)
    elif event == "join" and foundings and foundings[0].step is Step.ASKED and not member.pinned:
        member.join(foundings[0])
    elif event == "confirm" and foundings and foundings[0].step is Step.CONFIRMING:
        member.do(foundings[0].confirm())
    elif event == "restart" and not member.pinned:
        member.restart()
    elif event in ("cut", "up"):
        other = data.draw(st.sampled_from([one for one in world if one is not member]))
        if event == "cut":
            world.down.add(frozenset((member.key, other.key)))
        else:
            world.up(member, other)


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(module, name) for name in module.__all__)
    assert all(hasattr(records, name) for name in records.__all__)
