"""The facade: three coordinators with a list for a network, and the bounds of `Sessions`."""

from __future__ import annotations

import pytest

from musignet import limits
from musignet.bitcoin.transaction import TxIn, TxOut
from musignet.errors import LocalError, SerializationError
from musignet.limits import EARLY_MESSAGES_MAX
from musignet.signing import journal
from musignet.signing.coordinator import Sessions, SigningCoordinator, ToSend
from musignet.signing.effects import End, Outcome, Publish, Save, Saved, SendToGroup
from musignet.signing.keyholder import Keyholder
from musignet.signing.policy import Ask
from musignet.signing.records import Approval, Topology, TransactionProposal, session_id
from musignet.signing.session import Session
from musignet.signing.verbs import Asked, Woken
from musignet.wire.envelope import Message
from musignet.wire.messages import Abort, MessageType, payload_encode
from support.ceremony import NOW, account, drawer, identity, keyholder, proposal, say, signing_group
from support.wallet import EXTERNAL, MEMBERS, outpoint, psbt, replace_tx, spend

GROUP = signing_group()
CALLS = {
    MessageType.TRANSACTION_PROPOSAL: SigningCoordinator.handle_transaction_proposal,
    MessageType.PUBLIC_NONCE: SigningCoordinator.handle_public_nonce,
    MessageType.PARTIAL_SIGNATURE: SigningCoordinator.handle_partial_signature,
    MessageType.TRANSACTION_COMPLETE: SigningCoordinator.handle_session_completion,
}


class Net:
    """Every message goes to everybody else, in order."""

    def __init__(self, **options: object) -> None:
        self.disks: dict[tuple[str, bool], list[bytes]] = {(name, who): [] for name in MEMBERS for who in (True, False)}
        self.nodes = {name: self.boot(name, **options) for name in MEMBERS}

    def boot(self, name: str, life: int = 0, **options: object) -> SigningCoordinator:
        def store(is_keyholder: bool, record: bytes) -> None:
            self.disks[name, is_keyholder].append(record)

        holder = Keyholder(account(name, GROUP, **options), drawer((name, life)), tuple(self.disks[name, True]))
        return SigningCoordinator(identity(name), holder, store, label=name, records=tuple(self.disks[name, False]))

    def carry(self, sender: str, data: list[bytes]) -> None:
        queue = [(sender, one) for one in data]
        while queue:
            sender, raw = queue.pop(0)
            message = Message.from_bytes(raw).verify()
            for name, node in self.nodes.items():
                if name != sender:
                    call = CALLS.get(message.type, SigningCoordinator.handle_other)
                    queue += [(name, one) for one in call(node, message, NOW)]

    def propose(self, topology: Topology = Topology.MESH) -> list[bytes]:
        tx, spent = spend(GROUP.wallet)
        made = psbt(GROUP.wallet, tx, spent).serialize()
        return self.nodes["alice"].propose(made, bytes(range(32)), NOW + 60, NOW, topology=topology)

    def ends(self) -> list[Outcome]:
        return [[one for one in node.news if isinstance(one, Outcome)][-1] for node in self.nodes.values()]


def test_three_coordinators_finish_a_transaction() -> None:
    net = Net()
    net.carry("alice", net.propose())
    assert {one.end for one in net.ends()} == {End.COMPLETED}
    assert len({one.transaction.txid for one in net.ends()}) == 1


def test_a_star_needs_no_more_than_to_be_told_whom_each_message_is_for() -> None:
    net, addressed = Net(), 0
    queue = [("alice", one) for one in net.propose(Topology.STAR)]
    while queue:
        sender, raw = queue.pop(0)
        assert isinstance(raw, ToSend)
        addressed += raw.to is not None
        message = Message.from_bytes(raw).verify()
        for name, node in net.nodes.items():
            if name != sender and raw.to in (None, identity(name).pubkey):
                call = CALLS.get(message.type, SigningCoordinator.handle_other)
                queue += [(name, one) for one in call(node, message, NOW)]
    assert {one.end for one in net.ends()} == {End.COMPLETED}
    assert addressed >= 6


def test_a_star_whose_every_message_goes_to_everybody_works_too() -> None:
    net = Net()
    net.carry("alice", net.propose(Topology.STAR))
    assert {one.end for one in net.ends()} == {End.COMPLETED}


def test_who_is_present_can_be_told() -> None:
    net = Net()
    alice = net.nodes["alice"]
    alice.present([identity("alice").pubkey, identity("bob").pubkey], NOW)
    net.carry("alice", net.propose())
    assert not any(isinstance(one, Outcome) for one in alice.news)
    net.carry("alice", alice.present(GROUP.identities, NOW))
    assert {one.end for one in net.ends()} == {End.COMPLETED}


def test_a_person_is_asked_and_says_yes() -> None:
    net = Net(policy=lambda _: Ask(), verifier=lambda session, digest, proof: proof == b"yes")
    net.carry("alice", net.propose())
    for name, node in net.nodes.items():
        asked = next(one for one in node.news if isinstance(one, Asked))
        assert asked.review.fee_sat == 2000
        net.carry(name, node.approve(asked.session, b"yes", NOW))
    assert {one.end for one in net.ends()} == {End.COMPLETED}


def test_a_cancel_ends_it_everywhere() -> None:
    net = Net(policy=lambda _: Ask())
    net.carry("alice", net.propose())
    asked = next(one for one in net.nodes["bob"].news if isinstance(one, Asked))
    net.carry("bob", net.nodes["bob"].cancel(asked.session, NOW))
    assert sorted(one.end.name for one in net.ends()) == ["ABORTED", "ABORTED", "CANCELLED"]


def test_a_restart_goes_on_from_the_disk() -> None:
    net = Net()
    first = net.propose()
    net.nodes["alice"] = net.boot("alice", 1)
    again = net.nodes["alice"].resume(NOW)
    net.carry("alice", first + again)
    assert {one.end for one in net.ends()} == {End.COMPLETED}


def test_a_completion_is_said_again_after_a_restart() -> None:
    net = Net()
    net.carry("alice", net.propose())
    net.nodes["bob"] = net.boot("bob", 1)
    kinds = [Message.from_bytes(raw).type for raw in net.nodes["bob"].resume(NOW)]
    assert kinds == [MessageType.TRANSACTION_COMPLETE]
    assert net.ends()[1].transaction.txid == net.ends()[0].transaction.txid


def test_an_approval_is_revoked_though_the_crash_came_between_the_two_disks() -> None:
    """The node's journal says that it ended, the keyholder's does not: its coins would stay locked until it expires."""
    net = Net()
    net.nodes["alice"].present([identity("alice").pubkey], NOW)
    net.propose()
    (session,) = [one.id for one in net.nodes["alice"].sessions]
    kept = list(net.disks["alice", True])
    net.nodes["alice"].cancel(session, NOW)
    net.disks["alice", True] = kept
    again = net.boot("alice", 1)
    again.resume(NOW + 1)
    assert isinstance(journal.read(net.disks["alice", True][-1]), journal.ApprovalWiped)
    late = net.boot("alice", 2)
    before = len(net.disks["alice", True])
    late.resume(NOW + 60)
    assert len(net.disks["alice", True]) == before, "what has expired is wiped by the clock"


def test_what_a_person_rejected_is_not_asked_again_after_a_restart() -> None:
    """Whoever was away then says the proposal again, and hears how it ended."""
    net = Net(policy=lambda _: Ask())
    proposed = [Message.from_bytes(one).verify() for one in net.propose()]
    (proposal,) = [one for one in proposed if one.type == MessageType.TRANSACTION_PROPOSAL]
    net.nodes["bob"].handle_transaction_proposal(proposal, NOW)
    net.nodes["bob"].cancel(proposal.session, NOW)
    again = net.boot("bob", 1, policy=lambda _: Ask())
    assert again.resume(NOW) == []
    assert [one.end for one in again.news if isinstance(one, Outcome)] == [End.CANCELLED]
    again.news.clear()
    assert again.handle_transaction_proposal(proposal, NOW) == []
    assert again.news == []
    digest = again.sessions[proposal.session].digest
    approval = say("alice", MessageType.APPROVAL, proposal.session, Approval(digest))
    assert [Message.from_bytes(one).type for one in again.handle_other(approval, NOW)] == [MessageType.ABORT]


def test_what_is_open_stays_open_over_a_restart_whatever_has_failed_meanwhile() -> None:
    net = Net()
    alice, most = net.nodes["alice"], limits.SESSIONS_FAILED_PER_PROPOSER_MAX
    alice.present([identity("alice").pubkey], NOW)
    made = psbt(GROUP.wallet, *spend(GROUP.wallet)).serialize()
    for number in range(most):
        alice.propose(made, bytes((number,)) * 32, NOW + 60, NOW)
        (one,) = [one for one in alice.sessions if one.outcome is None]
        if number < most - 1:
            alice.cancel(one.id, NOW)
    alice.propose(made, b"x" * 32, NOW + 60, NOW)  # the same coins: refused, and that fails, too
    assert sum(one.outcome is not None for one in alice.sessions) == most
    again = net.boot("alice", 1)
    again.resume(NOW)
    assert one.id in again.sessions
    assert again.sessions[one.id].outcome is None


def test_a_message_for_another_call() -> None:
    with pytest.raises(LocalError, match="another call"):
        Net().nodes["bob"].handle_public_nonce(proposal(), NOW)


def test_the_keyholder_must_be_ones_own() -> None:
    with pytest.raises(LocalError, match="another member"):
        SigningCoordinator(identity("alice"), keyholder("bob"), lambda *_: None)


def test_a_deadline_ends_it() -> None:
    net = Net()
    net.propose()
    alice = net.nodes["alice"]
    while (due := alice.next_deadline()) is not None and not any(isinstance(one, Outcome) for one in alice.news):
        alice.wake(due)
    outcome = alice.news[-1]
    assert (outcome.end, set(outcome.suspects)) == (End.EXPIRED, set(GROUP.identities) - {identity("alice").pubkey})


# --- bounds -----------------------------------------------------------------------------------------------------------


def _opened(sessions: Sessions, name: str, number: int) -> bool:
    made = proposal(name, GROUP, inputs=1, random=bytes((number,)) * 32)
    effects = sessions.handle(made, NOW)
    return any(isinstance(one, Save) for one in effects)


def test_no_more_sessions_than_a_proposer_and_a_group_may_have() -> None:
    sessions = Sessions(GROUP, identity("carol").pubkey)
    assert [_opened(sessions, "alice", n) for n in range(6)].count(True) == limits.SESSIONS_PER_PROPOSER_MAX
    assert [_opened(sessions, "bob", n) for n in range(6)].count(True) == limits.SESSIONS_PER_PROPOSER_MAX
    assert not _opened(sessions, "carol", 9)
    assert sum(isinstance(one, Session) for one in sessions) == limits.SESSIONS_PER_GROUP_MAX


def test_a_proposal_too_many_is_refused_unread_and_its_refusal_holds_nothing_of_it() -> None:
    sessions = Sessions(GROUP, identity("carol").pubkey)
    record = TransactionProposal(GROUP.id, bytes(32), int((NOW + 60) * 1000), b"no PSBT", "")
    unreadable = say(
        "alice", MessageType.TRANSACTION_PROPOSAL, session_id(identity("alice").pubkey, record), record, GROUP
    )
    for number in range(limits.SESSIONS_PER_PROPOSER_MAX):
        assert _opened(sessions, "alice", number)
    (refused,) = [one.news for one in sessions.handle(unreadable, NOW) if isinstance(one, Publish)]
    assert isinstance(refused, Outcome)
    assert refused.error is not None
    assert "too many open sessions of this proposer" in str(refused.error), "not that it has no reading"
    assert refused.error.__traceback__ is None, "its frames hold the proposal"


def test_what_is_told_of_an_end_keeps_nothing_of_where_it_came_from() -> None:
    """Inputs of strangers are not signed yet; whoever keeps the outcome must not keep the session for it."""
    tx, spent = spend(GROUP.wallet)
    foreign = replace_tx(tx, inputs=(*tx.inputs, TxIn(outpoint(9))))
    made = psbt(GROUP.wallet, foreign, (*spent, TxOut(5_000, EXTERNAL))).serialize()
    net = Net()
    net.carry("alice", net.nodes["alice"].propose(made, bytes(32), NOW + 60, NOW))
    for outcome in net.ends():
        assert (outcome.end, outcome.transaction) == (End.COMPLETED, None)
        assert outcome.error.__traceback__ is None


def test_nobody_fills_memory_and_disk_by_proposing_and_leaving() -> None:
    sessions, most = Sessions(GROUP, identity("carol").pubkey), limits.SESSIONS_FAILED_PER_PROPOSER_MAX
    left = payload_encode(MessageType.ABORT, Abort(2, "changed my mind"))
    opened = 0
    for number in range(most + 3):
        made = proposal("bob", GROUP, inputs=1, random=bytes((number,)) * 32)
        saves = [one for one in sessions.handle(made, NOW) if isinstance(one, Save)]
        opened += len(saves)
        saves += sessions.handle(say("bob", MessageType.ABORT, made.session, left), NOW)
        for save in saves:
            if isinstance(save, Save):
                sessions.handle(Saved(save.session, save.number), NOW)
    assert (opened, len(list(sessions))) == (most, most)
    assert not _opened(sessions, "bob", 99)
    sessions.handle(Woken(), NOW + 3600)
    assert list(sessions) == [], "what has expired does not count"


def test_nor_by_proposing_what_expires_at_once() -> None:
    sessions, most = Sessions(GROUP, identity("carol").pubkey), limits.SESSIONS_FAILED_PER_PROPOSER_MAX
    opened, now = 0, NOW
    for number in range(2 * most):
        made = proposal("bob", GROUP, inputs=1, random=bytes((number,)) * 32, expires_at=now + 1)
        saves = [one for one in sessions.handle(made, now) if isinstance(one, Save)]
        opened += len(saves)
        now += 1
        saves += sessions.handle(Woken(), now)
        for save in saves:
            if isinstance(save, Save):
                sessions.handle(Saved(save.session, save.number), now)
    assert opened == most
    sessions.handle(Woken(), NOW + limits.SESSION_FAILED_COUNTS_S + most)
    assert list(sessions) == []


def test_a_refused_proposal_is_refused_aloud_to_the_group_and_silently_to_strangers() -> None:
    sessions = Sessions(GROUP, identity("carol").pubkey)
    late = sessions.handle(proposal(expires_at=NOW), NOW)
    assert [type(one) for one in late] == [SendToGroup, Publish]
    foreign = sessions.handle(proposal(group=signing_group("participants")), NOW)
    assert [type(one) for one in foreign] == [Publish]


def test_a_proposal_is_on_disk_before_anything_else() -> None:
    sessions = Sessions(GROUP, identity("alice").pubkey)
    made = proposal()
    (save,) = sessions.handle(made, NOW)
    assert isinstance(save, Save)
    assert SendToGroup in [type(one) for one in sessions.handle(Saved(save.session, save.number), NOW)]


def test_what_arrives_before_its_proposal_is_kept_and_heard_once_it_is_here() -> None:
    """Members have links of their own: an approval can overtake the proposal that it is about."""
    net = Net()
    bob, carol = net.nodes["bob"], net.nodes["carol"]
    proposed = [Message.from_bytes(one).verify() for one in net.propose()]
    (proposal,) = [one for one in proposed if one.type == MessageType.TRANSACTION_PROPOSAL]
    said = [Message.from_bytes(one).verify() for one in bob.handle_transaction_proposal(proposal, NOW)]
    for message in said:
        assert carol.handle_other(message, NOW) == []
    carol.handle_transaction_proposal(proposal, NOW)
    assert identity("bob").pubkey not in carol.sessions[proposal.session].waiting_for
    assert not any(carol.sessions._early.values()), "what was heard is not kept"


@pytest.mark.parametrize(("expires_at", "memo"), [(-1.0, ""), (NOW + 60, "\ud800"), (NOW + 60, "x" * 65)])
def test_a_proposal_out_of_bounds_is_refused_before_it_has_an_id(expires_at: float, memo: str) -> None:
    alice = Net().nodes["alice"]
    with pytest.raises(SerializationError):
        alice.propose(b"psbt", bytes(32), expires_at, NOW, memo)
    assert not alice.news


def test_little_is_kept_of_what_has_no_proposal_and_nothing_of_strangers() -> None:
    sessions = Net().nodes["carol"].sessions
    for name in ("bob", "mallory"):
        for number in range(10):
            message = Message(MessageType.APPROVAL, name, b"x", session=bytes((number,)) * 32)
            signed = message.sign(identity(name), to=GROUP.id, chain=GROUP.wallet.chain, seq=number).verify()
            assert sessions.handle(signed, NOW) == []
    assert {key: len(said) for key, said in sessions._early.items()} == {identity("bob").pubkey: EARLY_MESSAGES_MAX}
