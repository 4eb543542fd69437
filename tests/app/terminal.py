"""A command in a pseudo-terminal: type to it, and wait for what it prints."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Terminal"]

_DEADLINE_S = 30.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """`musignet ARGS` as a person sees it.

    Args: environment, folder - what the command finds, and where.
          controlling - whether it can also be asked at /dev/tty, as a keyholder does.
          pass_fds - file descriptors that it is to have, too.
    """

    def __init__(
        self,
        *args: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        controlling: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._fd, child = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "musignet", *args], stdin=child, stdout=child, stderr=child, start_new_session=True,
            env=environment, cwd=folder, pass_fds=tuple(pass_fds),
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if controlling else None,
        )  # fmt: skip
        os.close(child)
        self.seen = ""
        self._at = 0

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._fd, text.encode("utf-8") + b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Send a signal, once the command waits for something.

        Python misses one between its printing a prompt and its reading the answer. No finger is that fast; a test is.
        """
        deadline = time.monotonic() + _DEADLINE_S
        while self._is_busy() and time.monotonic() < deadline:
            pass
        self._process.send_signal(number)

    def _is_busy(self) -> bool:
        """Whether it runs on a processor, where the system says so."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] == "R"

    def close(self) -> None:
        """Close the window. Nothing can be read or typed any more."""
        os.close(self._fd)
        self._fd = -1

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until something new on the screen matches, and return it."""
        deadline = time.monotonic() + _DEADLINE_S
        while (match := re.compile(pattern).search(self.seen, self._at)) is None:
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} did not appear; on the screen:\n{self.seen}")
        self._at = match.end()
        return match

    def read(self, wait_s: float) -> None:
        """Take in what is printed within a time."""
        self._read(time.monotonic() + wait_s)

    def unread(self, pattern: str) -> re.Match[str] | None:
        """Return something new on the screen that matches, if it is there already; it is old then."""
        match = re.compile(pattern).search(self.seen, self._at)
        self._at = match.end() if match else self._at
        return match

    @property
    def echoes(self) -> bool:
        """Whether what is typed can be seen."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    @property
    def over(self) -> bool:
        """Whether the command has ended and all that it printed was taken in."""
        return self._process.poll() is not None and not self._read(time.monotonic())

    def exit_code(self) -> int:
        """Wait for the end, with everything that is printed until then."""
        deadline = time.monotonic() + _DEADLINE_S
        while self._fd >= 0 and self._read(deadline):
            pass
        return self._process.wait(_DEADLINE_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._fd, 65_536) if ready else b""
        except OSError:  # the other end of a pseudo-terminal is gone
            data = b""
        self.seen += _CONTROL.sub("", data.decode("utf-8", "replace"))
        return bool(data)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._fd >= 0:
            self.close()
