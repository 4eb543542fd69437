"""The floors of the house: who may import whom, read from the source of every module.

`violations` is the whole check. The tables below are its rules; the made-up packages at the end prove that each rule
refuses what it should and nothing else.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "musignet"

FLOORS = (
    ("chain", "errors", "limits", "text"),
    ("crypto",),
    ("wire", "bitcoin"),
    ("signing",),
    ("node",),
    ("net", "sim"),
    ("__init__", "app", "__main__"),
)
"""Lowest first. What stands on one floor never meets, but for the two floors named next."""
NEIGHBOURS_MEET = (0, 6)

TYPES_OF_WIRE = frozenset({"wire.messages", "wire.envelope", "wire.codec"})
"""All that `signing` may know of `wire`: the types of messages, no channel."""

PURE_FLOORS = 5
IMPURE = frozenset("asyncio socket ssl threading time datetime random secrets os pathlib logging".split())
ALLOWED: Mapping[str, frozenset[str]] = {
    "crypto.backend": frozenset({"threading", "secrets"}),  # a reason per thread; blinding the context
    "crypto.keys": frozenset({"secrets"}),  # Identity.generate
}
MAY_SWALLOW = "net.guard"
"""The one broad `except`: it logs, closes the link, and re-raises in tests."""
BROAD = frozenset({"Exception", "BaseException", "ExceptionGroup", "BaseExceptionGroup"})
LATE_IMPORTS = "app"
"""A command may import late what would slow `musignet --help`."""
MAX_LINES = 500
TABLES = frozenset({"limits"})
"""Files that are one table, in one place on purpose, however long."""


@dataclass(frozen=True)
class Module:
    """One source file. Its name is dotted, below the package: `wire.codec`, and `wire` for the `__init__` of that."""

    name: str
    is_package: bool
    lines: int
    tree: ast.Module

    @property
    def unit(self) -> str:
        return self.name.split(".")[0]

    @property
    def imports(self) -> Iterator[ast.Import | ast.ImportFrom]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom))


def load(package: Path) -> dict[str, Module]:
    """Return every module of a package folder by name; the package's own is `__init__`."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package and len(parts) > 1 else parts)
        source = path.read_text("utf-8")
        modules[name] = Module(name, is_package, len(source.splitlines()), ast.parse(source))
    return modules


# --- who imports whom -----------------------------------------------------------------------------------------------


def targets(module: Module, modules: Mapping[str, Module], package: str) -> set[str]:
    """Return the modules of the same package that this one imports, at any depth, under `if TYPE_CHECKING` too."""
    found = set()
    for node in module.imports:
        if isinstance(node, ast.Import):
            bases = [alias.name.split(".") for alias in node.names]
            found.update(".".join(base[1:]) or "__init__" for base in bases if base[0] == package)
        elif (base := absolute(module, node, package)) is not None:
            found.update(pick(base, alias.name, modules) for alias in node.names)
    return found


def absolute(module: Module, node: ast.ImportFrom, package: str) -> tuple[str, ...] | None:
    """Return what stands after `from`, below the package; None for another package."""
    tail = tuple((node.module or "").split(".")) if node.module else ()
    if node.level == 0:
        return tail[1:] if tail[:1] == (package,) else None
    here = () if module.name == "__init__" else tuple(module.name.split("."))
    up = node.level - module.is_package
    return here[: len(here) - up] + tail


def pick(base: tuple[str, ...], name: str, modules: Mapping[str, Module]) -> str:
    """Return the module that `from base import name` reaches: the submodule of that name, or else `base` itself."""
    submodule = ".".join((*base, name))
    return submodule if submodule in modules else ".".join(base) or "__init__"


def floor_of(name: str) -> int | None:
    unit = name.split(".")[0]
    return next((floor for floor, units in enumerate(FLOORS) if unit in units), None)


def arrow_fault(source: str, target: str) -> str | None:
    """Return why `source` may not import `target`, or None when it may."""
    here, there = floor_of(source), floor_of(target)
    if here is None or there is None:
        return "has no floor: name it in FLOORS"
    if source.split(".")[0] == target.split(".")[0]:
        return None
    if there > here:
        return f"goes up from F{here} to F{there}"
    if there == here and here not in NEIGHBOURS_MEET:
        return f"stays on F{here}, whose parts never meet"
    if source.split(".")[0] == "signing" and target.split(".")[0] == "wire" and target not in TYPES_OF_WIRE:
        return "signing may know the types of wire only"
    return None


def arrows(modules: Mapping[str, Module], package: str) -> Iterator[str]:
    """Every arrow that the floors forbid, and the first cycle."""
    graph = {name: targets(module, modules, package) for name, module in modules.items()}
    for source, reached in graph.items():
        for target in sorted(reached):
            if fault := arrow_fault(source, target):
                yield f"{source} imports {target}: {fault}"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"cycle: {' <- '.join(error.args[1])}"


# --- what a module contains -----------------------------------------------------------------------------------------


def impurities(module: Module, allowed: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """The clock, the network, files, randomness and threads below F5; and exceptions that nobody needs any more."""
    floor = floor_of(module.name)
    if floor is None or floor >= PURE_FLOORS:
        return
    names = set()
    for node in module.imports:
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif node.level == 0:
            names.add((node.module or "").split(".")[0])
    excused = allowed.get(module.name, frozenset())
    yield from (f"{module.name} imports {name}: F{floor} is pure" for name in sorted(names & IMPURE - excused))
    yield from (f"{module.name}: its exception for {name} is not used" for name in sorted(excused - names))


def late_imports(module: Module) -> Iterator[str]:
    if module.unit == LATE_IMPORTS:
        return
    for function in ast.walk(module.tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    yield f"{module.name}:{node.lineno}: import inside {function.name}"


def is_broad(node: ast.expr | None) -> bool:
    """Whether this names everything: nothing at all, `Exception`, `builtins.Exception`, or a tuple with it."""
    if node is None:
        return True
    if isinstance(node, ast.Tuple):
        return any(is_broad(element) for element in node.elts)
    return (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")) in BROAD


def swallows(handler: ast.ExceptHandler) -> bool:
    """Whether a handler can end without raising: its last statement is no `raise`, or it leaves before that."""
    leaves = (ast.Return, ast.Break, ast.Continue)
    return not isinstance(handler.body[-1], ast.Raise) or any(isinstance(node, leaves) for node in ast.walk(handler))


def broad_excepts(module: Module) -> Iterator[str]:
    if module.name == MAY_SWALLOW:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and swallows(node):
            yield f"{module.name}:{node.lineno}: a broad except that does not re-raise"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(map(is_broad, node.args)):
            yield f"{module.name}:{node.lineno}: suppresses everything"


def too_long(module: Module) -> Iterator[str]:
    if module.lines > MAX_LINES and module.name not in TABLES:
        yield f"{module.name}: {module.lines} lines, more than {MAX_LINES}: it has two ideas"


def violations(package: Path, allowed: Mapping[str, frozenset[str]] = ALLOWED) -> list[str]:
    """Return every breach of the rules in a package folder, as sentences."""
    modules = load(package)
    found = list(arrows(modules, package.name))
    for module in modules.values():
        for rule in (late_imports, broad_excepts, too_long):
            found.extend(rule(module))
        found.extend(impurities(module, allowed))
    found.extend(f"{name}: an exception for a module that is not there" for name in allowed if name not in modules)
    return found


# --- the house itself -----------------------------------------------------------------------------------------------


def test_the_floors_hold() -> None:
    assert violations(PACKAGE) == []


def test_the_package_was_read() -> None:
    modules = load(PACKAGE)
    assert {"__init__", "errors", "crypto", "crypto.keys", "wire.envelope"} <= modules.keys()
    assert "crypto.backend" in targets(modules["crypto.keys"], modules, "musignet")
    assert "errors" in targets(modules["crypto.keys"], modules, "musignet")


def test_sizes_for_information() -> None:
    """Shown by `pytest -s`. The aims are medians of about 150 lines a file and 10 a function; nothing fails here."""
    modules = load(PACKAGE)
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    files = [module.lines for module in modules.values()]
    print(f"\nfiles: {len(files)}, median {statistics.median(files)} lines, longest {max(files)}")
    print(f"functions: {len(functions)}, median {statistics.median(functions)} lines, longest {max(functions)}")


# --- the rules, proved on made-up packages ---------------------------------------------------------------------------

Plant = Callable[[dict[str, str]], list[str]]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Writes a package of the given files and returns its violations. Its one exception is for `crypto/keys.py`."""

    def write(files: dict[str, str]) -> list[str]:
        root = tmp_path / "house"
        allowed = {"crypto.keys": frozenset({"secrets"})}
        for name, text in {"__init__.py": "", "crypto/keys.py": "import secrets", **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return violations(root, allowed)

    return write


SWALLOWED = "try:\n    x\nexcept {}:\n    {}"

REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("up, relative", {"crypto/a.py": "from ..wire import b", "wire/b.py": ""}, "crypto.a imports wire.b: goes up"),
    ("up, a name", {"errors.py": "from .crypto.keys import K"}, "errors imports crypto.keys: goes up from F0 to F1"),
    ("up, absolute", {"wire/a.py": "import house.node.b", "node/b.py": ""}, "wire.a imports node.b: goes up"),
    ("up, absolute from", {"node/a.py": "from house.net import b", "net/b.py": ""}, "node.a imports net.b: goes up"),
    ("up, the public names", {"net/a.py": "from .. import Thing"}, "net.a imports __init__: goes up"),
    ("up, the public names by import", {"net/a.py": "import house"}, "net.a imports __init__: goes up"),
    ("up, in a package's own file", {"crypto/__init__.py": "from ..node import N", "node/__init__.py": ""}, "goes up"),
    ("up, deep", {"net/t/a.py": "from ...app import b", "app/b.py": ""}, "net.t.a imports app.b: goes up"),
    ("up, for types", {"text.py": "if TYPE_CHECKING:\n    from .wire import m", "wire/m.py": ""}, "goes up"),
    ("wire meets bitcoin", {"wire/a.py": "from ..bitcoin import b", "bitcoin/b.py": ""}, "stays on F2"),
    ("bitcoin meets wire", {"bitcoin/b.py": "from ..wire import a", "wire/a.py": ""}, "stays on F2"),
    ("net meets sim", {"net/a.py": "from ..sim import b", "sim/b.py": ""}, "stays on F5"),
    ("sim meets net", {"sim/b.py": "from ..net.a import x", "net/a.py": ""}, "stays on F5"),
    (
        "signing meets the channel",
        {"signing/a.py": "from ..wire import channel", "wire/channel.py": ""},
        "types of wire",
    ),
    ("no floor", {"attic/a.py": "from ..errors import E", "errors.py": ""}, "has no floor"),
    ("a cycle of two", {"wire/a.py": "from . import b", "wire/b.py": "from . import a"}, "cycle: "),
    ("a cycle on F0", {"errors.py": "from .text import t", "text.py": "from . import errors"}, "cycle: "),
    ("a cycle over a package", {"wire/__init__.py": "from .a import A", "wire/a.py": "from . import B"}, "cycle: "),
    *(
        (f"F0 to F4, {name}", {"node/a.py": f"import {name}"}, f"node.a imports {name}: F4 is pure")
        for name in sorted(IMPURE)
    ),
    ("a part of an impure one", {"limits.py": "import os.path"}, "limits imports os: F0 is pure"),
    ("from an impure one", {"wire/a.py": "from time import monotonic"}, "wire.a imports time: F2 is pure"),
    ("inside a class", {"crypto/a.py": "class C:\n    import os"}, "crypto.a imports os: F1 is pure"),
    ("the exception is another module's", {"crypto/a.py": "import secrets"}, "crypto.a imports secrets: F1 is pure"),
    ("the exception is another name", {"crypto/keys.py": "import secrets, time"}, "crypto.keys imports time"),
    ("an unused exception", {"crypto/keys.py": ""}, "crypto.keys: its exception for secrets is not used"),
    ("a late import", {"net/a.py": "def f():\n    import json"}, "net.a:2: import inside f"),
    ("a late import, async", {"net/a.py": "class C:\n  async def f(self):\n    from . import b"}, "import inside f"),
    ("bare", {"net/a.py": "try:\n    x\nexcept:\n    pass"}, "net.a:3: a broad except"),
    ("broad", {"net/a.py": SWALLOWED.format("Exception", "pass")}, "a broad except"),
    ("broader", {"app/a.py": SWALLOWED.format("BaseException as e", "log(e)")}, "a broad except"),
    ("in a tuple", {"sim/a.py": SWALLOWED.format("(OSError, Exception)", "pass")}, "a broad except"),
    ("by attribute", {"net/a.py": SWALLOWED.format("builtins.Exception", "pass")}, "a broad except"),
    ("raises sometimes", {"net/a.py": SWALLOWED.format("Exception", "if x:\n        raise")}, "a broad except"),
    (
        "leaves before",
        {"net/a.py": "def f():\n try:\n  x\n except Exception:\n  if x: return\n  raise"},
        "a broad except",
    ),
    ("group", {"net/a.py": "try:\n    x\nexcept* Exception:\n    pass"}, "a broad except"),
    ("suppressed", {"net/a.py": "with contextlib.suppress(Exception):\n    x"}, "suppresses everything"),
    ("too long", {"net/a.py": "x = 1\n" * 501}, "net.a: 501 lines"),
]


@pytest.mark.parametrize(("files", "fault"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_each_rule_refuses(plant: Plant, files: dict[str, str], fault: str) -> None:
    found = plant(files)
    assert len(found) == 1, found
    assert fault in found[0]


ACCEPTED: list[tuple[str, dict[str, str]]] = [
    ("an empty house", {}),
    ("down, each floor", {
        "errors.py": "from .text import t", "text.py": "from . import limits", "limits.py": "",
        "crypto/a.py": "from ..errors import E", "wire/codec.py": "from ..crypto import a",
        "bitcoin/a.py": "from ..crypto.a import x", "wire/messages.py": "from .codec import C",
        "signing/a.py": "from ..wire.messages import M\nfrom ..bitcoin import a",
        "node/a.py": "from ..signing import a\nfrom ..wire import channel", "wire/channel.py": "import hashlib",
        "net/a.py": "import asyncio, os\nfrom ..node import a", "sim/a.py": "import random\nfrom ..node.a import n",
        "__init__.py": "from .net.a import S", "app/cli.py": "from .. import S\nfrom ..net import a",
        "__main__.py": "from .app.cli import main",
    }),
    ("a command imports late", {"app/cli.py": "def demo():\n    from ..net import a", "net/a.py": ""}),
    ("another package of the same ending", {"errors.py": "import warehouse.node"}),
    ("broad, raised again", {"net/a.py": SWALLOWED.format("BaseException", "clean()\n    raise")}),
    ("broad, raised as another", {"net/a.py": SWALLOWED.format("Exception as e", "raise IoError() from e")}),
    ("narrow", {"node/a.py": SWALLOWED.format("(ValueError, KeyError)", "pass")}),
    ("the guard's one", {"net/guard.py": SWALLOWED.format("Exception", "log()")}),
    ("narrow suppression", {"net/a.py": "with suppress(OSError):\n    x"}),
    ("as long as it may be", {"net/a.py": "x = 1\n" * 500}),
]  # fmt: skip


@pytest.mark.parametrize("files", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_each_rule_accepts(plant: Plant, files: dict[str, str]) -> None:
    assert plant(files) == []


def test_an_exception_for_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    assert violations(tmp_path / "house", {"crypto.gone": frozenset({"os"})}) == [
        "crypto.gone: an exception for a module that is not there"
    ]
