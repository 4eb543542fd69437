"""The rules X1 to X17 of THREATS.md "PSBT" as functions: one rule, one function; `review` runs them all.

Each takes a `Draft`, yields what a person must know, and raises RuleBroken where the rule refuses. Rules X11 (form),
X12 (one reading) and X17 (sizes) are kept by `Psbt.parse_untrusted` as well; X16 by `show`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from .. import limits
from . import wally
from .descriptor import Derived
from .fields import LOCKTIME_TIME, In, Out
from .group import CHANGE, Group, Known
from .musig_fields import check_contributions
from .psbt import Psbt
from .rules import Rule, RuleBroken
from .taproot import SIGHASH_ALL, SIGHASH_DEFAULT
from .transaction import Reader, TxOut
from .weight import weight_wu

__all__ = ["CHECKS", "Check", "Confirm", "Draft", "Notice"]


class Confirm(Enum):
    """What a person must do about a notice before the transaction may be approved. A policy never does it for them."""

    NOTHING = "nothing"
    """Shown, no more."""
    SAY_YES = "say yes"
    TYPE_FEE = "type the fee"
    """In satoshi, as it is shown (X3)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a rule lets pass, but not in silence."""

    rule: Rule
    text: str
    """One line of printable ASCII."""
    confirm: Confirm = Confirm.NOTHING


@dataclass(frozen=True, slots=True)
class Draft:
    """A PSBT beside what our own wallet says about it: what the rules look at."""

    psbt: Psbt
    group: Group
    known: Known
    spent: tuple[TxOut, ...]
    """What each input spends, by the PSBT."""
    ours: tuple[Derived | None, ...]
    """The address of ours that each input spends from, by our own derivation."""
    change: tuple[Derived | None, ...]
    """The change address of ours that each output pays to, by our own derivation."""

    @classmethod
    def of(cls, psbt: Psbt, group: Group, known: Known) -> Draft:
        """Derive what is ours.

        Raises: RuleBroken (X1) when an input does not say what it spends: then nothing can be signed.
        """
        spent: list[TxOut] = []
        for txin, out in zip(psbt.tx.inputs, psbt.spent, strict=True):
            if out is None:
                raise RuleBroken(
                    Rule.X1, f"unknown output {txin.outpoint}", expected="a witness UTXO in the PSBT", got="none"
                )
            spent.append(out)
        ours = tuple(
            group.own_input(out, one, In.TAP_BIP32_DERIVATION, known)
            for out, one in zip(spent, psbt.inputs, strict=True)
        )
        change = tuple(
            group.own_change(out, one, Out.TAP_BIP32_DERIVATION, known)
            for out, one in zip(psbt.tx.outputs, psbt.outputs, strict=True)
        )
        return cls(psbt, group, known, tuple(spent), ours, change)

    @property
    def fee_sat(self) -> int:
        return sum(out.amount_sat for out in self.spent) - sum(out.amount_sat for out in self.psbt.tx.outputs)

    @property
    def sent_sat(self) -> int:
        """What leaves the wallet beside the fee; all outputs where nothing does."""
        outputs = self.psbt.tx.outputs
        sent = sum(out.amount_sat for out, change in zip(outputs, self.change, strict=True) if change is None)
        return sent or sum(out.amount_sat for out in outputs)


Check = Callable[[Draft], Iterator[Notice]]


def x1_spent(draft: Draft) -> Iterator[Notice]:
    """Our own record wins over the PSBT; an input with a malleable transaction id is refused."""
    for index, (txin, out, ours) in enumerate(zip(draft.psbt.tx.inputs, draft.spent, draft.ours, strict=True)):
        record = draft.known.utxos.get(txin.outpoint)
        if record is not None and record != out:
            raise RuleBroken(
                Rule.X1,
                f"input {index + 1} is not as our own record of {txin.outpoint}",
                expected=f"{record.amount_sat} sat to {record.script.hex()}",
                got=f"{out.amount_sat} sat to {out.script.hex()}",
            )
        if not out.is_witness and not draft.group.bounds.allow_legacy_inputs:
            raise RuleBroken(
                Rule.X1, f"input {index + 1} has a malleable transaction id", expected="a SegWit input", got="another"
            )
        if ours is not None and record is None:
            yield Notice(Rule.X1, f"input {index + 1}: amount not verified, our own wallet does not know this coin")
        if ours is None:
            yield Notice(Rule.X1, f"input {index + 1} is not ours: {out.amount_sat} sat of somebody else")


def x2_outputs(draft: Draft) -> Iterator[Notice]:
    """Every output is shown, so there must be some, and no more than a person was said to look at."""
    count, most = len(draft.psbt.tx.outputs), draft.group.bounds.outputs_max
    if not 1 <= count <= most:
        raise RuleBroken(Rule.X2, "wrong number of outputs", expected=f"1 to {most}", got=count)
    yield from ()


def x3_fee(draft: Draft) -> Iterator[Notice]:
    """A negative fee is no transaction; a high one is typed by a person."""
    fee, bounds = draft.fee_sat, draft.group.bounds
    if fee < 0:
        raise RuleBroken(Rule.X3, "the outputs are more than the inputs", expected="a fee of 0 or more", got=fee)
    vbytes = -(-weight_wu(draft.psbt, draft.spent) // 4)
    above = [
        text
        for high, text in (
            (fee > bounds.fee_cap_sat, f"{bounds.fee_cap_sat} sat"),
            (fee > bounds.fee_rate_max_sat_vb * vbytes, f"{bounds.fee_rate_max_sat_vb} sat/vB"),
            (
                fee * 100 > bounds.fee_share_max_percent * draft.sent_sat,
                f"{bounds.fee_share_max_percent} % of what is sent",
            ),
        )
        if high
    ]
    if above:
        yield Notice(Rule.X3, f"high fee: {fee} sat is more than {' and '.join(above)}", Confirm.TYPE_FEE)


def x4_sighash(draft: Draft) -> Iterator[Notice]:
    """DEFAULT, or ALL by opt-in; one type for all of ours; nobody's may leave a part of the transaction open."""
    allowed = (SIGHASH_DEFAULT, SIGHASH_ALL) if draft.group.bounds.allow_sighash_all else (SIGHASH_DEFAULT,)
    types = [sighash_type(draft, index) for index in range(len(draft.ours))]
    for index, (kind, ours) in enumerate(zip(types, draft.ours, strict=True)):
        if kind not in ((SIGHASH_DEFAULT, SIGHASH_ALL) if ours is None else allowed):
            raise RuleBroken(
                Rule.X4, f"sighash type of input {index + 1}", expected="DEFAULT (0x00)", got=f"0x{kind:02x}"
            )
    if len({kind for kind, ours in zip(types, draft.ours, strict=True) if ours is not None}) > 1:
        raise RuleBroken(Rule.X4, "our inputs have different sighash types", expected="the same for all")
    yield from ()


def sighash_type(draft: Draft, index: int) -> int:
    """Return the sighash type that an input asks for; DEFAULT where it says nothing."""
    return int.from_bytes(draft.psbt.inputs[index].get(In.SIGHASH_TYPE) or b"", "little")


def x5_gap(draft: Draft) -> Iterator[Notice]:
    """A coin beyond the gap moves it: whoever knows the descriptor can pay there, to have our change sent as far."""
    last = draft.known.last_index[CHANGE] + draft.group.bounds.address_gap
    for index, ours in enumerate(draft.ours):
        if ours is not None and ours.branch == CHANGE and ours.index > last:
            what = f"input {index + 1} is at our change address {ours.index}, beyond those in use"
            yield Notice(Rule.X5, f"{what}: change will be looked for from there on", Confirm.SAY_YES)


def x6_inputs(draft: Draft) -> Iterator[Notice]:
    """At least one input, each outpoint once, none the null outpoint of a coinbase."""
    outpoints = Counter(txin.outpoint for txin in draft.psbt.tx.inputs)
    if not outpoints:
        raise RuleBroken(Rule.X6, "no inputs", expected="1 or more", got=0)
    twice = [str(outpoint) for outpoint, count in outpoints.items() if count > 1]
    if twice:
        raise RuleBroken(Rule.X6, "an output is spent twice", expected="each once", got=twice[0])
    if any(not any(outpoint.txid) for outpoint in outpoints):
        raise RuleBroken(Rule.X6, "an input is a coinbase's", expected="an outpoint that exists", got="the null one")
    yield from ()


def x7_network(draft: Draft) -> Iterator[Notice]:
    """Extended keys in the PSBT are of our network. Scripts do not say theirs: the digest and the group do."""
    for xpub, _ in draft.psbt.globals.of_type(0x01):
        if xpub[:4] != draft.group.chain.xpub_version:
            raise RuleBroken(
                Rule.X7, "a key of another network", expected=draft.group.chain.name.lower(), got=xpub[:4].hex()
            )
    yield from ()


def x8_time(draft: Draft) -> Iterator[Notice]:
    """Version 2 or 3; a lock time that is far, or cannot be judged, is confirmed; relative locks are shown."""
    tx = draft.psbt.tx
    if tx.version not in (2, 3):
        raise RuleBroken(Rule.X8, "transaction version", expected="2 or 3", got=tx.version)
    yield from _locktime(draft)
    for index, txin in enumerate(tx.inputs):
        if not txin.sequence >> 31:
            amount = txin.sequence & 0xFFFF
            lock = f"{amount * 512} seconds" if txin.sequence >> 22 & 1 else f"{amount} blocks"
            yield Notice(Rule.X8, f"input {index + 1} is locked for {lock} after its coin was confirmed")


def _locktime(draft: Draft) -> Iterator[Notice]:
    locktime, known, bounds = draft.psbt.tx.locktime, draft.known, draft.group.bounds
    if not locktime:
        return
    timed = locktime >= LOCKTIME_TIME
    now, ahead = (known.now_s, bounds.locktime_ahead_s) if timed else (known.tip_height, bounds.locktime_ahead_blocks)
    what = f"{'time' if timed else 'block'} {locktime}"
    if now is None:
        yield Notice(Rule.X8, f"locked until {what}; our own node did not say what it is now", Confirm.SAY_YES)
    elif locktime > now + ahead:
        unit = "seconds" if timed else "blocks"
        yield Notice(Rule.X8, f"locked until {what}, {locktime - now} {unit} from now", Confirm.SAY_YES)


def x9_spend_path(draft: Draft) -> Iterator[Notice]:
    """Something of ours is spent, by the key path alone, and nothing carries an annex."""
    if not any(draft.ours):
        raise RuleBroken(Rule.X9, "no input is ours", expected="an output of this group, spent by its key path")
    for index, (one, ours, out) in enumerate(zip(draft.psbt.inputs, draft.ours, draft.spent, strict=True)):
        leaves = any(value[0] for _, value in one.of_type(In.TAP_BIP32_DERIVATION))
        scripts = any(any(one.of_type(kind)) for kind in (In.TAP_SCRIPT_SIG, In.TAP_LEAF_SCRIPT))
        if ours is not None and (leaves or scripts):
            raise RuleBroken(
                Rule.X9, f"input {index + 1} asks for a script path", expected="the key path", got="leaf scripts"
            )
        if out.is_taproot and _has_annex(one.get(In.FINAL_SCRIPTWITNESS)):
            raise RuleBroken(Rule.X9, f"input {index + 1} has an annex", expected="none")
    yield from ()


def _has_annex(witness: bytes | None) -> bool:
    if witness is None:
        return False
    reader = Reader(witness)
    stack = [reader.sized() for _ in range(reader.compact())]
    reader.end("a witness")
    return len(stack) >= 2 and stack[-1][:1] == b"\x50"


def x10_output_key(draft: Draft) -> Iterator[Notice]:
    """What is filed as ours must lead to the output key as we derive it: no other tweak, parity or merkle root."""
    for index, (one, ours) in enumerate(zip(draft.psbt.inputs, draft.ours, strict=True)):
        internal = one.get(In.TAP_INTERNAL_KEY)
        if ours is None:
            for hinted in draft.group.hinted(one, In.TAP_BIP32_DERIVATION):
                if internal == hinted.internal[1:] or one.get(In.MUSIG2_PARTICIPANTS, hinted.aggregate) is not None:
                    raise RuleBroken(
                        Rule.X10,
                        f"input {index + 1} claims our key but spends another output",
                        expected=hinted.script.hex(),
                        got=draft.spent[index].script.hex(),
                    )
        elif internal not in (None, ours.internal[1:]) or one.get(In.TAP_MERKLE_ROOT) is not None:
            raise RuleBroken(
                Rule.X10,
                f"input {index + 1} is tweaked otherwise than we derive",
                expected=f"internal key {ours.internal[1:].hex()} and no merkle root",
            )
    yield from ()


def x11_aggregates(draft: Draft) -> Iterator[Notice]:
    """Lists of participants on our inputs and change are the group's own, in its order, under its aggregate.

    Lists on what is not ours mean nothing here and are not aggregated: 512 KiB of keys would cost half a second.
    """
    maps = (
        *((one, In.MUSIG2_PARTICIPANTS, ours) for one, ours in zip(draft.psbt.inputs, draft.ours, strict=True)),
        *((one, Out.MUSIG2_PARTICIPANTS, ours) for one, ours in zip(draft.psbt.outputs, draft.change, strict=True)),
    )
    for one, kind, ours in maps:
        lists = [] if ours is None else list(one.of_type(kind))
        if ours is None or not lists:
            continue
        group = ours.aggregate, b"".join([participant.pubkey for participant in ours.participants])
        for listed in lists:
            if listed != group:
                raise RuleBroken(
                    Rule.X11,
                    "participants that are not the group, or not in its order",
                    expected=f"{len(ours.participants)} keys under {ours.aggregate.hex()}",
                    got=f"{len(listed[1]) // 33} under {listed[0].hex()}",
                )
    yield from ()


def x12_one_reading(draft: Draft) -> Iterator[Notice]:
    """A second parser reads the same transaction."""
    try:
        second = wally.unsigned_transaction(_each_hint_once(draft.psbt).serialize(), draft.psbt.version)
    except wally.WallyError:
        raise RuleBroken(Rule.X12, "a second parser refuses this PSBT", hint="make it anew") from None
    if second != draft.psbt.tx.to_bytes():
        raise RuleBroken(Rule.X12, "a second parser reads another transaction", hint="report this PSBT")
    yield from ()


def _each_hint_once(psbt: Psbt) -> Psbt:
    """Return the PSBT as far as it is understood, each key that has a derivation once: libwally checks them all."""
    seen: set[bytes] = set()
    psbt = psbt.understood()
    return replace(psbt, inputs=tuple(one.first_of(In.TAP_BIP32_DERIVATION, seen) for one in psbt.inputs))


def x13_amounts(draft: Draft) -> Iterator[Notice]:
    """Every amount and every sum is one that can exist, and every output is worth spending."""
    for outs in (draft.spent, draft.psbt.tx.outputs):
        amounts = [out.amount_sat for out in outs]
        if min(amounts, default=0) < 0 or sum(amounts) > limits.MONEY_MAX_SAT:
            raise RuleBroken(
                Rule.X13, "impossible amounts", expected=f"0 to {limits.MONEY_MAX_SAT} sat in all", got=amounts[:4]
            )
    for index, out in enumerate(draft.psbt.tx.outputs):
        if out.amount_sat < dust_sat(out):
            raise RuleBroken(
                Rule.X13, f"output {index + 1} is dust", expected=f"{dust_sat(out)} sat or more", got=out.amount_sat
            )
    yield from ()


def dust_sat(out: TxOut) -> int:
    """Return the least amount that Bitcoin Core relays for a script: 3 sat/vB for the output and its later spend."""
    if out.script[:1] == b"\x6a":
        return 0
    spend_vbytes = 67 if out.is_witness else 148
    return 3 * (len(out.to_bytes()) + spend_vbytes)


def x14_unsigned(draft: Draft) -> Iterator[Notice]:
    """Our inputs have no signature yet; nonces and partial signatures on them are filed as BIP-373 says."""
    for index, (one, ours) in enumerate(zip(draft.psbt.inputs, draft.ours, strict=True)):
        if ours is None:
            continue
        if any(one.get(kind) is not None for kind in (In.FINAL_SCRIPTSIG, In.FINAL_SCRIPTWITNESS, In.TAP_KEY_SIG)):
            raise RuleBroken(Rule.X14, f"input {index + 1} is signed already", expected="no signature", got="one")
        check_contributions(one, ours)
    yield from ()


def x17_mass(draft: Draft) -> Iterator[Notice]:
    """The finished transaction is one that nodes relay."""
    weight = weight_wu(draft.psbt, draft.spent)
    if weight > limits.TX_WEIGHT_MAX_WU:
        raise RuleBroken(
            Rule.X17, "the transaction is too heavy", expected=f"at most {limits.TX_WEIGHT_MAX_WU} WU", got=weight
        )
    yield from ()


CHECKS: Final[tuple[Check, ...]] = (
    x6_inputs, x2_outputs, x13_amounts, x12_one_reading, x1_spent, x5_gap, x7_network, x8_time, x10_output_key,
    x11_aggregates, x9_spend_path, x14_unsigned, x4_sighash, x17_mass, x3_fee,
)  # fmt: skip
"""Every rule that looks at a whole PSBT. X5 is how `Draft.change` is made, too; X15 and X16 are of `Review`."""
