"""A keyring that keeps its passwords in a file, for tests: named by PYTHON_KEYRING_BACKEND."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend

__all__ = ["FileKeyring"]


class FileKeyring(KeyringBackend):
    """Passwords in the JSON file that TEST_KEYRING names."""

    priority = 1

    def _read(self) -> dict[str, str]:
        path = Path(os.environ["TEST_KEYRING"])
        return json.loads(path.read_text()) if path.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        Path(os.environ["TEST_KEYRING"]).write_text(json.dumps({**self._read(), f"{service} {username}": password}))
