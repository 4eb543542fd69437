"""Whatever others send: it is taken, or refused with a typed error, at every place where it comes in.

The same doors stand open to a fuzzer that looks at which lines are reached: `make fuzz`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import musignet
from musignet.errors import NetworkError
from support.doors import DOORS, Door

SOURCES = Path(musignet.__file__).parent
TRIES = 1000

BEHIND_OTHERS = {
    "net.bridge:import_untrusted",  # hands on to the bridge of the same name
    "signing.bridge:import_untrusted",  # a whole session stands behind it: tests/signing/test_bridge.py
    "wire.tlsauth:open_untrusted",  # inside TLS, whose channel is that of Noise: tests/net/test_tls.py
}
"""Not led to by a door of their own."""


def doors_of_the_source() -> Iterator[str]:
    """Yield the public functions whose names end in `_untrusted`, as `module:name` without their class."""
    for path in sorted(SOURCES.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_untrusted") and node.name[0] != "_":
                yield f"{module}:{node.name}"


def mutated(source: Random, valid: tuple[bytes, ...]) -> bytes:
    """Return one of these, harmed a few times."""
    data = bytearray(source.choice(valid))
    for _ in range(source.choice((1, 1, 2, 5))):
        at, size = source.randrange(len(data) + 1), source.choice((1, 1, 2, 4, 33))
        match source.randrange(6):
            case 0:
                data[at : at + 1] = bytes((data[at] ^ 1 << source.randrange(8),)) if at < len(data) else b"\0"
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = source.randbytes(size)
            case 3:
                data[at : at + size] = source.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
            case 4:
                data[at:at] = data[source.randrange(len(data) + 1) :][:size]
            case _:
                other = source.choice(valid)
                data[at:] = other[source.randrange(len(other)) :]
    return bytes(data)


def knock(door: Door, data: bytes) -> bool:
    """Return whether it was let in. Anything but a `NetworkError` is raised."""
    try:
        made = door.enter(data)
    except NetworkError:
        return False
    assert door.again is None or door.again(made) == data, "one encoding of each thing"
    return True


def test_there_is_a_door_for_everything_that_takes_what_others_send() -> None:
    behind = {name.rpartition(":")[0] + ":" + name.rpartition(":")[2].rpartition(".")[2]
              for door in DOORS.values() for name in door.covers}  # fmt: skip
    assert set(doors_of_the_source()) == behind | BEHIND_OTHERS
    assert not behind & BEHIND_OTHERS


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_what_is_valid_is_let_in(door: Door) -> None:
    assert door.valid
    assert all(knock(door, data) for data in door.valid)


@pytest.mark.parametrize(("name", "door"), DOORS.items(), ids=DOORS.keys())
def test_anything_else_is_refused_in_a_sentence_or_let_in(name: str, door: Door) -> None:
    source = Random(name)
    for size in (0, 1, 2, 33, 100, 3000):
        knock(door, source.randbytes(size))
    refused = sum(not knock(door, mutated(source, door.valid)) for _ in range(TRIES))
    assert refused > TRIES // 20, "nearly everything is let in: harm is not reaching what is checked"
