"""The node's side of ceremonies: joining, commands that cannot be, and who is heard."""

from __future__ import annotations

from typing import Any

import pytest

from musignet.errors import LocalError, NetworkError, SerializationError
from musignet.limits import PAYLOAD_MAX_BYTES
from musignet.node.config import NodeConfig
from musignet.node.core import Node
from musignet.node.effects import AskKeyholder, Effect, Reply, Save
from musignet.node.inputs import CancelSession, ConsentToSession, JoinGroup, Propose, Saved
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import Saved as RecordSaved
from musignet.wire.messages import Chain
from support.ceremony import NOW, drawer, identity, signing_group
from support.wallet import psbt

GROUP = signing_group()


def node(name: str) -> Node:
    return Node(identity(name), NodeConfig(label=name, chain=Chain.REGTEST), drawer(name))


def joined(name: str = "alice") -> Node:
    made = node(name)
    effects = made.handle(JoinGroup(1, Sessions(GROUP, identity(name).pubkey)), NOW)
    assert effects == [Reply(1)]
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


def test_the_deadline_of_a_session_wakes_the_node() -> None:
    alice = joined()
    alice.handle(Propose(2, GROUP.id, psbt().serialize(), NOW + 60), NOW)
    due = alice.next_deadline()
    assert due is not None
    assert NOW < due <= NOW + 60
