"""The rows X1 to X17 of THREATS.md "PSBT": each refuses, names itself, and stops refusing when it is taken out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import wallycore

from musignet import limits
from musignet.bitcoin import checks
from musignet.bitcoin import review as review_module
from musignet.bitcoin.bip32 import aggregate
from musignet.bitcoin.checks import Confirm
from musignet.bitcoin.descriptor import Descriptor
from musignet.bitcoin.fields import Global, In, Out
from musignet.bitcoin.group import Bounds, Group, Known
from musignet.bitcoin.psbt import FieldMap, Psbt
from musignet.bitcoin.review import Review, review
from musignet.bitcoin.rules import Rule, RuleBroken
from musignet.bitcoin.show import grouped, lines
from musignet.bitcoin.transaction import Outpoint, TxIn, TxOut, with_size
from musignet.chain import Chain
from musignet.errors import Action, InvalidMessage
from support.wallet import EXTERNAL, KNOWN, SHAPES, group, known, outpoint, psbt, replace_tx, secrets_of, spend, xpub

WALLET = group()
TX, SPENT = spend(WALLET)
OWN = WALLET.derive(0, 0)
CHANGE = WALLET.derive(1, 3)
STRANGERS = (xpub("mallory").point, xpub("trudy").point)
P2TR = b"\x51\x20" + b"\x07" * 32
LEGACY = bytes.fromhex("76a914" + "00" * 20 + "88ac")


def one(kind: int, value: bytes, data: bytes = b"", index: int = 0) -> Psbt:
    """Return the sample with one more field in an input."""
    made = psbt()
    return made.with_input(index, made.inputs[index].with_field(kind, data, value))


def tx(**changes: object) -> Psbt:
    """Return the sample with parts of its transaction replaced."""
    return psbt(tx=replace_tx(TX, **changes), spent=SPENT)


def amounts(*outputs: int) -> Psbt:
    return tx(outputs=tuple(TxOut(amount, EXTERNAL) for amount in outputs))


def foreign(out: TxOut, *fields: tuple[int, bytes, bytes]) -> Psbt:
    """Return the sample with a third input that is somebody else's."""
    made = psbt(tx=replace_tx(TX, inputs=(*TX.inputs, TxIn(outpoint(9)))), spent=(*SPENT, out))
    extra = made.inputs[2]
    for kind, data, value in fields:
        extra = extra.with_field(kind, data, value)
    return made.with_input(2, extra)


def undescribed(kind: int, value: bytes, spent: TxOut) -> Psbt:
    """Return the sample whose first input keeps our hints but spends another output."""
    made = psbt()
    maps = made.inputs[0].with_field(In.WITNESS_UTXO, b"", spent.to_bytes()).with_field(kind, b"", value)
    return Psbt.parse_untrusted(made.with_input(0, maps).serialize())


def listed(keys: tuple[bytes, ...], key: bytes | None = None, *, output: int | None = None) -> Psbt:
    """Return the sample with another list of participants, filed under their aggregate."""
    made, filed = psbt(), key or aggregate(keys)
    if output is not None:
        return made.with_output(output, made.outputs[output].with_field(Out.MUSIG2_PARTICIPANTS, filed, b"".join(keys)))
    return made.with_input(0, made.inputs[0].with_field(In.MUSIG2_PARTICIPANTS, filed, b"".join(keys)))


def contribution(kind: int, participant: bytes, key: bytes, leaf: bytes = b"") -> Psbt:
    value = (b"\x02" + bytes(32)) * 2 if kind == In.MUSIG2_PUB_NONCE else bytes(32)
    return one(kind, value, participant + key + leaf)


MEMBER = OWN.participants[0].pubkey
OTHER_PARITY = bytes((OWN.output[0] ^ 1,)) + OWN.output[1:]
KEYS = tuple(participant.pubkey for participant in OWN.participants)
MAINNET_XPUB = bytes(wallycore.base58check_to_bytes(str(xpub("alice", Chain.MAINNET))))
HEAVY = tuple(TxOut(10_000, b"\x6a" + bytes(500)) for _ in range(200))
PUBKEY_HASH_WITNESS = b"\x02" + with_size(bytes(71)) + with_size(b"\x02" * 33)


@dataclass(frozen=True)
class Case:
    """A PSBT that one rule refuses."""

    rule: Rule
    name: str
    make: Callable[[], Psbt]
    wallet: Group = WALLET
    known: Known = field(default=KNOWN)


def record(out: TxOut) -> Known:
    return Known(utxos={TX.inputs[0].outpoint: out})


ALL_ALLOWED = group(bounds=Bounds(allow_sighash_all=True))

CASES: list[Case] = [
    Case(Rule.X1, "an amount against our record", psbt, known=record(TxOut(999_999, OWN.script))),
    Case(Rule.X1, "a script against our record", psbt, known=record(TxOut(1_000_000, P2TR))),
    Case(Rule.X1, "our coin as a stranger's", lambda: undescribed(0x70, b"", TxOut(1_000_000, P2TR))),
    Case(Rule.X1, "a legacy input", lambda: foreign(TxOut(5000, LEGACY))),
    Case(Rule.X1, "an input that says nothing", lambda: said_nothing()),
    Case(Rule.X2, "no output", lambda: no_outputs()),
    Case(Rule.X2, "more outputs than the policy", psbt, wallet=group(bounds=Bounds(outputs_max=1))),
    Case(Rule.X3, "a negative fee", lambda: amounts(2_000_001)),
    Case(Rule.X4, "NONE", lambda: one(In.SIGHASH_TYPE, b"\x02\0\0\0")),
    Case(Rule.X4, "SINGLE", lambda: one(In.SIGHASH_TYPE, b"\x03\0\0\0")),
    Case(Rule.X4, "ALL without the opt-in", lambda: one(In.SIGHASH_TYPE, b"\x01\0\0\0")),
    Case(Rule.X4, "DEFAULT with ANYONECANPAY", lambda: one(In.SIGHASH_TYPE, b"\x80\0\0\0")),
    Case(Rule.X4, "ALL with ANYONECANPAY", lambda: one(In.SIGHASH_TYPE, b"\x81\0\0\0"), ALL_ALLOWED),
    Case(Rule.X4, "above a byte", lambda: one(In.SIGHASH_TYPE, b"\x00\x01\0\0")),
    Case(Rule.X4, "two types", lambda: one(In.SIGHASH_TYPE, b"\x01\0\0\0"), ALL_ALLOWED),
    Case(Rule.X4, "a stranger's NONE", lambda: foreign(TxOut(5000, EXTERNAL), (In.SIGHASH_TYPE, b"", b"\x02\0\0\0"))),
    Case(Rule.X6, "no input", lambda: Psbt.create(replace_tx(TX, inputs=()), ())),
    Case(Rule.X6, "an outpoint twice", lambda: tx(inputs=(TX.inputs[0], TX.inputs[0]))),
    Case(Rule.X6, "a coinbase", lambda: tx(inputs=(TX.inputs[0], TxIn(Outpoint(bytes(32), 0xFFFF_FFFF))))),
    Case(Rule.X7, "a key of the main network", lambda: with_xpub(MAINNET_XPUB)),
    Case(Rule.X8, "version 0", lambda: tx(version=0)),
    Case(Rule.X8, "version 1", lambda: tx(version=1)),
    Case(Rule.X8, "version 4", lambda: tx(version=4)),
    Case(Rule.X9, "none of ours", lambda: psbt(tx=TX, spent=[TxOut(1_000_000, P2TR)] * 2), known=Known()),
    Case(Rule.X9, "a leaf script", lambda: one(In.TAP_LEAF_SCRIPT, b"\x51\xc0", b"\xc0" + OWN.internal[1:])),
    Case(Rule.X9, "a script signature", lambda: one(In.TAP_SCRIPT_SIG, bytes(64), OWN.internal[1:] + bytes(32))),
    Case(Rule.X9, "a key in a leaf", lambda: one(0x16, b"\x01" + bytes(32) + bytes(4), OWN.internal[1:])),
    Case(Rule.X9, "a nonce for a leaf", lambda: contribution(0x1B, MEMBER, OWN.output, bytes(32))),
    Case(Rule.X9, "a partial for a leaf", lambda: contribution(0x1C, MEMBER, OWN.output, bytes(32))),
    Case(
        Rule.X9,
        "an annex",
        lambda: foreign(TxOut(5000, P2TR), (In.FINAL_SCRIPTWITNESS, b"", b"\x02\x40" + bytes(64) + b"\x01\x50")),
    ),
    Case(Rule.X10, "another internal key", lambda: one(In.TAP_INTERNAL_KEY, STRANGERS[0][1:])),
    Case(Rule.X10, "the output key as internal key", lambda: one(In.TAP_INTERNAL_KEY, OWN.output[1:])),
    Case(Rule.X10, "a merkle root", lambda: one(In.TAP_MERKLE_ROOT, bytes(32))),
    Case(
        Rule.X10, "our key, another output", lambda: undescribed(0x17, OWN.internal[1:], TxOut(9, P2TR)), known=Known()
    ),
    Case(
        Rule.X10,
        "our participants, another output",
        lambda: undescribed(0x17, STRANGERS[0][1:], TxOut(1_000_000, P2TR)),
        known=Known(),
    ),
    Case(Rule.X10, "our internal key alone, another output", lambda: internal_key_alone(), known=Known()),
    Case(Rule.X10, "a nonce for the wrong parity", lambda: contribution(0x1B, MEMBER, OTHER_PARITY)),
    Case(Rule.X10, "a partial for the untweaked key", lambda: contribution(0x1C, MEMBER, OWN.aggregate)),
    Case(Rule.X11, "another order", lambda: listed(KEYS[::-1])),
    Case(Rule.X11, "one key fewer", lambda: listed(KEYS[:2])),
    Case(Rule.X11, "one key more", lambda: listed((*KEYS, STRANGERS[0]))),
    Case(Rule.X11, "another order under our key", lambda: listed(KEYS[::-1], OWN.aggregate)),
    Case(Rule.X11, "no point", lambda: listed((*KEYS[:2], b"\x02" + b"\xff" * 32), OWN.aggregate)),
    Case(Rule.X11, "strangers on our change", lambda: listed(STRANGERS, output=1)),
    Case(Rule.X12, "a second parser refuses", lambda: one(In.TAP_BIP32_DERIVATION, b"\0" * 5, b"\xff" * 32)),
    Case(Rule.X12, "a second parser reads otherwise", lambda: disguised()),
    Case(Rule.X12, "a witness and a byte", lambda: foreign(TxOut(5000, P2TR), (0x08, b"", b"\x01\x40" + bytes(65)))),
    Case(Rule.X13, "dust", lambda: amounts(293)),
    Case(Rule.X13, "dust to a legacy script", lambda: tx(outputs=(TxOut(545, LEGACY),))),
    Case(Rule.X13, "a negative output", lambda: amounts(-1)),
    Case(Rule.X13, "more than there is", lambda: amounts(limits.MONEY_MAX_SAT + 1)),
    Case(Rule.X13, "more than there is in all", lambda: amounts(limits.MONEY_MAX_SAT, 1000)),
    Case(Rule.X13, "a negative input", lambda: foreign(TxOut(-5, EXTERNAL))),
    Case(Rule.X13, "an impossible input", lambda: foreign(TxOut(limits.MONEY_MAX_SAT, EXTERNAL))),
    Case(Rule.X14, "a final witness", lambda: one(In.FINAL_SCRIPTWITNESS, b"\x01\x40" + bytes(64))),
    Case(Rule.X14, "a final scriptSig", lambda: one(In.FINAL_SCRIPTSIG, b"\x51")),
    Case(Rule.X14, "a signature", lambda: one(In.TAP_KEY_SIG, bytes(64))),
    Case(Rule.X14, "a stranger's nonce", lambda: contribution(0x1B, STRANGERS[0], OWN.output)),
    Case(Rule.X14, "a stranger's partial", lambda: contribution(0x1C, STRANGERS[0], OWN.output)),
    Case(Rule.X17, "too heavy", lambda: tx(outputs=HEAVY)),
]


def said_nothing() -> Psbt:
    made = psbt()
    return Psbt.parse_untrusted(made.with_input(1, made.inputs[1].without(In.WITNESS_UTXO)).serialize())


def internal_key_alone() -> Psbt:
    made = undescribed(0x17, OWN.internal[1:], TxOut(9, P2TR))
    return made.with_input(0, made.inputs[0].without(In.MUSIG2_PARTICIPANTS))


def no_outputs() -> Psbt:
    return psbt(tx=replace_tx(TX, outputs=()), spent=SPENT)


def with_xpub(raw: bytes) -> Psbt:
    made = psbt()
    return dataclasses.replace(made, globals=made.globals.with_field(Global.XPUB, raw, bytes(4)))


def disguised() -> Psbt:
    """Return a PSBT whose parsed transaction is not the one in its bytes: what a fault of our parser would give."""
    made = psbt()
    return dataclasses.replace(made, tx=replace_tx(made.tx, locktime=9))


def ids(case: Case) -> str:
    return f"{case.rule.name}: {case.name}"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_each_rule_refuses_and_names_itself(case: Case) -> None:
    with pytest.raises(RuleBroken) as caught:
        review(case.make(), case.wallet, case.known)
    error = caught.value
    assert error.rule is case.rule, str(error)
    assert f"rule {case.rule.name}:" in str(error)
    assert isinstance(error, InvalidMessage)
    assert error.action is Action.ABORT_SESSION


def test_every_row_that_refuses_has_a_case() -> None:
    elsewhere = {Rule.X5, Rule.X15, Rule.X16}  # below: change, `require`, and how things are shown
    assert {case.rule for case in CASES} == set(Rule) - elsewhere


RULE_OF = {
    check: Rule[check.__name__.split("_")[0].upper()] for check in checks.CHECKS
}  # x14_unsigned also keeps X9 and X10 for contributions


@pytest.mark.parametrize("case", [case for case in CASES if case.name != "an input that says nothing"], ids=ids)
def test_no_other_rule_refuses_for_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rule's function taken out, the same PSBT is no longer refused by that rule."""
    owner = Rule.X14 if case.make().inputs and _is_contribution(case) else case.rule
    kept = tuple(check for check in checks.CHECKS if RULE_OF[check] is not owner)
    assert len(kept) == len(checks.CHECKS) - 1
    if case.name == "a witness and a byte":
        kept = tuple(check for check in kept if RULE_OF[check] is not Rule.X9)
    monkeypatch.setattr(review_module, "CHECKS", kept)
    refusal = refusing(case)
    if case.name != "a second parser reads otherwise":  # libwally also hashes what is signed, and disagrees there
        assert refusal is not case.rule


def refusing(case: Case) -> Rule | None:
    """Return the rule that refuses, or None where none does, or where a number no longer fits into its field."""
    try:
        review(case.make(), case.wallet, case.known)
    except RuleBroken as error:
        return error.rule
    except (OverflowError, ValueError):
        return None
    return None


def _is_contribution(case: Case) -> bool:
    return case.name.startswith(("a nonce for", "a partial for", "a stranger's nonce", "a stranger's partial"))


# --- what is accepted -------------------------------------------------------------------------------------------------


def accepted(made: Psbt, wallet: Group = WALLET, known_: Known = KNOWN, memo: str = "") -> Review:
    return review(Psbt.parse_untrusted(made.serialize()), wallet, known_, memo)


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("described", [False, True])
def test_an_ordinary_transaction(shape: str, version: int, described: bool) -> None:
    wallet = group(shape)
    done = accepted(psbt(wallet, version=version, described=described), wallet, known(shape))
    assert done.notices == ()
    assert done.confirm == frozenset()
    assert (done.fee_sat, done.sent_sat, done.weight_wu) == (2000, 600_000, 798)
    assert done.vbytes == 200
    assert done.fee_rate_sat_vb == 10.0
    assert [(one.ours.branch, one.ours.index) for one in done.inputs if one.ours] == [(0, 0), (0, 5)]
    assert [one.change and one.change.index for one in done.outputs] == [None, 3]
    assert all(one.verified for one in done.inputs)
    for slot in done.slots:
        derived = wallet.derive(slot.branch, slot.index)
        assert (slot.aggregate, slot.tweaks, slot.signing_key) == (derived.aggregate, derived.tweaks, derived.output)
        assert (slot.leaf_hash, slot.sighash_type) == (None, 0)
        assert [tweak.xonly for tweak in slot.tweaks] == ([False, False, True] if shape == "aggregate" else [True])
        assert secrets_of(wallet, slot).keys() == set(slot.keys)
    assert len({slot.message for slot in done.slots}) == 2
    assert len({slot.commitment() for slot in done.slots}) == 2


def test_sighash_all_by_opt_in() -> None:
    made = psbt()
    for index in range(2):
        made = made.with_input(index, made.inputs[index].with_field(In.SIGHASH_TYPE, b"", b"\x01\0\0\0"))
    slots = accepted(made, ALL_ALLOWED).slots
    assert [slot.sighash_type for slot in slots] == [1, 1]
    default = accepted(psbt()).slots
    assert {slot.message for slot in slots}.isdisjoint(slot.message for slot in default)


def test_inputs_of_others_are_shown() -> None:
    final = (In.FINAL_SCRIPTWITNESS, b"", PUBKEY_HASH_WITNESS)
    for out, fields, extra_wu in (
        (TxOut(5000, EXTERNAL), (), 108),
        (TxOut(5000, EXTERNAL), (final,), len(PUBKEY_HASH_WITNESS)),
        (TxOut(5000, P2TR), ((In.SIGHASH_TYPE, b"", b"\x01\0\0\0"),), 66),
    ):
        done = accepted(foreign(out, *fields))
        assert [notice.rule for notice in done.notices] == [Rule.X1]
        assert "not ours" in "\n".join(lines(done))
        assert done.inputs[2].ours is None
        assert len(done.slots) == 2
        assert done.weight_wu == 798 + 4 * 41 + extra_wu


def test_legacy_inputs_by_opt_in() -> None:
    wallet = group(bounds=Bounds(allow_legacy_inputs=True))
    assert accepted(foreign(TxOut(5000, LEGACY)), wallet).weight_wu == 798 + 4 * (41 + 107) + 1
    script_sig = (In.FINAL_SCRIPTSIG, b"", bytes(106))
    assert accepted(foreign(TxOut(5000, LEGACY), script_sig), wallet).weight_wu == 798 + 4 * (41 + 106) + 1


def test_a_taproot_witness_without_an_annex() -> None:
    for witness in (b"\x01\x40" + bytes(64), b"\x01\x01\x50", b"\x02\x01\x50\x01\x51"):
        assert accepted(foreign(TxOut(5000, P2TR), (In.FINAL_SCRIPTWITNESS, b"", witness)))
    pubkey_hash = b"\x02" + with_size(bytes(71)) + with_size(b"\x50" * 33)
    assert accepted(foreign(TxOut(5000, EXTERNAL), (In.FINAL_SCRIPTWITNESS, b"", pubkey_hash)))


def test_a_strangers_script_path_is_the_strangers() -> None:
    leaf = (In.TAP_LEAF_SCRIPT, b"\xc0" + OWN.internal[1:], b"\x51\xc0")
    assert len(accepted(foreign(TxOut(5000, P2TR), leaf)).slots) == 2


def test_all_the_coins_there_are() -> None:
    done = accepted(foreign(TxOut(limits.MONEY_MAX_SAT - 2_000_000, EXTERNAL)))
    assert done.confirm == {Confirm.TYPE_FEE}


def test_the_heaviest_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TX_WEIGHT_MAX_WU", 798)
    assert accepted(psbt()).weight_wu == 798
    monkeypatch.setattr(limits, "TX_WEIGHT_MAX_WU", 797)
    with pytest.raises(RuleBroken, match="rule X17"):
        accepted(psbt())


@pytest.mark.parametrize("path", ["", "/7/*"])
def test_a_wallet_without_a_change_branch(path: str) -> None:
    wallet = Group(Descriptor.parse_untrusted(f"tr(musig({xpub('alice')},{xpub('bob')}){path})"), Chain.REGTEST)
    script = wallet.derive(0, 0).script
    made = Psbt.create(replace_tx(TX, outputs=(TxOut(1_990_000, script),)), [TxOut(1_000_000, script)] * 2)
    done = accepted(made, wallet, Known())
    assert [one.change for one in done.outputs] == [None]
    assert len(done.slots) == 2


def test_contributions_that_are_filed_right() -> None:
    done = accepted(contribution(0x1B, MEMBER, OWN.output))
    assert done.digest == accepted(contribution(0x1C, KEYS[2], OWN.output)).digest


def test_a_key_of_our_network() -> None:
    raw = bytes(wallycore.base58check_to_bytes(str(xpub("alice"))))
    assert accepted(with_xpub(raw))


def test_lists_on_what_is_not_ours_may_be_anybodys() -> None:
    theirs = (In.MUSIG2_PARTICIPANTS, aggregate(STRANGERS), b"".join(STRANGERS))
    assert accepted(foreign(TxOut(5000, P2TR), theirs))
    assert accepted(listed(STRANGERS, output=0))
    assert accepted(listed(STRANGERS, KEYS[0], output=0))


DUST: list[tuple[str, bytes, int]] = [
    ("P2TR", P2TR, 330),
    ("P2WPKH", EXTERNAL, 294),
    ("P2WSH", bytes.fromhex("0020") + bytes(32), 330),
    ("P2PKH", LEGACY, 546),
    ("P2SH", bytes.fromhex("a914" + "00" * 20 + "87"), 540),
    ("OP_RETURN", b"\x6a\x01\x00", 0),
]


@pytest.mark.parametrize(("script", "least"), [row[1:] for row in DUST], ids=[row[0] for row in DUST])
def test_the_least_amount_of_each_kind(script: bytes, least: int) -> None:
    assert accepted(tx(outputs=(TxOut(least, script),)))
    assert checks.dust_sat(TxOut(0, script)) == least


# --- X1: what our wallet does not know --------------------------------------------------------------------------------


def test_an_unknown_coin_is_shown_as_unverified() -> None:
    done = accepted(psbt(), known_=Known(utxos={TX.inputs[1].outpoint: SPENT[1]}, last_index=(5, 2)))
    assert [notice.text for notice in done.notices] == [
        "input 1: amount not verified, our own wallet does not know this coin"
    ]
    assert [one.verified for one in done.inputs] == [False, True]
    assert "amount not verified" in lines(done)[2]


def test_our_input_needs_a_hint_or_an_index_in_use() -> None:
    transaction, spent = spend(WALLET, coins=((0, 25), (1, 5)))
    made = psbt(tx=transaction, spent=spent)
    assert [one.ours and one.ours.index for one in accepted(made, known_=Known()).inputs] == [25, 5]
    bare = psbt(tx=transaction, spent=spent, described=False)
    assert [one.ours and one.ours.index for one in accepted(bare, known_=Known()).inputs] == [None, 5]
    near = Known(last_index=(5, -1))
    assert [one.ours and one.ours.index for one in accepted(bare, known_=near).inputs] == [25, 5]


def test_hints_are_bounded_and_only_hints() -> None:
    made = psbt(tx=spend(WALLET, coins=((0, 25), (0, 0)))[0], spent=spend(WALLET, coins=((0, 25), (0, 0)))[1])
    kind = bytes((In.TAP_BIP32_DERIVATION,))
    wrong = {
        kind + xpub(f"x{n}").point[1:]: bytes(9) + n.to_bytes(4, "little")
        for n in range(40, 40 + limits.DERIVATION_HINTS_MAX)
    }
    behind = FieldMap(wrong | made.inputs[0]._fields)
    with pytest.raises(RuleBroken) as caught:
        accepted(made.with_input(0, behind), known_=Known())
    assert caught.value.rule is Rule.X10
    before = FieldMap(made.inputs[0]._fields | wrong)
    assert accepted(made.with_input(0, before), known_=Known()).inputs[0].ours == WALLET.derive(0, 25)


# --- X3, X8: what a person confirms -----------------------------------------------------------------------------------

FEES: list[tuple[str, Psbt, bool]] = [
    ("5 % of what is sent", amounts(1_904_762), False),
    ("above 5 %", amounts(1_904_761), True),
    ("5 % of a self-transfer", tx(outputs=(TxOut(1_904_762, CHANGE.script),)), False),
    ("above 5 % of a self-transfer", tx(outputs=(TxOut(1_904_761, CHANGE.script),)), True),
    ("5 % counts what is sent alone", tx(outputs=(TxOut(2_000, EXTERNAL), TxOut(1_997_000, CHANGE.script))), True),
    ("zero", amounts(2_000_000), False),
]


@pytest.mark.parametrize(("made", "high"), [row[1:] for row in FEES], ids=[row[0] for row in FEES])
def test_a_high_share_is_typed(made: Psbt, high: bool) -> None:
    done = accepted(made, group(bounds=Bounds(fee_rate_max_sat_vb=10_000)))
    assert done.confirm == ({Confirm.TYPE_FEE} if high else frozenset())
    if high:
        assert f"high fee: {done.fee_sat} sat" in "\n".join(lines(done))
        assert "[type the fee] (rule X3)" in lines(done)[-1]


@pytest.mark.parametrize(
    ("bounds", "high"),
    [
        (Bounds(fee_share_max_percent=0), True),
        (Bounds(fee_cap_sat=2000), False),
        (Bounds(fee_cap_sat=1999), True),
        (Bounds(fee_rate_max_sat_vb=10), False),
        (Bounds(fee_rate_max_sat_vb=9), True),
    ],
)
def test_a_high_amount_or_rate_is_typed(bounds: Bounds, high: bool) -> None:
    assert accepted(psbt(), group(bounds=bounds)).confirm == ({Confirm.TYPE_FEE} if high else frozenset())


@pytest.mark.parametrize(("sent", "high"), [(1_600_000, False), (1_599_999, True)])
def test_exactly_the_share(sent: int, high: bool) -> None:
    bounds = Bounds(fee_share_max_percent=25, fee_rate_max_sat_vb=10_000)
    assert accepted(amounts(sent), group(bounds=bounds)).confirm == ({Confirm.TYPE_FEE} if high else frozenset())


TIP = Known(utxos=KNOWN.utxos, last_index=(5, 2), tip_height=1000, now_s=1_700_000_000)
BLIND = Known(utxos=KNOWN.utxos, last_index=(5, 2))
LOCKS: list[tuple[str, int, Known, bool]] = [
    ("none", 0, BLIND, False),
    ("a day of blocks", 1144, TIP, False),
    ("more than a day of blocks", 1145, TIP, True),
    ("a day", 1_700_086_400, TIP, False),
    ("more than a day", 1_700_086_401, TIP, True),
    ("an unknown tip", 1, BLIND, True),
    ("an unknown time", 1_700_000_000, BLIND, True),
    ("the last height", 499_999_999, TIP, True),
    ("the first time", 500_000_000, TIP, False),
]


@pytest.mark.parametrize(("locktime", "known_", "far"), [row[1:] for row in LOCKS], ids=[row[0] for row in LOCKS])
def test_a_far_lock_time_is_confirmed(locktime: int, known_: Known, far: bool) -> None:
    done = accepted(tx(locktime=locktime), known_=known_)
    assert done.confirm == ({Confirm.SAY_YES} if far else frozenset())
    assert (f"Lock time {locktime}" in lines(done)) == (locktime > 0)


@pytest.mark.parametrize(
    ("sequence", "shown"),
    [(0xFFFF_FFFF, None), (0x8000_0001, None), (144, "144 blocks"), (0x40_0002, "1024 seconds"), (0, "0 blocks")],
)
def test_relative_locks_are_shown(sequence: int, shown: str | None) -> None:
    done = accepted(tx(inputs=(TxIn(TX.inputs[0].outpoint, sequence), TX.inputs[1])))
    assert [notice.text for notice in done.notices] == (
        [f"input 1 is locked for {shown} after its coin was confirmed"] if shown else []
    )
    assert done.confirm == frozenset()


def test_version_3() -> None:
    assert accepted(tx(version=3)).tx.version == 3


# --- X5: change -------------------------------------------------------------------------------------------------------


def changes(script: bytes, known_: Known = KNOWN, *, hint: tuple[int, int] | None = None) -> bool:
    """Return whether an output with this script, and a hint where to derive it, is taken for our change."""
    made = psbt(tx=replace_tx(TX, outputs=(TxOut(1_990_000, script),)), spent=SPENT, described=False)
    if hint is not None:
        path = b"".join(step.to_bytes(4, "little") for step in hint)
        fields = made.outputs[0].with_field(
            Out.TAP_BIP32_DERIVATION, xpub("alice").point[1:], b"\x00" + bytes(4) + path
        )
        made = made.with_output(0, fields)
    return accepted(made, known_=known_).outputs[0].change is not None


GAP = limits.ADDRESS_GAP


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize(("index", "known_", "is_change"), [
    (0, Known(), True),
    (GAP - 1, Known(), True),
    (GAP, Known(), False),
    (2 + GAP, KNOWN, True),
    (2 + GAP + 1, KNOWN, False),
    (900, Known(last_index=(-1, 890)), True),
])  # fmt: skip
def test_change_within_the_gap(index: int, known_: Known, is_change: bool, hinted: bool) -> None:
    hint = (1, index) if hinted else None
    assert changes(WALLET.derive(1, index).script, known_, hint=hint) is is_change


def test_old_change_needs_its_hint() -> None:
    old = Known(last_index=(-1, 890))
    script = WALLET.derive(1, 3).script
    assert not changes(script, old)
    assert changes(script, old, hint=(1, 3))


@pytest.mark.parametrize(("at", "known_", "far"), [
    ((1, GAP - 1), Known(), False),
    ((1, GAP), Known(), True),
    ((1, GAP), Known(last_index=(-1, 0)), False),
    ((0, GAP + 5), Known(), False),
])  # fmt: skip
def test_a_coin_that_would_move_the_gap_far_is_confirmed(at: tuple[int, int], known_: Known, far: bool) -> None:
    """Anybody can pay to our change address number 1,000,000,000: from then on change would be looked for there."""
    done = accepted(psbt(WALLET, *spend(WALLET, coins=(at, (0, 5)))), known_=known_)
    assert done.confirm == ({Confirm.SAY_YES} if far else frozenset())
    assert [one.text for one in done.notices if one.rule is Rule.X5] == (
        [f"input 1 is at our change address {at[1]}, beyond those in use: change will be looked for from there on"]
        if far
        else []
    )


@pytest.mark.parametrize("hint", [None, (1, 3), (0, 3), (1, 2**31 - 1)])
def test_what_is_not_change(hint: tuple[int, int] | None) -> None:
    assert not changes(P2TR, hint=hint)
    assert not changes(EXTERNAL, hint=hint)
    assert not changes(WALLET.derive(0, 3).script, hint=hint)
    assert not changes(group("participants").derive(1, 3).script, hint=hint)


def test_a_wrong_hint_hides_nothing() -> None:
    assert changes(CHANGE.script, hint=(0, 7))


# --- X15: the digest --------------------------------------------------------------------------------------------------

DIGEST = accepted(psbt()).digest
OTHER: list[tuple[str, Psbt, Group]] = [
    ("an amount", tx(outputs=(TxOut(600_001, EXTERNAL), TX.outputs[1])), WALLET),
    ("a destination", tx(outputs=(TxOut(600_000, P2TR), TX.outputs[1])), WALLET),
    ("the order of outputs", tx(outputs=TX.outputs[::-1]), WALLET),
    ("a sequence", tx(inputs=(TxIn(TX.inputs[0].outpoint, 0xFFFF_FFFF), TX.inputs[1])), WALLET),
    ("an outpoint", tx(inputs=(TxIn(outpoint(7)), TX.inputs[1])), WALLET),
    ("the lock time", tx(locktime=1), WALLET),
    ("the version", tx(version=3), WALLET),
    ("an amount that is spent", psbt(tx=TX, spent=(TxOut(1_000_001, OWN.script), SPENT[1])), WALLET),
    ("a script that is spent", psbt(tx=TX, spent=(TxOut(1_000_000, P2TR), SPENT[1])), WALLET),
    ("the network", psbt(group("aggregate", Chain.SIGNET)), group("aggregate", Chain.SIGNET)),
]


@pytest.mark.parametrize(("made", "wallet"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER])
def test_another_transaction_needs_another_approval(made: Psbt, wallet: Group) -> None:
    done = accepted(made, wallet, Known())
    assert done.digest != DIGEST
    with pytest.raises(RuleBroken) as caught:
        done.require(DIGEST)
    assert caught.value.rule is Rule.X15


SAME: list[tuple[str, Psbt]] = [
    ("itself", psbt()),
    ("version 2", psbt(version=2)),
    ("no hints", psbt(described=False)),
    ("an unknown field", one(0x70, b"x")),
    ("an empty unknown field", one(0x70, b"")),
    ("an unknown type of three bytes", one(0xFD, b"x", b"\x00\x01")),
    ("a proprietary field", one(0xFC, b"x", b"\x01x\x00")),
    ("a nonce", contribution(0x1B, MEMBER, OWN.output)),
]


@pytest.mark.parametrize("made", [row[1] for row in SAME], ids=[row[0] for row in SAME])
def test_the_approval_covers_only_what_is_signed(made: Psbt) -> None:
    done = accepted(made)
    assert done.digest == DIGEST
    done.require(DIGEST)
    assert done.slots == accepted(psbt()).slots


def test_a_commitment_covers_each_part_of_a_slot() -> None:
    slot = accepted(psbt()).slots[0]
    others = [
        dataclasses.replace(slot, **change)
        for change in (
            {"input_index": 1},
            {"aggregate": slot.signing_key},
            {"tweaks": slot.tweaks[:-1]},
            {"tweaks": (slot.tweaks[0]._replace(xonly=True), *slot.tweaks[1:])},
            {"signing_key": OTHER_PARITY},
            {"leaf_hash": bytes(32)},
            {"sighash_type": 1},
            {"message": bytes(32)},
        )
    ]
    assert len({slot.commitment(), *(other.commitment() for other in others)}) == len(others) + 1


# --- X2, X16: what a person sees --------------------------------------------------------------------------------------


def test_every_input_and_every_output_is_shown() -> None:
    done = accepted(tx(outputs=tuple(TxOut(1000 + n, EXTERNAL) for n in range(limits.PSBT_OUTPUTS_MAX))))
    shown = "\n".join(lines(done))
    assert "Pays 250 outputs, 0.00281125 BTC in all, 0.00281125 BTC of it to others:" in shown
    for number in range(limits.PSBT_OUTPUTS_MAX):
        assert f"  {number + 1}. 0.0000{1000 + number} BTC to bcrt 1qqq" in shown
    for txin in TX.inputs:
        assert str(txin.outpoint) in shown


def test_the_text_of_a_review() -> None:
    done = accepted(psbt())
    assert lines(done) == (
        "A transaction on regtest, version 2, 200 vbytes",
        "Spends 2 inputs, 2 of them ours, 0.02000000 BTC in all:",
        f"  1. 0.01000000 BTC of {TX.inputs[0].outpoint}, ours at 0/0",
        f"  2. 0.01000000 BTC of {TX.inputs[1].outpoint}, ours at 0/5",
        "Pays 2 outputs, 0.01998000 BTC in all, 0.00600000 BTC of it to others:",
        "  1. 0.00600000 BTC to bcrt 1qqq qsyq cyq5 rqwz qfpg 9scr gwpu gpzy snar d0ew",
        f"  2. 0.01398000 BTC back to us, change 1/3: {grouped(WALLET.address(1, 3))}",
        "Fee 2000 sat, 10.0 sat/vB",
    )


@pytest.mark.parametrize("memo", ["\u202egnp.exe", "\x1b[2J", "pay\nFee 1 sat", "\u200bbob", "B" * 500, "\ud800"])
def test_words_of_others_are_escaped_and_marked(memo: str) -> None:
    made = tx(outputs=(TxOut(1000, b"\x6a\x1b[2J"), TxOut(1_995_000, CHANGE.script)))
    shown = lines(accepted(made, memo=memo))
    assert all(re.fullmatch(r"[\x20-\x7e]+", line) for line in shown)
    assert shown[-1].startswith('The proposer wrote (nobody checked it): "')
    assert len(shown[-1]) <= 64 + len('The proposer wrote (nobody checked it): ""')
    assert not any(line.startswith("Fee 1 sat") for line in shown)
    assert "to script 6a1b5b324a" in "\n".join(shown)


def test_a_digest_of_another_length_is_another() -> None:
    with pytest.raises(RuleBroken):
        accepted(psbt()).require(b"")
