"""Sessions and partial signatures: what verifies, what does not, and who is named for it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musignet.crypto.keyagg import Contribution, InvalidContributionError, KeyAgg
from musignet.crypto.keys import SigningKey
from musignet.crypto.musig2 import AggregateNonce, PublicNonce, SigningSession, nonce_agg
from musignet.crypto.schnorr import PublicKey
from musignet.errors import Action, LocalError
from support.keys import GROUP_ORDER, secret
from support.musig import DIGEST, Cosigners, partials, signing_key

ALICE, BOB, CAROL = (signing_key(name) for name in ("alice", "bob", "carol"))
TRIO = (ALICE, BOB, CAROL)

scalars = st.integers(1, GROUP_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
signing_keys = scalars.map(SigningKey.from_secret)
groups = st.lists(signing_keys, min_size=1, max_size=5)
tweaks = st.lists(st.tuples(scalars, st.booleans()), max_size=4)


def _shifted(partial: bytes, by: int) -> bytes:
    return ((int.from_bytes(partial, "big") + by) % GROUP_ORDER).to_bytes(32, "big")


@settings(max_examples=60)
@given(groups, tweaks, st.binary(min_size=32, max_size=32))
def test_every_group_with_any_tweaks_makes_a_signature(
    keys: list[SigningKey], steps: list[tuple[bytes, bool]], message: bytes
) -> None:
    keyagg = KeyAgg([key.public for key in keys])
    for scalar, xonly in steps:
        keyagg = keyagg.tweak(scalar, xonly=xonly)
    group = Cosigners.meet(keys, keyagg, message)
    signed = partials(group)
    for signer, (nonce, partial) in enumerate(zip(group.nonces, signed, strict=True)):
        assert group.session.partial_verify(signer, nonce, partial)
    signature = group.session.complete(group.nonces, signed)
    assert PublicKey(b"\2" + keyagg.xonly).verify(message, signature)
    assert group.session.verify(signature)


@settings(max_examples=40)
@given(groups, st.data())
def test_a_corrupted_partial_names_its_signer(keys: list[SigningKey], data: st.DataObject) -> None:
    group = Cosigners.meet(keys)
    signed = partials(group)
    liar = data.draw(st.integers(0, len(keys) - 1), label="liar")
    signed[liar] = _shifted(signed[liar], data.draw(st.integers(1, GROUP_ORDER - 1), label="shift"))
    with pytest.raises(InvalidContributionError) as caught:
        group.session.complete(group.nonces, signed)
    error = caught.value
    assert (error.signer, error.pubkey, error.contribution) == (liar, keys[liar].pubkey, Contribution.PSIG)
    assert error.action is Action.ABORT_SESSION
    verdicts = [
        group.session.partial_verify(signer, nonce, partial)
        for signer, (nonce, partial) in enumerate(zip(group.nonces, signed, strict=True))
    ]
    assert verdicts == [signer != liar for signer in range(len(keys))]


def test_the_first_of_several_liars_is_named_and_the_sentence_says_whom() -> None:
    group = Cosigners.meet(TRIO)
    honest, first, second = partials(group)
    short = BOB.pubkey_hex[2:10]
    with pytest.raises(InvalidContributionError) as caught:
        group.session.complete(group.nonces, [honest, _shifted(first, 1), _shifted(second, 1)])
    assert str(caught.value) == (
        f"invalid psig from signer 1 ({short}): expected a partial signature for this session that verifies"
    )


def test_faults_that_cancel_out_harm_nobody() -> None:
    group = Cosigners.meet(TRIO)
    honest, first, second = partials(group)
    signature = group.session.complete(group.nonces, [honest, _shifted(first, 1), _shifted(second, -1)])
    assert group.session.verify(signature)


def test_a_partial_counts_only_for_its_own_session_signer_and_nonce() -> None:
    group, other = Cosigners.meet(TRIO), Cosigners.meet(TRIO, message=secret("another digest"))
    signed, elsewhere = partials(group), partials(other)
    assert group.session.partial_verify(0, group.nonces[0], signed[0])
    assert not group.session.partial_verify(1, group.nonces[0], signed[0])
    assert not group.session.partial_verify(0, group.nonces[1], signed[0])
    assert not group.session.partial_verify(0, group.nonces[0], elsewhere[0])


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33), GROUP_ORDER.to_bytes(32, "big")])
def test_bytes_that_are_no_partial_are_false_and_named_when_aggregated(bad: bytes) -> None:
    group = Cosigners.meet(TRIO)
    signed = partials(group)
    assert group.session.partial_verify(2, group.nonces[2], bad) is False
    with pytest.raises(InvalidContributionError, match="expected 32 bytes below the group order") as caught:
        group.session.partial_agg([*signed[:2], bad])
    assert (caught.value.signer, caught.value.contribution) == (2, Contribution.PSIG)


@pytest.mark.parametrize("signer", [-1, 3])
def test_there_is_no_such_signer(signer: int) -> None:
    group = Cosigners.meet(TRIO)
    with pytest.raises(LocalError, match=f"^no such signer: expected 0 to 2, got {signer}$"):
        group.session.partial_verify(signer, group.nonces[0], bytes(32))


def test_something_missing_is_our_own_fault_and_blames_nobody() -> None:
    group = Cosigners.meet(TRIO)
    signed = partials(group)
    for incomplete in (signed[:2], [*signed, signed[0]], []):
        with pytest.raises(LocalError, match=f"partial signatures .*expected 3, got {len(incomplete)}$"):
            group.session.partial_agg(incomplete)
    with pytest.raises(LocalError, match=r"public nonces .*expected 3, got 2$"):
        group.session.complete(group.nonces[:2], signed)


def test_an_aggregate_nonce_that_is_not_the_sum_blames_the_aggregator_and_no_signer() -> None:
    """Everybody signed for the collector's wrong sum: each partial holds, the whole does not."""
    group = Cosigners.meet(TRIO)
    wrong = SigningSession(nonce_agg(group.nonces[:2]), DIGEST, group.session.keyagg)
    signed = [own.partial_sign(0, key, wrong) for own, key in zip(group.secret_nonces, group.keys, strict=True)]
    with pytest.raises(InvalidContributionError, match=r"^invalid aggnonce from the aggregator") as caught:
        wrong.complete(group.nonces, signed)
    assert (caught.value.signer, caught.value.pubkey, caught.value.contribution) == (None, b"", Contribution.AGGNONCE)


def test_a_framed_signer_looks_guilty_under_a_session_they_did_not_sign() -> None:
    """Why a partial is judged only under the transcript its sender signed (BIP-327, aggregator framing)."""
    group = Cosigners.meet(TRIO)
    signed = partials(group)
    forged = SigningSession(nonce_agg(group.nonces[:2]), DIGEST, group.session.keyagg)
    assert not forged.partial_verify(0, group.nonces[0], signed[0])
    assert group.session.partial_verify(0, group.nonces[0], signed[0])


def test_nonces_travel_as_66_bytes() -> None:
    group = Cosigners.meet(TRIO)
    parsed = [
        PublicNonce.parse_untrusted(nonce.encoded, signer, key.public)
        for signer, (nonce, key) in enumerate(zip(group.nonces, TRIO, strict=True))
    ]
    assert tuple(parsed) == group.nonces
    assert len({hash(nonce) for nonce in parsed}) == 3
    aggregate = nonce_agg(parsed)
    assert aggregate == nonce_agg(parsed[::-1]) == group.session.aggregate_nonce
    assert AggregateNonce.parse_untrusted(aggregate.encoded) == aggregate
    assert len(aggregate.encoded) == 66


@pytest.mark.parametrize("size", [0, 33, 65, 67, 99])
def test_one_point_is_no_nonce_and_neither_are_three(size: int) -> None:
    """THREATS.md M3: a signature with one point for each signer is forged by who opens many sessions at once."""
    group = Cosigners.meet(TRIO)
    encoded = (group.nonces[0].encoded * 2)[:size]
    with pytest.raises(InvalidContributionError, match="66 bytes of two compressed points"):
        PublicNonce.parse_untrusted(encoded, 0, TRIO[0].public)
    with pytest.raises(InvalidContributionError):
        AggregateNonce.parse_untrusted(encoded)


@given(st.binary(max_size=70) | st.tuples(scalars, scalars).map(lambda xs: b"".join(b"\2" + x for x in xs)))
def test_any_bytes_are_a_nonce_or_blame_and_nothing_else(data: bytes) -> None:
    with suppress(InvalidContributionError):
        assert PublicNonce.parse_untrusted(data, 4, BOB.public).encoded == data
    with suppress(InvalidContributionError):
        assert AggregateNonce.parse_untrusted(data).encoded == data


@pytest.mark.parametrize(
    ("data", "got"), [(b"", "nothing"), (bytes(65), "00" * 65), (bytes(66), "00" * 66), (b"\5" * 67, "05" * 67)]
)
def test_an_invalid_nonce_names_signer_key_and_contribution(data: bytes, got: str) -> None:
    with pytest.raises(InvalidContributionError) as caught:
        PublicNonce.parse_untrusted(data, 7, BOB.public)
    error = caught.value
    assert (error.signer, error.pubkey, error.contribution) == (7, BOB.pubkey, Contribution.PUBNONCE)
    assert str(error) == (
        f"invalid pubnonce from signer 7 ({BOB.pubkey_hex[2:10]}): "
        f"expected 66 bytes of two compressed points, got {got}"
    )


def test_an_invalid_aggregate_nonce_blames_the_aggregator() -> None:
    with pytest.raises(InvalidContributionError) as caught:
        AggregateNonce.parse_untrusted(b"\4" * 66)
    error = caught.value
    assert (error.signer, error.pubkey, error.contribution) == (None, b"", Contribution.AGGNONCE)
    assert str(error).startswith("invalid aggnonce from the aggregator: expected 66 bytes, each half")


@pytest.mark.parametrize("junk", [b"\0", b"\2", b"\2" * 66])
def test_a_valid_nonce_with_trailing_junk_is_invalid(junk: bytes) -> None:
    group = Cosigners.meet((ALICE, BOB))
    with pytest.raises(InvalidContributionError, match=r"^invalid pubnonce from signer 0"):
        PublicNonce.parse_untrusted(group.nonces[0].encoded + junk, 0, ALICE.public)
    with pytest.raises(InvalidContributionError, match=r"^invalid aggnonce from the aggregator"):
        AggregateNonce.parse_untrusted(group.session.aggregate_nonce.encoded + junk)


def test_infinity_is_a_valid_aggregate_nonce_and_not_a_valid_public_one() -> None:
    assert AggregateNonce.parse_untrusted(bytes(66)).encoded == bytes(66)
    with pytest.raises(InvalidContributionError):
        PublicNonce.parse_untrusted(bytes(66), 0, ALICE.public)


def test_no_nonces_are_refused() -> None:
    with pytest.raises(LocalError, match=r"^cannot aggregate 0 nonces: .*expected 1 or more"):
        nonce_agg([])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_session_is_for_a_digest(size: int) -> None:
    group = Cosigners.meet((ALICE,))
    with pytest.raises(LocalError, match=f"^cannot begin a session: .*expected 32 bytes, got {size}"):
        SigningSession(nonce_agg(group.nonces), bytes(size), group.session.keyagg)


def test_a_session_prints_its_group() -> None:
    session = Cosigners.meet(TRIO).session
    assert repr(session) == f"<SigningSession of {session.keyagg!r}>"
