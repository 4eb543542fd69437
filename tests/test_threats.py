"""docs/threats.md is true: each row of the threat table is there, and so are the tests, modules and limits it names."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from musignet import limits

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "musignet"
PAGE = (ROOT / "docs" / "threats.md").read_text("utf-8")

COUNTS = {"U": 5, "T": 15, "R": 6, "K": 15, "P": 10, "X": 17, "Z": 9, "H": 4, "M": 9}
"""The rows of the threat table by their letter; H and M number its lists "Secret hygiene" and "Pitfalls of MuSig2"."""
ROWS = [f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)]

_CODE = re.compile(r"`([^`]+)`")
_NOT_HELD = "not held"


def table() -> list[tuple[str, str, str]]:
    """Return (row, defence, held by), a line that goes on with a row under that row's name."""
    found: list[tuple[str, str, str]] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) == 4 and cells[0] not in ("row", "---"):
            found.append((cells[0].rstrip("*") or found[-1][0], cells[2], cells[3]))
    return found


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the test functions in a file, as they stand there; none are run, or imported."""
    if not (ROOT / path).is_file():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def is_ours(name: str) -> bool:
    """Whether a module of the package, a test file or a limit is called so."""
    if name.endswith(".py"):
        return (SOURCE / name).is_file() or (ROOT / name).is_file()
    return hasattr(limits, name) or name in limits.Limits.__dataclass_fields__


def test_every_row_of_the_threat_table_is_here_once_and_in_order() -> None:
    assert list(dict.fromkeys(row for row, _, _ in table())) == ROWS
    assert [line.split("|")[1].strip(" *") for line in PAGE.splitlines() if re.match(r"\| [A-Z]\d", line)] == ROWS


def test_each_test_that_is_named_exists() -> None:
    named = [name for _, _, held in table() for name in _CODE.findall(held)]
    named += [name for name in _CODE.findall(PAGE) if "::" in name]
    assert [name for name in named if name.partition("::")[2] not in functions_of(name.partition("::")[0])] == []


def test_each_row_is_held_by_a_test_or_says_that_it_is_not() -> None:
    assert [row for row, _, held in table() if not _CODE.findall(held) and _NOT_HELD not in held] == []


def test_each_module_and_limit_that_is_named_exists() -> None:
    plain = {"cosign(account)", "safe"}
    named = [(row, name) for row, defence, _ in table() for name in _CODE.findall(defence) if name not in plain]
    assert [(row, name) for row, name in named if not is_ours(name)] == []


def test_each_row_says_where_its_defence_is() -> None:
    where: dict[str, str] = {}
    for row, defence, _ in table():
        where[row] = where.get(row, "") + defence
    assert [row for row, defence in where.items() if not any(is_ours(name) for name in _CODE.findall(defence))] == []


def test_nothing_is_compressed() -> None:
    """T3: no import of a compressor, and WebSockets without their extension."""
    compressors = {"zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile", "brotli", "zstandard"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert compressors.isdisjoint(alias.name for alias in node.names), path
            elif isinstance(node, ast.ImportFrom) and node.module in compressors:
                assert [alias.name for alias in node.names] == ["crc32"], path
    relayline = ast.parse((SOURCE / "net" / "transport" / "relayline.py").read_text("utf-8"))
    said = [node.value for node in ast.walk(relayline) if isinstance(node, ast.keyword) and node.arg == "compression"]
    assert [ast.unparse(value) for value in said] == ["None"]
