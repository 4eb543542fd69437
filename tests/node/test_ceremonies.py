"""The node's side of ceremonies: joining, commands that cannot be, and who is heard."""

from __future__ import annotations

import math
from typing import Any

import pytest

from musignet.errors import LocalError, NetworkError, SerializationError
from musignet.limits import PAYLOAD_MAX_BYTES
from musignet.node.config import NodeConfig
from musignet.node.core import Node
from musignet.node.effects import AskKeyholder, Effect, Publish, Reply, Save, Send, SessionNews
from musignet.node.inputs import (
    AddPeer,
    CancelSession,
    ConsentToSession,
    JoinGroup,
    KeyholderReplied,
    MessageReceived,
    PeerConnected,
    PeerLost,
    Propose,
    Saved,
)
from musignet.node.peers import PeerInfo
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import Progress
from musignet.signing.effects import Saved as RecordSaved
from musignet.signing.records import Topology
from musignet.signing.verbs import Approved
from musignet.wire.envelope import Message
from musignet.wire.messages import Chain, MessageType
from support.ceremony import NOW, drawer, identity, signing_group
from support.wallet import psbt

GROUP = signing_group()


def node(name: str) -> Node:
    return Node(identity(name), NodeConfig(label=name, chain=Chain.REGTEST), drawer(name))


def joined(name: str = "alice") -> Node:
    made = node(name)
    effects = made.handle(JoinGroup(1, Sessions(GROUP, identity(name).pubkey)), NOW)
    assert effects[0] == Reply(1)
    return made


def refusal(effects: list[Effect]) -> NetworkError:
    (reply,) = effects
    assert isinstance(reply, Reply)
    assert reply.error is not None
    return reply.error


def test_a_group_is_joined_once_and_only_by_its_members() -> None:
    again = JoinGroup(2, Sessions(GROUP, identity("alice").pubkey))
    assert isinstance(refusal(joined().handle(again, NOW)), LocalError)
    assert isinstance(refusal(node("mallory").handle(again, NOW)), LocalError)


def test_a_proposal_is_on_disk_before_the_keyholder_is_asked_or_anybody_told() -> None:
    alice = joined()
    effects = alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)
    reply, *rest = effects
    assert isinstance(reply, Reply)
    assert len(reply.session) == 32
    saves = [effect for effect in rest if isinstance(effect, Save)]
    assert [type(effect) for effect in rest if isinstance(effect, Save | AskKeyholder)] == [Save]
    after = alice.handle(Saved(GROUP.id, RecordSaved(saves[0].save.session, saves[0].save.number)), NOW)
    assert [effect.group for effect in after if isinstance(effect, AskKeyholder)] == [GROUP.id]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (Propose(2, bytes(32), b"", NOW + 60), LocalError),
        (Propose(2, GROUP.id, bytes(PAYLOAD_MAX_BYTES), NOW + 60), SerializationError),
        (Propose(2, GROUP.id, b"psbt", math.inf), LocalError),
        (Propose(2, GROUP.id, b"psbt", math.nan), LocalError),
        (Propose(2, GROUP.id, b"psbt", -1.0), SerializationError),
        (Propose(2, GROUP.id, b"psbt", NOW + 60, "\ud800"), SerializationError),
        (Propose(2, GROUP.id, b"psbt", NOW + 60, "x" * 65), SerializationError),
        (ConsentToSession(2, bytes(32), b"proof"), NetworkError),
        (CancelSession(2, bytes(32)), NetworkError),
    ],
)
def test_what_cannot_be_is_answered_with_its_error(command: Any, kind: type[NetworkError]) -> None:
    assert isinstance(refusal(joined().handle(command, NOW)), kind)


@pytest.mark.parametrize("command", [ConsentToSession, CancelSession])
def test_a_command_for_an_open_session_is_answered_and_reaches_it(command: Any) -> None:
    alice = joined()
    reply = alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)[0]
    assert isinstance(reply, Reply)
    args = (reply.session, b"proof") if command is ConsentToSession else (reply.session,)
    effects = alice.handle(command(3, *args), NOW + 1)
    assert effects[0] == Reply(3)


@pytest.mark.parametrize("reason", ["x" * 5_000, "\ud800", "\x00"])
def test_whatever_the_reason_a_session_is_left(reason: str) -> None:
    alice = joined()
    reply = alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)[0]
    assert isinstance(reply, Reply)
    effects = alice.handle(CancelSession(3, reply.session, reason), NOW + 1)
    assert effects[0] == Reply(3)
    assert any(isinstance(one, Save | AskKeyholder | Publish) for one in effects)


def test_the_deadline_of_a_session_wakes_the_node() -> None:
    alice = joined()
    alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)
    due = alice.next_deadline()
    assert due is not None
    assert NOW < due <= NOW + 60


# --- who is here ------------------------------------------------------------------------------------------------------


def meet(one: Node, name: str, link: int) -> list[Effect]:
    """Connect a node to a member who announces themselves."""
    other = node(name)
    one.handle(AddPeer(90, PeerInfo(id=name, pubkey_hex=identity(name).pubkey.hex())), NOW)
    one.handle(PeerConnected(link, identity(name).pubkey, outbound=False), NOW)
    other.handle(AddPeer(90, PeerInfo(id="it", pubkey_hex=one.identity.pubkey.hex())), NOW)
    (hello,) = other.handle(PeerConnected(1, one.identity.pubkey, outbound=True), NOW)
    assert isinstance(hello, Send)
    return one.handle(MessageReceived(link, Message.from_bytes(hello.data).verify()), NOW)


def shown(effects: list[Effect]) -> Progress:
    told = [one.news.news for one in effects if isinstance(one, Publish) and isinstance(one.news, SessionNews)]
    return [one for one in told if isinstance(one, Progress)][-1]


def test_a_session_is_told_who_comes_and_goes_and_before_it_resumes() -> None:
    alice = joined()
    reply = alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)[0]
    session = alice.ceremonies._groups[GROUP.id][reply.session]
    bob, carol = identity("bob").pubkey, identity("carol").pubkey
    assert session._away == {bob, carol}
    assert shown(meet(alice, "bob", 7)).away == (carol,)
    assert session._away == {carol}
    assert set(shown(alice.handle(PeerLost(7, NetworkError("gone")), NOW + 1)).away) == {bob, carol}


def test_whoever_comes_gets_the_proposal_alone_and_at_once() -> None:
    alice = joined()
    meet(alice, "carol", 6)
    (save,) = [
        one for one in alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW) if isinstance(one, Save)
    ]
    early = [one for one in meet(alice, "bob", 5) if isinstance(one, Send)]
    assert MessageType.TRANSACTION_PROPOSAL not in [Message.from_bytes(one.data).verify().type for one in early]
    alice.handle(PeerLost(5, NetworkError("gone")), NOW)
    alice.handle(Saved(GROUP.id, RecordSaved(save.save.session, save.save.number)), NOW)
    sent = [one for one in meet(alice, "bob", 7) if isinstance(one, Send)]
    assert {one.link for one in sent} == {7}
    assert MessageType.TRANSACTION_PROPOSAL in [Message.from_bytes(one.data).verify().type for one in sent]


def test_consent_in_place_of_another_session_reaches_the_keyholder() -> None:
    alice = joined()
    reply = alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)[0]
    effects = alice.handle(ConsentToSession(3, reply.session, b"proof", frozenset((bytes(32),))), NOW)
    (asked,) = [one.verb for one in effects if isinstance(one, AskKeyholder)]
    assert (asked.proof, asked.replaces) == (b"proof", {bytes(32)})


def test_a_proposal_says_its_topology_and_a_message_for_one_member_goes_to_them_alone() -> None:
    alice = joined()
    for link, name in enumerate(("bob", "carol"), 6):
        meet(alice, name, link)
    effects = alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60, "", Topology.STAR), NOW)
    (save,) = [one for one in effects if isinstance(one, Save)]
    alice.handle(Saved(GROUP.id, RecordSaved(save.save.session, save.save.number)), NOW)
    session = alice.ceremonies._groups[GROUP.id][save.save.session]
    assert session.proposal.record.topology is Topology.STAR
    approved = Approved(session.id, session.digest)
    sent = [one for one in alice.handle(KeyholderReplied(GROUP.id, approved), NOW) if isinstance(one, Send)]
    turns = {GROUP.collector(1), GROUP.collector(2)} - {identity("alice").pubkey}
    assert len(sent) == len(turns)
