"""A node that leaves the terminal once it runs: prompts are answered there first, and then the prompt comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

__all__ = ["detach", "ended", "silence", "start"]

_LOOK_S = 0.05


def start(arguments: Sequence[str], passed: Sequence[int]) -> int | None:
    """Run `musignet ARGUMENTS --ready-fd N` in a process of its own, and wait until it is ready or gone.

    Args:    passed - file descriptors that it is to have, too.
    Returns: None once it is ready, else its exit code; what it had to say is on the terminal.
    """
    reader, writer = os.pipe()
    try:
        command = [sys.executable, "-m", "musignet", *arguments, "--ready-fd", str(writer)]
        child = subprocess.Popen(command, pass_fds=(writer, *passed))
    finally:
        os.close(writer)
    with open(reader, "rb") as told:
        ready = told.read(1)
    if not ready:
        return child.wait()
    child.returncode = 0  # it stays: nobody waits for it
    return None


def detach(ready_fd: int) -> None:
    """Leave the terminal, in the process that `start` began, and tell it that everything runs."""
    silence()
    os.setsid()
    os.write(ready_fd, b"1")
    os.close(ready_fd)


def silence() -> None:
    """Read from nobody and write to nobody, also what is not written yet."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


def ended(pid: int, timeout_s: float) -> bool:
    """Return whether a process of ours is gone within a time."""
    deadline = time.monotonic() + timeout_s
    while _alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
