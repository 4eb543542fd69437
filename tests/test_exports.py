"""The public names: `musignet.__all__`, the reference page and the package agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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


PACKAGE_FILE = (ROOT / "src" / "musignet" / "__init__.py").read_text("utf-8")


def test_the_package_file_has_no_logic_but_the_import_at_the_first_use() -> None:
    tree = ast.parse(PACKAGE_FILE)
    assert ast.get_docstring(tree)
    rest = [node for node in tree.body[1:] if not is_import_or_table(node)]
    checked, lazy, listing = rest
    assert isinstance(checked, ast.If)
    assert ast.unparse(checked.test) == "TYPE_CHECKING"
    assert all(isinstance(node, ast.ImportFrom) for node in checked.body)
    assert isinstance(lazy, ast.If)
    assert ast.unparse(lazy.test) == "not TYPE_CHECKING", "else a type checker takes any name for one of ours"
    assert [node.name for node in (*lazy.body, listing) if isinstance(node, ast.FunctionDef)] == [
        "__getattr__",
        "__dir__",
    ]


def is_import_or_table(node: ast.stmt) -> bool:
    """An import, `__all__`, the table of homes or the words under it."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in ("__all__", "_HOMES") and isinstance(node.value, ast.List | ast.Dict)
    return isinstance(node, ast.ImportFrom) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def test_every_name_comes_from_where_a_type_checker_sees_it() -> None:
    """The table of `__getattr__` and the imports for type checkers are the same list."""
    block = next(node for node in ast.parse(PACKAGE_FILE).body if isinstance(node, ast.If))
    seen = {
        alias.name: f".{node.module}" for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == musignet._HOMES
    assert sorted(seen) == sorted(musignet.__all__)


def test_importing_the_package_imports_no_module_of_it_until_a_name_is_used() -> None:
    script = """
import sys, musignet
own = [name for name in sys.modules if name.startswith("musignet.")]
assert own == [], own
assert set(musignet.__all__) <= set(dir(musignet))
assert musignet.PeerInfo.__module__ == "musignet.node.peers"
assert "musignet.net.service" not in sys.modules
from musignet import *
assert NetworkService is musignet.NetworkService
try:
    musignet.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
