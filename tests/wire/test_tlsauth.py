"""The three acts inside TLS: both sides agree, and no changed, swapped, relayed or replayed act holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musignet.crypto.keys import Identity
from musignet.crypto.schnorr import PublicKey
from musignet.wire.noise import HandshakeError, Keys
from musignet.wire.tlsauth import ACT_ONE_BYTES, ACT_THREE_BYTES, ACT_TWO_BYTES, Framer, Initiator, Responder
from support.keys import ALICE, BOB, CAROL, secret

CERTIFICATE, OTHER_CERTIFICATE = secret("certificate"), secret("another certificate")
NONCE, CHALLENGE = secret("nonce"), secret("challenge")


def dials(
    who: Identity = ALICE, whom: Identity = BOB, certificate: bytes = CERTIFICATE, nonce: bytes = NONCE
) -> Initiator:
    return Initiator(who, whom.public, nonce, certificate)


def answers(who: Identity = BOB, certificate: bytes = CERTIFICATE, challenge: bytes = CHALLENGE) -> Responder:
    return Responder(who, challenge, certificate)


def agreed(initiator: Initiator, responder: Responder) -> tuple[list[bytes], Keys, Keys]:
    """Run the acts; return them and what each side holds."""
    one = initiator.act_one()
    two = responder.act_two(one)
    three, dialler = initiator.act_three(two)
    return [one, two, three], dialler, responder.finish(three)


def test_both_sides_prove_their_keys_and_share_a_transcript() -> None:
    acts, dialler, listener = agreed(dials(), answers())
    assert [len(act) for act in acts] == [ACT_ONE_BYTES, ACT_TWO_BYTES, ACT_THREE_BYTES]
    assert (dialler.peer, listener.peer) == (BOB.public, ALICE.public)
    assert dialler.transcript == listener.transcript
    assert len(dialler.transcript) == 32


@pytest.mark.parametrize(
    ("initiator", "responder"),
    [
        (dials(nonce=secret("n")), answers()),
        (dials(), answers(challenge=secret("c"))),
        (dials(certificate=OTHER_CERTIFICATE), answers(certificate=OTHER_CERTIFICATE)),
        (dials(CAROL), answers()),
        (dials(whom=CAROL), answers(CAROL)),
    ],
    ids=["nonce", "challenge", "certificate", "dialler", "listener"],
)
def test_the_transcript_covers_everything(initiator: Initiator, responder: Responder) -> None:
    assert agreed(initiator, responder)[1].transcript != agreed(dials(), answers())[1].transcript


def test_acts_one_and_two_show_no_key_and_act_three_only_the_diallers() -> None:
    one, two, three = agreed(dials(), answers())[0]
    for key in (ALICE, BOB):
        assert key.pubkey[1:] not in one + two
    assert ALICE.pubkey in three
    assert BOB.pubkey[1:] not in three


@given(st.integers(0, ACT_ONE_BYTES * 8 - 1))
def test_a_changed_act_one_gets_no_answer(bit: int) -> None:
    with pytest.raises(HandshakeError, match="ACT1_BAD"):
        answers().act_two(_flipped(dials().act_one(), bit))


@given(st.integers(0, ACT_TWO_BYTES * 8 - 1))
def test_a_changed_act_two_shows_no_identity(bit: int) -> None:
    initiator = dials()
    two = answers().act_two(initiator.act_one())
    with pytest.raises(HandshakeError, match="ACT2_BAD"):
        initiator.act_three(_flipped(two, bit))


@given(st.integers(0, ACT_THREE_BYTES * 8 - 1))
def test_a_changed_act_three_opens_nothing(bit: int) -> None:
    initiator, responder = dials(), answers()
    three, _ = initiator.act_three(responder.act_two(initiator.act_one()))
    with pytest.raises(HandshakeError, match="ACT3_BAD"):
        responder.finish(_flipped(three, bit))


def test_who_does_not_know_the_key_gets_no_answer() -> None:
    with pytest.raises(HandshakeError, match="ACT1_BAD_TAG"):
        answers().act_two(dials(whom=CAROL).act_one())


def test_a_swapped_certificate_is_refused_by_the_listener() -> None:
    with pytest.raises(HandshakeError, match="ACT1_BAD_TAG"):
        answers().act_two(dials(certificate=OTHER_CERTIFICATE).act_one())


def test_a_swapped_certificate_is_refused_by_the_dialler() -> None:
    """The man in the middle knows the listener's key, and makes an act one of his own for the true certificate."""
    two = answers().act_two(dials(CAROL).act_one())
    with pytest.raises(HandshakeError, match="ACT2_BAD_SIGNATURE"):
        dials(certificate=OTHER_CERTIFICATE).act_three(two)


def test_only_the_dialled_key_can_vouch() -> None:
    imposter = Responder(CAROL, CHALLENGE, CERTIFICATE)
    two = imposter.act_two(dials(whom=CAROL).act_one())
    with pytest.raises(HandshakeError, match="ACT2_BAD_SIGNATURE"):
        dials().act_three(two)


def test_a_proof_for_one_listener_is_none_for_another() -> None:
    """Alice dials Carol, who takes Bob's challenge and certificate hash for hers and forwards Alice's proof to Bob."""
    bob, carol, alice = answers(), answers(CAROL), dials(whom=CAROL)
    bob.act_two(dials(CAROL).act_one())
    three, _ = alice.act_three(carol.act_two(alice.act_one()))
    with pytest.raises(HandshakeError, match="ACT3_BAD_SIGNATURE"):
        bob.finish(three)


def test_a_proof_for_one_certificate_is_none_for_another() -> None:
    initiator = dials(certificate=OTHER_CERTIFICATE)
    three, _ = initiator.act_three(answers(certificate=OTHER_CERTIFICATE).act_two(initiator.act_one()))
    responder = answers()
    responder.act_two(dials().act_one())
    with pytest.raises(HandshakeError, match="ACT3_BAD_SIGNATURE"):
        responder.finish(three)


def test_recorded_acts_do_not_hold_again() -> None:
    one, two, three = agreed(dials(), answers())[0]
    with pytest.raises(HandshakeError, match="ACT2_BAD_SIGNATURE"):
        dials(nonce=secret("n")).act_three(two)
    fresh = answers(challenge=secret("c"))
    fresh.act_two(one)
    with pytest.raises(HandshakeError, match="ACT3_BAD_SIGNATURE"):
        fresh.finish(three)


def test_a_key_of_the_other_parity_is_another_key() -> None:
    """BIP-340 signs under x alone: the digest holds all 33 bytes."""
    initiator, responder = dials(), answers()
    three, _ = initiator.act_three(responder.act_two(initiator.act_one()))
    turned = three[:1] + bytes((three[1] ^ 1,)) + three[2:]
    assert PublicKey(turned[1:34]) != ALICE.public
    with pytest.raises(HandshakeError, match="ACT3_BAD_SIGNATURE"):
        responder.finish(turned)


def test_acts_out_of_order_or_of_another_length_are_refused() -> None:
    three = agreed(dials(), answers())[0][2]
    with pytest.raises(HandshakeError, match="ACT3_BEFORE_ACT1"):
        answers().finish(three)
    for number, call in enumerate((answers().act_two, dials().act_three, answers().finish), start=1):
        with pytest.raises(HandshakeError, match=f"ACT{number}_READ_FAILED"):
            call(b"")


def test_a_wiped_handshake_can_be_wiped_again() -> None:
    responder = answers()
    responder.wipe()
    responder.wipe()


@given(st.binary(max_size=65_535))
def test_a_framer_gives_back_what_it_took(body: bytes) -> None:
    packet = b"".join(Framer().seal(body))
    assert Framer().open_untrusted(b"?" + packet + b"?", 1) == (body, 1 + len(packet))
    assert all(Framer().open_untrusted(packet[:end], 0) is None for end in (0, 1, len(packet) - 1))


def _flipped(act: bytes, bit: int) -> bytes:
    return (int.from_bytes(act, "big") ^ 1 << bit).to_bytes(len(act), "big")
