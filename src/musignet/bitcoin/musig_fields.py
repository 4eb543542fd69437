"""The MuSig2 fields of a PSBT (BIP-373): reading, writing, and merging what peers send back.

0x1a is keyed by the *untweaked* aggregate key; 0x1b and 0x1c by the participant and the *final signing key*, after
BIP-328 and the TapTweak and with its parity, plus the leaf hash for a script path. The order in 0x1a is the order of
aggregation and is never changed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from ..errors import InvalidMessage, LocalError
from ..text import short_key
from .bip32 import KeyOrigin, aggregate, synthetic
from .descriptor import Derived
from .fields import GLOBAL, INPUT, OUTPUT, In, Out, Table
from .group import Group
from .psbt import FieldMap, Psbt
from .rules import Rule, RuleBroken
from .slots import SigningSlot

__all__ = [
    "MergeConflict",
    "Participants",
    "add_nonces",
    "add_partials",
    "check_contributions",
    "describe",
    "merge",
    "nonces",
    "partials",
    "participants",
]

_POINT: Final = 33
_KINDS: Final = (In.MUSIG2_PUB_NONCE, In.MUSIG2_PARTIAL_SIG)


class Participants(NamedTuple):
    """A list of participants as a map gives it. The aggregate was recomputed from the list."""

    aggregate: bytes
    keys: tuple[bytes, ...]


class MergeConflict(InvalidMessage):
    """A PSBT that came back differs where it must not. `input_index` and `participant` say where, if known."""

    def __init__(self, text: str, *, input_index: int | None = None, participant: bytes | None = None) -> None:
        self.input_index = input_index
        self.participant = participant
        where = "" if input_index is None else f" of input {input_index}"
        whose = "" if participant is None else f" of key {short_key(participant)}"
        super().__init__(f"{text}{whose}{where}", hint="do not sign; ask whoever sent it for the PSBT it was given")


def participants(fields: FieldMap, kind: int = In.MUSIG2_PARTICIPANTS) -> Iterator[Participants]:
    """Yield the lists in a map of an input, or of an output with `Out.MUSIG2_PARTICIPANTS`.

    Raises: RuleBroken (X11) when a list does not aggregate to the key that it is filed under.
    """
    for key, value in fields.of_type(kind):
        keys = tuple(value[at : at + _POINT] for at in range(0, len(value), _POINT))
        try:
            right = aggregate(keys)
        except InvalidMessage as error:
            raise RuleBroken(Rule.X11, str(error)) from None
        if right != key:
            raise RuleBroken(Rule.X11, "participants of another aggregate key", expected=right.hex(), got=key.hex())
        yield Participants(key, keys)


def check_contributions(fields: FieldMap, derived: Derived) -> None:
    """Check that each nonce and partial signature on an input of ours is of our group and for our key.

    Raises: RuleBroken: X9 for one with a leaf hash, X10 under another signing key, X14 of a stranger.
    """
    contributions = [data for kind in _KINDS for data, _ in fields.of_type(kind)]
    keys = {one.pubkey for one in derived.participants} if contributions else frozenset()
    for data in contributions:
        participant, signing_key, leaf = data[:_POINT], data[_POINT : 2 * _POINT], data[2 * _POINT :]
        if leaf:
            raise RuleBroken(Rule.X9, "a contribution for a script path", expected="key path only", got=leaf.hex())
        if signing_key != derived.output:
            raise RuleBroken(
                Rule.X10, "a contribution for another key", expected=derived.output.hex(), got=signing_key.hex()
            )
        if participant not in keys:
            raise RuleBroken(Rule.X14, "a contribution of a stranger", got=participant.hex())


def nonces(psbt: Psbt, slot: SigningSlot) -> dict[bytes, bytes]:
    """Return the public nonces of a slot: participant to 66 bytes, in aggregation order, those that are there.

    Unverified: a PSBT does not say who wrote a field.
    """
    return _contributions(psbt, slot, In.MUSIG2_PUB_NONCE)


def partials(psbt: Psbt, slot: SigningSlot) -> dict[bytes, bytes]:
    """Return the partial signatures of a slot: participant to 32 bytes. Unverified, as `nonces`."""
    return _contributions(psbt, slot, In.MUSIG2_PARTIAL_SIG)


def _contributions(psbt: Psbt, slot: SigningSlot, kind: int) -> dict[bytes, bytes]:
    fields = psbt.inputs[slot.input_index]
    found = ((key, fields.get(kind, _key_data(slot, key))) for key in slot.keys)
    return {key: value for key, value in found if value is not None}


def _key_data(slot: SigningSlot, participant: bytes) -> bytes:
    return participant + slot.signing_key + (slot.leaf_hash or b"")


def add_nonces(psbt: Psbt, slot: SigningSlot, made: Mapping[bytes, bytes]) -> Psbt:
    """Return the PSBT with public nonces: participant to 66 bytes.

    Raises: LocalError for a key that is not in the slot, a wrong length, or another value that is already there.
    """
    return _add(psbt, slot, In.MUSIG2_PUB_NONCE, made, 66)


def add_partials(psbt: Psbt, slot: SigningSlot, made: Mapping[bytes, bytes]) -> Psbt:
    """Return the PSBT with partial signatures: participant to 32 bytes. Raises LocalError as `add_nonces`."""
    return _add(psbt, slot, In.MUSIG2_PARTIAL_SIG, made, 32)


def _add(psbt: Psbt, slot: SigningSlot, kind: int, made: Mapping[bytes, bytes], size: int) -> Psbt:
    fields = psbt.inputs[slot.input_index]
    for participant, value in made.items():
        if participant not in slot.keys or len(value) != size:
            raise LocalError(
                "not a contribution to this slot",
                expected=f"{size} bytes of a participant",
                got=f"{len(value)} bytes of {short_key(participant)}",
            )
        data = _key_data(slot, participant)
        if fields.get(kind, data) not in (None, value):
            raise LocalError(f"another contribution of key {short_key(participant)} is already there")
        fields = fields.with_field(kind, data, value)
    return psbt.with_input(slot.input_index, fields)


# --- what other wallets need to find their keys (BIP-373 "Updater") ---------------------------------------------------


def describe(psbt: Psbt, group: Group, inputs: Mapping[int, Derived], outputs: Mapping[int, Derived]) -> Psbt:
    """Return the PSBT with participants, internal key and derivations of inputs and outputs of ours.

    Args: inputs, outputs - position to address, as a review finds them.
    """
    for index, derived in inputs.items():
        one = psbt.inputs[index].with_field(In.TAP_INTERNAL_KEY, b"", derived.internal[1:])
        one = one.with_field(In.MUSIG2_PARTICIPANTS, derived.aggregate, _listed(derived))
        for key, origin in _origins(group, derived):
            one = one.with_field(In.TAP_BIP32_DERIVATION, key, b"\x00" + origin.to_bytes())
        psbt = psbt.with_input(index, one)
    for index, derived in outputs.items():
        one = psbt.outputs[index].with_field(Out.TAP_INTERNAL_KEY, b"", derived.internal[1:])
        one = one.with_field(Out.MUSIG2_PARTICIPANTS, derived.aggregate, _listed(derived))
        for key, origin in _origins(group, derived):
            one = one.with_field(Out.TAP_BIP32_DERIVATION, key, b"\x00" + origin.to_bytes())
        psbt = psbt.with_output(index, one)
    return psbt


def _listed(derived: Derived) -> bytes:
    return b"".join(one.pubkey for one in derived.participants)


def _origins(group: Group, derived: Derived) -> Iterator[tuple[bytes, KeyOrigin]]:
    """Yield x-only key and origin of each participant, and of the internal key where it is derived (BIP-328)."""
    for one in derived.participants:
        origin = group.descriptor.members[one.member].root()
        yield one.pubkey[1:], KeyOrigin(origin.fingerprint, (*origin.path, *one.path))
    if derived.path:
        yield derived.internal[1:], KeyOrigin(synthetic(derived.aggregate, group.chain).fingerprint, derived.path)


# --- merging ----------------------------------------------------------------------------------------------------------


def merge(ours: Psbt, theirs: Psbt, fixed: Collection[bytes] = (), *, whose: str = "ours") -> Psbt:
    """Return `ours` with the nonces and partial signatures that `theirs` has beyond it.

    Args:   theirs - a PSBT that came back from somebody.
            fixed  - participant keys whose contributions must come back unchanged, and none beyond them: our own, when
                     it went to a peer; the others', when it went to our own signer. `whose` they are, in a word.
    Raises: MergeConflict when anything else differs, which it names; a fixed contribution is missing, changed or
            invented; or two values are given for one contribution. It names the input and the key; who did it is not
            known from a PSBT.
    """
    if ours.version != theirs.version:
        raise MergeConflict(f"the version of the PSBT was changed from {ours.version} to {theirs.version}")
    if ours.globals != theirs.globals:
        raise MergeConflict(
            f"the transaction or its outputs were changed: {_changed(ours.globals, theirs.globals, GLOBAL)}"
        )
    if len(ours.outputs) != len(theirs.outputs) or len(ours.inputs) != len(theirs.inputs):
        raise MergeConflict("the number of inputs or outputs was changed")
    for index, (mine, other) in enumerate(zip(ours.outputs, theirs.outputs, strict=True)):
        if mine != other:
            what = _changed(mine, other, OUTPUT)
            raise MergeConflict(f"the transaction or its outputs were changed: {what} of output {index}")
    for index, (mine, other) in enumerate(zip(ours.inputs, theirs.inputs, strict=True)):
        if mine.without(*_KINDS) != other.without(*_KINDS):
            what = _changed(mine.without(*_KINDS), other.without(*_KINDS), INPUT)
            raise MergeConflict(f"more than nonces and partial signatures was changed: {what}", input_index=index)
        ours = ours.with_input(index, _merge_input(index, mine, other, fixed, whose))
    return ours


def _changed(mine: FieldMap, other: FieldMap, table: Table) -> str:
    """Return the names of the fields that differ."""
    return ", ".join(
        sorted({table[kind].name if kind in table else f"field 0x{kind:02x}" for kind in mine.differs(other)})
    )


def _merge_input(index: int, mine: FieldMap, other: FieldMap, fixed: Collection[bytes], whose: str) -> FieldMap:
    merged = mine
    for kind in _KINDS:
        before, after = dict(mine.of_type(kind)), dict(other.of_type(kind))
        for data in before | after:
            participant = data[:_POINT]
            if participant in fixed and before.get(data) != after.get(data):
                raise MergeConflict(
                    f"a contribution of {whose} did not come back unchanged", input_index=index, participant=participant
                )
            if data in before and data in after and before[data] != after[data]:
                raise MergeConflict("two contributions", input_index=index, participant=participant)
        for data, value in after.items():
            merged = merged.with_field(kind, data, value)
    return merged
