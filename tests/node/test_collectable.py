"""What the garbage collector does not look at holds no error: an error holds frames, and they whatever they worked on.

An outcome inside such a value kept each refused proposal for ever: 29 MiB a minute from one member.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import Struct

import musignet.node
import musignet.signing
import musignet.wire

PACKAGES = (musignet.node, musignet.signing, musignet.wire)


def _untracked() -> Iterator[type[Struct]]:
    for package in PACKAGES:
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for one in vars(importlib.import_module(module.name)).values():
                if isinstance(one, type) and issubclass(one, Struct) and one.__module__ == module.name:
                    if not one.__struct_config__.gc:
                        yield one


UNTRACKED = sorted(set(_untracked()), key=lambda one: one.__name__)


def _kinds(hint: Any, seen: set[Any]) -> Iterator[type]:
    """Return every type that a value of this type may hold, at any depth."""
    if hint in seen:
        return
    seen.add(hint)
    if isinstance(hint, type):
        yield hint
        if issubclass(hint, Struct):
            for inner in get_type_hints(hint).values():
                yield from _kinds(inner, seen)
    for inner in get_args(hint):
        yield from _kinds(inner, seen)


def test_there_are_such_values() -> None:
    assert "Send" in {one.__name__ for one in UNTRACKED}


@pytest.mark.parametrize("kind", UNTRACKED)
def test_no_value_that_is_never_collected_can_hold_an_error(kind: type[Struct]) -> None:
    assert [one.__name__ for one in _kinds(kind, set()) if issubclass(one, BaseException)] == []
