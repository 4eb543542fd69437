"""Rounds that people carry to and fro: nobody is called silent, and only a policy lets nonces wait so long."""

from __future__ import annotations

import pytest

from musignet import limits
from musignet.chain import Chain
from musignet.limits import Limits
from musignet.signing.coordinator import SigningCoordinator
from musignet.signing.effects import End, Outcome, SendToGroup
from musignet.signing.keyholder import Keyholder
from musignet.signing.policyfile import PolicyError, Rules
from musignet.signing.records import Topology
from musignet.signing.session import Present
from musignet.signing.states import State
from musignet.signing.verbs import AttemptLost, MakeNonces, NoncesMade, Resumed, Woken
from musignet.wire.envelope import Message
from musignet.wire.messages import MessageType
from support.ceremony import NOW, account, drawer, identity, say, signing_group
from support.one_session import EPOCH, ID, One, kinds, nonce, verbs
from support.wallet import MEMBERS, psbt, spend

GROUP = signing_group()
KEYS = {name: identity(name).pubkey for name in MEMBERS}
ALICE, BOB, CAROL = (KEYS[name] for name in MEMBERS)
HOUR_S = 3600.0
MAIL = Present(frozenset((ALICE, CAROL)), frozenset((BOB,)))
"""To carol: alice is connected, bob gets mail."""


class Desk:
    """One cosigner with a pile of outgoing mail for each other one."""

    def __init__(self, name: str, ttl_s: float) -> None:
        self.name = name
        self.piles: dict[str, list[bytes]] = {other: [] for other in MEMBERS if other != name}
        self.made = 0
        holder = Keyholder(account(name, GROUP, nonce_ttl_s=ttl_s), drawer(name))
        self.node = SigningCoordinator(identity(name), holder, lambda *_: None, label=name)

    def put(self, messages: list[bytes]) -> None:
        for one in messages:
            for other, pile in self.piles.items():
                if one.to in (None, KEYS[other]) and not one.again:
                    pile.append(one)
            self.made += Message.from_bytes(one).type == MessageType.PUBLIC_NONCE

    def post(self, now: float) -> None:
        """Mail comes or goes: what waited for that goes on."""
        self.put(self.node.wake(now))
        self.put(self.node.present((KEYS[self.name],), now, by_mail=[KEYS[other] for other in self.piles]))

    @property
    def outcome(self) -> Outcome | None:
        ends = [one for one in self.node.news if isinstance(one, Outcome)]
        return ends[-1] if ends else None


class Office:
    """Three desks without a network; each carrying of mail takes hours."""

    def __init__(self, ttl_s: float, topology: Topology = Topology.MESH) -> None:
        self.now = NOW
        self.desks = {name: Desk(name, ttl_s) for name in MEMBERS}
        for desk in self.desks.values():
            desk.post(NOW)
        tx, spent = spend(GROUP.wallet)
        made = psbt(GROUP.wallet, tx, spent).serialize()
        alice = self.desks["alice"]
        alice.put(alice.node.propose(made, bytes(range(32)), NOW + 24 * HOUR_S, NOW, topology=topology))

    def carry(self, sender: str, to: str, hours: float = 0.3) -> None:
        self.desks[sender].post(self.now)
        self.now += hours * HOUR_S
        mail, self.desks[sender].piles[to] = self.desks[sender].piles[to], []
        desk = self.desks[to]
        for raw in mail:
            desk.put(desk.node.handle_other(Message.from_bytes(raw).verify(), self.now))
        desk.post(self.now)

    def round(self, hours: float = 0.3) -> None:
        for sender in MEMBERS:
            for to in MEMBERS:
                if sender != to:
                    self.carry(sender, to, hours)

    def ends(self) -> list[End | None]:
        return [desk.outcome.end if desk.outcome else None for desk in self.desks.values()]


def test_a_ceremony_by_mail_alone() -> None:
    office = Office(ttl_s=limits.NONCE_TTL_MAX_S)
    for _ in range(4):
        office.round()
    assert office.ends() == [End.COMPLETED] * 3
    assert [desk.made for desk in office.desks.values()] == [1, 1, 1]


def test_a_machine_that_sleeps_in_between_costs_another_attempt_and_nothing_else() -> None:
    office = Office(ttl_s=limits.NONCE_TTL_MAX_S)
    office.round()
    bob = office.desks["bob"]
    bob.put(bob.node._ask(Resumed(), office.now))
    for _ in range(4):
        office.round()
    assert office.ends() == [End.COMPLETED] * 3
    assert bob.made == 2


def test_without_the_opt_in_the_nonces_die_and_no_attempt_is_wasted_on_waiting() -> None:
    office = Office(ttl_s=limits.NONCE_TTL_S)
    office.round()
    made = {name: desk.made for name, desk in office.desks.items()}
    for desk in office.desks.values():
        for _ in range(100):
            office.now += 60
            desk.put(desk.node.wake(office.now))
    assert office.ends() == [None] * 3
    assert {name: desk.made for name, desk in office.desks.items()} == made
    assert all(made.values())


def test_in_a_star_they_are_away() -> None:
    office = Office(ttl_s=limits.NONCE_TTL_MAX_S, topology=Topology.STAR)
    for _ in range(4):
        office.round()
    assert office.ends() == [None] * 3
    assert [desk.made for desk in office.desks.values()] == [0, 0, 0]


def test_nobody_is_called_silent_while_mail_is_on_its_way() -> None:
    one, now = One().approved(), NOW
    one.do(MAIL)
    one.do(NoncesMade(ID, 1, EPOCH, b"ours"))
    one.hear("alice", MessageType.PUBLIC_NONCE, nonce())
    for _ in range(50):
        now += Limits().phase_timeout_s
        effects = one.do(Woken(), now)
        assert all(sent.again for sent in effects if isinstance(sent, SendToGroup))
    assert (one.outcome, one.sessions[ID].state, one.sessions[ID].attempt) == (None, State.ROUND_1, 1)


def test_whoever_is_connected_is_counted_once_the_mail_is_here() -> None:
    one, now = One().approved(), NOW
    one.do(MAIL)
    for _ in range(Limits().silent_attempts_max):
        one.hear("bob", MessageType.PUBLIC_NONCE, nonce(one.sessions[ID].attempt))
        now += Limits().reapprove_s
        effects = one.do(Woken(), now)
    assert (one.outcome.end, one.outcome.suspects) == (End.SILENT, (ALICE,))
    assert [sent.again for sent in effects if isinstance(sent, SendToGroup)] == [False], "news, for mail too"


def test_whoever_gets_mail_is_not_counted_when_somebody_goes_on_without_them() -> None:
    one = One().approved()
    one.do(MAIL)
    one.do(NoncesMade(ID, 1, EPOCH, b"ours"))
    now = NOW + Limits().phase_timeout_s
    one.do(say("alice", MessageType.PUBLIC_NONCE, ID, nonce(2)), now)
    session = one.sessions[ID]
    assert (session.attempt, set(session._silent)) == (2, {ALICE})


def test_lost_nonces_are_made_again_only_when_mail_moves() -> None:
    one = One().approved()
    one.do(MAIL)
    assert verbs(one.do(AttemptLost(ID, 1, EPOCH))) == []
    assert one.sessions[ID].state is State.APPROVING
    assert verbs(one.do(Woken(), NOW + Limits().reapprove_s)) == []
    assert verbs(one.do(MAIL)) == [MakeNonces]


def test_letters_are_left_for_whoever_is_away_and_rounds_are_not() -> None:
    one = One()
    one.do(Present(frozenset((ALICE, CAROL))))
    one.approved()
    effects = one.do(Present(frozenset((ALICE, CAROL)), letters=frozenset((BOB,))))
    assert [(sent.kind, sent.to) for sent in effects if isinstance(sent, SendToGroup)] == [(MessageType.APPROVAL, BOB)]
    assert verbs(effects) == []
    assert kinds(one.do(Present(frozenset((ALICE, CAROL)), letters=frozenset((BOB,))))) == []
    assert verbs(one.do(Present(frozenset((ALICE, BOB, CAROL))))) == [MakeNonces]


@pytest.mark.parametrize(("line", "ttl_s"), [("", limits.NONCE_TTL_S), ("nonces_wait_h = 6", 6 * HOUR_S)])
def test_the_policy_says_how_long_nonces_may_wait(line: str, ttl_s: float) -> None:
    assert Rules.parse_untrusted(f'mode = "ask"\n{line}'.encode(), Chain.REGTEST).nonce_ttl_s == ttl_s


@pytest.mark.parametrize("hours", ["0", "25", "-1", "1.5", '"6"', "true"])
def test_and_for_no_other_time(hours: str) -> None:
    with pytest.raises(PolicyError):
        Rules.parse_untrusted(f'mode = "ask"\nnonces_wait_h = {hours}'.encode(), Chain.REGTEST)
