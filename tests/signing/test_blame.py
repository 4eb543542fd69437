"""Blame records: each proves what it says to somebody who has nothing else, and nothing else than that."""

from __future__ import annotations

import msgspec
import pytest

from musignet.errors import InvalidMessage, NetworkError, PeerError
from musignet.signing.blame import BlameRecord, Kind, accuse, verify_blame
from musignet.signing.proposal import Proposal
from musignet.signing.records import Approval, PartialSignature, PublicNonce, TransactionComplete, decode_untrusted
from musignet.wire.messages import MessageType
from support.blame import PROVING, RECORDS
from support.ceremony import identity, say, signing_group
from support.ceremony_world import World
from support.one_session import One

_read = msgspec.msgpack.Decoder(BlameRecord).decode
_write = msgspec.msgpack.Encoder().encode


GROUP = signing_group()
BOB = identity("bob").pubkey


@pytest.mark.parametrize("liar", PROVING)
def test_it_names_the_liar_and_the_slot(liar: str) -> None:
    verdict = verify_blame(RECORDS[liar], GROUP)
    assert verdict.accused == BOB
    assert verdict.slot == {"bad partial": 1, "wrong completion": 0}.get(liar)
    assert "is proved at fault" in str(verdict)


@pytest.mark.parametrize("liar", PROVING)
def test_it_proves_nothing_in_another_group(liar: str) -> None:
    with pytest.raises(PeerError):
        verify_blame(RECORDS[liar], signing_group("participants"))


@pytest.mark.parametrize("liar", PROVING)
def test_it_ends_no_other_session_of_the_group(liar: str) -> None:
    one = One().approved()
    one.hear("alice", MessageType.BLAME, RECORDS[liar])
    assert one.outcome is None


@pytest.mark.parametrize("liar", PROVING)
@pytest.mark.parametrize("kind", Kind)
def test_it_proves_nothing_of_another_kind(liar: str, kind: Kind) -> None:
    read = _read(RECORDS[liar])
    if kind == read.kind:
        return
    with pytest.raises(PeerError):
        verify_blame(_write(BlameRecord(kind, read.proposal, read.evidence, read.nonces)), GROUP)


@pytest.mark.parametrize("liar", PROVING)
def test_a_changed_record_is_refused_or_says_the_same(liar: str) -> None:
    verdict = verify_blame(RECORDS[liar], GROUP)
    for at in range(0, len(RECORDS[liar]), 37):
        changed = bytearray(RECORDS[liar])
        changed[at] ^= 1
        try:
            assert verify_blame(bytes(changed), GROUP) == verdict
        except NetworkError:
            continue


# --- nobody honest can be framed --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest() -> World:
    return World(3, inputs=2).run()


def _said(world: World, kind: MessageType) -> dict[bytes, object]:
    return {one.sender_key: one for one in world._heard if one.type == kind}


def test_honest_messages_prove_nothing(honest: World) -> None:
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    nonces, partials, approvals, done = (
        _said(honest, kind)
        for kind in (
            MessageType.PUBLIC_NONCE,
            MessageType.PARTIAL_SIGNATURE,
            MessageType.APPROVAL,
            MessageType.TRANSACTION_COMPLETE,
        )
    )
    payloads = [nonces[one].payload for one in honest.group.identities]
    for one in honest.group.identities:
        attempts = [
            accuse(Kind.BAD_PARTIAL, proposed, (partials[one],), payloads),
            accuse(Kind.BAD_PARTIAL, proposed, (partials[one],), payloads[::-1]),
            accuse(Kind.EQUIVOCATION, proposed, (nonces[one], nonces[one])),
            accuse(Kind.EQUIVOCATION, proposed, (nonces[one], partials[one])),
            accuse(Kind.MALFORMED, proposed, (nonces[one], approvals[one])),
            accuse(Kind.MALFORMED, proposed, (approvals[one], approvals[one])),
            accuse(Kind.WRONG_TRANSCRIPT, proposed, (partials[one], nonces[one])),
        ]
        if one in done:
            attempts.append(accuse(Kind.WRONG_COMPLETION, proposed, (done[one], approvals[one])))
        for record in attempts:
            with pytest.raises(PeerError):
                verify_blame(record, honest.group)


@pytest.mark.parametrize(("epoch", "whose"), [(b"epoch 2.", BOB), (b"epoch 1.", identity("alice").pubkey)])
def test_bad_nonces_beside_a_good_partial_prove_nothing(honest: World, epoch: bytes, whose: bytes) -> None:
    """The accuser swaps another member's nonce payload: the accused signed for the right one (THREATS.md M5)."""
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    nonces, partials = (_said(honest, kind) for kind in (MessageType.PUBLIC_NONCE, MessageType.PARTIAL_SIGNATURE))
    other = decode_untrusted(MessageType.PUBLIC_NONCE, nonces[whose].payload)
    swapped = {one: message.payload for one, message in nonces.items()}
    swapped[BOB] = say("x", MessageType.PUBLIC_NONCE, b"", PublicNonce(1, epoch, other.nonces)).payload
    carol = identity("carol").pubkey
    record = accuse(Kind.BAD_PARTIAL, proposed, (partials[carol],), [swapped[one] for one in honest.group.identities])
    with pytest.raises(InvalidMessage, match="proves nothing"):
        verify_blame(record, honest.group)


def test_another_boot_epoch_is_no_equivocation(honest: World) -> None:
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    pair = [
        say("bob", MessageType.PARTIAL_SIGNATURE, proposed.session, PartialSignature(1, epoch, bytes(32), bytes(64)))
        for epoch in (b"epoch 1.", b"epoch 2.")
    ]
    with pytest.raises(InvalidMessage, match="boot epoch"):
        verify_blame(accuse(Kind.EQUIVOCATION, proposed, pair), honest.group)


def test_who_approved_something_else_did_not_agree_on_the_slots(honest: World) -> None:
    proposed = Proposal.open_untrusted(honest.proposal, honest.group)
    short = say("bob", MessageType.TRANSACTION_COMPLETE, proposed.session, TransactionComplete(bytes(64)))
    approval = say("bob", MessageType.APPROVAL, proposed.session, Approval(bytes(32)))
    with pytest.raises(InvalidMessage, match="an approval of this proposal"):
        verify_blame(accuse(Kind.MALFORMED, proposed, (short, approval)), honest.group)
