"""BIP-373 fields: the published PSBTs judged and signed through our slots, writing and reading, and merging."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from btclib_secp256k1 import musig

from musignet.bitcoin.bip32 import Xpub, aggregate
from musignet.bitcoin.descriptor import Descriptor, KeyExpression
from musignet.bitcoin.fields import In, Out
from musignet.bitcoin.finalise import finalise, verify_signature
from musignet.bitcoin.group import Group, Known
from musignet.bitcoin.musig_fields import (
    MergeConflict,
    add_nonces,
    add_partials,
    merge,
    nonces,
    partials,
    participants,
)
from musignet.bitcoin.psbt import FieldMap, Psbt
from musignet.bitcoin.review import review
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.slots import SigningSlot
from musignet.chain import Chain
from musignet.errors import LocalError
from support.bip import table
from support.wallet import KNOWN, SHAPES, cosign, group, known, psbt, secrets_of, xpub

# --- the published PSBTs ----------------------------------------------------------------------------------------------

OUTPUT_KEY, INTERNAL_KEY, LEAF, DERIVED, RECEIVED, RECEIVED_DERIVED = (
    (0, 1, 2),
    (3, 4, 5),
    (6, 7, 8),
    (9, 10, 11),
    12,
    13,
)


KEYS = tuple(xpub(name).point for name in ("alice", "bob", "carol"))


def published(row: int) -> Psbt:
    return Psbt.parse_untrusted(base64.b64decode(table("bip373.json")["valid"][row]["base64"]))


def wallet(path: tuple[int, ...] = ()) -> Group:
    """Return the wallet of the vectors: `tr(musig(a,b,c))`, or its children by a fixed path."""
    keys = [bytes.fromhex(one["pubkey"]) for one in table("bip373.json")["participants"]]
    members = (
        KeyExpression(Xpub(Chain.MAINNET.xpub_version, key, bytes(32)) if path else key, None, ()) for key in keys
    )
    return Group(Descriptor(tuple(members), path), Chain.MAINNET)


def path_of_internal_key(made: Psbt) -> tuple[int, ...]:
    internal = made.inputs[0].get(In.TAP_INTERNAL_KEY) or b""
    origin = (made.inputs[0].get(In.TAP_BIP32_DERIVATION, internal) or b"")[5:]
    return tuple(int.from_bytes(origin[at : at + 4], "little") for at in range(0, len(origin), 4))


def test_every_list_aggregates_to_its_key() -> None:
    key = table("bip373.json")["aggregate_pubkey"]
    for row in range(14):
        made = published(row)
        lists = [*participants(made.inputs[0])] + [
            one for output in made.outputs for one in participants(output, Out.MUSIG2_PARTICIPANTS)
        ]
        assert [one.aggregate.hex() for one in lists] == [key]


@pytest.mark.parametrize("keys", [KEYS[::-1], KEYS[:2], (*KEYS, KEYS[0]), (*KEYS[:2], b"\x02" + b"\xff" * 32)])
def test_a_list_that_does_not_aggregate_to_its_key(keys: tuple[bytes, ...]) -> None:
    for kind in (In.MUSIG2_PARTICIPANTS, Out.MUSIG2_PARTICIPANTS):
        fields = FieldMap().with_field(kind, aggregate(KEYS), b"".join(keys))
        with pytest.raises(RuleBroken) as caught:
            list(participants(fields, kind))
        assert caught.value.rule is Rule.X11


@pytest.mark.parametrize("row", [*OUTPUT_KEY, *LEAF])
def test_what_is_not_our_key_path_is_refused(row: int) -> None:
    """An output key without TapTweak, and a key in a script: neither is an address of a `tr(musig(...))` wallet."""
    with pytest.raises(RuleBroken) as caught:
        review(published(row), wallet())
    assert caught.value.rule is Rule.X10


@pytest.mark.parametrize("rows", [INTERNAL_KEY, DERIVED])
def test_key_path_psbts_are_reviewed_and_signed(rows: tuple[int, ...]) -> None:
    path = path_of_internal_key(published(rows[0]))
    assert bool(path) is (rows == DERIVED)
    made = [published(row) for row in rows]
    signature = made[2].inputs[0].get(In.TAP_KEY_SIG) or b""
    with pytest.raises(RuleBroken, match=r"X14.*signed already"):
        review(made[2], wallet(path))
    made[2] = made[2].with_input(0, made[2].inputs[0].without(In.TAP_KEY_SIG))
    done = [review(one, wallet(path)) for one in made]
    assert len({one.digest for one in done}) == 1
    (slot,) = done[0].slots
    assert [len(nonces(one, slot)) for one in made] == [0, 3, 3]
    assert [len(partials(one, slot)) for one in made] == [0, 0, 3]
    assert aggregated(made[2], slot) == signature
    assert verify_signature(slot, signature)
    assert signature in finalise(made[2], done[2], {0: signature}).raw


def aggregated(made: Psbt, slot: SigningSlot) -> bytes:
    """Return the aggregate of the published partial signatures, by btclib-secp256k1's own wrapper."""
    keys = musig.KeyAggCache(list(slot.keys))
    for value, xonly in slot.tweaks:
        keys.pubkey_xonly_tweak_add(value) if xonly else keys.pubkey_ec_tweak_add(value)
    session = musig.Session(musig.nonce_agg(list(nonces(made, slot).values())), slot.message, keys)
    return session.partial_sig_agg(list(partials(made, slot).values()))


@pytest.mark.parametrize("row", [RECEIVED, RECEIVED_DERIVED])
def test_outputs_that_are_received(row: int) -> None:
    made = published(row)
    (index,) = (n for n, one in enumerate(made.outputs) if any(participants(one, Out.MUSIG2_PARTICIPANTS)))
    internal = made.outputs[index].get(Out.TAP_INTERNAL_KEY) or b""
    origin = (made.outputs[index].get(Out.TAP_BIP32_DERIVATION, internal) or b"")[5:]
    path = tuple(int.from_bytes(origin[at : at + 4], "little") for at in range(0, len(origin), 4))
    assert wallet(path).derive(0, 0).script == made.tx.outputs[index].script


# --- writing and reading ----------------------------------------------------------------------------------------------

WALLET = group()
SLOTS = review(psbt(), WALLET, KNOWN).slots
MADE = [cosign(slot, secrets_of(WALLET, slot)) for slot in SLOTS]
SIGNATURES = {slot.input_index: made[0] for slot, made in zip(SLOTS, MADE, strict=True)}
OWN = SLOTS[0].keys[1]


def signed(made: Psbt, *, with_partials: bool = True) -> Psbt:
    for slot, (_, public, parts) in zip(SLOTS, MADE, strict=True):
        made = add_nonces(made, slot, public)
        made = add_partials(made, slot, parts) if with_partials else made
    return made


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("version", [0, 2])
def test_what_is_written_is_read_back(shape: str, version: int) -> None:
    own = group(shape)
    made = psbt(own, version=version)
    slot = review(made, own, known(shape)).slots[1]
    _, public, parts = cosign(slot, secrets_of(own, slot))
    assert nonces(made, slot) == partials(made, slot) == {}
    written = Psbt.parse_untrusted(add_partials(add_nonces(made, slot, public), slot, parts).serialize())
    assert nonces(written, slot) == public
    assert partials(written, slot) == parts
    assert list(nonces(written, slot)) == list(slot.keys)
    assert nonces(written, dataclasses.replace(slot, input_index=0)) == {}
    fields = written.inputs[1]
    for key in slot.keys:
        assert fields.get(0x1B, key + slot.signing_key) == public[key]
        assert fields.get(0x1C, key + slot.signing_key) == parts[key]
    assert fields.get(0x1A, slot.aggregate) == b"".join(slot.keys)


def test_a_slot_with_a_leaf_has_other_fields() -> None:
    """Script paths come later; their fields must not be mistaken for those of the key path."""
    leaf = dataclasses.replace(SLOTS[0], leaf_hash=bytes(32))
    written = add_nonces(psbt(), leaf, MADE[0][1])
    assert nonces(written, SLOTS[0]) == {}
    assert nonces(written, leaf) == MADE[0][1]


@pytest.mark.parametrize(
    ("participant", "value"), [(xpub("mallory").point, bytes(66)), (OWN, bytes(65)), (OWN, bytes(32))]
)
def test_what_is_no_contribution(participant: bytes, value: bytes) -> None:
    with pytest.raises(LocalError, match="not a contribution"):
        add_nonces(psbt(), SLOTS[0], {participant: value})


def test_nothing_is_overwritten() -> None:
    written = signed(psbt())
    assert add_nonces(written, SLOTS[0], MADE[0][1]) == written
    with pytest.raises(LocalError, match="already there"):
        add_nonces(written, SLOTS[0], {OWN: MADE[1][1][SLOTS[1].keys[0]]})
    with pytest.raises(LocalError, match="already there"):
        add_partials(written, SLOTS[0], {OWN: bytes(32)})


@pytest.mark.parametrize("shape", SHAPES)
def test_what_other_wallets_find(shape: str) -> None:
    """Participants, internal key, and a derivation for each key, the synthetic key of BIP-328 included."""
    own = group(shape)
    made, derived = psbt(own), own.derive(0, 5)
    fields = made.inputs[1]
    assert [one.aggregate for one in participants(fields)] == [derived.aggregate]
    assert fields.get(In.TAP_INTERNAL_KEY) == derived.internal[1:]
    origins = dict(fields.of_type(In.TAP_BIP32_DERIVATION))
    path = bytes(4) + (5).to_bytes(4, "little")
    if shape == "aggregate":
        synthetic = Xpub(Chain.REGTEST.xpub_version, derived.aggregate, bytes(32))
        assert origins[derived.internal[1:]] == b"\x00" + synthetic.fingerprint + path
        assert len(origins) == 4
    else:
        mine = next(one for one in derived.participants if one.member == 0)
        assert origins[mine.pubkey[1:]] == b"\x00" + xpub("alice").fingerprint + path
        assert len(origins) == 3
    change = own.derive(1, 3)
    assert [one.aggregate for one in participants(made.outputs[1], Out.MUSIG2_PARTICIPANTS)] == [change.aggregate]
    assert made.outputs[1].get(Out.TAP_INTERNAL_KEY) == change.internal[1:]
    assert len(made.outputs[0]) == 0


def test_an_origin_that_is_written_is_kept() -> None:
    text = f"tr(musig([00112233/86h]{xpub('alice')},{xpub('bob')})/<0;1>/*)"
    own = Group(Descriptor.parse_untrusted(text), Chain.REGTEST)
    origins = dict(psbt(own).inputs[0].of_type(In.TAP_BIP32_DERIVATION))
    assert origins[xpub("alice").point[1:]] == bytes.fromhex("00001122335600008" + "0")
    assert len(review(psbt(own), own, Known()).slots) == 2


# --- merging ----------------------------------------------------------------------------------------------------------

BASE = psbt()


def contributed(keys: tuple[int, ...]) -> Psbt:
    """Return the sample with the nonces of some participants, by position, on both inputs."""
    made = BASE
    for slot, (_, public, _) in zip(SLOTS, MADE, strict=True):
        made = add_nonces(made, slot, {slot.keys[n]: public[slot.keys[n]] for n in keys})
    return made


def with_field(made: Psbt, kind: int, data: bytes, value: bytes, index: int = 1) -> Psbt:
    return made.with_input(index, made.inputs[index].with_field(kind, data, value))


def own_nonce(slot: SigningSlot, value: bytes) -> tuple[int, bytes, bytes]:
    return In.MUSIG2_PUB_NONCE, OWN + slot.signing_key, value


@pytest.mark.parametrize("version", [0, 2])
def test_merging_is_a_union(version: int) -> None:
    parts = [contributed((0,)), contributed((1,)), contributed((2,))]
    merged = merge(merge(parts[0], parts[1]), parts[2])
    assert merged == contributed((0, 1, 2))
    assert merge(merged, merged) == merged
    assert merge(BASE, signed(BASE)) == signed(BASE)
    assert merge(contributed((1,)), contributed((0, 1)), fixed={OWN}) == contributed((0, 1))
    assert merge(psbt(version=version), psbt(version=version)) == psbt(version=version)


def test_a_silent_peer_may_send_less_back() -> None:
    assert merge(contributed((0, 1)), contributed((1, 2)), fixed={OWN}) == contributed((0, 1, 2))


TX_CHANGED = dataclasses.replace(BASE, globals=BASE.globals.with_field(0x70, b"", b"x"))
OTHER_NONCE = MADE[1][1][OWN][:33] + MADE[0][1][OWN][33:]

CONFLICTS: list[tuple[str, Psbt, Psbt, str, int | None, bytes | None]] = [
    ("the globals", BASE, TX_CHANGED, "transaction", None, None),
    ("another version", BASE, psbt(version=2), "version of the PSBT", None, None),
    ("an output", BASE, BASE.with_output(0, BASE.outputs[0].with_field(0x70, b"", b"")), "transaction", None, None),
    ("an input fewer", BASE, dataclasses.replace(BASE, inputs=BASE.inputs[:1]), "number of inputs", None, None),
    ("an unknown field", BASE, with_field(BASE, 0x70, b"", b""), "more than nonces", 1, None),
    ("an amount", BASE, with_field(BASE, In.WITNESS_UTXO, b"", bytes(9)), "more than nonces", 1, None),
    ("a sighash type", BASE, with_field(BASE, In.SIGHASH_TYPE, b"", bytes(4)), "more than nonces", 1, None),
    ("a signature", BASE, with_field(BASE, In.TAP_KEY_SIG, b"", bytes(64)), "more than nonces", 1, None),
    ("a participant", BASE, with_field(BASE, 0x1A, OWN, OWN), "more than nonces", 1, None),
    ("a field less", BASE, BASE.with_input(1, BASE.inputs[1].without(0x17)), "more than nonces", 1, None),
    (
        "our nonce changed",
        contributed((1,)),
        with_field(contributed((1,)), *own_nonce(SLOTS[1], OTHER_NONCE)),
        "ours did not come back unchanged",
        1,
        OWN,
    ),
    ("our nonce stripped", contributed((1,)), BASE, "ours did not come back unchanged", 0, OWN),
    (
        "our partial signature invented",
        contributed((1,)),
        with_field(contributed((1,)), 0x1C, OWN + SLOTS[1].signing_key, bytes(32)),
        "ours did not come back unchanged",
        1,
        OWN,
    ),
    (
        "two nonces of a peer",
        contributed((0, 1)),
        with_field(contributed((0, 1)), 0x1B, SLOTS[1].keys[0] + SLOTS[1].signing_key, OTHER_NONCE),
        "two contributions",
        1,
        SLOTS[1].keys[0],
    ),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "text", "index", "participant"),
    [row[1:] for row in CONFLICTS],
    ids=[row[0] for row in CONFLICTS],
)
def test_conflicts_are_named(ours: Psbt, theirs: Psbt, text: str, index: int | None, participant: bytes | None) -> None:
    with pytest.raises(MergeConflict, match=text) as caught:
        merge(ours, theirs, fixed={OWN})
    assert (caught.value.input_index, caught.value.participant) == (index, participant)
