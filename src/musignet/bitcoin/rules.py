"""The rules that a transaction must keep before anybody signs it: the rows X1 to X17 of THREATS.md "PSBT"."""

from __future__ import annotations

from enum import Enum

from ..errors import Action, InvalidMessage

__all__ = ["Rule", "RuleBroken"]


class Rule(Enum):
    """One row of the table. Its value says what must hold."""

    X1 = "each spent output is known, of a SegWit script, and as our own record has it"
    X2 = "every output is there to be shown, and their number is within the policy"
    X3 = "the fee is not negative, and a high one is confirmed by typing it"
    X4 = "the sighash type is DEFAULT, or ALL where the policy allows it, the same for every input of ours"
    X5 = "change is what our own descriptor derives on its change branch, within the gap"
    X6 = "there are inputs, each outpoint once, none of a coinbase's"
    X7 = "everything is of the group's network"
    X8 = "the version is 2 or 3, and a far lock time is confirmed"
    X9 = "our inputs are spent by their key path, and nothing has an annex"
    X10 = "the output key follows from the internal key that we derive"
    X11 = "fields of BIP-373 have its form, and participants of ours are the group in its order, under its aggregate"
    X12 = "the PSBT has one reading: no duplicate, no trailing byte, no longer form, no mixture of versions"
    X13 = "amounts are whole, neither dust nor negative, and at most 21 million bitcoin in all"
    X14 = "our inputs are not signed yet, and contributions on them are of this group's keys"
    X15 = "what is signed is what was approved"
    X16 = "texts of others are escaped, short and shown as untrusted"
    X17 = "the PSBT is within 512 KiB, 250 inputs, 250 outputs and 400,000 weight units"


class RuleBroken(InvalidMessage):
    """A transaction that must not be signed. `rule` is the row of THREATS.md that it breaks, named in the text.

    It says nothing about who made it so: a PSBT may have passed through several hands.
    """

    action = Action.ABORT_SESSION

    def __init__(self, rule: Rule, text: str, *, expected: object = None, got: object = None, hint: str = "") -> None:
        self.rule = rule
        super().__init__(f"rule {rule.name}: {text}", expected=expected, got=got, hint=hint)
