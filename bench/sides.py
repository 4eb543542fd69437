"""The two processes of a measurement: started pinned, told what to do by JSON lines, gone with the parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["BenchError", "Pair", "Side"]


class BenchError(Exception):
    """A side failed. It has written its traceback to standard error."""


class Side:
    """One child process: `python -m bench.side`. It ends when its standard input does, so it never outlives us.

    `inside` is put before its command: `ip netns exec NAME`.
    """

    def __init__(
        self,
        module: str,
        role: str,
        cpus: list[int],
        folder: Path,
        profile: Path | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.name = f"{module} {role}"
        command = [*inside, sys.executable, "-m", "bench.side", module, role, ",".join(map(str, cpus)), str(folder)]
        if profile is not None:
            command.append(str(profile))
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then closes the children
        )

    def call(self, verb: str, **arguments: object) -> Any:
        """Have the child do something, and return its result."""
        self.post(verb, **arguments)
        return self.result()

    def post(self, verb: str, **arguments: object) -> None:
        """Begin something. `result` waits for it."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps([verb, arguments]) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"{self.name} is gone, exit code {self._child.wait()}") from None

    def result(self) -> Any:
        """Return the result of the oldest `post`."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended by itself, exit code {self._child.wait()}; see above")
        return json.loads(line)

    def resident_bytes(self) -> int:
        """Return how much memory the process has now."""
        pages = int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def freeze(self, frozen: bool) -> None:
        """Stop the process where it is, or let it go on."""
        os.kill(self._child.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def close(self) -> None:
        """End the child: politely first."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.close()
            self.freeze(False)
            self._child.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()


class Pair:
    """A near side, which measures, and a far side, which answers. A contestant may have only a near one."""

    def __init__(
        self,
        contestant: str,
        near_cpus: list[int],
        far_cpus: list[int] | None,
        folder: Path,
        profile: Path | None = None,
    ) -> None:
        self.contestant, module = contestant, f"bench.link.{contestant}"
        self._far = None if far_cpus is None else Side(module, "Far", far_cpus, folder, profile)
        self.near = Side(module, "Near", near_cpus, folder, profile)

    @property
    def far(self) -> Side:
        if self._far is None:
            raise BenchError(f"{self.contestant} has no far side")
        return self._far

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.near.close()
        if self._far is not None:
            self._far.close()
