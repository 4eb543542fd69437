"""Relays of other makes, in processes of their own: what PyPI and npm have beside nostr-sdk's (`make relays`)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from websockets.sync.client import connect

__all__ = ["MAKES", "Independent", "Make", "independent"]

_FOLDER = Path(__file__).resolve().parents[2] / "build" / "relays"
_PYTHON = _FOLDER / "python"
_NPM = _FOLDER / "npm"
_START_S = 60.0

_CONFIG = """\
storage:
  sqlalchemy.url: sqlite+aiosqlite:///relay.sqlite3
  validators: [nostr_relay.validators.is_signed, nostr_relay.validators.is_recent]
gunicorn: {{bind: "fd://{descriptor}", workers: 1, loglevel: warning}}
max_event_size: 131072
logging: {{version: 1, disable_existing_loggers: true}}
"""
_SCRIPT = "new (require('nostrmini').default)().listen({fd: Number(process.argv[1])})"


class Make(NamedTuple):
    """How a relay is run: `command` is given its folder and the descriptor of a socket that listens."""

    ready: Path
    command: Callable[[Path, int], list[str]]

    @property
    def missing(self) -> str:
        """Why it cannot be run here, or an empty string."""
        return "" if self.ready.exists() else "not installed: make relays"


def _nostr_relay(folder: Path, descriptor: int) -> list[str]:
    config = folder / "config.yaml"
    config.write_text(_CONFIG.format(descriptor=descriptor))
    return [str(_PYTHON / "bin" / "nostr-relay"), "--config", str(config), "serve"]


def _nostrmini(folder: Path, descriptor: int) -> list[str]:
    return ["node", "-e", _SCRIPT, str(descriptor)]


MAKES = {
    "nostr-relay": Make(_PYTHON / "ready", _nostr_relay),
    "nostrmini": Make(_NPM / "ready", _nostrmini),
}
"""By the name of the package: Python with SQLite; Node.js, in memory, which checks nothing and forgets nothing."""


class Independent:
    """One that runs. Its socket listens before it does, so nobody is turned away while it starts."""

    def __init__(self, make: Make, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening, (folder / "log").open("wb") as log:
            self.url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
            self._process = subprocess.Popen(
                make.command(folder, listening.fileno()),
                cwd=folder,
                env={**os.environ, "NODE_PATH": str(_NPM / "node_modules")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listening.fileno(),),
                start_new_session=True,
            )

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def rss_mib(self) -> float:
        """Return the resident memory of its process and of those that it started."""
        own = [one for one in Path("/proc").iterdir() if one.name.isdecimal() and _group(one) == self._process.pid]
        return sum(int((one / "status").read_text().split("VmRSS:")[1].split()[0]) for one in own) / 1024

    def started(self) -> None:
        """Return once it answers."""
        with connect(self.url, compression=None, open_timeout=_START_S):
            pass

    def kill(self) -> None:
        """End it without a word."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _group(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:
        return 0


@contextmanager
def independent(name: str, folder: Path) -> Iterator[Independent]:
    """Run a relay of this make, and end it."""
    running = Independent(MAKES[name], folder)
    try:
        running.started()
        yield running
    finally:
        running.kill()
