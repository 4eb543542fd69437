"""`import musignet` beside importing what it imports, each in a fresh interpreter."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

_TIMED = "from time import perf_counter as t; b = t(); import {}; print((t() - b) * 1e3)"


class Near:
    """Has no far side."""

    def __init__(self, folder: Path) -> None:
        self._own = _absolute_imports()
        # Compiled modules are kept here, whatever the caller's environment says: after the warming-up all are.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment = kept | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}

    async def import_ms(self) -> dict[str, float]:
        """Return milliseconds for the package, and for exactly the modules from elsewhere that it names."""
        return {"musignet": self._timed("musignet"), "dependencies": self._timed(", ".join(self._own))}

    def _timed(self, modules: str) -> float:
        command = [sys.executable, "-c", _TIMED.format(modules)]
        return float(subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout)


def _absolute_imports() -> list[str]:
    """Return the modules from elsewhere that the loaded modules of `musignet` import, as far as they are loaded."""
    importlib.import_module("musignet")
    found: set[str] = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "musignet" and module.__file__:
            found.update(_named(ast.parse(Path(module.__file__).read_text())))
    return sorted(name for name in found if name in sys.modules)


def _named(tree: ast.Module) -> set[str]:
    """Return the absolute imports of a module. `import a.b` and `from a.b import c` both name a.b."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module != "__future__":
            names.add(str(node.module))
    return names
