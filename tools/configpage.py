"""Print docs/config.md: every setting, from the tables that read it. `make diagrams` writes it."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
from collections.abc import Iterator

from musignet import limits
from musignet.app.config import BANDWIDTH, OPTIONS, Config
from musignet.chain import Chain

_HEAD = """\
# Configuration

`config.toml` in the data folder, made by `musignet init`, read when the node starts. Every setting is here by its
table, with its default; units stand in the names or in the notes. What is not here is an error that names it. Made by
`make diagrams` from the tables that read the file; a test fails when the two differ.
"""
_BANDWIDTH_NOTE = """\
Nothing is dropped: what comes too fast waits on the sender's side.
[How to see what it does](howto.md#bound-what-peers-send).
"""
_LIMITS_NOTE = """\
What one node chooses for itself; in a program, `Limits(...)`, with those of `[bandwidth]`. Units: `_s` is seconds,
`_bytes` bytes, everything else a count. T and a number is a row of [the threats](threats.md).
"""


def _toml(value: object) -> str:
    if isinstance(value, Chain):
        return f'"{value.name.lower()}"'
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _reasons() -> dict[str, str]:
    """Return why each field of `Limits` has its default: the text below it in the source."""
    body = ast.parse(inspect.getsource(limits.Limits)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            reason = " ".join(str(text.value.value).split())
            found[ast.unparse(field.target)] = reason.replace("THREATS.md ", "")
    return found


def _rows(rows: Iterator[tuple[str, object, str]]) -> Iterator[str]:
    yield "| key | default | what it is |"
    yield "| --- | --- | --- |"
    for key, default, note in rows:
        yield f"| `{key}` | `{_toml(default)}` | {note} |"
    yield ""


def _lines() -> Iterator[str]:
    yield _HEAD
    default, reasons = Config(), _reasons()
    for table in dict.fromkeys(one.table for one in OPTIONS):
        yield f"## [{table}]\n"
        yield from _rows((one.key, getattr(default, one.field), one.note) for one in OPTIONS if one.table == table)
    yield f"## [bandwidth]\n\n{_BANDWIDTH_NOTE}"
    yield from _rows((key, getattr(default.limits, key), reasons[key]) for key in BANDWIDTH)
    yield f"## [limits]\n\n{_LIMITS_NOTE}"
    others = (key for key in limits.Limits.__dataclass_fields__ if key not in BANDWIDTH)
    yield from _rows((key, getattr(default.limits, key), reasons[key]) for key in others)


print("\n".join(_lines()).rstrip())
