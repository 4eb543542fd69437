"""The public names: `musignet.__all__`, the reference page and the package agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import musignet
from musignet import errors

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^### `(\w+)`\s*$", re.MULTILINE)

PROMISED = frozenset(
    "NetworkService Identity load_identity save_identity Message MessageType MessageHandler PeerInfo PeerState Peer "
    "Transport TcpTransport MemoryTransport".split()
)


def documented() -> list[str]:
    """The names that have a heading of their own, such as ### `Identity`, in the reference."""
    return HEADING.findall((ROOT / "docs" / "reference.md").read_text("utf-8"))


def test_every_public_name_is_documented_and_every_documented_name_is_public() -> None:
    assert sorted(documented()) == sorted(musignet.__all__)


def test_no_name_is_listed_twice() -> None:
    assert len(musignet.__all__) == len(set(musignet.__all__))


def test_every_public_name_is_there() -> None:
    assert [name for name in musignet.__all__ if not hasattr(musignet, name)] == []


def test_what_was_promised_and_every_error_is_public() -> None:
    kinds = {name for name in errors.__all__ if issubclass(getattr(errors, name), errors.NetworkError)}
    assert (PROMISED | kinds) - set(musignet.__all__) == set()


def test_the_package_file_has_no_logic() -> None:
    tree = ast.parse((ROOT / "src" / "musignet" / "__init__.py").read_text("utf-8"))
    assert ast.get_docstring(tree)
    assert [ast.unparse(node) for node in tree.body[1:] if not is_import_or_all(node)] == []


def is_import_or_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) or (
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" and isinstance(node.value, ast.List)
    )
