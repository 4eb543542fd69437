"""The bridge: what comes back from another signer, what is refused of it by name, and that nothing is lost then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from msgspec import structs

from musignet.bitcoin.fields import In
from musignet.bitcoin.group import Known
from musignet.bitcoin.psbt import Psbt
from musignet.crypto.keyagg import InvalidContributionError
from musignet.errors import LocalError, NetworkError
from musignet.limits import Limits
from musignet.signing import journal
from musignet.signing.approvals import Place
from musignet.signing.bridge import Bridge, Wants
from musignet.signing.coordinator import Sessions
from musignet.signing.effects import End, SendToGroup
from musignet.signing.records import (
    Approval,
    AttemptGone,
    PartialSignature,
    Topology,
    TransactionProposal,
    decode_untrusted,
    encode,
    session_id,
)
from musignet.signing.session import Present
from musignet.signing.states import State
from musignet.signing.verbs import (
    Approve,
    Approved,
    Asked,
    AttemptLost,
    MakeNonces,
    MakePartials,
    NoncesMade,
    PartialsMade,
    Refused,
    Status,
    StatusIs,
    Store,
    Stored,
    Wipe,
    Wiped,
    Woken,
)
from musignet.wire.messages import MessageType
from support.ceremony import NOW, drawer, identity, keyholder, perform, proposal, say, signing_group
from support.cosigners import Cosigner
from support.one_session import ID, PROPOSAL, One, kinds, nonce, verbs
from support.wallet import MEMBERS

GROUP = signing_group()
ALICE, BOB, CAROL = (identity(name).pubkey for name in MEMBERS)
KEYS = {name: GROUP.wallet_key(identity(name).pubkey) for name in MEMBERS}


class Table:
    """Bob at his bridge; alice and carol with keyholders that do at once what is right."""

    def __init__(self, **options: object) -> None:
        self.proposal = proposal(**options)
        self.session = self.proposal.session
        self.disk: list[bytes] = []
        self.holders = {name: keyholder(name) for name in ("alice", "carol")}
        self.digest = perform(self.holders["alice"], Approve(self.proposal))[0].digest
        perform(self.holders["carol"], Approve(self.proposal))
        self.approvals = {name: self.say(name, MessageType.APPROVAL, Approval(self.digest)) for name in MEMBERS}
        self.restart()

    def restart(self) -> None:
        place = Place(group=GROUP, identity=BOB, nonce_ttl_s=86_400)
        self.bridge = Bridge(place, drawer(("bob", len(self.disk))), tuple(self.disk))

    def say(self, name: str, kind: MessageType, payload: object) -> object:
        return say(name, kind, self.session, payload)

    def do(self, event: object, now: float = NOW) -> list[object]:
        return perform(self.bridge, event, now, self.disk)

    def bring(self, data: bytes, now: float = NOW, replaces: frozenset[bytes] = frozenset()) -> list[object]:
        replies, queue = [], self.bridge.import_untrusted(self.session, data, now, replaces)
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, Store):
                self.disk.append(effect.record)
                queue += self.bridge.handle(Stored(effect.number), now)
            else:
                replies.append(effect)
        return replies

    @property
    def psbt(self) -> bytes:
        return self.bridge.export(self.session)

    @property
    def wants(self) -> Wants:
        return self.bridge.wants(self.session)

    def signer(self, salt: str = "") -> Cosigner:
        return Cosigner(GROUP.wallet, GROUP.positions[BOB], Known(), salt)

    def approved(self, signer: Cosigner) -> Table:
        self.do(Approve(self.proposal))
        assert [type(one) for one in self.bring(signer.round_one(self.psbt))] == [Approved]
        return self

    def others(self, messages: dict[str, object]) -> tuple[object, ...]:
        return tuple(messages[name] for name in MEMBERS if name != "bob")

    def ask_nonces(self, attempt: int = 1) -> list[object]:
        return self.do(MakeNonces(self.session, attempt, self.others(self.approvals)))

    def nonces(self, attempt: int = 1) -> dict[str, object]:
        """What alice and carol say in round 1."""
        made = {}
        for name, holder in self.holders.items():
            given = tuple(one for other, one in self.approvals.items() if other != name)
            (reply,) = perform(holder, MakeNonces(self.session, attempt, given))
            made[name] = self.say(name, MessageType.PUBLIC_NONCE, reply.payload)
        return made

    def in_round_2(self, signer: Cosigner) -> Table:
        self.approved(signer)
        self.ask_nonces()
        self.do(MakePartials(self.session, 1, self.others(self.nonces())))
        assert self.wants is Wants.PARTIALS
        return self


@pytest.fixture
def table() -> Table:
    return Table()


def field(data: bytes, kind: int, key: bytes, value: bytes | None, index: int = 0) -> bytes:
    """The PSBT with another field in one input; None takes it out."""
    psbt = Psbt.parse_untrusted(data)
    one = psbt.inputs[index]
    kept = [(bytes((k,)) + d, v) for k in range(256) for d, v in one.of_type(k) if (k, d) != (kind, key)]
    changed = type(one)([*kept, *([] if value is None else [(bytes((kind,)) + key, value)])])
    return psbt.with_input(index, changed).serialize()


def key_data(data: bytes, kind: int, name: str, index: int = 0) -> bytes:
    psbt = Psbt.parse_untrusted(data)
    return next(key for key, _ in psbt.inputs[index].of_type(kind) if key.startswith(KEYS[name]))


def test_a_session_is_shown_and_nothing_leaves_before_the_signer_has_answered(table: Table) -> None:
    assert table.wants is Wants.NOTHING
    (asked,) = table.do(Approve(table.proposal))
    assert isinstance(asked, Asked)
    assert (table.wants, table.disk) == (Wants.NONCES, [])
    first = Psbt.parse_untrusted(table.psbt).inputs[0]
    assert [len(value) for _, value in first.of_type(In.MUSIG2_PARTICIPANTS)] == [3 * 33]
    assert not list(first.of_type(In.MUSIG2_PUB_NONCE))


def test_the_nonces_that_come_are_the_yes_and_serve_the_first_attempt(table: Table) -> None:
    table.approved(table.signer())
    assert table.wants is Wants.NOTHING
    (made,) = table.ask_nonces()
    assert isinstance(made, NoncesMade)
    assert [type(journal.read(one)) for one in table.disk] == [journal.ApprovalGiven, journal.NoncesLent]


def test_the_partial_signatures_that_come_are_those_of_round_2(table: Table) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    (made,) = table.bring(signer.round_two(table.psbt))
    read = decode_untrusted(MessageType.PARTIAL_SIGNATURE, made.payload)
    assert isinstance(read, PartialSignature)
    assert [type(journal.read(one)) for one in table.disk[2:]] == [journal.SlotsBurned, journal.PartialsOut]
    assert table.wants is Wants.NOTHING
    assert len(list(Psbt.parse_untrusted(table.psbt).inputs[0].of_type(In.MUSIG2_PARTIAL_SIG))) == 1


def test_what_a_proposer_put_in_as_our_nonce_does_not_go_to_the_signer(table: Table) -> None:
    table.do(Approve(table.proposal))
    read = decode_untrusted(MessageType.TRANSACTION_PROPOSAL, table.proposal.payload)
    assert isinstance(read, TransactionProposal)
    record = structs.replace(read, psbt=table.signer().round_one(table.psbt), random=b"\x09" * 32)
    table.session = session_id(ALICE, record)
    table.do(Approve(say("alice", MessageType.TRANSACTION_PROPOSAL, table.session, record)))
    assert not list(Psbt.parse_untrusted(table.psbt).inputs[0].of_type(In.MUSIG2_PUB_NONCE))


def amount(sat: int) -> bytes:
    return sat.to_bytes(8, "little")


Change = Callable[[bytes], bytes]

CHANGED: list[tuple[str, Change, str]] = [
    ("an unknown field", lambda data: field(data, 0x70, b"x", b"y"), "field 0x70 of input 0"),
    ("a sighash type", lambda data: field(data, In.SIGHASH_TYPE, b"", bytes(4)), "changed: sighash type of input 0"),
    ("a signature", lambda data: field(data, In.TAP_KEY_SIG, b"", bytes(64), 1), "changed: key-path sig"),
    ("an internal key", lambda data: field(data, In.TAP_INTERNAL_KEY, b"", None), "changed: internal key"),
    ("an amount", lambda data: data.replace(amount(600_000), amount(600_001)), ": unsigned"),
    ("not a PSBT", lambda data: data[1:], "not a PSBT"),
    ("cut", lambda data: data[:-3], "end early"),
    ("unchanged", lambda data: data, "the signer added no"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), [row[1:] for row in CHANGED], ids=[row[0] for row in CHANGED])
@pytest.mark.parametrize("phase", [Wants.NONCES, Wants.PARTIALS])
def test_what_comes_back_changed_is_refused_by_name_and_nothing_is_lost(
    table: Table, phase: Wants, change: Change, text: str
) -> None:
    signer = table.signer()
    sign = signer.round_one
    if phase is Wants.PARTIALS:
        table.in_round_2(signer)
        sign = signer.round_two
    else:
        table.do(Approve(table.proposal))
    before, disk = table.psbt, list(table.disk)
    right = sign(before)
    with pytest.raises(NetworkError, match=text):
        table.bring(change(before if text.startswith("the signer") else right))
    assert (table.wants, table.psbt, table.disk) == (phase, before, disk)
    assert table.bring(right)


def test_nonces_of_others_may_not_be_added_or_changed(table: Table) -> None:
    signer = table.signer()
    table.do(Approve(table.proposal))
    alices = Cosigner(GROUP.wallet, GROUP.positions[ALICE], Known()).round_one(signer.round_one(table.psbt))
    with pytest.raises(NetworkError, match="of another cosigner did not come back unchanged"):
        table.bring(alices)
    table = Table()
    signer = table.signer()
    table.in_round_2(signer)
    right = signer.round_two(table.psbt)
    carols = key_data(right, In.MUSIG2_PUB_NONCE, "carol")
    other = dict(Psbt.parse_untrusted(alices).inputs[1].of_type(In.MUSIG2_PUB_NONCE))
    wrong = next(value for key, value in other.items() if key.startswith(KEYS["alice"]))
    for value in (wrong, None):
        with pytest.raises(NetworkError, match="of another cosigner did not come back unchanged of key"):
            table.bring(field(right, In.MUSIG2_PUB_NONCE, carols, value))
    assert table.bring(right)


@pytest.mark.parametrize("kind", [In.MUSIG2_PUB_NONCE, In.MUSIG2_PARTIAL_SIG])
@pytest.mark.parametrize(("place", "rule"), [("key", "X10"), ("leaf", "X9"), ("stranger", "X14")])
def test_contributions_for_something_else_break_a_rule(table: Table, kind: int, place: str, rule: str) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    right = signer.round_two(table.psbt)
    own = key_data(right, kind, "bob")
    value = dict(Psbt.parse_untrusted(right).inputs[0].of_type(kind))[own]
    data = {"key": own[:33] + ALICE, "leaf": own + bytes(32), "stranger": ALICE + own[33:]}[place]
    with pytest.raises(NetworkError, match=rule):
        table.bring(field(right, kind, data, value))
    assert table.wants is Wants.PARTIALS


def test_a_nonce_that_is_no_point_is_refused(table: Table) -> None:
    table.do(Approve(table.proposal))
    right = table.signer().round_one(table.psbt)
    own = key_data(right, In.MUSIG2_PUB_NONCE, "bob")
    with pytest.raises(InvalidContributionError):
        table.bring(field(right, In.MUSIG2_PUB_NONCE, own, b"\x02" + b"\xff" * 32 + b"\x03" + b"\xff" * 32))
    assert table.wants is Wants.NONCES


def test_a_partial_signature_that_does_not_verify_is_refused_and_the_right_one_is_taken(table: Table) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    right = signer.round_two(table.psbt)
    own = key_data(right, In.MUSIG2_PARTIAL_SIG, "bob", 1)
    with pytest.raises(NetworkError, match=r"does not verify.*input 1"):
        table.bring(field(right, In.MUSIG2_PARTIAL_SIG, own, bytes(31) + b"\x01", 1))
    (made,) = table.bring(right)
    assert isinstance(made, PartialsMade)


def test_a_partial_signature_before_the_others_nonces_is_refused(table: Table) -> None:
    table.do(Approve(table.proposal))
    right = table.signer().round_one(table.psbt)
    own = key_data(right, In.MUSIG2_PUB_NONCE, "bob")
    with pytest.raises(NetworkError, match="before the nonces of the others"):
        table.bring(field(right, In.MUSIG2_PARTIAL_SIG, own, bytes(32)))


def test_one_nonce_for_two_inputs_is_refused(table: Table) -> None:
    table.do(Approve(table.proposal))
    right = table.signer().round_one(table.psbt)
    first, second = (key_data(right, In.MUSIG2_PUB_NONCE, "bob", at) for at in (0, 1))
    value = dict(Psbt.parse_untrusted(right).inputs[0].of_type(In.MUSIG2_PUB_NONCE))[first]
    with pytest.raises(NetworkError, match="used before"):
        table.bring(field(right, In.MUSIG2_PUB_NONCE, second, value, 1))


@pytest.mark.parametrize("restarted", [False, True])
def test_nonces_serve_one_attempt_ever(table: Table, restarted: bool) -> None:
    table.approved(table.signer())
    table.ask_nonces()
    if restarted:
        table.restart()
        assert table.do(Status(table.session)) == [
            StatusIs(table.session, table.digest, 1, b"", table.bridge.epoch, False)
        ]
    assert table.ask_nonces(2) == []
    assert table.wants is Wants.NONCES
    with pytest.raises(NetworkError, match="used before"):
        table.bring(table.signer().round_one(table.psbt))
    (made,) = table.bring(table.signer("again").round_one(table.psbt))
    assert (made.attempt, made.epoch) == (2, table.bridge.epoch)


def test_what_was_signed_is_said_again_byte_for_byte_after_a_restart(table: Table) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    (made,) = table.bring(signer.round_two(table.psbt))
    table.restart()
    (status,) = table.do(Status(table.session))
    assert (status.attempt, status.partials) == (1, made.payload)
    assert table.wants is Wants.NOTHING


def test_newer_nonces_take_the_place_of_those_that_no_attempt_has_taken(table: Table) -> None:
    table.do(Approve(table.proposal))
    out, newer = table.psbt, table.signer("newer")
    table.bring(table.signer().round_one(out))
    table.bring(newer.round_one(out))
    table.ask_nonces()
    table.do(MakePartials(table.session, 1, table.others(table.nonces())))
    (made,) = table.bring(newer.round_two(table.psbt))
    assert isinstance(made, PartialsMade)


def test_nothing_is_taken_while_nothing_is_wanted(table: Table) -> None:
    with pytest.raises(LocalError, match="no such session"):
        table.bring(b"")
    table.approved(table.signer())
    table.ask_nonces()
    with pytest.raises(LocalError, match="nothing is wanted"):
        table.bring(table.psbt)


def test_the_attempt_that_is_gone_is_not_signed(table: Table) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    late = signer.round_two(table.psbt)
    assert table.ask_nonces(2) == []
    with pytest.raises(NetworkError):
        table.bring(late)
    assert table.wants is Wants.NONCES


def test_a_session_that_is_left_is_not_exported_any_more(table: Table) -> None:
    table.do(Approve(table.proposal))
    table.do(Wipe(table.session))
    assert table.wants is Wants.NOTHING
    table = Table()
    table.approved(table.signer())
    table.do(Wipe(table.session))
    assert table.wants is Wants.NOTHING


def test_a_coin_that_another_approval_spends_is_not_approved_twice(table: Table) -> None:
    second = Table(random=b"\x08" * 32)
    second.bridge = table.bridge
    assert isinstance(second.do(Approve(second.proposal))[0], Asked)
    table.approved(table.signer())
    with pytest.raises(LocalError, match="another approval spends the same coin"):
        second.bring(second.signer("other").round_one(second.psbt))
    third = Table(random=b"\x09" * 32)
    third.bridge = table.bridge
    assert isinstance(third.do(Approve(third.proposal))[0], Refused)


def test_coins_that_a_partial_has_left_for_are_given_up_by_name_alone(table: Table) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    table.bring(signer.round_two(table.psbt))
    second = Table(random=b"\x08" * 32)
    second.bridge = table.bridge
    (asked,) = second.do(Approve(second.proposal))
    assert asked.replaces == {table.session}
    brought = second.signer("other").round_one(second.psbt)
    with pytest.raises(LocalError, match=f"another session's.*{table.session.hex()[:8]}.*--replace"):
        second.bring(brought)
    assert second.wants is Wants.NONCES
    replies = second.bring(brought, replaces=asked.replaces)
    assert [(type(one), one.session) for one in replies] == [(Wiped, table.session), (Approved, second.session)]


def test_nonces_that_wait_for_one_session_are_not_taken_for_another(table: Table) -> None:
    """Whoever carries the PSBTs could copy them: the signer would be shown one nonce in two of them."""
    table.approved(table.signer())
    second = Table(first_coin=2)
    second.bridge, second.disk = table.bridge, table.disk
    second.do(Approve(second.proposal))
    copied = second.signer("other").round_one(second.psbt)
    for at in (0, 1):
        ((_, nonce),) = Psbt.parse_untrusted(table.psbt).inputs[at].of_type(In.MUSIG2_PUB_NONCE)
        copied = field(copied, In.MUSIG2_PUB_NONCE, key_data(copied, In.MUSIG2_PUB_NONCE, "bob", at), nonce, at)
    with pytest.raises(NetworkError, match="used before"):
        second.bring(copied)
    assert second.bring(second.signer("other").round_one(second.psbt))


def test_a_partial_signature_that_is_brought_twice_at_once_is_taken_once(table: Table) -> None:
    signer = table.signer()
    table.in_round_2(signer)
    right = signer.round_two(table.psbt)
    (store,) = table.bridge.import_untrusted(table.session, right, NOW)
    with pytest.raises(LocalError, match="nothing is wanted"):
        table.bridge.import_untrusted(table.session, right, NOW)
    assert [type(one) for one in table.bridge.handle(Stored(store.number), NOW)] == [PartialsMade]


def test_nothing_is_signed_after_the_end_of_its_time(table: Table) -> None:
    """Whatever the node says: it may be the one that wants it."""
    signer = table.signer()
    table.in_round_2(signer)
    right = signer.round_two(table.psbt)
    with pytest.raises(LocalError, match="no such session"):
        table.bring(right, NOW + 3600)
    assert not any(isinstance(journal.read(one), journal.PartialsOut) for one in table.disk)


def test_after_the_end_of_its_time_it_is_forgotten(table: Table) -> None:
    table.do(Approve(table.proposal))
    right = table.signer().round_one(table.psbt)
    with pytest.raises(LocalError, match="no such session"):
        table.bring(right, NOW + 3600)


def test_in_a_star_it_takes_no_part() -> None:
    table = Table()
    star = proposal(topology=Topology.STAR)
    (refused,) = perform(table.bridge, Approve(star))
    assert isinstance(refused, Refused)
    assert "mesh" in str(refused.error)


# --- the others wait without a clock --------------------------------------------------------------------------------


def by_hand(names: Sequence[str] = ("bob",)) -> One:
    """Carol's session, in which these have said that their part is carried."""
    one = One()
    one.do(Approved(ID, one.digest))
    for name in ("alice", "bob"):
        one.hear(name, MessageType.APPROVAL, Approval(one.digest, by_hand=name in names))
    return one


def wait(one: One, times: int = 50) -> float:
    now = NOW
    for _ in range(times):
        now += Limits().reapprove_s
        one.do(Woken(), now)
    return now


def test_whoever_carries_is_not_called_silent() -> None:
    one = by_hand()
    one.hear("alice", MessageType.PUBLIC_NONCE, nonce())
    wait(one)
    assert (one.outcome, one.sessions[ID].attempt, one.sessions[ID].state) == (None, 1, State.ROUND_1)


def test_whoever_does_not_is() -> None:
    one = by_hand()
    for attempt in range(1, 4):
        one.hear("bob", MessageType.PUBLIC_NONCE, nonce(attempt))
        one.do(Woken(), NOW + attempt * 100)
    assert one.outcome.suspects == (ALICE,)


def test_lost_nonces_wait_for_whoever_carries() -> None:
    one = by_hand()
    assert verbs(one.do(AttemptLost(ID, 1, b"epoch 1."))) == []
    assert one.sessions[ID].state is State.APPROVING
    wait(one)
    assert one.sessions[ID].attempt == 1
    assert verbs(one.hear("bob", MessageType.PUBLIC_NONCE, nonce(2))) == [MakeNonces]


def test_another_members_lost_nonces_waste_no_attempt_either() -> None:
    one = by_hand()
    one.hear("alice", MessageType.PUBLIC_NONCE, nonce())
    assert verbs(one.hear("alice", MessageType.ATTEMPT_GONE, AttemptGone(1, b"epoch 1."))) == []
    assert one.sessions[ID].state is State.APPROVING
    assert verbs(one.hear("bob", MessageType.PUBLIC_NONCE, nonce(2))) == [MakeNonces]


class Own(One):
    """Carol's session, and it is her part that is carried."""

    def __init__(self) -> None:
        self.sessions = Sessions(GROUP, CAROL, by_hand=True)
        self.do(PROPOSAL)
        self.digest = self.sessions[ID].digest


def test_our_own_approval_says_so_and_our_own_signer_is_waited_for() -> None:
    one = Own().approved()
    sent = [said for said in one.do(Woken(), NOW + Limits().reapprove_s) if isinstance(said, SendToGroup)]
    assert kinds(sent) == [MessageType.APPROVAL]
    assert sent[0].payload == encode(Approval(one.digest, by_hand=True))
    for name in ("alice", "bob"):
        one.hear(name, MessageType.PUBLIC_NONCE, nonce())
    wait(one)
    assert (one.outcome, one.sessions[ID].attempt) == (None, 1)


def test_what_the_signer_was_brought_goes_on_between_attempts() -> None:
    one = Own()
    one.do(Present(frozenset((ALICE, BOB, CAROL))))
    one.approved()
    one.hear("alice", MessageType.APPROVAL, Approval(one.digest))
    session = one.sessions[ID]
    session._wait(frozenset())
    assert verbs(one.do(Present(frozenset((ALICE, BOB, CAROL))))) == [MakeNonces]


def test_it_ends_with_its_time() -> None:
    one = by_hand()
    one.do(Woken(), NOW + 3601)
    assert one.outcome.end is End.EXPIRED
