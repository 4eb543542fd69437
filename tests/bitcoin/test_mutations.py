"""Any mutation of a valid PSBT raises InvalidMessage, or has the identical digest and slots, or another digest.

Nothing else: no other exception, no hang, no memory beyond a bound. `MUSIGNET_MUTATIONS` sets how many are tried; the
default is the 5,000 of the specification. Half of them change bytes, half change whole fields and keep the framing.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator

import pytest

from musignet.bitcoin.group import Group
from musignet.bitcoin.musig_fields import add_nonces, add_partials
from musignet.bitcoin.psbt import FieldMap, Psbt
from musignet.bitcoin.review import Review, review
from musignet.bitcoin.show import lines
from musignet.errors import InvalidMessage
from support.wallet import SHAPES, cosign, group, known, psbt, secrets_of

MUTATIONS = int(os.environ.get("MUSIGNET_MUTATIONS", "5000"))
MEMORY_MAX_BYTES = 4 * 2**20
"""For one mutation of a PSBT of some 3 KiB, at its highest."""


def samples(shape: str) -> list[bytes]:
    """Return valid PSBTs of each version: bare, described, and with every nonce and partial signature."""
    wallet, made = group(shape), []
    for version in (0, 2):
        bare, described = psbt(wallet, version=version, described=False), psbt(wallet, version=version)
        full = described
        for slot in review(described, wallet, known(shape)).slots:
            _, public, parts = cosign(slot, secrets_of(wallet, slot))
            full = add_partials(add_nonces(full, slot, public), slot, parts)
        made += [bare.serialize(), described.serialize(), full.serialize()]
    return made


def mutate(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(changed))
        length = draw.choice((1, 1, 2, 4, 33, 66))
        match draw.randrange(7):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at] = draw.choice((0, 1, 0x1A, 0x1B, 0x1C, 0xFC, 0xFD, 0xFE, 0xFF))
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = draw.randbytes(length)
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                source = draw.randrange(len(changed))
                changed[at : at + length] = changed[source : source + length]
            case _:
                changed[at : at + 9] = b"\xff" * 9
        if not changed:
            break
    return bytes(changed)


def mutate_fields(data: bytes, draw: random.Random) -> bytes:
    """Drop, change, move or invent fields; what comes out is still a PSBT in its framing."""
    made = Psbt.parse_untrusted(data)
    maps = [dict(one._fields) for one in (made.globals, *made.inputs, *made.outputs)]
    for _ in range(draw.randint(1, 3)):
        source, target = draw.choice(maps), draw.choice(maps)
        key = draw.choice([*source]) if source else b"\x70"
        value = bytearray(source.get(key, b""))
        match draw.randrange(5):
            case 0:
                source.pop(key, None)
            case 1 if value:
                value[draw.randrange(len(value))] ^= 1 << draw.randrange(8)
                source[key] = bytes(value)
            case 2:
                target[key] = bytes(value)
            case 3:
                source[bytes((key[0] ^ 1 << draw.randrange(6),)) + key[1:]] = bytes(value)
            case _:
                source[bytes((draw.randrange(0x20),)) + draw.randbytes(draw.choice((0, 0, 32, 33, 66)))] = (
                    draw.randbytes(draw.choice((0, 1, 4, 8, 32, 64, 66)))
                )
    return b"psbt\xff" + b"".join(FieldMap(one).to_bytes() for one in maps)


def outcome(data: bytes, wallet: Group, shape: str) -> Review | None:
    """Return the review of a mutated PSBT, or None where it was refused. Anything else fails the test."""
    try:
        parsed = Psbt.parse_untrusted(data)
        assert parsed.serialize() == data
        return review(parsed, wallet, known(shape))
    except InvalidMessage:
        return None


def mutations(shape: str) -> Iterator[tuple[Review, Review | None]]:
    wallet, draw = group(shape), random.Random(f"musignet {shape}")
    originals = [(data, review(Psbt.parse_untrusted(data), wallet, known(shape))) for data in samples(shape)]
    for _ in range(MUTATIONS // len(SHAPES)):
        data, original = draw.choice(originals)
        mutated = draw.choice((mutate, mutate_fields))(data, draw)
        if mutated != data:
            yield original, outcome(mutated, wallet, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_mutation_is_refused_or_covered_by_the_digest(shape: str) -> None:
    counts = {"refused": 0, "identical": 0, "another": 0}
    for original, done in mutations(shape):
        if done is None:
            counts["refused"] += 1
        elif done.digest == original.digest:
            counts["identical"] += 1
            assert done.slots == original.slots
            assert done.tx == original.tx
        else:
            counts["another"] += 1
            assert {slot.message for slot in done.slots}.isdisjoint(slot.message for slot in original.slots)
            assert lines(done)
    print(f"\n{shape}: {counts}")
    assert all(counts.values()), counts


def test_no_mutation_needs_much_memory() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number, _ in enumerate(mutations("aggregate")):
            if number == 100:
                break
        assert tracemalloc.get_traced_memory()[1] - before < MEMORY_MAX_BYTES
    finally:
        tracemalloc.stop()
