"""The records of a ceremony: bounds, and hashes in which every part counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet import limits
from musignet.bitcoin.group import Known
from musignet.crypto.keyagg import InvalidContributionError
from musignet.crypto.keys import Identity
from musignet.errors import AuthenticationError, InvalidMessage, LocalError, SerializationError
from musignet.signing import rounds
from musignet.signing.group import Member, SigningGroup
from musignet.signing.proposal import Proposal
from musignet.signing.records import (
    AggregateNonces,
    AggregateShown,
    Approval,
    AttemptBegin,
    AttemptFailed,
    AttemptGone,
    ListWanted,
    NonceList,
    PartialSignature,
    PublicNonce,
    Topology,
    TransactionComplete,
    TransactionProposal,
    approval_digest,
    consent_digest,
    decode_untrusted,
    encode,
    nonce_root,
    session_id,
    split,
    star_transcript_hash,
    transcript_hash,
)
from musignet.signing.states import TRANSITIONS, Event, Role, State, step
from musignet.wire.codec import Record
from musignet.wire.messages import MessageType
from support.ceremony import NOW, identity, proposal, signing_group
from support.keys import GROUP_ORDER, secret
from support.wallet import MEMBERS, group, xpub

H, E = bytes(range(32)), bytes(8)
VALID: Mapping[MessageType, Record] = {
    MessageType.TRANSACTION_PROPOSAL: TransactionProposal(H, H, 1, b"psbt", "memo"),
    MessageType.APPROVAL: Approval(H),
    MessageType.PUBLIC_NONCE: PublicNonce(1, E, bytes(66)),
    MessageType.PARTIAL_SIGNATURE: PartialSignature(16, E, H, bytes(32)),
    MessageType.TRANSACTION_COMPLETE: TransactionComplete(bytes(64)),
    MessageType.ATTEMPT_GONE: AttemptGone(0, E),
    MessageType.NONCE_LIST: NonceList(1, b"own", (b"one", b"two")),
    MessageType.ATTEMPT_BEGIN: AttemptBegin(1, H),
    MessageType.AGGREGATE_NONCE: AggregateNonces(1, E, H, bytes(66)),
    MessageType.AGGREGATE_SHOWN: AggregateShown(b"envelope"),
    MessageType.LIST_WANTED: ListWanted(1),
    MessageType.ATTEMPT_FAILED: AttemptFailed(1, (bytes(33),), (bytes(33), bytes(33))),
}


@pytest.mark.parametrize("kind", VALID)
def test_a_record_has_one_encoding(kind: MessageType) -> None:
    data = encode(VALID[kind])
    assert decode_untrusted(kind, data) == VALID[kind]
    for bad in (b"", data[:-1], data + b"\x00"):
        with pytest.raises(SerializationError):
            decode_untrusted(kind, bad)


OUT_OF_BOUNDS: list[Record] = [
    TransactionProposal(H[1:], H, 1, b"psbt", ""),
    TransactionProposal(H, H + b"\0", 1, b"psbt", ""),
    TransactionProposal(H, H, -1, b"psbt", ""),
    TransactionProposal(H, H, 1, b"", ""),
    TransactionProposal(H, H, 1, bytes(limits.PSBT_MAX_BYTES + 1), ""),
    TransactionProposal(H, H, 1, b"psbt", "x" * 65),
    Approval(b""),
    PublicNonce(0, E, bytes(66)),
    PublicNonce(limits.ATTEMPTS_MAX + 1, E, bytes(66)),
    PublicNonce(1, E[1:], bytes(66)),
    PublicNonce(1, E, bytes(65)),
    PublicNonce(1, E, bytes(66 * limits.SLOTS_MAX + 1)),
    PartialSignature(1, E, H[1:], bytes(32)),
    PartialSignature(1, E, H, bytes(31)),
    TransactionComplete(bytes(63)),
    AttemptGone(-1, E),
    Approval(H, limits.ATTEMPTS_MAX + 1),
    AttemptBegin(1, H[1:]),
    AggregateNonces(1, E, H, bytes(65)),
    ListWanted(0),
    AttemptFailed(1, (bytes(32),), ()),
    AttemptFailed(1, (), (bytes(33),) * (limits.PROGRESS_NAMES_MAX + 1)),
    NonceList(1, b"", (b"",) * (limits.GROUP_KEYS_MAX + 1)),
]


@pytest.mark.parametrize("record", OUT_OF_BOUNDS, ids=lambda record: type(record).__name__)
def test_a_field_out_of_bounds(record: Record) -> None:
    with pytest.raises(SerializationError):
        encode(record)


@given(st.sampled_from(sorted(VALID)), st.binary(max_size=200))
def test_any_bytes_are_a_record_or_refused(kind: MessageType, data: bytes) -> None:
    try:
        record = decode_untrusted(kind, data)
    except SerializationError:
        return
    assert encode(record) == data


def test_a_type_that_carries_no_record() -> None:
    with pytest.raises(SerializationError, match="not a ceremony message"):
        decode_untrusted(MessageType.PING, b"")


def test_split() -> None:
    assert split(b"aabb", 2, 2) == (b"aa", b"bb")
    for data in (b"aab", b"aabbc"):
        with pytest.raises(SerializationError, match="one part for each slot"):
            split(data, 2, 2)


# --- every part of a hash counts --------------------------------------------------------------------------------------


def _all_different(values: list[bytes]) -> None:
    assert len({*values}) == len(values)
    assert {len(value) for value in values} == {32}


def test_the_session_id_covers_each_field_and_the_proposer() -> None:
    base = TransactionProposal(H, H, 1, b"psbt", "memo")
    variants = [base]
    for changes in (
        {"group": bytes(32)},
        {"random": bytes(32)},
        {"expires_at_ms": 2},
        {"psbt": b"psbu"},
        {"memo": "m"},
    ):
        fields = {name: getattr(base, name) for name in base.__struct_fields__} | changes
        variants.append(TransactionProposal(**fields))
    variants.append(TransactionProposal(H, H, 1, b"psbtmemo", ""))
    variants.append(TransactionProposal(H, H, 1, b"psbt", "memo", Topology.STAR))
    ids = [session_id(identity("alice").pubkey, one) for one in variants]
    _all_different([*ids, session_id(identity("bob").pubkey, base)])


def test_the_approval_covers_session_group_expiry_transaction_and_each_slot() -> None:
    signing = signing_group()
    read = Proposal.open_untrusted(proposal(), signing)
    one, two = read.review(signing, Known(), NOW).slots
    _all_different(
        [
            approval_digest(H, H, 1, H, (one, two)),
            approval_digest(E * 4, H, 1, H, (one, two)),
            approval_digest(H, E * 4, 1, H, (one, two)),
            approval_digest(H, H, 2, H, (one, two)),
            approval_digest(H, H, 1, E * 4, (one, two)),
            approval_digest(H, H, 1, H, (two, one)),
            approval_digest(H, H, 1, H, (one,)),
            approval_digest(H, H, 1, H, ()),
        ]
    )


def test_consent_to_a_replacement_is_another_consent() -> None:
    assert consent_digest(H, ()) == H
    assert consent_digest(H, (E * 4, H)) == consent_digest(H, (H, E * 4))
    _all_different([consent_digest(H, ()), consent_digest(H, (H,)), consent_digest(H, (H, E * 4))])


def test_the_transcript_covers_everything() -> None:
    signing, other = signing_group(), signing_group("participants")
    nonces = {one: (E, b"nonce " + one) for one in signing.identities}
    first = signing.identities[0]
    _all_different(
        [
            transcript_hash(signing, H, 1, H, nonces),
            transcript_hash(other, H, 1, H, nonces),
            transcript_hash(signing, E * 4, 1, H, nonces),
            transcript_hash(signing, H, 2, H, nonces),
            transcript_hash(signing, H, 1, E * 4, nonces),
            transcript_hash(signing, H, 1, H, nonces | {first: (b"epoch 2.", b"nonce " + first)}),
            transcript_hash(signing, H, 1, H, nonces | {first: (E, b"another")}),
        ]
    )


# --- who is who -------------------------------------------------------------------------------------------------------


def _members() -> list[Member]:
    return [Member(identity(name).pubkey, str(xpub(name))) for name in MEMBERS]


def test_the_group_id_covers_who_holds_which_key_and_no_order() -> None:
    alice, bob, carol = _members()
    base = SigningGroup(group(), (alice, bob, carol))
    swapped = SigningGroup(group(), (Member(alice.identity, bob.key), Member(bob.identity, alice.key), carol))
    assert SigningGroup(group(), (carol, alice, bob)).id == base.id
    _all_different([base.id, swapped.id, SigningGroup(group("participants"), (alice, bob, carol)).id])
    assert base.identities == tuple(sorted(base.positions))
    assert base.wallet_key(alice.identity) == xpub("alice").point


BAD_GROUPS = {
    "one missing": lambda a, b, c: (a, b),
    "a key twice": lambda a, b, c: (a, b, Member(c.identity, b.key)),
    "an identity twice": lambda a, b, c: (a, b, Member(b.identity, c.key)),
    "an identity that is a wallet key": lambda a, b, c: (a, b, Member(xpub("alice").point, c.key)),
}


@pytest.mark.parametrize("make", BAD_GROUPS.values(), ids=BAD_GROUPS)
def test_not_a_group(make: object) -> None:
    with pytest.raises(InvalidMessage, match="not the cosigners"):
        SigningGroup(group(), make(*_members()))


def test_a_stranger_is_no_member() -> None:
    with pytest.raises(AuthenticationError, match="not a cosigner"):
        signing_group().require(identity("mallory").pubkey)


def test_slots_are_aggregated_to_what_the_review_derived() -> None:
    signing = signing_group()
    slots = Proposal.open_untrusted(proposal(), signing).review(signing, Known(), NOW).slots
    contexts = rounds.contexts(signing, slots)
    assert [one.keyagg.output.compressed for one in contexts] == [slot.signing_key for slot in slots]
    chosen = replace(slots[0], tweaks=(*slots[0].tweaks[:-1], (bytes(31) + b"\1", True)))
    with pytest.raises(LocalError, match="two derivations of one signing key differ"):
        rounds.contexts(signing, [chosen])


def test_the_same_nonces_are_parsed_once_and_others_again() -> None:
    signing = signing_group()
    reviewed = Proposal.open_untrusted(proposal(), signing).review(signing, Known(), NOW)
    slots = rounds.contexts(signing, reviewed.slots)
    points = [identity(name).pubkey + identity(name).pubkey for name in ("alice", "bob", "carol")]
    whose, other = identity("alice").pubkey, identity("bob").pubkey
    first = rounds.parse_nonces(slots, whose, points[0] + points[1])
    assert rounds.parse_nonces(slots, whose, points[0] + points[1]) is first
    assert [one.encoded for one in first] == points[:2]
    assert rounds.parse_nonces(slots, other, points[0] + points[1]) is not first
    second = rounds.parse_nonces(slots, whose, points[0] + points[2])
    assert [one.encoded for one in second] == [points[0], points[2]]
    for bad in (points[0], points[0] + bytes(66), points[0] * 3):
        for _ in range(2):  # a refusal is not remembered
            with pytest.raises((InvalidContributionError, SerializationError)):
                rounds.parse_nonces(slots, whose, bad)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_every_state_is_reached_and_a_missing_key_is_the_refusal() -> None:
    for role, table in TRANSITIONS.items():
        reached = {after for ways in table.values() for after in ways.values()}
        assert reached <= set(table)
        assert len(set(table) - reached) == 1  # where it begins
        for state in table:
            for event in set(Event) - set(table[state]):
                with pytest.raises(LocalError, match="no place here"):
                    step(role, state, event)


def test_nothing_leads_out_of_a_spent_attempt() -> None:
    assert [state for state, ways in TRANSITIONS[Role.ATTEMPT].items() if not ways] == [State.SIGNED, State.GONE]


@pytest.mark.parametrize("whose", ["identity bob", "carol"], ids=["another identity", "a wallet key"])
def test_a_key_and_its_negation_are_one_persons(whose: str) -> None:
    negated = GROUP_ORDER - int.from_bytes(secret(whose), "big")
    alias = Identity.from_secret(negated.to_bytes(32, "big")).pubkey
    honest = signing_group()
    members = [
        Member(alias if member.identity == identity("alice").pubkey else member.identity, member.key)
        for member in honest.members
    ]
    with pytest.raises(InvalidMessage, match="an identity each, none of them a key of the wallet"):
        SigningGroup(honest.wallet, members)


def test_the_transcript_of_a_star_covers_each_part() -> None:
    one, other = signing_group(), signing_group("participants")
    base = {"group": one, "session": H, "attempt": 1, "digest": H, "root": H, "aggregates": bytes(66)}
    changes = [
        {},
        {"group": other},
        {"session": bytes(32)},
        {"attempt": 2},  # another collector, too
        {"attempt": 1 + len(one.identities)},
        {"digest": bytes(32)},
        {"root": bytes(32)},
        {"aggregates": bytes(65) + b"\1"},
    ]
    _all_different([star_transcript_hash(**(base | change)) for change in changes])


def test_the_root_covers_whose_nonce_of_which_epoch_it_is() -> None:
    group = signing_group()
    first, second, third = group.identities
    base = {first: (E, b"1"), second: (E, b"2"), third: (E, b"3")}
    changes = [{}, {first: (E, b"x")}, {first: (bytes([1]) * 8, b"1")}, {first: (E, b"2"), second: (E, b"1")}]
    _all_different([nonce_root(group, base | change) for change in changes])


def test_everybodys_turn_comes() -> None:
    group = signing_group()
    turns = [group.collector(attempt) for attempt in range(1, 7)]
    assert turns == [*group.identities, *group.identities]
